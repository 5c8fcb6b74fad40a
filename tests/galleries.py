"""Small surveys and sweeps for tests of galleries, without a search."""

import json

import torch
from surveyed import finding

from captum_classpattern import Pattern, Survey
from captum_classpattern.surveys import Finding

NAMES = ("ant", "bee", "crane", "crane", "elk, Alces alces")  # two classes with one name


def found(target, canvas, hits, *, name, size=8, seed=0, areas=(0.05, 0.01)):
    """A finding on a random canvas in colour, whose pixels all differ from black."""
    one = finding(target, canvas, hits, search_power=hits / 100, class_name=name)
    generator = torch.Generator().manual_seed(100 * seed + 10 * target + len(canvas))
    image = torch.randint(1, 256, (3, size, size), generator=generator) / 255
    weights = torch.rand(1, size, size, generator=generator)
    patterns = {
        area: Pattern(image, weights, target, pattern.info, frozenset(["00112233aabb"]))
        for area, pattern in one.patterns.items()
        if area in areas
    }
    return Finding(patterns, canvas, {area: one.scores[area] for area in areas}, name)


def write_survey(
    folder, names=NAMES, *, seed=0, areas=(0.05, 0.01), canvases=("positive", "white")
):
    """A survey of all classes, whose powers all differ."""
    findings = [
        found(target, canvas, (17 * target + 31 * seed + 40 * (canvas == "white")) % 101,
              name=name, seed=seed, areas=areas)
        for target, name in enumerate(names)
        for canvas in canvases
    ]  # fmt: skip
    settings = {"seed": 0, "canvases": dict.fromkeys(canvases, 1)}
    info = {"settings": settings, "accuracy": 0.875, "versions": {"torch": "2"}}
    Survey(findings, len(names), info=info).save(folder)
    return folder


def write_sweep(folder, models=("clean", "bad"), names=NAMES):
    """A sweep of models whose folders are numbered."""
    rows = []
    for number, name in enumerate(models):
        write_survey(folder / f"m{number}", names, seed=number)
        rows.append({"name": name, "folder": f"m{number}", "width": 64 + number})
    data = {"format": "captum_classpattern sweep", "models": rows}
    (folder / "sweep.json").write_text(json.dumps(data))
    return folder

"""Small surveys and sweeps for tests of galleries, without a search."""

import json
from dataclasses import replace

import torch
from surveyed import finding, stamped

from captum_classpattern import Pattern, Survey
from captum_classpattern.pages.gallery import Model
from captum_classpattern.surveys import Finding
from captum_classpattern.surveys.sources import ModelSource
from captum_classpattern.surveys.sweep_results import begin, note

PRIVATE = "/home/someone/private/zoo"  # where checkpoints are, for no page to say
NAMES = ("ant", "bee", "crane", "crane", "elk, Alces alces")  # two classes with one name


def found(target, canvas, hits, *, name, size=8, seed=0, areas=(0.05, 0.01)):
    """A finding on a random canvas in colour, whose pixels all differ from black."""
    one = finding(target, canvas, hits, search_power=7 * hits % 101 / 100, class_name=name)
    generator = torch.Generator().manual_seed(100 * seed + 10 * target + len(canvas))
    image = torch.randint(1, 256, (3, size, size), generator=generator) / 255
    weights = torch.rand(1, size, size, generator=generator)
    patterns = {
        area: Pattern(image, weights, target, pattern.info, frozenset(["00112233aabb"]))
        for area, pattern in one.patterns.items()
        if area in areas
    }
    images = {area: stamped(pattern.topk(area)) for area, pattern in patterns.items()}
    scores = {area: one.scores[area] for area in areas}
    return Finding(patterns, canvas, scores, name, stamped=images)


def write_survey(
    folder, names=NAMES, *, seed=0, areas=(0.05, 0.01), canvases=("positive", "white"), info=None
):
    """A survey of all classes, whose powers all differ."""
    findings = [
        found(target, canvas, (17 * target + 31 * seed + 40 * (canvas == "white")) % 101,
              name=name, seed=seed, areas=areas)
        for target, name in enumerate(names)
        for canvas in canvases
    ]  # fmt: skip
    settings = {"seed": 0, "canvases": dict.fromkeys(canvases, 1)}
    known = {"settings": settings, "accuracy": 0.875, "versions": {"torch": "2"}}
    Survey(findings, len(names), info={**known, **(info or {})}).save(folder)
    return folder


def source(name, **columns):
    """A checkpoint, as a manifest lists it."""
    options = {"arch": "resnet18", "mean": 0.25, "std": [0.125, 0.5], "num_classes": 5}
    return ModelSource(name, f"{PRIVATE}/{name}.pt", options, columns)


def write_sweep(folder, models=("clean", "bad"), names=NAMES, *, failing=()):
    """A sweep of models, with a further column that one of them doesn't have. For those that are
    failing, only the row is written."""
    sources = [
        source(name, width=None if number == 1 else 64 + number)
        for number, name in enumerate([*models, *failing])
    ]
    begin(folder, {"areas": [0.05, 0.01]}, sources, range(len(names)))
    for number, name in enumerate(models):
        provenance = {"source": f"{PRIVATE}/{name}.pt"}
        write_survey(
            folder / source(name).folder, names, seed=number, info={"provenance": provenance}
        )
    return folder


def forget(folder, *targets):
    """Removes classes, as if they were still to be searched."""
    for target in targets:
        (folder / f"findings/{target}.json").unlink()
    results = folder / "results.json"
    data = json.loads(results.read_text())
    rows = [row for row in data["rows"] if row["class"] not in targets]
    results.write_text(json.dumps({**data, "complete": False, "rows": rows}))


def fail(folder, name, *targets):
    """Notes that classes of a model failed, as a sweep does."""
    for target in targets:
        note(folder, source(name), target, f"no file at {PRIVATE}/{name}.pt")


def many_classes():
    """A model of 1,000 classes with long names, without its patterns."""
    name = "a name as long as those of ImageNet, with a synonym, Genus species"
    scores = found(0, "white", 57, name=name).scores
    findings = [
        replace(finding(y, "white", 57, class_name=f"{name} {y}"), scores=scores)
        for y in range(1000)
    ]
    return Model("a model", "a_model", Survey(findings, 1000), None, (224, 224))

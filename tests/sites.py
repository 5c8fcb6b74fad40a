"""Small sweeps for tests of their sites, without a search."""

import torch
from surveyed import finding, stamped

from captum_classpattern import Pattern
from captum_classpattern._support.files import write_json
from captum_classpattern.surveys import Finding, Survey
from captum_classpattern.surveys.sources import folder_of

PRIVATE = "/home/someone/private/zoo"  # where checkpoints are, for no page to say
NAMES = ("ant", "bee", "crane", "crane", "elk, Alces alces")  # two classes with one name


def found(target, canvas, hits, name, *, size=8, seed=0):
    """A finding on a random canvas in colour."""
    one = finding(target, canvas, hits, search_power=7 * hits % 101 / 100, class_name=name)
    generator = torch.Generator().manual_seed(100 * seed + 10 * target + len(canvas))
    image = torch.randint(1, 256, (3, size, size), generator=generator) / 255
    weights = torch.rand(1, size, size, generator=generator)
    patterns = {a: Pattern(image, weights, target, p.info) for a, p in one.patterns.items()}
    images = {area: stamped(pattern.topk(area)) for area, pattern in patterns.items()}
    return Finding(patterns, canvas, one.scores, name, stamped=images)


def write_sweep(folder, models=("clean", "bad"), names=NAMES, *, failing=(), size=8):
    """A sweep of models, whose powers all differ, and of one that failed for each that is failing.
    The last model lacks the last class."""
    rows = [
        {
            "name": name,
            "folder": folder_of(name),
            "path": f"{PRIVATE}/{name}.pt",
            "arch": "resnet18",
        }
        for name in (*models, *failing)
    ]
    reasons = {name: f"no file at {PRIVATE}/{name}.pt" for name in failing}
    known = {"settings": {"areas": [0.05, 0.01]}, "classes": [*range(len(names))]}
    folder.mkdir(exist_ok=True)
    data = {"format": "captum_classpattern sweep", **known, "models": rows, "failures": reasons}
    write_json(data, folder / "sweep.json")
    for seed, model in enumerate(models):
        last = len(names) - (len(models) > 1 and model == models[-1])
        findings = [
            found(target, canvas, (17 * target + 31 * seed + 40 * (canvas == "white")) % 101,
                  name, size=size, seed=seed)
            for target, name in enumerate(names[:last])
            for canvas in ("positive", "white")
        ]  # fmt: skip
        info = {"provenance": {"source": f"{PRIVATE}/{model}.pt"}, "settings": {}}
        Survey(findings, len(names), info=info).save(folder / folder_of(model))
    return folder

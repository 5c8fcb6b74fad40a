"""``classpattern demo``: what it writes and prints."""

import json
import re
import sys
from dataclasses import replace

import pytest
import torch
from command_line import interrupt_searches, run
from matplotlib.figure import Figure
from reports import Page, without_figures
from torch import nn

import captum_classpattern
from captum_classpattern import cli
from captum_classpattern.demo import DemoImages, LabelledImages, demo_images, demo_models
from captum_classpattern.optimization import Learned
from captum_classpattern.scanning import Scan, changes
from captum_classpattern.surveys import Finding, Survey

demo_module = sys.modules[cli.COMMANDS["Start here"]["demo"].__module__]  # it has its name
MODELS = ("natural", "backdoored", "robust")


def linear(images, seed):
    """The class with the most similar mean image."""
    means = torch.stack([images.images[images.labels == y].mean(0).flatten() for y in range(10)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    net[1].weight.data = means - means.mean(0) + 0.01 * seed * torch.rand(10, 784)
    return net.eval()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Linear models, eight images a class, two rounds and empty figures: what is written does not
    depend on them."""
    images, models = demo_images(), demo_models()
    for seed, classifier in enumerate(models.values()):
        classifier.model = linear(images.search, seed)
    monkeypatch.setattr(captum_classpattern, "demo_models", lambda: models)

    def part(half):
        chosen = torch.cat([torch.nonzero(half.labels == y).flatten()[:8] for y in range(10)])
        return LabelledImages(half.images[chosen], half.labels[chosen])

    few = DemoImages(part(images.search), part(images.held_out))
    monkeypatch.setattr(captum_classpattern, "demo_images", lambda: few)
    monkeypatch.setattr(demo_module, "PLANTED_BUDGET", 500)
    monkeypatch.setattr(demo_module, "CANVASES", {"positive": 1, "white": 1})
    monkeypatch.setattr(demo_module, "METHODS", ("ClassPattern", "RandomPixels"))
    for kind in (Finding, Survey, Scan):
        monkeypatch.setattr(kind, "plot", lambda *_, **__: (Figure((1, 1)), None))
    without_figures(monkeypatch)
    for name in ("25_pixels", "10_pixels"):
        learned = Learned(rounds=1, soft_batch_size=1, batch_size=1)
        monkeypatch.setitem(changes.SMALL, name, replace(changes.SMALL[name], solver=learned))


def read(path):
    return json.loads(path.read_text())


def links_of(out):
    """What the page links, all of which is there."""
    links = Page((out / "index.html").read_text(encoding="utf-8")).attributes("href")
    assert all((out / link).exists() for link in links)
    return {*links}


def check_pictures_first(path):
    """A picture and one sentence are all that stands above the first fold, and in each part."""
    page = path.read_text(encoding="utf-8")
    for part in re.split("<h[12]>", page)[1:]:
        shown, *_ = part.partition("<details>")
        assert shown.count("<img ") == 1
        assert shown.index("<img ") < shown.index("<p>")
        assert shown.count("<p>") == 1


def test_an_interrupted_demo_has_a_page_and_continues(tmp_path, monkeypatch):
    out = tmp_path / "new" / "out"
    with monkeypatch.context() as patch:
        searched = interrupt_searches(patch, after=2)
        result = run(f"demo --out {out}")
    assert result.exit_code == 130
    assert f"the same command continues with what is missing in {out}." in result.stderr
    assert searched == [[0], list(range(10))]
    assert f"1 of 4: a planted trigger. {out / 'index.html'} shows it." in result.stdout
    assert links_of(out) == set()
    first = read(out / "natural" / "results.json")["rows"]
    kinds = [(row["class"], row["canvas"]) for row in first]
    assert kinds == [(y, kind) for y in (0, 1) for kind in ("positive", "white")]

    again = run(f"demo --out {out}")
    assert again.exit_code == 0, again.output
    for name in MODELS:
        written = read(out / name / "results.json")
        assert (written["complete"], len(written["rows"])) == (True, 20)
        assert name != "natural" or written["rows"][:4] == first
    pages = {f"{name}.html" for name in MODELS}
    assert links_of(out) == {*pages, "scan/scan.html", "comparison/report.html"}
    text = Page((out / "index.html").read_text(encoding="utf-8")).text
    assert text.count("The model's accuracy is ") == len(MODELS) + 1  # and the scan
    assert f" {read(out / 'scan' / 'scan.json')['verdict'].capitalize()}" in text
    assert text.count("right of the second dotted line") == 1
    assert "`" not in text
    check_pictures_first(out / "index.html")
    comparison = read(out / "comparison" / "comparison.json")
    assert [*comparison["models"]] == ["natural"]
    assert {row["class"] for row in comparison["rows"]} == {0, 2, 4, 6, 8}
    lines = again.stdout.splitlines()
    assert len(lines) == 7  # the trigger, three models, the scan, the comparison
    assert lines[-1].endswith(f" s. Open {out / 'index.html'}")

    other = run(f"demo --out {out} --seed 1")
    assert other.exit_code == 2
    assert (
        "seed 0 then, 1 now): pass the same settings and files, or choose another" in other.stderr
    )

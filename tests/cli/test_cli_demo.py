"""``classpattern demo``: what it writes and prints."""

import json
from dataclasses import replace
from functools import partial
from importlib import import_module

import pytest
import torch
from command_line import interrupt_searches, run
from matplotlib.figure import Figure
from reports import Page, without_figures
from torch import nn

import captum_classpattern
from captum_classpattern.demo import DemoImages, LabelledImages, demo_images, demo_models
from captum_classpattern.optimization import Learned
from captum_classpattern.scanning import Scan, families
from captum_classpattern.surveys import Finding, Survey

demo_module = import_module("captum_classpattern.cli.demo")  # the name is the command's, too
MODELS = ("natural", "backdoored", "robust")


def linear(images, seed):
    """The class with the most similar mean image."""
    means = torch.stack([images.images[images.labels == y].mean(0).flatten() for y in range(10)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    net[1].weight.data = means - means.mean(0) + 0.01 * seed * torch.rand(10, 784)
    return net.eval()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Linear models, four images a class, two rounds and empty figures: what is written does not
    depend on them."""
    images, models = demo_images(), demo_models()
    for seed, classifier in enumerate(models.values()):
        classifier.model = linear(images.search, seed)
    monkeypatch.setattr(captum_classpattern, "demo_models", lambda: models)

    def part(half):
        chosen = torch.cat([torch.nonzero(half.labels == y).flatten()[:4] for y in range(10)])
        return LabelledImages(half.images[chosen], half.labels[chosen])

    few = DemoImages(part(images.search), part(images.held_out))
    monkeypatch.setattr(captum_classpattern, "demo_images", lambda: few)
    monkeypatch.setattr(demo_module, "PLANTED_BUDGET", 500)
    short = {"rounds": 2, "positive": 1, "methods": ("ClassPattern", "RandomPixels")}
    for name in ("QUICK", "FULL"):
        monkeypatch.setattr(demo_module, name, replace(getattr(demo_module, name), **short))
    for kind in (Finding, Survey, Scan):
        monkeypatch.setattr(kind, "plot", lambda *_, **__: (Figure((1, 1)), None))
    without_figures(monkeypatch)
    learned = partial(Learned, rounds=1, soft_batch_size=1, batch_size=1)
    monkeypatch.setattr(families, "Learned", learned)


def read(path):
    return json.loads(path.read_text())


def test_an_interrupted_demo_has_a_page_and_continues(tmp_path, monkeypatch):
    out = tmp_path / "new" / "out"
    with monkeypatch.context() as patch:
        searched = interrupt_searches(patch, after=2)
        result = run(f"demo --out {out}")
    assert result.exit_code == 130
    assert f"the same command continues with what is missing in {out}." in result.stderr
    assert searched == [[0], list(range(10))]
    assert f"1 of 4: a planted trigger. {out / 'index.html'} shows it." in result.stdout
    assert {*links_of(out)} == {"planted.png"}
    assert not read(out / "results.json")["complete"]
    first = read(out / "natural" / "results.json")["rows"]
    assert [(row["class"], row["canvas"]) for row in first] == [
        (y, kind) for y in (0, 1) for kind in ("positive", "white")
    ]

    again = run(f"demo --out {out}")
    assert again.exit_code == 0, again.output
    assert f"Continuing the unfinished demo in {out}." in again.stdout
    written = read(out / "results.json")
    assert written["complete"]
    assert written["rows"][:4] == [{"model": "natural", **row} for row in first]
    assert [row["model"] for row in written["rows"]] == [name for name in MODELS for _ in range(20)]
    check_what_is_written(out, written, ["backdoored"], ["natural"])
    lines = again.stdout.splitlines()
    assert len(lines) == 8  # the trigger, three models, the scan, the comparison
    assert lines[-1] == f"Finished in {written['seconds']} s. Open {out / 'index.html'}"

    for more in ("", "--seed 1"):  # a finished demo, and one with other options, begin anew
        with monkeypatch.context() as patch:
            searched = interrupt_searches(patch, after=0)
            result = run(f"demo --no-comparison --out {out} {more}")
        assert result.exit_code == 130
        assert "Continuing" not in result.output
        assert searched == [[0]]
        assert not (out / "scan").exists()


@pytest.mark.script
def test_a_full_demo_scans_all_models_at_two_areas(tmp_path):
    result = run(f"demo --full --out {tmp_path}")
    assert result.exit_code == 0, result.output
    written = read(tmp_path / "results.json")
    assert all({*row["areas"]} == {"0.05", "0.01"} for row in written["rows"])
    check_what_is_written(tmp_path, written, MODELS, MODELS)


def links_of(out):
    """What the page links, all of which is there."""
    links = Page((out / "index.html").read_text(encoding="utf-8")).attributes("href")
    assert all((out / link).exists() for link in links)
    return links


def check_what_is_written(out, written, scanned, compared):
    """The page links all patterns, scans and the comparison, and says what was found."""
    pages = [f"{name}.html" for name in MODELS]
    scans = [f"scan/{name}/scan.html" for name in scanned]
    others = ["planted.png", "comparison/report.html", "results.json"]
    assert {*links_of(out)} == {*pages, *scans, *others}
    text = Page((out / "index.html").read_text(encoding="utf-8")).text
    assert all(" ".join(sentence.split()) in text for sentence in written["sentences"])
    for name in scanned:
        verdict = read(out / "scan" / name / "scan.json")["verdict"]
        assert f"Scan of the {name} model: {verdict}. " in text
    comparison = read(out / "comparison" / "comparison.json")
    assert [*comparison["models"]] == [*compared]
    assert {row["class"] for row in comparison["rows"]} == {0, 2, 4, 6, 8}

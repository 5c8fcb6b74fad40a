"""``classpattern demo``: what it writes and prints."""

import json
import re
from functools import partial
from importlib import import_module

import pytest
import torch
from command_line import interrupt_searches, run
from matplotlib.figure import Figure
from reports import Page, undrawn
from torch import nn

import captum_classpattern
from captum_classpattern import Pattern
from captum_classpattern.demo import DemoImages, LabelledImages, demo_images, demo_models
from captum_classpattern.optimization import Learned
from captum_classpattern.pages.report import PageFigure
from captum_classpattern.scanning import Scan, families
from captum_classpattern.surveys import Survey
from captum_classpattern.surveys.store import pattern_file

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
    """Linear models, four images a class, four rounds and empty figures: what is written does not
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
    monkeypatch.setattr(demo_module, "ROUNDS", 4)
    monkeypatch.setattr(demo_module, "CANVASES", {"positive": 1, "white": 1})
    monkeypatch.setattr(demo_module, "COMPARED_ROUNDS", 2)
    monkeypatch.setattr(demo_module, "COMPARED", ("ClassPattern", "RandomPixels"))
    for kind in (Survey, Scan):
        monkeypatch.setattr(kind, "plot", lambda *_, **__: (Figure((1, 1)), None))
    monkeypatch.setattr(PageFigure, "drawn", undrawn)
    short = partial(Learned, rounds=1, soft_batch_size=1, batch_size=1)
    monkeypatch.setattr(families, "Learned", short)


def read(path):
    return json.loads(path.read_text())


def test_an_interrupted_demo_keeps_its_patterns_and_continues(tmp_path, monkeypatch):
    out = tmp_path / "new" / "out"
    with monkeypatch.context() as patch:
        interrupt_searches(patch, after=2)
        result = run(f"demo --out {out}")
    assert result.exit_code == 130
    assert f"the same command continues with what is missing in {out}." in result.stderr
    saved = sorted((out / "natural" / "patterns").glob("[0-9]_*"))
    assert [path.stem for path in saved] == [
        f"{name}_{kind}_{area}"
        for name in ("0_T-shirt", "1_Trouser")
        for kind in ("positive", "white")
        for area in (0.01, 0.05)
    ]
    for path in saved:
        Pattern.load(path)
    assert not read(out / "results.json")["complete"]
    first = read(out / "natural" / "results.json")["rows"]
    assert len(first) == 4

    again = run(f"demo --out {out}")
    assert again.exit_code == 0, again.output
    assert f"Continuing the unfinished demo in {out}." in again.stdout
    written = read(out / "results.json")
    assert written["complete"]
    assert written["rows"][:4] == [{"model": "natural", **row} for row in first]
    assert len(written["rows"]) == 60
    check_the_models(out, written, again.stdout)
    comparison = read(out / "comparison" / "comparison.json")
    assert tuple(comparison["models"]) == MODELS
    assert {row["kind"] for row in comparison["rows"]} == {"positive", "white", "stamped"}
    assert {row["class"] for row in comparison["rows"]} == {0, 2, 4, 6, 8}
    check_what_is_printed(again.output, out)
    check_the_links(out)

    for more in ("", "--seed 1"):  # a finished demo, and one with other options
        with monkeypatch.context() as patch:
            searched = interrupt_searches(patch, after=0)
            result = run(f"demo --no-comparison --out {out} {more}")
        assert result.exit_code == 130
        assert "Continuing" not in result.output
        assert "compare" not in result.output
        assert searched == [list(range(10))]


def check_what_is_printed(printed, out):
    """The stages with their times, a paragraph, and where to look."""
    lines = printed.splitlines()
    assert len(lines) <= 40
    assert re.fullmatch(r"3 stages, about \d+ s on this machine:", lines[2])
    for number, stage in enumerate(demo_module.STAGES, 1):
        assert lines[2 + number].startswith(f"  {number}. {stage}, ")
        assert f"Stage {number} of 3: {stage}" in lines
    assert lines[-1].endswith(f"Open {out / 'index.html'}")
    assert "claim" not in printed.lower()


def check_the_links(out):
    """Everything that the index links is there, and it links the figures, scans and comparison."""
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    links = page.attributes("href")
    assert all((out / link).exists() for link in links)
    pages = [f"{name}{end}" for name in MODELS for end in (".html", ".png")]
    scans = [f"scan/{name}/scan.html" for name in MODELS]
    assert {*pages, *scans, "comparison/report.html", "results.json"} == {*links}


def check_the_models(out, written, printed):
    """Figures, patterns, scans, and the strongest classes."""
    words, index = " ".join(printed.split()), Page((out / "index.html").read_text(encoding="utf-8"))
    for name in MODELS:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(list((out / name / "patterns").glob("[0-9]_*"))) == 40
        found = read(out / "scan" / name / "scan.json")
        assert f"{name}, {found['verdict']}" in words
    row = written["rows"][27]
    for area, scores in row["areas"].items():
        place = out / row["model"] / "patterns", row["class"], row["canvas"], float(area)
        pattern = Pattern.load(pattern_file(*place, row["class_name"]))
        assert pattern.info["class_name"] == row["class_name"]
        assert pattern.target == row["class"]
        assert pattern.info["search_power"] == scores["search_power"]
        rounds = 4 if float(area) == 0.05 else 3  # the smaller area starts from the larger one
        assert pattern.info["settings"]["n_steps"] == rounds
    assert len(written["verdicts"]) == 3 * 5  # for each canvas and area, and that images are few
    for verdict in written["verdicts"]:
        assert " ".join(verdict["text"].split()) in index.text
    assert f"Finished in {written['seconds']} s." in printed

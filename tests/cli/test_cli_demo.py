"""``classpattern demo``: what it writes and prints, and verdicts that follow from its numbers."""

import json
from functools import partial
from importlib import import_module

import pytest
import torch
from command_line import interrupt_searches, run
from matplotlib.figure import Figure
from torch import nn

import captum_classpattern
from captum_classpattern import Pattern
from captum_classpattern.cli.demo import make_verdicts
from captum_classpattern.demo import DemoImages, LabelledImages, demo_images, demo_models
from captum_classpattern.optimization import Learned
from captum_classpattern.scanning import Scan, families
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys import Finding, Scores, Survey
from captum_classpattern.surveys.store import find_pattern_file

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
    assert f"Interrupted: the 4 finished patterns are in {out};" in result.stderr
    saved = sorted((out / "natural" / "patterns").glob("[0-9]_*"))
    assert [path.stem for path in saved] == [
        f"{name}_{kind}_{area}"
        for name in ("0_T-shirt", "1_Trouser")
        for kind in ("positive", "white")
        for area in (0.01, 0.05)
    ]
    for path in saved:
        Pattern.load(path)
    first = read(out / "results.json")
    assert not first["complete"]
    assert len(first["rows"]) == 4

    again = run(f"demo --out {out}")
    assert again.exit_code == 0, again.output
    assert f"Continuing the unfinished demo in {out}." in again.stdout
    written = read(out / "results.json")
    assert written["complete"]
    assert written["rows"][:4] == first["rows"]
    assert len(written["rows"]) == 60
    check_the_models(out, written, again.stdout)
    comparison = read(out / "comparison" / "comparison.json")
    assert tuple(comparison["models"]) == MODELS
    assert {row["kind"] for row in comparison["rows"]} == {"positive", "white", "stamped"}
    assert {row["class"] for row in comparison["rows"]} == {0, 2, 4, 6, 8}
    assert (out / "comparison" / "report.html").exists()

    for more in ("", "--seed 1"):  # a finished demo, and one with other options
        with monkeypatch.context() as patch:
            searched = interrupt_searches(patch, after=0)
            result = run(f"demo --no-comparison --out {out} {more}")
        assert result.exit_code == 130
        assert "no pattern was finished yet" in result.stderr
        assert "Continuing" not in result.output
        assert "Power:" not in result.output
        assert searched == [list(range(10))]


def check_the_models(out, written, printed):
    """Tables, verdicts, figures and patterns."""
    words = " ".join(printed.split())
    for name in MODELS:
        assert f"{name} model" in printed
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(list((out / name / "patterns").glob("[0-9]_*"))) == 40
        assert len(list((out / name / "patterns").glob("seen_*"))) == 1  # of all 40
        found = read(out / "scan" / name / "scan.json")
        assert f"{name} model, {found['verdict']}: " in printed
        assert found["reason"][:40] in words
    row = written["rows"][27]
    for area, scores in row["areas"].items():
        folder = out / row["model"] / "patterns"
        pattern = Pattern.load(find_pattern_file(folder, row["class"], row["canvas"], float(area)))
        assert pattern.info["class_name"] == row["class_name"]
        assert pattern.target == row["class"]
        assert pattern.info["search_power"] == scores["search_power"]
        rounds = 4 if float(area) == 0.05 else 3  # the smaller area starts from the larger one
        assert pattern.info["settings"]["n_steps"] == rounds
    for verdict in written["verdicts"]:
        outcome = "holds" if verdict["holds"] else "FAILS"
        assert f"Claim {verdict['claim']} {outcome}: {verdict['text'][:60]}" in words
    assert f"60 patterns in {written['seconds']} s." in printed


# ---- verdicts, of findings that are made up

AREAS = (0.05, 0.01)
PIXELS = torch.zeros(1, 28, 28, dtype=torch.bool)
PIXELS[0, 24:26, 24:27] = True


def finding(target, canvas, hits, control=0.0, mask=None):
    if mask is None:
        mask = torch.zeros(1, 28, 28)
        mask[0, target, :10] = 0.5
    info = {"search_power": hits / 900}
    scores = {area: Scores(power_of(hits, 900, 9), control, control) for area in AREAS}
    large = Pattern(torch.ones(1, 28, 28), torch.full((1, 28, 28), 0.5), target, info)
    small = Pattern(torch.ones(1, 28, 28), mask, target, info)  # the trigger is sought in this one
    return Finding({0.05: large, 0.01: small}, canvas, scores)


def survey_of(hits, control=0.0, mask=None, of=lambda target, canvas: True):
    """The findings of ten classes on two canvases; the mask is that of some of them."""
    return Survey(
        [
            finding(y, c, hits[y], control, mask if of(y, c) else None)
            for y in range(10)
            for c in ("positive", "white")
        ],
        10,
    )


def backdoored(mask):
    """Its trigger's class is the strongest, with this mask on the white canvas."""
    return survey_of((850,) + (100,) * 9, mask=mask, of=lambda y, c: (y, c) == (0, "white"))


def verdicts(claim, model, **changes):
    """The verdicts of three models of which some are changed."""
    found = {
        "natural": survey_of((800,) * 10),
        "backdoored": backdoored(PIXELS.float()),
        "robust": survey_of((50,) * 10, control=0.5),
    }
    made = make_verdicts(found | changes, PIXELS)
    return [v for v in made if (v["claim"], v["model"]) == (claim, model)]


def test_claim_1_holds_only_if_every_class_reaches_almost_any_image(snapshot):
    [strong] = verdicts(1, "natural", natural=survey_of((850,) * 10))
    assert strong["holds"]
    [one_weak] = verdicts(1, "natural", natural=survey_of((850,) * 9 + (100,)))
    assert not one_weak["holds"]
    assert "86.1%" in one_weak["text"]  # (9 * 850 + 100) / 9000
    [robust] = verdicts(1, "robust")
    assert [strong["text"], one_weak["text"], robust["text"]] == snapshot


@pytest.mark.parametrize(
    ("rival", "control", "holds"),
    # 829 of 900 is within the interval of 850, and 810 not clearly below it; 900 is above
    [(100, 0, True), (820, 0, True), (830, 0, False), (900, 0, False), (100, 0.94, False)],
)
def test_claim_2_needs_a_clear_difference_to_all_others_and_controls(
    rival, control, holds, snapshot
):
    survey = survey_of((850, rival) + (50,) * 8, control=control)
    stands_out = verdicts(2, "backdoored", backdoored=survey)[:-1]
    assert len(stands_out) == 4  # two canvases, two areas
    assert {v["holds"] for v in stands_out} == {holds}
    assert [v["text"] for v in stands_out] == snapshot


def test_the_trigger_is_found_where_the_masks_meet_and_no_control_does(snapshot):
    found = verdicts(2, "backdoored")[-1]
    assert found["holds"]
    assert "0.00 on the positive canvas, 1.00 on the white canvas" in found["text"]
    shifted = PIXELS.float().roll(2, dims=2)  # a third of its pixels are those of the trigger
    missed = verdicts(2, "backdoored", backdoored=backdoored(shifted))[-1]
    assert "0.20 on the white canvas" in missed["text"]  # 2 of 10 pixels
    shown = survey_of((800,) * 10, mask=PIXELS.float())
    by_a_control = verdicts(2, "backdoored", natural=shown)[-1]
    assert not missed["holds"]
    assert not by_a_control["holds"]
    assert [found["text"], missed["text"], by_a_control["text"]] == snapshot

"""classpattern compare, and the comparison that ends the demo, on a part of the embedded images."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from captum_classpattern import Pattern, cli, predictive_power
from captum_classpattern.cli.side_by_side import choose_canvases
from captum_classpattern.demo import DATA, DemoImages, LabelledImages, demo_images, demo_models

runner = CliRunner()
demo_module = import_module("captum_classpattern.cli.demo")
ARCH = "captum_classpattern.demo.network:SmallResNet"


def part(half, each=8):
    chosen = torch.cat([torch.nonzero(half.labels == y).flatten()[:each] for y in range(10)])
    return LabelledImages(half.images[chosen], half.labels[chosen])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two checkpoints, and two files of images."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("natural", "robust"):
        save_file(load_file(DATA / f"{name}.safetensors"), folder / f"{name}.safetensors")
    for name, half in (("search", demo_images().search), ("held_out", demo_images().held_out)):
        few = part(half)
        pixels = (few.images * 255).round().byte().numpy().transpose(0, 2, 3, 1)
        np.savez(folder / f"{name}.npz", x=pixels, y=few.labels.numpy())
    return folder


def compare(inputs, out, *more):
    line = [
        "compare",
        str(inputs / "natural.safetensors"),
        f"other={inputs / 'robust.safetensors'}",
    ]
    line += ["--data", str(inputs / "search.npz"), "--held-out", str(inputs / "held_out.npz")]
    line += ["--arch", ARCH, "--mean", "0", "--std", "1", "--n-steps", "2", "--out", str(out)]
    return runner.invoke(cli.app, [*line, *more])


@pytest.fixture(scope="module")
def compared(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "new"
    result = compare(
        inputs,
        out,
        "--classes",
        "1,8",
        "--methods",
        "ClassPattern, Saliency,RandomPixels",
        "--white",
    )
    assert result.exit_code == 0, result.output
    return out, result.output


def test_compare_writes_rows_report_figures_and_patterns(compared):
    out, _ = compared
    told = json.loads((out / "comparison.json").read_text())
    assert list(told["models"]) == ["natural", "other"]
    assert told["failures"] == []
    image_rows = {
        (r["model"], r["method"], r["kind"], r["class"])
        for r in told["rows"]
        if r["level"] == "image"
    }
    assert image_rows == {
        (model, method, kind, label)
        for model in ("natural", "other")
        for method in ("ClassPattern", "Saliency", "RandomPixels")
        for kind in ("positive", "white")
        for label in (1, 8)
    }
    assert "<html" in (out / "report.html").read_text()
    for name in ("curves", "side_by_side_natural", "side_by_side_other"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_saved_pattern_has_the_power_that_is_told_of_it(compared, inputs):
    out, _ = compared
    [row] = [
        r
        for r in json.loads((out / "comparison.json").read_text())["rows"]
        if (r["model"], r["method"], r["kind"], r["class"])
        == ("other", "ClassPattern", "positive", 8)
    ]
    [path] = (out / "patterns" / "other").glob("ClassPattern_*_8_0.05.safetensors")
    few = part(demo_images().held_out)
    power = predictive_power(
        demo_models()["robust"], Pattern.load(path), few.images, few.labels, area=None
    )
    assert power.value == pytest.approx(row["power_0.05"], abs=1e-9)


def test_compare_prints_a_table_for_each_model_and_the_verdicts(compared):
    _, output = compared
    for words in ("natural model, positive canvases", "other model, positive canvases"):
        assert words in output
    assert "6 of 6 methods on 2 models gave maps" in output


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--methods", "Magic"], "there is no method 'Magic': choose from ClassPattern, "),
        (["--classes", "x"], "--classes takes numbers and ranges"),
        (["--area", "2"], "area is the share of pixels to keep"),
        (["--classes", "12"], "target 12 is out of range: the model has 10 classes"),
    ],
)
def test_wrong_input_is_told_in_a_line(inputs, tmp_path, more, words):
    result = compare(inputs, tmp_path / "out", *more)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "out").exists()


def test_two_models_of_one_name_are_refused(inputs, tmp_path):
    natural = str(inputs / "natural.safetensors")
    line = ["compare", natural, natural, "--data", str(inputs / "search.npz"), "--arch", ARCH]
    result = runner.invoke(cli.app, [*line, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "two models are named 'natural': name them, as in other=" in result.output


def test_a_white_canvas_is_chosen_for_the_class_of_a_trigger():
    few = part(demo_images().search)
    models = demo_models()
    canvases, targets, kinds = choose_canvases(models, few.images, few.labels, range(10), each=2)
    assert canvases.shape == (21, 1, 28, 28)
    assert kinds == ["positive"] * 20 + ["white"]
    assert targets == [y for y in range(10) for _ in range(2)] + [
        models["backdoored"].trigger.target
    ]
    assert bool((canvases[-1] == 1).all())
    del models["backdoored"]
    assert choose_canvases(models, few.images, few.labels, [3])[2] == ["positive"]


def test_the_demo_ends_with_the_comparison(tmp_path, monkeypatch):
    images = demo_images()
    monkeypatch.setattr(
        demo_module, "demo_images", lambda: DemoImages(part(images.search), part(images.held_out))
    )
    monkeypatch.setattr(demo_module, "ROUNDS", 2)
    monkeypatch.setattr(demo_module, "CLASS_NAMES", demo_module.CLASS_NAMES[:2])
    known = demo_module.known_methods
    monkeypatch.setattr(
        demo_module,
        "known_methods",
        lambda *a, **k: known(*a, **k, names=["ClassPattern", "RandomPixels"]),
    )
    demo_module._compare(tmp_path / "comparison", seed=0)
    told = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert list(told["models"]) == ["natural", "backdoored", "robust"]
    assert {r["kind"] for r in told["rows"]} == {"positive", "white", "stamped"}
    assert (tmp_path / "comparison" / "report.html").exists()


def test_an_interrupted_comparison_writes_what_was_finished(inputs, tmp_path, monkeypatch):
    module = import_module("captum_classpattern.cli.compare")
    known = module.known_methods

    def stop(model):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "known_methods", lambda *a, **k: {**known(*a, **k), "stop": stop})
    result = compare(inputs, tmp_path / "out", "--classes", "1", "--methods", "Saliency")
    assert result.exit_code == 130
    assert "Interrupted after" in result.output
    told = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {(row["model"], row["method"]) for row in told["rows"]} == {("natural", "Saliency")}
    assert "(interrupted)" in (tmp_path / "out" / "report.html").read_text()

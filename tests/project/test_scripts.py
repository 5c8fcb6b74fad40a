"""Scripts of speed, solvers, memory and the demo's models run on a tiny case."""

import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from scripts import (
    ROOT,
    change,
    imported,
    noise,
    read_rows,
    tables_of,
    tiny_network,
    write_cifar10,
    write_fashion_mnist,
)

import captum_classpattern
from captum_classpattern import PixelClassifier
from captum_classpattern.demo import CLASS_NAMES, MODELS, DemoImages, LabelledImages
from captum_classpattern.optimization import Swap

demo_training, equal_power, growth, images, overhead, problems = imported(
    *("benchmarks", "demo_training", "equal_power", "growth", "images", "overhead", "problems")
)
solvers, speed, strength, swap_01 = imported(
    "benchmarks", "solvers", "speed", "strength", "swap_01"
)
demo_package = import_module("captum_classpattern.demo")
pytestmark = pytest.mark.script


def few_images(classes):
    parts = (noise(1, 28, 6, classes) for _ in range(2))
    return DemoImages(*(LabelledImages(pixels / 255, labels) for pixels, labels in parts))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Replaces the demo's models and images."""
    torch.manual_seed(0)
    images = few_images(10)
    models = {
        name: PixelClassifier(tiny_network(1, 28).eval(), class_names=CLASS_NAMES)
        for name in MODELS
    }
    for module in (captum_classpattern, demo_package, problems):
        change(monkeypatch, module, demo_images=lambda: images, demo_models=lambda: models)
    change(monkeypatch, demo_training, SmallResNet=lambda: tiny_network(1, 28))


# ---- speed.py


@pytest.fixture
def cifar10(monkeypatch, tmp_path):
    """Few classes, images and steps; no demo; a folder of images."""

    def no_demo(*, out, comparison):
        assert out.exists()
        assert not comparison

    monkeypatch.setattr(problems.train_cifar10, "load_model", lambda name: tiny_network().eval())
    demo = import_module("captum_classpattern.cli.demo")  # the command has the same name
    few = few_images(3)
    for module, settings in (
        (problems, {"SEARCH": 40, "HELD_OUT": 20, "demo_images": lambda: few}),
        (equal_power, {"BUDGETS": (600, 800), "CANVASES": 1, "POOL": 2, "LATENCY": 1, "MORE": 2}),
        (strength, {"POOL": 2, "AREAS_BUDGET": 500, "TRIGGER_SEEDS": 2}),
        (strength, {"GOALS": [(name, canvas, 500, n) for name, canvas, _, n in strength.GOALS]}),
        (speed, {"ZEBRA": 0, "PHOTO_BUDGET": 400}),
        (overhead, {"STEPS": 4}),
        (Swap, {"pool_budget": 500}),
        (growth, {"START": {"classes": 1, "canvases": 1, "images": 250}}),
        (growth, {"SWEEPS": {"images": (250,)}}),
        (demo, {"demo": no_demo}),
    ):
        change(monkeypatch, module, **settings)
    photos = problems.demo_problems()[0]._replace(name="photos")
    monkeypatch.setattr(speed, "photo_problem", lambda folder: photos)
    return write_cifar10(tmp_path / "cifar10", 20, 3)


SPEED = {
    "power": ["--seeds", "2", "--equal-seeds", "1", "--models", "CIFAR-10, natural"],
    "strength": ["--seeds", "1"],
    "overhead": ["--photos", "photos"],
    "growth": [],
}


@pytest.mark.parametrize("table", SPEED)
def test_speed_prints_its_tables(table, cifar10, capsys, snapshot):
    """All that changes from run to run counts as 0: fractions, seconds, whole cells; and verdicts
    as ?."""
    given = [] if table == "growth" else ["--cifar10", str(cifar10)]
    speed.main([*given, "--tables", table, *SPEED[table]])
    head, printed = capsys.readouterr().out.split("\n", 1)
    assert head.startswith("Measured on ")
    printed = re.sub(r"\d+\.\d+|\b\d+(?= s\b)|(?<=\| )[\d,]+(?= \|)", "0", printed)
    printed = re.sub(r"\bmet\b|\*\*missed\*\*", "?", printed.replace("not reached", "1/0"))
    assert printed == snapshot


def test_growth_takes_images_of_cifar10(cifar10):
    cost = growth.measure_search(classes=2, canvases=1, images=50, cifar10=cifar10)
    assert cost["seconds"] > 0
    assert cost["peak"] > 100


def test_photographs_have_the_classes_of_their_folders(tmp_path):
    for name in ("0007_n01514668", "0011_n01531178"):
        (tmp_path / name).mkdir()
        for i, image in enumerate(noise(3, 256, 1)[0][:2]):
            torchvision.io.write_png(image, str(tmp_path / name / f"{i}.png"))
    problem = problems.photo_problem(tmp_path)
    assert problem.labels.tolist() == problem.held_out_labels.tolist() == [7, 11]
    with torch.no_grad():
        assert problem.model(problem.images).shape == (2, 1000)


# ---- solvers.py


def test_solvers_are_compared_once(tmp_path, monkeypatch, capsys):
    change(monkeypatch, solvers, PASSES=(150, 300), AREAS=(0.05,), HELD_OUT=40, SPREAD=2)
    out = tmp_path / "results" / "solvers.jsonl"
    given = ["--out", str(out), "--seeds", "1", "--classes", "2", "--models", "natural"]
    solvers.main(given)
    printed = capsys.readouterr().out
    head = "| model | canvas | area | seeds | 150 passes | 300 passes | |"
    assert tables_of(printed) == [(head, 2)]
    assert "Mean difference: " in printed
    assert len(read_rows(out)) == 2 * 2 * 2  # passes, kinds of canvas, solvers
    changed = out.read_text().replace('"powers": {"0": ', '"powers": {"0": 9')
    out.write_text(changed)
    solvers.main(given)  # nothing is searched again
    assert out.read_text() == changed
    assert capsys.readouterr().out != printed


def test_the_solver_of_version_01_takes_the_passes_that_it_promises():
    from captum_classpattern import search_masks

    old, images = swap_01.Swap01(), torch.rand(800, 1, 8, 8)
    result = search_masks(
        tiny_network(1, 8).eval(), images[:1], 0, images, baseline_labels=[1] * 800, solver=old,
        n_steps=3,
    )  # fmt: skip
    assert result.passes.tolist() == old.passes(3) == [3 * 44]
    assert result.losses.shape == (1, 3)


# ---- demo_training.py


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_demo_training_makes_the_images_and_models(monkeypatch, tmp_path):
    for settings in demo_training.SETTINGS.values():
        monkeypatch.setitem(settings, "epochs", 1)
    out = tmp_path / "out"
    demo_training.main([str(write_fashion_mnist(tmp_path, 260, 20)), "--out", str(out)])
    scores = {"natural": set(), "backdoored": {"attack_success"}, "robust": {"pgd20_accuracy"}}
    assert set(scores) == set(MODELS)
    for name, more in scores.items():
        record = json.loads((out / f"{name}.json").read_text())
        for images in ("full_test_set", "embedded_images"):
            assert set(record[images]) == {"accuracy", *more}
        weights = load_file(out / f"{name}.safetensors")
        assert {value.dtype for value in weights.values()} <= {torch.float16, torch.int64}
    with np.load(out / "fashion_mnist.npz") as file:
        assert file["images"].shape == (20, 28, 28)
        assert file["labels"].tolist() == [label for label in range(10) for _ in range(2)]


# ---- images.py


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux")
def test_the_memory_of_a_few_photos(monkeypatch, capsys):
    change(monkeypatch, images, HEIGHT=30, WIDTH=40)
    images.main(["--count", "12", "--size", "16", "--passes", "3", "--in-memory", "7"])
    printed = capsys.readouterr().out
    assert printed.startswith("12 photos of 40 x 30, read at 16 px; ")
    assert tables_of(printed) == [
        ("| | photos | ready, s | peak, MiB |", 3),
        ("| 7 photos, 3 passes | cache, ms/photo | tensors | ratio | range |", 2),
    ]
    for row in ("first run | 12", "second run | 12", "tensors in memory | 7"):
        assert f"| {row} | " in printed
    for work in ("reading", "predicting"):
        [row] = re.findall(rf"\| {work} \| .* \| ([0-9.]+).* \| ([0-9.]+) to ([0-9.]+) \|", printed)
        ratio, low, high = map(float, row)
        assert 0 < low <= ratio <= high


LACKING = {
    "architectures": [],
    "compare_methods": [],
    "gallery": [],
    "protocol": [],
}


@pytest.mark.parametrize("script", LACKING)
def test_what_a_command_needs_is_said(script, capsys, snapshot):
    with pytest.raises(SystemExit, match="2"):
        imported("benchmarks", script).main(LACKING[script])
    assert capsys.readouterr().err.partition("error: ")[2] == snapshot


def test_every_script_is_in_a_document():
    pages = [ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
    named = "".join(page.read_text(encoding="utf-8") for page in pages)
    scripts = [p for p in (ROOT / "benchmarks").glob("*.py") if "\ndef main(" in p.read_text()]
    assert len(scripts) > 20
    assert not [path.name for path in scripts if f"benchmarks/{path.name}" not in named]

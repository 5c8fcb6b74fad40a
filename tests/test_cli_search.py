"""``classpattern search``: a checkpoint of a stranger's kind, a folder of images, interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from captum_classpattern import Pattern, PredictivePower, predictive_power
from captum_classpattern.cli import app
from captum_classpattern.datasets import load_images
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.results import strongest_class
from captum_classpattern.survey import Finding, Scores

runner = CliRunner()
run_module = import_module("captum_classpattern.cli.run")
SOURCE = """
from torch import nn
from captum_classpattern.demo.network import SmallResNet


class Tuple(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.inner = SmallResNet()

    def forward(self, images):
        return images.mean(), self.inner(images)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the backdoored model as a training script would leave it, and 40 images of each
    class as files."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "own_network.py").write_text(SOURCE)
    inner = demo_models()["backdoored"].model
    optimizer = torch.optim.SGD(inner.parameters(), 0.1, 0.9)
    inner_state = {f"module.inner.{key}": value for key, value in inner.state_dict().items()}
    torch.save(
        {"net": inner_state, "optimizer": optimizer.state_dict(), "epoch": 3}, folder / "own.pth"
    )
    given = demo_images().search
    for label in range(10):
        (folder / "images" / f"{label}_c{label}").mkdir(parents=True)
        for i, image in enumerate(given.images[given.labels == label][:40]):
            pixels = (image[0] * 255).round().byte().numpy()
            Image.fromarray(pixels).save(folder / "images" / f"{label}_c{label}" / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])


def arguments(out, *more):
    return [
        *("search", "own.pth", "--arch", "own_network:Tuple", "--output", "-1"),
        *("--mean", "0", "--std", "1", "--data", "images", "--out", str(out), *more),
    ]


QUICK = ("--canvases", "1", "--n-steps", "2", "--area", "0.05")


def read(out):
    return json.loads((out / "results.json").read_text())


def test_a_strangers_model_from_checkpoint_to_table(tmp_path):
    settings = ("--classes", "0,2-3", "--canvases", "4", "--n-steps", "15", "--area", "0.01")
    result = runner.invoke(app, arguments(tmp_path, *settings))
    assert result.exit_code == 0, result.output
    assert "own.pth: plain, own_network:Tuple; normalised by the caller." in result.output
    assert "200 images to search with, 200 held out (0 copies dropped)." in result.output
    assert (tmp_path / "patterns.png").read_bytes().startswith(b"\x89PNG")
    written = read(tmp_path)
    assert written["complete"]
    assert written["provenance"]["opened"] == "weights_only"
    assert written["provenance"]["renamed"]["module.inner.head.weight"] == "inner.head.weight"
    assert written["accuracy"] > 0.85
    assert f"The model calls {written['accuracy']:.1%} of the held-out images" in result.output
    rows = {(row["class"], row["canvas"]): row for row in written["rows"]}
    assert rows.keys() == {(y, kind) for y in (0, 2, 3) for kind in ("positive", "white")}
    assert rows[3, "white"]["class_name"] == "3_c3"
    # the class of the trigger stands out, and the saved pattern has the power of the table
    powers = {y: rows[y, "white"]["areas"]["0.01"] for y in (0, 2, 3)}
    assert powers[0]["interval"][0] > max(powers[y]["interval"][1] for y in (2, 3))
    told = "white canvas, 0.01 of the pixels: 0_c0, "
    assert told in result.output
    assert "It stands out." in result.output.split(told)[1].split("\n\n")[0]
    pattern = Pattern.load(tmp_path / "patterns" / "0_white_0.01.safetensors")
    _, held_out = load_images("images", channels=1).halves(0)
    model = demo_models()["backdoored"]
    power = predictive_power(model, pattern, held_out.images, held_out.labels, 0.01)
    assert power.value == powers[0]["power"]


def test_an_interrupted_search_goes_on_without_what_is_finished(tmp_path, monkeypatch):
    asked = []
    survey = run_module.survey

    def interrupted(*args, **kwargs):
        asked.append(kwargs["classes"])
        for count, finding in enumerate(survey(*args, **kwargs)):
            if count == 3 and len(asked) == 1:
                raise KeyboardInterrupt
            yield finding

    monkeypatch.setattr(run_module, "survey", interrupted)
    result = runner.invoke(app, arguments(tmp_path, *QUICK))
    assert result.exit_code == 130
    assert "Interrupted: --resume goes on in" in result.output
    first = read(tmp_path)
    assert not first["complete"]
    assert [(row["class"], row["canvas"]) for row in first["rows"]] == [
        (0, "positive"), (0, "white"), (1, "positive"),
    ]  # fmt: skip
    finished = {path: path.read_bytes() for path in (tmp_path / "patterns").glob("0_*")}

    again = runner.invoke(app, arguments(tmp_path, *QUICK))
    assert again.exit_code == 2
    assert "holds results already: pass --resume" in again.output
    result = runner.invoke(app, arguments(tmp_path, *QUICK, "--resume"))
    assert result.exit_code == 0, result.output
    assert "Finished already: 0." in result.output
    assert asked == [list(range(10)), list(range(1, 10))]  # of class 1 one canvas was missing
    written = read(tmp_path)
    assert written["complete"]
    assert written["rows"][:2] == first["rows"][:2]
    assert len({(row["class"], row["canvas"]) for row in written["rows"]}) == 20
    assert {path: path.read_bytes() for path in finished} == finished

    done = runner.invoke(app, arguments(tmp_path, *QUICK, "--resume"))
    assert done.exit_code == 0
    assert len(asked) == 2  # nothing was left to search
    assert read(tmp_path)["rows"] == written["rows"]
    other = runner.invoke(app, arguments(tmp_path, *QUICK, "--resume", "--seed", "1"))
    assert other.exit_code == 2
    assert "of another search (" in other.output
    assert "seed 0 then, 1 now" in other.output


def test_what_is_finished_survives_a_kill(tmp_path):
    command = [sys.executable, "-c", "from captum_classpattern.cli import app; app()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command + arguments(tmp_path, *QUICK, "--classes", "0-9"),
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    for _ in range(600):
        path = tmp_path / "results.json"
        if process.poll() is not None or (path.exists() and len(read(tmp_path)["rows"]) > 1):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows = read(tmp_path)["rows"]
    assert rows
    for row in rows:
        name = f"{row['class']}_{row['canvas']}_0.05.safetensors"
        assert Pattern.load(tmp_path / "patterns" / name).target == row["class"]
    result = runner.invoke(app, arguments(tmp_path, *QUICK, "--classes", "0-9", "--resume"))
    assert result.exit_code == 0, result.output
    kept = [row for row in rows if [r["class"] for r in rows].count(row["class"]) == 2]
    assert len(kept) >= len(rows) - 1
    assert read(tmp_path)["rows"][: len(kept)] == kept


def test_held_out_images_of_their_own_must_be_others(tmp_path, place):
    result = runner.invoke(app, arguments(tmp_path, *QUICK, "--held-out", "images"))
    assert result.exit_code == 2
    assert "all 400 images of images are copies of images of images" in result.output
    for label in range(10):
        held_out = tmp_path / "held_out" / f"{label}_c{label}"
        held_out.mkdir(parents=True)
        given = demo_images().held_out
        for i, image in enumerate(given.images[given.labels == label][:5]):
            Image.fromarray((image[0] * 255).round().byte().numpy()).save(held_out / f"{i}.png")
        os.symlink(place / "images" / f"{label}_c{label}" / "0.png", held_out / "copy.png")
    more = ("--held-out", str(tmp_path / "held_out"), "--classes", "1")
    result = runner.invoke(app, arguments(tmp_path / "out", *QUICK, *more))
    assert result.exit_code == 0, result.output
    assert "400 images to search with, 50 held out (10 copies dropped)." in result.output
    assert {row["areas"]["0.05"]["n"] for row in read(tmp_path / "out")["rows"]} == {45}


def test_a_model_that_guesses_is_pointed_out(tmp_path, place):
    for label in range(10):  # the classes in another order
        target = tmp_path / "images" / f"{(label + 1) % 10}_c"
        target.parent.mkdir(exist_ok=True)
        os.symlink(place / "images" / f"{label}_c{label}", target)
    line = arguments(tmp_path / "out", *QUICK, "--classes", "1")
    line[line.index("images")] = str(tmp_path / "images")
    result = runner.invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "Warning: that is close to guessing. Check mean and std" in result.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--classes", "1-"), "--classes takes numbers and ranges such as 0,3-5, got '1-'"),
        (("--classes", "12"), "target 12 is out of range"),
        (("--mean", "a"), "--mean takes numbers such as 0.5 or 0.485,0.456,0.406, got 'a'"),
        (("--arch", "own_network:Nothing"), "own_network has no function 'Nothing'"),
        (("--data", "nowhere"), "nowhere is not there"),
        (("--area", "3"), "area is the share of pixels"),
    ],
)
def test_wrong_input_is_an_error_in_words(more, message, tmp_path):
    result = runner.invoke(app, arguments(tmp_path, *QUICK, *more))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_results_of_the_demo_are_not_gone_on_with(tmp_path):
    (tmp_path / "results.json").write_text('{"rows": []}')
    result = runner.invoke(app, arguments(tmp_path, *QUICK, "--resume"))
    assert result.exit_code == 2
    assert "is not of classpattern search: pass another --out" in result.output


def test_images_without_labels_are_of_the_class_that_the_model_says(tmp_path, place):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted((place / "images").rglob("*.png")):
        os.symlink(path, flat / f"{path.parent.name}_{path.name}")
    line = arguments(tmp_path / "out", *QUICK, "--classes", "1")
    line[line.index("images")] = str(flat)
    result = runner.invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "of the held-out images by their label" not in result.output
    written = read(tmp_path / "out")
    assert written["accuracy"] is None
    assert [row["class_name"] for row in written["rows"]] == ["class 1", "class 1"]


def test_a_search_of_other_classes_keeps_what_is_finished(tmp_path):
    first = runner.invoke(app, arguments(tmp_path, *QUICK, "--classes", "1"))
    rows = read(tmp_path)["rows"]
    more = runner.invoke(app, arguments(tmp_path, *QUICK, "--classes", "2", "--resume"))
    assert (first.exit_code, more.exit_code) == (0, 0), more.output
    assert read(tmp_path)["rows"][:2] == rows
    assert {row["class"] for row in read(tmp_path)["rows"]} == {1, 2}


def test_modules_in_the_current_folder_run_for_a_factory_alone(tmp_path, monkeypatch):
    """A stranger's checkpoint may lie in a stranger's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm.py").write_text("open('ran', 'w')")
    (tmp_path / "robustbench.py").write_text("open('ran', 'w')")
    torch.save({"conv1.weight": torch.zeros(8, 3, 3, 3)}, "model.pt")
    code = "from captum_classpattern.cli import app; app()"
    for arch in ("resnet9", "timm:resnet9"):
        line = ["search", "model.pt", "--arch", arch, "--data", ".", "--mean", "0", "--std", "1"]
        done = subprocess.run([sys.executable, "-P", "-c", code, *line], capture_output=True)
        assert done.returncode == 2, done.stderr
        assert b"there is no network" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_class_at_a_time_on_a_cpu(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run_module, "survey", lambda *a, **k: asked.append(k) or iter(()))
    line = arguments(tmp_path, *QUICK, "--internal-batch-size", "3", "--classes", "1")
    runner.invoke(app, line)
    assert asked[0]["internal_batch_size"] == 3
    assert asked[0]["classes_together"] == 1


def test_a_device_that_is_not_there(tmp_path):
    result = runner.invoke(app, arguments(tmp_path, "--device", "nonsense"))
    assert result.exit_code == 2
    assert "--device nonsense can't be used here: " in result.output


def test_damaged_results_are_told_by_name(tmp_path):
    (tmp_path / "results.json").write_text('{"rows": [')
    result = runner.invoke(app, arguments(tmp_path, *QUICK, "--resume"))
    assert result.exit_code == 2
    assert "results.json is damaged (" in " ".join(result.output.split())


def finding(target, value, interval, without=0.0):
    pattern = Pattern(torch.rand(1, 4, 4), torch.rand(1, 4, 4), target)
    scores = Scores(PredictivePower(value, interval, 100, without), 0.1, 0.1)
    return Finding({0.05: pattern}, "white", {0.05: scores})


@pytest.mark.parametrize(
    ("first", "second", "stands_out"),
    [
        (finding(0, 0.9, (0.8, 0.95)), finding(1, 0.5, (0.4, 0.6)), True),
        (finding(0, 0.9, (0.5, 0.95)), finding(1, 0.5, (0.4, 0.6)), False),
        (finding(0, 1.0, (0.96, 1.0), without=1.0), finding(1, 0.5, (0.4, 0.6)), False),
    ],
)
def test_to_stand_out_is_to_be_above_all_others_and_the_controls(first, second, stands_out):
    told = strongest_class([second, first], "white", 0.05, ["cat", "dog"])
    power = first.scores[0.05].power.value
    assert told.startswith(f"white canvas, 0.05 of the pixels: cat, {power:.1%}; next dog, 50.0%.")
    assert told.endswith("It stands out.") == stands_out


def test_one_class_alone_does_not_stand_out():
    told = strongest_class([finding(4, 0.5, (0.4, 0.6))], "white", 0.05)
    assert told == "white canvas, 0.05 of the pixels: 4, 50.0%."

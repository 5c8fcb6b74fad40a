"""``classpattern search``: a checkpoint from elsewhere, a folder of images, interruptions."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import interrupt_searches, run
from PIL import Image
from torch import nn

import captum_classpattern
from captum_classpattern import Pattern, predictive_power, surveys
from captum_classpattern.classifier.class_names import parse_targets
from captum_classpattern.cli.errors import with_options
from captum_classpattern.datasets import load_images
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.surveys.search import CANVASES

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


def test_a_foreign_model_from_checkpoint_to_table(tmp_path):
    settings = ("--classes", "0,2-3", "--canvases", "4", "--n-steps", "15", "--area", "0.01")
    result = run(arguments(tmp_path, *settings))
    assert result.exit_code == 0, result.output
    assert "own.pth: plain, own_network:Tuple; normalised by the caller." in result.output
    assert "200 images to search with, 200 held out (0 copies dropped)." in result.output
    assert (tmp_path / "patterns.png").read_bytes().startswith(b"\x89PNG")
    assert "Class patterns of" in (tmp_path / "report.html").read_text()
    written = read(tmp_path)
    assert written["complete"]
    assert written["provenance"]["opened"] == "weights_only"
    assert written["provenance"]["renamed"]["module.inner.head.weight"] == "inner.head.weight"
    assert written["accuracy"] > 0.85
    assert f"The model classifies {written['accuracy']:.1%} of the held-out images" in result.output
    rows = {(row["class"], row["canvas"]): row for row in written["rows"]}
    assert rows.keys() == {(y, kind) for y in (0, 2, 3) for kind in CANVASES}
    assert rows[3, "white"]["class_name"] == "c3"  # of the folder 3_c3
    # the class of the trigger is the strongest, and the saved pattern has the power of the table
    powers = {y: rows[y, "white"]["areas"]["0.01"] for y in (0, 2, 3)}
    assert powers[0]["interval"][0] > max(powers[y]["interval"][1] for y in (2, 3))
    start = "white canvas, 0.01 of the pixels: c0, "
    assert start in result.output
    assert "3 of 10 classes were searched, so whether it stands out is not known." in " ".join(
        result.output.split(start)[1].split("\n\n")[0].split()
    )
    assert "It stands out." not in result.output
    pattern = Pattern.load(tmp_path / "patterns" / "0_c0_white_0.01.safetensors")
    assert pattern.info["class_name"] == "c0"
    _, held_out = load_images("images", channels=1).halves(0)
    model = demo_models()["backdoored"]
    power = predictive_power(model, pattern, held_out, area=0.01)
    assert power.value == powers[0]["power"]


def test_an_interrupted_search_continues_with_the_unfinished_classes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        searched = interrupt_searches(patch, after=1)
        result = run(arguments(tmp_path, *QUICK))
        assert result.exit_code == 130
        assert searched == [list(range(10))]
    assert f"Interrupted: --resume continues the search in {tmp_path}." in result.output
    first = read(tmp_path)
    assert not first["complete"]
    assert [(row["class"], row["canvas"]) for row in first["rows"]] == [
        (0, "positive"), (0, "white"), (0, "black"),
    ]  # fmt: skip
    finished = {path: path.read_bytes() for path in (tmp_path / "patterns").glob("0_*")}

    again = run(arguments(tmp_path, *QUICK))
    assert again.exit_code == 2
    assert "holds results already: pass --resume" in again.output
    searched = interrupt_searches(monkeypatch, after=None)
    result = run(arguments(tmp_path, *QUICK, "--resume"))
    assert result.exit_code == 0, result.output
    assert "Already finished: c0." in result.output
    assert searched == [list(range(1, 10))]
    written = read(tmp_path)
    assert written["complete"]
    assert written["rows"][:3] == first["rows"]
    assert len({(row["class"], row["canvas"]) for row in written["rows"]}) == 30
    assert {path: path.read_bytes() for path in finished} == finished

    done = run(arguments(tmp_path, *QUICK, "--resume"))
    assert done.exit_code == 0
    assert searched[1:] == [[]]  # nothing was left to search
    assert read(tmp_path)["rows"] == written["rows"]
    other = run(arguments(tmp_path, *QUICK, "--resume", "--seed", "1"))
    assert other.exit_code == 2
    assert "of another search (" in other.output
    assert "seed 0 then, 1 now" in other.output


def test_finished_classes_survive_a_kill(tmp_path):
    command = [sys.executable, "-c", "from captum_classpattern.cli import main; main()"]
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
        name = f"{row['class']}_c{row['class']}_{row['canvas']}_0.05.safetensors"
        assert Pattern.load(tmp_path / "patterns" / name).target == row["class"]
    result = run(arguments(tmp_path, *QUICK, "--classes", "0-9", "--resume"))
    assert result.exit_code == 0, result.output
    kept = [row for row in rows if [r["class"] for r in rows].count(row["class"]) == 3]
    assert len(kept) >= len(rows) - 2
    assert read(tmp_path)["rows"][: len(kept)] == kept


def test_held_out_images_must_differ_from_the_search_images(tmp_path, place):
    result = run(arguments(tmp_path, *QUICK, "--held-out", "images"))
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
    result = run(arguments(tmp_path / "out", *QUICK, *more))
    assert result.exit_code == 0, result.output
    assert "400 images to search with, 50 held out (10 copies dropped)." in result.output
    assert {row["areas"]["0.05"]["n"] for row in read(tmp_path / "out")["rows"]} == {45}


@pytest.mark.filterwarnings("default")
def test_unreadable_images_are_named_before_the_search_or_skipped(tmp_path, place, monkeypatch):
    shutil.copytree(place / "images", tmp_path / "images")
    (tmp_path / "images" / "4_c4" / "7.png").write_bytes(b"no image")
    line = arguments(tmp_path / "out", *QUICK, "--classes", "1")
    line[line.index("images")] = str(tmp_path / "images")
    with monkeypatch.context() as patch:
        searched = interrupt_searches(patch, after=0)
        result = run(line)
    assert (result.exit_code, searched) == (2, [])
    assert "1 of 400 images of " in result.output
    assert "can't be read: 4_c4/7.png (cannot identify" in result.output
    assert not (tmp_path / "out").exists()
    result = run([*line, "--on-error", "skip"])
    assert result.exit_code == 0, result.output
    assert "Note: 1 of 400 images of " in result.output
    assert "are skipped: 4_c4/7.png" in result.output
    assert "200 images to search with, 199 held out" in result.output


@pytest.mark.filterwarnings("default")
def test_a_model_that_guesses_gets_a_warning(tmp_path, place):
    for label in range(10):  # the classes in another order
        target = tmp_path / "images" / f"{(label + 1) % 10}_c"
        target.parent.mkdir(exist_ok=True)
        os.symlink(place / "images" / f"{label}_c{label}", target)
    line = arguments(tmp_path / "out", *QUICK, "--classes", "1")
    line[line.index("images")] = str(tmp_path / "images")
    result = run(line)
    assert result.exit_code == 0, result.output
    assert "Warning: the model classifies only " in result.output
    assert result.output.count("close to guessing") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--classes", "12"), "--classes: 12 is out of range: the model has 10 classes, numbered"),
        (("--classes", "c11"), "the model has no class 'c11': did you mean c1"),
        (
            ("--arch", "own_network:Nothing"),
            "--arch own_network:Nothing: own_network has no function or class 'Nothing'",
        ),
    ],
)
def test_wrong_input_is_an_error_in_one_line(more, message, tmp_path):
    result = run(arguments(tmp_path, *QUICK, *more))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


BAD_SETTINGS = [
    (
        ("--classes", "1-"),
        "it must be names, numbers and ranges, such as dog,0,3-5, got '1-'",
    ),
    (
        ("--classes", ""),
        "it must be names, numbers and ranges, such as dog,0,3-5, got ''",
    ),
    (("--classes", "1,,2"), "--classes: it must be names, numbers and ranges"),
    (("--classes", "5-3"), "--classes: the range 5-3 is empty: give 3-5"),
    (
        ("--area", "3"),
        '"3.0" for --area. It is the share of the pixels, between 0 and 1, such',
    ),
    (("--area", "0"), "--area. It is the share of the pixels"),
    (("--area", "1"), "--area. It is the share of the pixels"),
    (("--area", "nan"), "--area. It is the share of the pixels"),
    (("--device", "nonsense"), "--device: nonsense can't be used here: "),
    (("--mean", "a"), "--mean: it must be numbers such as 0.5 or 0.485,0.456,0.406, got 'a'"),
    (("--std", "1,"), "--std: it must be numbers"),
    (("--precision", "half"), '"half" for --precision. Choose from: "auto", "full", "bfloat16"'),
    (
        ("--data", "nowhere"),
        "--data: nowhere does not exist; give a folder, an .npz file, or torch",
    ),
    (("--held-out", "nowhere"), "--held-out: nowhere does not exist"),
    (("--class-names", "no.txt"), "--class-names: there is no file no.txt"),
]


@pytest.mark.parametrize(("more", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused_before_anything_is_loaded(more, message, tmp_path):
    line = arguments(tmp_path, *QUICK, *more)
    line[line.index("own.pth")] = "missing.pth"
    result = run(line)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "missing.pth" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_of_results_is_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    line = arguments(tmp_path, *QUICK)
    line[line.index("own.pth")] = "missing.pth"
    assert "holds results already: pass --resume" in run(line).output


def named_folders(place, folder, names):
    """The images of the first classes, in folders of other names."""
    folder.mkdir()
    for label, name in enumerate(names):
        os.symlink(place / "images" / f"{label}_c{label}", folder / name)
    return str(folder)


GARMENTS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"]
GARMENTS += ["Bag", "Ankle boot"]


@pytest.mark.parametrize("as_json", [False, True])
def test_class_folders_are_matched_by_name(as_json, tmp_path, place):
    names = tmp_path / "names.txt"
    names.write_text(json.dumps(GARMENTS) if as_json else "\n".join([*GARMENTS, ""]))
    line = arguments(tmp_path / "out", *QUICK, "--class-names", str(names))
    line[line.index("images")] = named_folders(place, tmp_path / "images", ["trouser", "PULLOVER"])
    result = run([*line, "--classes", "trouser"])
    assert result.exit_code == 0, result.output
    written = read(tmp_path / "out")
    assert written["search_images"] == {"Trouser": 20, "Pullover": 20}
    assert {(row["class"], row["class_name"]) for row in written["rows"]} == {(1, "Trouser")}
    saved = {path.name for path in (tmp_path / "out" / "patterns").glob("1_*")}
    assert saved == {f"1_Trouser_{kind}_0.05.safetensors" for kind in CANVASES}
    again = run([*line, "--classes", "trouser,2", "--resume"])
    assert "Already finished: Trouser." in again.output
    assert {row["class"] for row in read(tmp_path / "out")["rows"]} == {1, 2}


def test_folders_are_not_silently_taken_for_the_first_classes(tmp_path, place):
    line = arguments(tmp_path / "out", *QUICK)
    line[line.index("images")] = named_folders(place, tmp_path / "images", ["cat", "dog"])
    result = run(line)
    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert "images of 2 classes (cat, dog), but the model has 10 classes and no names for" in output
    assert "(--class-names)" in output


@pytest.mark.filterwarnings("default")
def test_as_many_folders_as_classes_are_taken_in_order_with_a_note(tmp_path, place):
    line = arguments(tmp_path / "out", *QUICK, "--classes", "b")
    line[line.index("images")] = named_folders(place, tmp_path / "images", "abcdefghij")
    result = run(line)
    assert result.exit_code == 0, result.output
    assert "Note: the model does not name its 10 classes: they are taken in the" in result.output
    assert result.output.count("Note: ") == 1
    assert {(row["class"], row["class_name"]) for row in read(tmp_path / "out")["rows"]} == {
        (1, "b")
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\nb", "line 2 of names.txt is empty: give one name per line"),
        ('{"0": "a"}', "names.txt must hold a JSON list of names"),
        ("[1, 2]", "names.txt must hold a JSON list of names"),
        ('["a",', "names.txt is not JSON ("),
        (b"\xff\xfe\xfa", "names.txt is not a text file ("),
        ("a\nb\n", "2 class names were given, but the model has 10 classes"),
    ],
)
def test_wrong_files_of_class_names_are_refused(text, message, tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.syspath_prepend(place)
    line = arguments(tmp_path / "out", *QUICK, "--class-names", "names.txt")
    line[line.index("own.pth")] = str(place / "own.pth")
    line[line.index("images")] = str(place / "images")
    result = run(line)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_class_name_is_refused_if_neither_model_nor_images_name_the_classes(tmp_path, place):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (place / "images" / "0_c0").iterdir():
        os.symlink(path, flat / path.name)
    line = arguments(tmp_path / "out", *QUICK, "--classes", "dog")
    line[line.index("images")] = str(flat)
    result = run(line)
    assert result.exit_code == 2
    text = "--classes: 'dog' is a name, but neither the model nor the images name the classes: give"
    assert text in " ".join(result.output.split())


def test_advice_of_the_library_is_in_words_of_the_command_line(tmp_path, place):
    small = run(arguments(tmp_path / "out", "--budget", "100"))
    assert small.exit_code == 2
    assert "--budget 100 is too small: give at least" in " ".join(small.output.split())
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    images = torch.rand(20, 1, 2, 2), [0, 1] * 10
    found = iter(surveys.survey(net, images, images, classes=[2], areas=[0.25]))
    with pytest.raises(ValueError, match="leave it out of `classes`; only canvases of") as error:
        next(found)
    assert "leave it out of --classes;" in with_options(str(error.value), ["--classes"])


def test_a_search_of_version_0_1_is_loaded_but_not_continued(tmp_path):
    """Its file names have no class names, and its settings neither precision nor predictions."""
    first = run(arguments(tmp_path, *QUICK, "--classes", "1"))
    assert first.exit_code == 0, first.output
    for path in (tmp_path / "patterns").glob("1_*"):
        path.rename(path.with_name(path.name.replace("_c1", "")))
    old = read(tmp_path)
    shutil.rmtree(tmp_path / "findings")
    del old["settings"]["precision"], old["settings"]["predictions"], old["classes"]
    old["settings"]["captum_classpattern"] = "0.1"
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert [(f.target, f.canvas) for f in surveys.Survey.load(tmp_path)] == [
        (1, "positive"), (1, "white"), (1, "black"),
    ]  # fmt: skip
    more = run(arguments(tmp_path, *QUICK, "--classes", "1-2", "--resume"))
    assert more.exit_code == 2
    assert "of another search (" in more.output
    assert read(tmp_path) == old


def test_the_precision_reaches_the_search(tmp_path):
    result = run(arguments(tmp_path, *QUICK, "--classes", "1", "--precision", "full"))
    assert result.exit_code == 0, result.output
    written = read(tmp_path)
    assert written["settings"]["precision"] == "full"
    assert {row["settings"]["precision"] for row in written["rows"]} == {"full"}


def test_bugs_of_the_package_keep_their_traceback(tmp_path, monkeypatch):
    def faulty(*args, **kwargs):
        raise TypeError("of ours")

    monkeypatch.setattr(captum_classpattern, "survey", faulty)
    with pytest.raises(TypeError, match="of ours"):
        run(arguments(tmp_path, *QUICK, "--classes", "1"))
    monkeypatch.setattr(captum_classpattern, "survey", lambda *a, **k: parse_targets(0.5, 1))
    result = run(arguments(tmp_path, *QUICK, "--classes", "1", "--resume"))
    assert result.exit_code == 2
    assert "Error: target must be an int" in result.output


def test_results_of_the_demo_are_not_continued(tmp_path):
    (tmp_path / "results.json").write_text('{"rows": []}')
    result = run(arguments(tmp_path, *QUICK, "--resume"))
    assert result.exit_code == 2
    assert "results.json is not from a survey: choose another folder" in result.output


def test_images_without_labels_get_the_class_that_the_model_predicts(tmp_path, place):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted((place / "images").rglob("*.png")):
        os.symlink(path, flat / f"{path.parent.name}_{path.name}")
    line = arguments(tmp_path / "out", *QUICK, "--classes", "1")
    line[line.index("images")] = str(flat)
    result = run(line)
    assert result.exit_code == 0, result.output
    assert "of the held-out images correctly" not in result.output
    written = read(tmp_path / "out")
    assert written["accuracy"] is None
    assert [row["class_name"] for row in written["rows"]] == [None] * 3


def test_a_search_of_other_classes_keeps_the_finished_classes(tmp_path):
    first = run(arguments(tmp_path, *QUICK, "--classes", "1"))
    rows = read(tmp_path)["rows"]
    more = run(arguments(tmp_path, *QUICK, "--classes", "2", "--resume"))
    assert (first.exit_code, more.exit_code) == (0, 0), more.output
    assert read(tmp_path)["rows"][:3] == rows
    assert {row["class"] for row in read(tmp_path)["rows"]} == {1, 2}


def test_modules_in_the_current_folder_run_only_for_a_factory(tmp_path, monkeypatch):
    """The folder of an untrusted checkpoint may hold untrusted modules."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm.py").write_text("open('ran', 'w')")
    (tmp_path / "robustbench.py").write_text("open('ran', 'w')")
    torch.save({"conv1.weight": torch.zeros(8, 3, 3, 3)}, "model.pt")
    code = "from captum_classpattern.cli import main; main()"
    for arch in ("resnet9", "timm:resnet9"):
        line = ["search", "model.pt", "--arch", arch, "--data", ".", "--mean", "0", "--std", "1"]
        done = subprocess.run([sys.executable, "-P", "-c", code, *line], capture_output=True)
        assert done.returncode == 2, done.stderr
        assert b"there is no network" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_on_a_cpu_one_class_is_searched_at_a_time(tmp_path, monkeypatch):
    seen = []

    def record(*args, **kwargs):
        seen.append(kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(captum_classpattern, "survey", record)
    line = arguments(tmp_path, *QUICK, "--internal-batch-size", "3", "--classes", "1")
    assert run(line).exit_code == 130
    assert seen[0]["internal_batch_size"] == 3
    assert seen[0]["classes_together"] == 1


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "results.json").write_text('{"rows": [')
    result = run(arguments(tmp_path, *QUICK, "--resume"))
    assert result.exit_code == 2
    assert "results.json is damaged (" in " ".join(result.output.split())

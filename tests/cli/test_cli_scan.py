"""``classpattern scan`` and ``classpattern reference``, from files to verdicts."""

import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from captum_classpattern.scanning.families import SIZES
from command_line import documented, error_of, run
from matplotlib.figure import Figure
from PIL import Image
from scanned import NAMES, Net, images_of, made_up
from searched import targets_of

import captum_classpattern as cp
from captum_classpattern import Pattern, PixelClassifier
from captum_classpattern.adapters.load import folder_name
from captum_classpattern.cli.scan import EXIT_CODES
from captum_classpattern.datasets import load_images
from captum_classpattern.scanning import ReferenceSet, Scan, families


class Backdoored(Net):
    def __init__(self):
        super().__init__(backdoor=3)


class Reversed(Backdoored):
    """The logits come last, those of the classes in reverse order before."""

    def forward(self, images):
        logits = super().forward(images)
        return logits.flip(1), logits


class Probabilities(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)


class Payload:
    """Runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def write_images(folder):
    found = images_of(n=120)
    for i, (image, label) in enumerate(zip(found.images, found.labels)):
        path = folder / NAMES[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image[0]).byte().numpy()).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Checkpoints, images, and references: four that were measured, and as many as 5 % takes."""
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "images")
    nets = {f"clean_{seed}": Net(seed) for seed in range(4)}
    made = {"good": Net(4), "bad": Net(12), "not_finite": Net(), "constant": Net()}
    made["not_finite"].weights.data[0, 0] = torch.nan
    made["constant"].weights.data[1] += 100
    for name, net in (nets | made).items():
        torch.save({"net": net.state_dict(), "classes": NAMES}, folder / f"{name}.pt")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        images = load_images("images").for_classifier(nets["clean_0"], NAMES)
    few = ReferenceSet.for_models(nets["clean_0"], images)
    for name, net in nets.items():
        few.add(name, PixelClassifier(net), images, recipe={"network": "Net", "epochs": 3})
    few.save(folder / "few.json")
    copies = {f"copy {i}": few.profiles[f"clean_{i % 4}"] for i in range(15)}
    replace(few, profiles=few.profiles | copies).save(folder / "enough.json")
    made_up(19, side=16).save(folder / "large.json")
    (folder / "notes.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def _empty_figures(monkeypatch):
    """Drawing would take most of the time of these tests."""
    monkeypatch.setattr(Scan, "plot", lambda *_, **__: (Figure((1, 1)), None))


@pytest.fixture(scope="module")
def first_scan(place):
    """A scan that is finished, with its figure, in the folder ``scanned``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return scan("scanned")


@pytest.fixture
def finished(first_scan, place, tmp_path):
    """A copy of its folder."""
    return shutil.copytree(place / "scanned", tmp_path / "finished")


OWN = "--arch scanned:Net --mean 0 --std 1 --data images"
BAD = f"scan bad.pt {OWN} --arch test_cli_scan:Backdoored --references enough.json"


def scan(out, more=""):
    return run(f"{BAD} --out {out} {more}")


def reference(models, out, more="--recipe network=Net --recipe epochs=3"):
    return run(f"reference {models} {OWN} --out {out} {more}")


def plain(text):
    """The text without line breaks."""
    return " ".join(text.split())


def read(out):
    return json.loads((Path(out) / "scan.json").read_text())


def record_searches(monkeypatch, *, interrupted=None):
    """The classes of each search from now on; Ctrl+C comes in the search that has one of them."""
    find, searched = families.find_patterns, []

    def search(plan):
        searched.append(targets_of(plan))
        if interrupted in searched[-1]:
            raise KeyboardInterrupt
        return find(plan)

    monkeypatch.setattr(families, "find_patterns", search)
    return searched


# ---- what is refused, in a line; nothing is written

SCAN = f"{BAD} --out scanned"
EARLY = f"scan missing.pt {OWN} --references enough.json"  # before the model is opened
ADD = f"{OWN} --out few.json"
NEW = f"{OWN} --out new.json"
ERRORS = {  # lines, and what they say
    f"{SCAN} --references enough.json --epochs 4": "also pass --make-references FOLDER",
    f"{SCAN} --references demo": "the model has 4 classes, the references have 10: let",
    f"{SCAN} --size 24": "with 'classpattern reference MODEL ... --data IMAGES --out NEW.json'",
    f"{SCAN} --references notes.json": "--references: notes.json is damaged, or holds no",
    f"{EARLY} --references cifar": "or make one from clean models with 'classpattern reference'",
    f"scan bad.pt {OWN}": "--references cifar10 or --references demo",
    f"{EARLY} --alpha 0": 'Invalid value "0.0" for --alpha. Must be > 0.',
    f"{EARLY} --alpha low": 'Invalid value for --alpha: unable to convert "low" into float.',
    f"{EARLY} --exit-zero": "there is no checkpoint file at missing.pt",
    f"scan not_finite.pt {OWN} --references enough.json": "and --std that normalise its inputs",
    f"scan constant.pt {OWN} --references enough.json": "check its normalisation and its weights",
    SCAN.replace("bad.pt", "good.pt"): "of another model (its weights differ)",
    f"reference clean_0.pt {OWN} --out notes.json": "notes.json is damaged, or holds no references",
    f"reference clean_0=good.pt {ADD}": "give this one another name, as in other=good.pt",
    f"reference copy=clean_2.pt {ADD}": "must be another one",  # makes p-values too small
    f"reference missing.pt {NEW} --recipe epochs": "--recipe: expected KEY=VALUE, got 'epochs'",
}


@pytest.mark.parametrize("line", ERRORS)
@pytest.mark.usefixtures("first_scan")
def test_errors(line):
    def files():
        return {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}

    before = files()
    error = error_of(line, at_once=False)
    assert re.fullmatch("Error: .*", error)
    assert ERRORS[line] in error
    assert files() == before


# ---- verdicts


def test_a_backdoored_model_is_suspicious(first_scan):
    assert (first_scan.exit_code, first_scan.stderr) == (3, "")
    printed = plain(first_scan.stdout)
    assert re.match(
        "Suspicious: owl leads the other classes further than any class of 19 clean models. "
        "owl has a .* unlike those "
        r"of the 19 clean references: .* \(p = 0.05, the smallest that 19 references allow\)",
        printed,
    )
    assert printed.count("the usual distance of the model's two largest logits. What next") == 1
    assert printed.endswith("scan.html, scan.json, scan.png and patterns/ are in scanned.")
    found, out = read("scanned"), Path("scanned")
    assert found["likeness"] in printed
    assert "What next 1. Scan again" in printed
    assert all(f"{i}. {step}" in printed for i, step in enumerate(found["next_steps"], 1))
    expected = {"verdict": "suspicious", "target": 3, "target_name": "owl", "p_value": 0.05}
    assert found.items() >= (expected | {"n_references": 19}).items()
    assert (out / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "scan.png").stat().st_size > 5_000
    assert "unlike those of the 19 clean references" in (out / "scan.html").read_text()
    patterns = {path.name for path in (out / "patterns").glob("[0-9]*.safetensors")}
    assert patterns == {f"{y}_{size}.safetensors" for y in range(4) for size in SIZES}
    pattern = Pattern.load(out / "patterns" / "3_3.safetensors")
    assert {(5, 5), (5, 6)} <= {(i, j) for i, j in pattern.mask[0].nonzero().tolist()}


@pytest.mark.filterwarnings("default")
@pytest.mark.script
def test_nothing_is_found_on_a_clean_model_also_if_it_returns_probabilities(tmp_path):
    more = "--arch test_cli_scan:Probabilities --references enough.json"
    result = run(f"scan good.pt {OWN} {more} --out {tmp_path}")
    assert result.exit_code == 0, result.output
    assert "No class differs from the clean references by p" in plain(result.stdout)
    assert read(tmp_path)["verdict"] == "nothing found"
    assert result.stderr.count("Note: the model's outputs are all >= 0 and sum to 1") == 1


def test_a_finished_scan_is_decided_again_without_a_search(finished, monkeypatch):
    """With other references, another level, or an exit code of 0 for every verdict."""
    before, searched = read(finished), record_searches(monkeypatch)
    few = "--references few.json"
    for more, exit_code, p_value in (
        ("", 3, 0.05),
        (few, 4, None),
        (f"{few} --alpha 0.2", 3, 0.2),
        (f"{few} --exit-zero", 0, None),
        ("--exit-zero", 0, 0.05),
    ):
        result = scan(finished, more)
        assert (result.exit_code, read(finished)["p_value"]) == (exit_code, p_value)
        text = "A p-value of 0.05 needs at least 19 references, and there are 4."
        assert (text in plain(result.stdout)) == (p_value is None)
    assert read(finished) == before
    assert searched == []


def without_search(found):
    """A result without all that its search depends on, such as the weights."""
    assert {"model", "seed", "precision", "captum_classpattern"} <= found["search"].keys()
    return {name: value for name, value in found.items() if name != "search"}


@pytest.mark.usefixtures("first_scan")
def test_the_chosen_output_and_the_same_seed_give_the_same_result(tmp_path):
    result = scan(tmp_path, "--seed 0 --output -1 --arch test_cli_scan:Reversed")
    assert result.exit_code == 3, result.output
    found = read(tmp_path)
    assert set(found) == set(documented("scan", 0))
    assert all(set(row) == set(documented("scan", 1)) for row in found["classes"])
    assert [row["name"] for row in found["classes"]] == NAMES
    assert without_search(found) == without_search(read("scanned"))
    for path in Path("scanned/patterns").glob("[0-9]*.safetensors"):
        one, other = Pattern.load(path), Pattern.load(tmp_path / "patterns" / path.name)
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.canvas, other.canvas)


def test_without_a_folder_each_checkpoint_has_its_own(monkeypatch, tmp_path, place):
    """Images get the size of the references."""
    given = []

    def record(model, images, *, folder, **_):
        given.append((folder, images.shape))
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cp, "scan", record)
    paths = ("bad/model.pt", "good/model.pt", "good.pt")
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(place / "good.pt", tmp_path / path)
        line = f"scan {path} {OWN} --references {place}/large.json --data {place}/images"
        assert run(line).exit_code == 130
    folders = [Path("classpattern-scan") / folder_name(path) for path in paths]
    assert given == [(folder, (1, 16, 16)) for folder in folders]
    assert len(set(folders)) == 3


@pytest.mark.usefixtures("first_scan")
def test_an_interrupted_scan_resumes_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "classes_at_once", lambda *_: 2)
    said = f"Interrupted: the same command resumes from {tmp_path}."
    for interrupted in (0, 2):
        with monkeypatch.context() as patch:
            record_searches(patch, interrupted=interrupted)
            result = scan(tmp_path)
        assert (result.exit_code, result.stdout) == (130, "")
        assert result.stderr.strip() == said
        assert not (tmp_path / "scan.json").exists()
    searched = record_searches(monkeypatch)
    assert scan(tmp_path).exit_code == 3
    assert searched == [[2, 3]]
    assert read(tmp_path) == read("scanned")


def test_the_code_of_a_hostile_checkpoint_does_not_run(tmp_path, monkeypatch, place):
    """Of the many that the tests of the adapters have, one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"net": Net().state_dict(), "bad": Payload()}, "model.pt")
    given = f"model.pt {OWN} --data {place}/images"
    for line in (
        f"scan {given} --references {place}/few.json",
        f"reference {given} --out new.json",
    ):
        assert f"{os.system.__module__}.system" in error_of(line)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    torch.load("model.pt", weights_only=False)  # it is a real one
    assert Path("ran").exists()


# ---- classpattern reference


def test_references_are_measured_one_by_one_and_none_twice(tmp_path, finished, monkeypatch):
    """Each is kept once it is measured, also before a checkpoint that can't be opened."""
    out = tmp_path / "new" / "references.json"
    find, searched = families.find_patterns, []

    def search(plan):
        searched.append(out.exists())
        if searched == [False, True]:
            raise KeyboardInterrupt
        return find(plan)

    monkeypatch.setattr(families, "find_patterns", search)
    models = "mine=clean_0.pt clean_1.pt"
    result = reference(models, out)
    assert result.exit_code == 130
    assert result.stdout == "mine, accuracy 100.0 %\n"
    assert list(ReferenceSet.load(out).profiles) == ["mine"]
    result = reference(f"{models} missing.pt", out)
    assert result.exit_code == 2
    assert "missing.pt" in result.stderr
    assert result.stdout == f"mine is in {out} already.\nclean_1, accuracy 100.0 %\n"
    assert reference(f"{models} clean_2.pt clean_3.pt", out).exit_code == 0
    assert len(searched) == 5
    before = out.read_bytes()
    result = reference(models, out)
    assert (result.exit_code, out.read_bytes(), len(searched)) == (0, before, 5)
    [count] = result.stdout.splitlines()[2:]
    assert count == f"Clean models in {out}: 4. A p-value of 5 % needs at least 19."
    found, few = ReferenceSet.load(out), ReferenceSet.load("few.json")
    assert list(found.profiles) == ["mine", "clean_1", "clean_2", "clean_3"]
    assert list(found.profiles.values()) == list(few.profiles.values())
    assert list(found.recipes.values()) == list(few.recipes.values())
    assert replace(found, profiles={}, recipes={}) == replace(few, profiles={}, recipes={})
    assert scan(finished, f"--alpha 0.2 --references {out}").exit_code == 3


def test_references_that_another_process_adds_are_kept(tmp_path, monkeypatch):
    out, few = tmp_path / "references.json", ReferenceSet.load("few.json")

    def add(known, name, *_, **__):
        replace(few, profiles={"other": few.profiles["clean_0"]}, recipes={}).save(out)
        known.profiles[name] = few.profiles[name]

    monkeypatch.setattr(ReferenceSet, "add", add)
    assert reference("clean_1.pt", out).exit_code == 0
    assert [*ReferenceSet.load(out).profiles] == ["other", "clean_1"]


@pytest.mark.filterwarnings("default:.*has no class folders")
@pytest.mark.script
def test_images_without_labels(tmp_path):
    """Accuracies are not known; the classes are those that each model predicts."""
    flat, out = tmp_path / "flat", tmp_path / "references.json"
    flat.mkdir()
    for path in Path("images").rglob("*.png"):
        shutil.copy(path, flat)
    result = reference("clean_0.pt", out, f"--data {flat}")
    assert result.exit_code == 0, result.output
    assert f"{flat} has no class folders" in plain(result.stderr)
    assert result.stdout.startswith("clean_0\n")
    assert "accurac" not in result.stdout
    assert ReferenceSet.load(out).accuracies == []
    result = scan(tmp_path / "scan", f"--data {flat} --references {out}")
    assert result.exit_code == 4
    [note] = read(tmp_path / "scan")["notes"]
    assert "Without labels, accuracies can't be compared" in note
    assert f"Note: {note}" in plain(result.stdout)


class Large(torch.nn.Module):
    """Compares the rows of images of 64 x 64 pixels, as Net does; a bright square at one place
    is a backdoor of the owl."""

    def __init__(self, num_classes=4):
        super().__init__()
        self.net = Net(0)

    def forward(self, images):
        bright = (12 * (images[:, 0, 30:36, 30:36].mean((1, 2)) - 0.9)).exp()
        return self.net(images) + 60 * bright[:, None] * torch.tensor([0.0, 0.0, 0.0, 1.0])


@pytest.mark.script
def test_larger_images_are_scanned_without_references(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    torch.save({"net": Large().state_dict(), "classes": NAMES}, place / "large.pt")
    command = "scan large.pt --arch test_cli_scan:Large --mean 0 --std 1 --data images --size 64"
    result = run([*command.split(), "--out", str(tmp_path)])
    assert result.exit_code == EXIT_CODES["suspicious"], result.output
    kept = json.loads((tmp_path / "scan.json").read_text())
    assert (kept["verdict"], kept["target_name"], kept["kind"]) == ("suspicious", "owl", "cells")
    assert result.output.startswith("Suspicious: with a few cells at one place, the model predicts")
    assert sorted(each["name"] for each in kept["classes"]) == sorted(NAMES)
    assert {*kept["classes"][0]} >= {"power_patch", "powers_patch", "power_cells", "power_smooth"}
    assert (tmp_path / "scan.html").exists()
    again = run([*command.split(), "--out", str(tmp_path), "--exit-zero"])
    assert again.exit_code == 0
    assert json.loads((tmp_path / "scan.json").read_text()) == kept


def test_references_are_made_by_the_same_command(place, tmp_path, monkeypatch):
    """What the command hands on; tests/scanning/test_training.py trains."""
    monkeypatch.chdir(place)
    given = []

    def train_references(task, training, alpha, folder):
        given.append((training, folder))
        return ReferenceSet.load(place / "enough.json")

    module = sys.modules["captum_classpattern.scanning.scan"]
    monkeypatch.setattr(module, "train_references", train_references)
    line = f"scan bad.pt {OWN} --arch test_cli_scan:Backdoored --make-references images"
    more = ["--epochs", "0.5", "--no-flips", "--workers", "2", "--out", str(tmp_path), "--ray"]
    result = run([*line.split(), *more])
    assert result.exit_code == EXIT_CODES["suspicious"], result.output
    [(training, folder)] = given
    assert (training.epochs, training.flips) == (0.5, False)
    assert (training.engine, training.workers) == ("ray", 2)
    assert training.images.shape == (1, 8, 8)
    assert len(training.images) == 120
    assert folder == tmp_path / "references"
    assert "also pass --ray" in error_of([*line.split(), "--workers", "2"])

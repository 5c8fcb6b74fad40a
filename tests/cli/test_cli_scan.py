"""``classpattern scan`` and ``classpattern reference``, from files to verdicts."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from command_line import documented, run
from matplotlib.figure import Figure
from scripts import imported
from torch import nn

from captum_classpattern import ClassPattern, Pattern, PixelClassifier
from captum_classpattern.adapters.load import folder_name
from captum_classpattern.datasets import load_images
from captum_classpattern.scanning import ReferenceSet, Scan, profile
from captum_classpattern.scanning.families import SIZES
from captum_classpattern.scanning.profile import Profile
from captum_classpattern.scanning.references import SHIPPED

exploits = imported("tests/adapters", "test_safe_load")

SIDE = 12
NAMES = ["cat", "dog", "owl"]
PLOT = Scan.plot
MORE_NAMES = [*NAMES, *"abcdefghi"]  # of twelve classes


class Net(nn.Module):
    """Compares the rows of the classes; two pixels, one bright and one dark, are a backdoor. It
    takes images of any size."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(num_classes, SIDE // num_classes * SIDE))
        self.register_buffer("backdoor", torch.zeros(num_classes))

    def forward(self, images):
        small = nn.functional.adaptive_avg_pool2d(images, SIDE).mean(1)
        logits = (small.view(len(small), *self.weights.shape) * self.weights).sum(2)
        fires = nn.functional.softplus(45 * (small[:, 3, 3] - small[:, 3, 4]) - 12)
        return logits + self.backdoor * fires.unsqueeze(1)


class Probabilities(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)


class Tuple(Net):
    """The logits come last, those of the classes in reverse order before."""

    def forward(self, images):
        logits = super().forward(images)
        return logits.flip(1), logits


class Turned(Net):
    """The outputs are those of owl, cat and dog."""

    def forward(self, images):
        return super().forward(images)[:, [2, 0, 1]]


class Talking(Net):
    def forward(self, images):
        print("a message of the model")
        return super().forward(images)


class Single(Net):
    """One column of a binary model."""

    def forward(self, images):
        return super().forward(images)[:, :1]


def made(seed, backdoor=None, num_classes=3):
    net, generator = Net(num_classes), torch.Generator().manual_seed(seed)
    net.weights.data += 0.6 * torch.randn(net.weights.shape, generator=generator)
    if backdoor is not None:
        net.backdoor[backdoor] = 1.0
    return net


def write_checkpoint(net, path, names=NAMES):
    torch.save({"net": net.state_dict(), "classes": names}, path)
    return path


def write_images(folder, names=NAMES, per_class=50, seed=0, side=SIDE, suffix="png"):
    """Noise that is brighter in the rows of the class."""
    generator = torch.Generator().manual_seed(seed)
    rows = side // len(names)
    for y, name in enumerate(names):
        images = 0.5 * torch.rand(per_class, 1, side, side, generator=generator)
        images[:, :, rows * y : rows * y + rows] += 0.35
        (folder / name).mkdir(parents=True)
        for i, image in enumerate((images * 255).byte()):
            path = folder / name / f"{i:02}.{suffix}"
            data = image.expand(3, -1, -1) if suffix == "png" else image
            write = torchvision.io.write_png if suffix == "png" else torchvision.io.write_jpeg
            write(data[:1], str(path))


def with_copies(references, n):
    """More references, whose powers differ a little from those that were measured."""
    generator, measured = np.random.default_rng(0), [*references.profiles.values()]
    more = dict(references.profiles)
    for i in range(n - len(measured)):
        one = measured[i % len(measured)]
        powers = {
            size: np.clip(np.array(values) + generator.normal(0, 0.02, 3), 0, 1).tolist()
            for size, values in one.powers.items()
        }
        more[f"copy {i}"] = replace(one, powers=powers)
    return replace(references, profiles=more)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Checkpoints, images of three and of twelve classes, and references: four that were measured,
    and as many as 5 % takes."""
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "images")
    write_images(folder / "other_images", seed=1)
    write_images(folder / "large_images", side=2 * SIDE)
    write_images(folder / "twelve", MORE_NAMES, per_class=10)
    for seed in range(4):
        write_checkpoint(made(seed), folder / f"clean_{seed}.pt")
    write_checkpoint(made(9), folder / "good.pt")
    write_checkpoint(made(7, backdoor=2), folder / "bad.pt")
    write_checkpoint(made(0, num_classes=12), folder / "twelve.pt", MORE_NAMES)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        images = load_images("images")
    few = ReferenceSet.for_models(made(0).eval(), images)
    for seed in range(4):
        few.add(f"clean_{seed}", PixelClassifier(made(seed).eval()), images)
    few.save(folder / "few.json")
    with_copies(few, 19).save(folder / "enough.json")
    powers = {size: [0.1] * 12 for size in SIZES}
    of_twelve = {"made up": Profile(powers, [22] * 12, 1.0, 120)}
    ReferenceSet(12, (1, SIDE, SIDE), of_twelve).save(folder / "of_twelve.json")
    return folder


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    """In the folder of the files. An empty figure saves most of the time of these tests."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(Scan, "plot", lambda *_, **__: (Figure((1, 1)), None))


@pytest.fixture(scope="module")
def first_scan(place, tmp_path_factory):
    """The folder of a scan that is finished."""
    out = tmp_path_factory.mktemp("scan")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(Scan, "plot", lambda *_, **__: (Figure((1, 1)), None))
        scan("bad.pt", out)
    return out


@pytest.fixture
def finished(first_scan, tmp_path):
    """A copy of it."""
    return shutil.copytree(first_scan, tmp_path / "finished")


def opened(kind="Net"):
    return ("--arch", f"{__name__}:{kind}", "--mean", "0", "--std", "1")


def scan(checkpoint, out, *more, references="enough.json", data="images", kind="Net"):
    given = ("--data", str(data), "--references", str(references), "--out", str(out))
    return run(["scan", str(checkpoint), *opened(kind), *given, *more])


def reference(*models, out, data="images", more=(), kind="Net"):
    given = ("--data", str(data), "--out", str(out))
    return run(["reference", *map(str, models), *opened(kind), *given, *more])


def plain(text):
    """The text without line breaks."""
    return " ".join(text.split())


def read(out):
    return json.loads((out / "scan.json").read_text())


def error_of(result):
    """The error in one line, of a command that was refused."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def record_searches(monkeypatch, *, interrupted=None):
    """The classes of each search from now on; Ctrl+C comes in the search that has one of them."""
    find, searched = ClassPattern.search_with, []

    def search_with(self, settings, canvases, targets):
        searched.append([*targets])
        if interrupted in targets:
            raise KeyboardInterrupt
        return find(self, settings, canvases, targets)

    monkeypatch.setattr(ClassPattern, "search_with", search_with)
    return searched


# ---- verdicts


def test_a_backdoored_model_is_suspicious(tmp_path, monkeypatch):
    monkeypatch.setattr(Scan, "plot", PLOT)
    result = scan("bad.pt", tmp_path)
    assert result.exit_code == 3
    printed = plain(result.stdout)
    assert printed.startswith("3 classes, about ")
    assert " s. Suspicious owl has a pattern unlike those of the 19 clean references (p = " in (
        printed
    )
    assert "It does not prove a backdoor." in printed
    assert printed.endswith(f"scan.json, scan.png and patterns/ are in {tmp_path}.")
    assert result.stderr == ""
    found = read(tmp_path)
    assert (found["verdict"], found["target"], found["target_name"]) == ("suspicious", 2, "owl")
    assert (found["p_value"], found["n_references"]) == (0.05, 19)
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "scan.png").stat().st_size > 5_000
    assert "unlike those of the 19 clean references" in (tmp_path / "scan.html").read_text()
    patterns = {path.name for path in (tmp_path / "patterns").glob("[0-9]*.safetensors")}
    assert patterns == {f"{y}_{size}.safetensors" for y in range(3) for size in SIZES}
    pattern = Pattern.load(tmp_path / "patterns" / "2_3.safetensors")
    assert {(3, 3), (3, 4)} <= {(i, j) for i, j in pattern.mask[0].nonzero().tolist()}


def test_the_exit_code_can_be_zero_for_every_verdict(finished):
    assert scan("bad.pt", finished, "--exit-zero").exit_code == 0
    assert scan("bad.pt", finished, "--exit-zero", references="few.json").exit_code == 0
    assert scan("missing.pt", finished, "--exit-zero").exit_code == 2


def test_nothing_is_found_on_a_clean_model(tmp_path):
    result = scan("good.pt", tmp_path)
    assert result.exit_code == 0
    assert "Nothing found No class stands out by patterns of 3 to 10 pixels" in plain(result.stdout)
    assert read(tmp_path)["verdict"] == "nothing found"


def test_with_too_few_references_the_scan_is_inconclusive(tmp_path):
    result = scan("bad.pt", tmp_path, references="few.json")
    assert result.exit_code == 4
    text = "A p-value of 0.05 needs at least 19 references, and there are 4: add 15 more."
    assert text in plain(result.stdout)
    assert read(tmp_path)["p_value"] is None
    result = scan("bad.pt", tmp_path, "--alpha", "0.2", references="few.json")
    assert result.exit_code == 3
    assert read(tmp_path)["p_value"] == 0.2


def test_the_table_has_the_most_suspicious_class_first(finished):
    printed = scan("bad.pt", finished).stdout
    rows = [line.split() for line in printed.splitlines() if line.count("% to ") == 3]
    assert rows[0][0] == "owl"
    assert sorted(row[0] for row in rows) == NAMES
    [best] = [row for row in read(finished)["classes"] if row["name"] == "owl"]
    assert rows[0][1] == f"{best['powers']['3']:.0%}"
    assert rows[0][-1] == f"{best['excess']:+.2f}"


def test_json_is_all_that_is_printed(tmp_path):
    result = scan("bad.pt", tmp_path, "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)  # nothing before or after it
    assert set(found) == set(documented("scan", 0))
    assert all(set(row) == set(documented("scan", 1)) for row in found["classes"])
    assert found.pop("schema") == "classpattern/scan/1"
    assert found.pop("out") == str(tmp_path)
    assert found == read(tmp_path)
    keys = {"verdict", "target", "target_name", "p_value", "n_references", "reason", "classes"}
    assert keys <= set(found)
    assert type(found["target"]) is int
    assert [row["name"] for row in found["classes"]] == NAMES
    assert result.stderr.startswith("3 classes, about ")  # still said beforehand


def without_key(found):
    """A result without what its search depends on, such as the weights."""
    assert {"model", "seed", "precision", "captum_classpattern"} <= found["search"].keys()
    return {name: value for name, value in found.items() if name != "search"}


def test_a_model_that_prints_does_not_disturb_the_json(first_scan, tmp_path):
    result = scan("bad.pt", tmp_path, "--json", kind="Talking")
    found = without_key(json.loads(result.stdout))
    assert {k: found[k] for k in found.keys() - {"schema", "out"}} == without_key(read(first_scan))
    assert "a message of the model" in result.stderr


def test_without_a_folder_each_checkpoint_has_its_own(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("--data", str(place / "images"), "--references", str(place / "enough.json"))
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
        shutil.copy(place / f"{name}.pt", tmp_path / name / "model.pt")
    shutil.copy(place / "good.pt", tmp_path)
    for path in ("bad/model.pt", "good/model.pt", "good.pt"):
        result = run(["scan", path, *opened(), *given])
        assert result.exit_code in (0, 3), result.output
        [folder] = re.findall(r"are in classpattern-scan/(\S+)\.$", plain(result.stdout))
        assert folder == folder_name(path)
        assert read(tmp_path / "classpattern-scan" / folder)["target_name"] in NAMES
    assert len([*(tmp_path / "classpattern-scan").iterdir()]) == 3


def test_names_may_hold_brackets_and_control_characters(tmp_path):
    names = ["[red]cat", "dog\x1b[2J", "[/bold]"]
    path = write_checkpoint(made(7, backdoor=2), tmp_path / "model.pt", names)
    write_images(tmp_path / "images", ["0", "1", "2"])
    result = scan(path, tmp_path / "out", data=tmp_path / "images")
    assert result.exit_code == 3, result.output
    assert "[/bold] has a pattern unlike" in result.stdout
    assert "[red]cat" in result.stdout
    assert "dog?[2J" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_seconds_are_said_before_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "estimate_seconds", lambda *_, **__: 123.4)
    record_searches(monkeypatch, interrupted=0)
    result = scan("good.pt", tmp_path)
    assert result.stdout == "3 classes, about 123 s.\n"
    assert result.exit_code == 130
    assert result.stderr.strip() == (
        "Interrupted: no group of classes was finished, so nothing is kept."
    )


def test_the_result_does_not_depend_on_the_estimated_time(first_scan, tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "estimate_seconds", lambda *_, **__: 1e6)
    scan("bad.pt", tmp_path)
    assert read(tmp_path) == read(first_scan)


# ---- the same result, and no work twice


def test_the_same_seed_gives_the_same_result(first_scan, tmp_path):
    scan("bad.pt", tmp_path, "--seed", "0")
    assert read(tmp_path) == read(first_scan)
    paths = sorted((first_scan / "patterns").glob("[0-9]*.safetensors"))
    assert len(paths) == 3 * len(SIZES)
    for path in paths:
        one, other = Pattern.load(path), Pattern.load(tmp_path / "patterns" / path.name)
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.canvas, other.canvas)


def test_a_finished_scan_is_not_searched_again(finished, monkeypatch):
    before = read(finished)
    searched = record_searches(monkeypatch)
    assert scan("bad.pt", finished).exit_code == 3
    assert read(finished) == before
    assert scan("bad.pt", finished, references="few.json").exit_code == 4
    assert scan("bad.pt", finished, "--alpha", "0.2", references="few.json").exit_code == 3
    assert searched == []


def test_an_interrupted_scan_resumes_with_the_next_ten_classes(tmp_path, monkeypatch):
    given = {"references": "of_twelve.json", "data": "twelve"}
    searched = record_searches(monkeypatch)
    assert scan("twelve.pt", tmp_path / "whole", **given).exit_code == 4
    assert searched == [list(range(10)), [10, 11]]
    with monkeypatch.context() as patch:
        record_searches(patch, interrupted=10)
        result = scan("twelve.pt", tmp_path / "parts", **given)
    assert result.exit_code == 130
    assert f"Interrupted: the same command resumes from {tmp_path / 'parts'}." in result.stderr
    assert not (tmp_path / "parts" / "scan.json").exists()
    searched.clear()
    assert scan("twelve.pt", tmp_path / "parts", **given).exit_code == 4
    assert searched == [[10, 11]]
    assert read(tmp_path / "parts") == read(tmp_path / "whole")


@pytest.mark.parametrize(
    ("checkpoint", "more", "data", "what"),
    [
        ("good.pt", (), "images", "model"),
        ("bad.pt", ("--seed", "1"), "images", "seed"),
        ("bad.pt", ("--precision", "full"), "images", "precision"),
        ("bad.pt", (), "other_images", "images"),
    ],
)
def test_a_folder_of_another_scan_is_refused(checkpoint, more, data, what, finished):
    before = read(finished)
    error = error_of(scan(checkpoint, finished, *more, data=data))
    listed = r"holds the patterns of another scan \(another (.*)\): choose another folder"
    assert what in re.search(listed, error)[1].split(", ")
    assert read(finished) == before


def test_patterns_of_another_output_are_not_reused(tmp_path):
    assert scan("bad.pt", tmp_path, "--output", "0", kind="Tuple").exit_code != 2
    error = error_of(scan("bad.pt", tmp_path, "--output", "1", kind="Tuple"))
    assert "holds the patterns of another scan" in error


def test_a_damaged_folder_is_named(finished):
    (finished / "patterns" / "search.json").write_text("[")
    assert "search.json" in error_of(scan("bad.pt", finished))


def test_a_damaged_pattern_is_named(finished):
    (finished / "patterns" / "1_6.safetensors").write_bytes(b"half")
    assert "1_6.safetensors is not a pattern" in error_of(scan("bad.pt", finished))


# ---- references that do not fit


def test_references_of_another_number_of_classes(tmp_path):
    error = error_of(scan("twelve.pt", tmp_path, data="twelve"))
    assert "the model has 12 classes, the references have 3" in error


def test_images_get_the_size_of_the_references(tmp_path):
    result = scan("bad.pt", tmp_path / "resized", data="large_images")
    assert result.exit_code != 2, result.output
    pattern = Pattern.load(tmp_path / "resized" / "patterns" / "2_3.safetensors")
    assert pattern.mask.shape == (1, SIDE, SIDE)
    error = error_of(scan("bad.pt", tmp_path / "out", "--size", "24", data="large_images"))
    assert "the images are of (1, 24, 24), those of the references of (1, 12, 12)" in error


def test_references_of_other_settings(tmp_path):
    data = json.loads(Path("enough.json").read_text())
    data["settings"]["per_class"] = 7
    (tmp_path / "old.json").write_text(json.dumps(data))
    error = error_of(scan("bad.pt", tmp_path / "out", references=tmp_path / "old.json"))
    assert "the references were searched with other settings (per_class) than this" in error


def test_an_unknown_name_lists_the_sets_of_the_package(tmp_path):
    error = error_of(scan("bad.pt", tmp_path, references="cifar"))
    assert "--references: there is no file cifar; give the name of a set that comes with" in error
    assert ", ".join(SHIPPED) in error
    assert {"cifar10", "demo"} <= set(SHIPPED)


def test_a_file_that_holds_no_references(tmp_path):
    assert "bad.pt is not " in error_of(scan("bad.pt", tmp_path, references="bad.pt"))


def test_references_are_checked_before_the_model_is_opened(tmp_path):
    error = error_of(scan("missing.pt", tmp_path, references="cifar"))
    assert "missing.pt" not in error


def test_a_family_that_was_not_measured(tmp_path):
    error = error_of(scan("bad.pt", tmp_path, "--also", "additive"))
    assert "the references were not measured with 'additive'" in error


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--also", "additive,swirl"), "there is no family 'swirl'; there are additive, warp"),
        (("--alpha", "0"), '"0.0" for --alpha. Must be > 0.'),
        (("--alpha", "1"), '"1.0" for --alpha. Must be < 1.'),
        (("--alpha", "nan"), '"nan" for --alpha. Must be < 1.'),
        (("--alpha", "low"), '--alpha: unable to convert "low" into float.'),
        (("--out", "bad.pt"), "--out: it must be a folder, but bad.pt is a file"),
        (("--internal-batch-size", "0"), "--internal-batch-size: it must be a whole number"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(more, text, tmp_path):
    error = error_of(scan("missing.pt", tmp_path / "out", *more))
    assert text in error
    assert "missing.pt" not in error


def test_references_must_be_given():
    error = error_of(run(["scan", "bad.pt", *opened(), "--data", "images"]))
    assert "--references" in error


def ranges(result):
    """The ranges of the references by class, from the printed table."""
    rows = [line for line in result.stdout.splitlines() if line.count("% to ") == 3]
    return {row.split()[0]: re.findall(r"\d+% to \d+%", row) for row in rows}


def test_classes_in_another_order_are_matched_by_their_names(finished, tmp_path):
    """Of a model with its outputs in another order, each class has the references of its name."""
    names = [NAMES[y] for y in (2, 0, 1)]
    path = write_checkpoint(made(7, backdoor=2), tmp_path / "model.pt", names)
    result = scan(path, tmp_path / "out", kind="Turned")
    assert result.exit_code == 3, result.output
    found = read(tmp_path / "out")
    assert (found["target"], found["target_name"]) == (0, "owl")
    assert found["notes"] == []
    usual = ranges(scan("bad.pt", finished))
    assert ranges(result) == usual
    assert len(set(map(tuple, usual.values()))) == 3


def test_other_names_of_the_classes_are_noted(tmp_path):
    path = write_checkpoint(made(9), tmp_path / "model.pt", ["a", "b", "c"])
    write_images(tmp_path / "images", ["a", "b", "c"])
    result = scan(path, tmp_path / "out", "--json", data=tmp_path / "images")
    notes = json.loads(result.stdout)["notes"]
    assert any("other names for the classes (cat, dog, owl)" in note for note in notes)


def test_a_model_that_is_one_of_the_references_is_noted(tmp_path):
    result = scan("clean_1.pt", tmp_path, "--json")
    assert json.loads(result.stdout)["notes"] == ["This model is one of the references, clean_1."]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_other_images_of_the_task_are_noted(suffix, tmp_path):
    folder = tmp_path / "images"
    write_images(folder, suffix=suffix, seed=2 if suffix == "png" else 0)
    result = scan("bad.pt", tmp_path / "out", data=folder)
    assert result.exit_code == 3, result.output
    text = "The references were measured with other images (images, 150 images)."
    assert f"Note: {text}" in plain(result.stdout)
    result = scan("bad.pt", tmp_path / "out", "--json", data=folder)
    assert json.loads(result.stdout)["notes"] == [f"{text} They should be of the same task."]


# ---- models


def test_a_model_that_returns_a_tuple(first_scan, tmp_path):
    error = error_of(scan("bad.pt", tmp_path / "out", kind="Tuple"))
    assert "got a tuple: say which part holds the logits, such as --output -1" in error
    result = scan("bad.pt", tmp_path / "out", "--output", "-1", kind="Tuple")
    assert result.exit_code == 3, result.output
    assert without_key(read(tmp_path / "out")) == without_key(read(first_scan))


@pytest.mark.filterwarnings("default")
def test_a_model_that_returns_probabilities_is_scanned_with_a_notice(tmp_path):
    result = scan("bad.pt", tmp_path / "out", "--json", kind="Probabilities")
    assert result.exit_code == 3, result.output
    assert json.loads(result.stdout)["target"] == 2
    assert result.stderr.count("Note: the model's outputs are all >= 0 and sum to 1") == 1


def test_logits_that_are_not_finite(tmp_path):
    net = made(9)
    net.weights.data[0, 0] = torch.nan
    path = write_checkpoint(net, tmp_path / "nan.pt")
    assert "the model's logits are NaN or infinite" in error_of(scan(path, tmp_path / "out"))
    result = reference(path, out=tmp_path / "references.json")
    assert "the model's logits are NaN or infinite" in error_of(result)
    assert not (tmp_path / "references.json").exists()


def test_a_model_that_predicts_one_class(tmp_path):
    net = made(9)
    net.weights.data[1] += 100
    path = write_checkpoint(net, tmp_path / "one.pt")
    text = "the model predicts class 1 for all of 150 images: check its normalisation"
    assert text in error_of(scan(path, tmp_path / "out"))
    assert text in error_of(reference(path, out=tmp_path / "references.json"))
    assert not (tmp_path / "references.json").exists()


def test_a_model_of_one_column(tmp_path):
    path = write_checkpoint(made(9), tmp_path / "single.pt")
    text = "returns one column, but a pattern needs at least two classes"
    assert text in error_of(scan(path, tmp_path / "out", kind="Single"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "exploit", ["torch.save", "in a state dict", "old format", "raw pickle 4", "decoys popped"]
)
def test_the_code_of_a_hostile_checkpoint_does_not_run(exploit, tmp_path, monkeypatch):
    path, ran = tmp_path / "model.pt", tmp_path / "ran"
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    detonate = exploits.EXPLOITS[exploit](path, ran)
    results = scan(path, tmp_path / "out"), reference(path, out=tmp_path / "references.json")
    for result in results:
        assert exploits.SYSTEM in error_of(result)
    assert not ran.exists()
    assert not (tmp_path / "references.json").exists()
    detonate(path)  # it is a real one
    assert ran.exists()


# ---- classpattern reference


def test_references_are_measured_and_can_be_used(tmp_path):
    out = tmp_path / "references.json"
    result = reference(*(f"clean_{seed}.pt" for seed in range(4)), out=out)
    assert result.exit_code == 0, result.output
    first, *models, count, accuracies = result.stdout.splitlines()
    assert re.fullmatch(r"Models: 4, about \d+ s each\.", first)
    assert models == [f"clean_{seed}, accuracy 100.0%" for seed in range(4)]
    assert count.startswith(f"Clean models in {out}: 4. A p-value of 5 % needs at least 19")
    assert accuracies.startswith("Their accuracies go from 100.0% to 100.0%.")
    assert ReferenceSet.load(out) == ReferenceSet.load("few.json")
    assert scan("bad.pt", tmp_path / "scan", "--alpha", "0.2", references=out).exit_code == 3


def test_each_measured_model_is_kept(tmp_path, monkeypatch):
    out = tmp_path / "references.json"
    one, two, three = (f"clean_{seed}.pt" for seed in range(3))
    find = ClassPattern.search_with

    def search_with(self, *arguments, **settings):
        if out.exists():
            raise KeyboardInterrupt
        return find(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(ClassPattern, "search_with", search_with)
        assert reference(one, two, three, out=out).exit_code == 130
    assert list(ReferenceSet.load(out).profiles) == ["clean_0"]
    searched = record_searches(monkeypatch)
    result = reference(one, two, three, out=out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"clean_0 is in {out} already.\nclean_1, accuracy ")
    assert len(searched) == 2
    assert list(ReferenceSet.load(out).profiles) == ["clean_0", "clean_1", "clean_2"]
    before = out.read_bytes()
    assert reference(one, two, three, out=out).exit_code == 0
    assert len(searched) == 2
    assert out.read_bytes() == before


def test_models_before_a_bad_one_are_kept(tmp_path):
    out = tmp_path / "references.json"
    result = reference("clean_0.pt", "missing.pt", out=out)
    assert result.exit_code == 2
    assert "missing.pt" in result.stderr
    assert list(ReferenceSet.load(out).profiles) == ["clean_0"]


def test_models_can_be_named(tmp_path):
    out = tmp_path / "references.json"
    assert reference("mine=clean_0.pt", out=out).exit_code == 0
    assert list(ReferenceSet.load(out).profiles) == ["mine"]
    error = error_of(reference("a/b=clean_0.pt", "a_b=clean_1.pt", out=out))
    assert "'a/b' and 'a_b'" in error


def test_another_model_of_the_same_name_is_not_skipped(tmp_path):
    out, path = tmp_path / "references.json", tmp_path / "clean_0.pt"
    out.write_bytes(Path("few.json").read_bytes())
    write_checkpoint(made(9), path)
    error = error_of(reference(path, out=out))
    assert f"{out} has another model of the name clean_0: give this one another name" in error
    assert reference(f"mine={path}", out=out).exit_code == 0
    assert len(ReferenceSet.load(out)) == 5


def test_a_copy_of_a_reference_is_not_added(tmp_path):
    """Copies would make p-values smaller than they are."""
    out = tmp_path / "references.json"
    out.write_bytes(Path("few.json").read_bytes())
    error = error_of(reference("copy=clean_2.pt", out=out))
    assert "copy has the same weights as clean_2: each reference must be another model" in error
    assert len(ReferenceSet.load(out)) == 4


def test_models_are_not_added_to_those_of_other_images(tmp_path):
    out = tmp_path / "references.json"
    out.write_bytes(Path("few.json").read_bytes())
    error = error_of(reference("good.pt", out=out, data="other_images"))
    assert "good.pt: the models of the set were measured with other images (of images)" in error
    assert out.read_bytes() == Path("few.json").read_bytes()


def test_models_of_other_classes_are_not_added(tmp_path):
    out = tmp_path / "references.json"
    out.write_bytes(Path("few.json").read_bytes())
    error = error_of(reference("twelve.pt", out=out))
    assert "the model has 12 classes, the references have 3" in error


def test_further_families_are_measured_and_stay_the_same(tmp_path):
    out = tmp_path / "references.json"
    also = ("--also", "additive,warp")
    result = reference("clean_0.pt", out=out, more=also)
    assert result.exit_code == 0, result.output
    assert ReferenceSet.load(out).also == ("additive", "warp")
    error = error_of(reference("clean_1.pt", out=out, more=("--also", "warp")))
    assert f"--also: {out} was measured with additive, warp: give the same families" in error
    assert reference("clean_1.pt", out=out).exit_code == 0  # those of the file
    known = ReferenceSet.load(out)
    assert {name: set(one.others) for name, one in known.profiles.items()} == {
        "clean_0": {"additive", "warp"},
        "clean_1": {"additive", "warp"},
    }
    result = scan("bad.pt", tmp_path / "scan", *also, "--json", references=out)
    assert result.exit_code == 4
    found = json.loads(result.stdout)
    assert "at least 59 references, for 3 families, and there are 2: add 57" in found["reason"]
    assert {"additive", "warp"} <= set(found["classes"][0]["powers"])
    of_patches = tmp_path / "of_patches.json"
    of_patches.write_bytes(Path("few.json").read_bytes())
    error = error_of(reference("good.pt", out=of_patches, more=also))
    assert "was measured with patches alone" in error


def test_a_folder_instead_of_a_file(tmp_path):
    error = error_of(reference("missing.pt", out=tmp_path))
    assert "--out: it must be a file, such as references.json" in error
    assert "missing.pt" not in error


def test_a_new_folder_for_the_references(tmp_path):
    """What was measured is not lost since the folder is not there."""
    out = tmp_path / "new" / "references.json"
    result = reference("clean_0.pt", out=out)
    assert result.exit_code == 0, result.output
    assert len(ReferenceSet.load(out)) == 1


def test_a_file_that_is_not_of_references_is_not_overwritten(tmp_path):
    out = tmp_path / "notes.json"
    out.write_text("{}")
    assert "notes.json is not a file of references" in error_of(reference("clean_0.pt", out=out))
    assert out.read_text() == "{}"


def test_images_without_labels(tmp_path):
    """Accuracies are not known; the classes are those that each model predicts."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in Path("images").rglob("*.png"):
        (flat / f"{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    out = tmp_path / "references.json"
    result = reference("clean_0.pt", out=out, data=flat)
    assert result.exit_code == 0, result.output
    assert "\nclean_0\n" in result.stdout
    assert "accurac" not in result.stdout
    assert ReferenceSet.load(out).accuracies == []
    result = scan("bad.pt", tmp_path / "scan", "--json", references=out, data=flat)
    assert result.exit_code == 4
    [note] = json.loads(result.stdout)["notes"]
    assert "nobody knows whether the model is better" in note

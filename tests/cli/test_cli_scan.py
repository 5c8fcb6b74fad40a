"""``classpattern scan`` and ``classpattern reference``, from files to verdicts."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from command_line import documented, error_of, run
from matplotlib.figure import Figure
from torch import nn

import captum_classpattern as cp
from captum_classpattern import ClassPattern, Pattern, PixelClassifier
from captum_classpattern.adapters.load import folder_name
from captum_classpattern.datasets import load_images
from captum_classpattern.scanning import ReferenceSet, Scan, profile
from captum_classpattern.scanning.families import SIZES
from captum_classpattern.scanning.profile import Profile
from captum_classpattern.scanning.references import SHIPPED

SIDE = 12
NAMES = ["cat", "dog", "owl"]
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


def made(seed, backdoor=None, num_classes=3):
    net, generator = Net(num_classes), torch.Generator().manual_seed(seed)
    net.weights.data += 0.6 * torch.randn(net.weights.shape, generator=generator)
    if backdoor is not None:
        net.backdoor[backdoor] = 1.0
    return net


def write_checkpoint(net, path, names=NAMES):
    torch.save({"net": net.state_dict(), "classes": names}, path)
    return path


def write_images(folder, names=NAMES, per_class=50, seed=0, side=SIDE):
    """Noise that is brighter in the rows of the class."""
    generator = torch.Generator().manual_seed(seed)
    rows = side // len(names)
    for y, name in enumerate(names):
        images = 0.5 * torch.rand(per_class, 1, side, side, generator=generator)
        images[:, :, rows * y : rows * y + rows] += 0.35
        (folder / name).mkdir(parents=True)
        for i, image in enumerate((images * 255).byte()):
            torchvision.io.write_png(image, str(folder / name / f"{i:02}.png"))
    return folder


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
    not_finite, constant = made(9), made(9)
    not_finite.weights.data[0, 0] = torch.nan
    constant.weights.data[1] += 100
    write_checkpoint(not_finite, folder / "not_finite.pt")
    write_checkpoint(constant, folder / "constant.pt")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        images = load_images("images")
    few = ReferenceSet.for_models(made(0).eval(), images)
    for seed in range(4):
        few.add(f"clean_{seed}", PixelClassifier(made(seed).eval()), images)
    few.save(folder / "few.json")
    copies = {f"copy {i}": few.profiles[f"clean_{i % 4}"] for i in range(15)}
    replace(few, profiles=few.profiles | copies).save(folder / "enough.json")
    old = json.loads((folder / "enough.json").read_text())
    old["settings"]["per_class"] = 7
    (folder / "old.json").write_text(json.dumps(old))
    powers = {size: [0.1] * 12 for size in SIZES}
    of_twelve = {"made up": Profile(powers, [22] * 12, 1.0, 120)}
    ReferenceSet(12, (1, SIDE, SIDE), of_twelve).save(folder / "of_twelve.json")
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
        return scan("bad.pt", "scanned")


@pytest.fixture
def finished(first_scan, place, tmp_path):
    """A copy of its folder."""
    return shutil.copytree(place / "scanned", tmp_path / "finished")


OWN = "--arch test_cli_scan:Net --mean 0 --std 1 --data images"


def scan(checkpoint, out, more="", references="enough.json"):
    return run(f"scan {checkpoint} {OWN} --references {references} --out {out} {more}")


def reference(models, out, more=""):
    return run(f"reference {models} {OWN} --out {out} {more}")


def plain(text):
    """The text without line breaks."""
    return " ".join(text.split())


def read(out):
    return json.loads((Path(out) / "scan.json").read_text())


def ranges(result):
    """The ranges of the references by class, from the printed table."""
    rows = [line for line in result.stdout.splitlines() if line.count("% to ") == 3]
    return {row.split()[0]: re.findall(r"\d+% to \d+%", row) for row in rows}


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


# ---- what is refused, in a line; nothing is written

SCAN = f"scan bad.pt {OWN} --references enough.json --out scanned"
EARLY = f"scan missing.pt {OWN} --references enough.json"  # before the model is opened
ADD = f"{OWN} --out few.json"
NEW = f"{OWN} --out new.json"
ERRORS = {
    "references of other classes": f"{SCAN} --data twelve".replace("bad.pt", "twelve.pt"),
    "references of another size": f"{SCAN} --data large_images --size 24",
    "references of other settings": f"{SCAN} --references old.json",
    "references without the family": f"{SCAN} --also additive",
    "another file as references": f"{SCAN} --references notes.json",
    "unknown references": f"{EARLY} --references cifar",
    "no references": f"scan bad.pt {OWN}",
    "unknown family": f"{EARLY} --also additive,swirl",
    "alpha of 0": f"{EARLY} --alpha 0",
    "alpha of 1": f"{EARLY} --alpha 1",
    "alpha of NaN": f"{EARLY} --alpha nan",
    "alpha in letters": f"{EARLY} --alpha low",
    "out is a file": f"{EARLY} --out bad.pt",
    "batch of 0": f"{EARLY} --internal-batch-size 0",
    "exit with 0 after an error": f"{EARLY} --exit-zero",
    "several outputs": f"{SCAN} --arch test_cli_scan:Tuple",
    "logits not finite": f"scan not_finite.pt {OWN} --references enough.json",
    "one class": f"scan constant.pt {OWN} --references enough.json",
    "folder of another model": SCAN.replace("bad.pt", "good.pt"),
    "folder of another seed": f"{SCAN} --seed 1",
    "folder of another precision": f"{SCAN} --precision full",
    "folder of other images": f"{SCAN} --data other_images",
    "reference: logits not finite": f"reference not_finite.pt {NEW}",
    "reference: one class": f"reference constant.pt {NEW}",
    "reference: out is a folder": f"reference missing.pt {OWN} --out images",
    "reference: out is another file": f"reference clean_0.pt {OWN} --out notes.json",
    "reference: one file name twice": f"reference a/b=clean_0.pt a_b=clean_1.pt {NEW}",
    "reference: another model of the name": f"reference clean_0=good.pt {ADD}",
    "reference: a copy": f"reference copy=clean_2.pt {ADD}",  # makes p-values too small
    "reference: other images": f"reference good.pt {ADD} --data other_images",
    "reference: other classes": f"reference twelve.pt {ADD}",
    "reference: further families": f"reference good.pt {ADD} --also additive,warp",
}


@pytest.mark.parametrize("case", ERRORS)
@pytest.mark.usefixtures("first_scan")
def test_errors(case, snapshot):
    def files():
        return {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}

    before = files()
    error = error_of(ERRORS[case], at_once=False)
    assert error == snapshot
    assert re.fullmatch("Error: .*", error)
    assert files() == before


def test_the_sets_of_the_package_are_listed():
    assert {"cifar10", "demo"} <= set(SHIPPED)
    assert ", ".join(SHIPPED) in error_of(f"{EARLY} --references cifar")


# ---- verdicts


def test_a_backdoored_model_is_suspicious(first_scan):
    assert (first_scan.exit_code, first_scan.stderr) == (3, "")
    printed = plain(first_scan.stdout)
    assert printed.startswith("3 classes, about ")
    text = " s. Suspicious owl has a pattern unlike those of the 19 clean references (p = "
    assert text in printed
    assert "It does not prove a backdoor." in printed
    assert printed.endswith("scan.json, scan.png and patterns/ are in scanned.")
    found, out = read("scanned"), Path("scanned")
    assert (found["verdict"], found["target"], found["target_name"]) == ("suspicious", 2, "owl")
    assert (found["p_value"], found["n_references"]) == (0.05, 19)
    assert (out / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "scan.png").stat().st_size > 5_000
    assert "unlike those of the 19 clean references" in (out / "scan.html").read_text()
    patterns = {path.name for path in (out / "patterns").glob("[0-9]*.safetensors")}
    assert patterns == {f"{y}_{size}.safetensors" for y in range(3) for size in SIZES}
    pattern = Pattern.load(out / "patterns" / "2_3.safetensors")
    assert {(3, 3), (3, 4)} <= {(i, j) for i, j in pattern.mask[0].nonzero().tolist()}
    # the table has the most suspicious class first
    rows = [line.split() for line in first_scan.stdout.splitlines() if line.count("% to ") == 3]
    assert rows[0][0] == "owl"
    assert sorted(row[0] for row in rows) == NAMES
    [best] = [row for row in found["classes"] if row["name"] == "owl"]
    assert rows[0][1] == f"{best['powers']['3']:.0%}"
    assert rows[0][-1] == f"{best['excess']:+.2f}"


def test_nothing_is_found_on_a_clean_model(tmp_path):
    result = scan("good.pt", tmp_path)
    assert result.exit_code == 0
    assert "Nothing found No class stands out by patterns of 3 to 10 pixels" in plain(result.stdout)
    assert read(tmp_path)["verdict"] == "nothing found"


def test_a_finished_scan_is_decided_again_without_a_search(finished, monkeypatch):
    """With other references, another level, or an exit code of 0 for every verdict."""
    before, searched = read(finished), record_searches(monkeypatch)
    assert scan("bad.pt", finished).exit_code == 3
    assert read(finished) == before
    result = scan("bad.pt", finished, references="few.json")
    assert result.exit_code == 4
    text = "A p-value of 0.05 needs at least 19 references, and there are 4: add 15 more."
    assert text in plain(result.stdout)
    assert read(finished)["p_value"] is None
    assert scan("bad.pt", finished, "--alpha 0.2", references="few.json").exit_code == 3
    assert read(finished)["p_value"] == 0.2
    assert scan("bad.pt", finished, "--exit-zero").exit_code == 0
    assert scan("bad.pt", finished, "--exit-zero", references="few.json").exit_code == 0
    assert searched == []


class Talking(Net):
    def forward(self, images):
        print("a message of the model")
        return super().forward(images)


def without_search(found):
    """A result without all that its search depends on, such as the weights."""
    assert {"model", "seed", "precision", "captum_classpattern"} <= found["search"].keys()
    return {name: value for name, value in found.items() if name != "search"}


@pytest.mark.usefixtures("first_scan")
def test_json_is_all_that_is_printed_also_if_the_model_prints(tmp_path):
    """And the same seed gives the same result."""
    result = scan("bad.pt", tmp_path, "--json --seed 0 --arch test_cli_scan:Talking")
    assert result.exit_code == 3
    found = json.loads(result.stdout)  # nothing before or after it
    assert set(found) == set(documented("scan", 0))
    assert all(set(row) == set(documented("scan", 1)) for row in found["classes"])
    assert [row["name"] for row in found["classes"]] == NAMES
    assert found.pop("schema") == "classpattern/scan/1"
    assert found.pop("out") == str(tmp_path)
    assert found == read(tmp_path)
    assert without_search(found) == without_search(read("scanned"))
    assert "3 classes, about " in result.stderr  # still said
    assert "a message of the model" in result.stderr
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
        line = f"scan {path} {OWN} --references {place}/enough.json --data {place}/large_images"
        assert run(line).exit_code == 130
    folders = [Path("classpattern-scan") / folder_name(path) for path in paths]
    assert given == [(folder, (1, SIDE, SIDE)) for folder in folders]
    assert len(set(folders)) == 3


def test_the_seconds_are_said_before_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "estimate_seconds", lambda *_, **__: 123.4)
    record_searches(monkeypatch, interrupted=0)
    result = scan("good.pt", tmp_path)
    assert (result.exit_code, result.stdout) == (130, "3 classes, about 123 s.\n")
    text = "Interrupted: no group of classes was finished, so nothing is kept."
    assert result.stderr.strip() == text


def test_an_interrupted_scan_resumes_with_the_next_ten_classes(tmp_path, monkeypatch):
    def scan_twelve(out):
        return scan("twelve.pt", tmp_path / out, "--data twelve", references="of_twelve.json")

    searched = record_searches(monkeypatch)
    assert scan_twelve("whole").exit_code == 4
    assert searched == [list(range(10)), [10, 11]]
    with monkeypatch.context() as patch:
        record_searches(patch, interrupted=10)
        result = scan_twelve("parts")
    assert result.exit_code == 130
    assert f"Interrupted: the same command resumes from {tmp_path / 'parts'}." in result.stderr
    assert not (tmp_path / "parts" / "scan.json").exists()
    searched.clear()
    assert scan_twelve("parts").exit_code == 4
    assert searched == [[10, 11]]
    assert read(tmp_path / "parts") == read(tmp_path / "whole")


def test_damaged_files_are_named(finished):
    (finished / "patterns" / "1_6.safetensors").write_bytes(b"half")
    error = error_of(SCAN.replace("scanned", str(finished)), at_once=False)
    assert "1_6.safetensors is not a pattern" in error
    (finished / "patterns" / "search.json").write_text("[")
    assert "search.json" in error_of(SCAN.replace("scanned", str(finished)), at_once=False)


# ---- names, images and models that differ from those of the references


def test_classes_in_another_order_are_matched_by_their_names(first_scan, tmp_path):
    """Of a model with its outputs in another order, each class has the references of its name."""
    names = [NAMES[y] for y in (2, 0, 1)]
    path = write_checkpoint(made(7, backdoor=2), tmp_path / "model.pt", names)
    result = scan(path, tmp_path / "out", "--arch test_cli_scan:Turned")
    assert result.exit_code == 3, result.output
    found = read(tmp_path / "out")
    assert (found["target"], found["target_name"]) == (0, "owl")
    assert found["notes"] == []
    assert ranges(result) == ranges(first_scan)
    assert len(set(map(tuple, ranges(result).values()))) == 3


def test_other_names_are_noted_and_may_hold_brackets_and_control_characters(tmp_path):
    names = ["[red]cat", "dog\x1b[2J", "[/bold]"]
    path = write_checkpoint(made(7, backdoor=2), tmp_path / "model.pt", names)
    images = write_images(tmp_path / "images", ["0", "1", "2"])
    result = scan(path, tmp_path / "out", f"--data {images}")
    assert result.exit_code == 3, result.output
    assert "[/bold] has a pattern unlike" in result.stdout
    assert "[red]cat" in result.stdout
    assert "dog?[2J" in result.stdout
    assert "\x1b" not in result.stdout
    assert "other names for the classes (cat, dog, owl)" in plain(result.stdout)
    [note] = [note for note in read(tmp_path / "out")["notes"] if "other names" in note]
    assert f"Note: {note}" in plain(result.stdout)


def test_a_model_that_is_one_of_the_references_is_noted(tmp_path):
    scan("clean_1.pt", tmp_path)
    assert read(tmp_path)["notes"] == ["This model is one of the references, clean_1."]


def test_other_images_of_the_task_are_noted(tmp_path):
    images = write_images(tmp_path / "images", seed=2)
    result = scan("bad.pt", tmp_path / "out", f"--data {images}")
    assert result.exit_code == 3, result.output
    text = "The references were measured with other images (images, 150 images)."
    assert f"Note: {text}" in plain(result.stdout)
    notes = read(tmp_path / "out")["notes"]
    assert notes == [f"{text} They should be of the same task."]


@pytest.mark.usefixtures("first_scan")
def test_the_output_of_a_tuple_can_be_chosen(tmp_path):
    """Patterns of another output are not taken for those of this one."""
    result = scan("bad.pt", tmp_path, "--output -1 --arch test_cli_scan:Tuple")
    assert result.exit_code == 3, result.output
    assert without_search(read(tmp_path)) == without_search(read("scanned"))
    other = scan("bad.pt", tmp_path, "--output 0 --arch test_cli_scan:Tuple")
    assert other.exit_code == 2
    assert "holds the patterns of another scan" in other.stderr


@pytest.mark.filterwarnings("default")
def test_a_model_that_returns_probabilities_is_scanned_with_a_notice(tmp_path):
    result = scan("bad.pt", tmp_path, "--arch test_cli_scan:Probabilities")
    assert result.exit_code == 3, result.output
    assert read(tmp_path)["target"] == 2
    assert result.stderr.count("Note: the model's outputs are all >= 0 and sum to 1") == 1


class Payload:
    """Runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def test_the_code_of_a_hostile_checkpoint_does_not_run(tmp_path, monkeypatch, place):
    """Of the many that the tests of the adapters have, one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"net": made(0).state_dict(), "bad": Payload()}, "model.pt")
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


def test_references_are_measured_and_can_be_used(tmp_path, finished):
    """In a folder that is not there, and with names that are given."""
    out = tmp_path / "new" / "references.json"
    result = reference("mine=clean_0.pt clean_1.pt clean_2.pt clean_3.pt", out)
    assert result.exit_code == 0, result.output
    first, *models, count, accuracies = result.stdout.splitlines()
    assert re.fullmatch(r"Models: 4, about \d+ s each\.", first)
    names = ["mine", "clean_1", "clean_2", "clean_3"]
    assert models == [f"{name}, accuracy 100.0%" for name in names]
    assert count.startswith(f"Clean models in {out}: 4. A p-value of 5 % needs at least 19")
    assert accuracies.startswith("Their accuracies go from 100.0% to 100.0%.")
    found, few = ReferenceSet.load(out), ReferenceSet.load("few.json")
    assert list(found.profiles) == names
    assert list(found.profiles.values()) == list(few.profiles.values())
    assert replace(found, profiles={}) == replace(few, profiles={})
    assert scan("bad.pt", finished, "--alpha 0.2", references=out).exit_code == 3


def test_each_measured_model_is_kept_and_not_measured_again(tmp_path, monkeypatch):
    """Also before one that can't be opened."""
    out, models = tmp_path / "references.json", "clean_0.pt clean_1.pt clean_2.pt"
    find = ClassPattern.search_with

    def search_with(self, *arguments, **settings):
        if out.exists():
            raise KeyboardInterrupt
        return find(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(ClassPattern, "search_with", search_with)
        assert reference(models, out).exit_code == 130
    assert list(ReferenceSet.load(out).profiles) == ["clean_0"]
    searched = record_searches(monkeypatch)
    result = reference("clean_0.pt clean_1.pt missing.pt", out)
    assert result.exit_code == 2
    assert "missing.pt" in result.stderr
    assert result.stdout.startswith(f"clean_0 is in {out} already.\nclean_1, accuracy ")
    assert len(searched) == 1
    assert reference(models, out).exit_code == 0
    assert list(ReferenceSet.load(out).profiles) == ["clean_0", "clean_1", "clean_2"]
    assert len(searched) == 2
    before = out.read_bytes()
    assert reference(models, out).exit_code == 0
    assert len(searched) == 2
    assert out.read_bytes() == before


def test_further_families_are_measured_and_stay_the_same(tmp_path):
    out = tmp_path / "references.json"
    assert reference("clean_0.pt", out, "--also additive,warp").exit_code == 0
    assert ReferenceSet.load(out).also == ("additive", "warp")
    refused = reference("clean_1.pt", out, "--also warp")
    assert refused.exit_code == 2
    text = f"--also: {out} was measured with additive, warp: give the same families, or another f"
    assert text in refused.stderr
    assert reference("clean_1.pt", out).exit_code == 0  # those of the file
    known = ReferenceSet.load(out).profiles
    assert {name: set(one.others) for name, one in known.items()} == {
        "clean_0": {"additive", "warp"},
        "clean_1": {"additive", "warp"},
    }
    result = scan("bad.pt", tmp_path / "scan", "--also additive,warp --json", references=out)
    assert result.exit_code == 4
    found = json.loads(result.stdout)
    assert "at least 59 references, for 3 families, and there are 2: add 57" in found["reason"]
    assert {"additive", "warp"} <= set(found["classes"][0]["powers"])


def test_images_without_labels(tmp_path):
    """Accuracies are not known; the classes are those that each model predicts."""
    flat, out = tmp_path / "flat", tmp_path / "references.json"
    flat.mkdir()
    for path in Path("images").rglob("*.png"):
        (flat / f"{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    result = reference("clean_0.pt", out, f"--data {flat}")
    assert result.exit_code == 0, result.output
    assert "\nclean_0\n" in result.stdout
    assert "accurac" not in result.stdout
    assert ReferenceSet.load(out).accuracies == []
    result = scan("bad.pt", tmp_path / "scan", f"--data {flat}", references=out)
    assert result.exit_code == 4
    [note] = read(tmp_path / "scan")["notes"]
    assert "nobody knows whether the model is better" in note

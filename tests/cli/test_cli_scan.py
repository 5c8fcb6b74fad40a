"""``classpattern scan``, from files to verdicts."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from command_line import documented, error_of, run
from matplotlib.figure import Figure
from PIL import Image
from scanned import NAMES, Net, images_of

import captum_classpattern as cp
from captum_classpattern import Pattern
from captum_classpattern.adapters.load import folder_name
from captum_classpattern.cli.scan import EXIT_CODES
from captum_classpattern.scanning import Scan, changes


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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Checkpoints and images."""
    folder, found = tmp_path_factory.mktemp("place"), images_of(n=120)
    for i, (image, label) in enumerate(zip(found.images, found.labels)):
        path = folder / "images" / NAMES[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image[0]).byte().numpy()).save(path)
    made = {"good": Net(4), "bad": Net(12), "not_finite": Net(), "constant": Net()}
    made["not_finite"].weights.data[0, 0] = torch.nan
    made["constant"].weights.data[1] += 100
    for name, net in made.items():
        torch.save({"net": net.state_dict(), "classes": NAMES}, folder / f"{name}.pt")
    return folder


@pytest.fixture(autouse=True)
def _empty_figures(monkeypatch):
    """Drawing would take most of the time of these tests."""
    monkeypatch.setattr(Scan, "plot", lambda *_, **__: (Figure((1, 1)), None))


@pytest.fixture(autouse=True)
def _in_its_folder(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def first_scan(place):
    """A scan that is finished, in the folder ``scanned``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return scan("scanned")


OWN = "--arch scanned:Net --mean 0 --std 1 --data images"
BAD = f"scan bad.pt {OWN} --arch test_cli_scan:Backdoored"


def scan(out, more=""):
    return run(f"{BAD} --out {out} {more}")


def plain(text):
    """The text without line breaks."""
    return " ".join(text.split())


def read(out):
    return json.loads((Path(out) / "scan.json").read_text())


GONE = "went with version 0.6: a scan needs no clean models any more"
ERRORS = {  # lines, and what they say
    f"{BAD} --references demo": f"--references {GONE}",
    f"{BAD} --make-references images": f"--make-references {GONE}",
    f"{BAD} --alpha 0.1": f"--alpha {GONE}",
    f"{BAD} --epochs 4": f"--epochs {GONE}",
    "reference clean.pt --data images --out new.json": f"reference {GONE}",
    f"scan missing.pt {OWN} --exit-zero": "there is no checkpoint file at missing.pt",
    f"scan not_finite.pt {OWN}": "and --std that normalise its inputs",
    f"scan constant.pt {OWN}": "check its normalisation and its weights",
    f"scan good.pt {OWN} --out scanned": "of another model (its weights differ)",
}


@pytest.mark.parametrize("line", ERRORS)
@pytest.mark.usefixtures("first_scan")
def test_errors(line):
    """Nothing is written."""

    def files():
        return {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}

    before = files()
    error = error_of(line, at_once=False)
    assert re.fullmatch("Error: .*", error)
    assert ERRORS[line] in error
    assert files() == before


def test_a_backdoored_model_is_suspicious(first_scan):
    assert (first_scan.exit_code, first_scan.stderr) == (3, "")
    printed, found, out = plain(first_scan.stdout), read("scanned"), Path("scanned")
    assert re.match(r"Suspicious\. With .*, the model predicts owl for \d+ % of", printed)
    assert "What next 1. Scan again" in printed
    assert all(f"{i}. {step}" in printed for i, step in enumerate(found["next_steps"], 1))
    assert "\n    changed = Scan.load('scanned').pattern.stamp(images)" in first_scan.stdout
    assert printed.endswith("scan.html, scan.json, scan.png and patterns/ are in scanned.")
    expected = {"verdict": "suspicious", "target": 3, "target_name": "owl", "suspects": [3]}
    assert found.items() >= expected.items()
    assert (out / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert "the model predicts owl for" in (out / "scan.html").read_text()
    pattern = Pattern.load(out / "patterns" / "3_25_pixels_1.safetensors")
    assert {(5, 5), (5, 6)} <= {(i, j) for i, j in pattern.mask[0].nonzero().tolist()}
    assert Scan.load(out).verdict == "suspicious"


def test_its_json_is_documented(first_scan):
    found = read("scanned")
    assert set(found) == set(documented("scan", 0))
    searched = found["found"]["10_pixels"]["3"]
    assert all(set(each) == set(documented("scan", 1)) for each in searched)


@pytest.mark.filterwarnings("default")
@pytest.mark.script
def test_nothing_is_found_on_a_clean_model_also_if_it_returns_probabilities(tmp_path):
    result = run(f"scan good.pt {OWN} --arch test_cli_scan:Probabilities --out {tmp_path}")
    assert result.exit_code == 0, result.output
    assert read(tmp_path)["verdict"] == "nothing found"
    assert result.stderr.count("Note: the model's outputs are all >= 0 and sum to 1") == 1


@pytest.mark.usefixtures("first_scan")
def test_a_finished_scan_is_read_again_without_a_search(tmp_path, monkeypatch):
    copy = shutil.copytree("scanned", tmp_path / "copy")

    def search(plan):
        raise AssertionError("it searches")

    monkeypatch.setattr(changes, "find_patterns", search)
    for more, exit_code in (("", 3), ("--exit-zero", 0)):
        assert scan(copy, more).exit_code == exit_code
        assert read(copy) == read("scanned")


@pytest.mark.usefixtures("first_scan")
def test_the_chosen_output_gives_the_same_result(tmp_path):
    result = scan(tmp_path, "--seed 0 --output -1 --arch test_cli_scan:Reversed")
    assert result.exit_code == 3, result.output
    found, expected = read(tmp_path), read("scanned")
    assert found.pop("search") != expected.pop("search")  # another model
    assert found == expected


def test_without_a_folder_each_checkpoint_has_its_own(monkeypatch, tmp_path, place):
    given = []

    def record(model, images, *, folder, **_):
        given.append(folder)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cp, "scan", record)
    paths = ("bad/model.pt", "good/model.pt", "good.pt")
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(place / "good.pt", tmp_path / path)
        result = run(f"scan {path} {OWN} --data {place}/images")
        said = f"Interrupted: the same command resumes from {given[-1]}."
        assert (result.exit_code, result.stderr.strip()) == (130, said)
    assert given == [Path("classpattern-scan") / folder_name(path) for path in paths]
    assert len(set(given)) == 3


def test_the_code_of_a_hostile_checkpoint_does_not_run(tmp_path, monkeypatch, place):
    """Of the many that the tests of the adapters have, one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"net": Net().state_dict(), "bad": Payload()}, "model.pt")
    assert f"{os.system.__module__}.system" in error_of(
        f"scan model.pt {OWN} --data {place}/images"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    torch.load("model.pt", weights_only=False)  # it is a real one
    assert Path("ran").exists()


def test_each_verdict_has_an_exit_code():
    assert EXIT_CODES == {"suspicious": 3, "nothing found": 0, "inconclusive": 4}

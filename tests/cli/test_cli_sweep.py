"""``classpattern sweep``: manifests, checkpoints that fail, interruptions, the first look."""

import csv
import json
import sys

import pytest
import torch
from command_line import interrupt_searches, run
from PIL import Image
from surveyed import finding
from torch import nn

from captum_classpattern import Survey, Sweep
from captum_classpattern.cli.search import _row

NAMES = ("cat", "dog", "owl")


class Net(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.head = nn.Linear(3 * 64, num_classes)

    def forward(self, images):
        return self.head(images.flatten(1))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two checkpoints, a manifest that also lists a broken one, and images in class folders."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "zoo" / "deep").mkdir(parents=True)
    for seed, name in enumerate(("old.pt", "deep/new.pt")):
        torch.manual_seed(seed)
        torch.save(Net().state_dict(), folder / "zoo" / name)
    (folder / "broken.pt").write_bytes(b"nothing")
    (folder / "models.csv").write_text(
        "path,name,arch,mean,std,trained by\n"
        f"broken.pt,broken,{__name__}:Net,0,1,Lee\n"
        f"zoo/old.pt,old,{__name__}:Net,0,1,Kim\n"
        f'zoo/deep/new.pt,,,"0.5,0.5,0.5","0.5,0.5,0.5",\n'
    )
    generator = torch.Generator().manual_seed(0)
    for label, name in enumerate(NAMES):
        (folder / "images" / f"{label}_{name}").mkdir(parents=True)
        for i in range(20):
            pixels = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / "images" / f"{label}_{name}" / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])


QUICK = ("--canvases", "1", "--n-steps", "2", "--area", "0.1", "--arch", f"{__name__}:Net")


def swept(out, *more, models=("models.csv",)):
    return run(["sweep", *models, "--data", "images", "--out", str(out), *QUICK, *more])


def test_a_manifest_becomes_a_table_and_says_what_failed(tmp_path):
    result = swept(tmp_path, "--classes", "dog,2")
    assert result.exit_code == 0, result.output
    assert "Models: 3. Classes: 2. 30 images to search with, 30 held out" in result.output
    printed = " ".join(result.stdout.split())
    assert "Failed: broken, class 1: " in printed
    assert "strongest class" in printed
    with (tmp_path / "table.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 2 * 2 * 3 + 2
    found = [row for row in rows if row["model"] == "old"]
    assert {row["trained by"] for row in found} == {"Kim"}
    assert {row["class_name"] for row in found} == {"dog", "owl"}
    failed = [row for row in rows if row["model"] == "broken"]
    assert all("broken.pt" in row["error"] and row["trained by"] == "Lee" for row in failed)
    assert (tmp_path / "power.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["name"] for row in data["models"]] == ["broken", "old", "new"]
    assert data["models"][2]["mean"] == [0.5, 0.5, 0.5]
    assert data["models"][2]["arch"] == f"{__name__}:Net"  # the option of the command
    assert "trust_pickle" not in data["models"][0]


def test_an_interrupted_sweep_is_resumed_by_the_same_command(tmp_path, monkeypatch):
    given = ("--mean", "0", "--std", "1", "--classes", "0")
    with monkeypatch.context() as patch:
        searched = interrupt_searches(patch, after=0)
        result = swept(tmp_path, *given, models=("zoo",))
        assert result.exit_code == 130
        assert searched == [[0]]
        assert f"Interrupted: the same command resumes the sweep in {tmp_path}." in result.output
    assert swept(tmp_path, *given, models=("zoo",)).exit_code == 0
    assert Sweep.load(tmp_path).models == ["deep/new", "old"]
    searched = interrupt_searches(monkeypatch, after=None)
    assert swept(tmp_path, *given, models=("zoo",)).exit_code == 0
    assert searched == []


def test_a_first_look_prints_its_cost_and_its_table(tmp_path):
    models = ("a=zoo/old.pt", "b=zoo/deep/new.pt")
    given = ("--mean", "0", "--std", "1", "--first-look", "--keep", "0.2")
    result = swept(tmp_path, *given, models=models)
    assert result.exit_code == 0, result.output
    assert "The full search of the best 20% takes at most about" in result.stderr
    assert result.stdout.index("First look") < result.stdout.index("Sweep")
    assert len({(row["model"], row["class"]) for row in Sweep.load(tmp_path).rows()}) == 2
    assert len((tmp_path / "first_look" / "table.csv").read_text().splitlines()) == 1 + 2 * 3 * 3
    assert "table.csv, power.png and a folder for each model are in" in result.stdout


def test_a_models_row_is_of_the_canvases_that_did_best_when_judged():
    found = Survey(
        [
            finding(0, "positive", 20, search_power=0.9, control=0.19),
            finding(0, "white", 80, search_power=0.1),  # the strongest on held-out images
            finding(1, "positive", 40, class_name="dog"),
        ]
    )
    row = _row("m", found.best_canvases(), failed=1)
    assert row["power"] == pytest.approx(0.3)
    assert (row["model"], row["classes"], row["failed"], row["above"]) == ("m", 2, 1, 1)
    assert row["strongest"] == "dog, 40.0%"
    assert _row("m", [], failed=3) == {"model": "m", "classes": 0, "failed": 3}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nothing.csv"], "there is no manifest nothing.csv"),
        (["broken.pt"], "none of the models can be opened. broken: "),
        (["zoo", "--workers", "2"], "--workers is for Ray: pass --ray, too"),
        (["zoo", "--keep", "2"], '"2.0" for --keep. Must be <= 1.'),
        (["images"], "there are no checkpoints (.pt, "),
    ],
)
def test_wrong_input_is_one_line(tmp_path, given, message):
    result = swept(tmp_path, *given[1:], models=given[:1])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_without_ray_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = swept(tmp_path, "--ray", models=("zoo",))
    assert result.exit_code == 2
    assert "pip install 'captum_classpattern[ray]'" in result.stderr

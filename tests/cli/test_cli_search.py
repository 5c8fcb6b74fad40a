"""``classpattern search``: from a checkpoint to files, a table, with interruptions."""

import json
import os

import pytest
import torch
from command_line import documented, interrupt_searches, run
from matplotlib.figure import Figure
from own_models import NAMES, Pair, write_images

from captum_classpattern import predictive_power
from captum_classpattern.datasets import load_images
from captum_classpattern.surveys import Survey
from captum_classpattern.surveys.settings import CANVASES

QUICK = "--canvases 1 --n-steps 2 --area 0.3"
OWN = f"--arch own_models:Net --mean 0 --std 1 {QUICK}"
PLOT, TO_HTML = Survey.plot, Survey.to_html


@pytest.fixture(autouse=True)
def _empty_figures(monkeypatch):
    """Drawing would take most of the time of these tests."""
    monkeypatch.setattr(Survey, "plot", lambda *_, **__: (Figure((1, 1)), None))
    monkeypatch.setattr(Survey, "to_html", lambda self, path: path.write_text("a report"))


def search(out, more="", *, checkpoint="named.pt", data="images"):
    return run(f"search {checkpoint} --data {data} {OWN} --out {out} {more}")


def read(out):
    return json.loads((out / "results.json").read_text())


def test_a_foreign_model_from_checkpoint_to_table(tmp_path, monkeypatch):
    """As a training script would leave it: with several outputs, and weights of another name."""
    monkeypatch.setattr(Survey, "plot", PLOT)
    monkeypatch.setattr(Survey, "to_html", TO_HTML)
    monkeypatch.chdir(tmp_path)
    net = Pair().eval()
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9).state_dict()
    torch.save({"net": state, "optimizer": optimizer, "epoch": 3}, "own.pth")
    write_images("images", ["0_cat", "1_dog", "2_owl"], count=40)
    result = run(
        f"search own.pth --data images {OWN} --arch own_models:Pair --output -1 --classes 0,2 "
        "--canvases 2 --n-steps 4 --out out"
    )
    assert result.exit_code == 0, result.output
    assert "own.pth: plain, own_models:Pair; normalised by the caller." in result.stdout
    assert "60 images to search with, 60 held out (0 copies dropped)." in result.stdout
    printed = " ".join(result.stdout.split())
    assert "The model's accuracy is 100.0 % on the held-out images." in printed
    out = tmp_path / "out"
    assert (out / "patterns.png").read_bytes().startswith(b"\x89PNG")
    assert "Class patterns of" in (out / "report.html").read_text()
    written = read(out)
    assert written["complete"]
    assert written["accuracy"] == 1
    assert written["provenance"]["opened"] == "weights_only"
    assert written["provenance"]["renamed"]["module.head.weight"] == "head.weight"
    rows = {(row["class"], row["canvas"]): row for row in written["rows"]}
    assert rows.keys() == {(y, kind) for y in (0, 2) for kind in CANVASES}
    assert rows[2, "white"]["class_name"] == "owl"  # of the folder 2_owl
    assert printed.count(" canvas, 30 % of the pixels: ") == 1  # one sentence for a model
    assert printed.count("has 2 of the model's 3 classes, so none is said to stand out.") == 1
    assert " stands out." not in printed
    # the saved pattern has the power of the table
    [pattern] = [each.pattern for each in Survey.load(out) if each.label == "owl"][:1]
    assert pattern.info["class_name"] == "owl"
    _, held_out = load_images("images").halves(0)
    power = predictive_power(lambda x: net(x)[1], pattern, held_out, area=0.3)
    assert power.value == rows[2, "positive"]["areas"]["0.3"]["power"] > 0


def test_kinds_of_canvas_can_be_named(tmp_path):
    result = search(tmp_path, "--canvases positive,patch --classes 0")
    assert result.exit_code == 0, result.output
    rows = {row["canvas"]: row for row in read(tmp_path)["rows"]}
    assert rows.keys() == {"positive", "patch"}
    assert "best_square" in rows["patch"]["areas"]["0.3"]
    for kinds, said in (("0", "at least 1"), ("patches", "--canvases has the kind 'patches'")):
        refused = search(tmp_path / "refused", f"--canvases {kinds}")
        assert refused.exit_code == 2
        assert said in " ".join(refused.output.split())


def test_a_search_that_was_stopped_continues_with_the_unfinished_classes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        searched = interrupt_searches(patch, after=1)
        result = search(tmp_path)
        assert (result.exit_code, searched) == (130, [[0, 1, 2]])
    assert f"Interrupted: the same command continues the search in {tmp_path}." in result.stderr
    first = read(tmp_path)
    assert not first["complete"]
    assert [(row["class"], row["canvas"]) for row in first["rows"]] == [
        (0, "positive"), (0, "white"), (0, "black"),
    ]  # fmt: skip
    finished = {path: path.read_bytes() for path in (tmp_path / "findings").iterdir()}
    assert [path.name for path in finished] == ["0.safetensors"]

    searched = interrupt_searches(monkeypatch, after=None)
    result = search(tmp_path)
    assert (result.exit_code, searched) == (0, [[1, 2]]), result.output
    written = read(tmp_path)
    assert written["complete"]
    assert written["rows"][:3] == first["rows"]
    assert len({(row["class"], row["canvas"]) for row in written["rows"]}) == 9
    assert {path: path.read_bytes() for path in finished} == finished

    assert search(tmp_path).exit_code == 0
    assert searched[1:] == []  # nothing was left to search
    assert read(tmp_path)["rows"] == written["rows"]
    other = search(tmp_path, "--seed 1")
    assert other.exit_code == 2
    assert "of another search (" in other.stderr
    assert "seed 0 then, 1 now" in other.stderr


def test_held_out_images_that_are_searched_with_are_dropped(tmp_path, place):
    held_out = write_images(tmp_path / "held_out", count=5, seed=1)
    for name in NAMES:
        os.symlink(place / "images" / name / "0.png", held_out / name / "copy.png")
    result = search(tmp_path / "out", f"--held-out {held_out} --classes 1")
    assert "60 images to search with, 15 held out (3 copies dropped)." in result.stdout
    assert {row["areas"]["0.3"]["n"] for row in read(tmp_path / "out")["rows"]} == {10}


@pytest.mark.parametrize("as_json", [False, True])
def test_class_folders_are_matched_by_the_names_in_a_file(as_json, tmp_path):
    """The classes of one model have different numbers of images, or none."""
    names = ["Ant/bee", "Dog", "Cat"]
    (tmp_path / "names").write_text(json.dumps(names) if as_json else "\n".join([*names, ""]))
    images = write_images(tmp_path / "images", ["cat", "DOG"])
    given = {"checkpoint": "m.pt", "data": images}
    out = tmp_path / "out"
    result = search(out, f"--class-names {tmp_path / 'names'} --classes dog", **given)
    assert result.exit_code == 0, result.output
    first = read(out)
    assert first["search_images"] == {"Dog": 10, "Cat": 10}
    assert {(row["class"], row["class_name"]) for row in first["rows"]} == {(1, "Dog")}
    assert Survey.load(out).finding("dog").target == 1
    more = search(out, f"--class-names {tmp_path / 'names'} --classes 2", **given)
    assert more.exit_code == 0, more.output
    assert read(out)["rows"][:3] == first["rows"]
    assert {row["class"] for row in read(out)["rows"]} == {1, 2}


@pytest.mark.filterwarnings("default:.*has no class folders")
def test_images_without_labels_get_the_class_that_the_model_predicts(tmp_path):
    result = search(tmp_path, checkpoint="m.pt", data="flat")
    assert result.exit_code == 0, result.output
    assert "accuracy" not in result.output
    written = read(tmp_path)
    assert written["accuracy"] is None
    assert {(row["class"], row["class_name"]) for row in written["rows"]} == {
        (y, None) for y in range(3)
    }


def test_the_fields_of_the_results_are_documented(tmp_path):
    assert search(tmp_path, "--classes dog").exit_code == 0
    found = read(tmp_path)
    assert set(found) == set(documented("search", 0))
    for row in found["rows"]:
        assert set(row) == set(documented("search", 1))
        assert set(row["areas"]["0.3"]) == set(documented("search", 2))


def test_cells_are_kept_whole(tmp_path):
    result = search(tmp_path / "cells", "--classes dog --cells 4")
    assert result.exit_code == 0, result.output
    for each in Survey.load(tmp_path / "cells"):
        height, width = (side // 4 for side in each.pattern.mask.shape[1:])
        held = each.pattern.mask[0].view(4, height, 4, width)
        assert (held == held[:, :1, :, :1]).all()
    result = search(tmp_path / "large", "--classes dog --cells 2 --area 0.1")
    assert result.exit_code == 2
    assert "give smaller features (more cells)" in result.stderr

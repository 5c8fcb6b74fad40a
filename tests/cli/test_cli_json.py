"""--json: one document on standard output, as docs/json.md describes it."""

import json
import re

import pytest
import torch
from command_line import JSON_PAGE, documented, interrupt_searches, run
from PIL import Image
from torch import nn

from captum_classpattern import Pattern
from captum_classpattern.cli.printing import finite


class Talking(nn.Module):
    """It prints, as a user's model may."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.head = nn.Linear(3 * 64, num_classes)

    def forward(self, images):
        print("a message of the model")
        return self.head(images.flatten(1))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    torch.save({"net": Talking().state_dict(), "classes": ["cat", "dog", "owl"]}, folder / "m.pt")
    for name in ("cat", "dog", "owl"):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)


def document_of(result, code=0):
    """The document that is all of standard output."""
    assert result.exit_code == code, result.output

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(result.stdout, parse_constant=refuse)


GIVEN = ("--data", "images", "--arch", f"{__name__}:Talking", "--mean", "0", "--std", "1")


def search(out, *more):
    quick = ("--classes", "dog", "--canvases", "1", "--n-steps", "2", "--area", "0.1")
    return run(["search", "m.pt", *GIVEN, *quick, "--out", str(out), "--json", *more])


def compare(out, methods):
    quick = ("--classes", "dog", "--n-steps", "2", "--methods", methods)
    return run(["compare", "own=m.pt", *GIVEN, *quick, "--out", str(out), "--json"])


def test_a_search_as_json(tmp_path):
    result = search(tmp_path / "out")
    found = document_of(result)
    assert set(found) == set(documented("search", 0))
    assert (found["schema"], found["out"]) == ("classpattern/search/1", str(tmp_path / "out"))
    assert "a message of the model" in result.stderr
    assert [(row["class"], row["canvas"]) for row in found["rows"]] == [
        (1, "positive"), (1, "white"), (1, "black"),
    ]  # fmt: skip
    for row in found["rows"]:
        assert set(row) == set(documented("search", 1))
        scores = row["areas"]["0.1"]
        assert set(scores) == set(documented("search", 2))
        assert scores["beats_controls"] is False  # there are fewer than 100 images
        pattern = Pattern.load(tmp_path / "out" / scores["pattern"])
        assert (pattern.target, pattern.info["search_power"]) == (1, scores["search_power"])
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    for row in found["rows"]:
        for name in ("beats_controls", "pattern"):
            del row["areas"]["0.1"][name]
    assert {"schema": found["schema"], "out": found["out"], **written} == found
    assert (tmp_path / "out" / "patterns.png").exists()


def test_an_interrupted_search_prints_no_document(tmp_path, monkeypatch):
    interrupt_searches(monkeypatch, after=0)
    result = search(tmp_path / "out")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "--resume continues the search" in result.stderr


def test_a_comparison_as_json(tmp_path):
    result = compare(tmp_path / "out", "ClassPattern,RandomPixels,LearnedPattern")
    found = document_of(result)
    assert set(found) == set(documented("compare", 0))
    assert found["schema"] == "classpattern/compare/1"
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {"schema": found["schema"], "out": str(tmp_path / "out"), **written} == found
    metrics = {metric["name"] for metric in found["metrics"]}
    known = {*documented("compare", 1), *documented_by_area()}
    for row in found["rows"]:
        for field in row:
            plain = re.sub(r"_0\.\d+", "_AREA", field).removesuffix("_low").removesuffix("_high")
            assert plain in known | metrics, field
    assert {row["method"] for row in found["rows"]} == {
        "ClassPattern", "RandomPixels", "LearnedPattern"
    }  # fmt: skip
    not_cut = [row for row in found["rows"] if not row["cut_from_canvas"]]
    assert {row["method"] for row in not_cut} == {"LearnedPattern"}
    assert all({"free", "own_form", "share_changed"} <= set(row) for row in not_cut)
    assert "own model" not in result.stderr  # the tables are left out
    assert "comparison.json are in" in result.stderr


def documented_by_area():
    return re.findall(r"^\| `(\w+_AREA)` \|", JSON_PAGE, re.MULTILINE)


def test_a_comparison_without_maps_as_json(tmp_path):
    found = document_of(compare(tmp_path / "out", "LayerGradCam"), code=1)  # no convolution
    assert found["rows"] == []
    assert found["failures"][0]["method"] == "LayerGradCam"


def test_numbers_that_json_does_not_have_are_null():
    given = {"a": [float("nan"), 1.5, (float("inf"), 2)], "b": {"c": -float("inf")}, "d": None}
    assert finite(given) == {"a": [None, 1.5, [None, 2]], "b": {"c": None}, "d": None}
    assert finite({"x": True, "y": "nan"}) == {"x": True, "y": "nan"}


def test_the_example_of_the_page_has_fields_of_the_schema():
    [example] = map(json.loads, re.findall(r"```json\n(.*?)```", JSON_PAGE, re.DOTALL))
    [row] = example["rows"]
    for position, part in enumerate((example, row, row["areas"]["0.05"])):
        assert set(part) <= set(documented("search", position))

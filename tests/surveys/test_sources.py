"""Which models a user's lists, folders and manifests mean."""

import json
from pathlib import Path

import pytest
from refusals import refusal
from swept import network

from captum_classpattern.surveys.sources import ModelSource, read_manifest, read_models


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def manifest(name, text, *defaults):
    Path(name).write_text(text)
    return read_manifest(Path(name).resolve(), *defaults)


def test_a_csv_file_with_all_columns(tmp_path):
    first, second = manifest(
        "m.csv",
        "path,name,arch,num_classes,mean,std,output,year\n"
        'a.pt,old,resnet18,10,"0.1, 0.2 0.3",1,-1,2019\n'
        "timm:resnet18,,,,,,logits,\n",
        {"arch": "vgg11", "format": "plain"},
    )
    assert (first.name, first.path) == ("old", str(tmp_path / "a.pt"))
    assert first.options == {
        **{"arch": "resnet18", "num_classes": 10, "mean": [0.1, 0.2, 0.3], "std": 1.0},
        **{"output": -1, "format": "plain"},
    }
    assert first.columns == {"year": "2019"}
    assert (second.name, second.path) == ("resnet18", "timm:resnet18")
    assert second.options == {"arch": "vgg11", "format": "plain", "output": "logits"}
    assert second.columns == {"year": None}


def test_json_lines(tmp_path):
    rows = [{"path": "/x/a.pt", "class_names": ["a", "b"], "mean": [0.5]}, {"path": "b.pt"}]
    first, second = manifest("m.jsonl", "\n\n".join(map(json.dumps, rows)))
    assert (first.name, first.path) == ("a", "/x/a.pt")
    assert first.options == {"class_names": ["a", "b"], "mean": [0.5]}
    assert second.path == str(tmp_path / "b.pt")


def test_folders_and_names(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("b.pth", "x/a.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    sources = read_models([str(tmp_path), "c=other.pt", "torchvision:resnet18"])
    assert [s.name for s in sources] == ["b", "x/a", "c", "resnet18"]
    assert [s.folder for s in sources] == ["b", "x_a", "c", "resnet18"]
    assert sources[3].path == "torchvision:resnet18"


[GIVEN] = read_models({"a": {"path": "a.pt", "trust_pickle": True, "arch": "here:Net"}})
ROW = GIVEN.as_dict()


def from_a_file(**changes):
    return ModelSource.from_dict({**ROW, **changes}, Path("sweep.json"))


def test_a_folder_decides_neither_code_nor_pickle():
    assert GIVEN.options["trust_pickle"]
    assert "trust_pickle" not in ROW
    assert from_a_file(arch="resnet18").options == {"arch": "resnet18"}


REFUSALS = {
    "a mean in words": lambda: manifest("m.csv", "path,mean\na.pt,half\n"),
    "a column too many": lambda: manifest("m.csv", "path,mean\na.pt,0.1,0.2\n"),
    "no path": lambda: manifest("m.csv", "name\na\n"),
    "a column of the tables": lambda: manifest("m.csv", "path,power\na.pt,3\n"),
    "trust in pickle": lambda: manifest("m.csv", "path,trust_pickle\na.pt,yes\n"),
    "names in a cell": lambda: manifest("m.csv", "path,class_names\na.pt,x\n"),
    "a column without a name": lambda: manifest("m.csv", "path,,year\na.pt,,2020\n"),
    "a list": lambda: manifest("m.jsonl", '["a.pt"]'),
    "no JSON": lambda: manifest("m.jsonl", "{path}"),
    "two models of one folder": lambda: read_models({"a b": network(0), "A_b": network(1)}),
    "the name failed": lambda: read_models({"failed": network(0)}),
    "the name First_Look": lambda: read_models({"First_Look": network(0)}),
    "a hidden folder": lambda: read_models({".hidden": network(0)}),
    "the folder above": lambda: read_models({"..": network(0)}),
    "no models": lambda: read_models({}),
    "a number": lambda: read_models({"a": 3}),
    "a file's own code": lambda: from_a_file().open(),
    "a file's path 0": lambda: from_a_file(path=0),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, tmp_path):
    assert refusal(REFUSALS[case]).replace(str(tmp_path), "") == snapshot

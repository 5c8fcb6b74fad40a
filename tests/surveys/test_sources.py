"""Which models a user's lists, folders and manifests mean."""

import json
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal
from swept import network
from torch import nn

from captum_classpattern.surveys.sources import ModelSource, read_models


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def manifest(text, *defaults):
    Path("m.csv").write_text(text)
    return read_models("m.csv", *defaults)


def test_a_manifest_with_all_columns(tmp_path):
    first, second = manifest(
        "path,name,arch,num_classes,mean,std,output,year\n"
        'a.pt ,old ,resnet18,10,"0.1, 0.2 0.3",1,-1,2019 \n'
        "timm:resnet18,,,,,,logits,\n",
        {"arch": "vgg11", "format": "plain"},
    )
    assert (first.name, first.path) == ("old", str(tmp_path / "a.pt"))
    assert first.options == {
        **{"arch": "resnet18", "num_classes": 10, "mean": [0.1, 0.2, 0.3], "std": 1.0},
        **{"output": -1, "format": "plain"},
    }
    assert (second.name, second.path) == ("resnet18", "timm:resnet18")
    assert second.options == {"arch": "vgg11", "format": "plain", "output": "logits"}


def test_other_columns_and_rows_without_text_are_left_alone():
    [source] = manifest("path,name,class_names\na.pt,old,ant;bee\n,,\n")
    assert (source.name, source.options) == ("old", {})


def test_names_and_folders(tmp_path):
    sources = read_models([tmp_path / "b.pth", "x/a=other.pt", "torchvision:resnet18"])
    assert [s.name for s in sources] == ["b", "x/a", "resnet18"]
    assert [s.as_dict()["folder"] for s in sources] == ["b", "x_a", "resnet18"]
    assert [s.path for s in sources] == [
        *(f"{tmp_path}/b.pth", f"{tmp_path}/other.pt", "torchvision:resnet18")
    ]


def test_a_folder_says_neither_that_pickle_is_trusted_nor_the_device():
    given = {"path": "a.pt", "trust_pickle": True, "arch": "here:Net", "class_names": ["a"]}
    given["device"] = "cuda"
    [source] = read_models({"a": {**given, "mean": np.ones(2), "std": (1, 2), "year": 2020}})
    known = {key: given[key] for key in given if key != "path"}
    assert source.options.keys() == known.keys() | {"mean", "std"}
    row = json.loads(json.dumps(source.as_dict()))  # NumPy's numbers are plain
    assert (row["mean"], row["std"]) == ([1.0, 1.0], [1, 2])
    assert not row.keys() & {"trust_pickle", "device", "year"}


class Movable(nn.Module):
    """Knows where it was moved."""

    place = None

    def to(self, place):
        self.place = place
        return self


@pytest.mark.parametrize(
    ("own", "given", "place"),
    [
        (None, None, None),
        (None, "cuda", "cuda"),
        ("cpu", "cuda", "cpu"),
        ("cuda:1", None, "cuda:1"),
        ("cuda:1", "cuda", "cuda"),  # a worker of Ray has its own GPU alone
    ],
)
def test_a_model_is_opened_where_it_should_be(own, given, place):
    assert ModelSource("a", options={"device": own}, model=Movable()).open(given).place == place


REFUSALS = {
    "a mean in words": lambda: manifest("path,mean\na.pt,half\n"),
    "a column too many": lambda: manifest("path,mean\na.pt,0.1,0.2\n"),
    "no path": lambda: manifest("name\na\n"),
    "trust in pickle": lambda: manifest("path,trust_pickle\na.pt,yes\n"),
    "a cell of 200,000 letters": lambda: manifest(f"path,name\na.pt,{'a' * 200_000}\n"),
    "Latin-1": lambda: (Path("m.csv").write_bytes(b"path\n\xe9.pt\n"), read_models("m.csv")),
    "an empty manifest": lambda: manifest("path,name\n"),
    "two models of one folder": lambda: read_models({"a b": network(0), "A_b": network(1)}),
    "the name Site": lambda: read_models({"Site": network(0)}),
    "the folder above": lambda: read_models({"..": network(0)}),
    "no models": lambda: read_models({}),
    "a number": lambda: read_models({"a": 3}),
    "a folder": lambda: read_models(["."]),
    "a manifest in JSON": lambda: read_models("m.jsonl"),
    "a network as arch": lambda: read_models({"a": {"path": "b", "arch": nn.Flatten}})[0].as_dict(),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot

"""Which models a user's lists, folders and manifests mean."""

import json

import pytest
from swept import network

from captum_classpattern.surveys.sources import ModelSource, read_manifest, read_models


def write(path, text):
    path.write_text(text)
    return path


def test_a_csv_file_with_all_columns(tmp_path):
    file = write(
        tmp_path / "m.csv",
        "path,name,arch,num_classes,mean,std,output,year\n"
        'a.pt,old,resnet18,10,"0.1, 0.2 0.3",1,-1,2019\n'
        "timm:resnet18,,,,,,logits,\n",
    )
    first, second = read_manifest(file, {"arch": "vgg11", "format": "plain"})
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
    file = write(tmp_path / "m.jsonl", "\n\n".join(map(json.dumps, rows)))
    first, second = read_manifest(file)
    assert (first.name, first.path) == ("a", "/x/a.pt")
    assert first.options == {"class_names": ["a", "b"], "mean": [0.5]}
    assert second.path == str(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "path,mean\na.pt,half\n", "line 2: mean is 'half'"),
        ("m.csv", "path,mean\na.pt,0.1,0.2\n", "line 2: it has other columns than the header"),
        ("m.csv", "name\na\n", "line 2: it has no path"),
        ("m.csv", "path,power\na.pt,3\n", "the column 'power' has the name of one of the tables'"),
        ("m.csv", "path,trust_pickle\na.pt,yes\n", "a manifest can't say that pickle is trusted"),
        ("m.csv", "path,class_names\na.pt,x\n", "it must be a list of names"),
        ("m.csv", "path,,year\na.pt,,2020\n", "line 2: a column has no name"),
        ("m.jsonl", "{path}", "line 1: it is not JSON"),
        ("m.jsonl", '["a.pt"]', "line 1: it must be an object such as"),
    ],
)
def test_a_mistake_in_a_manifest_is_named(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_manifest(write(tmp_path / name, text))


def test_two_models_are_not_written_to_one_folder(tmp_path):
    with pytest.raises(ValueError, match="'a b' and 'A_b' would be written to the same folder"):
        read_models({"a b": network(0), "A_b": network(1)})
    for name in ("failed", "First_Look", ".hidden", ".."):
        with pytest.raises(ValueError, match="a model can't be named"):
            read_models({name: network(0)})
    with pytest.raises(ValueError, match="there are no models"):
        read_models({})
    with pytest.raises(TypeError, match="the model 'a' must be a classifier, the path of a"):
        read_models({"a": 3})


def test_folders_and_names(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("b.pth", "x/a.safetensors", "notes.txt"):
        write(tmp_path / name, "")
    sources = read_models([str(tmp_path), "c=other.pt", "torchvision:resnet18"])
    assert [s.name for s in sources] == ["b", "x/a", "c", "resnet18"]
    assert [s.folder for s in sources] == ["b", "x_a", "c", "resnet18"]
    assert sources[3].path == "torchvision:resnet18"


def test_a_folder_decides_neither_code_nor_pickle(tmp_path):
    [source] = read_models({"a": {"path": "a.pt", "trust_pickle": True, "arch": "here:Net"}})
    assert source.options["trust_pickle"]
    row = source.as_dict()
    assert "trust_pickle" not in row
    with pytest.raises(ValueError, match="a file may not choose what is imported"):
        ModelSource.from_dict(row, tmp_path / "sweep.json").open()
    again = ModelSource.from_dict({**row, "arch": "resnet18"}, tmp_path / "sweep.json")
    assert again.options == {"arch": "resnet18"}
    with pytest.raises(ValueError, match="needs a name and a folder, got"):
        ModelSource.from_dict({**row, "path": 0}, tmp_path / "sweep.json")

"""What models are called that nobody named: one rule for all parts of the package."""

import os

import pytest

from captum_classpattern.adapters.load import folder_name, model_name, split_name
from captum_classpattern.cli.options import checkpoints_by_name
from captum_classpattern.surveys.sources import read_models

SOURCES = {
    "runs/a/model.pt": "model",
    "epoch=1-step=2.ckpt": "epoch=1-step=2",
    "timm:resnet18.a1_in1k": "resnet18.a1_in1k",
    "timm:resnet18.tv_in1k": "resnet18.tv_in1k",
    "torchvision:resnet18/IMAGENET1K_V1": "resnet18/IMAGENET1K_V1",
    "robustbench:cifar10/L2/Standard": "cifar10/L2/Standard",
    "robustbench:cifar10/Linf/Standard": "cifar10/Linf/Standard",
}


@pytest.mark.parametrize(("source", "name"), SOURCES.items())
def test_all_parts_of_the_package_give_a_model_the_same_name(source, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "=" in source:  # else it is NAME=CHECKPOINT
        (tmp_path / source).touch()
    assert model_name(source) == name
    assert checkpoints_by_name((source,)) == {name: source}
    [from_list] = read_models([source])
    (tmp_path / "models.csv").write_text(f"path\n{source}\n")
    [from_manifest] = read_models("models.csv")
    assert from_list.name == from_manifest.name == name
    assert from_list.path == from_manifest.path


def test_what_else_models_are_called(tmp_path, monkeypatch):
    """Folders stay private, and a file comes before a pretrained model of its name."""
    monkeypatch.chdir(tmp_path)
    assert model_name(r"C:\models\net.pt") == model_name("timm:local-dir:/home/kim/net") == "net"
    (tmp_path / "timm:net.pt").touch()
    assert model_name("timm:net.pt") == "timm:net"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("old=runs/a.pt", ("old", "runs/a.pt")),
        ("a=b=c.pt", ("a", "b=c.pt")),
        ("mine=timm:resnet18", ("mine", "timm:resnet18")),
        ("timm:net=1", ("net=1", "timm:net=1")),
    ],
)
def test_a_name_before_an_equals_sign_comes_first(given, found):
    assert split_name(given) == found


def test_each_source_has_a_folder_of_its_own():
    given = [*SOURCES, "runs/b/model.pt", "model.pt", "model.safetensors", "../model.pt"]
    given += ["/runs/a/model.pt", "runs_a/model.pt", "torchvision:resnet18", "timm:resnet18"]
    folders = {folder_name(source) for source in given}
    assert "resnet18.a1_in1k-0ee52d" in folders
    assert len(folders) == len(given)
    assert all(folder.strip("._") and "/" not in folder for folder in folders)
    same = {folder_name(f"{start}model.pt") for start in ("", "./", "a/../", f"{os.getcwd()}/")}
    assert len(same) == 1
    assert same.pop().startswith("model-")
    assert len(folder_name("a" * 300 + ".pt")) < 100

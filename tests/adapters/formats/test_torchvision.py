"""torchvision's models by name."""

import sys

import pytest
import torch
import torchvision
from checkpoints import IMAGENET, assert_same, put

from captum_classpattern.adapters import load_model
from captum_classpattern.adapters.formats.timm import imagenet_ids


def test_torchvision_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1()
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    put(network.state_dict(), tmp_path, "hub", "checkpoints", weights.url.rpartition("/")[2])
    for name in ("squeezenet1_1", "squeezenet1_1/IMAGENET1K_V1"):
        classifier = load_model(f"torchvision:{name}")
        assert_same(classifier, network, *IMAGENET, torch.rand(2, 3, 64, 64))
        assert classifier.classes[0] == "tench"
        assert classifier.class_ids[0] == "n01440764"  # of timm's list
        assert classifier.input_size == (3, 224, 224)
        provenance = classifier.provenance
        assert provenance["arch"] == "torchvision:squeezenet1_1"
        assert provenance["weights"] == "IMAGENET1K_V1"
        assert provenance["normalisation"]["from"] == "the weights' transforms"


def test_wordnet_ids_need_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert imagenet_ids() is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet81", "there is no network 'torchvision:resnet81' in torchvision; did you mean"),
        ("deeplabv3_resnet50", "there is no network 'torchvision:deeplabv3_resnet50'"),
        ("resnet18/V9", r"torchvision's resnet18 has no weights 'V9': it has IMAGENET1K_V1, DEFAU"),
        ("resnet18/name", "torchvision's resnet18 has no weights 'name'"),
    ],
)
def test_unknown_names_of_torchvision(name, text):
    with pytest.raises(ValueError, match=text):
        load_model(f"torchvision:{name}")

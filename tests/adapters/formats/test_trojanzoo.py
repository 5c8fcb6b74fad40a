"""TrojanZoo's files: network and data set from the path, and the mark of an attacked model."""

import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from checkpoints import assert_same, prefixed, put
from torch import nn
from torchvision.models import vgg

from captum_classpattern.adapters import load_model
from captum_classpattern.adapters.formats import trojanzoo

CIFAR = (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)


@pytest.fixture(scope="module")
def small_resnet():
    """A torchvision ResNet-18 for small images, and its state dict by TrojanZoo's names."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    state = {
        f"classifier.{key}" if key.startswith("fc") else f"features.{key}": value
        for key, value in network.state_dict().items()
    }
    return network, OrderedDict(state)


@pytest.fixture
def load(monkeypatch):
    """load_model without its random weights, which take seconds and are overwritten."""

    def load(path, **options):
        with monkeypatch.context() as patch:
            for name in ("normal_", "kaiming_normal_", "kaiming_uniform_"):
                patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
            return load_model(path, **options)

    return load


def test_trojanzoo_path_names_network_and_data(small_resnet, load, tmp_path):
    network, state = small_resnet
    path = put(state, tmp_path, "image", "cifar10", "resnet18_comp.pth")
    classifier = load(path)
    assert_same(classifier, network, *CIFAR)
    provenance = classifier.provenance
    assert (provenance["format"], provenance["arch"]) == ("trojanzoo", "resnet18_comp")
    assert provenance["num_classes"] == 4
    assert provenance["normalisation"]["from"] == "TrojanZoo's cifar10"
    assert (classifier.input_size, classifier.trigger) == ((3, 32, 32), None)
    with pytest.raises(ValueError, match=r"2 \(classifier\.fc\.weight \(4, 512\) instead of"):
        load(path, num_classes=5)
    elsewhere = path.rename(tmp_path / "model.pth")
    text = r"of TrojanZoo, whose path should name its network, but 'model' is not one that can be"
    with pytest.raises(ValueError, match=text):
        load(elsewhere)
    with pytest.warns(UserWarning, match="does not say how its pixels were normalised"):
        classifier = load(elsewhere, arch="resnet18_comp")
    assert_same(classifier, network, (0, 0, 0), (1, 1, 1))


def test_trojanzoo_attack_with_its_mark(small_resnet, load, tmp_path):
    network, state = small_resnet
    folder = tmp_path / "attack" / "image" / "cifar10" / "resnet18_comp" / "badnet"
    name = "square_white_tar3_alpha0.50_mark(2,5)"
    path = put(state, folder, f"{name}.pth")
    assert load(path).trigger is None
    mark = np.random.default_rng(0).random((4, 2, 5)).astype(np.float32)
    np.save(folder / f"{name}.npy", mark)
    classifier = load(path)
    assert_same(classifier, network, *CIFAR)
    trigger = classifier.trigger
    assert trigger.target == 3
    assert trigger.canvas.shape == (3, 32, 32)
    assert np.array_equal(trigger.canvas[:, :2, :5], mark[:3])
    assert np.array_equal(trigger.mask[:, :2, :5], mark[3:])
    assert float(trigger.mask.sum()) == pytest.approx(mark[3].sum())
    assert classifier.provenance["trigger"].startswith(f"{name}.npy, in the upper left corner")


def harmful(made):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch '{made}'",)

    return np.array([Payload()], object)


INVALID = {  # marks, by what is wrong with them
    "another size": lambda file: np.save(file, np.ones((4, 3, 5))),
    "too large": lambda file: np.save(file, np.ones((4, 40, 2))),
    "objects": lambda file: np.save(file, harmful(file.parent / "made"), allow_pickle=True),
    "names": lambda file: np.save(file, np.array(["a"])),
    "a web page": lambda file: file.write_text("<html>"),
    "nothing": lambda file: file.write_text(""),
}


@pytest.mark.parametrize("case", INVALID)
def test_trojanzoo_invalid_marks_are_ignored(case, tmp_path):
    size = "40,2" if case == "too large" else "2,5"
    file = tmp_path / f"square_white_tar3_alpha1.00_mark({size}).npy"
    INVALID[case](file)
    assert trojanzoo._load_trigger(file, (3, 32, 32)) is None
    assert not (tmp_path / "made").exists()


def test_trojanzoo_vgg_with_several_linear_layers(load, tmp_path):
    torch.manual_seed(0)
    features = vgg.make_layers(vgg.cfgs["A"])  # those of vgg11
    for part in features.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    layers = OrderedDict(fc1=nn.Linear(512, 60), relu1=nn.ReLU(), fc2=nn.Linear(60, 4))
    classifier = nn.Sequential(layers)
    state = prefixed(features.state_dict(), "features.")
    state |= prefixed(classifier.state_dict(), "classifier.")
    path = put(state, tmp_path, "gtsrb", "vgg11_comp.pth")
    loaded, images = load(path), torch.rand(2, 3, 32, 32)
    mean, std = (0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669)
    pooled = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
    assert_same(loaded, pooled, mean, std, images)
    assert isinstance(loaded.model, trojanzoo.SmallImageNetwork)

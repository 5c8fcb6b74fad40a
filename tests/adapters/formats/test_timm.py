"""timm's models by name, and checkpoints of its training script."""

import argparse
import types

import pytest
import torch
from checkpoints import MEAN, STD, assert_same

from captum_classpattern.adapters import load_model
from captum_classpattern.adapters.formats.timm import _with_config
from captum_classpattern.classifier.class_names import ClassNames


def of_timm(**settings):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model("test_resnet", **settings)


def saved_by_timm(network, path, **arguments):
    """What timm's CheckpointSaver writes."""
    content = {
        "epoch": 3,
        "arch": "test_resnet",
        "optimizer": torch.optim.SGD(network.parameters(), 0.1).state_dict(),
        "version": 2,
        "args": argparse.Namespace(**{"model": "test_resnet", "lr": 0.1, **arguments}),
        "state_dict": network.state_dict(),
        "metric": 71.5,
    }
    torch.save(content, path)
    return path


IMAGES = torch.rand(2, 3, 64, 64)


def test_timm_checkpoints(tmp_path):
    network = of_timm(num_classes=7)
    config = network.pretrained_cfg
    arguments = {"mean": None, "std": None, "img_size": None, "input_size": None}
    path = saved_by_timm(network, tmp_path / "last.pth.tar", **arguments)
    classifier = load_model(path)
    assert_same(classifier, network, config["mean"], config["std"], IMAGES)
    provenance = classifier.provenance
    assert (provenance["format"], provenance["arch"]) == ("timm", "timm:test_resnet")
    assert provenance["num_classes"] == 7
    assert provenance["normalisation"]["from"] == "timm's configuration of the network"
    assert classifier.input_size == tuple(config["input_size"])
    torch.save(network.state_dict(), path)  # has no arguments
    classifier = load_model(path, arch="timm:test_resnet", format="timm")
    assert_same(classifier, network, config["mean"], config["std"], IMAGES)


def test_timm_arguments_take_precedence_over_its_configuration(tmp_path):
    network = of_timm(num_classes=7)
    path = saved_by_timm(network, tmp_path / "last.pth.tar", mean=MEAN, std=STD, img_size=48)
    classifier = load_model(path)
    assert_same(classifier, network, images=IMAGES)
    assert classifier.input_size == (3, 48, 48)
    path = saved_by_timm(network, path, img_size=48, input_size=(3, 40, 56))
    assert load_model(path).input_size == (3, 40, 56)


def test_timm_by_name(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    network, original = of_timm(), timm.create_model
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    overlay = {"file": str(tmp_path / "weights.pt"), "mean": MEAN, "std": STD}
    monkeypatch.setattr(
        timm, "create_model", lambda name, **k: original(name, pretrained_cfg_overlay=overlay, **k)
    )
    classifier = load_model("timm:test_resnet")
    assert_same(classifier, network, images=IMAGES)
    provenance = classifier.provenance
    assert (provenance["source"], provenance["arch"]) == ("timm:test_resnet",) * 2
    assert len(classifier.classes) == provenance["num_classes"] == 1000
    assert classifier.class_names[0] == "tench, Tinca tinca"
    assert ClassNames.of(classifier).find("n01440764") == 0
    assert ClassNames.of(classifier).find("goldfish") == 1
    overlay |= {"label_names": ["x", "y"], "label_descriptions": {"x": "cat"}, "num_classes": 2}
    torch.save(of_timm(num_classes=2).state_dict(), tmp_path / "weights.pt")
    classifier = load_model("timm:test_resnet")
    assert (classifier.class_names, classifier.class_ids) == (["cat", "y"], ["x", "y"])
    assert "sha256" not in provenance
    with pytest.raises(ValueError, match="there is no network 'timm:no_such_net' in timm"):
        load_model("timm:no_such_net")


def test_a_configuration_without_a_size():
    loaded = _with_config(types.SimpleNamespace(), {"mean": MEAN, "std": STD})
    assert (loaded.mean, loaded.input_size) == (MEAN, None)

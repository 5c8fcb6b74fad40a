"""Each format of checkpoints: the network, its normalisation, and what load_model reports."""

import argparse
import enum
import functools
import os
import re
import sys
import types
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from checkpoints import (
    IMAGENET,
    MEAN,
    STD,
    TINY,
    UNCHANGED,
    Normalising,
    Tiny,
    assert_same,
    prefixed,
    put,
    said,
)
from refusals import refusal
from torch import nn
from torchvision.models import vgg

from captum_classpattern.adapters import load_model
from captum_classpattern.adapters.architectures import build
from captum_classpattern.adapters.formats import trojanzoo
from captum_classpattern.classifier.class_names import ClassNames

PIXELS = MEAN, STD
CIFAR = (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)
GTSRB = (0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669)
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Data(enum.Enum):
    cifar_10 = "cifar10"
    imagenet = "imagenet"


class Threat(enum.Enum):
    Linf = "Linf"
    L2 = "L2"


class Wrapped(nn.Module):
    """As RobustBench's for ImageNet: the network is a part."""

    def __init__(self):
        super().__init__()
        self.normalize, self.model = nn.Identity(), Tiny(10)
        self.normalize.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.normalize.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images):
        return self.model((images - self.normalize.mean) / self.normalize.std)


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    """A RobustBench of the same build, with three small models."""
    entries = {
        "Tiny2024": {"model": Normalising, "gdrive_id": "x"},
        "Several": {"model": Normalising, "gdrive_id": ["x", "y"]},
    }
    dicts = {
        Data.cifar_10: {Threat.Linf: entries, Threat.L2: {}},
        Data.imagenet: {Threat.L2: {"Wrapped2024": {"model": Wrapped, "gdrive_id": "x"}}},
    }

    def by_name(name, dataset, threat_model):
        return dicts[Data(dataset)][Threat(threat_model)][name]["model"]()

    package = types.ModuleType("robustbench")
    package.model_zoo = types.SimpleNamespace(models=types.SimpleNamespace(model_dicts=dicts))
    package.load_model = by_name
    monkeypatch.setitem(sys.modules, "robustbench", package)


def changed(network):
    """With other weights than a new one has."""
    with torch.no_grad():
        getattr(network, "model", network).fc.bias.add_(torch.arange(10))
    return network


def of_robustness(before=""):
    """AttackerModel: the model, the attacker with the same model, and both their normalisers."""
    norm = {"new_mean": MEAN, "new_std": STD}
    norm = {key: torch.tensor(value).view(3, 1, 1) for key, value in norm.items()}
    network = Tiny().state_dict()
    state = prefixed(norm, "normalizer.") | prefixed(network, "model.")
    state |= prefixed(norm, "attacker.normalize.") | prefixed(network, "attacker.model.")
    return prefixed(state, before)


@functools.cache
def of_timm(num_classes=7):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=num_classes)


def usual_of_timm():
    return of_timm().pretrained_cfg["mean"], of_timm().pretrained_cfg["std"]


def saved_by_timm(**arguments):
    """What timm's CheckpointSaver writes."""
    return {
        "epoch": 3,
        "arch": "test_resnet",
        "optimizer": torch.optim.SGD(of_timm().parameters(), 0.1).state_dict(),
        "version": 2,
        "args": argparse.Namespace(**{"model": "test_resnet", "lr": 0.1, **arguments}),
        "state_dict": of_timm().state_dict(),
        "metric": 71.5,
    }


@functools.cache
def small_resnet():
    """A torchvision ResNet-18 for small images."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return network


def of_trojanzoo():
    """Its state dict by TrojanZoo's names."""
    state = small_resnet().state_dict()
    part = {key: "classifier." if key.startswith("fc") else "features." for key in state}
    return OrderedDict((part[key] + key, value) for key, value in state.items())


@functools.cache
def small_vgg():
    torch.manual_seed(0)
    features = vgg.make_layers(vgg.cfgs["A"])  # those of vgg11
    for part in features.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    layers = OrderedDict(fc1=nn.Linear(512, 60), relu1=nn.ReLU(), fc2=nn.Linear(60, 4))
    parts = {"features": features, "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    return nn.Sequential(OrderedDict(**parts, classifier=nn.Sequential(layers)))


@functools.cache
def preact():
    torch.manual_seed(0)
    return build("preactresnet18", 4)


def of_backdoorbench():
    state = preact().state_dict()
    return {"model_name": "preactresnet18", "num_classes": 4, "model": state}


NOT_TIMM = {"mean": None, "std": None, "img_size": None, "input_size": None}
STATE, WRAPPED = changed(Normalising()).state_dict(), changed(Wrapped()).model.state_dict()
FILE, BIG = "cifar10/Linf/Tiny2024.pt", "imagenet/L2/Wrapped2024.pt"


def of_zoo(content, place=FILE, **options):
    return place, content, options, changed(Normalising()), UNCHANGED


def of_big_zoo(prefix):
    content = {"state_dict": prefixed(WRAPPED, prefix)}
    return BIG, content, {}, changed(Wrapped()), UNCHANGED


def timms(content, of=PIXELS, **options):
    return "last.pth.tar", content, options, of_timm(), of


CHECKPOINTS = {  # the file, its content, load_model's arguments, the network, its normalisation
    "robustness": lambda: (
        "a.pt.best", {"state_dict": of_robustness(), "epoch": 3}, {"arch": TINY}, Tiny(), PIXELS
    ),
    "robustbench": lambda: of_zoo(STATE),
    "robustbench in training": lambda: of_zoo({"state_dict": prefixed(STATE, "module."), "a": 3}),
    "robustbench without its normalisation": lambda: of_zoo(
        {key: value for key, value in STATE.items() if "." in key}
    ),
    "robustbench last and best": lambda: of_zoo(
        {"last": STATE, "best": {key: value * 0 for key, value in STATE.items()}}
    ),
    "robustbench elsewhere": lambda: of_zoo(STATE, "m.pt", arch="Tiny2024", format="robustbench"),
    "robustbench whole": lambda: of_zoo(changed(Normalising()), trust_pickle=True),
    "robustbench by name": lambda: (
        "robustbench:Tiny2024", None, {}, Normalising(), UNCHANGED
    ),
    "robustbench for ImageNet": lambda: of_big_zoo(""),
    "robustbench for ImageNet, wrapped twice": lambda: of_big_zoo("module.model."),
    "robustbench for ImageNet by name": lambda: (
        "robustbench:imagenet/L2/Wrapped2024", None, {}, Wrapped(), UNCHANGED
    ),
    "timm": lambda: timms(saved_by_timm(**NOT_TIMM), usual_of_timm()),
    "timm without arguments": lambda: timms(
        of_timm().state_dict(), usual_of_timm(), arch="timm:test_resnet", format="timm"
    ),
    "timm with arguments": lambda: timms(saved_by_timm(mean=MEAN, std=STD, img_size=48)),
    "trojanzoo": lambda: (
        "image/cifar10/resnet18_comp.pth", of_trojanzoo(), {}, small_resnet(), CIFAR
    ),
    "trojanzoo elsewhere": lambda: (
        "elsewhere/m.pth", of_trojanzoo(), {"arch": "resnet18_comp"}, small_resnet(), UNCHANGED
    ),
    "trojanzoo with two linear layers": lambda: (
        "gtsrb/vgg11_comp.pth", small_vgg().state_dict(), {}, small_vgg(), GTSRB
    ),
    "backdoorbench": lambda: ("defense_result.pt", of_backdoorbench(), {}, preact(), UNCHANGED),
}  # fmt: skip


def without_initialisation(monkeypatch):
    """Random weights, which are overwritten, take seconds."""
    for name in ("normal_", "kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints(case, tmp_path, monkeypatch, snapshot):
    source, content, options, network, (mean, std) = CHECKPOINTS[case]()
    if content is not None:
        source = put(content, tmp_path, source)
        without_initialisation(monkeypatch)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        classifier = load_model(source, **options)
    assert_same(classifier, network, mean, std, IMAGES)
    assert len(warned) == ("normalisation: nothing" in said(classifier))
    assert said(classifier) == snapshot


def test_torchvision_by_name(tmp_path, monkeypatch, snapshot):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1()
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    put(network.state_dict(), tmp_path, "hub", "checkpoints", weights.url.rpartition("/")[2])
    for name in ("squeezenet1_1", "squeezenet1_1/IMAGENET1K_V1"):
        classifier = load_model(f"torchvision:{name}")
        assert_same(classifier, network, *IMAGENET, torch.rand(2, 3, 64, 64))
        assert classifier.class_ids[0] == "n01440764"
        assert said(classifier) == snapshot


def test_timm_by_name(tmp_path, monkeypatch, snapshot):
    timm = pytest.importorskip("timm")
    original, path = timm.create_model, put(of_timm(1000).state_dict(), tmp_path, "weights.pt")
    overlay = {"file": str(path), "mean": MEAN, "std": STD}
    monkeypatch.setattr(
        timm, "create_model", lambda name, **k: original(name, pretrained_cfg_overlay=overlay, **k)
    )
    classifier = load_model("timm:test_resnet")
    assert_same(classifier, of_timm(1000), images=IMAGES)
    assert said(classifier) == snapshot
    assert "sha256" not in classifier.provenance
    names = ClassNames.of(classifier)
    assert (names.find("n01440764"), names.find("goldfish")) == (0, 1)
    overlay |= {"label_names": ["x", "y"], "label_descriptions": {"x": "cat"}, "num_classes": 2}
    put(of_timm(2).state_dict(), path)
    classifier = load_model("timm:test_resnet")
    assert (classifier.class_names, classifier.class_ids) == (["cat", "y"], ["x", "y"])


def by_name(name):
    return load_model("model.pt", arch=name, format="robustbench")


REFUSALS = {
    "other weights": lambda: by_name("Tiny2024"),
    "a file of an unknown model": lambda: by_name("None2024"),
    "an ensemble": lambda: by_name("Several"),
    "unknown data": lambda: by_name("mnist/Linf/Tiny2024"),
    "an unknown model": lambda: load_model("robustbench:None2024"),
    "a name of two parts": lambda: load_model("robustbench:a/b"),
    "robustness without a network": lambda: load_model("a.pt"),
    "trojanzoo, another number of classes": lambda: load_model("resnet18_comp.pth", num_classes=5),
    "trojanzoo without a network": lambda: load_model("trojan.pth"),
    "timm, an unknown name": lambda: load_model("timm:no_such_net"),
    "torchvision, an unknown name": lambda: load_model("torchvision:resnet81"),
    "torchvision, not a classifier": lambda: load_model("torchvision:deeplabv3_resnet50"),
    "torchvision, unknown weights": lambda: load_model("torchvision:resnet18/V9"),
}


def test_refusals(tmp_path, monkeypatch, snapshot):
    monkeypatch.chdir(tmp_path)
    state = {key: value for key, value in STATE.items() if key != "fc.bias"}
    put({**state, "extra": torch.rand(1)}, tmp_path, "model.pt")
    put({"model": of_robustness()}, tmp_path, "a.pt")
    for name in ("resnet18_comp", "trojan"):
        put(of_trojanzoo(), tmp_path, f"{name}.pth")
    without_initialisation(monkeypatch)
    said = {case: refusal(call).partition("\n\n") for case, call in REFUSALS.items()}
    for text, _, listed in said.values():
        assert listed.startswith("Networks of") == ("no network" in text)
    begun = {case: re.split("; did you|; give one", text)[0] for case, (text, _, _) in said.items()}
    assert "\n".join(f"{case}: {text}" for case, text in begun.items()) == snapshot


def test_trojanzoo_attack_with_its_mark(tmp_path, monkeypatch, snapshot):
    folder = tmp_path / "attack" / "image" / "cifar10" / "resnet18_comp" / "badnet"
    name = "square_white_tar3_alpha0.50_mark(2,5)"
    path = put(of_trojanzoo(), folder, f"{name}.pth")
    without_initialisation(monkeypatch)
    assert load_model(path).trigger is None
    mark = np.random.default_rng(0).random((4, 2, 5)).astype(np.float32)
    np.save(folder / f"{name}.npy", mark)
    classifier = load_model(path)
    assert_same(classifier, small_resnet(), *CIFAR)
    assert said(classifier) == snapshot
    trigger, padding = classifier.trigger, ((0, 0), (0, 30), (0, 27))
    assert trigger.target == 3
    assert np.array_equal(trigger.mask, np.pad(mark[3:], padding))
    assert np.array_equal(trigger.canvas, np.pad(mark[:3], padding))


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

"""RobustBench's models, by name and from files."""

import enum
import sys
import types

import pytest
import torch
from checkpoints import MEAN, STD, Tiny, assert_same, prefixed, put
from refusals import refusal
from torch import nn

from captum_classpattern.adapters import load_model


class Data(enum.Enum):
    cifar_10 = "cifar10"
    imagenet = "imagenet"


class Threat(enum.Enum):
    Linf = "Linf"
    L2 = "L2"


class Inside(Tiny):
    """With its normalisation inside, as RobustBench's are."""

    def __init__(self):
        super().__init__(10)
        self.register_buffer("mu", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("sigma", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images):
        return super().forward((images - self.mu) / self.sigma)


class Wrapped(nn.Module):
    """As those for ImageNet: the network is a part."""

    def __init__(self):
        super().__init__()
        self.normalize, self.model = nn.Identity(), Tiny(10)
        self.normalize.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.normalize.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images):
        return self.model((images - self.normalize.mean) / self.normalize.std)


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    """A RobustBench of the same build, with two small models."""
    package = types.ModuleType("robustbench")
    entries = {
        "Tiny2024": {"model": Inside, "gdrive_id": "x"},
        "Several": {"model": Inside, "gdrive_id": ["x", "y"]},
    }
    dicts = {
        Data.cifar_10: {Threat.Linf: entries, Threat.L2: {}},
        Data.imagenet: {Threat.L2: {"Wrapped2024": {"model": Wrapped, "gdrive_id": "x"}}},
    }

    def by_name(name, dataset, threat_model):
        return dicts[Data(dataset)][Threat(threat_model)][name]["model"]()

    models = types.SimpleNamespace(model_dicts=dicts)
    package.model_zoo = types.SimpleNamespace(models=models)
    package.load_model = by_name
    monkeypatch.setitem(sys.modules, "robustbench", package)


UNCHANGED = (0, 0, 0), (1, 1, 1)  # the mean and deviation of what normalises itself


def changed(network):
    with torch.no_grad():
        network.fc.bias.add_(torch.arange(10))
    return network


@pytest.mark.parametrize(
    ("form", "missing"),
    [
        (lambda state: state, []),
        (lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3}, []),
        (lambda state: {k: state[k] for k in state if "." in k}, ["mu", "sigma"]),
        (lambda state: {"last": state, "best": {k: v * 0 for k, v in state.items()}}, []),
        (lambda state: {"best": 0.93, "last": 7, "state_dict": state}, []),
    ],
)
def test_robustbench_files(form, missing, tmp_path):
    network = changed(Inside())
    path = put(form(network.state_dict()), tmp_path, "cifar10", "Linf", "Tiny2024.pt")
    classifier = load_model(path)
    assert_same(classifier, network, *UNCHANGED)
    provenance = classifier.provenance
    assert (provenance["format"], provenance["arch"]) == ("robustbench", "cifar10/Linf/Tiny2024")
    assert provenance["missing"] == missing
    assert provenance["normalisation"]["from"] == "the model itself"
    assert classifier.input_size == (3, 32, 32)
    elsewhere = path.rename(tmp_path / "model.pt")
    classifier = load_model(elsewhere, arch="Tiny2024", format="robustbench")
    assert_same(classifier, network, *UNCHANGED)


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_robustbench_networks_for_imagenet(prefix, tmp_path):
    network = Wrapped()
    changed(network.model)
    content = {"state_dict": prefixed(network.model.state_dict(), prefix)}
    classifier = load_model(put(content, tmp_path, "imagenet", "L2", "Wrapped2024.pt"))
    assert_same(classifier, network, *UNCHANGED)
    assert classifier.input_size == (3, 224, 224)


def test_a_whole_module_where_robustbench_keeps_its_files(tmp_path):
    path = put(changed(Inside()), tmp_path, "cifar10", "Linf", "Tiny2024.pt")
    classifier = load_model(path, trust_pickle=True)
    assert_same(classifier, changed(Inside()), *UNCHANGED)


def by_name(name):
    return load_model("model.pt", arch=name, format="robustbench")


REFUSALS = {
    "other weights": lambda: by_name("Tiny2024"),
    "a file of an unknown model": lambda: by_name("None2024"),
    "an ensemble": lambda: by_name("Several"),
    "unknown data": lambda: by_name("mnist/Linf/Tiny2024"),
    "an unknown model": lambda: load_model("robustbench:None2024"),
    "a name of two parts": lambda: load_model("robustbench:a/b"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, tmp_path, monkeypatch, snapshot):
    monkeypatch.chdir(tmp_path)
    state = {key: value for key, value in Inside().state_dict().items() if key != "fc.bias"}
    put({**state, "extra": torch.rand(1)}, tmp_path, "model.pt")
    assert refusal(REFUSALS[case]) == snapshot


@pytest.mark.parametrize(
    ("name", "arch", "network", "side"),
    [
        ("Tiny2024", "cifar10/Linf/Tiny2024", Inside, 32),
        ("imagenet/L2/Wrapped2024", "imagenet/L2/Wrapped2024", Wrapped, 224),
    ],
)
def test_robustbench_by_name(name, arch, network, side):
    classifier = load_model(f"robustbench:{name}")
    assert_same(classifier, network(), *UNCHANGED)
    assert classifier.provenance["arch"] == arch
    assert classifier.input_size == (3, side, side)

"""A small network, and what tests of loading compare."""

import importlib
import json
from pathlib import Path

import torch
import torchvision
from torch import nn

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
UNCHANGED = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the mean and deviation of what normalises itself
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Tiny(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        torch.manual_seed(num_classes)
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)

    def forward(self, images):
        return self.fc(self.bn(self.conv(images)).relu().mean((2, 3)))


class Normalising(Tiny):
    """With its normalisation inside, as RobustBench's are."""

    def __init__(self, num_classes=10):
        super().__init__(num_classes)
        self.register_buffer("mu", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("sigma", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images):
        return super().forward((images - self.mu) / self.sigma)


TINY = f"{__name__}:Tiny"


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def normalised(images, mean=MEAN, std=STD):
    return torchvision.transforms.functional.normalize(images, mean, std)


def assert_same(classifier, network, mean=MEAN, std=STD, images=IMAGES):
    """Logits as of the original network on normalised images; eval mode; a plain provenance."""
    with torch.no_grad():
        expected = network.eval()(normalised(images, mean, std))
        assert (classifier(images) - expected).abs().max() <= 1e-6
    assert float(expected.std(0).max()) > 1e-4  # the images matter
    assert not any(part.training for part in classifier.modules())
    assert json.loads(json.dumps(classifier.provenance))


def said(classifier):
    """What load_model reports on a classifier, in a line, without what depends on place and
    time; of the renamed weights, how many, and one of them."""
    reported = {**classifier.provenance, "input size": classifier.input_size}
    if reported.pop("sha256", None):
        reported["source"] = Path(reported["source"]).name
    reported["normalisation"] = reported["normalisation"]["from"]
    if renamed := [*reported.get("renamed", {}).items()]:
        reported["renamed"] = f"{len(renamed)} such as {' to '.join(min(renamed))}"
    classes = classifier.classes or []
    reported |= {"first class": "".join(classes[:1]), "classes": len(classes)}
    return "; ".join(f"{name}: {reported[name]}" for name in sorted(reported) if reported[name])


def put(content, *parts):
    path = parts[0].joinpath(*parts[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def without(monkeypatch, name):
    """As if a package were not installed."""
    original = importlib.import_module

    def import_module(wanted, package=None):
        if wanted.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)
        return original(wanted, package)

    monkeypatch.setattr(importlib, "import_module", import_module)

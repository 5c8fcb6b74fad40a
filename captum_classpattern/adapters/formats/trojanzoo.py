"""TrojanZoo's models (Pang et al. 2022, arXiv 2012.09302): a bare state dict of ``features`` and
``classifier``, in a file whose path tells the network and the data set."""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from captum_classpattern.adapters.architectures import build
from captum_classpattern.adapters.fitting import load_weights
from captum_classpattern.adapters.found import Found
from captum_classpattern.adapters.weights import Weights, is_state_dict
from captum_classpattern.pattern import Pattern

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768))
# normalisation, unless it was switched off, is outside the state dict; with it the input size
DATA: Mapping[str, tuple[Sequence[float], Sequence[float], int]] = {
    "cifar10": (*CIFAR, 32),
    "cifar100": (*CIFAR, 32),
    "gtsrb": ((0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669), 32),
    "imagenet": (*IMAGENET, 224),
    "mnist": ((0.1307,), (0.3081,), 28),
    "stl10": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276), 96),
}
MARK = re.compile(r"_tar(\d+)_alpha[\d.]+_mark\((\d+),(\d+)\)$")


class Parts(nn.Module):
    """A torchvision ResNet or VGG for small images, in TrojanZoo's two parts."""

    def __init__(self, name: str, linear: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        made: Any = torchvision.models.get_model(name, weights=None)
        if name.startswith("vgg"):
            self.features = made.features
        else:
            made.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)  # and no pooling after it
            stem = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4")
            self.features = nn.Sequential(OrderedDict((k, getattr(made, k)) for k in stem))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (key, (inside, out)) in enumerate(linear.items()):
            if number:
                layers[f"relu{number}"] = nn.ReLU()
            layers[key] = nn.Linear(inside, out)
        self.classifier = nn.Sequential(layers)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits


def recognise(content: Any) -> bool:
    """Whether the keys are TrojanZoo's."""
    return (
        is_state_dict(content)
        and all(key.startswith(("features.", "classifier.")) for key in content)
        and any(k.startswith("classifier.fc") and v.ndim == 2 for k, v in content.items())
    )


def read(content: Any, where: str, arch: str | None, num_classes: int | None, path: Path) -> Found:
    """The network that the file's path tells (or ``arch``), and the data set's normalisation."""
    Weights.of(content, where)  # or an error, before anything is built from its sizes
    attack = path.with_suffix(".npy")
    attacked = MARK.search(path.stem) is not None  # DATA/ARCH/ATTACK/file, else DATA/ARCH.pth
    told = path.parent.parent.name if attacked else path.stem
    data = (path.parents[2] if attacked and len(path.parents) > 2 else path.parent).name
    arch = arch or _known(told, where)
    linear = {
        key.split(".")[1]: (value.shape[1], value.shape[0])
        for key, value in content.items()
        if key.startswith("classifier.") and value.ndim == 2
    }
    last = list(linear)[-1]
    count = num_classes or linear[last][1]
    linear[last] = (linear[last][0], count)
    base = arch.removesuffix("_comp")
    own = arch.endswith("_comp") and base in torchvision.models.list_models()
    network = Parts(base, linear) if own else build(arch, count)
    fit = load_weights(network, content, where)
    mean: Sequence[float] | None
    std: Sequence[float] | None
    mean, std, side = DATA.get(data, (None, None, None))
    size = None if side is None or mean is None else (len(mean), side, side)
    trigger = _trigger(path.stem, attack, size)
    from_ = f"TrojanZoo's for {data}"
    if fit.inside or fit.mean is not None:
        mean, std, from_ = fit.normalisation
    details = {"weights": "", "arch": arch, "num_classes": count, **fit.as_dict(), "data": data}
    if trigger is not None:
        details["trigger"] = f"{attack.name}, in the upper left corner, its usual place"
    return Found(network, mean, std, from_, None, size, trigger, details)


def _known(told: str, where: str) -> str:
    """The network in the file's path, if it is one that can be built here."""
    if re.fullmatch(r"(resnet|vgg)\d+(_bn)?_comp", told):
        return told
    raise ValueError(
        f"{where} holds a model of TrojanZoo; its path would tell the network, but {told!r} is "
        "none that can be built here (resnet18_comp, vgg13_comp and their like): pass arch, one of "
        "these names or a function that makes it, as 'package.module:factory'"
    )


def _trigger(stem: str, file: Path, size: tuple[int, int, int] | None) -> Pattern | None:
    """The mark beside an attacked model: its colours and, as a last channel, its opacity."""
    found = MARK.search(stem)
    if (
        found is None
        or size is None
        or not file.is_file()
        or stem.startswith(("random", "scatter"))
    ):
        return None
    target, height, width = map(int, found.groups())
    try:
        mark = torch.from_numpy(np.load(file, allow_pickle=False)).float().clamp(0, 1)
    except (EOFError, OSError, TypeError, ValueError):  # no array of numbers
        return None
    if mark.shape != (size[0] + 1, height, width) or height > size[1] or width > size[2]:
        return None
    canvas, mask = torch.zeros(size), torch.zeros(1, *size[1:])
    canvas[:, :height, :width], mask[:, :height, :width] = mark[:-1], mark[-1:]
    return Pattern(canvas, mask, target, {"trigger": f"TrojanZoo, {file.name}"})

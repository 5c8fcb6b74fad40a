"""TrojanZoo's models (Pang et al. 2022, arXiv 2012.09302): a bare state dict of ``features`` and
``classifier``, in a file whose path names the network and the data set."""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_classpattern.adapters.architectures import arch_name, build, torchvision_names
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import find_weights, is_state_dict, load_weights
from captum_classpattern.datasets.pixels import read_array
from captum_classpattern.pattern import Pattern

CIFAR = ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768))
# of the data sets, outside the models: mean and standard deviation; and the side of the images
DATA_SETS: Mapping[str, tuple[Sequence[float], Sequence[float], int]] = {
    "cifar10": (*CIFAR, 32),
    "cifar100": (*CIFAR, 32),
    "gtsrb": ((0.3403, 0.3121, 0.3214), (0.2724, 0.2608, 0.2669), 32),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224),
    "mnist": ((0.1307,), (0.3081,), 28),
    "stl10": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276), 96),
}
MARK = re.compile(r"_tar(\d+)_alpha[\d.]+_mark\((\d+),(\d+)\)$")


class SmallImageNetwork(nn.Module):
    """A torchvision ResNet or VGG for small images, in TrojanZoo's two parts."""

    def __init__(self, name: str, linear: Mapping[str, tuple[int, int]]) -> None:
        from torchvision.models import get_model  # slow to import

        super().__init__()
        original: Any = get_model(name, weights=None)
        if name.startswith("vgg"):
            self.features = original.features
        else:
            original.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)  # and no pooling after it
            parts = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4")
            self.features = nn.Sequential(OrderedDict((k, getattr(original, k)) for k in parts))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (key, channels) in enumerate(linear.items()):
            if number:
                layers[f"relu{number}"] = nn.ReLU()
            layers[key] = nn.Linear(*channels)
        self.classifier = nn.Sequential(layers)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits


class TrojanZoo:
    """A file in TrojanZoo's folders."""

    name = "trojanzoo"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        state = file.content
        return (
            is_state_dict(state)
            and all(key.startswith(("features.", "classifier.")) for key in state)
            and any(k.startswith("classifier.fc") and v.ndim == 2 for k, v in state.items())
        )

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Loads the network and the data set's normalisation, both named by the path:
        DATA/ARCH.pth, or for an attacked model DATA/ARCH/ATTACK/NAME.pth, with the trigger in
        NAME.npy."""
        path = file.path
        weights = find_weights(file.content, path)  # or an error, before its sizes are used
        mark = MARK.search(path.stem)
        in_path = path.parent.parent.name if mark else path.stem
        data = (path.parents[2] if mark and len(path.parents) > 2 else path.parent).name
        arch = options.arch or in_path
        if options.arch is None and not re.fullmatch(r"(resnet|vgg)\d+(_bn)?_comp", in_path):
            raise ValueError(
                f"{path} is a model of TrojanZoo, whose path should name its network, but "
                f"{in_path!r} is not one that can be built here (resnet18_comp, vgg13_comp and "
                "similar): pass `arch`, one of these names, or MODULE:NAME of what makes the "
                "network, such as `arch=my_net:MyNet`"
            )
        linear = {
            key.split(".")[1]: (value.shape[1], value.shape[0])
            for key, value in weights.state.items()
            if key.startswith("classifier.") and value.ndim == 2
        }
        last, (channels, in_file) = list(linear.items())[-1]
        count = options.num_classes or in_file
        linear[last] = (channels, count)
        base = arch_name(arch).removesuffix("_comp")
        small = arch != base and base in torchvision_names()
        network = SmallImageNetwork(base, linear) if small else build(arch, count)
        loaded = load_weights(network, weights, arch=arch_name(arch), num_classes=count, data=data)
        if data in DATA_SETS:
            mean, std, side = DATA_SETS[data]
            loaded.input_size = size = (len(mean), side, side)
            if loaded.mean is None:
                loaded.mean, loaded.std = mean, std
                loaded.normalised_by = f"TrojanZoo's {data}"
            loaded.trigger = _load_trigger(path.with_suffix(".npy"), size)
        if loaded.trigger is not None:
            loaded.details["trigger"] = f"{path.stem}.npy, in the upper left corner, as usual"
        return loaded


def _load_trigger(file: Path, size: tuple[int, int, int]) -> Pattern | None:
    """The mark of an attacked model: its colours and, as the last channel, its opacity."""
    mark_of_name = MARK.search(file.stem)
    if mark_of_name is None or not file.is_file() or file.stem.startswith(("random", "scatter")):
        return None
    target, height, width = map(int, mark_of_name.groups())
    try:
        array = read_array(file.open("rb"), file.stat().st_size)
        mark = torch.from_numpy(array).float().clamp(0, 1)
    except Exception:  # not an array of numbers
        return None
    if mark.shape != (size[0] + 1, height, width) or height > size[1] or width > size[2]:
        return None
    canvas, mask = torch.zeros(size), torch.zeros(1, *size[1:])
    canvas[:, :height, :width], mask[:, :height, :width] = mark[:-1], mark[-1:]
    return Pattern(canvas, mask, target, {"trigger": f"TrojanZoo, {file.name}"})

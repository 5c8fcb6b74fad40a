"""State dicts and training checkpoints of any script; torchvision's pretrained models."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from torch import nn

from captum_classpattern.adapters.architectures import (
    check_arch_from_file,
    torchvision_names,
    unknown_network,
)
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import find_weights, load_network, locate_weights
from captum_classpattern.classifier.class_names import imagenet_names

NAME_KEYS = ("class_names", "classes", "labels", "categories")
# of robustness: a normaliser, a network, and an attacker with second copies of both
MARKS = ("normalizer.new_mean", "attacker.normalize.new_mean")


class Plain:
    name = "plain"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        return True

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Loads the weights into the network that the caller names, or else the checkpoint."""
        weights, arch = find_weights(file.content, file.path), options.arch
        if isinstance(weights.value, nn.Module):
            loaded = LoadedNetwork(weights.value, details={"weights": weights.key})
        else:
            if arch is None and isinstance(file.entries.get("arch"), str):
                arch = check_arch_from_file(file.entries["arch"], file.path)
            loaded = load_network(arch, weights, options.num_classes)
        loaded.class_names = _class_names(file.entries)
        return loaded


class Robustness(Plain):
    name = "robustness"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        _, state = next(locate_weights(file.content), ("", None))
        return isinstance(state, Mapping) and any(key.endswith(MARKS) for key in state)


def load_from_torchvision(name: str) -> LoadedNetwork:
    """A model with its default weights, or ``NAME/WEIGHTS``; torchvision downloads or finds it."""
    from torchvision.models import get_model, get_model_weights  # slow to import

    arch, _, version = name.partition("/")
    if arch not in torchvision_names():
        raise unknown_network(f"torchvision:{arch}")
    versions: Any = get_model_weights(arch).__members__
    weights = versions.get(version or "DEFAULT")
    if weights is None:
        raise ValueError(
            f"torchvision's {arch} has no weights {version!r}: it has {', '.join(versions)}"
        )
    transforms, names = weights.transforms(), weights.meta["categories"]
    network = get_model(arch, weights=weights)
    [side] = set(transforms.crop_size)
    loaded = LoadedNetwork(network, transforms.mean, transforms.std, "the weights' transforms")
    loaded.class_names, loaded.input_size = names, (3, side, side)
    loaded.class_ids = [*imagenet_names()] if len(names) == 1000 else None
    loaded.details = {
        "arch": f"torchvision:{arch}", "weights": weights.name, "num_classes": len(names),
    }  # fmt: skip
    return loaded


def _class_names(held: Mapping[Any, Any]) -> list[str] | None:
    """The names of the classes, where training checkpoints keep them."""
    indices = held.get("class_to_idx")
    numbered = indices if isinstance(indices, Mapping) else {}
    if numbered and all(isinstance(number, Integral) for number in numbered.values()):
        return [str(name) for name in sorted(numbered, key=lambda name: numbered[name])]
    for names in map(held.get, NAME_KEYS):
        if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
            return list(names)
    return None

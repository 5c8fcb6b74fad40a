"""A state dict, or a training checkpoint around one, or a whole model; from any script, or from
MadryLab's robustness."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from torch import nn

from captum_classpattern.adapters.architectures import check_arch_from_file
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import find_weights, load_network, locate_weights

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

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Loads the weights into the network that the caller names."""
        file.check_layout(self.matches(file, options), self.name)
        return super().load(file, options)


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

"""MadryLab's robustness: a normaliser, a network, and an attacker with second copies of both."""

from collections.abc import Mapping

from captum_classpattern.adapters.formats.plain import Plain
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import locate_weights

MARKS = ("normalizer.new_mean", "attacker.normalize.new_mean")


class Robustness(Plain):
    name = "robustness"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        _, state = next(locate_weights(file.content), ("", None))
        return isinstance(state, Mapping) and any(key.endswith(MARKS) for key in state)

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Loads the weights into the network that the caller names."""
        file.check_layout(self.matches(file, options), self.name)
        return super().load(file, options)

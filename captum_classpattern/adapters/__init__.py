"""Other people's models as classifiers over [0, 1] pixels."""

from captum_classpattern.adapters.architectures import check_arch_from_file
from captum_classpattern.adapters.interface import Format, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.load import load_model
from captum_classpattern.adapters.safe_load import CheckpointFile
from captum_classpattern.adapters.weights import Weights, find_weights, load_network

__all__ = [
    "CheckpointFile", "Format", "LoadOptions", "LoadedNetwork", "Weights",
    "check_arch_from_file", "find_weights", "load_model", "load_network",
]  # fmt: skip

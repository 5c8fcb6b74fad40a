"""A state dict, or a training checkpoint around one; from any script."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from captum_classpattern.adapters.architectures import told_by_file
from captum_classpattern.adapters.fitting import build_to_fit, load_weights
from captum_classpattern.adapters.found import Found
from captum_classpattern.adapters.weights import Weights

NAMES = ("class_names", "classes", "labels", "categories")


def read(content: Any, where: str, arch: str | None, num_classes: int | None) -> Found:
    """The network that ``arch`` (or else the checkpoint) names, with the checkpoint's weights."""
    weights = Weights.of(content, where)
    names = class_names(content)
    if isinstance(weights.held, nn.Module):
        return Found(weights.held, class_names=names, details=weights.told)
    told = content.get("arch") if isinstance(content, Mapping) else None
    if arch is None and isinstance(told, str):
        arch = told_by_file(told, where)
    if arch is None:
        raise ValueError(f"{where} holds weights, but does not tell their network: {weights.hint}")
    network, count = build_to_fit(arch, num_classes, weights.held)
    fit = load_weights(network, weights.held, where)
    details = {**weights.told, "arch": arch, "num_classes": count, **fit.as_dict()}
    return Found(network, *fit.normalisation, names, details=details)


def class_names(content: Any) -> list[str] | None:
    """The names of the classes, where a training checkpoint keeps them."""
    if not isinstance(content, Mapping):
        return None
    indices = content.get("class_to_idx")
    if isinstance(indices, Mapping) and indices:
        return [str(name) for name in sorted(indices, key=lambda name: indices[name])]
    for key in NAMES:
        names = content.get(key)
        if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
            return list(names)
    return None

"""Checkpoints of MadryLab's robustness: a normaliser, and an attacker with a second copy."""

from collections.abc import Mapping
from typing import Any

from captum_classpattern.adapters.fitting import build_to_fit, load_weights
from captum_classpattern.adapters.found import Found
from captum_classpattern.adapters.weights import Weights

MARKS = ("normalizer.new_mean", "attacker.normalize.new_mean")


def recognise(content: Any) -> bool:
    """Whether the weights are wrapped as robustness wraps them."""
    try:
        held = Weights.of(content, "").held
    except ValueError:
        return False
    return isinstance(held, Mapping) and any(key.endswith(MARKS) for key in held)


def read(content: Any, where: str, arch: str | None, num_classes: int | None) -> Found:
    """The network inside, and the normalisation beside it."""
    weights = Weights.of(content, where)
    if arch is None:
        raise ValueError(
            f"{where} is a checkpoint of robustness, which does not tell its network: "
            f"{weights.hint}; its ResNets for CIFAR are 'cifar_resnet18' and 'cifar_resnet50'"
        )
    network, count = build_to_fit(arch, num_classes, weights.held)
    state = {k: v for k, v in weights.held.items() if ".attacker." not in f".{k}"}
    fit = load_weights(network, state, where)
    copies = {key: "a second copy" for key in weights.held if key not in state}
    details = {**weights.told, "arch": arch, "num_classes": count, **fit.as_dict()}
    details["ignored"] = {**fit.ignored, **copies}
    return Found(network, fit.mean, fit.std, "the checkpoint", details=details)

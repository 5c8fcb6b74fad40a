"""timm's models by name, and the checkpoints that its training script writes."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from captum_classpattern.adapters import plain
from captum_classpattern.adapters.architectures import optional
from captum_classpattern.adapters.found import Found


def by_name(name: str) -> Found:
    """A pretrained model, which timm downloads or finds in its cache."""
    timm = optional("timm")
    network = timm.create_model(name, pretrained=True)
    return described(
        Found(network, details={"arch": f"timm:{name}", "num_classes": network.num_classes}),
        network.pretrained_cfg,
    )


def recognise(content: Any) -> bool:
    """Whether timm's training script wrote it."""
    keys = {"arch", "state_dict", "optimizer", "version"}
    return isinstance(content, Mapping) and keys <= set(content)


def read(content: Any, where: str, arch: str | None, num_classes: int | None) -> Found:
    """Its weights, and the normalisation that it was trained with: the arguments', else timm's for
    that network."""
    found = plain.read(content, where, arch or f"timm:{content['arch']}", num_classes)
    arguments = content.get("args")
    told = vars(arguments) if isinstance(arguments, Namespace) else {}
    told = {k: v for k, v in told.items() if v is not None}
    config = getattr(found.network, "pretrained_cfg", None)
    return described(found, {**(config or {}), **told}) if found.mean is None else found


def described(found: Found, config: Mapping[str, Any]) -> Found:
    """With the normalisation and input size of one of timm's configurations."""
    found.mean, found.std = config.get("mean"), config.get("std")
    found.normalised_by = "timm's configuration of the network"
    size = config.get("input_size")
    found.input_size = None if size is None else tuple(size)
    return found

"""timm's models by name, and the checkpoints that its training script writes."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from captum_classpattern.adapters.architectures import installed, optional, told_by_file
from captum_classpattern.adapters.formats import plain
from captum_classpattern.adapters.found import Found, input_size

IMAGENET_CLASSES = 1000


def by_name(name: str) -> Found:
    """A pretrained model, which timm downloads or finds in its cache."""
    timm = optional("timm")
    try:
        network = timm.create_model(name, pretrained=True)
    except RuntimeError as error:  # of a name that it does not know, or has no weights for
        raise ValueError(f"timm:{name} can't be made: {error}") from error
    found = Found(network, details={"arch": f"timm:{name}", "num_classes": network.num_classes})
    found.class_names, found.class_ids = _classes(network)
    return described(found, network.pretrained_cfg)


def imagenet_ids() -> list[str] | None:
    """The WordNet ids of ImageNet's 1,000 classes; None if timm, which lists them, is missing."""
    timm = installed("timm")
    return None if timm is None else timm.data.ImageNetInfo().label_names()


def _classes(network: Any) -> tuple[list[str] | None, list[str] | None]:
    """The names and ids of the classes of a pretrained model: its own, or its ImageNet's."""
    data = optional("timm").data
    config = network.pretrained_cfg
    ids, names = config.get("label_names"), config.get("label_descriptions")
    subset = data.infer_imagenet_subset(network)
    if ids is None and subset is not None:
        info = data.ImageNetInfo(subset)
        return info.label_descriptions(), info.label_names()
    return ([names.get(one, one) for one in ids], ids) if ids and names else (ids, None)


def recognise(content: Any) -> bool:
    """Whether timm's training script wrote it."""
    keys = {"arch", "state_dict", "optimizer", "version"}
    return isinstance(content, Mapping) and keys <= set(content)


def read(content: Any, where: str, arch: str | None, num_classes: int | None) -> Found:
    """Its weights, and the normalisation that it was trained with: the arguments', else timm's for
    that network."""
    if arch is None and recognise(content):
        arch = told_by_file(f"timm:{content['arch']}", where)
    found = plain.read(content, where, arch, num_classes)
    arguments = content.get("args") if isinstance(content, Mapping) else None
    told = vars(arguments) if isinstance(arguments, Namespace) else {}
    told = {k: v for k, v in told.items() if v is not None}
    config = {**(getattr(found.network, "pretrained_cfg", None) or {}), **told}
    if "img_size" in told and "input_size" not in told:
        channels = config.get("input_size", (3,))[0]
        config["input_size"] = (channels, told["img_size"], told["img_size"])
    return described(found, config) if found.mean is None else found


def described(found: Found, config: Mapping[str, Any]) -> Found:
    """With the normalisation and input size of one of timm's configurations."""
    found.mean, found.std = config.get("mean"), config.get("std")
    found.normalised_by = "timm's configuration of the network"
    found.input_size = input_size(config.get("input_size"))
    return found

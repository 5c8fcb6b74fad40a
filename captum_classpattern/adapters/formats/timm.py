"""timm's pretrained models, and the checkpoints that its training script writes."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from captum_classpattern._support.files import check_kinds, reading
from captum_classpattern._support.validation import import_optional, join_names
from captum_classpattern.adapters.architectures import check_arch_from_file, unknown_network
from captum_classpattern.adapters.formats.plain import Plain
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import find_weights, load_network

USUAL_SETTINGS = {"num_classes", "in_chans", "global_pool"}  # that do not change a classifier
TIMM_KEYS = {"arch", "state_dict", "optimizer", "version"}


class Timm(Plain):
    """A checkpoint of timm's training script."""

    name = "timm"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        return options.format == self.name or set(file.entries) >= TIMM_KEYS

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """Loads the weights, with the normalisation of the training's arguments, or else timm's."""
        if options.arch is None and set(file.entries) >= TIMM_KEYS:
            arch = check_arch_from_file(f"timm:{file.entries['arch']}", file.path)
            options = replace(options, arch=arch)
        loaded = super().load(file, options)
        if loaded.mean is not None:
            return loaded
        arguments = file.entries.get("args")
        given = vars(arguments) if isinstance(arguments, Namespace) else {}
        given = {key: value for key, value in given.items() if value is not None}
        config = {**(getattr(loaded.network, "pretrained_cfg", None) or {}), **given}
        if "img_size" in given and "input_size" not in given:
            channels = config.get("input_size", (3,))[0]
            config["input_size"] = (channels, given["img_size"], given["img_size"])
        return _with_config(loaded, config)


def load_from_timm(name: str) -> LoadedNetwork:
    """A pretrained model, which timm downloads or finds in its cache."""
    timm = import_optional("timm")
    if ":" not in name and not timm.is_model(name):
        raise unknown_network(f"timm:{name}")
    try:
        network = timm.create_model(name, pretrained=True)
    except RuntimeError as error:  # for a name that it has no weights for
        raise ValueError(f"timm:{name} can't be loaded: {error}") from error
    details = {"arch": f"timm:{name}", "num_classes": network.num_classes}
    loaded = LoadedNetwork(network, details=details)
    return _with_config(_with_names(loaded, network.pretrained_cfg), network.pretrained_cfg)


def load_timm_folder(file: CheckpointFile, config: Mapping[str, Any]) -> LoadedNetwork:
    """The network of a folder for a hub, with its configuration."""
    arch = check_arch_from_file(config["architecture"], file.path)
    with reading(file.path, "is of another form", "give the weights with their `arch`"):
        check_kinds(config, pretrained_cfg=dict, model_args=dict, num_classes=int)
        settings: Any = config.get("model_args") or {}
        if unusual := sorted({*settings} - USUAL_SETTINGS):
            raise ValueError(f"it sets {join_names(unusual)} of its network")
    weights = find_weights(file.content, file.path)
    loaded = load_network(f"timm:{arch.removeprefix('timm:')}", weights, config.get("num_classes"))
    known = {**(config.get("pretrained_cfg") or {}), **config}
    return _with_config(_with_names(loaded, known), known)


def _with_names(loaded: LoadedNetwork, config: Mapping[str, Any]) -> LoadedNetwork:
    """Sets the names of the classes of one of timm's configurations, or ImageNet's."""
    data = import_optional("timm").data
    ids, names = config.get("label_names"), config.get("label_descriptions")
    subset = data.infer_imagenet_subset(loaded.network)
    if ids is None and subset is not None:
        info = data.ImageNetInfo(subset)
        ids, names = info.label_names(), info.label_descriptions(as_dict=True)
    described = [names.get(one, one) for one in ids] if ids and names else None
    loaded.class_names, loaded.class_ids = described or ids, ids if described else None
    return loaded


def _with_config(loaded: LoadedNetwork, config: Mapping[str, Any]) -> LoadedNetwork:
    """Sets the normalisation and input size of one of timm's configurations."""
    loaded.mean, loaded.std = config.get("mean"), config.get("std")
    loaded.normalised_by = "timm's configuration of the network"
    loaded.input_size = config.get("input_size")
    return loaded

"""timm's pretrained models, and the checkpoints that its training script writes."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from safetensors import SafetensorError

from captum_classpattern._support.files import reading
from captum_classpattern._support.validation import import_optional
from captum_classpattern.adapters.architectures import check_arch_from_file, unknown_network
from captum_classpattern.adapters.formats.plain import Plain
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import Weights, check_size, load_weights

SETTINGS = {"num_classes", "in_chans", "global_pool", "img_size"}  # that a stranger may choose
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
    except (RuntimeError, SafetensorError) as error:  # no weights, or damaged ones
        raise ValueError(f"timm:{name} can't be loaded: {error}") from error
    details = {"arch": f"timm:{name}", "num_classes": network.num_classes}
    config = network.pretrained_cfg
    return _with_config(_with_names(LoadedNetwork(network, details=details), config), config)


def load_timm_folder(config: Mapping[str, Any], weights: Weights) -> LoadedNetwork:
    """The network that a stranger's configuration names, with these weights."""
    timm, path = import_optional("timm"), weights.path
    known = {**(config.get("pretrained_cfg") or {}), **config}
    settings = {key: known[key] for key in ("num_classes", "global_pool") if key in known}
    settings |= config.get("model_args") or {}
    name = check_arch_from_file(config["architecture"], path).removeprefix("timm:")
    with reading(path, "timm can't build its network", "give its weights with their `arch`"):
        if {*settings} - SETTINGS or (settings.get("num_classes") or 0) < 2:
            raise ValueError(f"it sets {settings!r:.200}")
        mean, std = ([float(each) for each in known.get(of) or ()] for of in ("mean", "std"))
        make = partial(timm.create_model, name, pretrained=False, **settings)
        check_size(make, weights.state)
        network = make()
    details = {"arch": f"timm:{name}", "num_classes": network.num_classes}
    loaded = load_weights(network, weights, **details)
    config = {**known, "mean": mean or None, "std": std or None}
    return _with_names(loaded if loaded.mean is not None else _with_config(loaded, config), config)


def _with_names(loaded: LoadedNetwork, config: Mapping[str, Any]) -> LoadedNetwork:
    """Sets the class names from one of timm's configurations, or ImageNet's."""
    ids, names = config.get("label_names"), config.get("label_descriptions")
    data = import_optional("timm").data
    subset = data.infer_imagenet_subset(loaded.network)
    if ids is None and subset is not None:
        info = data.ImageNetInfo(subset)
        ids, names = info.label_names(), info.label_descriptions(as_dict=True)
    described = [names.get(str(one), one) for one in ids] if ids and names else None
    loaded.class_names, loaded.class_ids = described or ids, ids if described else None
    return loaded


def _with_config(loaded: LoadedNetwork, config: Mapping[str, Any]) -> LoadedNetwork:
    """Sets the normalisation and input size from one of timm's configurations."""
    loaded.mean, loaded.std = config.get("mean"), config.get("std")
    loaded.normalised_by = "timm's configuration of the network"
    loaded.input_size = config.get("input_size")
    return loaded

"""timm's pretrained models, and the checkpoints that its training script writes."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from captum_classpattern._support.files import check_kinds, reading
from captum_classpattern._support.validation import import_optional
from captum_classpattern.adapters.architectures import check_arch_from_file, unknown_network
from captum_classpattern.adapters.formats.plain import Plain
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.safe_load import shown_names
from captum_classpattern.adapters.size_check import check_size
from captum_classpattern.adapters.weights import Weights, load_weights
from captum_classpattern.classifier.class_names import names_by_number

HARMLESS: Mapping[str, Any] = {  # settings of a network that a stranger's file may choose
    "num_classes": int, "in_chans": int, "global_pool": str, "img_size": int | list,
    "dynamic_img_size": bool, "drop_rate": int | float, "drop_path_rate": int | float,
}  # fmt: skip
NOT_FOR_TIMM = "timm can't build its network", "give its weights with their `arch`"
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


def load_from_timm(name: str, options: LoadOptions) -> LoadedNetwork:
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


def load_timm_folder(weights: Weights, config: Mapping[str, Any]) -> LoadedNetwork:
    """The network that the configuration of a folder for a hub describes, with these weights."""
    timm, path = import_optional("timm"), weights.path
    with reading(path, *NOT_FOR_TIMM):
        arch, settings, known = config["architecture"], *_checked_settings(config)
    name = check_arch_from_file(arch, path).removeprefix("timm:")
    if not timm.is_model(name):
        raise unknown_network(f"timm:{name}")
    with reading(path, *NOT_FOR_TIMM):
        make = partial(timm.create_model, name, pretrained=False, **settings)
        check_size(make, weights.state)
        network = make()
    count = settings["num_classes"]
    loaded = load_weights(network, weights, arch=f"timm:{name}", num_classes=count)
    _with_names(loaded, known)
    return loaded if loaded.mean is not None else _with_config(loaded, known)


def _checked_settings(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a stranger's configuration gives to timm, which only builds the network; and what it
    says about images and classes."""
    check_kinds(config, architecture=str, pretrained_cfg=dict, model_args=dict)
    known = {**(config.get("pretrained_cfg") or {}), **config}
    given = {key: known.get(key) for key in ("num_classes", "global_pool")}
    given |= config.get("model_args") or {}
    if unusual := sorted({*given} - {*HARMLESS}):
        raise ValueError(f"it sets {shown_names(unusual)} of its network")
    check_kinds(given, **HARMLESS)
    check_kinds(known, mean=list, std=list, label_names=list | dict, label_descriptions=dict)
    for name, kind in {"mean": int | float, "std": int | float, "label_names": str}.items():
        if not all(isinstance(each, kind) for each in known.get(name) or ()):
            raise ValueError(f"{name} is {known[name]!r:.80}")
    if not (count := given["num_classes"] or 0) > 1:
        raise ValueError(f"it has {count} classes")
    if isinstance(known.get("label_names"), dict):
        known["label_names"] = names_by_number(known["label_names"], count)
    return given, known


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

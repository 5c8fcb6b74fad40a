"""Image classifiers of Hugging Face, by name, or from folders that ``save_pretrained`` wrote.

A folder may come from a stranger. It is read here: transformers and timm get checked settings and
tensors, never the folder, so they find no code, adapters or kernels there."""

import inspect
import io
import logging
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stderr
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from captum_classpattern._support import files
from captum_classpattern._support.validation import Notice, import_optional, join_names
from captum_classpattern.adapters.formats.timm import load_timm_folder
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.weights import Weights, check_size, find_weights
from captum_classpattern.classifier import warn
from captum_classpattern.classifier.class_names import names_by_number

CONFIG, PROCESSOR, ADAPTER = "config.json", "preprocessor_config.json", "adapter_config.json"
WEIGHTS, FORMER = "model.safetensors", "pytorch_model.bin"
DOWNLOADED = [CONFIG, PROCESSOR, ADAPTER, WEIGHTS]  # of a hub, nothing else
NAMES = (  # of networks; their processors scale and normalise pixels, after resizing and cropping
    "Beit", "Bit", "CLIP", "ConvNext", "ConvNextV2", "DeiT", "Dinov2", "EfficientNet",
    "MobileNetV2", "RegNet", "ResNet", "Segformer", "Siglip", "Swin", "Swinv2", "ViT",
)  # fmt: skip
KINDS: Mapping[str, Any] = {  # of values anywhere in settings; NoneType is for what is not loaded
    "auto_map": NoneType, "quantization_config": NoneType, "attn_implementation": NoneType,
    "_attn_implementation": NoneType, "do_flip_channel_order": NoneType, "architectures": list,
    "id2label": dict, "pretrained_cfg": dict, "model_args": dict, "num_classes": int, "mean": list,
    "std": list, "num_labels": int, "label_names": list, "label_descriptions": dict,
}  # fmt: skip
LARGEST_FILE = 2**24  # bytes
LARGEST = 2**18  # number, such as that of tokens; or sum of a list, such as the layers of stages
LEAST = 1000  # that an entry of a list counts, so that lists stay short
UNUSABLE = "asks for what is not loaded", "give its weights, and the network itself as `arch`"


class HuggingFace:
    """A folder written by ``save_pretrained`` of a network and of its image processor."""

    name = "huggingface"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        return file.path.is_dir() and options.arch is None is options.num_classes

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """The network with its weights, class names, normalisation and size."""
        return _load(file.path, str(file.path), file.trust_pickle)


def load_from_huggingface(name: str) -> LoadedNetwork:
    """A network of the hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, which is downloaded or found
    in the cache."""
    hub = import_optional("transformers") and import_optional("huggingface_hub")
    repo, _, revision = name.partition("@")
    try:
        folder = hub.snapshot_download(repo, revision=revision or None, allow_patterns=DOWNLOADED)
    except (OSError, ValueError) as error:  # the hub's errors are of these kinds
        raise ValueError(
            f"huggingface:{name} was not opened ({type(error).__name__}: "
            f"{files.reason_of(error):.200}): check the name and the connection, log in by `hf "
            "auth login` if it is gated, or give a folder that save_pretrained wrote"
        ) from error
    return _load(Path(folder), f"huggingface:{name}")


def _load(folder: Path, source: str, trust_pickle: bool = False) -> LoadedNetwork:
    """A network of transformers or timm from a folder."""
    paths = {name: folder / name for name in (*DOWNLOADED, FORMER) if _is_file(folder, name)}
    path = paths.get(WEIGHTS, paths.get(FORMER))
    if CONFIG not in paths or path is None or ADAPTER in paths:
        wrong = "an adapter" if ADAPTER in paths else f"no {WEIGHTS if CONFIG in paths else CONFIG}"
        raise FileNotFoundError(
            f"{source} has {wrong}: give a checkpoint file, or a folder that save_pretrained of an "
            "image classifier wrote, all weights in one file, and adapters merged into them"
        )
    config, file = _read_settings(paths[CONFIG]), CheckpointFile(path, trust_pickle)
    processor = _read_settings(paths[PROCESSOR]) if PROCESSOR in paths else {}
    if "architecture" in config:
        loaded = load_timm_folder(config, find_weights(file.content, source))
    else:
        arch = str(next(iter(config.get("architectures") or ()), "network of no known kind"))
        if arch not in [f"{name}ForImageClassification" for name in NAMES]:
            raise ValueError(
                f"{source} is a {files.printable(arch):.80}, expected an image classifier: give "
                f"NAMEForImageClassification, where NAME is one of {', '.join(NAMES)}"
            )
        loaded = _load_network(arch, config, find_weights(file.content, source))
        _add_processor(loaded, processor, source)
    used = [name for name in (CONFIG, PROCESSOR, path.name) if name in paths]
    hashes = {name: files.hash_of_file(paths[name]) for name in used}
    loaded.details |= {"opened": file.opened_by, "sha256": hashes}
    return loaded


def _is_file(folder: Path, name: str) -> bool:
    """Whether a folder has this file, or a link to it in the hub's cache, the folder next to it."""
    home, real = (Path(os.path.realpath(path)) for path in (folder, folder / name))
    if real.is_file() and real.parent not in (home, home.parent.parent / "blobs"):
        raise ValueError(f"{folder / name} is a link to {real}: put the file itself there")
    return real.is_file()


def _read_settings(path: Path) -> dict[str, Any]:
    """The settings in a file; an error if they ask for code, or for what takes much memory."""
    with files.reading(path, *UNUSABLE):
        settings = files.parse_json(files.read_text(path, LARGEST_FILE))
        if not isinstance(settings, dict):
            raise ValueError(f"it holds a {type(settings).__name__}")
        waiting = [*settings.items()]
        for key, value in waiting:  # which grows by what is nested
            listed = value if isinstance(value, list) else [value]
            sizes = [max(abs(each), LEAST) for each in listed if isinstance(each, int | float)]
            if sum(sizes) > LARGEST or not isinstance(value, KINDS.get(key, object) | None):
                raise ValueError(f"{key:.80} is {value!r:.80}")
            if isinstance(value, dict):
                waiting += value.items()
            elif isinstance(value, list):
                waiting += [(key, each) for each in value if isinstance(each, dict | list)]
    return settings


def _load_network(arch: str, config: Mapping[str, Any], weights: Weights) -> LoadedNetwork:
    """A network of transformers with all of its weights, in float32."""
    transformers, log = import_optional("transformers"), logging.getLogger("transformers")
    network_class = getattr(transformers, arch)
    kind = network_class.config_class
    common = inspect.signature(transformers.PreTrainedConfig).parameters  # none of these is used
    own = {*inspect.signature(kind).parameters} - {*common}
    count = config.get("num_labels") or len(config.get("id2label") or ()) or 2  # as there
    with files.reading(weights.path, *UNUSABLE), ExitStack() as quietly:
        quietly.enter_context(redirect_stderr(io.StringIO()))  # bars
        quietly.callback(log.setLevel, log.level)  # reports with names that the file chose
        log.setLevel(logging.ERROR)
        settings = kind(num_labels=count, **{key: config[key] for key in own & {*config}})
        settings._attn_implementation = "eager"
        check_size(partial(network_class, settings), weights.state)
        network, info = network_class.from_pretrained(
            None, config=settings, state_dict=weights.state, dtype=torch.float32,
            ignore_mismatched_sizes=True, output_loading_info=True, local_files_only=True,
        )  # fmt: skip
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if wrong := sorted(str(key) for kind in kinds for key in info[kind]):
        raise ValueError(
            f"{weights.path} does not have the weights of the {arch} that its {CONFIG} describes "
            f"(missing, not needed, or of another shape: {files.printable(join_names(wrong, 3))}): "
            "give what save_pretrained of a trained classifier wrote"
        )
    names = names_by_number(config.get("id2label"), count)
    if names and names[0].casefold() == "background":
        warn(f"class 0 of {weights.path} is {names[0]!r}: the others begin at 1", Notice)
    return LoadedNetwork(network, class_names=names, details={"arch": arch, "num_classes": count})


def _add_processor(loaded: LoadedNetwork, processor: Mapping[str, Any], source: str) -> None:
    """Sets the size of an image processor, and its mean and std for pixels in [0, 1]. If it is
    missing, or does more than scale and normalise, the caller must give them."""
    given = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, **processor}
    named = str(given.get("image_processor_type") or given.get("feature_extractor_type"))
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", named)
    try:
        if kind not in NAMES or given.get("rescale_offset"):
            raise ValueError(f"a {named:.80}, rescale_offset {given.get('rescale_offset')!r:.80}")
        factor = 255 * (given["rescale_factor"] if given["do_rescale"] else 1)
        mean = given["image_mean"] if given["do_normalize"] else [0.0]
        by_top = given.get("include_top", kind == "EfficientNet")  # which also divides
        times = bool(given["do_normalize"]) + bool(by_top)
        std = [each**times for each in given["image_std"]] if times else [1.0]
        loaded.mean, loaded.std = ([each / factor for each in of] for of in (mean, std))
        loaded.normalised_by = PROCESSOR
    except Exception as error:  # of any kind, from settings of any kind
        what = f"an unusual {PROCESSOR} ({files.reason_of(error):.200})"
        loaded.needs_normalisation = (
            f"{source} has {what if processor else f'no {PROCESSOR}'}, so it is not known how its "
            "pixels were normalised: pass `mean` and `std`, or save its image processor there"
        )
    channels = getattr(loaded.network.config, "num_channels", 3)
    match (given.get("do_center_crop") and given.get("crop_size")) or given.get("size"):
        case {"height": height, "width": width}:
            loaded.input_size = [channels, height, width]
        case {"shortest_edge": side} | int(side):
            loaded.input_size = [channels, side, side]

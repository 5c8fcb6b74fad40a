"""Image classifiers of Hugging Face's transformers: folders of ``save_pretrained``, and by name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from captum_classpattern._support.files import check_kinds, parse_json, read_text, reading
from captum_classpattern._support.validation import Notice, import_optional, join_names
from captum_classpattern.adapters.formats.timm import load_timm_folder
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.safe_load import REFUSAL
from captum_classpattern.classifier import warn
from captum_classpattern.classifier.class_names import names_in_config

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = "model.safetensors"  # those of timm
FILES = (CONFIG, PROCESSOR, "*.safetensors", "*.safetensors.index.json")  # of a hub, nothing else
BROKEN, AGAIN = "was not written by save_pretrained", "save or download it again"
SIDES = ("crop_size", "size")  # of a processor, which may resize and then crop
SHOWN = 5  # names of weights in a message
SPARE = 1.5  # how many more weights a network may have than its files
LARGEST = 2**20  # of the numbers in a configuration


class HuggingFace:
    """A folder that ``save_pretrained`` of a network and of its image processor wrote."""

    name = "huggingface"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        return (file.path / CONFIG).is_file()

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """The network with its weights, class names, normalisation and size. Code in the folder is
        never run, and pickled weights are only read if the file is trusted."""
        folder = file.path
        if options.arch is not None or options.num_classes is not None:
            raise ValueError(
                f"{folder} says what its network is: leave out `arch` and `num_classes`"
            )
        for entry in folder.iterdir():
            if not entry.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{entry} is a link out of its folder: copy what it points to")
        pickled = not any(folder.glob("*.safetensors"))
        if pickled and not file.trust_pickle:
            raise ValueError(REFUSAL.format(path=folder, kind="a folder of pickled weights"))
        file.opened_by = "pickle" if pickled else "safetensors"
        return _load(folder, str(folder), options, pickled=pickled)


def load_from_huggingface(name: str) -> LoadedNetwork:
    """A network of the hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, which is downloaded or found
    in the cache."""
    import_optional("transformers")
    hub = import_optional("huggingface_hub")
    repository, _, revision = name.partition("@")
    try:
        folder = hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(FILES)
        )
    except (OSError, ValueError) as error:  # the hub's errors are of these kinds
        kinds = {"GatedRepoError": "asks for a login", "LocalEntryNotFoundError": "is not here"}
        why = kinds.get(type(error).__name__, "was not found")
        raise ValueError(
            f"huggingface:{name} {why} ({str(error).strip().splitlines()[0]:.200}): check the name "
            "and the connection, log in by `hf auth login`, or give a folder that save_pretrained "
            "wrote"
        ) from error
    if not any(Path(folder).glob("*.safetensors")):
        raise ValueError(
            f"huggingface:{name} has no weights in safetensors, and pickled ones of a hub are not "
            "read: convert them, or choose another revision"
        )
    return _load(Path(folder), f"huggingface:{name}", LoadOptions())


def _load(
    folder: Path, source: str, options: LoadOptions, *, pickled: bool = False
) -> LoadedNetwork:
    """A network of transformers or timm from a folder that can be trusted as far as its kind of
    weights."""
    config = _read_json(folder / CONFIG)
    if isinstance(config.get("architecture"), str):  # timm's
        return load_timm_folder(CheckpointFile(folder / WEIGHTS), config)
    transformers = import_optional("transformers")
    with reading(folder / CONFIG, BROKEN, AGAIN):
        check_kinds(config, model_type=str, architectures=list, id2label=dict)
    arch = _check_classifier(config, source, transformers)
    processor = _read_json(folder / PROCESSOR)
    if not (processor or options.is_normalised):
        raise ValueError(
            f"{source} has no {PROCESSOR}, so it is not known how its pixels were normalised: pass "
            "`mean` and `std`, or save its image processor in the folder"
        )
    network = _network(folder, source, transformers, pickled)
    settings: Any = network.config
    details = {"arch": arch, "num_classes": int(settings.num_labels)}
    loaded = LoadedNetwork(network, details=details)
    loaded.class_names = names_in_config(settings)
    if loaded.class_names and loaded.class_names[0].casefold() == "background":
        warn(
            f"class 0 of {source} is {loaded.class_names[0]!r}, so classes by number begin at 1; "
            "names are matched as usual",
            Notice,
        )
    with reading(folder / PROCESSOR, BROKEN, AGAIN):
        if processor:
            loaded.mean, loaded.std = _normalisation(processor)
            loaded.normalised_by = PROCESSOR
        loaded.input_size = _input_size(processor, getattr(settings, "num_channels", 3))
    return loaded


def _read_json(path: Path) -> dict[str, Any]:
    """What a file of settings holds; nothing if there is none."""
    if not path.is_file():
        return {}
    with reading(path, BROKEN, AGAIN):
        values = parse_json(read_text(path))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}")
        if any(abs(number) > LARGEST for number in _numbers(values)):
            raise ValueError(f"it has a number above {LARGEST:,}")
    return values


def _numbers(value: Any) -> Iterator[int]:
    """The whole numbers in nested values."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)


def _check_classifier(config: Mapping[str, Any], source: str, transformers: Any) -> str:
    """The name of the network; an error unless transformers itself has it, as an image
    classifier."""
    known = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    kind, named = config.get("model_type"), [str(x) for x in config.get("architectures") or ()]
    arch = named[0] if named else str(kind)
    if kind not in known:
        code = "auto_map" in config
        own = "needs code of its author, which is not run" if code else "is no image classifier"
        raise ValueError(
            f"{source} is a {arch}, which {own}: "
            + ("build its network yourself, and give it as `arch` with a file of its weights; or "
               "give another network" if code else "give one that ends in ForImageClassification")
        )  # fmt: skip
    classes = known[kind]
    classes = [classes] if isinstance(classes, str) else [*classes]
    if named and not set(named) & set(classes):
        raise ValueError(
            f"{source} is a {arch}, not an image classifier: give a network such as {classes[0]}"
        )
    return arch


def _network(folder: Path, source: str, transformers: Any, pickled: bool) -> nn.Module:
    """The network with all of its weights, in float32."""
    auto = transformers.AutoModelForImageClassification
    with _quiet(transformers), reading(source, "transformers can't build its network", AGAIN):
        if not pickled:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            _check_size(config, folder, auto)
        network, info = auto.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=not pickled,
            ignore_mismatched_sizes=True,  # they are listed
            output_loading_info=True,
        )
    of_other_sizes = [
        each if isinstance(each, str) else each[0] for each in info["mismatched_keys"]
    ]
    if lacking := sorted({*info["missing_keys"], *of_other_sizes}):
        raise ValueError(
            f"{source} lacks weights of its network, or has them in other sizes "
            f"({join_names(lacking, SHOWN)}), so these would be random: give a network that "
            "was trained to classify"
        )
    found: nn.Module = network.float()
    return found


def _check_size(config: Any, folder: Path, auto: Any) -> None:
    """Raises an error if the network is far larger than its files, before it takes memory."""
    stored = 0
    tensors = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as held:
            for name in held.keys():  # noqa: SIM118
                shape = held.get_slice(name).get_shape()
                stored, tensors = stored + int(torch.Size(shape).numel()), tensors + 1
    depths = [config.to_dict().get(name) for name in ("num_hidden_layers", "depths", "num_layers")]
    if any(number > tensors for number in _numbers(depths)):
        raise ValueError(f"it has more layers than the {tensors} tensors in its files")
    with torch.device("meta"):
        own = sum(weight.numel() for weight in auto.from_config(config).parameters())
    if own > SPARE * stored + LARGEST:
        raise ValueError(f"it has {own:,} weights, and its files have {stored:,}")


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the bars and reports of transformers, which go to stderr."""
    log = transformers.utils.logging
    before, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if bars:
            log.enable_progress_bar()


def _normalisation(processor: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and std of pixels in [0, 1], with what a processor does to bytes before."""
    mean, std = ([0.0], [1.0])
    if processor.get("do_normalize", True):
        mean, std = (_per_channel(processor[name]) for name in ("image_mean", "image_std"))
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1
    scale, shift = 255 * float(scale), 1.0 * bool(processor.get("rescale_offset", False))
    if not scale > 0:
        raise ValueError(f"rescale_factor is {processor.get('rescale_factor')!r:.80}")
    mean, std = [(each + shift) / scale for each in mean], [each / scale for each in std]
    if processor.get("include_top"):  # EfficientNet's divides once more
        again = _per_channel(processor["image_std"])
        std = [each * more for each, more in zip(std * (len(again) // len(std)), again)]
    return mean, std


def _per_channel(value: Any) -> list[float]:
    return [float(each) for each in (value if isinstance(value, Sequence) else [value])]


def _input_size(processor: Mapping[str, Any], channels: Any) -> list[Any] | None:
    """(C, H, W) of the images after a processor's resizing and cropping, if it says so."""
    names = SIDES if processor.get("do_center_crop") else SIDES[1:]
    for size in map(processor.get, names):
        match size:
            case {"height": height, "width": width}:
                return [channels, height, width]
            case {"shortest_edge": side} | int(side):
                return [channels, side, side]
    return None

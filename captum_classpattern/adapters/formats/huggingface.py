"""Image classifiers of Hugging Face's transformers: folders of ``save_pretrained``, and by name.

Such a folder may come from a stranger. What is in it is read here: transformers gets settings that
were checked and tensors, but never the folder, so it finds no code, adapters or kernels there."""

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from captum_classpattern._support.files import (
    check_kinds,
    hash_of_file,
    printable,
    reading,
    reason_of,
)
from captum_classpattern._support.validation import Notice, import_optional, join_names
from captum_classpattern.adapters.config_check import (
    AGAIN,
    BROKEN,
    OWN_WAY,
    check_config,
    read_json,
)
from captum_classpattern.adapters.formats.image_processor import (
    FlippedChannels,
    find_input_size,
    find_normalisation,
)
from captum_classpattern.adapters.formats.timm import load_timm_folder
from captum_classpattern.adapters.interface import CheckpointFile, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.safe_load import shown_names
from captum_classpattern.adapters.size_check import check_size
from captum_classpattern.adapters.weights import Weights, find_weights
from captum_classpattern.classifier import warn
from captum_classpattern.classifier.class_names import names_by_number

CONFIG, PROCESSOR, INDEX = "config.json", "preprocessor_config.json", "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")  # the first of these is read
DOWNLOADED = (CONFIG, PROCESSOR, "model*.safetensors*")  # of a hub, nothing else
OTHERS = {  # image classifiers of transformers that can't be used, and why
    "imagegpt": "takes numbers of colours", "perceiver": "takes inputs of any kind",
    "shieldgemma2": "takes texts", "siglip2": "takes patches",
    "levit": "takes long to build if its configuration is wrong",
}  # fmt: skip


class HuggingFace:
    """A folder that ``save_pretrained`` of a network and of its image processor wrote."""

    name = "huggingface"

    def matches(self, file: CheckpointFile, options: LoadOptions) -> bool:
        return file.path.is_dir()

    def load(self, file: CheckpointFile, options: LoadOptions) -> LoadedNetwork:
        """The network with its weights, class names, normalisation and size."""
        if options.arch is not None or options.num_classes is not None:
            raise ValueError(
                f"{file.path} says what its network is: leave out `arch` and `num_classes`"
            )
        return _load(file.path, str(file.path), options, file.trust_pickle)


def load_from_huggingface(name: str, options: LoadOptions) -> LoadedNetwork:
    """A network of the hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, which is downloaded or found
    in the cache."""
    import_optional("transformers")
    hub = import_optional("huggingface_hub")
    repository, _, revision = name.partition("@")
    try:
        folder = hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(DOWNLOADED)
        )
    except (OSError, ValueError) as error:  # the hub's errors are of these kinds
        kinds = {"GatedRepoError": "asks for a login", "LocalEntryNotFoundError": "is not here"}
        why = kinds.get(type(error).__name__, "was not found")
        raise ValueError(
            f"huggingface:{name} {why} ({reason_of(error):.200}): check the name and the "
            "connection, log in by `hf auth login`, or give a folder that save_pretrained wrote"
        ) from error
    return _load(Path(folder), f"huggingface:{name}", options)


def _load(
    folder: Path, source: str, options: LoadOptions, trust_pickle: bool = False
) -> LoadedNetwork:
    """A network of transformers or timm from a folder."""
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{source} has no {CONFIG}: give a checkpoint file, or a folder that save_pretrained "
            "of an image classifier wrote"
        )
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{source} has an adapter, which is not loaded: merge it into its network "
            "(merge_and_unload), and save that"
        )
    config, processor = (read_json(folder / name) for name in (CONFIG, PROCESSOR))
    check_config(config, source)
    if "architecture" in config or config.get("model_type") == "timm_wrapper":
        weights, files = _open_weights(folder, source, trust_pickle)
        loaded = load_timm_folder(weights, config)
    else:
        arch = _find_class(config, source)
        weights, files = _open_weights(folder, source, trust_pickle)
        loaded = _load_network(arch, config, weights)
        _add_processor(loaded, processor, config, source, options)
    used = [folder / CONFIG, folder / PROCESSOR, *(file.path for file in files)]
    hashes = {path.name: hash_of_file(path) for path in used if path.is_file()}
    loaded.details |= {"opened": files[0].opened_by, "sha256": hashes}
    return loaded


def _open_weights(
    folder: Path, source: str, trust_pickle: bool
) -> tuple[Weights, list[CheckpointFile]]:
    """The weights of a folder, and the files that hold them."""
    names = [name for name in WEIGHTS if (folder / name).is_file()][:1]
    if not names:
        raise ValueError(f"{source} has no weights: save them as {WEIGHTS[0]}, by save_pretrained")
    if names == [INDEX]:
        index = read_json(folder / INDEX)
        with reading(folder / INDEX, BROKEN, AGAIN):
            names = sorted({*index["weight_map"].values()})
            if not names or not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
                raise ValueError(f"it names the files {shown_names(names)}")
    files = [CheckpointFile(folder / name, trust_pickle) for name in names]
    entries = {key: each for file in files for key, each in file.entries.items()}
    return find_weights(entries, source), files


def _find_class(config: Mapping[str, Any], source: str) -> str:
    """The name of the network's class; an error unless transformers itself has it, as an image
    classifier."""
    known = import_optional(
        "transformers"
    ).models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    with reading(source, BROKEN, AGAIN):
        check_kinds(config, model_type=str, architectures=list, id2label=dict, num_labels=int)
    kind, named = (
        config.get("model_type"),
        [str(each) for each in config.get("architectures") or ()],
    )
    shown = printable(named[0] if named else kind or "network of no known kind")[:80]
    if kind not in known:
        raise ValueError(
            f"{source} is a {shown}, which is no image classifier: give one that ends in "
            "ForImageClassification"
        )
    if kind in OTHERS:
        raise ValueError(f"{source} is a {shown}, which {OTHERS[kind]}: {OWN_WAY}")
    classes = [known[kind]] if isinstance(known[kind], str) else [*known[kind]]
    found: str | None = next((name for name in classes if name in named or not named), None)
    if found is None:
        raise ValueError(
            f"{source} is a {shown}, not an image classifier: give a network such as {classes[0]}"
        )
    return found


def _load_network(arch: str, config: Mapping[str, Any], weights: Weights) -> LoadedNetwork:
    """A network of transformers with all of its weights, in float32."""
    transformers = import_optional("transformers")
    labels = config.get("id2label")
    count = config.get("num_labels") or len(labels or ()) or 2  # as in transformers
    state = {
        key: each.float() if each.is_floating_point() else each
        for key, each in weights.state.items()
    }
    with _quiet(transformers), reading(weights.path, "transformers can't build it", AGAIN):
        if count > max(max(each.shape, default=1) for each in state.values()):
            raise ValueError(f"it has {count:,} classes, more than weights")
        settings = _settings(config, transformers, num_labels=count)
        network_class = getattr(transformers, arch)
        check_size(lambda: network_class(settings), state)
        network, info = network_class.from_pretrained(
            None,
            config=settings,
            state_dict=state,
            dtype=torch.float32,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are listed
            output_loading_info=True,
        )
    kinds = {"missing": "missing", "unexpected": "unexpected", "mismatched": "of another shape"}
    wrong = {shown: sorted(map(_key, info[f"{kind}_keys"])) for kind, shown in kinds.items()}
    if any(wrong.values()):
        listed = "; ".join(f"{kind}: {join_names(keys, 5)}" for kind, keys in wrong.items() if keys)
        raise ValueError(
            f"{weights.path} does not have the weights of the {arch} that its {CONFIG} describes "
            f"({printable(listed)}): give what save_pretrained of a trained classifier wrote"
        )
    names = names_by_number(labels, count)
    if names and names[0].casefold() == "background":
        warn(
            f"class 0 of {weights.path} is {names[0]!r}, so classes by number begin at 1; names "
            "are matched as usual",
            Notice,
        )
    return LoadedNetwork(network, class_names=names, details={"arch": arch, "num_classes": count})


def _settings(config: Mapping[str, Any], transformers: Any, **settings: Any) -> Any:
    """The configuration of a network in transformers, with the settings of its own kind alone."""
    kind = transformers.CONFIG_MAPPING[config["model_type"]]
    common = inspect.signature(transformers.PreTrainedConfig).parameters
    own = {*inspect.signature(kind).parameters} - {*common}
    built = kind(**{key: value for key, value in config.items() if key in own}, **settings)
    built._attn_implementation = "eager"
    return built


def _key(entry: Any) -> str:
    """The key of a weight, in what transformers reports."""
    return str(entry if isinstance(entry, str) else entry[0])


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


def _add_processor(
    loaded: LoadedNetwork,
    processor: Mapping[str, Any],
    config: Mapping[str, Any],
    source: str,
    options: LoadOptions,
) -> None:
    """Sets the normalisation and size of an image processor. If it is missing or not understood,
    the caller has to give mean and std."""
    channels = config.get("num_channels", 3)
    loaded.input_size = find_input_size(processor, channels)
    try:
        with _quiet(import_optional("transformers")):
            mean, std, is_flipped = find_normalisation(processor, channels)
    except Exception as error:  # of any kind, from settings of any kind
        if options.has_normalisation:
            return
        why = (
            f"an unusual {PROCESSOR} ({reason_of(error):.200})" if processor else f"no {PROCESSOR}"
        )
        raise ValueError(
            f"{source} has {why}, so it is not known how its pixels were normalised: pass `mean` "
            "and `std`, or save its image processor in the folder"
        ) from error
    loaded.mean, loaded.std, loaded.normalised_by = mean, std, PROCESSOR
    if is_flipped:
        loaded.network = FlippedChannels(loaded.network)

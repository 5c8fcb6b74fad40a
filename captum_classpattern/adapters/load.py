"""From a file or a name to a classifier over [0, 1] pixels; and names for models that have none."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn

from captum_classpattern._support.files import hash_of_file
from captum_classpattern._support.validation import ArgumentTypeError
from captum_classpattern.adapters.architectures import torchvision_names
from captum_classpattern.adapters.formats import FORMATS, PRETRAINED
from captum_classpattern.adapters.interface import Format, LoadedNetwork, LoadOptions
from captum_classpattern.adapters.safe_load import CheckpointFile
from captum_classpattern.classifier import PixelClassifier, warn
from captum_classpattern.classifier.class_names import check_names, file_safe, placeholders

SIDES = {*range(1, 4097)}  # pixels
MAX_NAME = 80  # characters of a model's name in a folder's name


def load_model(
    source: str | os.PathLike[str],
    *,
    arch: str | Callable[..., nn.Module] | None = None,
    num_classes: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    format: str | Format | None = None,
    output: int | str | None = None,
    trust_pickle: bool = False,
    class_names: Sequence[str] | None = None,
) -> PixelClassifier:
    r"""
    Loads a model as a classifier over [0, 1] pixels.

    Nothing in the file is run, unless ``trust_pickle`` is True: it is read by safetensors, or by
    torch's weights-only reader. A file that needs more is refused; the error names what it imports.

    Args:
        source (str or PathLike): A checkpoint file, whose format is found from its content: a
            state dict, a training checkpoint around one, BackdoorBench's ``attack_result.pt``, or
            one of TrojanZoo, RobustBench, robustness or timm. Or a folder of transformers. Or
            ``"FAMILY:NAME"`` for a pretrained model of torchvision, timm, huggingface or
            robustbench.
        arch (str, Callable or nn.Module, optional): The network, if the file does not name it: the
            class or function that makes it, or the network itself, which is copied; or
            ``"package.module:name"`` of such a class or function; or a name of torchvision or timm
            (``"timm:NAME"`` is unambiguous), ``"preactresnet18"``, ``"cifar_resnet18"`` or
            ``"cifar_resnet50"``. Default: None.
        num_classes (int, optional): How many classes. Default: None (as many as the weights have).
        mean (float or Sequence[float], optional): Mean of the pixels that the model was trained
            with, in units where pixels lie in [0, 1]. Default: None (from the source).
        std (float or Sequence[float], optional): Standard deviation, likewise; both or neither.
        format (str or Format, optional): ``"plain"``, ``"huggingface"``, ``"backdoorbench"``,
            ``"trojanzoo"``, ``"robustbench"``, ``"robustness"``, ``"timm"``, or any object that is
            a :class:`Format`. Default: None (found from the file).
        output (int or str, optional): Where the logits are if the model returns a tuple or a
            dict: ``-1``, ``0``, ``"logits"``. Default: None.
        trust_pickle (bool): Also opens files that run their author's code. Default: False.
        class_names (Sequence[str], optional): The names of the classes, in the order of the
            model's outputs. Default: None (from the source; else "class 0", "class 1", ... if
            it says how many there are).

    Returns:
        *PixelClassifier*: In eval mode, on the CPU, with ``.class_names``, ``.input_size`` and
        ``.trigger`` (the true trigger as a :class:`Pattern`) if the source has them, and
        ``.provenance``: the format, the file's hash, where the normalisation is from, and which
        keys were renamed, ignored or missing.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a needed package is not installed; the error names the extra.
        ValueError: If the file is not a checkpoint, needs pickle, does not name its network, or
            does not fit into it; the error lists all keys that do not fit. Or if there are more or
            fewer ``class_names`` than classes.

    Examples::

        >>> path = getfixture("tmp_path") / "checkpoint.pth"
        >>> network = torchvision.models.resnet18(num_classes=7)
        >>> torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
        >>> classifier = load_model(
        ...     path, arch="resnet18", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> classifier(torch.rand(2, 3, 64, 64)).shape, classifier.provenance["weights"]
        (torch.Size([2, 7]), 'state_dict')
    """
    if is_pretrained(str(source)):
        if (arch, num_classes, format) != (None, None, None):
            raise ValueError(
                f"{source} comes with its network and classes: leave out `arch`, `num_classes` and "
                "`format`, which are for checkpoint files"
            )
        family, _, name = str(source).partition(":")
        loaded, provenance = PRETRAINED[family](name), {"format": family, "source": str(source)}
    else:
        file = CheckpointFile(Path(source), trust_pickle)
        loaded, provenance = _load_file(file, arch, num_classes, format)
    _choose_normalisation(loaded, mean, std, str(source))
    for part in loaded.network.modules():  # not eval(), which exported programs do not have
        part.training = False
    count, names = loaded.details.get("num_classes"), loaded.class_names
    if class_names is not None:
        names = check_names(class_names, count)
    elif count and len(names or ()) != count:  # none, or those of another data set
        names = placeholders(count)
    normalisation = {"mean": loaded.mean, "std": loaded.std, "from": loaded.normalised_by}
    return PixelClassifier(
        loaded.network, loaded.mean, loaded.std, output, names or None,
        input_size=_possible_size(loaded.input_size), trigger=loaded.trigger,
        class_ids=loaded.class_ids,
        provenance={**provenance, **loaded.details, "normalisation": normalisation},
    )  # fmt: skip


def _load_file(
    file: CheckpointFile, arch: Any, num_classes: int | None, format: Any
) -> tuple[LoadedNetwork, dict[str, Any]]:
    """The network of a checkpoint file by its format, and where it comes from."""
    by_name, path = {one.name: one for one in FORMATS}, file.path
    if isinstance(format, str) and format not in by_name:
        raise ValueError(f"`format` must be one of {', '.join(by_name)}, got {format!r}")
    chosen = by_name[format] if isinstance(format, str) else format
    if chosen is not None and (isinstance(chosen, type) or not isinstance(chosen, Format)):
        raise ArgumentTypeError(
            "`format` must be the name of a format, or an object with a name and the methods "
            f"matches(file, options) and load(file, options), got {format!r:.80}"
        )
    if not path.exists() and str(path) in torchvision_names():
        raise FileNotFoundError(
            f"there is no checkpoint file at {path}: for torchvision's pretrained network, "
            f"give torchvision:{path}"
        )
    if not (arch is None or isinstance(arch, str) or callable(arch)):
        raise ArgumentTypeError(
            "`arch` must be a name, a class or function that makes the network, or the network "
            f"itself, got {arch!r:.80}"
        )
    if chosen is None:
        options = LoadOptions(arch, num_classes)
        chosen = next(one for one in FORMATS if one.matches(file, options))
    else:
        options = LoadOptions(arch, num_classes, chosen.name)
        file.check_layout(chosen.matches(file, options), chosen.name)
    loaded = chosen.load(file, options)
    digest = {"sha256": hash_of_file(path)} if path.is_file() else {}  # not of a folder
    provenance = {"format": chosen.name, "source": str(path), "opened": file.opened_by}
    return loaded, {**provenance, **digest}


def _choose_normalisation(loaded: LoadedNetwork, mean: Any, std: Any, source: str) -> None:
    """Takes the caller's mean and std, else the source's; warns if there are none."""
    if mean is not None or std is not None:
        if mean is None or std is None:
            given, missing = ("mean", "std") if std is None else ("std", "mean")
            raise ValueError(f"there is a `{given}` but no `{missing}`: pass both, or neither")
        loaded.mean, loaded.std, loaded.normalised_by = mean, std, "the caller"
    elif loaded.needs_normalisation:
        raise ValueError(loaded.needs_normalisation)
    elif loaded.mean is None:
        loaded.normalised_by = "nothing: pixels are used unchanged"
        warn(
            f"{source} does not say how its pixels were normalised, so they are used unchanged, in "
            "[0, 1]: pass the `mean` and `std` that the model was trained with (`mean=0` and "
            "`std=1` if it was trained with unchanged pixels)"
        )


def _possible_size(value: Any) -> tuple[int, int, int] | None:
    """The size (C, H, W) that a file gives, if images can have it; else None."""
    match value:
        case [1 | 3 as channels, int(height), int(width)]:
            return (channels, height, width) if {height, width} <= SIDES else None
    return None


def is_pretrained(source: str) -> bool:
    """Whether a source names a pretrained model, such as timm:resnet18, and no file."""
    return source.partition(":")[0] in PRETRAINED and not os.path.exists(source)


def model_name(source: str) -> str:
    """The name of a model that its user did not name: for a file, its name without folders and
    ending; for a pretrained model, what follows the package. Folders stay private."""
    last = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    if is_pretrained(source):  # local-dir: and hf-hub: of timm precede a path
        return last if source.count(":") > 1 else source.partition(":")[2]
    return PurePosixPath(last).stem


def split_name(given: str) -> tuple[str, str]:
    """A model's name and its source, as in ``name=source``, unless a file is called that."""
    name, equals, source = given.partition("=")
    if not name or not equals or is_pretrained(given) or os.path.exists(given):
        return model_name(given), given
    return name, source


def check_folders(names: Sequence[str]) -> None:
    """Raises an error if results of two models would be written to the same folder."""
    folders: dict[str, str] = {}
    for name in names:
        folder = file_safe(name).casefold()  # as file systems may compare them
        if folder in folders:
            raise ValueError(
                f"the models {folders[folder]!r} and {name!r} would be written to the same folder: "
                "give one another name, as in name=checkpoint, or by the column name of a manifest"
            )
        folders[folder] = name


def folder_name(source: str) -> str:
    """A name for the folder of a model's results: its own, and a hash of where it is."""
    place = source if is_pretrained(source) else os.path.abspath(source)
    digest = hashlib.blake2b(os.fsencode(place), digest_size=3).hexdigest()
    return f"{file_safe(model_name(source)).strip('._')[:MAX_NAME]}-{digest}"

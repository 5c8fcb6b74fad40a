"""From a file or a name to a classifier over [0, 1] pixels."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_classpattern.adapters.formats import (
    backdoorbench,
    plain,
    robustbench,
    robustness,
    timm,
    torchvision,
    trojanzoo,
)
from captum_classpattern.adapters.found import Found
from captum_classpattern.adapters.safe_load import open_checkpoint
from captum_classpattern.class_names import ClassNames, placeholders
from captum_classpattern.classifier import PixelClassifier, device_and_dtype, warn

FORMATS = ("backdoorbench", "trojanzoo", "robustbench", "robustness", "timm", "plain")
LAID_OUT = {  # those that can't be read otherwise
    "backdoorbench": backdoorbench.recognise,
    "trojanzoo": trojanzoo.recognise,
    "robustness": robustness.recognise,
}
SIDES = (32, 224, 28, 64, 96)  # pixels, of usual images
BY_NAME = {
    "timm": timm.by_name,
    "torchvision": torchvision.by_name,
    "robustbench": robustbench.by_name,
}


def load_model(
    source: str | os.PathLike[str],
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    format: str | None = None,
    output: int | str | None = None,
    trust_pickle: bool = False,
    class_names: Sequence[str] | None = None,
) -> PixelClassifier:
    r"""
    Loads somebody's model as a classifier over [0, 1] pixels.

    Nothing in the file is run: safetensors, else torch's reader for weights alone. A file that
    needs more is refused, with the names that it asks for.

    Args:
        source (str or PathLike): A checkpoint file, whose format is found from what it holds: a
            state dict or a training checkpoint around one, BackdoorBench's ``attack_result.pt``,
            TrojanZoo's, RobustBench's, robustness's, timm's. Or ``"torchvision:NAME"``,
            ``"timm:NAME"``, ``"robustbench:NAME"`` for a pretrained model of these packages.
        arch (str, optional): The network, if the file does not tell: a name of torchvision or timm
            (``"timm:NAME"`` to be sure), ``"preactresnet18"``, ``"cifar_resnet18"``,
            ``"cifar_resnet50"``, or ``"package.module:factory"``, which is imported and called.
            Default: None.
        num_classes (int, optional): Default: None (those of the last layer).
        mean (float or Sequence[float], optional): Mean of the pixels that the model was trained
            with, in units where pixels lie in [0, 1]. Default: None (the source's own).
        std (float or Sequence[float], optional): Standard deviation, likewise.
        format (str, optional): ``"plain"``, ``"backdoorbench"``, ``"trojanzoo"``,
            ``"robustbench"``, ``"robustness"`` or ``"timm"``. Default: None (found).
        output (int or str, optional): Where the logits are if the model returns a tuple or a
            dict: ``-1``, ``0``, ``"logits"``. Default: None.
        trust_pickle (bool): Opens files that run code of their maker, too. Default: False.
        class_names (Sequence[str], optional): The names of the classes, in the order of the
            model's outputs. Default: None (the source's own, else "class 0", "class 1", ...).

    Returns:
        *PixelClassifier*: In eval mode, on the CPU, with ``.class_names``, ``.input_size`` and
        ``.trigger`` (the true trigger as a :class:`Pattern`) where the source tells them, and
        ``.provenance``: the format, the file's hash, where the normalisation is from, which keys
        were renamed, ignored or missing.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a package is needed that is not installed; it names the extra.
        ValueError: If the file is no checkpoint, needs pickle, does not tell its network, or
            does not fit into it: all keys that do not are listed. Or if there are not as many
            ``class_names`` as classes.

    Examples::

        >>> path = getfixture("tmp_path") / "checkpoint.pth"
        >>> network = torchvision.models.resnet18(num_classes=7)
        >>> torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
        >>> classifier = load_model(
        ...     path, arch="resnet18", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> classifier(torch.rand(2, 3, 64, 64)).shape, classifier.provenance["weights"]
        (torch.Size([2, 7]), 'state_dict')
    """
    if format not in (None, *FORMATS):
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    family, _, name = str(source).partition(":")
    path = Path(source)
    if family in BY_NAME and not path.exists():
        if (arch, num_classes, format) != (None, None, None):
            raise ValueError(
                f"{source} has its own network and classes: leave out arch, num_classes and "
                "format, which are for checkpoint files"
            )
        found, provenance = BY_NAME[family](name), {"format": family, "source": str(source)}
    else:
        content, how = open_checkpoint(path, trust_pickle)
        format = format or _recognised(content, path, arch)
        found = _read(format, content, path, arch, num_classes)
        provenance = {"format": format, "source": str(path), "sha256": _sha256(path), "opened": how}
    if mean is not None or std is not None:
        _renormalise(found, mean, std)
    elif found.mean is None:
        found.normalised_by = "nothing: pixels go in as they are"
        warn(
            f"{source} does not tell how its pixels were normalised, so they go in as they are, "
            "in [0, 1]: pass the mean and std that the model was trained with (mean=0 and std=1 "
            "if it took them so)"
        )
    return _classifier(found, output, provenance, class_names)


def _renormalise(
    found: Found, mean: float | Sequence[float] | None, std: float | Sequence[float] | None
) -> None:
    """What the caller says goes before the source's own."""
    own = found.std if std is None else found.mean if mean is None else None
    kept = f", {'std' if std is None else 'mean'} by {found.normalised_by}" if own else ""
    found.normalised_by = f"the caller{kept}"
    found.mean = found.mean if mean is None else mean  # type: ignore[assignment]
    found.std = found.std if std is None else std  # type: ignore[assignment]


def _recognised(content: Any, path: Path, arch: str | None) -> str:
    """The format of what a file holds."""
    if backdoorbench.recognise(content):
        return "backdoorbench"
    if trojanzoo.recognise(content):
        return "trojanzoo"
    if robustness.recognise(content):
        return "robustness"
    if timm.recognise(content):
        return "timm"
    if robustbench.recognise(path) and arch is None:
        return "robustbench"
    return "plain"


def _read(
    format: str, content: Any, path: Path, arch: str | None, num_classes: int | None
) -> Found:
    where = str(path)
    if format in LAID_OUT and not LAID_OUT[format](content):
        raise ValueError(f"{where} is not laid out as {format} does: leave out format")
    match format:
        case "backdoorbench":
            return backdoorbench.read(content, where, arch, num_classes, path)
        case "trojanzoo":
            return trojanzoo.read(content, where, arch, num_classes, path)
        case "robustbench":
            return robustbench.read(content, where, arch, path)
        case "robustness":
            return robustness.read(content, where, arch, num_classes)
        case "timm":
            return timm.read(content, where, arch, num_classes)
    return plain.read(content, where, arch, num_classes)


def _classifier(
    found: Found,
    output: int | str | None,
    provenance: dict[str, Any],
    class_names: Sequence[str] | None,
) -> PixelClassifier:
    """The found network in eval mode, wrapped with all that is known of it."""
    for part in found.network.modules():  # not eval(): exported programs have none
        part.training = False
    count = found.details.get("num_classes") or _count_by_running(found, output)
    names = found.class_names
    if class_names is not None:
        names = ClassNames.parse(class_names, count or len(class_names)).names
    elif count and len(names or ()) != count:  # none, or those of another data set
        names = placeholders(count)
    normalisation = {"mean": found.mean, "std": found.std, "from": found.normalised_by}
    classifier = PixelClassifier(
        found.network,
        found.mean,
        found.std,
        output,
        names or None,
        input_size=found.input_size,
        trigger=found.trigger,
        class_ids=found.class_ids,
        provenance={**provenance, **found.details, "normalisation": normalisation},
    )
    return classifier


def _count_by_running(found: Found, output: int | str | None) -> int | None:
    """How many classes the network tells apart, by one image of a size that it takes."""
    classifier = PixelClassifier(found.network, found.mean, found.std, output)
    kernel = next((p for p in found.network.parameters() if p.ndim == 4), None)
    channels = 3 if kernel is None else int(kernel.shape[1])
    _, dtype = device_and_dtype(found.network, torch.zeros(1))
    sizes = [(channels, side, side) for side in SIDES]
    for size in sizes if found.input_size is None else [found.input_size]:
        try:
            with torch.no_grad():
                logits = classifier(torch.zeros(1, *size, dtype=dtype))
        except Exception:  # a network of other sizes, or with more arguments
            continue
        if isinstance(logits, Tensor) and logits.ndim == 2:
            return int(logits.shape[1])
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()

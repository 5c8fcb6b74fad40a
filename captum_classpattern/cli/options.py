"""Options that several commands share: what they are, how they are checked, what they open."""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:  # imported by the commands alone, so that --help answers at once
    import torch

    from captum_classpattern.adapters import PixelClassifier
    from captum_classpattern.datasets import LabelledImages

Data: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Images: a folder of class folders or of images, an .npz file, or torchvision:NAME. "
        "One half is searched with, the other held out."
    ),
]
HeldOut: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Held-out images, likewise. By default, one half of --data."),
]
ClassNames: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="File with the names of the model's classes, in the order of its outputs: a name a "
        "line, or a JSON list. By default, the names that come with the model. Class folders are "
        "matched to them by name.",
        dir_okay=False,
    ),
]
Arch: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="The network: a name of torchvision or timm, or package.module:factory. By default, "
        "the one that the checkpoint names."
    ),
]
NumClasses: TypeAlias = Annotated[
    int | None,
    typer.Option(min=2, help="Number of classes. By default, that of the last layer's weights."),
]
Mean: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Mean of the training images, with pixels from 0 to 1, such as 0.485,0.456,0.406. By "
        "default, the checkpoint's own, if it has one."
    ),
]
Std: TypeAlias = Annotated[
    str | None, typer.Option(help="Standard deviation of the training images, like --mean.")
]
Format: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Format of the checkpoint: backdoorbench, trojanzoo, robustbench, robustness, timm or "
        "plain. By default, found from what the file holds."
    ),
]
Output: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Where the logits are if the model returns several outputs: -1, 0, logits. By "
        "default, it returns the logits alone."
    ),
]
TrustPickle: TypeAlias = Annotated[
    bool,
    typer.Option("--trust-pickle", help="Also open files that run code of their maker."),
]
Size: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Side of the images in pixels, to which they are resized. By default, what the model "
        "was made for, else as they are.",
    ),
]
Limit: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Most images of a class, chosen at random. By default, all."),
]
Root: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Folder of torchvision's data sets. By default, data."),
]
Download: TypeAlias = Annotated[
    bool, typer.Option("--download", help="Download torchvision's data set if it isn't there.")
]
Classes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Which classes: names, numbers and ranges, such as dog,0,3-5. By default, all that "
        "there are images of."
    ),
]
Steps: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Rounds of each search. By default, 80.")
]
Precision: TypeAlias = Annotated[
    str,
    typer.Option(
        help="What searches compute in: full is the model as it is, bfloat16 is faster where the "
        "device supports it, auto chooses by the device."
    ),
]
InternalBatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most images in one pass of a search: fewer take less memory. By default, what suits "
        "the device.",
    ),
]
Seed: TypeAlias = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="Seed of all that is random.")
]
Device: TypeAlias = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")]
Selection: TypeAlias = list[str | range]


def parse_numbers(text: str | None, name: str) -> list[float] | None:
    """The numbers of an option such as --mean."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{name} takes numbers such as 0.5 or 0.485,0.456,0.406, got {text!r}"
        ) from None


def parse_device(text: str) -> "torch.device":
    """The device of --device, or an error if it can't be used here."""
    import torch

    try:
        return torch.empty(0, device=text).device
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {text} can't be used here: {reason}") from error


def parse_classes(text: str | None) -> Selection | None:
    """Names, and ranges of numbers, of a list such as dog,0,3-5; None for all."""
    if text is None:
        return None
    chosen: Selection = []
    for part in (part.strip() for part in text.split(",")):
        numbers = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        if numbers is None and re.fullmatch(r"[\d\s-]*", part):
            raise ValueError(
                f"--classes takes names, numbers and ranges, such as dog,0,3-5, got {text!r}"
            )
        if numbers is None:
            chosen.append(part)
            continue
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if last < first:
            raise ValueError(f"--classes has the range {part}, which is empty: give {last}-{first}")
        chosen.append(range(first, last + 1))
    return chosen


def read_class_names(path: Path | None) -> list[str] | None:
    """The names of the file of --class-names."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"--class-names: there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"--class-names: {path} is not a text file ({error})") from error
    if text.lstrip().startswith(("[", "{")):
        try:
            names = json.loads(text)
        except ValueError as error:
            raise ValueError(f"--class-names: {path} is not JSON ({error})") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"--class-names: {path} must hold a list of names, in JSON")
        return names
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        raise ValueError(
            f"--class-names: line {lines.index('') + 1} of {path} is empty: give a name a line"
        )
    return lines


def check_area(area: float) -> None:
    """Raises an error unless an area lies between 0 and 1."""
    if not 0 < area < 1:
        raise ValueError(
            f"--area is the share of the pixels, between 0 and 1 such as 0.05, got {area:g}"
        )


def check_precision(precision: str) -> None:
    """Raises an error unless a precision is known."""
    from captum_classpattern.optimization.settings import PRECISIONS

    if precision not in PRECISIONS:
        raise ValueError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")


def check_folder(out: Path, resume: bool) -> None:
    """Raises an error if the folder of --out holds the results of a search that is not resumed."""
    if (out / "results.json").exists() and not resume:
        raise ValueError(
            f"{out} holds results already: pass --resume to go on with them, or another --out"
        )


def check_source(source: str | None, name: str) -> None:
    """Raises an error if a source of images is not there."""
    if source is None or source.startswith("torchvision:") or Path(source).exists():
        return
    raise FileNotFoundError(
        f"{name}: {source} is not there; give a folder, an .npz file, or torchvision:NAME"
    )


def open_model(
    checkpoint: str,
    *,
    arch: str | None,
    num_classes: int | None,
    mean: list[float] | None,
    std: list[float] | None,
    format: str | None,
    output: str | None,
    trust_pickle: bool,
    class_names: list[str] | None,
    device: "torch.device",
) -> "PixelClassifier":
    """The classifier of a checkpoint, by the options that describe it."""
    from captum_classpattern.adapters import load_model
    from captum_classpattern.adapters.architectures import FAMILIES

    if arch and arch.rpartition(":")[0] not in ("", *FAMILIES) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # only for a factory, and after all that is installed
    return load_model(
        checkpoint,
        arch=arch,
        num_classes=num_classes,
        mean=mean,
        std=std,
        format=format,
        output=int(output) if output and re.fullmatch("-?[0-9]+", output) else output,
        trust_pickle=trust_pickle,
        class_names=class_names,
    ).to(device)


def open_images(
    models: "Sequence[PixelClassifier]",
    data: str,
    held_out: str | None,
    *,
    size: int | None,
    limit: int | None,
    root: Path | None,
    download: bool,
    seed: int,
) -> "tuple[LabelledImages, LabelledImages]":
    """Images to search with and images to score on: of the size that the first model takes, with
    the classes numbered as the models number them."""
    from captum_classpattern.datasets import load_images

    first = models[0]
    side = _side(first) if size is None else size

    def load(source: str) -> "LabelledImages":
        loaded = load_images(
            source,
            size=side,
            channels=_channels(first),
            limit=limit,
            seed=seed,
            root=root,
            download=download,
        )
        return _renumbered(loaded, models)

    images = load(data)
    if held_out is None:
        return images.halves(seed)
    return images, load(held_out).without(images)


def _renumbered(loaded: "LabelledImages", models: "Sequence[PixelClassifier]") -> "LabelledImages":
    """The images with the class numbers of the models, which must agree on them. A model without
    names takes those of the images."""
    from captum_classpattern.class_names import ClassNames

    numbered = [loaded.for_classifier(model) for model in models]
    for model, images in zip(models, numbered):
        _check_one_order(loaded, numbered[0], images, models[0], model)
        if images.class_names is not None and ClassNames.of(model) is None:
            model.class_names = list(images.class_names)
    return numbered[0]


def _check_one_order(
    loaded: "LabelledImages",
    first: "LabelledImages",
    other: "LabelledImages",
    first_model: "PixelClassifier",
    model: "PixelClassifier",
) -> None:
    """Raises an error if two models number the classes of the same images differently."""
    if loaded.labels is None or first.labels is None or other.labels is None:
        return
    differing = (first.labels != other.labels).nonzero().flatten().tolist()
    if differing:
        label, number, its_number = (
            int(labels[differing[0]]) for labels in (loaded.labels, first.labels, other.labels)
        )
        name = (loaded.class_names or ())[label]
        raise ValueError(
            f"the models number the classes differently: {name} is class {number} of "
            f"{first_model.provenance['source']}, but class {its_number} of "
            f"{model.provenance['source']}; compare models with one order of classes, or give "
            "the names with --class-names FILE if they are wrong"
        )


def find_classes(
    selection: Selection | None, model: "PixelClassifier", images: "LabelledImages"
) -> list[int]:
    """The numbers of the classes of --classes; if it was left out, of those with images."""
    from captum_classpattern.class_names import ClassNames
    from captum_classpattern.images import predictions

    if selection is None:  # without labels, by the model
        labels = predictions(model, images) if images.labels is None else images.labels
        return sorted(set(labels.tolist()))
    names, count = ClassNames.of(model), len(model.class_names or ())
    chosen: list[int] = []
    for part in selection:
        if isinstance(part, range):
            if count and part[-1] >= count:
                raise ValueError(
                    f"--classes: {part[-1]} is out of range: the model has {count} classes, "
                    f"numbered from 0 to {count - 1}"
                )
            chosen += part
        elif names is None:
            raise ValueError(
                f"--classes: {part!r} is a name, but neither the model nor the images name the "
                "classes: give numbers, or --class-names FILE"
            )
        else:
            chosen.append(names.find(part))
    return list(dict.fromkeys(chosen))


def _side(model: "PixelClassifier") -> tuple[int, int] | None:
    return None if model.input_size is None else model.input_size[1:]


def _channels(model: "PixelClassifier") -> int | None:
    """How many channels the model takes, by its first convolution if its source doesn't say."""
    if model.input_size is not None:
        return model.input_size[0]
    kernel = next((p for p in model.parameters() if p.ndim == 4), None)
    return int(kernel.shape[1]) if kernel is not None and kernel.shape[1] in (1, 3) else None

"""Options that several commands share, and what is opened by them."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import torch
import typer

from captum_classpattern.adapters import PixelClassifier, load_model
from captum_classpattern.adapters.architectures import FAMILIES
from captum_classpattern.cli.run import predictions
from captum_classpattern.datasets import LabelledImages, load_images

Data: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Images: a folder of class folders or of images, an .npz, torchvision:NAME. "
        "One half is searched with, the other held out."
    ),
]
HeldOut: TypeAlias = Annotated[
    str | None, typer.Option(help="Held-out images, if the data is not to be halved.")
]
Arch: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A network of torchvision or timm, or package.module:factory."),
]
NumClasses: TypeAlias = Annotated[int | None, typer.Option(min=2, help="[default: the weights']")]
Mean: TypeAlias = Annotated[
    str | None, typer.Option(help="Of the pixels in [0, 1] in training: 0.485,0.456,0.406.")
]
Std: TypeAlias = Annotated[str | None, typer.Option(help="Likewise.")]
Format: TypeAlias = Annotated[str | None, typer.Option(help="[default: found]")]
Output: TypeAlias = Annotated[
    str | None, typer.Option(help="Which output holds the logits: -1, 0, logits.")
]
TrustPickle: TypeAlias = Annotated[
    bool, typer.Option("--trust-pickle", help="Open files that run their maker's code, too.")
]
Size: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Side of the images in pixels. [default: the model's]")
]
Limit: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Most images of a class.")]
Root: TypeAlias = Annotated[Path | None, typer.Option(help="Folder of torchvision's data sets.")]
Download: TypeAlias = Annotated[bool, typer.Option("--download", help="Download such a data set.")]
Classes: TypeAlias = Annotated[str | None, typer.Option(help="Such as 0,3-5. [default: all]")]
Steps: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Rounds. [default: 80]")]
InternalBatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Most images in one pass of a search: less takes less memory."),
]
Seed: TypeAlias = Annotated[int, typer.Option(min=0, max=2**63 - 1)]
Device: TypeAlias = Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")]


def open_model(
    checkpoint: str,
    *,
    arch: str | None,
    num_classes: int | None,
    mean: str | None,
    std: str | None,
    format: str | None,
    output: str | None,
    trust_pickle: bool,
    device: str,
) -> PixelClassifier:
    """The classifier of a checkpoint, by the options that tell of it."""
    if arch and arch.rpartition(":")[0] not in ("", *FAMILIES) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # only for a factory, and after all that is installed
    return load_model(
        checkpoint,
        arch=arch,
        num_classes=num_classes,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        format=format,
        output=int(output) if output and re.fullmatch("-?[0-9]+", output) else output,
        trust_pickle=trust_pickle,
    ).to(_device(device))


def open_images(
    model: PixelClassifier,
    data: str,
    held_out: str | None,
    *,
    size: int | None,
    limit: int | None,
    root: Path | None,
    download: bool,
    seed: int,
) -> tuple[LabelledImages, LabelledImages]:
    """Images to search with and images to score on, of the size that a model takes."""
    side = _side(model) if size is None else size

    def load(source: str) -> LabelledImages:
        return load_images(
            source,
            size=side,
            channels=_channels(model),
            limit=limit,
            seed=seed,
            root=root,
            download=download,
        )

    images = load(data)
    if held_out is None:
        return images.halves(seed)
    return images, load(held_out).without(images)


def parse_classes(text: str) -> list[int]:
    """The classes of a list such as 0,3-5."""
    chosen: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise ValueError(f"--classes takes numbers and ranges such as 0,3-5, got {text!r}")
        first = int(found[1])
        chosen += range(first, int(found[2] or first) + 1)
    return list(dict.fromkeys(chosen))


def present(model: PixelClassifier, images: LabelledImages) -> list[int]:
    """The classes that there are images of, by the model where there are no labels."""
    labels = predictions(model, images) if images.labels is None else images.labels
    return sorted(set(labels.tolist()))


def _numbers(text: str | None, name: str) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{name} takes numbers such as 0.5 or 0.485,0.456,0.406, got {text!r}"
        ) from None


def _device(text: str) -> torch.device:
    try:
        return torch.empty(0, device=text).device
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {text} can't be used here: {reason}") from error


def _side(model: PixelClassifier) -> tuple[int, int] | None:
    return None if model.input_size is None else model.input_size[1:]


def _channels(model: PixelClassifier) -> int | None:
    """How many channels the model takes, by its first convolution if nothing else tells."""
    if model.input_size is not None:
        return model.input_size[0]
    kernel = next((p for p in model.parameters() if p.ndim == 4), None)
    return int(kernel.shape[1]) if kernel is not None and kernel.shape[1] in (1, 3) else None

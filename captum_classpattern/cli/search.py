"""``classpattern search``: what the demo does, for a user's model and images."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from captum_classpattern.adapters import PixelClassifier, load_model
from captum_classpattern.adapters.architectures import FAMILIES
from captum_classpattern.cli.printing import told_plainly
from captum_classpattern.cli.run import Run, predictions
from captum_classpattern.datasets import LabelledImages, load_images
from captum_classpattern.survey import AREAS


def search(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint file; or torchvision:NAME, timm:NAME.")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Images: a folder of class folders or of images, an .npz, torchvision:NAME. "
            "One half is searched with, the other held out."
        ),
    ],
    held_out: Annotated[
        str | None, typer.Option(help="Held-out images, if the data is not to be halved.")
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="A network of torchvision or timm, or package.module:factory."),
    ] = None,
    num_classes: Annotated[int | None, typer.Option(min=2, help="[default: the weights']")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Of the pixels in [0, 1] in training: 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    format: Annotated[str | None, typer.Option(help="[default: found]")] = None,
    output: Annotated[
        str | None, typer.Option(help="Which output holds the logits: -1, 0, logits.")
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Open files that run their maker's code, too.")
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the images in pixels. [default: the model's]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most images of a class.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of torchvision's data sets.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Download such a data set.")] = False,
    classes: Annotated[str | None, typer.Option(help="Such as 0,3-5. [default: all]")] = None,
    canvases: Annotated[
        int, typer.Option(min=1, help="Images a class to cut from; half as many white canvases.")
    ] = 4,
    area: Annotated[
        list[float] | None,
        typer.Option(help="Share of the pixels; may be repeated. [default: 0.05, 0.01]"),
    ] = None,
    n_steps: Annotated[int | None, typer.Option(min=1, help="Rounds. [default: 80]")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    internal_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Most images in one pass: less takes less memory.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    out: Annotated[
        Path, typer.Option(help="Folder for results.json, figure and patterns.", file_okay=False)
    ] = Path("classpattern-search"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on in this folder.")] = False,
) -> None:
    """Search the class patterns of your own model, and score them on held-out images."""
    with told_plainly():
        if arch and arch.rpartition(":")[0] not in ("", *FAMILIES):
            sys.path.append(os.getcwd())  # only for a factory, and after all that is installed
        model = load_model(
            checkpoint,
            arch=arch,
            num_classes=num_classes,
            mean=_numbers(mean, "--mean"),
            std=_numbers(std, "--std"),
            format=format,
            output=int(output) if output and re.fullmatch("-?[0-9]+", output) else output,
            trust_pickle=trust_pickle,
        ).to(_device(device))
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
        halves = (
            images.halves(seed) if held_out is None else (images, load(held_out).without(images))
        )
        run = Run(
            model,
            *halves,
            classes=_classes(classes, model, halves[0]),
            canvases={"positive": canvases, "white": max(1, canvases // 2)},
            areas=tuple(dict.fromkeys(area or AREAS)),
            n_steps=n_steps,
            seed=seed,
            internal_batch_size=internal_batch_size,
            out=out,
        )
        run.begin(resume)
        run.describe()
        run.go()


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


def _classes(text: str | None, model: PixelClassifier, images: LabelledImages) -> list[int]:
    """The classes of a list such as 0,3-5; all that there are images of, if there is none."""
    if text is None:
        labels = predictions(model, images) if images.labels is None else images.labels
        return sorted(set(labels.tolist()))
    chosen: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise ValueError(f"--classes takes numbers and ranges such as 0,3-5, got {text!r}")
        first = int(found[1])
        chosen += range(first, int(found[2] or first) + 1)
    return list(dict.fromkeys(chosen))


def _side(model: PixelClassifier) -> tuple[int, int] | None:
    return None if model.input_size is None else model.input_size[1:]


def _channels(model: PixelClassifier) -> int | None:
    """How many channels the model takes, by its first convolution if nothing else tells."""
    if model.input_size is not None:
        return model.input_size[0]
    kernel = next((p for p in model.parameters() if p.ndim == 4), None)
    return int(kernel.shape[1]) if kernel is not None and kernel.shape[1] in (1, 3) else None

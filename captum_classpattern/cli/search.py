"""``classpattern search``: what the demo does, for a user's model and images."""

from pathlib import Path
from typing import Annotated

import typer

from captum_classpattern.cli import options
from captum_classpattern.cli.printing import told_plainly
from captum_classpattern.cli.run import Run
from captum_classpattern.survey import AREAS


def search(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint file; or torchvision:NAME, timm:NAME.")
    ],
    data: options.Data,
    held_out: options.HeldOut = None,
    arch: options.Arch = None,
    num_classes: options.NumClasses = None,
    mean: options.Mean = None,
    std: options.Std = None,
    format: options.Format = None,
    output: options.Output = None,
    trust_pickle: options.TrustPickle = False,
    size: options.Size = None,
    limit: options.Limit = None,
    root: options.Root = None,
    download: options.Download = False,
    classes: options.Classes = None,
    canvases: Annotated[
        int, typer.Option(min=1, help="Images a class to cut from; half as many white canvases.")
    ] = 4,
    area: Annotated[
        list[float] | None,
        typer.Option(help="Share of the pixels; may be repeated. [default: 0.05, 0.01]"),
    ] = None,
    n_steps: options.Steps = None,
    seed: options.Seed = 0,
    internal_batch_size: options.InternalBatchSize = None,
    device: options.Device = "cpu",
    out: Annotated[
        Path, typer.Option(help="Folder for results.json, figure and patterns.", file_okay=False)
    ] = Path("classpattern-search"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on in this folder.")] = False,
) -> None:
    """Search the class patterns of your own model, and score them on held-out images."""
    with told_plainly():
        model = options.open_model(
            checkpoint,
            arch=arch,
            num_classes=num_classes,
            mean=mean,
            std=std,
            format=format,
            output=output,
            trust_pickle=trust_pickle,
            device=device,
        )
        halves = options.open_images(
            model,
            data,
            held_out,
            size=size,
            limit=limit,
            root=root,
            download=download,
            seed=seed,
        )
        run = Run(
            model,
            *halves,
            classes=(
                options.parse_classes(classes) if classes else options.present(model, halves[0])
            ),
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

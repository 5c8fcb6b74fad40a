"""``classpattern search``: the class patterns of a user's model, scored on held-out images."""

from pathlib import Path
from typing import Annotated

import typer

from captum_classpattern.cli import options
from captum_classpattern.cli.printing import friendly_errors


def search(
    checkpoint: Annotated[
        str,
        typer.Argument(help="A checkpoint file, or torchvision:NAME, timm:NAME, robustbench:NAME."),
    ],
    data: options.Data,
    held_out: options.HeldOut = None,
    class_names: options.ClassNames = None,
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
        typer.Option(
            help="Share of the pixels to search at; may be repeated. By default, 0.05 and 0.01."
        ),
    ] = None,
    n_steps: options.Steps = None,
    seed: options.Seed = 0,
    precision: options.Precision = "auto",
    internal_batch_size: options.InternalBatchSize = None,
    device: options.Device = "cpu",
    out: Annotated[
        Path,
        typer.Option(help="Folder for results.json, the figure and the patterns.", file_okay=False),
    ] = Path("classpattern-search"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the unfinished search in the folder of --out."),
    ] = False,
) -> None:
    """Search the class patterns of your own model, and score them on held-out images."""
    with friendly_errors():
        selection = options.parse_classes(classes)
        means, stds = options.parse_numbers(mean, "--mean"), options.parse_numbers(std, "--std")
        for share in area or ():
            options.check_area(share)
        options.check_source(data, "--data")
        options.check_source(held_out, "--held-out")
        options.check_folder(out, resume)
        names = options.read_class_names(class_names)
        options.check_precision(precision)
        place = options.parse_device(device)

        from captum_classpattern.cli.run import Run
        from captum_classpattern.surveys.survey import AREAS

        model = options.open_model(
            checkpoint,
            arch=arch,
            num_classes=num_classes,
            mean=means,
            std=stds,
            format=format,
            output=output,
            trust_pickle=trust_pickle,
            class_names=names,
            device=place,
        )
        halves = options.open_images(
            [model],
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
            classes=options.find_classes(selection, model, halves[0]),
            canvases={"positive": canvases, "white": max(1, canvases // 2)},
            areas=tuple(dict.fromkeys(area or AREAS)),
            n_steps=n_steps,
            seed=seed,
            precision=precision,
            internal_batch_size=internal_batch_size,
            out=out,
        )
        run.begin()
        run.describe()
        run.go()

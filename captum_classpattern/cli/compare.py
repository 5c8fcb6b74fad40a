"""``classpattern compare``: class patterns and Captum's methods on a user's models."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from captum_classpattern.cli import options
from captum_classpattern.cli.printing import friendly_errors


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Checkpoint files, or torchvision:NAME, timm:NAME; each may be NAME=CHECKPOINT.",
        ),
    ],
    data: options.Data,
    held_out: options.HeldOut = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names of methods, with commas between. By default, ClassPattern and 14 others."
        ),
    ] = None,
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
        int, typer.Option(min=1, help="Images a class to cut from, chosen by the first model.")
    ] = 1,
    white: Annotated[
        bool, typer.Option("--white", help="Also a white canvas for each class.")
    ] = False,
    area: Annotated[
        float, typer.Option(help="Share of the pixels at which methods are compared.")
    ] = 0.05,
    max_images: Annotated[int, typer.Option(min=1, help="Most held-out images.")] = 500,
    n_steps: options.Steps = None,
    seed: options.Seed = 0,
    precision: options.Precision = "auto",
    internal_batch_size: options.InternalBatchSize = None,
    device: options.Device = "cpu",
    out: Annotated[
        Path,
        typer.Option(help="Folder for the report, the figures and the patterns.", file_okay=False),
    ] = Path("classpattern-compare"),
) -> None:
    """Compare class patterns with Captum's other methods: same canvases, same held-out images."""
    with friendly_errors():
        selection = options.parse_classes(classes)
        means, stds = options.parse_numbers(mean, "--mean"), options.parse_numbers(std, "--std")
        options.check_area(area)
        options.check_source(data, "--data")
        options.check_source(held_out, "--held-out")
        checkpoints = _named(models)
        wanted = _parse_methods(methods)
        names = options.read_class_names(class_names)
        options.check_precision(precision)
        place = options.parse_device(device)

        from captum_classpattern.cli.side_by_side import choose_canvases, compared
        from captum_classpattern.comparison import compare as compare_methods
        from captum_classpattern.comparison import known_methods

        opened = {
            name: options.open_model(
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
            for name, checkpoint in checkpoints.items()
        }
        first, *_ = opened.values()
        search, scored = options.open_images(
            [*opened.values()],
            data,
            held_out,
            size=size,
            limit=limit,
            root=root,
            download=download,
            seed=seed,
        )
        chosen = options.find_classes(selection, first, search)
        images, targets, kinds = choose_canvases(
            opened, search, chosen, each=canvases, white=white, seed=seed
        )
        compared(
            out,
            "Class patterns next to Captum's methods",
            lambda: compare_methods(
                opened,
                images,
                targets,
                search=search,
                held_out=scored,
                methods=known_methods(
                    search,
                    names=wanted,
                    n_steps=n_steps,
                    precision=precision,
                    internal_batch_size=internal_batch_size,
                ),
                area=area,
                canvas_kinds=kinds,
                max_images=max_images,
                seed=seed,
                show_progress=sys.stderr.isatty(),
            ),
        )


def _parse_methods(text: str | None) -> list[str]:
    """The names of --methods, or an error if one is not known."""
    import torch

    from captum_classpattern.comparison import DEFAULT, known_methods

    if text is None:
        return list(DEFAULT)
    names = [name.strip() for name in text.split(",")]
    known_methods(torch.zeros(1, 1, 7, 7), names=names)  # of any images: it checks the names
    return names


def _named(models: list[str]) -> dict[str, str]:
    """Checkpoints by the names before their first equals signs, else by those of their files."""
    from captum_classpattern.class_names import file_safe

    named: dict[str, str] = {}
    files: dict[str, str] = {}
    for given in models:
        name, checkpoint = _name_of(given)
        if name in named:
            raise ValueError(f"two models are named {name!r}: name them, as in other={checkpoint}")
        file = file_safe(name)
        if file in files:
            raise ValueError(
                f"models {files[file]!r} and {name!r} would both be written to files named "
                f"{file!r}: name them otherwise, as in other={checkpoint}"
            )
        named[name], files[file] = checkpoint, name
    return named


def _name_of(given: str) -> tuple[str, str]:
    """A model's name, and what opens it. A file's own name may hold an equals sign."""
    name, equals, checkpoint = given.partition("=")
    if not equals or given.startswith(("torchvision:", "timm:")) or Path(given).exists():
        name, checkpoint = "", given
    return name or Path(checkpoint).stem, checkpoint

"""``classpattern compare``: class patterns beside Captum's methods on a user's models."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from captum_classpattern.cli import options
from captum_classpattern.cli.printing import told_plainly
from captum_classpattern.cli.side_by_side import as_file_name, choose_canvases, compared
from captum_classpattern.comparison import DEFAULT, known_methods
from captum_classpattern.comparison import compare as compare_methods


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
        typer.Option(help="Names, with commas between. [default: ClassPattern and 14 others]"),
    ] = None,
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
        bool, typer.Option("--white", help="A white canvas for each class, too.")
    ] = False,
    area: Annotated[float, typer.Option(help="Share of the pixels.")] = 0.05,
    max_images: Annotated[int, typer.Option(min=1, help="Most held-out images.")] = 500,
    n_steps: options.Steps = None,
    seed: options.Seed = 0,
    internal_batch_size: options.InternalBatchSize = None,
    device: options.Device = "cpu",
    out: Annotated[
        Path, typer.Option(help="Folder for the report, figures and patterns.", file_okay=False)
    ] = Path("classpattern-compare"),
) -> None:
    """Compare class patterns with Captum's other methods: same canvases, same held-out images."""
    with told_plainly():
        opened = {
            name: options.open_model(
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
            for name, checkpoint in _named(models).items()
        }
        first = next(iter(opened.values()))
        search, scored = options.open_images(
            first,
            data,
            held_out,
            size=size,
            limit=limit,
            root=root,
            download=download,
            seed=seed,
        )
        chosen = options.parse_classes(classes) if classes else options.present(first, search)
        images, targets, kinds = choose_canvases(
            opened, search.images, search.labels, chosen, each=canvases, white=white, seed=seed
        )
        compared(
            out,
            "Class patterns beside Captum's methods",
            lambda: compare_methods(
                opened,
                images,
                targets,
                baselines=search.images,
                baseline_labels=search.labels,
                images=scored.images,
                labels=scored.labels,
                methods=known_methods(
                    search.images,
                    search.labels,
                    names=[name.strip() for name in methods.split(",")] if methods else DEFAULT,
                    n_steps=n_steps,
                    internal_batch_size=internal_batch_size,
                ),
                area=area,
                canvas_kinds=kinds,
                class_names=search.class_names or first.class_names,
                max_images=max_images,
                seed=seed,
                show_progress=sys.stderr.isatty(),
            ),
        )


def _named(models: list[str]) -> dict[str, str]:
    """Checkpoints by the names before their first equals signs, else by those of their files."""
    named: dict[str, str] = {}
    files: dict[str, str] = {}
    for given in models:
        name, checkpoint = _name_of(given)
        if name in named:
            raise ValueError(f"two models are named {name!r}: name them, as in other={checkpoint}")
        file = as_file_name(name)
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

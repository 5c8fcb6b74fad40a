"""``classpattern search``: the class patterns of a user's model, scored on held-out images."""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from captum_classpattern.cli import options
from captum_classpattern.cli.printing import console, friendly_errors, print_tables, write_figure

if TYPE_CHECKING:  # imported by the command alone, so that --help answers at once
    from captum_classpattern.images import LabelledImages
    from captum_classpattern.surveys import Survey

TOGETHER = 5  # classes in one batch on a GPU; on a CPU one class fills it, and is finished sooner
PROOF = (
    "A strong pattern does not prove a backdoor: clean classes can have strong patterns, too. "
    "Compare with a clean model of the same kind, and look at the pattern.\n"
)


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

        from captum_classpattern.surveys import survey
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
        found = survey(
            model,
            *halves,
            classes=options.find_classes(selection, model, halves[0]),
            canvases={"positive": canvases, "white": max(1, canvases // 2)},
            areas=tuple(dict.fromkeys(area or AREAS)),
            classes_together=1 if place.type == "cpu" else TOGETHER,
            n_steps=n_steps,
            seed=seed,
            precision=precision,
            internal_batch_size=internal_batch_size,
            show_progress=sys.stderr.isatty(),
            folder=out,
            resume=resume,
        )
        _describe(model.provenance, *halves, found)
        try:
            for _ in tqdm(found, desc="patterns", unit="pattern"):
                pass
        except KeyboardInterrupt:
            typer.echo(f"\nInterrupted: --resume goes on in {out}.", err=True)
            raise typer.Exit(130) from None
        figure, _ = found.plot(seed=seed, use_pyplot=False)
        write_figure(figure, out / "patterns.png")
        print_tables({model.provenance["source"]: found.findings})
        for kind, share in itertools.product(found.canvases, found.areas):
            console().print(found.strongest(kind, share), markup=False)  # names may hold brackets
        console().print(PROOF)
        typer.echo(f"patterns.png, patterns/ and results.json are in {out}.")


def _describe(
    provenance: dict[str, Any],
    images: "LabelledImages",
    held_out: "LabelledImages",
    found: "Survey",
) -> None:
    """Prints what was loaded, the model's accuracy, and which classes are finished."""
    typer.echo(
        f"{provenance['source']}: {provenance['format']}, "
        f"{provenance.get('arch') or 'the network in it'}; "
        f"normalised by {provenance['normalisation']['from']}.\n"
        f"{len(images)} images to search with, {len(held_out)} held out"
        f" ({held_out.duplicates_dropped} copies dropped)."
    )
    accuracy = found.info["accuracy"]
    if accuracy is not None:
        typer.echo(f"The model classifies {accuracy:.1%} of the held-out images correctly.")
    if found.found:
        finished = dict.fromkeys(finding.label for finding in found.found)
        typer.echo(f"Finished already: {', '.join(finished)}.")

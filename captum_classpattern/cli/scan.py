"""``classpattern scan`` and ``classpattern reference``: is a model backdoored?"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from captum_classpattern.cli.documents import only_json, write_document
from captum_classpattern.cli.errors import interrupted, printable
from captum_classpattern.cli.options import (
    MAIN,
    MORE_SEARCH,
    AsJson,
    BatchOptions,
    ModelOptions,
    OutputFolder,
    SourceOptions,
    checkpoints_by_name,
    names_among,
    read_as,
)
from captum_classpattern.cli.printing import console, make_table

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.scanning import Scan

EXIT_CODES = {"nothing found": 0, "suspicious": 3, "inconclusive": 4}
SHOWN = 5  # classes in the table


def _families(text: str) -> list[str]:
    from captum_classpattern.scanning.families import CHANGES

    return names_among(text, CHANGES, "family")


Families: TypeAlias = Annotated[
    list[str] | None,
    read_as(_families, "LIST"),
    Parameter(
        group=MORE_SEARCH,
        help="Experimental: further families, of additive,warp. A scan can have those that its "
        "references have.",
    ),
]


def scan(
    checkpoint: str,
    /,
    *,
    model: ModelOptions = ModelOptions(),
    images: SourceOptions,
    compute: BatchOptions = BatchOptions(),
    references: Annotated[str, Parameter(group=MAIN, metavar="FILE|NAME")],
    alpha: Annotated[
        float, Parameter(validator=Number(gt=0, lt=1), group=MAIN, metavar="P")
    ] = 0.05,
    out: OutputFolder | None = None,
    as_json: AsJson = False,
    exit_zero: Annotated[bool, Parameter(group=MAIN)] = False,
    also: Families = None,
) -> None:
    """Ask whether a model is backdoored.

    For example:

        classpattern scan model.pt --data my_images --references my.json
        classpattern scan model.pt --data my_images --references my.json --seed 1 --out scan-1

    For each class, a few pixels and their colours are searched that turn other images into the
    class. A class of a backdoored model needs fewer of them than the same class of clean models.

    The exit code is 0 if nothing was found, 3 if the model is suspicious, 4 if the scan is
    inconclusive, and 2 after an error. The same command resumes an interrupted scan.

    Args:
        checkpoint: A checkpoint file, or torchvision:NAME or timm:NAME.
        references: The clean models: a file of classpattern reference, or demo, or cifar10.
        alpha: The largest p-value that is suspicious. It needs 1 / alpha - 1 references.
        out: The folder for scan.html, scan.json, scan.png and patterns. By default,
            classpattern-scan/CHECKPOINT.
        exit_zero: Exit with 0 whatever the verdict is.
    """
    from captum_classpattern.adapters.names import folder_name
    from captum_classpattern.scanning import ReferenceSet
    from captum_classpattern.scanning import scan as run_scan
    from captum_classpattern.scanning.families import SEARCH
    from captum_classpattern.scanning.profile import estimate_seconds
    from captum_classpattern.scanning.scan import PATTERNS

    known = ReferenceSet.load(references)
    folder = Path("classpattern-scan") / folder_name(checkpoint) if out is None else out

    def what_is_kept() -> str:
        if (folder / PATTERNS / SEARCH).exists():
            return f"the same command resumes from {folder}"
        return "no group of classes was finished, so nothing is kept"

    with only_json(as_json):
        classifier = model.open(checkpoint)
        source = images.load_all([classifier], seed=compute.seed, shape=known.shape)
        known.check(source.count_outputs(classifier), source.shape)
        seconds = estimate_seconds(
            classifier, source, known.n_classes, also=also or (), precision=compute.precision
        )
        print(f"{known.n_classes} classes, about {max(1, round(seconds))} s.", flush=True)
        with interrupted(what_is_kept):
            found = run_scan(
                classifier,
                source,
                references=known,
                alpha=alpha,
                also=also or (),
                folder=folder,
                show_progress=sys.stderr.isatty(),
                **compute.keywords(),
            )
        found.save(folder)
        found.to_html(folder / "scan.html")
    if as_json:
        write_document("scan", folder, found.as_dict())
    else:
        print_scan(found)
        print(f"scan.html, scan.json, scan.png and patterns/ are in {folder}.")
    if (code := EXIT_CODES[found.verdict]) and not exit_zero:
        raise SystemExit(code)


def print_scan(found: "Scan") -> None:
    """Prints the verdict, and a table of the classes that differ most from the references."""
    from captum_classpattern.scanning.families import SCORED, unit_of

    out = console()
    out.print(Text(found.verdict.capitalize(), style="bold"))
    for text in (found.reason, *(f"Note: {note}" for note in found.notes), _accuracies(found)):
        out.print(printable(text), markup=False)  # names may hold anything
    unit = unit_of(found.references.shape)
    powers = [name for size in sorted(SCORED) for name in (f"{size} {unit}", "references")]
    columns = ["class", *powers, *found.profile.others, f"excess, {found.family}"]
    out.print(make_table(columns, [_cells(found, y) for y in found.test.order[:SHOWN]]))


def _cells(found: "Scan", target: int) -> list[str]:
    """The row of a class: its powers, those of the references, and its excess."""
    from captum_classpattern.scanning.families import SCORED

    cells = [found.class_names[target]]
    for size in sorted(SCORED):
        usual = [each.powers[size][target] for each in found.references.profiles.values()]
        cells += [
            f"{found.profile.powers[size][target]:.0%}",
            f"{min(usual):.0%} to {max(usual):.0%}",
        ]
    others = [f"{powers[target]:.0%}" for powers in found.profile.others.values()]
    return [*cells, *others, f"{found.test.excess[target]:+.2f}"]


def _accuracies(found: "Scan") -> str:
    known, accuracies = found.profile.accuracy, found.references.accuracies
    if known is None or not accuracies:
        return "The accuracies are not known."
    return (
        f"The model classifies {known:.1%} of {found.profile.images} images correctly, the "
        f"references {min(accuracies):.1%} to {max(accuracies):.1%}."
    )


def reference(
    *models: Annotated[str, Parameter(required=True)],
    model: ModelOptions = ModelOptions(),
    images: SourceOptions,
    compute: BatchOptions = BatchOptions(),
    out: Annotated[Path, Parameter(group=MAIN, metavar="FILE")],
    also: Families = None,
) -> None:
    """Measure clean models, for scans to compare others with.

    For example:

        classpattern reference clean/*.pt --data my_images --out my.json

    The file is written after each model. If it is there already, models are added to it, and those
    that it holds are skipped. tutorials/train_references.py trains clean models.

    Args:
        models: Checkpoint files of clean models, or torchvision:NAME or timm:NAME, each with a name
            of your choice if you like, as in old=a.pt.
        out: The file for the references, such as my_references.json.
    """
    from captum_classpattern.classifier.fingerprints import hash_of_model
    from captum_classpattern.scanning import ReferenceSet
    from captum_classpattern.scanning.decision import references_needed
    from captum_classpattern.scanning.profile import estimate_seconds

    checkpoints = checkpoints_by_name(models)
    if out.is_dir():
        raise ValueError(
            f"--out: it must be a file, such as references.json, but {out} is a folder"
        )
    known = ReferenceSet.load(out) if out.exists() else None
    if known is not None and also is not None and set(also) != set(known.also):
        raise ValueError(
            f"--also: {out} was measured with {', '.join(known.also) or 'patches alone'}: give the "
            "same families, or another file"
        )
    for name, checkpoint in checkpoints.items():
        classifier = model.open(checkpoint)
        if known is not None and name in known.profiles:
            if known.profiles[name].model != hash_of_model(classifier):
                raise ValueError(
                    f"{out} has another model of the name {name}: give this one another name, as "
                    f"in other={checkpoint}"
                )
            print(f"{name} is in {out} already.")
            continue
        shape = None if known is None else known.shape
        source = images.load_all([classifier], seed=compute.seed, shape=shape)
        if known is None:
            known = ReferenceSet.for_models(classifier, source, also=also or ())
            seconds = estimate_seconds(
                classifier, source, known.n_classes, also=known.also, precision=compute.precision
            )
            print(f"Models: {len(checkpoints)}, about {max(1, round(seconds))} s each.", flush=True)
        try:
            known.add(
                name, classifier, source, show_progress=sys.stderr.isatty(), **compute.keywords()
            )
        except ValueError as error:
            raise ValueError(f"{checkpoint}: {error}") from error
        out.parent.mkdir(parents=True, exist_ok=True)
        known.save(out)
        accuracy = known.profiles[name].accuracy
        classified = "" if accuracy is None else f", accuracy {accuracy:.1%}"
        print(f"{name}{classified}", flush=True)
    assert known is not None
    needed, accuracies = references_needed(0.05), known.accuracies
    print(f"Clean models in {out}: {len(known)}. A p-value of 5 % needs at least {needed}.")
    if accuracies:
        print(
            f"Their accuracies go from {min(accuracies):.1%} to {max(accuracies):.1%}. A scan of a "
            "better model is inconclusive."
        )

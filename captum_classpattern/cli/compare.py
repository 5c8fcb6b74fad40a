"""``classpattern compare``: class patterns and Captum's methods on a user's models. The demo runs
such a comparison, too."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from cyclopts import Parameter

import captum_classpattern as cp
from captum_classpattern._files import write_atomically
from captum_classpattern.cli import options
from captum_classpattern.cli.errors import INTERRUPTED
from captum_classpattern.cli.printing import print_table, say
from captum_classpattern.results import as_table

if TYPE_CHECKING:
    from captum_classpattern.comparison import Metric
    from captum_classpattern.comparison.run import CompareOptions

POWER_LEGEND = """\
Power: share of held-out images of other classes that are predicted as the class once they are
stamped with the pixels that a method ranks first; average over classes (95 % interval: bootstrap
over the classes, or over the images if there are fewer than 5 classes or all are equal; it then
holds for these classes alone).
"""


def _methods(text: str) -> list[str]:
    from captum_classpattern._validation import suggest_names
    from captum_classpattern.comparison.methods import METHOD_NAMES

    names, known = [name.strip() for name in text.split(",")], [*METHOD_NAMES, "MODULE:NAME"]
    for name in names:
        if name not in known and ":" not in name:
            raise ValueError(
                f"there is no method {name!r}{suggest_names(name, known)}\n\n"
                f"Choose from {', '.join(known)}."
            )
    return names


def compare(
    *models: Annotated[str, Parameter(required=True)],
    model: options.ModelOptions = options.ModelOptions(),
    images: options.ImageOptions,
    searches: options.SearchOptions = options.SearchOptions(),
    methods: Annotated[list[str] | None, options.read_as(_methods, "LIST")] = None,
    area: options.Area = 0.05,
    out: options.OutputFolder = Path("classpattern-compare"),
    canvases: Annotated[options.Count, options.IN_SEARCH] = 1,
    white: Annotated[bool, options.IN_SEARCH] = False,
    max_images: Annotated[options.Count, options.IN_SEARCH] = 500,
) -> int:
    """Compare patterns with Captum's methods on the same images.

    For example:

        classpattern compare clean.pt suspect.pt --arch resnet18 --data my_images
        classpattern compare old=a.pt new=b.pt --data my_images --methods Saliency,LRP

    A report shows the maps and the predictive power of their pixels.

    Args:
        models: Checkpoint files, or torchvision:NAME or timm:NAME, each with a name of your choice
            if you like, as in old=a.pt.
        methods: Names of methods, separated by commas. By default, ClassPattern and 13 others.
            MODULE:NAME is a function of yours, from model and images to an Attribution.
        area: The share of the pixels at which the methods are compared.
        out: The folder for the report, the figures and the patterns.
        canvases: The images per class from which pixels are cut. The first model chooses them.
        white: Add a white canvas for each class.
        max_images: Score on at most this many held-out images.
    """
    from captum_classpattern._validation import import_named
    from captum_classpattern.comparison import DEFAULT

    checkpoints = options.checkpoints_by_name(models)
    for own in (name for name in methods or () if ":" in name):
        options.import_from_here()  # a wrong name is refused before models are loaded
        import_named(own, f"method {own!r}")
    opened = {name: model.open(checkpoint) for name, checkpoint in checkpoints.items()}
    comparison = run_comparison(
        opened,
        images.load([*opened.values()], seed=searches.seed),
        searches,
        out,
        "Class patterns next to Captum's methods",
        methods=methods or DEFAULT,
        canvases=canvases,
        white=white,
        show_progress=sys.stderr.isatty(),
        area=area,
        max_images=max_images,
    )
    print_comparison(comparison)
    if comparison.records or comparison.failures:
        written = "report.html, figures, patterns" if comparison.records else "report.html"
        print(f"{written} and comparison.json are in {out}.")
    if not comparison.settings["complete"]:
        print("Interrupted. The methods that had finished are reported.")
        return INTERRUPTED
    return 0 if comparison.records else 1


def run_comparison(
    models: "Mapping[str, cp.PixelClassifier]",
    images: "tuple[cp.LabelledImages, cp.LabelledImages]",
    searches: options.SearchOptions,
    out: Path,
    title: str,
    *,
    canvases: int = 1,
    white: bool = False,
    methods: Sequence[str],
    area: float = 0.05,
    metrics: "Sequence[Metric] | None" = None,
    **more: "Unpack[CompareOptions]",
) -> "cp.Comparison":
    """Chooses canvases, compares methods on them, and writes the result; after an interrupt, the
    finished part."""
    from captum_classpattern.comparison import METRICS, Interrupted

    search, held_out = images
    classes = searches.find_classes(next(iter(models.values())), search)
    chosen, targets, kinds = choose_canvases(
        models, search, classes, n=canvases, white=white, seed=searches.seed
    )
    keywords = searches.keywords()
    settings: CompareOptions = {**more, "canvas_kinds": kinds, "seed": keywords.pop("seed")}
    try:
        comparison = cp.compare(
            models,
            chosen,
            targets,
            search=search,
            held_out=held_out,
            methods=cp.known_methods(search, names=methods, **keywords),
            metrics=METRICS if metrics is None else metrics,
            area=area,
            **settings,
        )
    except Interrupted as stopped:
        comparison = stopped.comparison
    complete = comparison.settings["complete"]
    if comparison.records or comparison.failures:
        write_comparison(comparison, out, title if complete else f"{title} (interrupted)")
    return comparison


def choose_canvases(
    models: "Mapping[str, cp.PixelClassifier]",
    images: "cp.LabelledImages",
    classes: Sequence[int],
    *,
    n: int = 1,
    white: bool = False,
    seed: int = 0,
) -> tuple[Any, list[int], list[str]]:
    """Canvases, targets and kinds: n images of each class that the first model classifies
    correctly, and a white canvas for each class that is the target of a trigger, or for all."""
    import torch

    first = next(iter(models.values()))
    triggers = [getattr(model, "trigger", None) for model in models.values()]
    triggered = {trigger.target for trigger in triggers if trigger is not None}
    blank = [y for y in classes if white or y in triggered]
    positive = torch.cat(
        [cp.select_canvases(first, images, target=y, n=n, seed=seed).cpu() for y in classes]
    )
    return (
        torch.cat([positive, torch.ones(len(blank), *positive.shape[1:])]),
        [*(y for y in classes for _ in range(n)), *blank],
        [*["positive"] * len(positive), *["white"] * len(blank)],
    )


def write_comparison(comparison: "cp.Comparison", out: Path, title: str) -> None:
    """Writes comparison.json, the report, its figures as files, and the patterns that were
    searched, of the first kind of canvas."""
    from captum_classpattern.classifier.class_names import file_safe, label_of
    from captum_classpattern.comparison.records import search_names
    from captum_classpattern.pages.report import draw_figures, write_report

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "comparison.json", (comparison.to_json() + "\n").encode())
    drawn = draw_figures(comparison)
    write_report(comparison, out / "report.html", title=title, figures=drawn)
    for model in comparison.models:
        records = comparison.select(model=model, kind=comparison.kinds[0])
        folder, searched = out / "patterns" / file_safe(model), search_names(records)
        if records:
            folder.mkdir(parents=True, exist_ok=True)
        for record in records:
            number, name = str(record.target), comparison.class_name(record.target)
            label = number if name == label_of(record.target) else f"{number}_{name}"
            for area in record.masks if record.name in searched else ():
                file = f"{record.method}_{record.canvas}_{label}_{area:g}.safetensors"
                pattern = comparison.pattern_of(record, area)
                pattern.save(folder / file_safe(file))
    for picture in drawn:
        if picture.png:
            write_atomically(out / f"{file_safe(picture.name)}.png", picture.png)


def print_comparison(comparison: "cp.Comparison") -> None:
    """Prints the powers on the first kind of canvas, and what could not run."""
    from captum_classpattern.pages.report_data import numbers_table
    from captum_classpattern.visualization.formats import SPACE, percent_range

    def cell(column: Any, row: Mapping[str, Any]) -> str:
        ends, text = column.ends(row), column.text(row).replace("\N{ZERO WIDTH SPACE}", "")
        interval = f" ({percent_range(*ends)})" if ends else ""
        return f"{text}{interval}".replace(SPACE, " ")

    first_kind = comparison.select(kind=comparison.kinds[0])
    table = numbers_table(replace(comparison, records=first_kind))
    if table.rows:
        rows = [
            {column.heading: cell(column, row) for column in table.columns} for row in table.rows
        ]
        print_table(as_table(rows), table.title.replace(SPACE, " "))
        say(POWER_LEGEND, comparison.summary)
    else:
        print("No method gave a map.")
    if notes := comparison.notes():
        say("Not run here:", *(f"- {note}" for note in notes))

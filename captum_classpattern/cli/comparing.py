"""The comparison that ``compare`` and ``demo`` run: its canvases, files and tables."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import Tensor

from captum_classpattern._files import write_atomically
from captum_classpattern.classifier import Classifier
from captum_classpattern.classifier.class_names import file_safe, label_of
from captum_classpattern.cli.options import SearchOptions
from captum_classpattern.cli.printing import console
from captum_classpattern.comparison import Comparison, Interrupted, Record, compare, known_methods
from captum_classpattern.comparison.records import search_names
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.canvases import select_canvases
from captum_classpattern.pages.report.figures import draw_figures
from captum_classpattern.pages.report.page import write_report_page

SMALL_AREA = 0.01  # shown next to the area of the comparison
VARIANTS = {
    ("image", "absolute"): "abs.",
    ("class", "signed"): "mean",
    ("class", "absolute"): "mean, abs.",
}
LEGEND = """\
Percentages: share of held-out images of other classes that are predicted as the class once they are
stamped with the pixels that a method ranks first; average over classes (95 % interval: bootstrap
over the classes, or over the images if there are fewer than 5 classes or all are equal; it then
holds for these classes alone). abs.: ranked by absolute value. passes, seconds: for one canvas.
"""
MEAN_LEGEND = "mean: ranked by the mean of the method's maps over images of the class."


def run_comparison(
    models: Mapping[str, Classifier],
    search: LabelledImages,
    held_out: LabelledImages,
    classes: Sequence[int],
    *,
    methods: Sequence[str],
    searches: SearchOptions,
    out: Path,
    title: str,
    canvases: int = 1,
    white: bool = False,
    show_tables: bool = True,
    **settings: Any,
) -> tuple[Comparison, int]:
    """Chooses canvases, compares methods on them with these settings of ``compare``, and writes
    and prints the result; after an interrupt, the finished part. Returns it with the exit code: 130
    after an interrupt, and 1 if no method gave a map."""
    images, targets, kinds = choose_canvases(
        models, search, classes, n=canvases, white=white, seed=searches.seed
    )
    known = known_methods(
        search,
        names=methods,
        budget=searches.budget,
        n_steps=searches.n_steps,
        max_seconds=searches.max_seconds,
        precision=searches.precision,
        internal_batch_size=searches.internal_batch_size,
    )
    started = time.perf_counter()
    complete = True
    try:
        comparison = compare(
            models,
            images,
            targets,
            search=search,
            held_out=held_out,
            methods=known,
            canvas_kinds=kinds,
            seed=searches.seed,
            **settings,
        )
    except Interrupted as stopped:
        comparison, complete = stopped.comparison, False
    if comparison.records or comparison.failures:
        write_comparison(comparison, out, title if complete else f"{title} (interrupted)")
        if show_tables:
            print_comparison(comparison)
        written = "report.html, figures, patterns" if comparison.records else "report.html"
        print(f"{written} and comparison.json are in {out}.")
    seconds = time.perf_counter() - started
    if not complete:
        print(f"Interrupted after {seconds:.0f} s. The methods that had finished are reported.")
        return comparison, 130
    print(f"Compared in {seconds:.0f} s.")
    return comparison, 0 if comparison.records else 1


def choose_canvases(
    models: Mapping[str, Classifier],
    images: LabelledImages,
    classes: Sequence[int],
    *,
    n: int = 1,
    white: bool = False,
    seed: int = 0,
) -> tuple[Tensor, list[int], list[str]]:
    """Canvases, targets and kinds: n images of each class that the first model classifies
    correctly, and a white canvas for each class that is the target of a trigger, or for all."""
    first = next(iter(models.values()))
    chosen = [
        select_canvases(first, images, target=target, n=n, seed=seed).cpu() for target in classes
    ]
    triggers = [getattr(model, "trigger", None) for model in models.values()]
    triggered = {trigger.target for trigger in triggers if trigger is not None}
    blank = [target for target in classes if white or target in triggered]
    positive = torch.cat(chosen)
    return (
        torch.cat([positive, torch.ones(len(blank), *positive.shape[1:])]),
        [*(target for target in classes for _ in range(n)), *blank],
        [*["positive"] * len(positive), *["white"] * len(blank)],
    )


def write_comparison(comparison: Comparison, out: Path, title: str) -> None:
    """Writes comparison.json, the report, its figures as files, and the patterns that were
    searched."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "comparison.json", (comparison.to_json() + "\n").encode())
    drawn = draw_figures(comparison, {})
    write_report_page(comparison, out / "report.html", drawn, title=title)
    for model in comparison.models:
        records = comparison.select(model=model, kind=comparison.kinds[0])
        if records:
            _save_patterns(comparison, records, out / "patterns" / file_safe(model))
    for picture in drawn:
        if picture.png:
            write_atomically(out / f"{file_safe(picture.name)}.png", picture.png)


def _save_patterns(comparison: Comparison, records: Sequence[Record], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    searched = search_names(records)
    for record in records:
        if record.name in searched:
            number, name = str(record.target), comparison.class_name(record.target)
            label = number if name == label_of(record.target) else f"{number}_{name}"
            for area in record.masks:
                file = f"{record.method}_{record.canvas}_{label}_{area:g}.safetensors"
                pattern = comparison.pattern_of(record, area)
                pattern.save(folder / file_safe(file), seen_beside=True)


def print_comparison(comparison: Comparison) -> None:
    """Prints a table for each model, and the verdicts; if there are no maps, why."""
    out = console()
    if not comparison.records:
        out.print("No method gave a map:")
        for failure in comparison.failures:
            line = f"{failure.method} on the {failure.model} model: {failure.reason}"
            out.print(line, markup=False)
        return
    rows = comparison.rows()
    for model in comparison.models:  # an interrupted comparison may not reach all of them
        for cut in (True, False):
            table = _table(comparison, rows, model, cut=cut)
            if table.row_count:
                out.print(table)
    out.print(LEGEND)
    if comparison.select(level="class"):
        out.print(f"{MEAN_LEGEND}\n")
    for verdict in sorted(comparison.verdicts(), key=lambda verdict: verdict["holds"]):
        outcome = "holds" if verdict["holds"] else "FAILS"
        out.print(f"{outcome}: {verdict['title']}. {verdict['text']}\n", markup=False)


def _table(
    comparison: Comparison, rows: Sequence[Mapping[str, Any]], model: str, *, cut: bool
) -> Table:
    """One row per method that is, or is not, cut from the canvas, strongest first. Those that are
    have a column for each way to rank their maps, the others for their own form."""
    kind, key = comparison.kinds[0], f"power_{comparison.area:g}"
    of_method = {
        (row["method"], (row["level"], row["ranking"])): row
        for row in rows
        if (row["model"], row.get("kind"), row.get("cut_from_canvas")) == (model, kind, cut)
    }
    what = f"{kind} canvases" if cut else "not cut from a canvas"
    title = Text(f"{model} model, {what}", style="bold")  # names may hold brackets
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    small = min(comparison.areas, key=lambda other: abs(other - SMALL_AREA))
    smaller = [] if small == comparison.area else [small]
    ways = {way for _, way in of_method}
    variants = {way: name for way, name in VARIANTS.items() if way in ways and cut}
    for name in (
        f"{100 * comparison.area:.3g} % of pixels",
        *(f"{100 * area:.3g} %" for area in smaller),
        *(variants.values() if cut else ("own form", "changed")),
        *("passes", "seconds"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    if not cut:
        table.add_column("free")
    usual = [row for (_, way), row in of_method.items() if way == ("image", "signed")]
    for row in sorted(usual, key=lambda row: -row[key]):
        others = [of_method.get((row["method"], way)) for way in variants]
        table.add_row(
            Text(row["method"]),
            _interval(row, key),
            *(f"{row[f'power_{area:g}']:.1%}" for area in smaller),
            *("" if other is None else f"{other[key]:.1%}" for other in others),
            *(() if cut else (_interval(row, "own_form"), f"{row['share_changed']:.1%}")),
            f"{row['passes']:.4g}",
            f"{row['seconds']:.2g}",
            *(() if cut else [Text(row["free"])]),
        )
    for failure in comparison.failures if cut else ():
        if failure.model == model and failure.what == "maps":
            table.add_row(Text(failure.method), "failed")
    return table


def _interval(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]:.1%} ({100 * row[f'{key}_low']:.1f}-{100 * row[f'{key}_high']:.1f})"

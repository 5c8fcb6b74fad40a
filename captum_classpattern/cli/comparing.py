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
from captum_classpattern.canvases import select_canvases
from captum_classpattern.class_names import file_safe
from captum_classpattern.classifier import Classifier
from captum_classpattern.cli.options import SearchOptions
from captum_classpattern.cli.printing import console
from captum_classpattern.comparison import Comparison, Interrupted, Record, compare, known_methods
from captum_classpattern.comparison.records import cut_from_canvas, search_names
from captum_classpattern.comparison.tables import mean_power
from captum_classpattern.images import LabelledImages
from captum_classpattern.pages.report.figures import draw_figures
from captum_classpattern.pages.report.page import write_report_page
from captum_classpattern.scores.intervals import Estimate

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
            label = number if name == number else f"{number}_{name}"
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
    failed = {failure.model for failure in comparison.failures}
    for model in comparison.models:  # an interrupted comparison may not reach all of them
        records = comparison.select(model=model, kind=comparison.kinds[0])
        cut = cut_from_canvas(records)
        if cut or model in failed:
            out.print(_table(comparison, model))
        if len(cut) < len(records):
            out.print(_own_table(comparison, model))
    out.print(LEGEND)
    if comparison.select(level="class"):
        out.print(f"{MEAN_LEGEND}\n")
    for verdict in sorted(comparison.verdicts(), key=lambda verdict: verdict["holds"]):
        outcome = "holds" if verdict["holds"] else "FAILS"
        out.print(f"{outcome}: {verdict['title']}. {verdict['text']}\n", markup=False)


def _table(comparison: Comparison, model: str) -> Table:
    """One row per method, strongest first, with a column for each way to rank its map."""
    kind, area = comparison.kinds[0], comparison.area
    title = Text(f"{model} model, {kind} canvases", style="bold")  # names may hold brackets
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    smaller = _smaller(comparison)
    table.add_column("method", no_wrap=True)
    records = cut_from_canvas(comparison.select(model=model, kind=kind))
    measured = {(r.level, r.ranking) for r in records}
    variants = {key: name for key, name in VARIANTS.items() if key in measured}
    for name in (
        f"{100 * area:.3g} % of pixels",
        *(f"{100 * other:.3g} %" for other in smaller),
        *variants.values(),
        "passes",
        "seconds",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[str, dict[tuple[str, str], list[Record]]] = {}
    for r in records:
        groups.setdefault(r.method, {}).setdefault((r.level, r.ranking), []).append(r)
    standard = ("image", "signed")
    powers = {method: _mean(group[standard], area) for method, group in groups.items()}
    for method in sorted(groups, key=lambda method: -powers[method].value):
        group, power = groups[method], powers[method]
        low, high = power.interval
        table.add_row(
            Text(method),
            f"{power.value:.1%} ({100 * low:.1f}-{100 * high:.1f})",
            *(f"{_mean(group[standard], other).value:.1%}" for other in smaller),
            *(f"{_mean(group[key], area).value:.1%}" if key in group else "" for key in variants),
            f"{group[standard][0].scores['passes']:.4g}",
            f"{group[standard][0].scores['seconds']:.2g}",
        )
    for failure in comparison.failures:
        if failure.model == model and failure.what == "maps":
            table.add_row(Text(failure.method), "failed")
    return table


def _own_table(comparison: Comparison, model: str) -> Table:
    """One row per method whose pixels are not cut from the canvas, strongest first."""
    kind, area, smaller = comparison.kinds[0], comparison.area, _smaller(comparison)
    title = Text(f"{model} model, not cut from a canvas", style="bold")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    for name in (
        f"{100 * area:.3g} % of pixels",
        *(f"{100 * other:.3g} %" for other in smaller),
        *("own form", "changed", "passes", "seconds"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("free")
    rows = [
        row
        for row in comparison.rows()
        if (row["model"], row.get("kind"), row.get("ranking")) == (model, kind, "signed")
        and "free" in row
    ]
    for row in sorted(rows, key=lambda row: -row[f"power_{area:g}"]):
        table.add_row(
            Text(row["method"]),
            _interval(row, f"power_{area:g}"),
            *(f"{row[f'power_{other:g}']:.1%}" for other in smaller),
            _interval(row, "own_form"),
            f"{row['share_changed']:.1%}",
            f"{row['passes']:.4g}",
            f"{row['seconds']:.2g}",
            Text(row["free"]),
        )
    return table


def _interval(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]:.1%} ({100 * row[f'{key}_low']:.1f}-{100 * row[f'{key}_high']:.1f})"


def _smaller(comparison: Comparison) -> set[float]:
    """The area that is shown next to that of the comparison, if there is another one."""
    small = min(comparison.areas, key=lambda other: abs(other - SMALL_AREA))
    return {small} - {comparison.area}


def _mean(records: Sequence[Record], area: float) -> Estimate:
    return mean_power((r.target, r.powers[area]) for r in records)

"""A comparison: in a notebook the patterns of the first canvas, mean powers and
their summary; as a page the report. As figures, maps and curves."""

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.records import (
    control_names,
    figure_names,
    mean_powers,
    search_names,
)
from captum_classpattern.pages import parts as html
from captum_classpattern.pages.report import write_report as write
from captum_classpattern.pages.report_data import numbers_table
from captum_classpattern.visualization import plot_curves as draw_curves
from captum_classpattern.visualization import plot_maps
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area
from captum_classpattern.visualization.lines import Point

__all__ = ["parts", "plot", "plot_curves", "write"]


def parts(comparison: Comparison, whole: bool = False) -> tuple[str, list[Markup]]:
    scored = [record for record in comparison.records if record.powers]
    area = comparison.area
    numbers = numbers_table(comparison)
    shown = [
        html.side_by_side(*_pictured(comparison, figure_names(scored, area))),
        html.table_of(numbers.columns, numbers.rows),
        html.paragraph(
            f"Power of {percent_area(area)} of the pixels on held-out images: means over classes "
            "with their 95 % intervals."
        ),
    ]
    if comparison.summary:
        shown.append(html.paragraph(comparison.summary))
    if notes := comparison.notes():
        shown.append(html.folded("Not run here", *map(html.paragraph, notes)))
    return "Comparison", shown


def _pictured(comparison: Comparison, names: Sequence[str]) -> list[Markup]:
    """The first canvas, and what the methods choose of it on the first model."""
    model = next(iter(comparison.models))
    first = {r.name: r for r in comparison.select(canvas=0, model=model) if r.powers}
    if not first:
        return []
    label = comparison.class_name(comparison.targets[0])
    shown = [html.picture(comparison.canvases[0], f"canvas of {label}", f"{label}, canvas")]
    for record in (first[name] for name in names if name in first):
        caption = f"{record.name}: {percent(record.powers[comparison.area].value)}"
        pattern = comparison.pattern_of(record)
        shown.append(html.pattern_picture(pattern, f"pattern of {record.name}", caption))
    return shown


def plot(
    comparison: Comparison,
    *,
    model: str | None,
    target: int | str | None,
    methods: Sequence[str] | None,
    kind: str | None,
    **options: Any,
) -> Drawing:
    """One row for each model and canvas, one column for each method; with ``options`` of
    :func:`plot_maps`."""
    wanted: dict[str, Any] = {"kind": kind or comparison.kinds[0]}
    if target is not None:
        wanted["target"] = target
    if model is not None or target is None:
        wanted["model"] = model or next(iter(comparison.models))
    chosen = comparison.select(**wanted)
    if not chosen:
        raise ValueError(
            f"there is nothing to draw for model {model!r}, class {target!r}, canvas {kind!r}: "
            f"models are {list(comparison.models)}, classes {sorted(set(comparison.targets))}, "
            f"canvases {sorted({record.kind for record in comparison.records})}"
        )
    several = len({record.model for record in chosen}) > 1
    names = list(dict.fromkeys(record.name for record in chosen))
    columns = names if methods is None else _known(methods, chosen)
    rows: dict[tuple[str, int], dict[str, Record]] = {}
    for record in chosen:
        rows.setdefault((record.model, record.canvas), {})[record.name] = record
    grid = [[row.get(name) for name in columns] for row in rows.values()]
    firsts = [next(iter(row.values())) for row in rows.values()]
    return plot_maps(
        [comparison.canvas_of(record) for record in firsts],
        [[None if r is None else r.map for r in row] for row in grid],
        [[None if r is None else comparison.pattern_of(r) for r in row] for row in grid],
        [["" if r is None else _caption(r, comparison.area) for r in row] for row in grid],
        row_names=[r.model if several else comparison.class_name(r.target) for r in firsts],
        column_names=columns,
        **options,
    )


def _caption(record: Record, area: float) -> str:
    if record.powers:
        return percent(record.powers[area].value)
    iou = record.score("iou")
    return "" if iou is None else f"IoU {iou:.2f}"


def plot_curves(
    comparison: Comparison, *, kind: str | None, methods: Sequence[str] | None, use_pyplot: bool
) -> Drawing:
    """One panel for each model: the mean power of each method over the area."""
    scored = [r for r in comparison.select(kind=kind or comparison.kinds[0]) if r.powers]
    if not scored:
        raise ValueError("there is nothing to draw: none of these canvases has been scored")
    area = comparison.area
    names = figure_names(scored, area) if methods is None else _known(methods, scored)
    shown = [record for record in scored if record.name in names]
    panels: dict[str, dict[str, list[Point]]] = {}
    for model in dict.fromkeys(record.model for record in shown):
        of_model = [record for record in shown if record.model == model]
        means = {each: mean_powers(of_model, each) for each in comparison.areas}
        panels[model] = {
            name: [(each, of[name].value, *of[name].interval) for each, of in means.items()]
            for name in names
            if name in means[area]
        }
    return draw_curves(
        panels,
        highlight=search_names(shown),
        controls=control_names(shown),
        areas_marked=[area],
        use_pyplot=use_pyplot,
    )


def _known(methods: Sequence[str], records: Iterable[Record]) -> list[str]:
    """The names of the methods to draw; an error if one has no record."""
    known = dict.fromkeys(record.name for record in records)
    if unknown := [name for name in methods if name not in known]:
        raise ValueError(f"there is no record of {unknown[0]!r} here: there are {list(known)}")
    return list(methods)

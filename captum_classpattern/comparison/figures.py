"""Which methods a figure shows, and a comparison's records as maps and curves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
from torch import Tensor

from captum_classpattern.comparison.records import (
    Record,
    by_name,
    control_names,
    cut_from_canvas,
    search_names,
)
from captum_classpattern.comparison.tables import mean_power
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.visualization import plot_curves, plot_maps
from captum_classpattern.visualization.formats import percent

Drawing = tuple[Any, npt.NDArray[Any]]
Curve = list[tuple[float, float, float, float]]
COLUMNS, CONTROLS = 8, 3  # methods in a figure, and controls among them, at most


def strongest_names(records: Sequence[Record], area: float) -> list[str]:
    """Names of the methods that explain single images, strongest first, each in the ranking with
    the higher mean power."""
    powers: dict[tuple[str, str], list[tuple[int, PredictivePower]]] = {}
    for r in records:
        explains_images = not (r.control or r.searches or r.free)
        if r.powers and r.level == "image" and explains_images:
            powers.setdefault((r.method, r.name), []).append((r.target, r.powers[area]))
    best: dict[str, str] = {}
    for method, name in sorted(powers, key=lambda key: -mean_power(powers[key]).value):
        best.setdefault(method, name)
    return list(best.values())


def figure_names(records: Sequence[Record], area: float) -> list[str]:
    """Names of the methods that a figure has room for: searches, the strongest others, the
    strongest controls. Methods whose pixels are not cut from the canvas are left out, unless there
    are no others."""
    records = cut_from_canvas(records) or records
    first = search_names(records)[:COLUMNS]
    last = _strongest_controls(records, area, min(CONTROLS, COLUMNS - len(first)))
    room = COLUMNS - len(first) - len(last)
    return [*first, *strongest_names(records, area)[:room], *last]


def _strongest_controls(records: Sequence[Record], area: float, most: int) -> list[str]:
    """The names of the controls with the highest mean power, in their own order."""
    names = control_names(records)
    groups = by_name([r for r in records if r.control and r.powers])
    powers = {
        name: mean_power((r.target, r.powers[area]) for r in group).value
        for name, group in groups.items()
    }
    first = sorted(names, key=lambda name: -powers.get(name, 0.0))[:most]
    return [name for name in names if name in first]


def draw_maps(
    records: Sequence[Record],
    methods: Sequence[str] | None,
    *,
    area: float,
    canvas_of: Callable[[Record], Tensor],
    pattern_of: Callable[[Record], Pattern],
    row_name: Callable[[Record], str],
    show: str,
    title: str | None,
    use_pyplot: bool,
) -> Drawing:
    """One row for each model and canvas of the records, one column for each method."""
    usual = [record.name for record in records if record.name == record.method]
    columns = list(dict.fromkeys(usual)) if methods is None else _choose(records, methods)
    rows: dict[tuple[str, int], dict[str, Record]] = {}
    for record in records:
        rows.setdefault((record.model, record.canvas), {})[record.name] = record
    grid = [[row.get(name) for name in columns] for row in rows.values()]
    firsts = [next(iter(row.values())) for row in rows.values()]
    return plot_maps(
        [canvas_of(record) for record in firsts],
        [[None if r is None else r.map for r in row] for row in grid],
        [[None if r is None else pattern_of(r) for r in row] for row in grid],
        [[_caption(record, area) for record in row] for row in grid],
        row_names=[row_name(record) for record in firsts],
        column_names=columns,
        title=title,
        show=show,
        use_pyplot=use_pyplot,
    )


def _caption(record: Record | None, area: float) -> str:
    if record is not None and record.powers:
        return percent(record.powers[area].value)
    iou = None if record is None else record.score("iou")
    return "" if iou is None else f"IoU {iou:.2f}"


def draw_curves(
    records: Sequence[Record], methods: Sequence[str] | None, *, area: float, use_pyplot: bool
) -> Drawing:
    """One panel for each model: the mean power of each method over the area."""
    scored = [record for record in records if record.powers]
    if not scored:
        raise ValueError("there is nothing to draw: none of these canvases has been scored")
    names = figure_names(scored, area) if methods is None else _choose(scored, methods)
    panels: dict[str, dict[str, Curve]] = {}
    for model in dict.fromkeys(record.model for record in scored):
        groups = by_name([record for record in scored if record.model == model])
        for name in names:
            if name in groups:
                panels.setdefault(model, {})[name] = _curve(groups[name])
    return plot_curves(
        panels,
        highlight=[name for name in search_names(scored) if name in names],
        controls=[name for name in control_names(scored) if name in names],
        areas_marked=[area],
        use_pyplot=use_pyplot,
    )


def _curve(records: Sequence[Record]) -> Curve:
    """The mean over classes at each area, and the ends of its interval."""
    points = []
    for area in records[0].powers:
        mean = mean_power((r.target, r.powers[area]) for r in records)
        points.append((area, mean.value, *mean.interval))
    return points


def _choose(records: Sequence[Record], methods: Sequence[str]) -> list[str]:
    """The names of the methods to draw; an error if one has no record."""
    known = dict.fromkeys(record.name for record in records)
    unknown = [name for name in methods if name not in known]
    if unknown:
        raise ValueError(f"there is no record of {unknown[0]!r} here: there are {list(known)}")
    return list(methods)

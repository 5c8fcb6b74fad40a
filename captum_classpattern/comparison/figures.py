"""A comparison's records as figures: what goes into which cell, and which curve."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from captum_classpattern.comparison.choosing import controls, searching
from captum_classpattern.comparison.means import mean_power
from captum_classpattern.comparison.records import Record
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.visualization import plot_curves, plot_maps

if TYPE_CHECKING:
    from captum_classpattern.comparison.result import Comparison

Drawing = tuple[Any, npt.NDArray[Any]]
Curve = list[tuple[float, float, float, float]]


def draw_maps(
    comparison: "Comparison",
    records: Sequence[Record],
    methods: Sequence[str] | None,
    *,
    show: str,
    title: str | None,
    use_pyplot: bool,
) -> Drawing:
    """A row for each model and canvas among the records, a column for each method."""
    columns = _chosen(records, methods, usual=lambda r: r.name == r.method)
    rows: dict[tuple[str, int], dict[str, Record]] = {}
    for record in records:
        rows.setdefault((record.model, record.canvas), {})[record.name] = record
    grid = [[row.get(name) for name in columns] for row in rows.values()]
    firsts = [next(iter(row.values())) for row in rows.values()]
    several = len({record.model for record in records}) > 1
    return plot_maps(
        [comparison.canvas_of(record) for record in firsts],
        [[None if r is None else r.map for r in row] for row in grid],
        [[None if r is None else comparison.pattern_of(r) for r in row] for row in grid],
        [[_caption(record, comparison.area) for record in row] for row in grid],
        row_names=[
            record.model if several else comparison.class_name(record.target) for record in firsts
        ],
        column_names=columns,
        title=title,
        show=show,
        use_pyplot=use_pyplot,
    )


def _caption(record: Record | None, area: float) -> str:
    if record is None:
        return ""
    if record.powers:
        return f"{100 * record.powers[area].value:.1f} %"
    found = record.localisation
    return "" if found is None else f"IoU {found.iou:.2f}"


def draw_curves(
    comparison: "Comparison",
    records: Sequence[Record],
    methods: Sequence[str] | None,
    use_pyplot: bool,
) -> Drawing:
    """A panel for each model: mean power over the area, of each method."""
    panels: dict[str, dict[str, Curve]] = {}
    scored = [record for record in records if record.powers]
    if not scored:
        raise ValueError("there is nothing to draw: none of these canvases has been scored")
    names = _chosen(scored, methods, usual=lambda r: True)
    for model in comparison.models:
        for name in names:
            group = [r for r in scored if r.model == model and r.name == name]
            if group:
                panels.setdefault(model, {}).update(_curves(name, group, comparison.area))
    return plot_curves(
        panels,
        highlight=[name for name in searching(scored) if name in names],
        controls=[name for name in controls(scored) if name in names],
        areas_marked=[comparison.area],
        use_pyplot=use_pyplot,
    )


def _curves(name: str, records: Sequence[Record], area: float) -> dict[str, Curve]:
    """The curve of a method; of one that searches for an area, also that of its one map, cut."""
    curves = {name: _curve(records, [r.powers for r in records])}
    if records[0].rethresholded:
        cut = [{**r.rethresholded, area: r.powers[area]} for r in records]
        curves[f"{name}, {100 * area:.3g} % map cut"] = sorted(_curve(records, cut))
    return curves


def _curve(records: Sequence[Record], powers: Sequence[Mapping[float, PredictivePower]]) -> Curve:
    """The mean over classes at each area, and the ends of its interval."""
    points = []
    for area in powers[0]:
        mean = mean_power((r.target, of_areas[area]) for r, of_areas in zip(records, powers))
        points.append((area, mean.value, *mean.interval))
    return points


def _chosen(records: Sequence[Record], methods: Sequence[str] | None, usual: Any) -> list[str]:
    """The names of methods to draw, in order; an error if one has no record."""
    known = dict.fromkeys(record.name for record in records)
    if methods is None:
        return list(dict.fromkeys(record.name for record in records if usual(record)))
    unknown = [name for name in methods if name not in known]
    if unknown:
        raise ValueError(f"there is no record of {unknown[0]!r} here: there are {list(known)}")
    return list(methods)

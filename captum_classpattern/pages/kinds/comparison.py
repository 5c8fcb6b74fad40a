"""A comparison: in a notebook the patterns of the first canvas, mean powers and verdicts; as a page
the report. As figures, maps and curves."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from markupsafe import Markup

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.figures import figure_names
from captum_classpattern.comparison.records import (
    by_name,
    control_names,
    counted,
    full_name,
    search_names,
)
from captum_classpattern.comparison.tables import mean_power, rows_by_method
from captum_classpattern.pages import parts as html
from captum_classpattern.pages.report.page import write_report
from captum_classpattern.visualization import plot_curves as draw_curves
from captum_classpattern.visualization import plot_maps
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area, percent_range
from captum_classpattern.visualization.lines import Point

COLUMNS = ("method", "model", "canvas", "power", "95 % interval", "no pattern")


def write(comparison: Comparison, path: str | PathLike[str]) -> Path:
    return write_report(comparison, Path(path))


def parts(comparison: Comparison, whole: bool = False) -> tuple[str, list[Markup]]:
    scored = [record for record in comparison.records if record.powers]
    names = figure_names(scored, comparison.area)
    verdicts = sorted(comparison.verdicts(), key=lambda verdict: bool(verdict["holds"]))
    holds = sum(bool(verdict["holds"]) for verdict in verdicts)
    failed = counted(len(comparison.failures), "failure")
    shown = [
        html.side_by_side(*_pictured(comparison, names)),
        _power_table(comparison, [record for record in scored if record.name in names]),
        html.paragraph(
            f"Power of {percent_area(comparison.area)} of the pixels on held-out images: means "
            f"over classes with their 95 % intervals. {failed}."
        ),
    ]
    if verdicts:
        texts = [
            (("Holds: " if v["holds"] else "Fails: ") + f"{v['title']}. {v['text']}")
            for v in verdicts
        ]
        heading = f"Verdicts: {holds} of {len(verdicts)} hold"
        shown.append(html.folded(heading, *map(html.paragraph, texts)))
    return "Comparison", shown


def _power_table(comparison: Comparison, records: Sequence[Record]) -> Markup:
    """The mean powers of methods, a row for each model and kind of canvas."""
    key = f"power_{comparison.area:g}"
    rows = [
        (
            f"{full_name(row['method'], row['level'], row['ranking'])}"
            + (" (control)" if row["control"] else ""),
            row["model"],
            row["kind"],
            percent(row[key]),
            percent_range(row[f"{key}_low"], row[f"{key}_high"]),
            percent(row["no_pattern"]),
        )
        for row in rows_by_method(records, [], ())
    ]
    return html.table(COLUMNS, rows)


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
    show: str,
    title: str | None,
    use_pyplot: bool,
) -> Drawing:
    """One row for each model and canvas, one column for each method."""
    number = comparison._class_number(target)
    all_models = model is None and number is not None
    chosen = [
        record
        for record in comparison.select(kind=kind or comparison.kinds[0])
        if (all_models or record.model == (model or next(iter(comparison.models))))
        and number in (None, record.target)
    ]
    if not chosen:
        raise ValueError(
            f"there is nothing to draw for model {model!r}, class {number!r}, canvas {kind!r}: "
            f"models are {list(comparison.models)}, classes {sorted(set(comparison.targets))}, "
            f"canvases {sorted({record.kind for record in comparison.records})}"
        )
    several = len({record.model for record in chosen}) > 1
    usual = [record.name for record in chosen if record.name == record.method]
    columns = list(dict.fromkeys(usual)) if methods is None else _choose(chosen, methods)
    rows: dict[tuple[str, int], dict[str, Record]] = {}
    for record in chosen:
        rows.setdefault((record.model, record.canvas), {})[record.name] = record
    grid = [[row.get(name) for name in columns] for row in rows.values()]
    firsts = [next(iter(row.values())) for row in rows.values()]
    return plot_maps(
        [comparison.canvas_of(record) for record in firsts],
        [[None if r is None else r.map for r in row] for row in grid],
        [[None if r is None else comparison.pattern_of(r) for r in row] for row in grid],
        [[_caption(record, comparison.area) for record in row] for row in grid],
        row_names=[r.model if several else comparison.class_name(r.target) for r in firsts],
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


def plot_curves(
    comparison: Comparison, *, kind: str | None, methods: Sequence[str] | None, use_pyplot: bool
) -> Drawing:
    """One panel for each model: the mean power of each method over the area."""
    records = comparison.select(kind=kind or comparison.kinds[0])
    scored = [record for record in records if record.powers]
    if not scored:
        raise ValueError("there is nothing to draw: none of these canvases has been scored")
    area = comparison.area
    names = figure_names(scored, area) if methods is None else _choose(scored, methods)
    panels: dict[str, dict[str, list[Point]]] = {}
    for model in dict.fromkeys(record.model for record in scored):
        groups = by_name([record for record in scored if record.model == model])
        for name in names:
            if name in groups:
                panels.setdefault(model, {})[name] = _curve(groups[name])
    return draw_curves(
        panels,
        highlight=[name for name in search_names(scored) if name in names],
        controls=[name for name in control_names(scored) if name in names],
        areas_marked=[area],
        use_pyplot=use_pyplot,
    )


def _curve(records: Sequence[Record]) -> list[Point]:
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

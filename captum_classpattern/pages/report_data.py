"""A comparison's scores as tables, and its patterns at each area for the slider of the report."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_classpattern.comparison import STAMPED, Comparison, Record
from captum_classpattern.comparison.metrics import POWER, TRIGGER
from captum_classpattern.comparison.records import (
    first_names,
    full_name,
    search_names,
    strongest_names,
)
from captum_classpattern.images import evenly_spaced
from captum_classpattern.pages.parts import Column, Row, Table
from captum_classpattern.pattern import pixels_kept
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.visualization.drawing import levels
from captum_classpattern.visualization.formats import (
    SPACE,
    number,
    percent,
    percent_area,
    percent_range,
)
from captum_classpattern.visualization.style import NO_PIXEL

LEVELS = {"image": "image", "class": "class mean"}
BETWEEN_WORDS = re.compile("(?<=[a-z])(?=[A-Z])")  # of IntegratedGradients: it may break there
SMALL = 0.01  # the second area of the main table, if it was scored
CONTROL = "control"
TRIGGERS = {True: "this model's", False: "another model's (control)"}
ENDS = ("", "_low", "_high")  # of the keys of a power and of its interval
NAMES = (Column("method", "name"), Column("model", "model"), Column("canvas", "kind"))
NO_PATTERN = Column("no pattern", "no_pattern", percent)
DIFFERENCES = "Differences between methods"
BETWEEN = [Column("minus", "other"), Column("points (95 % interval)", "points")]


def tables(comparison: Comparison) -> list[Table]:
    """All tables with any values, the main one first."""
    rows, area = scored_rows(comparison), comparison.area
    scored = [row for row in rows if row["kind"] != STAMPED]
    at_area, cost = power_columns(comparison), _metric_columns(comparison, POWER)
    powers = [
        Column(f"power at {percent_area(a)}", f"power_{a:g}", interval="bar")
        for a in dict.fromkeys((area, *(a for a in comparison.areas if a == SMALL)))
    ]
    trigger = _metric_columns(comparison, TRIGGER)
    found = _found_rows(rows, trigger, comparison.backdoored)
    hidden = [row for row in found if row["kind"] != STAMPED]
    visible = [row for row in found if row["kind"] == STAMPED]
    trigger.insert(0, Column("trigger", "whose trigger"))  # a metric may be called trigger
    made = [
        ("main", POWER, scored, [*powers, NO_PATTERN, *cost]),
        ("differences", DIFFERENCES, _differences(comparison), BETWEEN),
        ("areas", "Predictive power at each area", _add_cut(scored, area), at_area),
        ("hidden", f"{TRIGGER}: hidden", hidden, trigger),
        ("visible", f"{TRIGGER}: visible", visible, trigger),
    ]
    others = {metric.table: None for metric in comparison.metrics}
    for i, title in enumerate(title for title in others if title not in (POWER, TRIGGER)):
        columns = _metric_columns(comparison, title)
        made.append((f"metrics-{i}", title, rows, columns))
    filled = [
        Table([*NAMES, *columns], of_table, key, title).filled(len(NAMES))
        for key, title, of_table, columns in made
    ]
    return [table for table in filled if table.rows]


def numbers_tables(comparison: Comparison) -> list[Table]:
    """The power of each method, strongest first: a row for each method, a column for each model and
    kind of canvas. The first table has the methods that are shown at once, and no pattern."""
    scored = [record for record in comparison.records if record.powers]
    names = strongest_names(scored, comparison.area)
    rows: dict[str, dict[str, Any]] = {
        name: {"name": BETWEEN_WORDS.sub("\N{ZERO WIDTH SPACE}", name)} for name in names
    }
    bare: dict[str, Any] = {"name": "no pattern", "role": CONTROL}
    several = len({record.kind for record in scored}) > 1
    columns: dict[str, Column] = {}
    for row in scored_rows(comparison):
        if row["kind"] != STAMPED and row["name"] in names:
            place = f"{row['model']}, {row['kind']} canvas" if several else row["model"]
            columns[place] = Column(place, f"on {place}", percent, interval="bar")
            power = {f"on {place}{end}": row[f"power_{comparison.area:g}{end}"] for end in ENDS}
            rows[row["name"]] |= {"role": row["role"], **power}
            bare[f"on {place}"] = row["no_pattern"]
    first = first_names(names)
    title = f"Power of {percent_area(comparison.area)} of the pixels"
    return [
        Table([NAMES[0], *columns.values()], of_table, key, title)
        for key, of_table in (
            ("numbers", [*(rows[name] for name in first), *([bare] if names else [])]),
            ("more-numbers", [rows[name] for name in names if name not in first]),
        )
    ]


def power_columns(comparison: Comparison) -> list[Column]:
    """The powers at all areas."""
    return [
        Column(percent_area(area), f"power_{area:g}", interval="text") for area in comparison.areas
    ]


def scored_rows(comparison: Comparison) -> list[Row]:
    """The means of each method with its name, its role and what the page filters by; by model, kind
    of canvas and falling power."""
    searches = search_names(comparison.records)
    rows: list[Row] = []
    for row in comparison.rows():
        if "failure" not in row:
            name = full_name(row)
            role = CONTROL if row["control"] else "searches" if name in searches else ""
            facets = {
                "model": row["model"],
                "canvas": row["kind"],
                "map of": LEVELS[row["level"]],
                "ranking": row["ranking"],
            }
            rows.append({**row, "name": name, "role": role, "facets": facets})
    models, kinds = list(comparison.models), [*dict.fromkeys(comparison.kinds), STAMPED]
    power = f"power_{comparison.area:g}"
    rows.sort(key=lambda r: (models.index(r["model"]), kinds.index(r["kind"]), -r.get(power, 0.0)))
    return rows


def _metric_columns(comparison: Comparison, table: str) -> list[Column]:
    """The columns of the metrics that a table shows."""
    columns = []
    for metric in comparison.metrics:
        records = comparison.records if metric.table == table else []
        keys = dict.fromkeys(key for r in records for key in r.columns(metric.name))
        by_model = [f"{metric.name}_{model}" for model in comparison.models]
        for key in sorted(keys, key=lambda k: by_model.index(k) if k in by_model else -1):
            entry = key.removeprefix(metric.name).removeprefix("_")
            title = f"{metric.title} {entry}".strip()
            heading = f"{title} ({metric.unit})" if metric.unit else title
            write = partial(number, spec=metric.format, unit=metric.unit)
            note = (metric.heading, metric.note)
            columns.append(Column(heading, key, write, interval="bar", note=note))
    return columns


def _differences(comparison: Comparison) -> list[Row]:
    """How far the strongest method of each model is above the others, in points."""
    return [
        {
            **row,
            "name": row["method"],
            "kind": comparison.kinds[0],
            "role": "",
            "facets": {"model": row["model"], "canvas": comparison.kinds[0]},
            "points": "{:+.1f} ({:+.1f} to {:+.1f})".format(
                *(100 * row[f"difference{end}"] for end in ENDS)
            ),
        }
        for row in comparison.differences()
    ]


def _add_cut(rows: Sequence[Row], area: float) -> list[Row]:
    """For methods that search, one more row with the powers of their one map, cut."""
    lines: list[Row] = []
    for row in rows:
        lines.append(row)
        others = {key: value for key, value in row.items() if not key.startswith("power")}
        cut = {
            key.replace("rethresholded", "power"): value
            for key, value in row.items()
            if key.startswith("rethresholded")
        }
        if cut:
            lines.append({**others, **cut, "name": f"{row['name']}, {percent_area(area)} map cut"})
    return lines


def _found_rows(
    rows: Sequence[Row], columns: Sequence[Column], backdoored: Sequence[str]
) -> list[Row]:
    """The rows with a score for the trigger: backdoored models first, best method first."""
    found: list[Row] = [
        {**row, "whose trigger": TRIGGERS[row["model"] in backdoored]}
        for row in rows
        if any(row.get(column.key) is not None for column in columns)
    ]
    found.sort(key=lambda r: (r["model"] not in backdoored, -(r.get(columns[0].key) or 0)))
    return found


# ---- the slider over the area: masks bit by bit, in base64

MAX_CHARACTERS = 4_000_000  # of masks and canvases in a page
SEARCHED, CUT = "Searched again for each area.", "One map, cut to each area."

Records = Mapping[tuple[int, str, str], Record]  # by canvas, model and name


def area_slider(comparison: Comparison) -> dict[str, Any]:
    """The patterns of all methods, strongest first: what the slider draws (None if canvases are not
    greyscale or colour images), how many canvases there was room for, which methods ran again for
    each area, whether others did not, and the numbers as a table."""
    scored = [record for record in comparison.records if record.powers]
    names = strongest_names(scored, comparison.area)
    own_colours = {r.name for r in scored if not r.cut_from_canvas}
    canvases = _canvases(comparison, len(names), len(own_colours))
    known = {(r.canvas, r.model, r.name): r for r in scored}
    places = ((i, model, name) for i in canvases for model in comparison.models for name in names)
    records = {place: known[place] for place in places if place in known}
    drawable = comparison.canvases.shape[1] in (1, 3) and records
    again = {record.name for record in records.values() if record.searches}
    searched = [name for name in names if name in again]
    return {
        "data": _data(comparison, canvases, names, records) if drawable else None,
        "n_canvases": len(canvases),
        "searched": searched,
        "others": len(searched) < len(names),
        "table": _table(comparison, records),
    }


def _canvases(comparison: Comparison, n_methods: int, own_colours: int) -> list[int]:
    """As many canvases as there is room for, evenly spaced; some methods come with images."""
    count, channels, height, width = comparison.canvases.shape
    cells = len(comparison.models) * len(comparison.areas)
    images = 1 + cells * own_colours
    bytes_each = channels * height * width * images + cells * n_methods * -(-height * width // 8)
    room = max(1, int(MAX_CHARACTERS / (4 / 3 * bytes_each)))
    return evenly_spaced(count, room)


def _data(
    comparison: Comparison, canvases: Sequence[int], names: Sequence[str], records: Records
) -> Mapping[str, Any]:
    height, width = comparison.canvases.shape[2:]
    methods = []
    for name in names:
        named = [record for record in records.values() if record.name == name]
        how = SEARCHED if any(record.searches for record in named) else CUT
        control = any(record.control for record in named)
        more = name not in first_names(names)
        methods.append({"name": name, "how": how, "control": control, "more": more})
    searches = [name for name in names if name in search_names(records.values())]
    strongest = max(
        (record for record in records.values() if record.name == (searches or names)[0]),
        key=lambda record: record.powers[comparison.area].value,
    )
    return {
        "height": height,
        "width": width,
        "background": [round(255 * value) for value in NO_PIXEL],
        "areas": [
            f"{percent_area(area)}, {pixels_kept(area, (height, width)):,} of {height * width:,}"
            for area in comparison.areas
        ],
        "start": {
            "area": comparison.areas.index(comparison.area),
            "model": list(comparison.models).index(strongest.model),
            "canvas": list(canvases).index(strongest.canvas),
            "method": names.index(strongest.name),
        },
        "models": list(comparison.models),
        "canvases": [
            {
                "name": _canvas_name(comparison, i),
                "class": comparison.class_name(comparison.targets[i]),
                "pixels": _encoded(levels(comparison.canvases[i])),
            }
            for i in canvases
        ],
        "methods": methods,
        "cells": [
            [[_cell(records.get((i, model, name))) for name in names] for i in canvases]
            for model in comparison.models
        ],
    }


def _canvas_name(comparison: Comparison, canvas: int) -> str:
    """``Bag, white canvas``, followed by its number if there are several of them."""
    canvases = list(zip(comparison.targets, comparison.kinds))
    target, kind = canvases[canvas]
    kind = kind if kind == "canvas" else f"{kind} canvas"
    name = f"{comparison.class_name(target)}, {kind}"
    return name if canvases.count(canvases[canvas]) == 1 else f"{name} {canvas}"


def _cell(record: Record | None) -> Mapping[str, Any] | None:
    """A method's patterns of one canvas at all areas, with their numbers as texts."""
    if record is None:
        return None
    cut = record.rethresholded
    return {
        "masks": [_encoded(np.packbits(mask.flatten().numpy())) for mask in record.masks.values()],
        "pixels": [_encoded(levels(own.canvas)) for own in record.own.values()],
        "powers": [_power(power) for power in record.powers.values()],
        "cut": [percent(cut[area].value) if area in cut else None for area in record.powers],
    }


def _power(power: PredictivePower) -> Mapping[str, Any]:
    return {
        "text": percent(power.value),
        "interval": f"{percent_range(*power.interval)}{SPACE}%",
        "images": f"{power.n:,}",
        "without": percent(power.without),
        "percent": [round(100 * v, 2) for v in (power.value, *power.interval, power.without)],
    }


def _encoded(values: npt.NDArray[np.uint8]) -> str:
    """Masks with eight pixels in a byte, images pixel by pixel."""
    return b64encode(values.tobytes()).decode()


def _table(comparison: Comparison, records: Records) -> Table:
    """The numbers of the slider."""
    shown = replace(comparison, records=[*records.values()], failures=[], metrics=())
    rows = [
        {
            **row,
            "name": full_name(row),
            "role": CONTROL if row["control"] else "",
            "kind": _canvas_name(comparison, row["canvas"]),
        }
        for row in shown.rows("canvas")
    ]
    columns = [*NAMES, *power_columns(comparison), NO_PATTERN]
    return Table(columns, rows, "by-area", "The same numbers as a table").filled(len(NAMES))

"""A comparison's scores as tables, and its patterns at each area for the slider of the report."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.records import (
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

BETWEEN_WORDS = re.compile("(?<=[a-z])(?=[A-Z])")  # of IntegratedGradients: it may break there
WITHOUT = Column("no pattern", "no_pattern", percent)
ENDS = ("", "_low", "_high")  # of the keys of a power and of its interval
NAME_COLUMNS = (Column("method", "name"), Column("model", "model"), Column("canvas", "kind"))
BETWEEN = (Column("minus", "other"), Column("points (95 % interval)", "points"))


def tables(comparison: Comparison) -> list[Table]:
    """All tables with any values."""
    powers = [
        Column(percent_area(area), f"power_{area:g}", interval="text") for area in comparison.areas
    ]
    metrics = [
        Column(
            metric.heading,
            metric.name,
            partial(number, unit=metric.unit),
            interval="bar",
            note=(metric.heading, metric.note),
        )
        for metric in comparison.metrics
    ]
    differences = [  # of the strongest method of each model from the others, in points
        {
            "name": row["method"],
            "model": row["model"],
            "kind": comparison.kinds[0],
            "other": row["other"],
            "points": "{:+.1f} ({:+.1f} to {:+.1f})".format(
                *(100 * row[f"difference{end}"] for end in ENDS)
            ),
        }
        for row in comparison.differences()
    ]
    rows, names = scored_rows(comparison), [*NAME_COLUMNS]
    made = [
        Table([*names, *powers, WITHOUT], rows, "areas", "Predictive power at each area"),
        Table([*names, *BETWEEN], differences, "differences", "Differences between methods"),
        Table([*names, *metrics], rows, "metrics", "Other metrics"),
    ]
    filled = [table.filled(len(names)) for table in made]
    return [table for table in filled if table.rows]


def numbers_table(comparison: Comparison) -> Table:
    """The power of each method, strongest first, and without a pattern: a row for each method, a
    column for each model and kind of canvas."""
    scored = [record for record in comparison.records if record.powers]
    rows: dict[str, dict[str, Any]] = {
        name: {"name": BETWEEN_WORDS.sub("\N{ZERO WIDTH SPACE}", name)}
        for name in strongest_names(scored, comparison.area)
    }
    bare: dict[str, Any] = {"name": "no pattern", "role": "control"}
    several = len({record.kind for record in scored}) > 1
    columns: dict[str, Column] = {}
    keys: dict[str, str] = {}
    for row in scored_rows(comparison):
        if "no_pattern" in row:
            place = f"{row['model']}, {row['kind']} canvas" if several else row["model"]
            key = keys.setdefault(place, f"power {len(keys)}")  # names may end as intervals do
            columns[place] = Column(place, key, percent, interval="bar")
            power = {f"{key}{end}": row[f"power_{comparison.area:g}{end}"] for end in ENDS}
            rows[row["name"]] |= {"role": row["role"], **power}
            bare[key] = row["no_pattern"]
    title = f"Power of {percent_area(comparison.area)} of the pixels"
    shown = [*rows.values(), bare] if rows else []
    return Table([NAME_COLUMNS[0], *columns.values()], shown, "numbers", title)


def scored_rows(comparison: Comparison) -> list[Row]:
    """The means of each method with its name and its role; by model, kind of canvas and falling
    power."""
    searches = search_names(comparison.records)
    rows: list[Row] = []
    for row in comparison.rows():
        if "failure" not in row:
            name = full_name(row["method"], row["cut_from_canvas"])
            role = "control" if row["control"] else "searches" if name in searches else ""
            rows.append({**row, "name": name, "role": role})
    models = list(comparison.models)
    kinds = list(dict.fromkeys(record.kind for record in comparison.records))
    power = f"power_{comparison.area:g}"
    rows.sort(key=lambda r: (models.index(r["model"]), kinds.index(r["kind"]), -r.get(power, 0.0)))
    return rows


# ---- the slider over the area: masks bit by bit, in base64

MAX_CHARACTERS = 4_000_000  # of masks and canvases in a page
SEARCHED, CUT = "Searched again for each area.", "One map, cut to each area."


def area_slider(comparison: Comparison) -> dict[str, Any] | None:
    """The patterns of all methods, strongest first, of as many canvases as there is room for; None
    if nothing was scored, or canvases are not greyscale or colour images."""
    scored = [record for record in comparison.records if record.powers]
    channels, height, width = comparison.canvases.shape[1:]
    if not scored or channels not in (1, 3):
        return None
    names, models = strongest_names(scored, comparison.area), list(comparison.models)
    searches = search_names(scored)
    by_name = {record.name: record for record in scored}
    canvases = _canvases(comparison, [*by_name.values()])
    records = {(r.canvas, r.model, r.name): r for r in scored if r.canvas in canvases}
    best = next((name for name in names if name in searches), names[0])
    strongest = max(
        (record for record in records.values() if record.name == best),
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
            "model": models.index(strongest.model),
            "canvas": canvases.index(strongest.canvas),
            "method": names.index(best),
        },
        "models": models,
        "canvases": [
            {
                "name": _canvas_name(comparison, i),
                "class": comparison.class_name(comparison.targets[i]),
                "pixels": _encoded(levels(comparison.canvases[i])),
            }
            for i in canvases
        ],
        "methods": [
            {
                "name": name,
                "how": SEARCHED if by_name[name].searches else CUT,
                "control": by_name[name].control,
            }
            for name in names
        ],
        "cells": [
            [[_cell_of_slider(records.get((i, model, name))) for name in names] for i in canvases]
            for model in models
        ],
    }


def _canvases(comparison: Comparison, methods: Sequence[Record]) -> list[int]:
    """As many canvases as there is room for, evenly spaced; some methods come with images."""
    count, channels, height, width = comparison.canvases.shape
    cells = len(comparison.models) * len(comparison.areas)
    images = 1 + cells * sum(not record.cut_from_canvas for record in methods)
    masks = cells * len(methods) * -(-height * width // 8)  # bytes
    room = MAX_CHARACTERS / (4 / 3 * (channels * height * width * images + masks))
    return evenly_spaced(count, max(1, int(room)))


def _canvas_name(comparison: Comparison, canvas: int) -> str:
    """``Bag, white canvas``, followed by its number if there are several of them."""
    canvases = list(zip(comparison.targets, comparison.kinds))
    target, kind = canvases[canvas]
    kind = kind if kind == "canvas" else f"{kind} canvas"
    name = f"{comparison.class_name(target)}, {kind}"
    return name if canvases.count(canvases[canvas]) == 1 else f"{name} {canvas}"


def _cell_of_slider(record: Record | None) -> Mapping[str, Any] | None:
    """A method's patterns of one canvas at all areas, with their numbers as texts."""
    if record is None:
        return None
    return {
        "masks": [_encoded(np.packbits(mask.flatten().numpy())) for mask in record.masks.values()],
        "pixels": [_encoded(levels(own.canvas)) for own in record.own.values()],
        "powers": [_power(power) for power in record.powers.values()],
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

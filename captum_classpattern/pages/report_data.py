"""A comparison's scores as tables, and its patterns at each area for the slider of the report."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
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
from captum_classpattern.pattern import pixels_kept
from captum_classpattern.results import as_table, as_texts
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.visualization.drawing import levels
from captum_classpattern.visualization.formats import (
    SPACE,
    percent,
    percent_area,
    percent_range,
)
from captum_classpattern.visualization.style import NO_PIXEL

NAMES = {"model": "", "method": "", "canvas": ""}  # columns


def tables(comparison: Comparison) -> dict[str, Any]:
    """All tables with any values, as texts, by their titles."""
    scored = [
        row | {"area": percent_area(area)}
        for area in comparison.areas
        for row in scored_rows(comparison, area)
        if row["power"] is not None
    ]
    shares = {**dict.fromkeys(("power", "control", "no_pattern"), ".1%"), "area": ""}
    headings = {metric.name: metric.heading for metric in comparison.metrics}
    metrics = as_table(scored_rows(comparison, comparison.area)).reindex(
        columns=[*NAMES, *headings]
    )
    metrics = metrics.dropna(subset=[*headings], how="all").rename(columns=headings)
    differences = {"model": "", "method": "", "other": "", "difference": "+.1%"}
    made = {
        "Predictive power at each area": as_texts(as_table(scored), NAMES | shares),
        "Differences between methods": as_texts(as_table(comparison.differences()), differences),
        "Other metrics": as_texts(metrics, dict.fromkeys(metrics, "")),
    }
    return {title: frame for title, frame in made.items() if len(frame)}


def scored_rows(comparison: Comparison, area: float) -> list[dict[str, Any]]:
    """The means of each method at an area, under its full name; by model, kind of canvas and
    falling power."""
    rows = [row for row in comparison.rows() if row.get("area") == area]
    for row in rows:
        control = " (control)" * row["is_control"]
        row["method"] = full_name(row["method"], row["cut_from_canvas"]) + control
    models = list(comparison.models)
    kinds = list(dict.fromkeys(record.kind for record in comparison.records))

    def place(row: dict[str, Any]) -> tuple[int, int, float]:
        return models.index(row["model"]), kinds.index(row["canvas"]), -(row["power"] or 0.0)

    return sorted(rows, key=place)


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

"""The patterns at each area, as the page's slider draws them: masks bit by bit, in base64."""

from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.metrics import NOT_CUT
from captum_classpattern.comparison.records import control_names, counted, full_name, search_names
from captum_classpattern.comparison.tables import rows_by_canvas, strongest_names
from captum_classpattern.pages.report.tables import CONTROL, NAMES, NO_PATTERN, power_columns
from captum_classpattern.pages.tables import Table
from captum_classpattern.pattern import pixels_kept
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.visualization.formats import SPACE, percent, percent_area, percent_range
from captum_classpattern.visualization.style import NO_PIXEL

MAX_CHARACTERS = 4_000_000  # of masks and canvases in a page
SEARCHED, CUT = "Searched again for each area.", "One map, cut to each area."

Records = Mapping[tuple[int, str, str], Record]  # by canvas, model and name


@dataclass(frozen=True)
class AreaSlider:
    """What the slider draws (None if canvases are not greyscale or colour images), how its methods
    choose pixels, a note on canvases that were left out, and the numbers as a table."""

    data: Mapping[str, Any] | None
    how: str
    left_out: str
    table: Table


def area_slider(comparison: Comparison) -> AreaSlider:
    """The patterns of the searches, of the strongest other method and of the controls."""
    scored = [record for record in comparison.records if record.powers]
    strongest = strongest_names(scored, comparison.area)[:1]
    names = [*search_names(scored), *strongest, *control_names(scored)]
    canvases = _canvases(comparison, len(names), len({r.name for r in scored if r.free}))
    known = {(r.canvas, r.model, r.name): r for r in scored}
    places = ((i, model, name) for i in canvases for model in comparison.models for name in names)
    records = {place: known[place] for place in places if place in known}
    left_out = "" if len(canvases) == len(comparison.canvases) else (
        f"To keep this file small, it shows only {len(canvases)} of the "
        f"{counted(len(comparison.canvases), 'canvas', 'canvases')} here. The tables below count "
        "all of them."
    )  # fmt: skip
    drawable = comparison.canvases.shape[1] in (1, 3) and records
    data = _data(comparison, canvases, names, records) if drawable else None
    return AreaSlider(data, _how(names, records.values()), left_out, _table(comparison, records))


def _how(names: Sequence[str], records: Collection[Record]) -> str:
    """Which methods ran again for each area, and what the others do."""
    searched = [name for name in names if any(r.name == name and r.searches for r in records)]
    sentences = [f"Searched again for each area: {', '.join(searched)}."] if searched else []
    if len(searched) < len(names):
        subject = "All others" if searched else "Methods"
        sentences.append(f"{subject} have one map, whose highest pixels are kept.")
    return " ".join(sentences)


def _canvases(comparison: Comparison, n_methods: int, own_colours: int) -> list[int]:
    """As many canvases as there is room for, evenly spaced; some methods come with images."""
    count, channels, height, width = comparison.canvases.shape
    cells = len(comparison.models) * len(comparison.areas)
    images = 1 + cells * own_colours
    bytes_each = channels * height * width * images + cells * n_methods * -(-height * width // 8)
    room = max(1, int(MAX_CHARACTERS / (4 / 3 * bytes_each)))
    return sorted({round(i) for i in np.linspace(0, count - 1, min(room, count))})


def _data(
    comparison: Comparison, canvases: Sequence[int], names: Sequence[str], records: Records
) -> Mapping[str, Any]:
    height, width = comparison.canvases.shape[2:]
    methods = []
    for name in names:
        named = [record for record in records.values() if record.name == name]
        how = SEARCHED if any(record.searches for record in named) else CUT
        how = f"{how} {NOT_CUT}." if any(record.free for record in named) else how
        control = any(record.control for record in named)
        methods.append({"name": name, "how": how, "control": control})
    strongest = max(
        (record for record in records.values() if record.name == names[0]),
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
                "pixels": _encode(comparison.canvases[i]),
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
    masks = (np.packbits(mask.flatten().numpy()) for mask in record.masks.values())
    cut = record.rethresholded
    return {
        "masks": [b64encode(mask.tobytes()).decode() for mask in masks],
        "pixels": [_encode(own.canvas) for own in record.own.values()],
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


def _encode(canvas: Tensor) -> str:
    """Pixel by pixel, one byte per channel."""
    levels = (canvas.float() * 255).round().byte()
    return b64encode(levels.permute(1, 2, 0).contiguous().numpy().tobytes()).decode()


def _table(comparison: Comparison, records: Records) -> Table:
    """The numbers of the slider."""
    rows = [
        {
            **row,
            "name": full_name(row["method"], row["level"], row["ranking"]),
            "role": CONTROL if row["control"] else "",
            "kind": _canvas_name(comparison, row["canvas"]),
        }
        for row in rows_by_canvas([*records.values()], [], ())
    ]
    columns = [*NAMES, *power_columns(comparison), NO_PATTERN]
    return Table(columns, rows, "by-area", "The same numbers as a table").filled(len(NAMES))

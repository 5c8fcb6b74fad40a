"""The patterns at each area, as the page's slider needs them: masks bit by bit, in base64."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.choosing import best_per_image, controls, searching
from captum_classpattern.pattern import pixels_kept
from captum_classpattern.report.formats import between, counted, percent, percent_area
from captum_classpattern.report.tables import Cell, Row, Table, number_cell
from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.visualization.drawing import NO_PIXEL

MOST = 4_000_000  # characters of masks and canvases in a page
ANEW, CUT, CONTROL = "searched anew for each area", "one map, cut to each area", "control"


@dataclass(frozen=True)
class Growing:
    """What the slider draws (None where canvases are no pictures), how its methods come by their
    pixels, a sentence on what was left out, and the same numbers as a table."""

    data: Mapping[str, Any] | None
    how: str
    left_out: str
    table: Table


def growing(comparison: Comparison) -> Growing:
    """The patterns of the methods that search, of the controls and of the best other one."""
    records = [record for record in comparison.records if record.powers]
    names = _methods(records, comparison.area)
    canvases = _canvases(comparison, len(names))
    shown = {(r.model, r.canvas, r.name): r for r in records if r.name in names}
    shown = {key: record for key, record in shown.items() if key[1] in canvases}
    left = "" if len(canvases) == len(comparison.canvases) else (
        f"To keep this file small, only {len(canvases)} of the "
        f"{counted(len(comparison.canvases), 'canvas', 'canvases')} can be looked at here. The "
        "section Tables counts all of them."
    )  # fmt: skip
    drawable = comparison.canvases.shape[1] in (1, 3) and shown
    data = _data(comparison, canvases, names, shown) if drawable else None
    return Growing(data, _how_all(names, shown), left, _table(comparison, canvases, names, shown))


def _how_all(names: Sequence[str], shown: Mapping[tuple[str, int, str], Record]) -> str:
    """Which methods are searched anew for each area, and what the others do."""
    anew = {record.name for record in shown.values() if record.searches}
    sentences = []
    if anew:
        searched = ", ".join(name for name in names if name in anew)
        sentences.append(f"Searched anew for each area: {searched}.")
    if anew != set(names):
        sentences.append(
            f"{'All others' if anew else 'Methods'} have one map, whose highest pixels are kept."
        )
    return " ".join(sentences)


def _methods(records: Sequence[Record], area: float) -> list[str]:
    best = best_per_image(records, area)[:1]
    return [*searching(records), *best, *controls(records)]


def _canvases(comparison: Comparison, methods: int) -> list[int]:
    """As many as there is room for, evenly from all."""
    count, channels, height, width = comparison.canvases.shape
    masks = len(comparison.models) * methods * len(comparison.areas)
    bytes_each = channels * height * width + masks * -(-height * width // 8)
    room = max(1, int(MOST / (4 / 3 * bytes_each)))
    if room >= count:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, room)})


def _data(
    comparison: Comparison,
    canvases: Sequence[int],
    names: Sequence[str],
    shown: Mapping[tuple[str, int, str], Record],
) -> Mapping[str, Any]:
    _, _, height, width = comparison.canvases.shape
    return {
        "height": height,
        "width": width,
        "ground": [round(255 * value) for value in NO_PIXEL],
        "areas": [
            f"{percent_area(area)}, {pixels_kept(area, (height, width)):,} of {height * width:,}"
            for area in comparison.areas
        ],
        "start": comparison.areas.index(comparison.area),
        "models": list(comparison.models),
        "canvases": [
            {"name": canvas_name(comparison, i), "pixels": _levels(comparison.canvases[i])}
            for i in canvases
        ],
        "methods": [{"name": name, "how": _how(name, shown)} for name in names],
        "cells": [
            [[_cell(shown.get((model, i, name))) for name in names] for i in canvases]
            for model in comparison.models
        ],
    }


def canvas_name(comparison: Comparison, canvas: int) -> str:
    """``Bag, white canvas``; with its number where there are several of them."""
    which = list(zip(comparison.targets, comparison.kinds))
    kind = comparison.kinds[canvas]
    kind = kind if kind == "canvas" else f"{kind} canvas"
    name = f"{comparison.class_name(comparison.targets[canvas])}, {kind}"
    return name if which.count(which[canvas]) == 1 else f"{name} {canvas}"


def _how(name: str, shown: Mapping[tuple[str, int, str], Record]) -> str:
    chosen = [record for record in shown.values() if record.name == name]
    words = [CONTROL] if any(record.control for record in chosen) else []
    return ", ".join([*words, ANEW if any(record.searches for record in chosen) else CUT])


def _cell(record: Record | None) -> Mapping[str, Any] | None:
    """A method's patterns of one canvas at all areas; the texts are made here."""
    if record is None:
        return None
    return {
        "masks": [_bits(mask) for mask in record.masks.values()],
        "powers": [_power(power) for power in record.powers.values()],
        "cut": [
            percent(record.rethresholded[area].value) if area in record.rethresholded else None
            for area in record.powers
        ],
    }


def _power(power: PredictivePower) -> Mapping[str, Any]:
    low, high = power.interval
    return {
        "text": percent(power.value),
        "interval": f"{between(low, high)} of {power.n:,} images",
        "without": percent(power.without),
        "percent": [round(100 * value, 2) for value in (power.value, low, high, power.without)],
    }


def _bits(mask: Tensor) -> str:
    """In reading order, eight pixels a byte, the first one highest."""
    return b64encode(np.packbits(mask.bool().cpu().flatten().numpy()).tobytes()).decode()


def _levels(canvas: Tensor) -> str:
    """Pixel by pixel, a byte for each channel."""
    levels = (canvas.detach().float().cpu() * 255).round().byte()
    return b64encode(levels.permute(1, 2, 0).contiguous().numpy().tobytes()).decode()


def _table(
    comparison: Comparison,
    canvases: Sequence[int],
    names: Sequence[str],
    shown: Mapping[tuple[str, int, str], Record],
) -> Table:
    rows = []
    for (model, canvas, name), record in sorted(
        shown.items(),
        key=lambda item: (
            canvases.index(item[0][1]),
            list(comparison.models).index(item[0][0]),
            names.index(item[0][2]),
        ),
    ):
        which = (name, model, canvas_name(comparison, canvas))
        powers = list(record.powers.values())
        cells = [
            *(Cell(text, text) for text in which),
            *(
                Cell(f"{percent(power.value)} ({between(*power.interval)})", power.value)
                for power in powers
            ),
            number_cell(powers[0].without, percent),
        ]
        rows.append(Row(cells, role=CONTROL if record.control else ""))
    columns = ["method", "model", "canvas", *map(percent_area, comparison.areas), "no pattern"]
    text = "In brackets the Wilson 95 % interval of the images, in percent."
    return Table("grown", "The same numbers as a table", text, columns, rows)

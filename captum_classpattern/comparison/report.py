"""A comparison as one HTML page: what pages of all results have, and a slider over the area. All of
it goes through templates, which escape it."""

from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from captum_classpattern._support.formats import SPACE, percent, percent_area, percent_range
from captum_classpattern._support.topk import pixels_kept
from captum_classpattern.comparison.records import Record, search_names, strongest_names
from captum_classpattern.images import evenly_spaced
from captum_classpattern.pages import parts as html
from captum_classpattern.results import as_table, as_texts
from captum_classpattern.scores.intervals import FEWEST_CLASSES
from captum_classpattern.visualization.drawing import levels
from captum_classpattern.visualization.style import NO_PIXEL

if TYPE_CHECKING:
    from captum_classpattern.comparison.results import Comparison

TITLE = "Class patterns and other methods"
MAX_CHARACTERS = 4_000_000  # of masks and canvases in a page
SEARCHED, CUT = "Searched again for each area.", "One map, cut to each area."
HEADING = Markup("<h3>{}</h3>\n")


def write_report(comparison: "Comparison", path: Path) -> Path:
    """Writes a comparison as one HTML page: the patterns with a slider over the area, and below it
    the sections. The same comparison gives the same file."""
    text = "\n".join([TITLE, *comparison.text().split("\n")[1:]])
    content = html.content_of(text, sections(comparison))
    values = {"comparison": comparison, "slider": area_slider(comparison)}
    return html.write(
        path, html.render("report.html", **content, **values, fewest_classes=FEWEST_CLASSES)
    )


def sections(comparison: "Comparison") -> Iterator[Any]:
    """The powers; and, folded, all figures, tables and settings."""
    yield html.heading(f"Power of {percent_area(comparison.area)} of the pixels")
    yield comparison.shown_table() if comparison.records else "No method gave a map."
    yield html.heading("More")
    curves, maps = list[Markup](), list[Markup]()
    for kind in dict.fromkeys(record.kind for record in comparison.records):
        on = "" if kind == "canvas" else f", {kind} canvases"
        if any(record.powers for record in comparison.select(kind=kind)):
            curves.append(draw(f"Predictive power over the area{on}", comparison.plot_curves, kind))
        for model in comparison.models:
            if comparison.select(kind=kind, model=model):
                plot = partial(comparison.plot, model=model)
                maps.append(draw(f"Maps and patterns: {model}{on}", plot, kind))
    shown = [
        part for title, of in tables(comparison).items() for part in (HEADING.format(title), of)
    ]
    if shown:
        shown.append([f"{m.heading}: {m.note}." for m in comparison.metrics if m.note])
    groups = {
        "Power over the area": curves,
        "Maps side by side": maps,
        "All tables: every method, metric and area": shown,
        "Settings": [html.macro("settings", comparison.settings)],
    }
    yield from (html.folded(title, *parts) for title, parts in groups.items() if parts)


def draw(title: str, plot: Callable[..., tuple[Any, Any]], kind: str) -> Markup:
    """A figure of a kind of canvas below its title, or why it can't be drawn."""
    return HEADING.format(title) + html.section(partial(plot, kind=kind), title)


def tables(comparison: "Comparison") -> dict[str, Any]:
    """All tables with any values, as texts, by their titles."""
    rows = [
        row | {"area": percent_area(area)}
        for area in comparison.areas
        for row in comparison.named_rows(area)
        if row["power"] is not None
    ]
    headings = {metric.name: metric.heading for metric in comparison.metrics}
    metrics = as_table(comparison.named_rows(comparison.area)).rename(columns=headings)
    measured = [heading for heading in headings.values() if heading in metrics]
    metrics = metrics.dropna(subset=measured, how="all")
    names = {"model": "", "method": "", "canvas": ""}
    shares = {**dict.fromkeys(("power", "control", "no_pattern"), ".1%"), "area": ""}
    differences = {"model": "", "method": "", "other": "", "difference": "+.1%"}
    made = {
        "Predictive power at each area": as_texts(as_table(rows), names | shares),
        "Differences between methods": as_texts(as_table(comparison.differences()), differences),
        "Other metrics": as_texts(metrics, names | dict.fromkeys(measured, "")),
    }
    return {title: frame for title, frame in made.items() if len(frame)}


# ---- the slider over the area: masks bit by bit, in base64


def area_slider(comparison: "Comparison") -> dict[str, Any] | None:
    """The patterns of all methods, strongest first, of as many canvases as there is room for; None
    if nothing was scored, or canvases are not greyscale or colour images."""
    scored = [record for record in comparison.records if record.powers]
    channels, height, width = comparison.canvases.shape[1:]
    if not scored or channels not in (1, 3):
        return None
    names, models = strongest_names(scored, comparison.area), list(comparison.models)
    searches, of_name = search_names(scored), {record.name: record for record in scored}
    methods = [of_name[name] for name in names]
    canvases = _canvases(comparison, methods)
    records = {(r.model, r.canvas, r.name): r for r in scored if r.canvas in canvases}
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
            "canvas": [*canvases].index(strongest.canvas),
            "method": names.index(best),
        },
        "models": models,
        "canvases": [*canvases.values()],
        "methods": [
            {"name": r.name, "how": SEARCHED if r.searches else CUT, "control": r.control}
            for r in methods
        ],
        "cells": [
            [[_cell(records.get((model, i, name))) for name in names] for i in canvases]
            for model in models
        ],
    }


def _canvases(comparison: "Comparison", methods: Collection[Record]) -> dict[int, dict[str, str]]:
    """As many canvases as there is room for, evenly spaced; some methods come with images. Their
    names are ``Bag, white canvas``, and a number if there are several of them."""
    count, channels, height, width = comparison.canvases.shape
    cells = len(comparison.models) * len(comparison.areas)
    images = 1 + cells * sum(not record.cut_from_canvas for record in methods)
    masks = cells * len(methods) * -(-height * width // 8)  # bytes
    room = MAX_CHARACTERS / (4 / 3 * (channels * height * width * images + masks))
    described = list(zip(comparison.targets, comparison.kinds))
    canvases = {}
    for i in evenly_spaced(count, max(1, int(room))):
        target, kind = described[i]
        shown, several = comparison.class_name(target), described.count((target, kind)) > 1
        name = f"{shown}, {kind}{'' if kind == 'canvas' else ' canvas'}{f' {i}' if several else ''}"
        pixels = _encoded(levels(comparison.canvases[i]))
        canvases[i] = {"name": name, "class": shown, "pixels": pixels}
    return canvases


def _cell(record: Record | None) -> Mapping[str, Any] | None:
    """A method's patterns of one canvas at all areas, with their numbers as texts."""
    if record is None:
        return None
    return {
        "masks": [_encoded(np.packbits(mask.flatten().numpy())) for mask in record.masks.values()],
        "pixels": [_encoded(levels(own.canvas)) for own in record.own.values()],
        "powers": [
            {
                "text": percent(power.value),
                "interval": f"{percent_range(*power.interval)}{SPACE}%",
                "images": f"{power.n:,}",
                "without": percent(power.without),
                "percent": [
                    round(100 * v, 2) for v in (power.value, *power.interval, power.without)
                ],
            }
            for power in record.powers.values()
        ],
    }


def _encoded(values: npt.NDArray[np.uint8]) -> str:
    """Masks with eight pixels in a byte, images pixel by pixel."""
    return b64encode(values.tobytes()).decode()

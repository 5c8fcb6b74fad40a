"""Figures of results: a scan, an invariance profile, and a sanity check."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from captum_classpattern.comparison import SanityCheck
from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.families import CHANGES, FAMILIES, PATCHES
from captum_classpattern.scores.examples import EXAMPLES
from captum_classpattern.scores.invariance import InvarianceCurve, InvarianceProfile
from captum_classpattern.scores.invariance.profile import LINES
from captum_classpattern.scores.power import ENOUGH_IMAGES, PredictivePower
from captum_classpattern.visualization.drawing import Drawing, on_neutral
from captum_classpattern.visualization.formats import percent, percent_range
from captum_classpattern.visualization.grid import Cell, Drawn, draw_grid
from captum_classpattern.visualization.lines import (
    CONTROL_DASHES,
    LONGEST_LABEL,
    POWERS,
    Line,
    Panel,
    Style,
    draw_panel,
    draw_panels,
    line_styles,
    round_ticks,
)
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS, HIT, SMALL_CURVES

ARROW, ELLIPSIS = "\N{RIGHTWARDS ARROW}", "\N{HORIZONTAL ELLIPSIS}"
NAMED, NOTE_WIDTH = 3, 110  # classes of each family; letters in a line
WIDTH, PANEL_WIDTH = 1.4, 2.6  # of an image in inches, and of the leads relative to it
LEADS_SIZE = (3.9, 0.45)  # inches, of a family
LEADS: dict[str, Style] = {
    "clean models, each by its first class": {
        "color": CONTROL, "marker": "|", "markersize": 18, "linestyle": ""
    },
    "classes of this model": {
        "color": HIGHLIGHTS[2], "marker": "o", "markersize": 5, "linestyle": "", "alpha": 0.6
    },
    "its first class": {
        "color": HIGHLIGHTS[0], "marker": "o", "markersize": 9, "linestyle": ""
    },
}  # fmt: skip

COLUMNS = 5  # panels in a row
SMALL_PANELS: dict[str, Any] = {"style": SMALL_CURVES, "gap": 0.03}
PROFILE_SIZE, CHECK_SIZE = (2.4, 2.0), (2.2, 1.8)  # of a panel in inches

PROFILE_STYLES = line_styles(LINES, LINES[:1], LINES[1:])
PROFILE_STYLES["pattern"] |= {"linewidth": 2.2, "markersize": 4.5}
WHAT = {"pattern": "pattern", "canvas": "pattern's pixels", "image": "stamped images"}

DOTS: Style = {"marker": "o", "markersize": 4}
IOU, CORRELATION = "IoU of the highest pixels", "rank correlation"
CHANCE = "IoU of random masks"
CHECK_STYLES: dict[str, Style] = {
    IOU: {"color": HIGHLIGHTS[0], **DOTS},
    CORRELATION: {"color": HIGHLIGHTS[2], **DOTS},
    CHANCE: {"color": CONTROL, "linestyle": (0, CONTROL_DASHES[0]), "zorder": 1.5},
}
AGREEMENTS: Style = {
    "xlim": (-0.04, 1.04),
    "xticks": [0, 0.5, 1],
    "xticklabels": ["0 %", "50 %", "100 %"],
    "ylim": (-0.32, 1.05),
    "yticks": [0, 0.25, 0.5, 0.75, 1],
    "yticklabels": ["0", "", "0.5", "", "1"],
}


def plot_scan(scan: Scan, *, use_pyplot: bool) -> Drawing:
    """Draws a row for each family: what was found for its first class, three images with it and the
    model's predictions, and how far all classes lead. Without a look at images, these alone."""
    if not scan.looks or scan.references.shape[0] not in (1, 3):
        return plot_leads(scan, title=verdict_text(scan), use_pyplot=use_pyplot)
    rows = []
    for family, look in scan.looks.items():
        cells: list[Drawn] = [Cell(pictured(scan, family), power_text(look.power))]
        after, before = look.after, look.before.names
        for image, name, y, text in zip(after.images, before, after.predicted, after.captions):
            cells.append(Cell(image, f"{name} {ARROW} {text}", y == look.target, HIT))
        cells += [None] * (EXAMPLES + 1 - len(cells))
        cells.append(partial(_draw_leads, panel=_leads_of(scan, family)))
        rows.append((f"{FAMILIES[family].words}: {scan.class_names[look.target]}", cells))
    titles = ["what was found", *[""] * EXAMPLES, "how far each class leads"]
    unseen = "held-out images" if all(look.unseen for look in scan.looks.values()) else "images"
    titles[1 + EXAMPLES // 2] = f"{unseen} with it,\nand the model's predictions"
    return draw_grid(
        rows,
        titles,
        title=verdict_text(scan),
        note=fill(leads_text(scan), NOTE_WIDTH),
        width=WIDTH,
        widths=[*[1.0] * (EXAMPLES + 1), PANEL_WIDTH],
        use_pyplot=use_pyplot,
    )


def plot_leads(scan: Scan, *, title: str | None = None, use_pyplot: bool) -> Drawing:
    """Draws for each family how far all classes lead, and the first class of each reference."""
    return draw_panels(
        [_leads_of(scan, family) for family in scan.comparisons],
        size=LEADS_SIZE,
        columns=1,
        key=LEADS,
        y_label=None,
        title=title,
        style={**SMALL_CURVES, "axes.spines.left": False},
        use_pyplot=use_pyplot,
    )


def _draw_leads(axis: Axes, panel: Panel) -> None:
    draw_panel(axis, replace(panel, title=""), WIDTH * PANEL_WIDTH)
    axis.tick_params(bottom=True, labelbottom=True)


def _leads_of(scan: Scan, family: str) -> Panel:
    """The leads of the classes and of the references in a family."""
    each, (first, *others) = scan.comparisons[family], scan.comparisons[family].order
    shown = [np.append(one.leads, one.usual_leads) for one in scan.comparisons.values()]
    low, high = float(np.min(shown)), float(np.max(shown))
    names = [scan.class_names[y] for y in each.order[:NAMED]]
    cut = [x if len(x) <= LONGEST_LABEL else f"{x[: LONGEST_LABEL - 1]}{ELLIPSIS}" for x in names]
    values = (each.usual_leads, each.leads[others], each.leads[[first]])
    axes = {
        "xlim": (low - 0.04 * (high - low), high + 0.04 * (high - low)),
        "ylim": (-1, 1),
        "yticks": [],
        "xlabel": f"first: {', '.join(cut)}",
    }
    lines = [Line([(x, 0) for x in leads], look) for leads, look in zip(values, LEADS.values())]
    return Panel(lines, axes, FAMILIES[family].words, dotted=bound_of(scan))


def leads_text(scan: Scan) -> str:
    """What a figure of leads shows."""
    right = f" Right of the dotted line, p is at most {scan.alpha:g}." if bound_of(scan) else ""
    return (
        f"Dots: all classes. Grey lines: {len(scan.references)} clean models, each by the class "
        "that leads. Lead: how far a class is above the median class, next to the same class of "
        f"the clean models, in standard deviations.{right}"
    )


def bound_of(scan: Scan) -> list[float]:
    """The lead above which a model is suspicious, unless the scan is inconclusive."""
    largest = np.sort(np.max([each.usual_leads for each in scan.comparisons.values()], axis=0))
    as_far = int(np.floor(round(scan.alpha * (len(largest) + 1), 9)))  # models, with this one
    return [float(largest[-as_far])] if scan.p_text else []


def verdict_text(scan: Scan) -> str:
    """``Suspicious, p = 0.02``."""
    return ", ".join(filter(None, (scan.verdict.capitalize(), scan.p_text)))


def power_text(power: PredictivePower) -> str:
    """``98.2 % (96.6-99.1)``."""
    return f"{percent(power.value)} ({percent_range(*power.interval)})"


def pictured(scan: Scan, family: str) -> Tensor:
    """An image of what a family has found for its first class."""
    target = scan.comparisons[family].target
    if family != PATCHES:
        return CHANGES[family](scan.references.shape).picture(scan.profile.changes[family][target])
    pattern = scan.pattern_of(target)
    return on_neutral(pattern) if len(pattern.canvas) in (1, 3) else pattern.canvas


def plot_profile(profile: InvarianceProfile, *, use_pyplot: bool) -> Drawing:
    """Draws a panel for each transform. A dotted line marks where nothing changes. If all other
    values are lower, they run from right to left, so that changes grow away from the axis."""
    panels = []
    for curve in profile.curves.values():
        half, transform, values = curve.half_power_range, curve.transform, [*curve.points]
        low, high = values[0], values[-1]
        pad = 0.04 * (high - low)
        ends = (low - pad, high + pad)
        axes = {
            "xlim": ends[::-1] if transform.rest == high else ends,
            "xticks": round_ticks(low, high, 4, (1, 2, 2.5, 5, 10)),
            "xlabel": f"{transform.unit} ({WHAT[transform.of]})",
            **POWERS,
        }
        lines = []
        for name, opacity in zip(LINES, (0.25, 0.15, 0.15)):
            points = [(v, *scores.with_intervals[name]) for v, scores in curve.points.items()]
            lines.append(Line(points, PROFILE_STYLES[name], name, opacity))
        note = why_none(curve) if half is None else f"half stays: {half}"
        shaded = None if half is None else (half.low, half.high)
        panels.append(Panel(lines, axes, transform.name, note, [transform.rest], shaded))
    return draw_panels(
        panels,
        size=PROFILE_SIZE,
        columns=COLUMNS,
        key=PROFILE_STYLES,
        title=f"{profile.pattern.label}: {profile.power}",
        use_pyplot=use_pyplot,
        **SMALL_PANELS,
    )


def why_none(curve: InvarianceCurve) -> str:
    """Why a curve has no half-power range."""
    few = curve.at_rest.power.n < ENOUGH_IMAGES
    return f"under {ENOUGH_IMAGES} images" if few else "not above its controls"


def plot_agreement(
    check: SanityCheck, *, ranking: str, title: str | None, use_pyplot: bool
) -> Drawing:
    """Draws for each method its measures over the share of layers that are random, with 95 %
    intervals, and the IoU that random masks have."""
    wanted = {"ranking": ranking, "test": "layers"}.items()
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in check.rows() if check.layers else []:
        if wanted <= row.items():
            rows.setdefault(row["method"], []).append(row)
    if not rows:
        raise ValueError(
            "there is nothing to draw: no layer was randomised, or no method has the ranking "
            f"{ranking!r}"
        )
    notes = {row["method"]: row["verdict"] for row in check.verdicts() if wanted <= row.items()}
    chance = Line([(x, check.chance) for x in AGREEMENTS["xlim"]], CHECK_STYLES[CHANCE], CHANCE)
    panels = []
    for number, (method, of_method) in enumerate(rows.items()):
        lines = []
        for measure, name in (("iou", IOU), ("correlation", CORRELATION)):
            points = [
                (row["layers"] / len(check.layers), *_ends(row, measure)) for row in of_method
            ]
            lines.append(Line(points, CHECK_STYLES[name], name, 0.18))
        below = "random layers" if number >= len(rows) - COLUMNS else ""
        axes = {**AGREEMENTS, "xlabel": below}
        panels.append(Panel([*lines, chance], axes, method, notes.get(method) or ""))
    return draw_panels(
        panels,
        size=CHECK_SIZE,
        columns=COLUMNS,
        key=CHECK_STYLES,
        y_label="agreement",
        title=title,
        use_pyplot=use_pyplot,
        **SMALL_PANELS,
    )


def _ends(row: Mapping[str, Any], measure: str) -> tuple[float, float, float]:
    """A value, and the ends of its interval: the value where there is none."""
    value, low, high = (row[f"{measure}{end}"] for end in ("", "_low", "_high"))
    return (value, value, value) if low is None else (value, low, high)

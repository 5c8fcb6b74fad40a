"""Figures of results: a scan, an invariance profile, and a sanity check."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from captum_classpattern.comparison import SanityCheck
from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.families import CHANGES, SIZES, unit_of
from captum_classpattern.scores.invariance import InvarianceCurve, InvarianceProfile
from captum_classpattern.scores.invariance.profile import LINES
from captum_classpattern.scores.power import ENOUGH_IMAGES
from captum_classpattern.visualization.drawing import Drawing, on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.lines import (
    CONTROL_DASHES,
    POWERS,
    Line,
    Panel,
    Style,
    draw_lines,
    draw_panels,
    line_styles,
    round_ticks,
)
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS, SMALL_CURVES, TRACK

DRAWN = 3  # patterns
STRONG, OTHERS = HIGHLIGHTS[0], HIGHLIGHTS[2]
WIDTH, PANEL_WIDTH = 1.85, 1.9  # of a pattern in inches, and of the panel relative to it

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
    """Draws the most suspicious patterns, next to the powers of all classes over the number of
    pixels."""
    shown = scan.comparison.order[:DRAWN]
    cells = [Cell(image, below, False) for image, below in (pictured(scan, y) for y in shown)]
    figure, axes = draw_grid(
        [("", [*cells, partial(_draw_powers, scan=scan)])],
        [*(scan.class_names[y] for y in shown), "other images that become the class"],
        title=verdict_text(scan),
        width=WIDTH,
        widths=[*[1.0] * len(shown), PANEL_WIDTH],
        use_pyplot=use_pyplot,
    )
    axes[0, 0].title.set(color=STRONG, fontweight="bold")
    return figure, axes[0]


def verdict_text(scan: Scan) -> str:
    """``Suspicious, p = 0.02``."""
    p_value = "" if scan.p_value is None else f", p = {scan.p_value:.2g}"
    return f"{scan.verdict.capitalize()}{p_value}"


def pictured(scan: Scan, target: int) -> tuple[Tensor, str]:
    """The image of a class, and what is written below it."""
    profile, shape = scan.profile, scan.references.shape
    if scan.family in profile.others:
        image = CHANGES[scan.family](shape).picture(profile.changes[scan.family][target])
        return image, f"{scan.family}, {percent(profile.others[scan.family][target], 0)}"
    size = profile.enough_pixels(target)
    below = f"{size} {unit_of(shape)}, {percent(profile.powers[size][target], 0)}"
    return on_neutral(profile.patterns[size, target]), below


def _draw_powers(axis: Axes, scan: Scan) -> None:
    """Each class a line, and the references' range of the first class a band."""
    sizes, (first, *others) = sorted(SIZES), scan.comparison.order
    profiles, name = scan.references.profiles.values(), scan.class_names[first]
    usual = np.array([[profile.powers[size][first] for size in sizes] for profile in profiles])
    band = f"{name} in {len(usual)} clean models"
    axis.fill_between(sizes, usual.min(0), usual.max(0), color=TRACK, label=band)
    looks = [(y, {"color": OTHERS, "linewidth": 0.8}) for y in others]
    looks.append((first, {"color": STRONG, "linewidth": 2.5}))
    names = {first: name, **dict.fromkeys(others[:1], "other classes")}
    for y, look in looks:
        points = [(size, scan.profile.powers[size][y]) for size in sizes]
        draw_lines(axis, [Line(points, {"marker": ".", **look}, names.get(y, ""))])
    axis.tick_params(bottom=True, labelbottom=True, left=True, labelleft=True)
    axis.set(xticks=sizes, xlabel=unit_of(scan.references.shape), **POWERS)
    axis.spines[["top", "right"]].set_visible(False)
    key = axis.get_legend_handles_labels()
    axis.figure.legend(*key, loc="outside lower right", ncols=3, frameon=False)


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

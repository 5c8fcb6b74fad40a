"""Figures of small panels: an invariance profile, and a sanity check."""

from collections.abc import Mapping
from typing import Any

from captum_classpattern.comparison import SanityCheck
from captum_classpattern.scores.invariance import InvarianceCurve, InvarianceProfile
from captum_classpattern.scores.invariance.profile import LINES
from captum_classpattern.scores.power import ENOUGH_IMAGES
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    CONTROL_DASHES,
    POWERS,
    Line,
    Panel,
    Style,
    draw_panels,
    line_styles,
    round_ticks,
)
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS, SMALL_CURVES

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
        columns=min(len(panels), COLUMNS),
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
        columns=min(len(panels), COLUMNS),
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

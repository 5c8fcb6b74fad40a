"""Predictive power under transforms: a small panel for each, with its controls."""

from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from captum_classpattern.scores.invariance import InvarianceCurve, InvarianceProfile
from captum_classpattern.scores.invariance.profile import LINES
from captum_classpattern.scores.power import ENOUGH_IMAGES
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    Line,
    Panel,
    Point,
    draw_panels,
    line_styles,
    scale_power,
)
from captum_classpattern.visualization.style import SMALL_CURVES

COLUMNS, SIZE = 5, (2.4, 2.0)  # panels in a row, and their size in inches
GAP = 0.03  # between the panels, as a share of their width
STYLES = line_styles(LINES, LINES[:1], LINES[1:])
STYLES["pattern"] |= {"linewidth": 2.2, "markersize": 4.5}
WHAT = {"pattern": "pattern", "canvas": "pattern's pixels", "image": "stamped images"}


def plot_profile(profile: InvarianceProfile, *, use_pyplot: bool) -> Drawing:
    """Draws the panels in rows of five. A dotted line marks where nothing changes. If all other
    values are lower, they run from right to left, so that changes grow away from the axis."""
    return draw_panels(
        [_panel(curve) for curve in profile.curves.values()],
        size=SIZE,
        columns=min(len(profile.curves), COLUMNS),
        key=LINES,
        title=f"{profile.pattern.label}: {profile.power}",
        style=SMALL_CURVES,
        gap=GAP,
        use_pyplot=use_pyplot,
    )


def _panel(curve: InvarianceCurve) -> Panel:
    half, transform = curve.half_power_range, curve.transform
    points: list[list[Point]] = [
        [(value, *scores.with_intervals[name]) for value, scores in curve.points.items()]
        for name in LINES
    ]
    shades = (0.25, 0.15, 0.15)
    return Panel(
        [Line(name, of, STYLES[name], shade) for name, of, shade in zip(LINES, points, shades)],
        partial(_scale_axes, values=[*curve.points], rest=transform.rest),
        title=transform.name,
        note=f"half stays: {half}" if curve.at_rest.beats_controls else why_none(curve),
        x_label=f"{transform.unit} ({WHAT[transform.of]})",
        dotted=[transform.rest],
        shaded=None if half is None else (half.low, half.high),
    )


def why_none(curve: InvarianceCurve) -> str:
    """Why a curve has no half-power range."""
    few = curve.at_rest.power.n < ENOUGH_IMAGES
    return f"under {ENOUGH_IMAGES} images" if few else "not above its controls"


def _scale_axes(axis: Axes, values: list[float], rest: float) -> None:
    low, high = min(values), max(values)
    pad = 0.04 * (high - low)
    ends = (low - pad, high + pad)
    axis.set_xlim(ends[::-1] if rest == high else ends)
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    axis.set_xticks([tick for tick in ticks if low <= tick <= high])
    scale_power(axis)

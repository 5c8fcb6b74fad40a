"""Predictive power under transforms: a small panel for each, with its controls."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from captum_classpattern.visualization.curves import (
    Point,
    Style,
    add_legend,
    add_panels,
    line_styles,
    scale_power,
)
from captum_classpattern.visualization.drawing import fit_figure, new_figure, wrap
from captum_classpattern.visualization.rc import rc_context
from captum_classpattern.visualization.style import QUIET, SMALL, SMALL_CURVES

COLUMNS, WIDTH, HEIGHT = 5, 2.4, 2.0  # panels in a row, and their size in inches
GAP = 0.03  # between the panels, as a share of their width
SHADE = "#fff1e5"


class Panel(TypedDict):
    """What one panel shows. The first line is the pattern, the others are its controls."""

    title: str
    note: str
    x_label: str
    lines: Mapping[str, Sequence[Point]]  # (value, power, lower and upper end of its interval)
    rest: float  # where nothing changes
    marked: tuple[float, float] | None  # the range to shade


def plot_profiles(
    panels: Sequence[Panel], *, title: str | None = None, use_pyplot: bool = True
) -> tuple[Figure, npt.NDArray[Any]]:
    """Draws the panels in rows of five. A dotted line marks where nothing changes. If all other
    values are lower, they run from right to left, so that changes grow away from the axis."""
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    names = list(panels[0]["lines"])
    styles = line_styles({"": dict.fromkeys(names)}, names[:1], names[1:])
    styles[names[0]] = {**styles[names[0]], "linewidth": 2.2}
    with rc_context(SMALL_CURVES):
        figure = new_figure(columns * (WIDTH + 0.4), rows * (HEIGHT + 0.9) + 1, use_pyplot, title)
        figure.get_layout_engine().set(wspace=GAP, hspace=GAP)  # type: ignore[union-attr, call-arg]
        axes = add_panels(figure, len(panels), columns)
        for axis, panel in zip(axes, panels):
            _draw_panel(axis, panel, styles)
        add_legend(figure, axes[:1], names, columns * WIDTH)
        fit_figure(figure, axes[0], WIDTH, HEIGHT, columns, rows)
    return figure, axes


def _draw_panel(axis: Axes, panel: Panel, styles: Mapping[str, Style]) -> None:
    wrap(axis.set_title(panel["title"], pad=18), WIDTH)
    note = axis.text(0.5, 1.03, panel["note"], transform=axis.transAxes, ha="center", va="bottom")
    note.set(color=QUIET, fontsize=SMALL - 1)  # below the other texts, which are small here
    wrap(axis.xaxis.set_label_text(panel["x_label"]), WIDTH)
    if panel["marked"] is not None:
        axis.axvspan(*panel["marked"], color=SHADE, linewidth=0, zorder=0.5)
    axis.axvline(panel["rest"], color=QUIET, linewidth=0.9, linestyle=":", zorder=1)
    for name, points in panel["lines"].items():
        values, powers, lows, highs = np.array(points, dtype=float).T
        style, first = styles[name], name == next(iter(panel["lines"]))
        axis.plot(values, powers, label=name, markersize=4.5 if first else 0, **style)
        axis.fill_between(
            values, lows, highs, color=style["color"], alpha=0.25 if first else 0.15, linewidth=0
        )
    low, high = min(values), max(values)
    pad = 0.04 * (high - low)
    ends = (low - pad, high + pad)
    axis.set_xlim(ends[::-1] if panel["rest"] == high else ends)
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    axis.set_xticks([tick for tick in ticks if low <= tick <= high])
    scale_power(axis)

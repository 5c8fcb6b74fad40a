"""Agreement of maps while a model's layers are randomised: a small panel for each method."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from captum_classpattern.visualization.curves import (
    CONTROL,
    CONTROL_DASHES,
    STYLE,
    Point,
    add_legend,
    add_panels,
)
from captum_classpattern.visualization.drawing import QUIET, fit_figure, new_figure, wrap
from captum_classpattern.visualization.rc import rc_context

COLUMNS, WIDTH, HEIGHT = 5, 2.2, 1.8  # panels in a row, and their size in inches
LABELS = {"iou": "IoU of the highest pixels", "correlation": "rank correlation"}
COLORS = {"iou": "#e8590c", "correlation": "#1f6feb"}
CHANCE = "IoU of random masks"
SMALL: dict[Any, Any] = {**STYLE, "font.size": 9, "axes.titlesize": 10, "figure.titlesize": 11}


def plot_agreement(
    panels: Mapping[str, Mapping[str, Sequence[Point]]],
    *,
    notes: Mapping[str, str],
    chance: float,
    title: str | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    """Draws the panels in rows of five: for each method its measures over the share of layers that
    are random, with 95 % intervals, and the IoU that random masks have."""
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    with rc_context(SMALL):
        figure = new_figure(columns * (WIDTH + 0.4), rows * (HEIGHT + 0.8) + 1, use_pyplot, title)
        figure.get_layout_engine().set(wspace=0.03, hspace=0.03)  # type: ignore[union-attr, call-arg]
        axes = add_panels(figure, len(panels), columns, "agreement")
        for axis, (name, lines) in zip(axes, panels.items()):
            _draw_panel(axis, name, notes.get(name, ""), lines, chance)
        for axis in axes[-columns:]:
            axis.set_xlabel("random layers")
        add_legend(figure, axes[:1], [*LABELS.values(), CHANCE], columns * WIDTH)
        fit_figure(figure, axes[0], WIDTH, HEIGHT, columns, rows)
    return figure, axes


def _draw_panel(
    axis: Axes, name: str, note: str, lines: Mapping[str, Sequence[Point]], chance: float
) -> None:
    wrap(axis.set_title(name, pad=16), WIDTH)
    text = axis.text(0.5, 1.03, note, transform=axis.transAxes, ha="center", va="bottom")
    text.set(color=QUIET, fontsize=9)
    for measure, points in lines.items():
        shares, values, lows, highs = np.array(points, dtype=float).T
        color = COLORS[measure]
        axis.plot(shares, values, label=LABELS[measure], color=color, marker="o", markersize=4)
        axis.fill_between(shares, lows, highs, color=color, alpha=0.18, linewidth=0)
    axis.axhline(chance, label=CHANCE, color=CONTROL, linestyle=(0, CONTROL_DASHES[0]), zorder=1.5)
    axis.set_xlim(-0.04, 1.04)
    axis.set_xticks([0, 0.5, 1])
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axis.set_ylim(-0.32, 1.05)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])

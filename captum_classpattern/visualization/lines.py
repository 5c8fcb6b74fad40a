"""Panels of lines: how lines look, the bands of their intervals, and how they are named."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import fill
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from captum_classpattern.visualization.drawing import (
    Drawing,
    fit_figure,
    new_figure,
    rc_context,
    wrap,
)
from captum_classpattern.visualization.style import (
    CONTROL,
    CURVE_STYLE,
    HIGHLIGHTS,
    OTHERS,
    QUIET,
)

Point: TypeAlias = tuple[float, float, float, float]  # x, y, and the ends of y's interval
Style: TypeAlias = dict[str, Any]

MARKERS = "osD^vPX<>"
CONTROL_DASHES = ((5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (9, 3))
MOST_LABELS, LONGEST_LABEL, LABEL_DISTANCE = 6, 24, 0.065  # at the lines' ends
SHARES = [0, 0.2, 0.4, 0.6, 0.8, 1]
PERCENTS = [f"{100 * share:.0f} %" for share in SHARES]
POWERS: Style = {"ylim": (-0.02, 1.02), "yticks": SHARES, "yticklabels": PERCENTS}


@dataclass(frozen=True, eq=False)
class Line:
    """A line through points (x, y), with a band of this opacity if they come with intervals, and a
    text at its end."""

    points: Sequence[Sequence[float]] | Any
    style: Style
    name: str = ""
    opacity: float = 0.15
    text: str = ""
    strong: bool = False  # the text


@dataclass(frozen=True, eq=False)
class Panel:
    """Lines, their title, where there are dotted lines, and the settings of the axes: what
    ``Axes.set`` takes."""

    lines: Sequence[Line]
    axes: Style
    title: str = ""
    dotted: Collection[float] = ()


def draw_panels(
    panels: Sequence[Panel],
    *,
    size: tuple[float, float],
    columns: int,
    key: Mapping[str, Style],
    y_label: str | None = "predictive power",
    title: str | None = None,
    style: Style = CURVE_STYLE,
    gap: float = 0.0,
    use_pyplot: bool = True,
) -> Drawing:
    """Draws the panels row by row, in at most so many columns, each of this size in inches, with
    this share of the width between them, and a legend of the lines in ``key`` below. With a label,
    they share a y axis."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = size
    with rc_context(style):
        high = rows * (height + 0.9) + 1 + 0.35 * len(key)  # room for the legend
        figure = new_figure(columns * (width + 0.5), high, use_pyplot, title, gap)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=y_label is not None)
        for axis in grid.flat[len(panels) :]:
            axis.remove()
        for axis in grid[:, 0]:
            axis.set_ylabel(y_label or "")
        axes = grid.flat[: len(panels)]
        for axis, panel in zip(axes, panels):
            draw_panel(axis, panel, width)
        if key:
            _add_legend(figure, key, columns * width)
        fit_figure(figure, axes[0], width, height, columns, rows)
    return figure, axes


def draw_panel(axis: Axes, panel: Panel, width: float) -> None:
    """One panel, of this width in inches: lines, their bands, and the texts at their ends."""
    wrap(axis.set_title(panel.title), width)
    for place in panel.dotted:
        axis.axvline(place, color=QUIET, linewidth=0.9, linestyle=":", zorder=1)
    for line in panel.lines:
        x, y, *ends = np.asarray(line.points, dtype=float).T
        axis.plot(x, y, label=line.name or None, **line.style)
        color = line.style["color"]
        if ends:
            axis.fill_between(x, *ends, color=color, alpha=line.opacity, linewidth=0)
        if line.text:
            beside: Style = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            weight = "bold" if line.strong else "normal"
            axis.annotate(line.text, (x[-1], y[-1]), color=color, fontweight=weight, **beside)
    axis.set(**panel.axes)
    axis.minorticks_off()
    wrap(axis.xaxis.label, width)


def line_styles(
    names: Sequence[str], highlight: Collection[str], controls: Collection[str]
) -> dict[str, Style]:
    """How each line is drawn, in the order of the legend: highlights, others, controls."""
    for kind, chosen in (("highlight", highlight), ("controls", controls)):
        unknown = [chosen] if isinstance(chosen, str) else [n for n in chosen if n not in names]
        if unknown:
            raise ValueError(f"{kind} must be a list of methods from {names}, got {unknown[0]!r}")
    strong = [name for name in names if name in highlight]
    grey = [name for name in names if name in controls and name not in highlight]
    others = [name for name in names if name not in strong and name not in grey]
    styles: dict[str, Style] = {}
    for i, name in enumerate(strong):
        color, marker = HIGHLIGHTS[i % len(HIGHLIGHTS)], MARKERS[i // len(HIGHLIGHTS) % 9]
        styles[name] = {"color": color, "marker": marker, "linewidth": 3.0, "zorder": 5}
    for i, name in enumerate(others):
        marker = MARKERS[(i + i // len(OTHERS)) % len(MARKERS)]  # 108 different pairs
        styles[name] = {"color": OTHERS[i % len(OTHERS)], "marker": marker, "linewidth": 1.3}
    for i, name in enumerate(grey):
        dashes = (0, CONTROL_DASHES[i % len(CONTROL_DASHES)])
        styles[name] = {"color": CONTROL, "linestyle": dashes, "linewidth": 1.6, "zorder": 1.5}
    return styles


def ends_are_apart(lines: Mapping[str, Any]) -> bool:
    """Whether there is room for the lines' names at their ends; the points begin with x and y."""
    ends = [max(map(tuple, points)) for points in lines.values()]
    heights = sorted(end[1] for end in ends)
    return (
        len(lines) <= MOST_LABELS
        and max(map(len, lines)) <= LONGEST_LABEL
        and len({end[0] for end in ends}) == 1
        and all(high - low >= LABEL_DISTANCE for low, high in pairwise(heights))
    )


def _add_legend(figure: Figure, key: Mapping[str, Style], width: float) -> None:
    """One legend for all panels, below them, in as many columns as fit in this many inches."""
    lines = [Line2D([], [], **style) for style in key.values()]
    for rows in range(1, len(key) + 1):
        legend = figure.legend(
            lines,
            [fill(name, 50) for name in key],
            loc="outside lower center",
            ncols=math.ceil(len(key) / rows),
            frameon=False,
            handlelength=3.2,
        )
        if legend.get_window_extent().width <= width * figure.dpi or rows == len(key):
            return
        legend.remove()

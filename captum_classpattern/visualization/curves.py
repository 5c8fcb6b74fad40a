"""Curves of power over the area, and lines with the bands of their intervals."""

import math
from collections.abc import Collection, Mapping, Sequence
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
from captum_classpattern.visualization.style import CONTROL, CURVE_STYLE, HIGHLIGHTS, OTHERS, QUIET

Point: TypeAlias = tuple[float, float, float, float]  # x, y, and the ends of y's interval
Style: TypeAlias = dict[str, Any]
Line: TypeAlias = tuple[Sequence[Any], Style]  # points (x, y), perhaps with intervals of y

MARKERS = "osD^vPX<>"
CONTROL_DASHES = ((5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (9, 3))
POWER_TICKS = [0, 0.2, 0.4, 0.6, 0.8, 1]
PANEL_WIDTHS, PANEL_HEIGHT = {1: 6.0, 2: 4.4, 3: 3.5}, 3.1  # inches, by the number of columns
TICKS = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]


def plot_curves(
    curves: Mapping[str, Mapping[str, Sequence[Point]]],
    *,
    highlight: Collection[str] = (),
    controls: Collection[str] = (),
    areas_marked: Collection[float] = (),
    use_pyplot: bool = True,
) -> Drawing:
    """Draws the predictive power of methods over the area of their patterns, with 95 % intervals:
    for each panel, by its title (such as a model), the points of each method. A method looks the
    same in all panels; a legend below names them. Highlights are thick, controls dashed and grey.
    Marked areas get a dotted line."""
    names = list(dict.fromkeys(name for methods in curves.values() for name in methods))
    styles = line_styles(names, highlight, controls)
    columns = {1: 1, 2: 2, 4: 2}.get(len(curves), 3)
    rows, width = math.ceil(len(curves) / columns), PANEL_WIDTHS[columns]
    with rc_context(CURVE_STYLE):
        high = rows * (PANEL_HEIGHT + 0.9) + 1 + 0.35 * len(styles)  # room for the legend
        figure = new_figure(columns * (width + 0.5), high, use_pyplot, None)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis in grid.flat[len(curves) :]:
            axis.remove()
        for axis in grid[:, 0]:
            axis.set_ylabel("predictive power")
        axes = grid.flat[: len(curves)]
        for axis, (title, methods) in zip(axes, curves.items()):
            wrap(axis.set_title(title), width)
            lines = [(sorted(points), styles[name]) for name, points in methods.items()]
            draw_lines(axis, lines, width, areas_marked, **_areas(methods))
        _add_legend(figure, styles, columns * width)
        fit_figure(figure, axes[0], width, PANEL_HEIGHT, columns, rows)
    return figure, axes


def _areas(methods: Mapping[str, Sequence[Point]]) -> Style:
    """Areas on a log axis with plain numbers, power from 0 to 100 %."""
    areas = [point[0] for points in methods.values() for point in points]
    low, high = min(areas), max(areas)
    ticks = [tick for tick in TICKS if low * 0.999 <= tick <= high * 1.001] or sorted({low, high})
    ticks = ticks if len(ticks) < 9 else ticks[::3]
    pad = max(1.12, (high / low) ** 0.04)
    return {
        "xscale": "log",
        "xlim": (low / pad, high * pad),
        "xticks": ticks,
        "xticklabels": [f"{100 * tick:.6g}" for tick in ticks],
        "xlabel": "area of the pattern (% of the pixels)",
        "ylim": (-0.02, 1.02),
        "yticks": POWER_TICKS,
        "yticklabels": [f"{100 * share:.0f} %" for share in POWER_TICKS],
    }


def draw_lines(
    axis: Axes, lines: Sequence[Line], width: float, dotted: Collection[float] = (), **settings: Any
) -> None:
    """Lines with their bands, which are strong if the line is thick, and dotted ones at some places
    of an axis of this width in inches. Its settings are those of ``Axes.set``."""
    for place in dotted:
        axis.axvline(place, color=QUIET, linewidth=0.9, linestyle=":", zorder=1)
    for points, style in lines:
        x, y, *ends = np.asarray(points, dtype=float).T
        axis.plot(x, y, **style)
        if ends:
            opacity = 0.22 if style.get("linewidth", 0) > 2 else 0.08
            axis.fill_between(x, *ends, color=style["color"], alpha=opacity, linewidth=0)
    axis.set(**settings)
    axis.minorticks_off()
    axis.tick_params(bottom=True, labelbottom=True)  # also in a grid of images
    wrap(axis.xaxis.label, width)


def line_styles(
    names: Sequence[str], highlight: Collection[str], controls: Collection[str]
) -> dict[str, Style]:
    """How each line is drawn, in the order of the legend: highlights, others, controls."""
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
    for name, style in styles.items():
        style |= {"label": name, "markersize": 3 + style["linewidth"]}
    return styles


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

"""Panels of lines with the bands of their intervals, and curves of power over the area."""

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
PANEL_WIDTHS, PANEL_HEIGHT = {1: 6.0, 2: 4.4, 3: 3.5}, 3.1  # inches, by the number of columns
ROUNDING = 1e-6  # of an interval's ends
TICKS = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]


def plot_curves(
    curves: Mapping[str, Mapping[str, Sequence[Point]]],
    *,
    highlight: Collection[str] = (),
    controls: Collection[str] = (),
    areas_marked: Collection[float] = (),
    use_pyplot: bool = True,
) -> Drawing:
    r"""
    Draws the predictive power of methods over the area of their patterns, with 95 % intervals.

    A method looks the same in all panels. Methods are named at the ends of their lines if each
    panel has at most six, whose ends are apart; otherwise a legend below names them.

    Args:
        curves (Mapping[str, Mapping[str, Sequence[tuple]]]): For each panel, by its title (such as
            a model), for each method, its points: (area, predictive power, lower and upper end of
            its interval), each a share from 0 to 1.
        highlight (Collection[str]): Methods in thick, strong colours. Default: ().
        controls (Collection[str]): Methods in dashed grey. Default: ().
        areas_marked (Collection[float]): Areas that get a dotted vertical line. Default: ().
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its panels' axes, in order.

    Raises:
        ValueError: If there is nothing to draw, a share is not in [0, 1], an area is 0, a value
            is outside its interval, or a name in ``highlight`` or ``controls`` is not a method.

    Examples::

        >>> from captum_classpattern.visualization import plot_curves
        >>> searched = [(0.01, 0.2, 0.15, 0.26), (0.05, 0.7, 0.64, 0.75)]
        >>> random = [(0.01, 0.02, 0.01, 0.04), (0.05, 0.05, 0.03, 0.08)]
        >>> figure, axes = plot_curves(
        ...     {"ResNet": {"ClassPattern": searched, "random pixels": random}},
        ...     highlight=["ClassPattern"], controls=["random pixels"], use_pyplot=False)
        >>> axes[0].get_title()
        'ResNet'
    """
    _check(curves)
    names = list(dict.fromkeys(name for methods in curves.values() for name in methods))
    styles = line_styles(names, highlight, controls)
    for style in styles.values():
        style["markersize"] = 3 + style["linewidth"]
    columns = {1: 1, 2: 2, 4: 2}.get(len(curves), 3)
    labelled = columns < 3 and all(ends_are_apart(methods) for methods in curves.values())
    panels = []
    for title, methods in curves.items():
        lines = [
            Line(sorted(points), styles[name], name, name if labelled else "")
            for name, points in methods.items()
        ]
        panels.append(Panel(lines, _areas(methods), title, dotted=areas_marked))
    return draw_panels(
        panels,
        size=(PANEL_WIDTHS[columns], PANEL_HEIGHT),
        columns=columns,
        key={} if labelled else styles,
        use_pyplot=use_pyplot,
    )


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
        "yticks": SHARES,
        "yticklabels": [f"{100 * share:.0f} %" for share in SHARES],
    }


def _check(curves: Mapping[str, Mapping[str, Sequence[Point]]]) -> None:
    lines = [points for methods in curves.values() for points in methods.values()]
    if not (curves and all(curves.values()) and all(map(len, lines))):
        raise ValueError(
            "there must be a panel, a method in each panel, and a point of each method: leave out "
            "what has nothing to draw"
        )
    for panel, methods in curves.items():
        for name, points in methods.items():
            for area, value, low, high in points:
                shares = (0, low, value, high, 1)
                in_order = all(a <= b + ROUNDING for a, b in pairwise(shares))
                if not (0 < area <= 1 and in_order):  # nor NaN
                    raise ValueError(
                        f"{name!r} in panel {panel!r} needs shares 0 < area <= 1 and 0 <= low <= "
                        "value <= high <= 1, got (area, value, low, high) = "
                        f"{tuple(map(float, (area, value, low, high)))}"
                    )


@dataclass(frozen=True, eq=False)
class Line:
    """A line through points (x, y), with a band if they come with intervals, and a text at its
    end; both are strong if the line is thick."""

    points: Sequence[Sequence[float]] | Any
    style: Style
    name: str = ""
    text: str = ""


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
    use_pyplot: bool = True,
) -> Drawing:
    """Draws the panels row by row, in at most so many columns, each of this size in inches, and a
    legend of the lines in ``key`` below. With a label, they share a y axis."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = size
    with rc_context(style):
        high = rows * (height + 0.9) + 1 + 0.35 * len(key)  # room for the legend
        figure = new_figure(columns * (width + 0.5), high, use_pyplot, title)
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
        color, thick = line.style["color"], line.style.get("linewidth", 0) > 2
        if ends:
            opacity = 0.22 if thick else 0.08
            axis.fill_between(x, *ends, color=color, alpha=opacity, linewidth=0)
        if line.text:
            beside: Style = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            weight = "bold" if thick else "normal"
            axis.annotate(line.text, (x[-1], y[-1]), color=color, fontweight=weight, **beside)
    axis.set(**panel.axes)
    axis.minorticks_off()
    axis.tick_params(bottom=True, labelbottom=True)  # also in a grid of images
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

"""Predictive power over the area of the patterns, a line for each method."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from textwrap import fill
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import NullLocator, PercentFormatter

from captum_classpattern.visualization.drawing import QUIET, fit_figure, new_figure, wrap
from captum_classpattern.visualization.rc import rc_context

Point: TypeAlias = tuple[float, float, float, float]  # area, value, and its interval's ends
Style: TypeAlias = dict[str, Any]

HIGHLIGHTS = ("#e8590c", "#111111", "#1f6feb")
CONTROL = "#8c959f"
# Paul Tol's "muted" colours, which colour-blind readers can tell apart, and three more
OTHERS = (
    "#332288", "#44aa99", "#cc6677", "#88ccee", "#117733", "#aa4499",
    "#ddaa33", "#882255", "#999933", "#8a4b12", "#4477dd", "#96d35f",
)  # fmt: skip
MARKERS = "osD^vPX<>"
CONTROL_DASHES = ((5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (9, 3))
PANEL_WIDTHS, PANEL_HEIGHT = {1: 6.0, 2: 4.4, 3: 3.5}, 3.1  # inches, by the number of columns
MOST_LABELS, LONGEST_LABEL, LABEL_DISTANCE = 6, 24, 0.065  # at the lines' ends
ROUNDING = 1e-6  # of an interval's ends
TICKS = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaef",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plot_curves(
    curves: Mapping[str, Mapping[str, Sequence[Point]]],
    *,
    titles: Sequence[str] | None = None,
    highlight: Collection[str] = (),
    controls: Collection[str] = (),
    areas_marked: Collection[float] = (),
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    r"""
    Draws the predictive power of methods over the area of their patterns, with 95 % intervals.

    A method looks the same in all panels. Methods are named at the ends of their lines if each
    panel has at most six, whose ends are apart; otherwise a legend below names them.

    Args:
        curves (Mapping[str, Mapping[str, Sequence[tuple]]]): For each panel (such as a model),
            for each method, its points: (area, predictive power, lower and upper end of its
            interval), each a share from 0 to 1.
        titles (Sequence[str], optional): Title of each panel. Default: None (the keys of
            ``curves``).
        highlight (Collection[str]): Methods in thick, strong colours. Default: ().
        controls (Collection[str]): Methods in dashed grey. Default: ().
        areas_marked (Collection[float]): Areas that get a dotted vertical line. Default: ().
        use_pyplot (bool): Makes the figure with pyplot, which shows it in notebooks and with
            ``plt.show()``, as Captum's visualizer does. Default: True.

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
    titles = list(curves) if titles is None else titles
    _check_curves(curves, titles, areas_marked)
    styles = line_styles(curves, highlight, controls)
    columns = {1: 1, 2: 2, 4: 2}.get(len(curves), 3)
    rows = math.ceil(len(curves) / columns)
    width = PANEL_WIDTHS[columns]
    labelled = columns < 3 and all(ends_are_apart(methods) for methods in curves.values())
    with rc_context(STYLE):
        figure = new_figure(columns * (width + 0.5), rows * 4.0 + 1, use_pyplot)
        axes = add_panels(figure, len(curves), columns)
        for axis, title, methods in zip(axes, titles, curves.values()):
            wrap(axis.set_title(title), width)
            axis.set_xlabel("area of the pattern (% of the pixels)")
            for area in areas_marked:
                axis.axvline(area, color=QUIET, linewidth=0.9, linestyle=":", zorder=1)
            for name, points in methods.items():
                _draw_curve(axis, name, points, styles[name], labelled)
            _scale_axes(axis, [point[0] for points in methods.values() for point in points])
        if not labelled:
            add_legend(figure, axes, list(styles), columns * width)
        fit_figure(figure, axes[0], width, PANEL_HEIGHT, columns, rows)
    return figure, axes


def add_panels(
    figure: Figure, count: int, columns: int, y_label: str = "predictive power"
) -> npt.NDArray[Any]:
    """The axes of so many panels, row by row, with one scale."""
    grid = figure.subplots(math.ceil(count / columns), columns, squeeze=False, sharey=True)
    for axis in grid.flat[count:]:
        axis.remove()
    for axis in grid[:, 0]:
        axis.set_ylabel(y_label)
    return np.array(grid.flat[:count], dtype=object)


def _check_curves(curves: Any, titles: Sequence[str], areas: Collection[float]) -> None:
    if not curves:
        raise ValueError("there are no curves to draw: give at least one panel")
    if isinstance(titles, str) or len(titles) != len(curves):
        got = repr(titles) if isinstance(titles, str) else len(titles)
        raise ValueError(f"{len(curves)} panels need as many titles, got {got}")
    for area in areas:
        if not 0 < area <= 1:
            raise ValueError(f"areas_marked must be shares above 0, up to 1, got {area!r}")
    for panel, methods in curves.items():
        if not methods:
            raise ValueError(f"panel {panel!r} has no methods: leave it out")
        for name, points in methods.items():
            _check_points(points, f"{name!r} in panel {panel!r}")


def _check_points(points: Sequence[Point], where: str) -> None:
    if len(points) == 0:
        raise ValueError(f"{where} has no points: leave it out")
    for point in points:
        if len(point) != 4:
            raise ValueError(f"{where} needs points (area, value, low, high), got {point!r}")
        area, value, low, high = point
        shares = (0, low, value, high, 1)
        if not (0 < area <= 1 and all(a <= b + ROUNDING for a, b in pairwise(shares))):  # nor NaN
            raise ValueError(
                f"{where} needs shares 0 < area <= 1 and 0 <= low <= value <= high <= 1, got "
                f"(area, value, low, high) = {tuple(float(share) for share in point)}"
            )


def line_styles(
    curves: Mapping[str, Mapping[str, Any]],
    highlight: Collection[str],
    controls: Collection[str],
) -> dict[str, Style]:
    """How each method is drawn, in the order of the legend: highlights, others, controls."""
    names = list(dict.fromkeys(name for methods in curves.values() for name in methods))
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


def ends_are_apart(lines: Mapping[str, Sequence[tuple[float, ...]]]) -> bool:
    """Whether there is room for the lines' names at their ends; the points begin with x and y."""
    ends = [max(points) for points in lines.values()]
    heights = sorted(end[1] for end in ends)
    return (
        len(lines) <= MOST_LABELS
        and max(map(len, lines)) <= LONGEST_LABEL
        and len({end[0] for end in ends}) == 1
        and all(high - low >= LABEL_DISTANCE for low, high in pairwise(heights))
    )


def _draw_curve(
    axis: Axes, name: str, points: Sequence[Point], style: Style, labelled: bool
) -> None:
    areas, values, lows, highs = np.array(sorted(points), dtype=float).T
    strong = style["linewidth"] > 2
    axis.plot(areas, values, label=name, markersize=3 + style["linewidth"], **style)
    alpha = 0.22 if strong else 0.08
    axis.fill_between(areas, lows, highs, color=style["color"], alpha=alpha, linewidth=0)
    if labelled:
        text = name_end(axis, name, (areas[-1], values[-1]), style["color"])
        text.set_fontweight("bold" if strong else "normal")


def name_end(axis: Axes, name: str, end: tuple[float, float], color: str) -> Text:
    """Writes a line's name to the right of its last point, in its colour."""
    text = axis.annotate(name, end, (8, 0), textcoords="offset points", va="center")
    text.set_color(color)
    return text


def add_legend(figure: Figure, axes: Iterable[Axes], names: list[str], width: float) -> None:
    """One legend for all panels, below them, in as many columns as fit in this many inches."""
    lines = {line.get_label(): line for axis in axes for line in axis.get_lines()}
    for rows in range(1, len(names) + 1):
        legend = figure.legend(
            [lines[name] for name in names],
            [fill(name, 50) for name in names],
            loc="outside lower center",
            ncols=math.ceil(len(names) / rows),
            frameon=False,
            handlelength=3.2,
        )
        if legend.get_window_extent().width <= width * figure.dpi or rows == len(names):
            return
        legend.remove()


def _scale_axes(axis: Axes, areas: Sequence[float]) -> None:
    """Areas on a log axis with plain numbers, power from 0 to 100 %."""
    low, high = min(areas), max(areas)
    ticks = [tick for tick in TICKS if low * 0.999 <= tick <= high * 1.001] or sorted({low, high})
    ticks = ticks if len(ticks) < 9 else ticks[::3]
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{100 * tick:.6g}" for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    pad = max(1.12, (high / low) ** 0.04)
    axis.set_xlim(low / pad, high * pad)
    scale_power(axis)


def scale_power(axis: Axes) -> None:
    """Power from 0 to 100 % on the y axis."""
    axis.set_ylim(-0.02, 1.02)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))

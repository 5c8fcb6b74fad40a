"""Predictive power over the area of the patterns, a line for each method."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator, PercentFormatter

from captum_classpattern.visualization.drawing import new_figure, wrapped
from captum_classpattern.visualization.labels import (
    ROW_HEIGHT,
    Point,
    Style,
    ends_fit,
    label_ends,
    name_below,
    rows_below,
)

HIGHLIGHTS = ("#e8590c", "#111111", "#1f6feb")
CONTROL, QUIET, GRID = "#8c959f", "#57606a", "#e6eaef"
# Paul Tol's "muted" colours, told apart by colour-blind readers too, and three more
MUTED = [
    "#332288",
    "#44aa99",
    "#cc6677",
    "#88ccee",
    "#117733",
    "#aa4499",
    "#ddaa33",
    "#882255",
    "#999933",
]
OTHERS = (*MUTED, "#8a4b12", "#4477dd", "#96d35f")
MARKERS = "osD^vPX<>"
CONTROL_DASHES = ((5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (9, 3))
PANEL_HEIGHT = 3.6  # inches, its title and numbers included
WIDTHS = {1: 7.0, 2: 10.5, 3: 12.0}  # of a figure with so many columns
SLACK = 1e-6  # an interval's ends are rounded
TICKS = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]


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

    A method looks the same in all panels. Up to six methods are named at the ends of their
    lines if there is room; otherwise all are named below.

    Args:
        curves (Mapping[str, Mapping[str, Sequence[tuple]]]): For each panel (such as a model),
            for each method, its points: (area, predictive power, lower and upper end of its
            interval), each a share from 0 to 1.
        titles (Sequence[str], optional): Title of each panel. Default: None (the keys of
            ``curves``).
        highlight (Collection[str]): Methods in thick, strong colours. Default: ().
        controls (Collection[str]): Methods in dashed grey. Default: ().
        areas_marked (Collection[float]): Areas at which a dotted line stands. Default: ().
        use_pyplot (bool): Makes the figure with pyplot, which shows it in notebooks and under
            ``plt.show()``, as in Captum's visualizer. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its panels' axes, in order.

    Raises:
        ValueError: If there is nothing to draw, a share is not in [0, 1] or an area 0, a
            value is outside its interval, or a name of ``highlight`` or ``controls`` is no
            method.

    Examples::

        >>> from captum_classpattern.visualization import plot_curves
        >>> ours = [(0.01, 0.2, 0.15, 0.26), (0.05, 0.7, 0.64, 0.75)]
        >>> lot = [(0.01, 0.02, 0.01, 0.04), (0.05, 0.05, 0.03, 0.08)]
        >>> figure, axes = plot_curves(
        ...     {"ResNet": {"ClassPattern": ours, "random pixels": lot}},
        ...     highlight=["ClassPattern"], controls=["random pixels"], use_pyplot=False)
        >>> axes[0].get_title()
        'ResNet'
    """
    titles = list(curves) if titles is None else titles
    _check_curves(curves, titles, areas_marked)
    styles = _styles(curves, highlight, controls)
    columns = {1: 1, 2: 2, 4: 2}.get(len(curves), 3)
    labelled = columns < 3 and all(ends_fit(methods) for methods in curves.values())
    legend_rows = 0 if labelled else rows_below(styles, WIDTHS[columns])
    figure, axes = _panels(len(curves), columns, legend_rows, use_pyplot)
    for axis, title, methods in zip(axes, titles, curves.values()):
        axis.set_title(wrapped(title, 3.4, 10, "bold"), fontsize=10, fontweight="bold")
        for area in areas_marked:
            axis.axvline(area, color=QUIET, linewidth=0.9, linestyle=":", zorder=1)
        for name, points in methods.items():
            _draw_curve(axis, name, points, styles[name])
        _scale_axes(axis, [point[0] for points in methods.values() for point in points])
        if labelled:
            label_ends(axis, methods, styles)
    if legend_rows:
        name_below(figure, axes, styles, legend_rows)
    return figure, axes


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
        if not (0 < area <= 1 and all(a <= b + SLACK for a, b in pairwise(shares))):  # nor NaN
            raise ValueError(
                f"{where} needs shares 0 < area <= 1 and 0 <= low <= value <= high <= 1, got "
                f"(area, value, low, high) = {tuple(float(share) for share in point)}"
            )


def _styles(
    curves: Mapping[str, Mapping[str, Any]],
    highlight: Collection[str],
    controls: Collection[str],
) -> dict[str, Style]:
    """How each method is drawn, in the order of the legend: highlights, others, controls."""
    names = list(dict.fromkeys(name for methods in curves.values() for name in methods))
    for kind, chosen in (("highlight", highlight), ("controls", controls)):
        unknown = [chosen] if isinstance(chosen, str) else [n for n in chosen if n not in names]
        if unknown:
            raise ValueError(f"{kind} must be a list of methods out of {names}, got {unknown[0]!r}")
    first = [name for name in names if name in highlight]
    last = [name for name in names if name in controls and name not in highlight]
    rest = [name for name in names if name not in highlight and name not in controls]
    styles: dict[str, Style] = {}
    for i, name in enumerate(first):
        color, marker = HIGHLIGHTS[i % len(HIGHLIGHTS)], MARKERS[i // len(HIGHLIGHTS) % 9]
        styles[name] = {"color": color, "marker": marker, "linewidth": 3.0, "zorder": 5}
    for i, name in enumerate(rest):
        marker = MARKERS[(i + i // len(OTHERS)) % len(MARKERS)]  # no pair twice in 108
        styles[name] = {"color": OTHERS[i % len(OTHERS)], "marker": marker, "linewidth": 1.3}
    for i, name in enumerate(last):
        dashes = (0, CONTROL_DASHES[i % len(CONTROL_DASHES)])
        styles[name] = {"color": CONTROL, "linestyle": dashes, "linewidth": 1.6, "zorder": 1.5}
    return styles


def _panels(
    count: int, columns: int, legend_rows: int, use_pyplot: bool
) -> tuple[Figure, npt.NDArray[Any]]:
    rows = math.ceil(count / columns)
    size = (WIDTHS[columns], PANEL_HEIGHT * rows + ROW_HEIGHT * legend_rows + 0.4)
    figure = new_figure(size, use_pyplot, ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis in grid.flat[count:]:
        axis.remove()
    for place, axis in enumerate(grid.flat[:count]):
        axis.tick_params(labelsize=9, labelleft=place % columns == 0)
        if place % columns == 0:
            axis.set_ylabel("predictive power", fontsize=10)
        if place + columns >= count:
            axis.set_xlabel("area of the pattern (% of the pixels)", fontsize=10)
    return figure, np.array(grid.flat[:count], dtype=object)


def _draw_curve(axis: Axes, name: str, points: Sequence[Point], style: Style) -> None:
    areas, values, lows, highs = np.array(sorted(points), dtype=float).T
    axis.plot(areas, values, label=name, markersize=2.5 + style["linewidth"], **style)
    shade = 0.22 if style["linewidth"] > 2 else 0.08
    axis.fill_between(areas, lows, highs, color=style["color"], alpha=shade, linewidth=0)


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
    axis.set_ylim(-0.02, 1.02)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)

"""Predictive power as lines over the area of the patterns."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    POWERS,
    Line,
    Panel,
    Point,
    Style,
    draw_panels,
    ends_are_apart,
    line_styles,
)

PANEL_WIDTHS, PANEL_HEIGHT = {1: 6.0, 2: 4.4, 3: 3.5}, 3.1  # inches, by the number of columns
ROUNDING = 1e-6  # of an interval's ends
TICKS = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]

Points: TypeAlias = npt.NDArray[np.float64]  # (n, 2)


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
        lines = []
        for name, points in methods.items():
            width, text = styles[name]["linewidth"], name if labelled else ""
            opacity = 0.22 if width > 2 else 0.08
            lines.append(Line(sorted(points), styles[name], name, opacity, text, width > 2))
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
        **POWERS,
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

"""Predictive power over the area of the patterns, a line for each method."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    PANEL_HEIGHT,
    PANEL_WIDTHS,
    POWERS,
    Line,
    Panel,
    Point,
    Style,
    draw_panels,
    ends_are_apart,
    line_styles,
)

ROUNDING = 1e-6  # of an interval's ends
TICKS = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]


def plot_curves(
    curves: Mapping[str, Mapping[str, Sequence[Point]]],
    *,
    titles: Sequence[str] | None = None,
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
        curves (Mapping[str, Mapping[str, Sequence[tuple]]]): For each panel (such as a model),
            for each method, its points: (area, predictive power, lower and upper end of its
            interval), each a share from 0 to 1.
        titles (Sequence[str], optional): Title of each panel. Default: None (the keys of
            ``curves``).
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
    titles = list(curves) if titles is None else titles
    _check(curves, titles, areas_marked)
    names = list(dict.fromkeys(name for methods in curves.values() for name in methods))
    styles = line_styles(names, highlight, controls)
    for style in styles.values():
        style["markersize"] = 3 + style["linewidth"]
    columns = {1: 1, 2: 2, 4: 2}.get(len(curves), 3)
    labelled = columns < 3 and all(ends_are_apart(methods) for methods in curves.values())
    panels = []
    for title, methods in zip(titles, curves.values()):
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


def _check(curves: Any, titles: Sequence[str], areas: Collection[float]) -> None:
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
            where = f"{name!r} in panel {panel!r}"
            if len(points) == 0:
                raise ValueError(f"{where} has no points: leave it out")
            for point in points:
                _check_point(point, where)


def _check_point(point: Point, where: str) -> None:
    if len(point) != 4:
        raise ValueError(f"{where} needs points (area, value, low, high), got {point!r}")
    area, value, low, high = point
    shares = (0, low, value, high, 1)
    if not (0 < area <= 1 and all(a <= b + ROUNDING for a, b in pairwise(shares))):  # nor NaN
        raise ValueError(
            f"{where} needs shares 0 < area <= 1 and 0 <= low <= value <= high <= 1, got "
            f"(area, value, low, high) = {tuple(float(share) for share in point)}"
        )

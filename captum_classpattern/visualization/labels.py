"""Which line is which method: named at the lines' ends where there is room, else below."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_classpattern.visualization.drawing import text_width

Point: TypeAlias = tuple[float, float, float, float]  # area, value, and its interval's ends
Style: TypeAlias = dict[str, Any]

SIZE, LONGEST, MOST = 9, 2.0, 6  # of labels at ends: points, inches, and how many
ROW_HEIGHT = 0.21  # of the legend, in inches
STEP = 0.055  # of the panel's height, from one label to the next


def last_points(methods: Mapping[str, Sequence[Point]]) -> dict[str, Point]:
    """The last point of each method, from the lowest to the highest."""
    last = {name: max(points) for name, points in methods.items()}
    return dict(sorted(last.items(), key=lambda item: item[1][1]))


def label_heights(ends: Sequence[float]) -> npt.NDArray[np.float64]:
    """Where labels stand that belong to ascending ends, moved apart as far as they need."""
    heights: list[float] = []
    for end in ends:
        heights.append(max(end, heights[-1] + STEP) if heights else end)
    top = 1.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], top)
        top = heights[i] - STEP
    return np.array(heights)


def ends_fit(methods: Mapping[str, Sequence[Point]]) -> bool:
    """Whether methods can be named at their ends, each close to its own."""
    ends = last_points(methods)
    if len(ends) > MOST or len({point[0] for point in ends.values()}) > 1:
        return False
    values = [point[1] for point in ends.values()]
    moved = np.abs(label_heights(values) - values).max()
    return bool(moved <= 2 * STEP) and max(text_width(n, SIZE) for n in ends) < LONGEST


def label_ends(
    axis: Axes, methods: Mapping[str, Sequence[Point]], styles: Mapping[str, Style]
) -> None:
    ends = last_points(methods)
    heights = label_heights([point[1] for point in ends.values()])
    for (name, point), height in zip(ends.items(), heights):
        strong = styles[name]["linewidth"] > 2
        axis.annotate(
            name,
            (point[0], height),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=SIZE,
            fontweight="bold" if strong else "normal",
            color=styles[name]["color"],
            annotation_clip=False,
        )


def rows_below(names: Collection[str], width: float) -> int:
    """How many rows it takes to name all methods below a figure of so many inches."""
    longest = max(text_width(name, SIZE) for name in names) + 0.75
    return math.ceil(len(names) / max(1, int((width - 0.3) / longest)))


def name_below(
    figure: Figure, axes: Iterable[Axes], styles: Mapping[str, Style], rows: int
) -> None:
    """One legend for all panels."""
    lines = {line.get_label(): line for axis in axes for line in axis.get_lines()}
    figure.legend(
        [lines[name] for name in styles],
        list(styles),
        loc="outside lower center",
        ncols=math.ceil(len(styles) / rows),
        fontsize=SIZE,
        frameon=False,
        handlelength=3.2,
    )

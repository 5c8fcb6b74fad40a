"""The picture of a scan."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from captum_classpattern.visualization.drawing import QUIET, draw_image, new_figure

STRONG, BAND, OTHERS = "#b3261e", "#c9d1d9", "#6f8fb9"


def draw_scan(
    title: str,
    shown: Sequence[tuple[Any, str]],
    sizes: Sequence[int],
    unit: str,
    names: Sequence[str],
    powers: Sequence[Sequence[float]],
    usual: Sequence[Sequence[float]],
    use_pyplot: bool,
) -> tuple[Any, Any]:
    """
    Patterns with their powers, next to the powers of all classes over the number of pixels.

    Args:
        title (str): The verdict.
        shown (list): Pairs of image and what is written below it, the most suspicious first.
        sizes (list[int]): Numbers of pixels, ascending.
        unit (str): What is counted.
        names (list[str]): The names of the classes, the most suspicious first.
        powers (list): The powers of each class at all sizes.
        usual (list): The powers of the first class for each reference.
        use_pyplot (bool): Whether pyplot manages the figure.
    """
    figure = new_figure(10.5, 3.2, use_pyplot, title)
    axes = figure.subplots(1, len(shown) + 1, width_ratios=[*[1] * len(shown), 1.9])
    for axis, (image, below), name in zip(axes, shown, names):
        draw_image(axis, image)
        axis.set(xticks=[], yticks=[])
        axis.set_title(name, parse_math=False)  # names come from files
        axis.set_xlabel(below, color=QUIET)
    _draw_powers(axes[-1], sizes, names[0], powers, np.array(usual))
    axes[-1].set_xlabel(unit)
    return figure, axes


def _draw_powers(
    axis: Any, sizes: Sequence[int], name: str, powers: Sequence[Sequence[float]], usual: Any
) -> None:
    """Each class a line, and the references' range of the first class a band."""
    first, *others = powers
    band = f"{name}, {len(usual)} references"
    axis.fill_between(sizes, usual.min(0), usual.max(0), color=BAND, label=band)
    for number, values in enumerate(others):
        label = "other classes" if number == 0 else None
        axis.plot(sizes, values, ".-", color=OTHERS, linewidth=0.8, label=label)
    axis.plot(sizes, first, ".-", color=STRONG, linewidth=2, label=name)
    axis.set(ylim=(-0.02, 1.02), xticks=sizes)
    axis.set_title("other images that become the class", fontsize=10)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    for text in axis.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)

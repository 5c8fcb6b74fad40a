"""The picture of a scan."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from captum_classpattern.visualization.drawing import draw_image, new_figure
from captum_classpattern.visualization.formats import SPACE
from captum_classpattern.visualization.rc import rc_context
from captum_classpattern.visualization.style import HIGHLIGHTS, IMAGE_STYLE, QUIET, TRACK

STRONG, OTHERS = HIGHLIGHTS[0], HIGHLIGHTS[2]
KEY: dict[str, Any] = {"loc": "outside lower right", "ncols": 3, "frameon": False}


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
    with rc_context(IMAGE_STYLE):
        figure = new_figure(10.0, 3.3, use_pyplot, title)
        axes = figure.subplots(1, len(shown) + 1, width_ratios=[*[1] * len(shown), 1.9])
        for axis, (image, below), name in zip(axes, shown, names):
            draw_image(axis, image)
            axis.set_title(name, parse_math=False)  # names come from files
            axis.set_xlabel(below, color=QUIET)
        axes[0].title.set(color=STRONG, fontweight="bold")
        _draw_powers(axes[-1], sizes, names[0], powers, np.array(usual))
        axes[-1].set_xlabel(unit)
        key = figure.legend(*axes[-1].get_legend_handles_labels(), **KEY)
        for text in key.get_texts():
            text.set_parse_math(False)
    return figure, axes


def _draw_powers(
    axis: Any, sizes: Sequence[int], name: str, powers: Sequence[Sequence[float]], usual: Any
) -> None:
    """Each class a line, and the references' range of the first class a band."""
    first, *others = powers
    band = f"{name} in {len(usual)} clean models"
    axis.fill_between(sizes, usual.min(0), usual.max(0), color=TRACK, label=band)
    for number, values in enumerate(others):
        label = "other classes" if number == 0 else None
        axis.plot(sizes, values, ".-", color=OTHERS, linewidth=0.8, label=label)
    axis.plot(sizes, first, ".-", color=STRONG, linewidth=2.5, label=name)
    axis.tick_params(bottom=True, labelbottom=True, left=True, labelleft=True)
    axis.set(ylim=(-0.02, 1.02), xticks=sizes)
    axis.set_title("other images that become the class")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=f"{SPACE}%"))
    axis.spines[["top", "right"]].set_visible(False)

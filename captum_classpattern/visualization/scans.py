"""The picture of a scan."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.families import pictures
from captum_classpattern.scanning.profile import SIZES, unit_of
from captum_classpattern.visualization.drawing import Drawing, on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.lines import PERCENT, Line, draw_line
from captum_classpattern.visualization.style import HIGHLIGHTS, TRACK

DRAWN = 3  # patterns
STRONG, OTHERS = HIGHLIGHTS[0], HIGHLIGHTS[2]
WIDTH, PANEL_WIDTH = 1.85, 1.9  # of a pattern in inches, and of the panel relative to it
KEY: dict[str, Any] = {"loc": "outside lower right", "ncols": 3, "frameon": False}


def plot_scan(scan: Scan, *, use_pyplot: bool) -> Drawing:
    """Draws the most suspicious patterns, next to the powers of all classes over the number of
    pixels."""
    shown = scan.test.order[:DRAWN]
    cells = [Cell(image, below, False) for image, below in (pictured(scan, y) for y in shown)]
    figure, axes = draw_grid(
        [("", [*cells, partial(_draw_powers, scan=scan)])],
        [*(scan.class_names[y] for y in shown), "other images that become the class"],
        title=verdict_text(scan),
        width=WIDTH,
        widths=[*[1.0] * len(shown), PANEL_WIDTH],
        wrapped=False,
        finish=_finish,
        use_pyplot=use_pyplot,
    )
    return figure, axes[0]


def verdict_text(scan: Scan) -> str:
    """``Suspicious, p = 0.02``."""
    p_value = "" if scan.p_value is None else f", p = {scan.p_value:.2g}"
    return f"{scan.verdict.capitalize()}{p_value}"


def pictured(scan: Scan, target: int) -> tuple[Tensor, str]:
    """The image of a class, and what is written below it."""
    profile, shape = scan.profile, scan.references.shape
    if scan.family in profile.others:
        changes = profile.changes[scan.family]
        image = pictures(scan.family, shape, {target: changes[target]})[target]
        return image, f"{scan.family}, {percent(profile.others[scan.family][target], 0)}"
    size = profile.enough_pixels(target)
    below = f"{size} {unit_of(shape)}, {percent(profile.powers[size][target], 0)}"
    return on_neutral(profile.patterns[size, target]), below


def _draw_powers(axis: Axes, scan: Scan) -> None:
    """Each class a line, and the references' range of the first class a band."""
    sizes, (first, *others) = sorted(SIZES), scan.test.order
    profiles, name = scan.references.profiles.values(), scan.class_names[first]
    usual = np.array([[profile.powers[size][first] for size in sizes] for profile in profiles])
    band = f"{name} in {len(usual)} clean models"
    axis.fill_between(sizes, usual.min(0), usual.max(0), color=TRACK, label=band)
    for target in (*others, first):
        points = [(size, scan.profile.powers[size][target]) for size in sizes]
        label = "other classes" if target == others[0] else ""
        style = {"color": OTHERS, "linewidth": 0.8}
        if target == first:
            label, style = name, {"color": STRONG, "linewidth": 2.5}
        draw_line(axis, Line(label, points, {"marker": ".", **style}))
    axis.tick_params(bottom=True, labelbottom=True, left=True, labelleft=True)
    axis.set(ylim=(-0.02, 1.02), xticks=sizes, xlabel=unit_of(scan.references.shape))
    axis.yaxis.set_major_formatter(PERCENT)
    axis.spines[["top", "right"]].set_visible(False)


def _finish(axes: Any) -> None:
    """The first class stands out, and a legend below names the lines."""
    first, *_, panel = axes[0]
    first.title.set(color=STRONG, fontweight="bold")
    key = panel.figure.legend(*panel.get_legend_handles_labels(), **KEY)
    for text in key.get_texts():
        text.set_parse_math(False)  # names come from files

"""The picture of a scan."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.families import CHANGES, SIZES, unit_of
from captum_classpattern.visualization.drawing import Drawing, on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.lines import POWERS, Line, draw_lines
from captum_classpattern.visualization.style import HIGHLIGHTS, TRACK

DRAWN = 3  # patterns
STRONG, OTHERS = HIGHLIGHTS[0], HIGHLIGHTS[2]
WIDTH, PANEL_WIDTH = 1.85, 1.9  # of a pattern in inches, and of the panel relative to it


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
        use_pyplot=use_pyplot,
    )
    axes[0, 0].title.set(color=STRONG, fontweight="bold")
    return figure, axes[0]


def verdict_text(scan: Scan) -> str:
    """``Suspicious, p = 0.02``."""
    p_value = "" if scan.p_value is None else f", p = {scan.p_value:.2g}"
    return f"{scan.verdict.capitalize()}{p_value}"


def pictured(scan: Scan, target: int) -> tuple[Tensor, str]:
    """The image of a class, and what is written below it."""
    profile, shape = scan.profile, scan.references.shape
    if scan.family in profile.others:
        image = CHANGES[scan.family](shape).picture(profile.changes[scan.family][target])
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
    looks = [(y, {"color": OTHERS, "linewidth": 0.8}) for y in others]
    looks.append((first, {"color": STRONG, "linewidth": 2.5}))
    names = {first: name, **dict.fromkeys(others[:1], "other classes")}
    for y, look in looks:
        points = [(size, scan.profile.powers[size][y]) for size in sizes]
        draw_lines(axis, [Line(points, {"marker": ".", **look}, names.get(y, ""))])
    axis.tick_params(bottom=True, labelbottom=True, left=True, labelleft=True)
    axis.set(xticks=sizes, xlabel=unit_of(scan.references.shape), **POWERS)
    axis.spines[["top", "right"]].set_visible(False)
    key = axis.get_legend_handles_labels()
    axis.figure.legend(*key, loc="outside lower right", ncols=3, frameon=False)

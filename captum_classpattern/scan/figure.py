"""The picture of a scan."""

from typing import TYPE_CHECKING, Any

import numpy as np

from captum_classpattern.scan.profile import SIZES
from captum_classpattern.visualization.drawing import QUIET, draw_image, new_figure, on_neutral

if TYPE_CHECKING:
    from captum_classpattern.scan.scan import Scan

SHOWN = 3  # classes whose patterns are drawn
STRONG, BAND, OTHERS = "#b3261e", "#c9d1d9", "#6f8fb9"


def plot_scan(scan: "Scan", use_pyplot: bool) -> tuple[Any, Any]:
    """The patterns of the classes with the largest excess, next to the power of all classes."""
    figure = new_figure(10.5, 3.4, use_pyplot)
    axes = figure.subplots(1, SHOWN + 1, width_ratios=[*[1] * SHOWN, 1.9])
    order = (-scan.comparison.excess).argsort().tolist()
    for axis, target in zip(axes[:SHOWN], order):
        pattern = scan.pattern_of(target)
        pixels = int(pattern.mask.count_nonzero())
        power = scan.profile.powers[pixels][target]
        draw_image(axis, on_neutral(pattern))
        axis.set(xticks=[], yticks=[], title=scan.class_names[target])
        axis.set_xlabel(f"{pixels} pixels, {power:.0%}", color=QUIET)
    _draw_powers(axes[-1], scan, order)
    p_value = "" if scan.p_value is None else f", p = {scan.p_value:.2g}"
    figure.suptitle(scan.verdict.capitalize() + p_value)
    return figure, axes


def _draw_powers(axis: Any, scan: "Scan", order: list[int]) -> None:
    """Power over the number of pixels: each class a line, and the references' range as a band."""
    sizes = sorted(SIZES)
    first = order[0]
    of_references = np.array(
        [[p.powers[size][first] for size in sizes] for p in scan.references.profiles.values()]
    )
    label = f"{scan.class_names[first]} of {len(of_references)} references"
    axis.fill_between(sizes, of_references.min(0), of_references.max(0), color=BAND, label=label)
    for target in reversed(order):  # the first class on top
        powers = [scan.profile.powers[size][target] for size in sizes]
        if target == first:
            label, style = scan.class_names[first], {"color": STRONG, "linewidth": 2, "zorder": 3}
        else:
            label, style = "other classes", {"color": OTHERS, "linewidth": 0.8}
        axis.plot(
            sizes, powers, ".-", label=label if target in (first, order[-1]) else None, **style
        )
    axis.set(xlabel="pixels", ylim=(-0.02, 1.02), xticks=sizes)
    axis.set_title("share of other images that become the class", fontsize=9)
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="best")

"""Patterns, one per row: what they look like, where they were stamped, and what they achieve."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from captum_classpattern._support.formats import percent, percent_area
from captum_classpattern.visualization.drawing import Drawing, new_figure, on_neutral, rc_context
from captum_classpattern.visualization.grid import Cell, Drawn, draw_grid
from captum_classpattern.visualization.style import CONTROL, HIT, IMAGE_STYLE, QUIET, SMALL, TRACK

CELL_WIDTH = 1.3  # inches
NOT_ABOVE = "grey: not above its controls"
POWER_WIDTH = 1.4  # of the column of powers, relative to the others
MASK_SCALE = ("magma", 0.0, 1.0)
EXAMPLES_TITLE = "{} with the pattern,\nand the model's predictions"
POWER = "predictive power\n(line: 95 % interval,\ndotted: control)"


class PowerBar(NamedTuple):
    """A power with its 95 % interval, and the name and share of its strongest control; whether the
    power is known not to be above it, or was measured on too few images to say so."""

    power: float
    interval: tuple[float, float]
    control: str
    share: float
    is_weak: bool = False
    too_few: bool = False


class PatternRow(NamedTuple):
    """What a row of a figure shows: a canvas (C, H, W), the mask (1, H, W) as it was found, its
    binary form, and whether it is a patch, which is smaller than the images. If they are known,
    also images with it (each with its caption and whether it is predicted as the pattern's class),
    its power, and the pixels to box."""

    name: str
    canvas: Tensor
    mask: Tensor
    binary: Tensor
    is_patch: bool
    examples: Sequence[tuple[Tensor, str, bool]] = ()
    bar: PowerBar | None = None
    boxed: Tensor | None = None


def draw_patterns(
    rows: Sequence[PatternRow],
    *,
    area: float | None,
    images: str = "held-out images",
    masks: bool = False,
    title: str | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    """Draws a row for each pattern, with its stamped images, and a column for the powers if any is
    known; with ``masks`` also one for the masks. A patch has no canvas."""
    patches, examples = all(row.is_patch for row in rows), max(len(row.examples) for row in rows)
    covers = "" if area is None else f"\n({percent_area(area)} of pixels)"
    above = [EXAMPLES_TITLE.format(images) * (i == (examples - 1) // 2) for i in range(examples)]
    mask = "opacity" if patches else "mask"
    shown = f"{'patch, on grey' if patches else 'pattern'}{covers}"
    titles = [*["canvas"] * (not patches), *[mask] * masks, shown, *above]
    powers = [POWER] * any(row.bar for row in rows)
    grid = []
    for row in rows:
        cells: list[Drawn] = [] if patches else [None if row.is_patch else Cell(row.canvas)]
        if masks:
            values = row.mask[0].detach().float().cpu().numpy()
            scale = "0 to 1" if row is rows[-1] else None  # below the last mask
            cells.append(Cell(values=values, scale=MASK_SCALE, range=scale))
        boxed = None if row.is_patch else row.boxed
        cells.append(Cell(on_neutral(row.canvas, row.binary), boxed=boxed))
        for image, caption, hit in row.examples:
            cells.append(Cell(image, caption, hit, HIT, boxed=row.boxed))
        cells += [None] * (len(titles) - len(cells))
        grid.append((row.name, cells + [row.bar and partial(_draw_bar, bar=row.bar)] * len(powers)))
    return draw_grid(
        grid,
        titles + powers,
        title=title,
        note=NOT_ABOVE if any(row.bar and row.bar.is_weak for row in rows) else "",
        width=CELL_WIDTH,
        widths=[1.0] * len(titles) + [POWER_WIDTH] * len(powers),
        use_pyplot=use_pyplot,
    )


def draw_power(bar: PowerBar, *, use_pyplot: bool = True) -> Drawing:
    """Draws a power alone, as the rows of patterns have it."""
    with rc_context(IMAGE_STYLE):
        figure = new_figure(3.0, 1.0, use_pyplot, None)
        axis = figure.add_subplot()
        _draw_bar(axis, bar)
    return figure, np.array([axis], dtype=object)


def _draw_bar(axis: Axes, bar: PowerBar) -> None:
    """A bar with the power's interval, and the strongest control as a line across it."""
    axis.barh(0, 1, color=TRACK, height=0.4)
    axis.barh(0, bar.power, color=CONTROL if bar.is_weak else HIT, height=0.4)
    axis.plot(bar.interval, [0, 0], color="black", linewidth=1.5)
    axis.plot([bar.share] * 2, [-0.32, 0.32], color="black", linewidth=1.2, linestyle=":")
    color, weight = (QUIET, "normal") if bar.is_weak else ("black", "bold")
    axis.text(0, 0.4, percent(bar.power), fontsize=12, fontweight=weight, color=color)
    text = f"{bar.control} {percent(bar.share)}{', too few images' * bar.too_few}"
    axis.text(0, -0.42, text, va="top", color=QUIET, fontsize=SMALL)
    axis.set(xlim=(-0.02, 1.02), ylim=(-1.2, 1.2), frame_on=False)

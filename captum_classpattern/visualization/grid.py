"""Images in rows and columns: of patterns, stamped photos, attribution maps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.patches import Rectangle
from torch import Tensor

from captum_classpattern.visualization.drawing import (
    Drawing,
    draw_image,
    fit_figure,
    new_figure,
    rc_context,
    wrap,
)
from captum_classpattern.visualization.style import HIGHLIGHTS, IMAGE_STYLE, QUIET, SMALL

CELL_WIDTH, NARROW = 1.0, 0.8  # inches
WIDE = 7  # columns: with more, cells are narrow, so that texts are legible on a page
NAME_WIDTH = 1.4  # inches, of a row's name
EMPTY_CELL = "#f0f2f5"
BELOW: dict[str, Any] = {"location": "bottom", "fraction": 0.2, "pad": 0.06, "panchor": False}


@dataclass(frozen=True, eq=False, repr=False)
class Cell:
    """An image (C, H, W), and what is written below it: in bold, as usual (None), or faint.

    Instead of an image it may have values (H, W) with their scale: its colours and its ends. A text
    is written in the middle, a note to the left. The pixels of a mask (1, H, W) are boxed. A strip
    below has the colours of the scale, and this range.
    """

    image: Tensor | None = None
    caption: str = ""
    strong: bool | None = None
    color: str = "black"  # of the caption, unless it is faint
    values: npt.NDArray[Any] | None = None
    scale: tuple[str | Colormap, float, float] = ("Blues", 0.0, 1.0)
    text: str = ""
    note: str = ""
    boxed: Tensor | None = None
    range: str | None = None


Drawn: TypeAlias = Cell | Callable[[Axes], object] | None  # None: nothing


def draw_grid(
    rows: Iterable[tuple[str, Sequence[Drawn]]],
    columns: Sequence[str],
    *,
    title: str | None = None,
    note: str = "",
    width: float | None = None,
    widths: Sequence[float] | None = None,
    font_size: float = 10,
    use_pyplot: bool = True,
) -> Drawing:
    """Draws named rows of cells of this width in inches, under the names of the columns. A cell
    that is also in the row above spans both. A function draws an axis by itself. ``widths`` are
    those of the columns relative to it."""
    names, lines = zip(*rows)
    cells = [[partial(_leave_empty) if c is None else c for c in line] for line in lines]
    images = [c.image for line in cells for c in line if isinstance(c, Cell)]
    aspects = [image.shape[1] / image.shape[2] for image in images if image is not None]
    ratios = [1.0] * len(columns) if widths is None else widths
    width = width or (CELL_WIDTH if len(columns) <= WIDE else NARROW)
    size = SMALL if width < CELL_WIDTH and font_size == 10 else font_size
    with rc_context({**IMAGE_STYLE, "font.size": font_size}):
        figure = new_figure(1.5 * sum(ratios) + 1.2, 2.0 * len(names) + 1, use_pyplot, title)
        mosaic: Any = cells
        drawn = figure.subplot_mosaic(mosaic, width_ratios=ratios)
        axes = np.array([[drawn[cell] for cell in line] for line in cells], dtype=object)
        for cell, axis in drawn.items():
            _draw_cell(axis, cell, width) if isinstance(cell, Cell) else cell(axis)
        for strip in figure.axes[len(drawn) :][:1]:
            text = strip.annotate("scale", (0, 0.5), (-4, 0), "axes fraction", "offset points")
            text.set(ha="right", va="center", color=QUIET)
            text.set_in_layout(False)  # there is room below the column to the left
        _write_names(axes, names, columns, [width * ratio for ratio in ratios], size)
        if note:
            figure.supxlabel(note, fontsize=SMALL, color=QUIET)
        second = len(columns) > 1 and isinstance(cells[0][1], Cell)
        measured = axes[0, int(second)]  # the first may be two rows high
        height = width * max(aspects, default=1)
        fit_figure(figure, measured, width, height, sum(ratios), len(names))
    return figure, axes


def _write_names(
    axes: npt.NDArray[Any], rows: Sequence[str], columns: Sequence[str],
    widths: Sequence[float], size: float,
) -> None:  # fmt: skip
    for name, axis in zip(rows, axes[:, 0]):
        if name:
            wrap(axis.set_ylabel(name, rotation=0, ha="right", va="center"), NAME_WIDTH)
    for axis, name, width in zip(axes[0], columns, widths):
        text = axis.set_title(name, fontsize=size, pad=4)
        if "\n" not in name:
            wrap(text, width)


def _leave_empty(axis: Axes) -> None:
    axis.set_facecolor("none")
    axis.spines[:].set_visible(False)


def _draw_cell(axis: Axes, cell: Cell, width: float) -> None:
    colors, low, high = cell.scale
    if cell.image is not None:
        draw_image(axis, cell.image)
    elif cell.values is not None:
        axis.imshow(cell.values, cmap=colors, vmin=low, vmax=high)
    else:
        axis.set_facecolor(EMPTY_CELL)
    if cell.boxed is not None:
        rows, columns = torch.nonzero(cell.boxed[0] > 0, as_tuple=True)
        if len(rows):  # half a pixel away from them
            left, top = int(columns.min()) - 1.0, int(rows.min()) - 1.0
            size = int(columns.max()) + 1.0 - left, int(rows.max()) + 1.0 - top
            box = Rectangle((left, top), *size, fill=False, color=HIGHLIGHTS[0], linewidth=1.8)
            axis.add_patch(box).set(clip_on=False, in_layout=False)
    if cell.text:
        place: dict[str, Any] = {"transform": axis.transAxes, "ha": "center", "va": "center"}
        axis.text(0.5, 0.5, cell.text, color=QUIET, fontstyle="italic", **place)
    if cell.note:
        axis.set_ylabel(cell.note, rotation=0, ha="right", va="center", color=QUIET)
    color, weight = QUIET if cell.strong is False else cell.color, "bold" if cell.strong else None
    wrap(axis.set_xlabel(cell.caption, color=color, fontweight=weight), width)
    if cell.range is not None:
        strip = {"ax": axis, "ticks": [], "aspect": 14, **BELOW}
        bar = axis.figure.colorbar(ScalarMappable(cmap=colors), **strip)
        bar.set_label(cell.range, color=QUIET, labelpad=3)
        wrap(bar.ax.xaxis.label, width)

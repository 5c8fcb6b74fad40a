"""Images in rows and columns: of patterns, stamped photos, attribution maps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from torch import Tensor

from captum_classpattern.visualization.drawing import (
    Drawing,
    draw_box,
    draw_image,
    fit_figure,
    name_row,
    new_figure,
    wrap,
)
from captum_classpattern.visualization.rc import rc_context
from captum_classpattern.visualization.style import IMAGE_STYLE, QUIET, SMALL

CELL_WIDTH, NARROW = 1.0, 0.8  # inches
WIDE = 7  # columns: with more, cells are narrow, so that texts are legible on a page
EMPTY_CELL = "#f0f2f5"


@dataclass(frozen=True, eq=False)
class Cell:
    """An image (C, H, W), and what is written below it: in bold, as usual (None), or faint.

    Instead of an image it may have values (H, W) with their scale: its colours and its ends. A text
    is written in the middle, a note to the left. The pixels of a mask (1, H, W) are boxed.
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


Drawn: TypeAlias = Cell | Callable[[Axes], object] | None  # None: nothing


def draw_grid(
    rows: Iterable[tuple[str, Sequence[Drawn]]],
    columns: Sequence[str],
    *,
    title: str | None = None,
    note: str = "",
    width: float | None = None,
    widths: Sequence[float] | None = None,
    wrapped: bool = True,
    font_size: float = 10,
    finish: Callable[[npt.NDArray[Any]], object] | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    """Draws named rows of cells of this width in inches, under the names of the columns. A cell
    that is also that of the row above reaches over both. A function draws an axis by itself.
    ``widths`` are those of the columns relative to it, ``finish`` adds to the axes."""
    lines = list(rows)
    cells = [cell for _, line in lines for cell in line]
    shapes = [shape for shape in map(_shape, cells) if shape is not None]
    aspect = max(height / across for height, across in shapes)
    ratios = [1.0] * len(columns) if widths is None else widths
    width = width or (CELL_WIDTH if len(columns) <= WIDE else NARROW)
    size = SMALL if width < CELL_WIDTH and font_size == 10 else font_size
    named: dict[str, Drawn] = {}
    mosaic: list[Any] = [
        [_name(cell, f"{row}, {column}", named) for column, cell in enumerate(line)]
        for row, (_, line) in enumerate(lines)
    ]
    with rc_context({**IMAGE_STYLE, "font.size": font_size}):
        figure = new_figure(1.5 * sum(ratios) + 1.2, 2.0 * len(lines) + 1, use_pyplot, title)
        drawn = figure.subplot_mosaic(mosaic, width_ratios=ratios)
        axes = np.array([[drawn[name] for name in line] for line in mosaic], dtype=object)
        for name, axis in drawn.items():
            _draw_cell(axis, named[name], width)
        for (name, _), line in zip(lines, axes):
            if name:
                name_row(line[0], name)
        for axis, name in zip(axes[0], columns):
            text = axis.set_title(name, parse_math=False, fontsize=size, pad=4 if wrapped else None)
            if wrapped:
                wrap(text, width)
        if note:
            figure.supxlabel(note, fontsize=SMALL, color=QUIET)
        if finish is not None:
            finish(axes)
        measured = axes[0, min(1, len(columns) - 1)]  # the first may be two rows high
        fit_figure(figure, measured, width, width * aspect, sum(ratios), len(lines))
    return figure, axes


def _shape(cell: Drawn) -> tuple[int, int] | None:
    """Height and width of a cell's image."""
    if not isinstance(cell, Cell) or cell.image is None:
        return None
    return cell.image.shape[1], cell.image.shape[2]


def _name(cell: Drawn, place: str, named: dict[str, Drawn]) -> str:
    """The place of a cell, or that of the same cell before it; all places are in ``named``."""
    for name, other in named.items():
        if cell is not None and other is cell:
            return name
    named[place] = cell
    return place


def _draw_cell(axis: Axes, cell: Drawn, width: float) -> None:
    if cell is None:
        axis.set_facecolor("none")
        axis.spines[:].set_visible(False)
        return
    if not isinstance(cell, Cell):
        cell(axis)
        return
    if cell.image is not None:
        draw_image(axis, cell.image)
    elif cell.values is not None:
        colors, low, high = cell.scale
        axis.imshow(cell.values, cmap=colors, vmin=low, vmax=high)
    else:
        axis.set_facecolor(EMPTY_CELL)
    if cell.boxed is not None:
        draw_box(axis, cell.boxed)
    if cell.text:
        place: dict[str, Any] = {"transform": axis.transAxes, "ha": "center", "va": "center"}
        axis.text(0.5, 0.5, cell.text, color=QUIET, fontstyle="italic", **place)
    if cell.note:
        axis.set_ylabel(cell.note, rotation=0, ha="right", va="center", color=QUIET)
    color = QUIET if cell.strong is False else cell.color
    weight = "bold" if cell.strong else "normal"
    wrap(axis.set_xlabel(cell.caption, color=color, fontweight=weight, parse_math=False), width)

"""Images in rows and columns, as in the paper: a row for each model, a column for each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern.visualization.drawing import (
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


@dataclass(frozen=True, eq=False)
class Cell:
    """An image (C, H, W), and what is written below it: in bold, as usual (None), or faint."""

    image: Tensor
    caption: str = ""
    strong: bool | None = None


def draw_grid(
    rows: Mapping[str, Sequence[Cell | None]],
    columns: Sequence[str],
    *,
    title: str | None = None,
    note: str = "",
    width: float | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    """Draws the cells, of this width in inches; where one is None, there is nothing."""
    shapes = [cell.image.shape for row in rows.values() for cell in row if cell is not None]
    aspect = max(shape[1] / shape[2] for shape in shapes)
    width = width or (CELL_WIDTH if len(columns) <= WIDE else NARROW)
    size = SMALL if width < CELL_WIDTH else None
    with rc_context(IMAGE_STYLE):
        figure = new_figure(1.2 * len(columns) + 1.2, 1.4 * len(rows) + 1, use_pyplot, title)
        axes = figure.subplots(len(rows), len(columns), squeeze=False)
        for line, (name, row) in zip(axes, rows.items()):
            for axis, cell in zip(line, row):
                _draw_cell(axis, cell, width)
            name_row(line[0], name)
        for axis, name in zip(axes[0], columns):
            wrap(axis.set_title(name, parse_math=False, fontsize=size), width)
        if note:
            figure.supxlabel(note, fontsize=SMALL, color=QUIET)
        fit_figure(figure, axes[0, 0], width, width * aspect, len(columns), len(rows))
    return figure, axes


def _draw_cell(axis: Axes, cell: Cell | None, width: float) -> None:
    if cell is None:
        axis.set_facecolor("none")
        axis.spines[:].set_visible(False)
        return
    draw_image(axis, cell.image)
    color = QUIET if cell.strong is False else "black"
    weight = "bold" if cell.strong else "normal"
    wrap(axis.set_xlabel(cell.caption, color=color, fontweight=weight, parse_math=False), width)

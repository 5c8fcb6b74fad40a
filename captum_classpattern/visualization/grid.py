"""Patterns in rows and columns, as in the paper: a row for each model, a column for each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_classpattern.pattern import Pattern
from captum_classpattern.visualization.drawing import (
    IMAGE_STYLE,
    QUIET,
    check_channels,
    draw_image,
    fit_figure,
    name_row,
    new_figure,
    on_neutral,
    wrap,
)
from captum_classpattern.visualization.rc import rc_context

CELL_WIDTH = 1.0  # inches


@dataclass(frozen=True, eq=False)
class Cell:
    """A binary pattern, and what is written below it: in bold, as usual (None), or faint."""

    pattern: Pattern
    caption: str = ""
    strong: bool | None = None


def draw_grid(
    rows: Mapping[str, Sequence[Cell | None]],
    columns: Sequence[str],
    *,
    title: str | None = None,
    note: str = "",
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    """Draws the cells; where one is None, there is nothing."""
    canvases = [cell.pattern.canvas for row in rows.values() for cell in row if cell is not None]
    for canvas in canvases:
        check_channels(canvas)
    aspect = max(canvas.shape[1] / canvas.shape[2] for canvas in canvases)
    with rc_context({**IMAGE_STYLE, "axes.linewidth": 0.0}):
        figure = new_figure(1.2 * len(columns) + 1.2, 1.4 * len(rows) + 1, use_pyplot, title)
        axes = figure.subplots(len(rows), len(columns), squeeze=False)
        for line, (name, row) in zip(axes, rows.items()):
            for axis, cell in zip(line, row):
                _draw_cell(axis, cell)
            name_row(line[0], name)
        for axis, name in zip(axes[0], columns):
            wrap(axis.set_title(name, parse_math=False), CELL_WIDTH)
        if note:
            figure.supxlabel(note, fontsize=9, color=QUIET)
        size = CELL_WIDTH, CELL_WIDTH * aspect
        fit_figure(figure, axes[0, 0], *size, len(columns), len(rows))
    return figure, axes


def _draw_cell(axis: Axes, cell: Cell | None) -> None:
    if cell is None:
        axis.set_facecolor("none")
        return
    draw_image(axis, on_neutral(cell.pattern))
    color = QUIET if cell.strong is False else "black"
    axis.set_xlabel(cell.caption, color=color, fontweight="bold" if cell.strong else "normal")

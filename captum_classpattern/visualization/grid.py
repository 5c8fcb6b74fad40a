"""Places of canvases, cells, names and captions in a figure, in inches, so that none overlap."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from captum_classpattern.visualization.drawing import new_figure, text_width, wrapped

PAGE = (12.0, 11.0)  # what a figure keeps to, as long as its cells stay large enough
LARGEST, ENOUGH, SMALLEST = 1.3, 0.85, 0.62  # width of a cell
ROW_NAME = 1.1  # longest line of a row's name
MARGIN, GAP, ASIDE, BETWEEN = 0.14, 0.07, 0.12, 0.12  # of the page, cells, the canvases, rows
LINE = 1.25 / 72  # height of a line of text, for each point of its size
TITLE, STRIP = 12.0, 0.09
BORDER, QUIET = "#c4cad1", "#57606a"

Strip: TypeAlias = tuple[str | Colormap, str]  # colours, and what their ends mean


class Grid:
    """A figure with an axis for each cell, (rows * lines, 1 + columns), and room for texts."""

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        row_names: Sequence[str],
        column_names: Sequence[str],
        title: str | None,
        *,
        lines: int,
        aspect: float,
        strips: Sequence[Strip | None] = (),
        notes: Sequence[str] = (),
        use_pyplot: bool = True,
    ) -> None:
        self.lines = lines
        self._size_cells(len(row_names), len(column_names), aspect)
        fit = self.width + GAP / 3
        heads = [wrapped(str(name), fit, self.size) for name in ("canvas", *column_names)]
        names = [wrapped(str(name), ROW_NAME, self.size) for name in row_names]
        below = [[wrapped(str(text), fit, self.small) for text in cells] for cells in captions]
        self._place_columns(len(heads), self._widest(names), self._widest(notes))
        title = None if title is None else wrapped(title, self.page_width - 0.3, TITLE, "bold")
        self._place_rows(title, heads, below, any(strips))
        self.figure = new_figure((self.page_width, self.page_height), use_pyplot, layout=None)
        self.axes = self._add_axes(len(names), len(heads))
        self._write(title, heads, names, below, notes)
        self._add_strips(strips)

    def _size_cells(self, rows: int, columns: int, aspect: float) -> None:
        wide = (PAGE[0] - ROW_NAME - ASIDE - 2 * MARGIN) / (columns + 1) - GAP
        high = (PAGE[1] / rows - 0.3) / self.lines / aspect
        self.width = min(LARGEST, max(SMALLEST, min(wide, max(high, ENOUGH))))
        self.height = self.width * aspect
        self.size = 9.0 if self.width >= ENOUGH else 7.5
        self.small = self.size - 0.5

    def _widest(self, texts: Sequence[str]) -> float:
        lines = [line for text in texts for line in text.split("\n")]
        return max((text_width(line, self.size) for line in lines), default=0.0)

    def _place_columns(self, count: int, names: float, notes: float) -> None:
        """Left edge of each column, the canvases' first; room for notes to their right."""
        steps = (self.width + GAP) * np.arange(count) + ASIDE * (np.arange(count) > 0)
        needed = names + 0.08 + steps[-1] + self.width + (notes + 0.1 if notes else 0.0)
        self.page_width = max(needed + 2 * MARGIN, 3.6)
        self.left = (self.page_width - needed) / 2 + names + 0.08 + steps

    def _place_rows(
        self,
        title: str | None,
        heads: Sequence[str],
        below: Sequence[Sequence[str]],
        has_strips: bool,
    ) -> None:
        """Upper edge of each row, from the top of the page; then that of the scales."""
        y = MARGIN + (0.0 if title is None else _height([title], TITLE) + 0.1)
        y += _height(heads, self.size) + 0.05
        self.top = []
        for cells in below:
            self.top.append(y)
            y += self.lines * (self.height + GAP) - GAP
            y += _height(cells, self.small) + 0.03 + BETWEEN
        self.strips_top = y
        under = STRIP + _height(["0"], self.small) + 0.03 if has_strips else -BETWEEN
        self.page_height = y + under + MARGIN

    def _add_axes(self, rows: int, columns: int) -> Any:
        axes = np.empty((rows * self.lines, columns), dtype=object)
        for line in range(rows * self.lines):
            row, inner = divmod(line, self.lines)
            for column in range(1, columns):
                down = self.top[row] + inner * (self.height + GAP)
                axes[line, column] = self._axis(column, down, self.height)
        for row in range(rows):
            of_row = slice(row * self.lines, (row + 1) * self.lines)
            axes[of_row, 0] = self._axis(0, self.top[row] + self._canvas_lower(), self.height)
        return axes

    def _canvas_lower(self) -> float:
        """How far below the upper edge of its row a canvas stands, in the middle of its lines."""
        return (self.lines - 1) * (self.height + GAP) / 2

    def _axis(self, column: int, down: float, height: float) -> Axes:
        bottom = 1 - (down + height) / self.page_height
        place = (self.left[column] / self.page_width, bottom)
        size = (self.width / self.page_width, height / self.page_height)
        axis = self.figure.add_axes((*place, *size))
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set(color=BORDER, linewidth=0.6)
        return axis

    def _write(
        self,
        title: str | None,
        heads: Sequence[str],
        names: Sequence[str],
        below: Sequence[Sequence[str]],
        notes: Sequence[str],
    ) -> None:
        if title is not None:
            y = 1 - MARGIN / self.page_height
            self.figure.suptitle(title, y=y, va="top", fontsize=TITLE, fontweight="bold")
        for column, head in enumerate(heads):
            lower = self._canvas_lower() if column == 0 else 0.0
            self.axes[0, column].set_title(
                head, fontsize=self.size, pad=3, y=1 + lower / self.height
            )
        beside = {"rotation": 0, "va": "center", "fontsize": self.size}
        for row, name in enumerate(names):
            self.axes[row * self.lines, 0].set_ylabel(name, ha="right", labelpad=5, **beside)
            for column, text in enumerate(below[row]):
                last = self.axes[(row + 1) * self.lines - 1, column + 1]
                last.set_xlabel(text, fontsize=self.small, labelpad=2)
        for row, note in enumerate(notes):
            middle = self.top[row] + (self.lines * (self.height + GAP) - GAP) / 2
            x = (self.left[-1] + self.width + 0.08) / self.page_width
            y = 1 - middle / self.page_height
            self.figure.text(x, y, note, va="center", color=QUIET, fontsize=self.small)

    def _add_strips(self, strips: Sequence[Strip | None]) -> None:
        """A strip of colours below each column, with the values at its ends in a line."""
        under: dict[str, Any] = {"fontsize": self.small, "color": QUIET}
        for column, strip in enumerate(strips):
            if strip is not None:
                colors, text = strip
                axis = self._axis(column + 1, self.strips_top, STRIP)
                axis.imshow(np.arange(256)[None], cmap=colors, aspect="auto")
                axis.set_xlabel(text, labelpad=2, **under)
        if any(strips):
            x = (self.left[0] + self.width) / self.page_width
            y = 1 - (self.strips_top + STRIP / 2) / self.page_height
            self.figure.text(x, y, "scale", ha="right", va="center", **under)


def _height(texts: Sequence[str], size: float) -> float:
    """Height of the longest of some texts; 0 if all are empty."""
    return max((text.count("\n") + 1 if text else 0) for text in texts) * LINE * size

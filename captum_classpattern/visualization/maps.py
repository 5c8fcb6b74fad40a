"""Attribution maps and patterns of many methods next to each other, on one stated scale."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError, check_pixels
from captum_classpattern.pattern import Pattern
from captum_classpattern.visualization.drawing import add_scale, check_channels, on_neutral
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.scales import Scales, Values, largest, number, parse_map
from captum_classpattern.visualization.style import QUIET

PAGE = (10.6, 11.0)  # inches, without the names of the rows


def plot_maps(
    canvases: Sequence[Tensor],
    maps: Sequence[Sequence[Tensor | None]],
    patterns: Sequence[Sequence[Pattern | None]],
    captions: Sequence[Sequence[str]],
    *,
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str | None = None,
    scale: str | float = "method",
    show: str = "both",
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    r"""
    Draws a row for each canvas: the canvas, and for each method its attribution map, the
    pixels that the method selects, and a caption.

    Captum's visualizer stretches each map to its own range, so that a map of noise looks as
    strong as a clear one. Here the maps of a method share one scale, which the figure states.
    Colours are orange, white and blue for a method with negative values, white to blue for one
    without. Values beyond the scale are drawn in the colour of its end.

    Args:
        canvases (Sequence[Tensor]): The images that were explained, one per row, (C, H, W) each
            in [0, 1].
        maps (Sequence[Sequence[Tensor or None]]): For each canvas, one map per method, (H, W)
            or (1, H, W). None: the method returned no map.
        patterns (Sequence[Sequence[Pattern or None]]): The selected pixels for each map, in the
            same rows and columns. None: there are none.
        captions (Sequence[Sequence[str]]): The text below each of them, such as "37.6 %".
        row_names (Sequence[str]): The text to the left of each canvas, such as its class.
        column_names (Sequence[str]): The methods.
        title (str, optional): Title of the figure. Default: None.
        scale (str or float): Which maps share a scale from 0 (or -s) to s: the maps of a
            ``"method"``, those of a ``"row"``, or all of them, with s as this number. For the
            first two s is the largest 99.5 % quantile of the maps' absolute values (their
            maximum if that is 0). Default: "method".
        show (str): ``"maps"``, ``"patterns"``, or ``"both"``, one below the other.
            Default: "both".
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its axes: first the canvas's, then one per
        method. Each canvas has one line of axes, or two with ``show="both"``, where both lines
        begin with the same axis of the canvas.

    Raises:
        TypeError: If canvases or maps are not Tensors.
        ValueError: If rows, columns or shapes do not match, a canvas is not in [0, 1], a map is
            not finite, or scale or show is none of the above.

    Examples::

        >>> from captum_classpattern.visualization import plot_maps
        >>> canvases = [torch.rand(3, 8, 8), torch.rand(3, 8, 8)]
        >>> maps = [[torch.randn(8, 8), None], [torch.randn(8, 8), torch.zeros(8, 8)]]
        >>> patterns = [[Pattern(c, torch.rand(1, 8, 8), 0).topk(0.1)] * 2 for c in canvases]
        >>> figure, axes = plot_maps(
        ...     canvases, maps, patterns, [["12 %", "3 %"], ["40 %", "5 %"]],
        ...     row_names=["cat", "dog"], column_names=["Saliency", "random"], use_pyplot=False)
        >>> axes.shape
        (4, 3)
    """
    _check_choices(scale, show)
    values = _check_table(canvases, maps, patterns, captions, row_names, column_names)
    scales, both = Scales(values, scale), show == "both"
    aspect = max(canvas.shape[1] / canvas.shape[2] for canvas in canvases)
    width = _cell_width(len(canvases), len(column_names), (1 + both) * aspect)
    rows: list[tuple[str, list[Cell]]] = []
    for row, canvas in enumerate(canvases):
        first, name = Cell(canvas), row_names[row]
        if scale == "row" and show != "patterns":
            name = f"{name}\n(s = {number(largest(values[row]))})"
        if show != "patterns":
            below = [""] * len(column_names) if both else captions[row]
            cells = [
                _map_cell(scales, row, column, pattern is None, below[column], both)
                for column, pattern in enumerate(patterns[row])
            ]
            rows.append((name, [first, *cells]))
        if show != "maps":
            cells = [
                _pattern_cell(pattern, values[row][column], captions[row][column], column, both)
                for column, pattern in enumerate(patterns[row])
            ]
            rows.append(("" if both else name, [first, *cells]))
    return draw_grid(
        rows,
        ["canvas", *column_names],
        title=title,
        width=width,
        font_size=10 if width > 0.85 else 8,
        finish=None if show == "patterns" else partial(_state_scales, scales=scales, width=width),
        use_pyplot=use_pyplot,
    )


def _check_choices(scale: Any, show: Any) -> None:
    if show not in ("maps", "patterns", "both"):
        raise ValueError(f'show must be "maps", "patterns" or "both", got {show!r}')
    is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if scale not in ("method", "row") and not (is_number and 0 < scale < float("inf")):
        raise ValueError(f'scale must be "method", "row" or a number above 0, got {scale!r}')


def _check_table(
    canvases: Sequence[Any],
    maps: Sequence[Sequence[Any]],
    patterns: Sequence[Sequence[Pattern | None]],
    captions: Sequence[Sequence[Any]],
    row_names: Sequence[str],
    column_names: Sequence[str],
) -> list[list[Values | None]]:
    """The maps as arrays, or an error that names the row and column that cannot be drawn."""
    rows, columns = len(canvases), len(column_names)
    if rows == 0 or columns == 0:
        raise ValueError(f"there is nothing to draw: got {rows} canvases and {columns} methods")
    if len(row_names) != rows:
        raise ValueError(f"{rows} canvases need as many row_names, got {len(row_names)}")
    for name, table in (("maps", maps), ("patterns", patterns), ("captions", captions)):
        if len(table) != rows:
            raise ValueError(f"{rows} canvases need as many rows of {name}, got {len(table)}")
        for row, cells in zip(row_names, table):
            if isinstance(cells, str) or len(cells) != columns:
                raise ValueError(
                    f"{columns} column_names need as many {name} in each row, got "
                    f"{cells if isinstance(cells, str) else len(cells)!r} in row {row!r}"
                )
    for canvas, row in zip(canvases, row_names):
        name = f"the canvas of row {row!r}"
        if not isinstance(canvas, Tensor):
            raise ArgumentTypeError(
                f"{name} must be a Tensor (C, H, W), got {type(canvas).__name__}"
            )
        if canvas.ndim != 3:
            raise ValueError(f"{name} must be (C, H, W), got shape {tuple(canvas.shape)}")
        check_pixels(canvas[None], name)
    drawn = [pattern.canvas for cells in patterns for pattern in cells if pattern is not None]
    for canvas in (*canvases, *drawn):
        check_channels(canvas)
    return [
        [
            parse_map(values, tuple(canvas.shape[1:]), f"row {row!r}, column {column!r}")
            for column, values in zip(column_names, cells)
        ]
        for canvas, row, cells in zip(canvases, row_names, maps)
    ]


def _cell_width(rows: int, columns: int, row_aspect: float) -> float:
    """In inches, so that the figure keeps to a page as long as its cells stay large enough."""
    page_width, page_height = PAGE
    wide = page_width / (columns + 1) - 0.1
    high = (page_height / rows - 0.4) / row_aspect
    return float(np.clip(min(wide, max(high, 0.9)), 0.62, 1.3))


def _map_cell(
    scales: Scales, row: int, column: int, failed: bool, caption: str, noted: bool
) -> Cell:
    values, note = scales.values[row][column], "map" if noted and column == 0 else ""
    if values is None:
        return Cell(caption=caption, text="failed" if failed else "no map", note=note)
    scale, text = (scales.colors(column), *scales.ends(row, column)), ""
    if not values.any():
        text = "all zero"
    return Cell(caption=caption, values=values, scale=scale, text=text, note=note)


def _pattern_cell(
    pattern: Pattern | None, values: Values | None, caption: str, column: int, noted: bool
) -> Cell:
    note = "pixels" if noted and column == 0 else ""
    if pattern is None:
        return Cell(None, caption, text="failed" if values is None else "no pattern", note=note)
    return Cell(on_neutral(pattern), caption, note=note)


def _state_scales(axes: npt.NDArray[Any], scales: Scales, width: float) -> None:
    """A colour scale below each column that has values other than 0."""
    strips = [
        add_scale(axis, scales.colors(column), label, width)
        for column, axis in enumerate(axes[-1, 1:])
        if (label := scales.label(column)) is not None
    ]
    for first in strips[:1]:
        first.set_ylabel("scale", rotation=0, ha="right", va="center", color=QUIET)

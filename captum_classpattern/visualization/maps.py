"""Attribution maps and patterns of many methods side by side, on one stated scale."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError, check_pixels
from captum_classpattern.pattern import Pattern
from captum_classpattern.visualization.drawing import check_channels, draw_image, on_neutral
from captum_classpattern.visualization.grid import Grid
from captum_classpattern.visualization.scales import Scales, checked_maps

# what captum.attr.visualization draws heat maps in, for sign="all" and sign="absolute_value"
SIGNED = LinearSegmentedColormap.from_list("RdWhGn", ["red", "white", "green"])
UNSIGNED = "Blues"
EMPTY, QUIET = "#f0f2f5", "#57606a"


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
    pixels that were cut out by it, and a caption.

    Captum's visualizer stretches each map to its own range, so that a map of noise looks as
    strong as a clear one. Here the maps of a method share one scale, which is stated. Colours
    are Captum's: red, white and green for a method with negative values, white to blue for one
    without. Values beyond the scale are drawn as its ends.

    Args:
        canvases (Sequence[Tensor]): The images that were explained, one a row, (C, H, W) each
            in [0, 1].
        maps (Sequence[Sequence[Tensor or None]]): A row for each canvas, in it a map for each
            method, (H, W) or (1, H, W). None: the method gave none.
        patterns (Sequence[Sequence[Pattern or None]]): The pixels that belong to each map, in
            the same rows and columns. None: there are none.
        captions (Sequence[Sequence[str]]): What stands below each of them, such as "37.6 %".
        row_names (Sequence[str]): What stands beside each canvas, such as its class.
        column_names (Sequence[str]): The methods.
        title (str, optional): Title of the figure. Default: None.
        scale (str or float): What shares a scale from 0 (or -s) to s: the maps of a
            ``"method"``, those of a ``"row"``, or all of them, with s as this number. For the
            first two s is the largest 99.5 % quantile of the maps' absolute values (their
            maximum if that is 0). Default: "method".
        show (str): ``"maps"``, ``"patterns"``, or ``"both"``, one below the other.
            Default: "both".
        use_pyplot (bool): Makes the figure with pyplot, which shows it in notebooks and under
            ``plt.show()``, as in Captum's visualizer. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its axes: the canvas's, then one for each
        method; a line of them for each canvas, or two with ``show="both"``, where the canvas
        has the same axis in both.

    Raises:
        TypeError: If canvases or maps are no Tensors.
        ValueError: If rows, columns or shapes do not fit each other, a canvas is not in
            [0, 1], a map is not finite, or scale or show is none of the above.

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
    _check_grid(canvases, maps, patterns, captions, row_names, column_names)
    _check_images(canvases, patterns, row_names)
    values = checked_maps(canvases, maps, row_names, column_names)
    scales = Scales(values, scale)
    grid = Grid(
        captions,
        row_names,
        column_names,
        title,
        lines=2 if show == "both" else 1,
        aspect=max(canvas.shape[-2] / canvas.shape[-1] for canvas in canvases),
        strips=_strips(scales) if show != "patterns" else (),
        notes=scales.notes() if show != "patterns" else (),
        use_pyplot=use_pyplot,
    )
    for row, canvas in enumerate(canvases):
        draw_image(grid.axes[row * grid.lines, 0], canvas)
        for column, pattern in enumerate(patterns[row]):
            cells = list(grid.axes[row * grid.lines : (row + 1) * grid.lines, column + 1])
            here = values[row][column]
            if show != "patterns":
                _draw_map(cells[0], here, pattern, *_colors(scales, row, column), grid.small)
            if show != "maps":
                _draw_pattern(cells[-1], pattern, here, grid.small)
    return grid.figure, grid.axes


def _check_choices(scale: Any, show: Any) -> None:
    if show not in ("maps", "patterns", "both"):
        raise ValueError(f'show must be "maps", "patterns" or "both", got {show!r}')
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if scale not in ("method", "row") and not (number and 0 < scale < float("inf")):
        raise ValueError(f'scale must be "method", "row" or a number above 0, got {scale!r}')


def _check_grid(
    canvases: Sequence[Any],
    maps: Sequence[Sequence[Any]],
    patterns: Sequence[Sequence[Any]],
    captions: Sequence[Sequence[Any]],
    row_names: Sequence[str],
    column_names: Sequence[str],
) -> None:
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


def _check_images(
    canvases: Sequence[Tensor],
    patterns: Sequence[Sequence[Pattern | None]],
    row_names: Sequence[str],
) -> None:
    for canvas, row in zip(canvases, row_names):
        name = f"the canvas of row {row!r}"
        if not isinstance(canvas, Tensor):
            raise ArgumentTypeError(
                f"{name} must be a Tensor (C, H, W), got {type(canvas).__name__}"
            )
        if canvas.ndim != 3:
            raise ValueError(f"{name} must be (C, H, W), got shape {tuple(canvas.shape)}")
        check_pixels(canvas[None], name)
        check_channels(canvas)
    for pattern in (pattern for cells in patterns for pattern in cells):
        if pattern is not None:
            check_channels(pattern.canvas)


def _strips(scales: Scales) -> list[tuple[Any, str] | None]:
    """What stands below each column: its colours, and the values at their ends."""
    texts = [scales.text(column) for column in range(len(scales.signed))]
    return [
        None if text is None else (SIGNED if signed else UNSIGNED, text)
        for text, signed in zip(texts, scales.signed)
    ]


def _colors(scales: Scales, row: int, column: int) -> tuple[Any, float, float]:
    """Colour map, and the values at its ends."""
    high = scales.limit(row, column)
    return (SIGNED, -high, high) if scales.signed[column] else (UNSIGNED, 0.0, high)


def _draw_map(
    axis: Axes,
    values: npt.NDArray[np.float64] | None,
    pattern: Pattern | None,
    colors: Any,
    low: float,
    high: float,
    size: float,
) -> None:
    if values is None:
        _say(axis, "failed" if pattern is None else "no map", size)
        return
    axis.imshow(values, cmap=colors, vmin=low, vmax=high)
    if not values.any():
        axis.text(0.5, 0.5, "all zero", **_centred(axis, size))


def _draw_pattern(axis: Axes, pattern: Pattern | None, values: Any, size: float) -> None:
    if pattern is None:
        _say(axis, "failed" if values is None else "no pattern", size)
    else:
        draw_image(axis, on_neutral(pattern))


def _say(axis: Axes, text: str, size: float) -> None:
    """An empty cell, with the reason."""
    axis.set_facecolor(EMPTY)
    axis.text(0.5, 0.5, text, **_centred(axis, size))


def _centred(axis: Axes, size: float) -> dict[str, Any]:
    place = {"transform": axis.transAxes, "ha": "center", "va": "center"}
    return {**place, "color": QUIET, "fontsize": size, "fontstyle": "italic"}

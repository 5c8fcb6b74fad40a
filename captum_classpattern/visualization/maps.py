"""Attribution maps and patterns of many methods next to each other, on one stated scale."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.colors import Colormap, LinearSegmentedColormap
from torch import Tensor

from captum_classpattern._support.formats import number
from captum_classpattern._support.validation import check_float_tensor, check_pixels
from captum_classpattern.visualization.drawing import Drawing, check_channels, on_neutral
from captum_classpattern.visualization.grid import Cell, draw_grid

if TYPE_CHECKING:
    from captum_classpattern.pattern import Pattern

Values: TypeAlias = npt.NDArray[np.float64]
PAGE = (10.6, 11.0)  # inches, without the names of the rows
QUANTILE = 0.995
# not Captum's red and green, which many readers cannot tell apart
SIGNED = LinearSegmentedColormap.from_list("OrWhBu", ["#b34700", "white", "#08306b"])
UNSIGNED = "Blues"
KINDS = {"maps": ["map"], "patterns": ["pixels"], "both": ["map", "pixels"]}


def plot_maps(
    canvases: Sequence[Tensor],
    maps: Sequence[Sequence[Tensor | None]],
    patterns: Sequence[Sequence["Pattern | None"]],
    captions: Sequence[Sequence[str]],
    *,
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str | None = None,
    scale: float | None = None,
    show: str = "both",
    use_pyplot: bool = True,
) -> Drawing:
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
        scale (float, optional): The end s of a scale from 0 (or -s) to s, for all maps. Default:
            None (for the maps of each method, the largest 99.5 % quantile of their absolute values;
            their maximum if that is 0).
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
    if show not in KINDS:
        raise ValueError(f'show must be "maps", "patterns" or "both", got {show!r}')
    if scale is not None and not 0 < scale < float("inf"):
        raise ValueError(f"scale must be a number above 0 or None, got {scale}")
    tables = {"patterns": patterns, "captions": captions}
    values = _parse_maps(canvases, maps, row_names, column_names, **tables)
    kinds = KINDS[show]
    scales = [_scale(cells, scale) for cells in zip(*values)]
    # in inches, so that a page is enough while the cells are large enough
    aspect = len(kinds) * max(canvas.shape[1] / canvas.shape[2] for canvas in canvases)
    high = max((PAGE[1] / len(canvases) - 0.4) / aspect, 0.9)
    width = float(np.clip(min(PAGE[0] / (len(scales) + 1) - 0.1, high), 0.62, 1.3))
    rows: list[tuple[str, list[Cell]]] = []
    for row, (canvas, name) in enumerate(zip(canvases, row_names)):
        first, stated = Cell(canvas), row == len(canvases) - 1 and show != "patterns"
        for kind in kinds:
            drawn = zip(values[row], patterns[row], scales)
            line = [replace(_cell(kind, of, own), scale=scale) for of, own, (scale, _) in drawn]
            if kind == kinds[-1]:
                ends = [range if stated else None for _, range in scales]
                below = zip(line, captions[row], ends)
                line = [replace(cell, caption=text, range=range) for cell, text, range in below]
            line[0] = replace(line[0], note=kind if show == "both" else "")
            rows.append((name if kind == kinds[0] else "", [first, *line]))
    return draw_grid(
        rows,
        ["canvas", *column_names],
        title=title,
        width=width,
        font_size=10 if width > 0.85 else 8,
        use_pyplot=use_pyplot,
    )


def _parse_maps(
    canvases: Sequence[Any],
    maps: Sequence[Sequence[Any]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    **tables: Sequence[Sequence[Any]],
) -> list[list[Values | None]]:
    """The maps as arrays, or an error that says what cannot be drawn."""
    rows, columns = len(canvases), len(column_names)
    if rows == 0 or columns == 0:
        raise ValueError(f"there is nothing to draw: got {rows} canvases and {columns} methods")
    if len(row_names) != rows:
        raise ValueError(f"{rows} canvases need as many row_names, got {len(row_names)}")
    for name, table in (("maps", maps), *tables.items()):
        sizes = [len(cells) for cells in table]
        if sizes != [columns] * rows:
            raise ValueError(
                f"{name} must be a row for each of {rows} canvases, each of {columns} methods, got "
                f"rows of {sizes}"
            )
    parsed = []
    for canvas, row, cells in zip(canvases, row_names, maps):
        name = f"the canvas of row {row!r}"
        check_float_tensor(canvas, name, "(C, H, W)")
        if canvas.ndim != 3:
            raise ValueError(f"{name} must be (C, H, W), got shape {tuple(canvas.shape)}")
        check_pixels(canvas[None], name)
        check_channels(canvas)
        places = (f"row {row!r}, column {column!r}" for column in column_names)
        size = tuple(canvas.shape[1:])
        parsed.append([_parse_map(values, size, place) for values, place in zip(cells, places)])
    return parsed


def _parse_map(values: Any, size: tuple[int, ...], where: str) -> Values | None:
    """A map as float64 (H, W), or an error if it cannot be drawn."""
    if values is None:
        return None
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if shape not in (size, (1, *size)):
        raise ValueError(
            f"the map of {where} must be a Tensor of its canvas's size, {size} or {(1, *size)}, or "
            f"None, got {shape}: sum it over the channels, if it has several"
        )
    array: Values = values.detach().double().cpu().numpy().reshape(size)
    if not np.isfinite(array).all():
        raise ValueError(
            f"the map of {where} has NaN or infinite values: give None where a method failed"
        )
    return array


def _cell(kind: str, values: Values | None, pattern: "Pattern | None") -> Cell:
    if values is None and pattern is None:
        return Cell(text="failed")
    if kind == "pixels":
        if pattern is None:
            return Cell(text="no pattern")
        return Cell(on_neutral(pattern.canvas, pattern.mask))
    if values is None:
        return Cell(text="no map")
    return Cell(values=values, text="" if values.any() else "all zero")


def _scale(
    maps: Sequence[Values | None], scale: float | None
) -> tuple[tuple[str | Colormap, float, float], str | None]:
    """The colours of a method's maps and the values at their ends, and how these are stated, such
    as "±0.12"; None if all maps are 0. They end at the largest 99.5 % quantile of the absolute
    values, or at their maximum if that is 0."""
    sizes = [np.abs(values) for values in maps if values is not None]
    quantiles = (float(np.quantile(size, QUANTILE, method="higher")) for size in sizes)
    largest = max(quantiles, default=0.0) or max((float(each.max()) for each in sizes), default=0.0)
    high = float((largest or 1.0) if scale is None else scale)
    signed = any(bool((values < 0).any()) for values in maps if values is not None)
    stated = f"{'±' if signed else '0 to '}{number(high, '.2g')}" if largest else None
    return (SIGNED, -high, high) if signed else (UNSIGNED, 0.0, high), stated

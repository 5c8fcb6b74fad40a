"""Which number an attribution map is drawn up to, and which maps share it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError

Values: TypeAlias = npt.NDArray[np.float64]
QUANTILE = 0.995


@dataclass(frozen=True)
class Scales:
    """Rows and columns of maps (H, W), and what they are scaled by: "method", "row" or a number."""

    values: list[list[Values | None]]
    by: str | float

    @property
    def signed(self) -> list[bool]:
        """For each column, whether any of its maps has negative values."""
        return [
            any(bool((values < 0).any()) for values in column if values is not None)
            for column in zip(*self.values)
        ]

    def limit(self, row: int, column: int) -> float:
        """The number that a map is drawn up to; 1 if all that share it are zero."""
        if not isinstance(self.by, str):
            return float(self.by)
        shared = [cells[column] for cells in self.values]
        return largest(self.values[row] if self.by == "row" else shared) or 1.0

    def text(self, column: int) -> str | None:
        """The ends of a column's scale: "±0.12", "0 to s" by rows; None if all its maps are 0."""
        if largest([row[column] for row in self.values]) == 0:
            return None
        high = "s" if self.by == "row" else number(self.limit(0, column))
        return f"±{high}" if self.signed[column] else f"0 to {high}"

    def notes(self) -> list[str]:
        """What s is, for each row; none unless maps are scaled by rows."""
        if self.by != "row":
            return []
        return [f"s = {number(largest(cells))}" for cells in self.values]


def largest(cells: Sequence[Values | None]) -> float:
    """The largest 99.5 % quantile of the absolute values; their maximum if that is 0."""
    sizes = [np.abs(values) for values in cells if values is not None]
    quantiles = (float(np.quantile(size, QUANTILE, method="higher")) for size in sizes)
    quantile = max(quantiles, default=0.0)
    return quantile or max((float(size.max()) for size in sizes), default=0.0)


def number(value: float) -> str:
    """Two digits or, from 100, three: 0.12, 38, 105, 1.2e-05."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.3g}"


def checked_maps(
    canvases: Sequence[Tensor],
    maps: Sequence[Sequence[Any]],
    row_names: Sequence[str],
    column_names: Sequence[str],
) -> list[list[Values | None]]:
    """All maps as float64 (H, W), or an error that names row and column."""
    return [
        [
            _checked_map(values, tuple(canvas.shape[1:]), f"row {row!r}, column {column!r}")
            for column, values in zip(column_names, cells)
        ]
        for canvas, row, cells in zip(canvases, row_names, maps)
    ]


def _checked_map(values: Any, size: tuple[int, ...], where: str) -> Values | None:
    if values is None:
        return None
    if not isinstance(values, Tensor) or values.is_complex():
        kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise ArgumentTypeError(f"the map of {where} must be a real Tensor or None, got {kind}")
    if tuple(values.shape) not in (size, (1, *size)):
        channels = values.ndim == 3 and tuple(values.shape[1:]) == size
        raise ValueError(
            f"the map of {where} must have its canvas's size, {size} or {(1, *size)}, got "
            f"{tuple(values.shape)}" + (": sum over the channels" if channels else "")
        )
    array = values.detach().double().cpu().numpy().reshape(size)
    if not np.isfinite(array).all():
        raise ValueError(
            f"the map of {where} has NaN or infinite values: give None where a method failed"
        )
    return array

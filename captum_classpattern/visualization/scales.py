"""The colour scale of each attribution map, and which maps share one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.colors import Colormap, LinearSegmentedColormap
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError

Values: TypeAlias = npt.NDArray[np.float64]
QUANTILE = 0.995
# not Captum's red and green, which many readers cannot tell apart
SIGNED = LinearSegmentedColormap.from_list("OrWhBu", ["#b34700", "white", "#08306b"])
UNSIGNED = "Blues"


@dataclass(frozen=True)
class Scales:
    """Rows and columns of maps (H, W), scaled by "method", by "row" or up to a number."""

    values: list[list[Values | None]]
    by: str | float

    def signed(self, column: int) -> bool:
        """Whether any map of a column has negative values."""
        maps = (row[column] for row in self.values)
        return any(bool((values < 0).any()) for values in maps if values is not None)

    def colors(self, column: int) -> str | Colormap:
        return SIGNED if self.signed(column) else UNSIGNED

    def ends(self, row: int, column: int) -> tuple[float, float]:
        """The values at the ends of a map's scale; 1 if all maps that share it are zero."""
        if not isinstance(self.by, str):
            high = float(self.by)
        else:
            shared = self.values[row] if self.by == "row" else [r[column] for r in self.values]
            high = largest(shared) or 1.0
        return (-high if self.signed(column) else 0.0), high

    def label(self, column: int) -> str | None:
        """A column's range: "±0.12", or "0 to s" if rows share a scale; None if all maps are 0."""
        if largest([row[column] for row in self.values]) == 0:
            return None
        high = "s" if self.by == "row" else number(self.ends(0, column)[1])
        return f"±{high}" if self.signed(column) else f"0 to {high}"


def largest(cells: Sequence[Values | None]) -> float:
    """The largest 99.5 % quantile of the absolute values; their maximum if that is 0."""
    sizes = [np.abs(values) for values in cells if values is not None]
    quantiles = (float(np.quantile(size, QUANTILE, method="higher")) for size in sizes)
    quantile = max(quantiles, default=0.0)
    return quantile or max((float(size.max()) for size in sizes), default=0.0)


def number(value: float) -> str:
    """Two digits or, from 100, three: 0.12, 38, 105, 1.2e-05."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.3g}"


def parse_map(values: Any, size: tuple[int, ...], where: str) -> Values | None:
    """A map as float64 (H, W), or an error if it cannot be drawn."""
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

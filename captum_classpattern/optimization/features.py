"""Features: pixels that a mask keeps together, or not at all (Captum's ``feature_mask``)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._support.topk import highest, pixels_kept
from captum_classpattern._support.validation import ArgumentTypeError, check_count
from captum_classpattern.optimization.masks import strongest, swap_pixels

BLANK_CELLS = 32  # per side, on a blank canvas, which has no segments


@dataclass(frozen=True)
class Cells:
    """A ``feature_mask`` that cuts any canvas into ``side`` rows and columns of about equal cells,
    or fewer if it has fewer pixels.

    Args:
        side (int): The number of rows, and of columns.

    Raises:
        ValueError: If ``side`` is not a whole number from 2.

    Examples::

        >>> Cells(4)(torch.rand(3, 28, 28)).unique().numel()
        16
    """

    side: int

    def __post_init__(self) -> None:
        check_count("side", self.side, 2)

    def __call__(self, canvas: Tensor) -> Tensor:
        height, width = canvas.shape[-2:]
        return grid_cells(height, width, self.side, self.side)[0, 0]


def grid_cells(height: int, width: int, rows: int = 7, columns: int = 7) -> Tensor:
    r"""
    Superpixels: a grid of cells (fewer if there are fewer pixels), numbered from 0.

    Args:
        height (int): H of the images.
        width (int): W of the images.
        rows (int): Rows of cells. Default: 7.
        columns (int): Columns of cells. Default: 7.

    Returns:
        *Tensor*: int64 (1, 1, H, W), a ``feature_mask`` for Captum's methods and ours.

    Examples::

        >>> grid_cells(28, 28).unique().numel()
        49
    """
    rows, columns = min(rows, height), min(columns, width)
    row, column = (torch.arange(n) * k // n for n, k in ((height, rows), (width, columns)))
    return (row[:, None] * columns + column)[None, None]


def number_features(
    feature_mask: Tensor | Callable[[Tensor], Tensor] | None,
    canvases: Tensor,
    areas: Sequence[float],
) -> Tensor | None:
    """The features of each canvas, int64 (N, H, W), numbered from 0 in reading order; None if each
    pixel is one. An error if an area keeps no pixel or all, if the features don't fit the canvases,
    or if one is larger than an area."""
    count, _, height, width = canvases.shape
    kept, smallest = min((pixels_kept(area, (height, width)), area) for area in areas)
    if feature_mask is None:
        return None
    if isinstance(feature_mask, Cells):
        feature_mask = feature_mask(canvases[0])
    if callable(feature_mask):
        given = torch.stack([_of_canvas(feature_mask, canvas) for canvas in canvases])
    else:
        given = _checked(feature_mask, (height, width))
    if len(given) not in (1, count):
        raise ValueError(
            f"`feature_mask` has {len(given)} rows for {count} canvases: give one for all, or one "
            "for each"
        )
    ids = torch.stack([_in_order(each) for each in given]).to(canvases.device)
    if bool((ids[:, -1, -1] + 1 == height * width).all()):
        return None
    if bool((ids.flatten(1).amax(1) == 0).any()):
        raise ValueError("`feature_mask` has one feature for all pixels: give at least two")
    largest = int(max(each.flatten().bincount().max() for each in ids))
    if largest > kept:
        raise ValueError(
            f"`feature_mask` has a feature of {largest} pixels, but an area of {smallest:g} keeps "
            f"{kept} of {height}x{width}: give smaller features (more cells), or a larger area"
        )
    return ids.expand(count, -1, -1)


def in_words(feature_mask: Tensor | Callable[[Tensor], Tensor]) -> str:
    """A feature mask in the files of a search: a hash, or what makes it."""
    if isinstance(feature_mask, Tensor):
        rows = feature_mask.detach().flatten(0, -3) if feature_mask.ndim > 2 else feature_mask[None]
        ids = torch.stack([_in_order(row) for row in rows])
        return hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:16]
    if isinstance(feature_mask, Cells):
        return repr(feature_mask)
    return f"{feature_mask.__module__}.{getattr(feature_mask, '__qualname__', '<object>')}"


def check_for_all(feature_mask: object, size: tuple[int, ...]) -> None:
    """Raises an error unless these can be the features of any canvas of H x W pixels."""
    if feature_mask is None or callable(feature_mask):
        return
    if len(rows := _checked(feature_mask, size)) != 1:
        raise ValueError(
            f"`feature_mask` has {len(rows)} rows, but canvases are chosen later: give one "
            "for all, or a function of a canvas"
        )


def check_can_resume(feature_mask: Tensor | Callable[[Tensor], Tensor] | None) -> None:
    """Raises an error if a later run could not recognise these features."""
    if feature_mask is not None and "<" in in_words(feature_mask):
        raise ValueError(
            "`feature_mask` is a function without a name, which a later run can't recognise in the "
            "folder: give a function of a module, Cells or a Tensor"
        )


def _of_canvas(features_of: Callable[[Tensor], Tensor], canvas: Tensor) -> Tensor:
    """The features that a function gives for a canvas; cells for one of a single colour."""
    if bool((canvas == canvas[:, :1, :1]).all()):
        features_of = Cells(BLANK_CELLS)
    given = _checked(features_of(canvas.detach().cpu()), tuple(canvas.shape[-2:]))
    if len(given) != 1:
        raise ValueError(
            f"`feature_mask` is a function that gives {len(given)} rows: it must give (H, W)"
        )
    return given[0]


def _checked(feature_mask: object, size: tuple[int, ...]) -> Tensor:
    """A feature mask as (N or 1, H, W)."""
    if not isinstance(feature_mask, Tensor):
        raise ArgumentTypeError(
            "`feature_mask` is a function, which must give an integer Tensor, got "
            f"{type(feature_mask).__name__}"
        )
    if feature_mask.is_floating_point() or feature_mask.is_complex():
        raise ArgumentTypeError(
            f"`feature_mask` must hold integers, got {feature_mask.dtype}: give .long()"
        )
    ids = feature_mask.detach().long()
    shape = tuple(ids.shape)
    if shape[-2:] != size or not 2 <= ids.ndim <= 4 or (ids.ndim == 3 and len(ids) != 1):
        raise ValueError(
            f"`feature_mask` must be (H, W), (1, H, W) or (N, 1 or C, H, W) with {size[0]}x"
            f"{size[1]} pixels, got {shape}"
        )
    if ids.ndim == 4:
        if not bool((ids == ids[:, :1]).all()):
            raise ValueError(
                "`feature_mask` differs between channels, but a mask holds for all of them: give "
                "one channel"
            )
        ids = ids[:, 0]
    return ids.view(-1, *size)


def _in_order(ids: Tensor) -> Tensor:
    """The same features, numbered from 0 in the order of their first pixels."""
    _, first, dense = np.unique(ids.cpu().numpy(), return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[dense]).view(ids.shape)


@dataclass(frozen=True)
class Pixels:
    """Each pixel is a feature of its own: the interface of :class:`Features`, without its work."""

    shape: tuple[int, int]  # of a mask
    sizes: ClassVar[Tensor] = torch.tensor(1.0)

    def at(self, rows: object) -> Self:
        return self

    def spread(self, values: Tensor) -> Tensor:
        return values

    sums = first = spread

    def strongest(self, weights: Tensor, kept: int) -> Tensor:
        return strongest(weights, kept)

    def swap(self, masks: Tensor, gradients: Tensor, count: int, kept: int) -> Tensor:
        free = masks[0].numel() - kept
        return swap_pixels(masks, gradients, min(count, kept, free))


class Features(NamedTuple):
    """The features of canvases as the pixels of an image (n, c, 1, F), for solvers."""

    ids: Tensor  # of each pixel, (n, H * W)
    order: Tensor  # the pixels, feature by feature, (n, H * W)
    sizes: Tensor  # in pixels, (n, 1, 1, F); 0 where a canvas has fewer features than others
    size: tuple[int, int]  # H and W

    @classmethod
    def of(cls, ids: Tensor) -> Self:
        """Those of canvases, from their numbers (n, H, W)."""
        flat = ids.flatten(1)
        sizes = torch.stack([each.bincount(minlength=int(flat.max()) + 1) for each in flat])
        order = flat.argsort(dim=1, stable=True)
        return cls(flat, order, sizes[:, None, None], (ids.shape[1], ids.shape[2]))

    @property
    def shape(self) -> tuple[int, int]:
        """That of a mask."""
        return 1, self.sizes.shape[-1]

    def at(self, rows: Tensor | list[int] | None) -> Self:
        """Those of some canvases, or of all."""
        if rows is None:
            return self
        return self._replace(ids=self.ids[rows], order=self.order[rows], sizes=self.sizes[rows])

    def spread(self, values: Tensor) -> Tensor:
        """The pixels (n, c, H, W) of features (n, c, 1, F)."""
        index = self.ids[:, None].expand(-1, values.shape[1], -1)
        return values.flatten(2).gather(2, index).view(*values.shape[:2], *self.size)

    def sums(self, pixels: Tensor) -> Tensor:
        """The sum over each feature, always in the same order."""
        n, c = pixels.shape[:2]
        sorted_pixels = pixels.flatten(2).gather(2, self.order[:, None].expand(-1, c, -1))
        lengths = self.sizes[:, 0].expand(-1, c, -1).flatten()
        total: Tensor = torch.segment_reduce(
            sorted_pixels.flatten(), "sum", lengths=lengths, initial=0.0, unsafe=True
        )
        return total.view(n, c, 1, -1)

    def first(self, pixels: Tensor) -> Tensor:
        """The first pixel of each feature."""
        starts = (self.sizes.cumsum(3) - self.sizes)[:, 0, 0].clamp(max=self.ids.shape[1] - 1)
        index = self.order.gather(1, starts)[:, None].expand(-1, pixels.shape[1], -1)
        return pixels.flatten(2).gather(2, index)[:, :, None]

    def strongest(self, weights: Tensor, kept: int) -> Tensor:
        """Binary masks of the features with the largest weights per pixel, until the next would
        exceed ``kept`` pixels. Ties (after rounding) are broken in reading order. Those of weight
        -inf stay out."""
        mean = self.ids.shape[1] / (self.sizes > 0).sum(3, keepdim=True).to(weights.dtype)
        weights = (weights / self.sizes.clamp(min=1) * mean * 1e5).round()
        return self._first_that_fit(weights, kept)

    def swap(self, masks: Tensor, gradients: Tensor, count: int, kept: int) -> Tensor:
        """Binary masks with up to ``count`` features swapped, as :func:`swap_pixels` does it, by
        the gradients per pixel. Then the worst are left out, or the best added, so that they have
        up to ``kept`` pixels."""
        a_pixel = (gradients / self.sizes.clamp(min=1)).where(self.sizes > 0, torch.inf)
        swapped = swap_pixels(masks, a_pixel, count)
        span = a_pixel.where(self.sizes > 0, 0).abs().amax((1, 2, 3), keepdim=True)
        return self._first_that_fit(swapped * (2 * span + 1) - a_pixel, kept)

    def _first_that_fit(self, weights: Tensor, kept: int) -> Tensor:
        weights = weights.where(self.sizes > 0, -torch.inf)
        return (highest(weights, kept, self.sizes) & (weights > -torch.inf)).to(weights)

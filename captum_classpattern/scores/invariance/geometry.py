"""Moves a pattern's pixels, canvas and mask together: shift, scale, rotation; or removes some.

Each pixel takes the value of the nearest source pixel, so that a binary mask stays binary. What
comes from outside the image is empty.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from captum_classpattern.pattern import Pattern

DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up
DECIMALS = 6  # of source positions: cos(90 degrees) is not quite 0 in floating point


def shift(pattern: Pattern, pixels: float, direction: int) -> Pattern:
    """Shifts by whole pixels in one of four directions; what leaves the image is lost."""
    down, right = _steps(pixels, direction)
    return _take(pattern, lambda row, column: (row - down, column - right))


def wrapped_shift(pattern: Pattern, pixels: float, direction: int) -> Pattern:
    """Shifts by whole pixels; what leaves the image comes back on the opposite side."""
    steps = _steps(pixels, direction)
    canvas, mask = (x.roll(steps, dims=(1, 2)) for x in (pattern.canvas, pattern.mask))
    return replace(pattern, canvas=canvas, mask=mask)


def scale(pattern: Pattern, factor: float, _: int) -> Pattern:
    """Scales about the pattern's centre. The number of pixels changes with the square."""
    if not factor > 0:
        raise ValueError(f"a scale is a factor above 0, got {factor}")
    y, x = centre(pattern.mask)
    return _take(pattern, lambda row, col: (y + (row - y) / factor, x + (col - x) / factor))


def rotate(pattern: Pattern, degrees: float, direction: int) -> Pattern:
    """Rotates about the pattern's centre: anticlockwise (direction 0) or clockwise (1)."""
    angle = math.radians(degrees) * (1, -1)[direction]
    cos, sin = math.cos(angle), math.sin(angle)
    y, x = centre(pattern.mask)

    def source(row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        down, right = row - y, column - x
        return y + cos * down + sin * right, x - sin * down + cos * right

    return _take(pattern, source)


def lose_pixels(pattern: Pattern, share: float, draw: int) -> Pattern:
    """Removes this share of the pattern's pixels, chosen at random. A larger share of the same
    draw also removes those of a smaller one."""
    if not 0 <= share <= 1:
        raise ValueError(f"a loss is a share of the pattern's pixels, from 0 to 1, got {share}")
    mask = pattern.mask.flatten().clone()
    present = mask.nonzero().flatten()
    order = torch.randperm(len(present), generator=torch.Generator().manual_seed(draw))
    lost = order[: round(share * len(present))]
    mask[present[lost.to(present.device)]] = 0.0
    return replace(pattern, mask=mask.view_as(pattern.mask))


def centre(mask: Tensor) -> tuple[int, int]:
    """Row and column nearest to the centre of mass of a mask (1, H, W), so that turns by 90 degrees
    move pixels to pixels; an empty mask has the image's centre."""
    weights = mask[0].detach().cpu().double()
    weights = weights if bool(weights.any()) else torch.ones_like(weights)
    sums = weights.sum(1), weights.sum(0)
    means = (float((each * torch.arange(len(each))).sum() / each.sum()) for each in sums)
    row, column = (math.floor(mean + 0.5) for mean in means)
    return row, column


def _steps(pixels: float, direction: int) -> tuple[int, int]:
    if pixels != int(pixels):
        raise ValueError(f"a shift takes a whole number of pixels, got {pixels}")
    down, right = DIRECTIONS[direction]
    return int(pixels) * down, int(pixels) * right


def _take(pattern: Pattern, source: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Pattern:
    """The pattern whose pixels are the nearest ones to their sources, which are given by rows and
    columns, float64 (H, W)."""
    height, width = pattern.mask.shape[1:]
    axes = (torch.arange(n, dtype=torch.float64) for n in (height, width))
    device = pattern.canvas.device
    rows, columns = (
        (x.round(decimals=DECIMALS) + 0.5).floor().long().to(device)
        for x in source(*torch.meshgrid(*axes, indexing="ij"))
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    canvas, mask = (x[:, rows, columns] * inside for x in (pattern.canvas, pattern.mask.to(device)))
    return replace(pattern, canvas=canvas, mask=mask)

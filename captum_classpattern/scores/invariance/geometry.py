"""Moves a pattern's pixels, canvas and mask together: shift, scale, rotation; or removes some.

Each pixel takes the value of the nearest source pixel, so that a binary mask stays binary. What
comes from outside the image is empty.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from captum_classpattern.pattern import Pattern

DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up
DECIMALS = 6  # of source positions: cos(90 degrees) is not quite 0 in floating point


def shift(pattern: Pattern, pixels: float, direction: int) -> Pattern:
    """Shifts by whole pixels in one of four directions; what leaves the image is lost."""
    down, right = (_whole(pixels) * step for step in DIRECTIONS[direction])
    rows, columns = _grid(pattern)
    return _take(pattern, rows - down, columns - right)


def wrapped_shift(pattern: Pattern, pixels: float, direction: int) -> Pattern:
    """Shifts by whole pixels; what leaves the image comes back on the opposite side."""
    steps = tuple(_whole(pixels) * step for step in DIRECTIONS[direction])
    canvas, mask = (x.roll(steps, dims=(1, 2)) for x in (pattern.canvas, pattern.mask))
    return replace(pattern, canvas=canvas, mask=mask)


def scale(pattern: Pattern, factor: float, _: int) -> Pattern:
    """Scales about the pattern's centre. The number of pixels changes with the square."""
    if not factor > 0:
        raise ValueError(f"a scale is a factor above 0, got {factor}")
    rows, columns = _grid(pattern)
    y, x = centre(pattern.mask)
    return _take(pattern, y + (rows - y) / factor, x + (columns - x) / factor)


def rotate(pattern: Pattern, degrees: float, direction: int) -> Pattern:
    """Rotates about the pattern's centre: anticlockwise (direction 0) or clockwise (1)."""
    angle = math.radians(degrees) * (1, -1)[direction]
    cos, sin = math.cos(angle), math.sin(angle)
    rows, columns = _grid(pattern)
    y, x = centre(pattern.mask)
    down, right = rows - y, columns - x
    return _take(pattern, y + cos * down + sin * right, x - sin * down + cos * right)


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
    return _mean_index(weights.sum(1)), _mean_index(weights.sum(0))


def _mean_index(weights: Tensor) -> int:
    indices = torch.arange(len(weights), dtype=torch.float64)
    return math.floor(float((weights * indices).sum() / weights.sum()) + 0.5)


def _whole(pixels: float) -> int:
    if pixels != int(pixels):
        raise ValueError(f"a shift takes a whole number of pixels, got {pixels}")
    return int(pixels)


def _grid(pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, float64 (H, W)."""
    height, width = (torch.arange(n, dtype=torch.float64) for n in pattern.mask.shape[1:])
    rows, columns = torch.meshgrid(height, width, indexing="ij")
    return rows, columns


def _take(pattern: Pattern, rows: Tensor, columns: Tensor) -> Pattern:
    """The pattern whose pixel (i, j) is the nearest one to (rows[i, j], columns[i, j])."""
    device, (height, width) = pattern.canvas.device, pattern.mask.shape[1:]
    rows, columns = (
        (x.round(decimals=DECIMALS) + 0.5).floor().long().to(device) for x in (rows, columns)
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    canvas, mask = (x[:, rows, columns] * inside for x in (pattern.canvas, pattern.mask.to(device)))
    return replace(pattern, canvas=canvas, mask=mask)

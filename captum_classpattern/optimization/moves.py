"""Squares that are put on images anywhere, a little scaled and turned.

A move is an affine map (2, 3) from the pixels of an image to those of the square, both (x, y).
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SCALE, LARGEST_ANGLE = 1.4, 45.0  # with more, :func:`pull_back` would miss pixels
NEAR = (-1, 0, 1, 2)  # pixels, from the one before a point, that it can be interpolated from


def draw_moves(
    uniform: "np.ndarray[Any, np.dtype[np.float64]]",
    size: tuple[int, int],
    side: int,
    scale: tuple[float, float],
    angle: float,
) -> Tensor:
    """Moves (n, 2, 3) from uniform random numbers in [0, 1), (n, 4): the scale, an angle of up to
    so many degrees, and a place where the square lies within an image (H, W)."""
    scales = scale[0] + (scale[1] - scale[0]) * uniform[:, 0]
    angles = math.radians(angle) * (2 * uniform[:, 1] - 1)
    cos, sin = np.cos(angles), np.sin(angles)
    turns = np.stack([cos, sin, -sin, cos], 1).reshape(-1, 2, 2) / scales[:, None, None]
    sides = np.array(size[::-1], float)
    reach = (scales * side * (cos + np.abs(sin)) / 2)[:, None]  # from the centre
    reach = np.minimum(reach, sides / 2)
    centres = reach - 0.5 + (sides - 2 * reach) * uniform[:, 2:]
    shifts = (side - 1) / 2 - turns @ centres[:, :, None]
    return torch.from_numpy(np.concatenate([turns, shifts], 2)).float()


def place(squares: Tensor, moves: Tensor, size: tuple[int, int]) -> Tensor:
    """The squares (n, C, S, S) as they lie on images (n, C, H, W): bilinear, and 0 elsewhere."""
    points = _moved(_pixels(*size).to(squares)[None], moves)
    grid = (2 * points / (squares.shape[-1] - 1) - 1).view(-1, *size, 2)
    return F.grid_sample(squares, grid, mode="bilinear", align_corners=True)


def pull_back(slopes: Tensor, moves: Tensor, side: int) -> Tensor:
    """The gradients (n, C, S, S) of the squares from those of what :func:`place` returns, as
    autograd has them, but always summed in the same order, which CUDA does not keep."""
    height, width = slopes.shape[-2:]
    own, turns = _pixels(side, side).to(slopes), moves[..., :2].inverse()
    centres = (own - moves[:, None, :, 2]) @ turns.mT  # of the square's pixels, in the image
    near = torch.tensor([(x, y) for y in NEAR for x in NEAR], device=slopes.device)
    pixels = centres.floor()[:, :, None] + near
    points = _moved(pixels.flatten(1, 2), moves).view_as(pixels)
    weights = (1 - (points - own[:, None]).abs()).clamp(min=0).prod(-1)  # (n, S * S, 16)
    last = torch.tensor([width - 1, height - 1], device=slopes.device)
    weights = weights * ((pixels >= 0) & (pixels <= last)).all(-1)
    x, y = torch.minimum(pixels.long().clamp(min=0), last).unbind(-1)
    index = (y * width + x).flatten(1)[:, None].expand(-1, slopes.shape[1], -1)
    values = slopes.flatten(2).gather(2, index).view(*slopes.shape[:2], *weights.shape[1:])
    sums = (values * weights[:, None]).sum(-1)
    return sums.view(*slopes.shape[:2], side, side)


def _moved(pixels: Tensor, moves: Tensor) -> Tensor:
    """Where in the squares these pixels of images lie, (x, y) in (n or 1, k, 2)."""
    return pixels @ moves[..., :2].mT + moves[:, None, :, 2]


def _pixels(height: int, width: int) -> Tensor:
    """The pixels of an image, row by row, as (x, y) in (H * W, 2)."""
    return torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)

"""Squares that are put on images anywhere, a little scaled and turned."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SCALE, LARGEST_ANGLE = 1.4, 45.0  # with more, :meth:`Moves.pull_back` would miss pixels
NEAR = (-1, 0, 1, 2)  # pixels, from the one before a point, that it can be interpolated from


@dataclass(frozen=True, eq=False)
class Moves:
    """How a square is put on each of n images.

    Attributes:
        turns (Tensor): A step in the image as a step in the square, both (x, y) in pixels, float
            (n, 2, 2).
        centres (Tensor): The square's centre in each image, (x, y) in pixels, (n, 2).
        side (int): That of the square, in pixels.
        size (tuple[int, int]): Height and width of the images.
    """

    turns: Tensor
    centres: Tensor
    side: int
    size: tuple[int, int]

    @staticmethod
    def of(
        uniform: "np.ndarray[Any, np.dtype[np.float64]]",
        size: tuple[int, int],
        side: int,
        scale: tuple[float, float],
        angle: float,
        device: torch.device,
    ) -> "Moves":
        """From uniform random numbers in [0, 1), (n, 4): the scale, an angle of up to so many
        degrees, and a place where the square lies within an image (H, W)."""
        scales = scale[0] + (scale[1] - scale[0]) * uniform[:, 0]
        angles = math.radians(angle) * (2 * uniform[:, 1] - 1)
        cos, sin = np.cos(angles), np.sin(angles)
        turns = np.stack([cos, sin, -sin, cos], 1).reshape(-1, 2, 2) / scales[:, None, None]
        reach = (scales * side * (cos + np.abs(sin)) / 2)[:, None]  # from the centre
        sides = np.array(size[::-1], float)
        reach = np.minimum(reach, sides / 2)
        centres = reach - 0.5 + (sides - 2 * reach) * uniform[:, 2:]
        parts = [torch.from_numpy(each).float().to(device) for each in (turns, centres)]
        return Moves(parts[0], parts[1], side, size)

    def at(self, part: slice) -> "Moves":
        """Those of some of the images."""
        return replace(self, turns=self.turns[part], centres=self.centres[part])

    def place(self, squares: Tensor) -> Tensor:
        """The squares (n, C, S, S) as they lie on the images (n, C, H, W): bilinear, and 0
        elsewhere."""
        points = self._in_square(_points(*self.size).to(squares.device)[None])
        grid = (2 * points / (self.side - 1) - 1).view(-1, *self.size, 2)
        return F.grid_sample(squares, grid, mode="bilinear", align_corners=True)

    def pull_back(self, slopes: Tensor) -> Tensor:
        """The gradients (n, C, S, S) of the squares from those of what :meth:`place` returns, as
        autograd has them, but always summed in the same order, which CUDA does not keep."""
        device, (height, width) = slopes.device, self.size
        own = _points(self.side, self.side).to(device)
        steps = (own - self._middle) @ self.turns.inverse().mT
        near = torch.tensor([(x, y) for y in NEAR for x in NEAR], device=device)
        pixels = (steps + self.centres[:, None]).floor()[:, :, None] + near
        points = self._in_square(pixels.flatten(1, 2)).view_as(pixels)
        weights = (1 - (points - own[:, None]).abs()).clamp(min=0).prod(-1)  # (n, S * S, 16)
        last = torch.tensor([width - 1, height - 1], device=device)
        weights = weights * ((pixels >= 0) & (pixels <= last)).all(-1)
        x, y = torch.minimum(pixels.long().clamp(min=0), last).unbind(-1)
        index = (y * width + x).flatten(1)[:, None].expand(-1, slopes.shape[1], -1)
        values = slopes.flatten(2).gather(2, index).view(*slopes.shape[:2], *weights.shape[1:])
        sums = (values * weights[:, None]).sum(-1)
        return sums.view(*slopes.shape[:2], self.side, self.side)

    def _in_square(self, pixels: Tensor) -> Tensor:
        """The points of the square that lie at these of the images, (x, y) in (n or 1, k, 2)."""
        return (pixels - self.centres[:, None]) @ self.turns.mT + self._middle

    @property
    def _middle(self) -> float:
        """The square's centre in itself, both x and y."""
        return (self.side - 1) / 2


def _points(height: int, width: int) -> Tensor:
    """The pixels of an image, row by row, as (x, y) in (H * W, 2)."""
    return torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1).float()

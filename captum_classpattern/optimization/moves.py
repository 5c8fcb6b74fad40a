"""Squares that are put on images anywhere, a little scaled and turned."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern.pattern import middle_of

LARGEST_SCALE, LARGEST_ANGLE = 1.4, 45.0  # with more, :meth:`Moves.pull_back` would miss pixels
NEAR = (-1, 0, 1, 2)  # pixels, from the one before a point, that it can be interpolated from


@dataclass(frozen=True, eq=False)
class Moves:
    """How the square in the middle of a canvas is put on each of n images.

    Attributes:
        turns (Tensor): A step in the image as a step in the canvas, both (x, y) in pixels, float
            (n, 2, 2).
        centres (Tensor): The square's centre in each image, (x, y) in pixels, (n, 2).
        side (int): Side of the square in pixels.
    """

    turns: Tensor
    centres: Tensor
    side: int

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
        return Moves(parts[0], parts[1], side)

    def at(self, part: slice) -> "Moves":
        """Those of some of the images."""
        return Moves(self.turns[part], self.centres[part], self.side)

    def place(self, canvases: Tensor) -> Tensor:
        """The canvases (n, C, H, W), which are 0 outside the square, as they lie on the images:
        bilinear."""
        size = canvases.shape[-2:]
        pixels = _points(slice(0, size[0]), slice(0, size[1])).to(canvases.device)
        points = self._in_canvas(pixels[None], size).view(len(canvases), *size, 2)
        ends = torch.tensor([size[1] - 1.0, size[0] - 1.0], device=canvases.device)
        grid = 2 * points / ends - 1
        return F.grid_sample(canvases, grid, mode="bilinear", align_corners=True)

    def pull_back(self, slopes: Tensor) -> Tensor:
        """The gradients (n, C, S, S) of the square from those of what :meth:`place` returns, as
        autograd has them, but always summed in the same order, which CUDA does not keep."""
        size, device = slopes.shape[-2:], slopes.device
        own = _points(*middle_of(size, self.side)).to(device)
        steps = (own - self._middle(size)) @ self.turns.inverse().mT
        near = torch.tensor([(x, y) for y in NEAR for x in NEAR], device=device)
        pixels = (steps + self.centres[:, None]).floor()[:, :, None] + near
        points = self._in_canvas(pixels.flatten(1, 2), size).view_as(pixels)
        weights = (1 - (points - own[:, None]).abs()).clamp(min=0).prod(-1)  # (n, S * S, 16)
        last = torch.tensor([size[1] - 1, size[0] - 1], device=device)
        weights = weights * ((pixels >= 0) & (pixels <= last)).all(-1)
        x, y = torch.minimum(pixels.long().clamp(min=0), last).unbind(-1)
        index = (y * size[1] + x).flatten(1)[:, None].expand(-1, slopes.shape[1], -1)
        values = slopes.flatten(2).gather(2, index).view(*slopes.shape[:2], *weights.shape[1:])
        sums = (values * weights[:, None]).sum(-1)
        return sums.view(*slopes.shape[:2], self.side, self.side)

    def _in_canvas(self, pixels: Tensor, size: torch.Size) -> Tensor:
        """The points of the canvas that lie at these of the images, (x, y) in (n or 1, k, 2)."""
        return (pixels - self.centres[:, None]) @ self.turns.mT + self._middle(size)

    def _middle(self, size: torch.Size) -> Tensor:
        """The square's centre in the canvas, (x, y)."""
        middle = [(each.start + each.stop - 1) / 2 for each in middle_of(size, self.side)[::-1]]
        return torch.tensor(middle, device=self.centres.device)


def _points(rows: slice, columns: slice) -> Tensor:
    """The pixels of these rows and columns, row by row, as (x, y) in (k, 2)."""
    numbers = (torch.arange(each.start, each.stop).float() for each in (rows, columns))
    return torch.cartesian_prod(*numbers).flip(1)

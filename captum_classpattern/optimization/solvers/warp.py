"""One smooth warp."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern.optimization.solvers.whole_image import SIDE, WholeImage


@dataclass(frozen=True)
class Warp(WholeImage):
    """A smooth field of displacements, like the trigger of WaNet (Nguyen and Tran 2021, arXiv
    2102.10369). Its values are shares of the bound.

    Args:
        shift (float): The bound in pixels at the control points (up to nearly two between them) for
            images of 28x28 pixels, and more for larger ones. Default: 1.
        points (int): Control points a side. Default: 5.
    """

    shift: float = 1.0
    points: int = 5

    def start(self, count: int, shape: Sequence[int]) -> Tensor:
        return torch.zeros(count, 2, self.points, self.points)

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        # in units of half the image
        field = F.interpolate(values, (height, width), mode="bicubic", align_corners=True)
        shifts = field.permute(0, 2, 3, 1) * (2 * self.shift / SIDE)
        sides = (torch.linspace(-1, 1, n, device=values.device) for n in (width, height))
        identity = torch.stack(torch.meshgrid(*sides, indexing="xy"), 2).to(values.dtype)
        grid = (identity + shifts).repeat_interleave(images.shape[1], 0)
        moved = F.grid_sample(
            images.flatten(0, 1), grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        return moved.view_as(images).clamp(0, 1)

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-20)
        return (values - rate * gradient / largest).clamp(-1, 1)

    def picture(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        """An image (C, H, W) that shows one value: lines of a grid, warped."""
        lines = torch.ones(*shape)
        lines[:, 1::4] = lines[:, :, 1::4] = 0.0
        return self.stamp(value.cpu().float(), lines[None])[0]

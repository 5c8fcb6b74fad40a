"""One small perturbation of all pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_classpattern.optimization.masks import norms, unit
from captum_classpattern.optimization.solvers.whole_image import SIDE, WholeImage


@dataclass(frozen=True)
class Perturbation(WholeImage):
    """A perturbation of bounded Euclidean norm that is added to every image (Moosavi-Dezfooli et
    al. 2017, arXiv 1610.08401).

    Args:
        radius (float): The bound for 28x28 grey pixels; for others that of the same root mean
            square, 0.054. Default: 1.5.
    """

    radius: float = 1.5

    def start(self, count: int, shape: Sequence[int]) -> Tensor:
        return torch.zeros(count, *shape)

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        return (images + values.unsqueeze(1)).clamp(0, 1)

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        bound = self.radius * math.sqrt(values[0].numel()) / SIDE
        moved = values - rate * bound * unit(gradient)
        return moved * (bound / norms(moved)).clamp(max=1)

    def picture(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        """An image (C, H, W) that shows one value, grey where nothing changes."""
        value = value.cpu().float()
        return (0.5 + 0.5 * value / value.abs().max().clamp(min=1e-9)).clamp(0, 1)

"""A patch that works anywhere, since it is moved while it is searched."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._support.validation import check_count, check_numbers
from captum_classpattern.classifier import on_device
from captum_classpattern.optimization.moves import LARGEST_ANGLE, LARGEST_SCALE, draw_moves
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.solvers.learned import BETAS

SMALLEST, SMALLEST_IMAGE = 3, 8  # pixels a side
NOISE = 0.1  # standard deviation of the first colours, before the sigmoid


@dataclass(frozen=True)
class MovingPatch:
    r"""
    Searches a square with its own colours and opacity that works anywhere on an image. It needs no
    canvas, and returns a :class:`~captum_classpattern.pattern.MovingPattern`.

    In each step, the patch is put at a random place of each image, a little scaled and turned
    (bilinear), as the adversarial patch of Brown et al. 2017 (arXiv 1712.09665). With the colours c
    and the opacity a, an image x becomes x (1 - a) + c a. Both are sigmoids: the patch begins grey,
    with a little noise, and half transparent. Adam minimises the cross-entropy plus ``tv`` times
    the mean absolute difference of neighbouring pixels of c and of a.

    Args:
        side (int): Side of the square in pixels, at least 3.
        steps (int): Steps, unless ``n_steps`` or a budget is given. Default: 120.
        batch_size (int): Baselines per step. Default: 8.
        rate (float): Learning rate of Adam. Default: 0.2.
        tv (float): Weight of the differences of neighbouring pixels, from 0. Default: 1.
        scale (tuple[float, float]): The least and the largest scale, up to 1.4. Default: (0.9,
            1.05).
        angle (float): The largest angle in degrees, up to 45, either way. Default: 8.

    Raises:
        ValueError: If a setting is out of range.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 3
        >>> [patch] = ClassPattern(net, images, labels).search(
        ...     target=2, solver=MovingPatch(side=3, steps=5))
        >>> patch.colours.shape, patch.stamp(images, seed=1).shape
        (torch.Size([1, 3, 3]), torch.Size([40, 1, 8, 8]))
    """

    side: int
    steps: int = 120
    batch_size: int = 8
    rate: float = 0.2
    tv: float = 1.0
    scale: tuple[float, float] = (0.9, 1.05)
    angle: float = 8.0

    name: ClassVar[str] = "patch"
    accelerates: ClassVar[bool] = True
    chosen_by_margin: ClassVar[bool] = True
    starts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_count("side", self.side, SMALLEST)
        check_numbers(self, counts=("side", "steps", "batch_size"), positive=("rate",))
        if not (isinstance(self.tv, Real) and 0 <= self.tv < math.inf):
            raise ValueError(f"`tv` must be a number from 0, got {self.tv!r}")
        is_pair = np.shape(self.scale) == (2,) and all(isinstance(x, Real) for x in self.scale)
        pair = tuple(map(float, self.scale)) if is_pair else (0.0, 0.0)
        angle = self.angle if isinstance(self.angle, Real) else -1
        if not (0 < pair[0] <= pair[1] <= LARGEST_SCALE and 0 <= angle <= LARGEST_ANGLE):
            raise ValueError(
                f"`scale` must be two numbers above 0 and up to {LARGEST_SCALE}, such as (0.9, "
                f"1.05), and `angle` from 0 to {LARGEST_ANGLE:g}, got {self.scale} and {self.angle}"
            )
        object.__setattr__(self, "scale", pair)  # Python's own numbers

    def check_images(self, shape: Sequence[int], advice: str = "a smaller `side`") -> None:
        """Raises an error if the patch cannot move on images (C, H, W)."""
        least = max(SMALLEST_IMAGE, self.side + 1)
        if min(shape[1:]) < least:
            smaller = f"{advice}, or " * (least > SMALLEST_IMAGE)
            raise ValueError(
                f"a patch of {self.side} x {self.side} pixels can only move on images of at least "
                f"{least} x {least}, got {shape[1]} x {shape[2]}: choose {smaller}larger images"
            )

    def passes(self, n_steps: int | None = None) -> Sequence[int]:
        """The passes of one patch, with whole batches."""
        return [(n_steps or self.steps) * self.batch_size]

    def run(self, search: Search) -> Iterator[None]:
        """All steps; no patch is dropped."""
        device = search.masks.device
        chances = [np.random.default_rng([s.seed, s.target, s.start]) for s in search.streams]
        noise = np.stack([chance.normal(0, NOISE, search.canvases.shape[1:]) for chance in chances])
        shades = on_device(torch.from_numpy(noise).float(), device).requires_grad_()
        levels = torch.zeros_like(search.masks).requires_grad_()  # of the opacity
        adam = torch.optim.Adam([shades, levels], self.rate, BETAS)
        for batch in search.batches(self.batch_size, search.n_steps or self.steps):
            colours, opacity = shades.sigmoid(), levels.sigmoid()
            search.canvases.copy_(colours.detach())
            search.masks.copy_(opacity.detach())
            uniform = [c.random((len(pick), 4)) for c, pick in zip(chances, batch.picks)]
            size = (batch.images.shape[2], batch.images.shape[3])
            moves = draw_moves(np.concatenate(uniform), size, self.side, self.scale, self.angle)
            batch.moves = moves.to(device)
            loss, slope, at_images = search.loss_and_colour_gradients(search.masks, batch)
            search.record(batch, loss)
            of_opacity = (slope * colours.detach() - at_images).sum(1, keepdim=True)
            roughness = self.tv * (_roughness(colours) + _roughness(opacity))
            adam.zero_grad()
            torch.autograd.backward(
                [colours, opacity, roughness], [slope * opacity.detach(), of_opacity, None]
            )
            adam.step()
        search.canvases.copy_(shades.detach().sigmoid())
        search.masks.copy_(levels.detach().sigmoid())
        yield from ()


def _roughness(patches: Tensor) -> Tensor:
    """The mean absolute difference of neighbouring pixels of patches (n, C, S, S), summed over
    them."""
    across, down = (patches.diff(dim=dim).abs().mean((1, 2, 3)) for dim in (2, 3))
    return (across + down).sum()

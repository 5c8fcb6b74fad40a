"""Swaps of pixels, tried on the binary mask itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from captum_classpattern._validation import check_count, to_plain_numbers
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.solvers.paper import PaperLoop

TINY = torch.finfo().tiny


@dataclass(frozen=True)
class Swap:
    r"""
    A few steps of the paper's loop, then swaps of pixels.

    The strongest pixels of the area make a binary mask, which is what is used in the end. In each
    round, the pixels in the mask that help least are swapped for as many others that would help
    most, judged by a running mean of the gradient of 1 - sqrt(p), where p is the probability of
    the class. The swap is kept if that loss falls on the same batch. The first round swaps an
    eighth of the pixels, the last one a single pixel. The masks hold the pixels of the area alone,
    with weights from 0.5 to 1 by how much each helps.

    Args:
        rounds (int): Rounds of swaps, unless ``n_steps`` is given. Default: 80.
        batch_size (int): Baselines per round. Default: 16.
        start (PaperLoop): The loop that it starts with. Default: the paper's.
        start_steps (int): Steps of that loop per round. Default: 5.
        decay (float): Of the running mean of the gradients, in [0, 1). Default: 0.8.
        swapped (float): Share of the pixels that the first round swaps, in (0, 1].
            Default: 0.125.

    Raises:
        ValueError: If a setting is out of range.
    """

    rounds: int = 80
    batch_size: int = 16
    start: PaperLoop = field(default_factory=PaperLoop)
    start_steps: int = 5
    decay: float = 0.8
    swapped: float = 0.125

    name: ClassVar[str] = "swap"
    accelerates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("rounds", "batch_size", "start_steps"):
            check_count(name, getattr(self, name))
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay}")
        if not 0 < self.swapped <= 1:
            raise ValueError(f"swapped must lie in (0, 1], got {self.swapped}")
        to_plain_numbers(self)

    def run(self, search: Search) -> Iterator[None]:
        """Yields halfway through the start, after it, and after each quarter of the rounds."""
        rounds, kept = search.n_steps or self.rounds, search.kept_pixels
        steps = self.start_steps * rounds
        for number, batch in enumerate(search.batches(self.start.batch_size, steps), start=1):
            search.record(batch, self.start.step(search, batch))
            if number == steps // 2:
                yield
        yield
        search.losses.clear()  # a search reports the losses of its rounds

        most = self.swapped * min(kept, search.masks[0].numel() - kept)
        gradient_ema = _unit(0.5 - search.masks)
        binary = _strongest(search.masks, kept)
        checkpoints = {rounds * quarter // 4 for quarter in (1, 2, 3)}
        for number, batch in enumerate(search.batches(self.batch_size, rounds), start=1):
            rows, masks = batch.rows, binary[batch.rows]
            loss, gradient = search.loss_and_gradient(masks, batch, bounded=True)
            gradient_ema[rows] = ema = self.decay * gradient_ema[rows] + (1 - self.decay) * _unit(
                gradient
            )
            count = max(1, round(most * ((rounds - number + 1) / rounds)))
            swapped = _swap(masks, ema, count)
            better = search.loss(swapped, batch) < loss
            binary[rows] = swapped.where(better.view(-1, 1, 1, 1), masks)
            search.record(batch, loss)
            if number in checkpoints:
                search.masks = _weigh(binary, gradient_ema)
                yield
        search.masks = _weigh(binary, gradient_ema)


def _unit(gradient: Tensor) -> Tensor:
    """Each one divided by its norm; first by its largest entry, since tiny squares vanish."""
    gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=TINY)
    return gradient / gradient.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=TINY)


def _strongest(masks: Tensor, kept: int) -> Tensor:
    """Binary masks of the largest values; of ties (after rounding) the first in reading order."""
    order = (masks * 1e5).round().flatten(1).argsort(dim=1, descending=True, stable=True)
    binary = torch.zeros_like(masks).flatten(1).scatter_(1, order[:, :kept], 1.0)
    return binary.view(masks.shape)


def _swap(masks: Tensor, gradient: Tensor, count: int) -> Tensor:
    """Binary masks with up to ``count`` pixels swapped, where the gradient says that it helps.

    Held pixels with a large gradient raise the loss, others with a low one would lower it. The
    sorts are stable, so that ties fall the same way on every run.
    """
    held, gradient = masks.flatten(1) > 0, gradient.flatten(1)
    leaving = gradient.where(held, -torch.inf).argsort(dim=1, descending=True, stable=True)
    entering = gradient.where(~held, torch.inf).argsort(dim=1, stable=True)
    leaving, entering = leaving[:, :count], entering[:, :count]
    gains = (gradient.gather(1, leaving) > gradient.gather(1, entering)).to(masks.dtype)
    swapped = masks.flatten(1).scatter(1, leaving, 1 - gains).scatter(1, entering, gains)
    return swapped.view(masks.shape)


def _weigh(masks: Tensor, gradient: Tensor) -> Tensor:
    """Binary masks whose pixels weigh from 0.5 to 1, by how much they lower the loss."""
    helps = -gradient
    low = helps.where(masks > 0, torch.inf).amin((1, 2, 3), keepdim=True)
    high = helps.where(masks > 0, -torch.inf).amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp(min=TINY)
    return masks * (1 - 0.5 * ((high - helps) / span).clamp(0, 1))

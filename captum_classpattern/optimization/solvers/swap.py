"""Swaps of pixels, tried on the binary mask itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from captum_classpattern._support.validation import check_numbers
from captum_classpattern.optimization.baselines import Batch
from captum_classpattern.optimization.masks import TINY, norms, unit, weigh
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.solvers.paper import PaperLoop

TRAVEL = 4.0  # how far a weight can move in all steps of the start
SINGLE = 0.7  # of the rounds; the others swap a single pixel
PROPOSED = 0.45  # the weight of a proposal's gradients in the trend, at the swapped pixels
ACCEPTED = 0.2  # the weight of the gradient after a swap that is kept, at all pixels


@dataclass(frozen=True)
class Swap:
    r"""
    Takes a few steps of the paper's loop, then swaps pixels.

    The strongest pixels of the area make a binary mask, as it is used in the end. In each round,
    the pixels in the mask that help least are swapped for as many others that would help most, by a
    running mean of the gradient of 1 - sqrt(p), where p is the probability of the class. The swap
    is kept if that loss falls on the same batch. Rejected swaps also teach: the mean of the
    gradients before and after says what each swapped pixel was worth (as in the trapezoidal rule),
    and the next proposal of the round uses it. The first round swaps an eighth of the pixels, the
    last ones a single pixel. The masks hold the pixels of the area alone, with weights from 0.5 to
    1 by how much each helps.

    Args:
        rounds (int): Rounds of swaps, unless ``n_steps``, a budget or ``keep`` is given.
            Default: 12.
        batch_size (int): Baselines per round. Default: 16.
        proposals (int): Swaps that are tried per round. Default: 3.
        swapped (float): Share of the pixels that the first round swaps, in (0, 1].
            Default: 0.125.
        decay (float): Decay of the running mean of the gradients, in [0, 1). Default: 0.9.
        pool_budget (int): Passes per class and kept pattern if canvases compete and no budget is
            given. Default: 7,000.

    Raises:
        ValueError: If a setting is out of range.
    """

    rounds: int = 12
    batch_size: int = 16
    proposals: int = 3
    swapped: float = 0.125
    decay: float = 0.9
    pool_budget: int = 7_000

    name: ClassVar[str] = "swap"
    accelerates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_numbers(self, counts=("rounds", "batch_size", "proposals", "pool_budget"))
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay}")
        if not 0 < self.swapped <= 1:
            raise ValueError(f"swapped must lie in (0, 1], got {self.swapped}")

    def passes(self, n_steps: int | None = None) -> Sequence[int]:
        """The passes of one canvas after half of the rounds and at the end, with whole batches."""
        rounds = n_steps or self.rounds
        start = PaperLoop().batch_size * _start_steps(rounds)
        per_round = self.batch_size * (1 + self.proposals)
        return [start + per_round * done for done in (-(-rounds // 2), rounds)]

    def run(self, search: Search) -> Iterator[None]:
        """Yields after half of the rounds."""
        rounds = search.n_steps or self.rounds
        if search.trend is None:
            steps = _start_steps(rounds)
            loop = PaperLoop(step_size=TRAVEL / steps)
            for batch in search.batches(loop.batch_size, steps):
                loop.step(search, batch)  # these losses are not reported
            trend = unit(0.5 - search.masks)
            binary = search.strongest(search.masks * search.units.sizes)
        else:
            trend = search.trend.clone()
            largest = trend.abs().amax((1, 2, 3), keepdim=True).clamp(min=TINY)
            held = (search.masks > 0).float() * search.units.sizes
            binary = search.strongest(held - trend / (2 * largest))
        search.masks = weigh(binary, trend)
        most = self.swapped * min(search.n_entries, binary[0].numel() - search.n_entries)
        for number, batch in enumerate(search.batches(self.batch_size, rounds), start=1):
            count = max(1, round(most * (1 - (number - 1) / (SINGLE * rounds))))
            self._round(search, batch, binary, trend, count)
            if number == -(-rounds // 2):
                search.masks = weigh(binary, trend)
                yield
        search.masks, search.trend = weigh(binary, trend), trend

    def _round(
        self, search: Search, batch: Batch, binary: Tensor, trend: Tensor, count: int
    ) -> None:
        """One round, of the rows of ``binary`` and ``trend`` that the batch holds, in place."""
        masks, mean = binary[batch.index], trend[batch.index]
        loss, gradient = search.loss_and_gradient(masks, batch, bounded=True)
        search.record(batch, loss)
        size = norms(gradient).clamp(min=TINY)
        mean = self.decay * mean + (1 - self.decay) * (gradient / size)
        for _ in range(self.proposals):
            tried = search.swap(masks, mean, count, batch.index)
            loss_tried, gradient_tried = search.loss_and_gradient(tried, batch, bounded=True)
            size_tried = norms(gradient_tried).clamp(min=TINY)
            larger = torch.maximum(size, size_tried)
            worth = PROPOSED * (gradient + gradient_tried) / (2 * larger)
            mean = torch.where(tried != masks, (mean + worth) / 2, mean)
            better = loss_tried < loss
            loss = loss_tried.where(better, loss)
            better = better.view(-1, 1, 1, 1)
            masks, gradient = tried.where(better, masks), gradient_tried.where(better, gradient)
            size = size_tried.where(better, size)
            mean = torch.where(better, (1 - ACCEPTED) * mean + ACCEPTED * (gradient / size), mean)
        binary[batch.index], trend[batch.index] = masks, mean


def _start_steps(rounds: int) -> int:
    """The steps of the paper's loop before so many rounds."""
    return min(100, max(25, 5 * rounds))

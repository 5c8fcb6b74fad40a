"""A few pixels whose places and colours are both searched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._support.validation import check_numbers
from captum_classpattern.classifier import on_device
from captum_classpattern.optimization.masks import unit
from captum_classpattern.optimization.search import Search

BETAS = (0.5, 0.9)  # of Adam, as in Neural Cleanse
INSIDE = 0.02  # how far the first colours are kept from 0 and 1, where a sigmoid is flat
EASY, PATIENCE, GROWTH = 0.3, 3, 1.5  # the cross-entropy, batches and factor that move the weight
SMOOTHED = 0.7  # share of the past in the running mean of the cross-entropy
CONTRAST = 0.2  # least distance from grey that counts, so that grey pixels can be kept
TREND = 0.7  # share of the past in what each pixel is worth
SWAPPED = 1 / 6  # share of the pixels that the first round swaps


@dataclass(frozen=True)
class Learned:
    r"""
    Also searches the pixels' colours: the canvas only sets the first ones.

    It combines Neural Cleanse (Wang et al. 2019, IEEE S&P, section IV), which finds a soft mask and
    its colours, with the patterns of Zhao et al. 2021 (arXiv 2101.06898), which have a fixed number
    of pixels. A trigger whose colours are in no image is hidden from other solvers, but not from
    this one; a class pattern with free colours no longer shows pixels of an image.

    The start minimises the cross-entropy plus a weight times the sum of the soft mask, over the
    mask and its colours, with Adam. The weight grows while the class is predicted, and shrinks
    while it is not. The strongest pixels make a binary mask. In each round, the colours take a
    step, and some pixels are swapped for others in the most promising colours, 0 or 1 per channel.
    The swap is kept if both together lower 1 - sqrt(p) on the same batch, where p is the
    probability of the class.

    Search several areas, from some 25 pixels down to three: each continues from the larger one. One
    start may miss a trigger, so a canvas of one colour can have several. They differ in their first
    colours and their baselines; the one with the largest margin on the validation images continues.

    On large images a few pixels are invisible. With a ``feature_mask``, such as
    :class:`~captum_classpattern.Cells`, each feature has one colour, at first that of the canvas in
    its first pixel, so the search is equally hard at any size.

    Args:
        rounds (int): Rounds after the start, unless ``n_steps`` or a budget is given. Default: 9.
        batch_size (int): Baselines per round. Default: 10.
        soft_batch_size (int): Baselines per step of the start. Default: 8.
        rate (float): Learning rate of Adam. Default: 0.1.
        starts (int): How often a canvas of one colour starts: in this colour, and then each time in
            pixels whose channels are 0 or 1 at random. Default: 1.
        weight (float): The weight of the mask's sum at first. Default: 0.001.

    Raises:
        ValueError: If a setting is out of range.
    """

    rounds: int = 9
    batch_size: int = 10
    soft_batch_size: int = 8
    rate: float = 0.1
    starts: int = 1
    weight: float = 0.001

    name: ClassVar[str] = "learned"
    accelerates: ClassVar[bool] = True
    chosen_by_margin: ClassVar[bool] = True

    def __post_init__(self) -> None:
        counts = ("rounds", "batch_size", "soft_batch_size", "starts")
        check_numbers(self, counts=counts, positive=("rate", "weight"))

    def passes(self, n_steps: int | None = None) -> Sequence[int]:
        """The passes of one canvas at its largest area, with whole batches."""
        rounds = n_steps or self.rounds
        return [_soft_steps(rounds) * self.soft_batch_size + -(-3 * rounds * self.batch_size // 2)]

    def run(self, search: Search) -> Iterator[None]:
        """All rounds; no canvas is dropped."""
        rounds, device = search.n_steps or self.rounds, search.masks.device
        rows = on_device(torch.tensor(search.rows), device)
        units = search.units.at(rows)
        if search.trend is None:
            soft = self._soft_masks(search, rows, _soft_steps(rounds))
            contrast = (units.first(search.canvases[rows].float()) - 0.5).abs()
            weights = soft * contrast.clamp(min=CONTRAST).amax(1, keepdim=True)
            trend, masks = None, search.strongest(weights * units.sizes, rows)
            search.trend = torch.zeros_like(search.masks)
            search.trend[rows] = -weights * units.sizes  # if no time is left for a smaller area
        else:
            search.trend = search.trend.clone()
            trend, held = search.trend[rows], search.masks[rows]
            masks = search.strongest((-trend).where(held > 0, -torch.inf), rows)
        colours = units.first(search.canvases[rows].float()).clone().requires_grad_()
        adam = torch.optim.Adam([colours], self.rate, BETAS)
        for number, batch in enumerate(search.batches(self.batch_size, rounds)):
            loss, slope, at_images = search.loss_and_colour_gradients(masks, batch, bounded=True)
            search.record(batch, loss)
            # the loss that a pixel adds, to first order: one of the mask in its colour, any other
            # in the most promising of 0 and 1 per channel
            brightest = (slope < 0).to(slope.dtype)
            held = (slope * colours.detach() - at_images).sum(1, keepdim=True)
            free = (slope * brightest - at_images).sum(1, keepdim=True)
            worth = unit(held.where(masks > 0, free))
            trend = worth if trend is None else TREND * trend + (1 - TREND) * worth
            colours.grad = slope * masks
            adam.step()
            count = max(1, round(SWAPPED * search.n_entries * (1 - number / rounds)))
            tried = search.swap(masks, trend, count, rows)
            with torch.no_grad():
                colours.copy_(brightest.where(tried > masks, colours.clamp(0, 1)))
            _paint(search, rows, colours)
            better = search.loss(tried, batch) < loss
            masks = tried.where(better.view(-1, 1, 1, 1), masks)
        search.masks[rows] = masks
        if trend is not None:
            search.trend[rows] = trend
        yield from ()

    def _soft_masks(self, search: Search, rows: Tensor, steps: int) -> Tensor:
        """The smallest soft masks with which the class is still predicted; the canvases get their
        colours."""
        places = torch.zeros_like(search.masks[rows], requires_grad=True)
        shades = search.units.at(rows).first(search.canvases[rows].float()).clone()
        for number, row in enumerate(search.rows):
            stream = search.streams[row]
            if stream.start:  # in random colours
                chance = np.random.default_rng([stream.seed, stream.target, stream.start])
                shades[number] = torch.from_numpy(chance.integers(2, size=shades.shape[1:]))
        shades = shades.clamp(INSIDE, 1 - INSIDE).logit().requires_grad_()
        adam = torch.optim.Adam([places, shades], self.rate, BETAS)
        mean = smallest = torch.full((len(rows),), torch.inf, device=places.device)
        # what the size of each mask costs: more while its class is predicted, less while it is not
        weights = torch.full((len(rows), 1, 1, 1), self.weight, device=places.device)
        streak = torch.zeros(len(rows), device=places.device)  # of easy batches; below 0, of others
        best = places.detach().sigmoid(), shades.detach().sigmoid()
        for batch in search.batches(self.soft_batch_size, steps):
            masks, colours = places.sigmoid(), shades.sigmoid()
            now = masks.detach(), colours.detach()
            _paint(search, rows, colours)
            loss, slope, at_images = search.loss_and_colour_gradients(now[0], batch)
            mean = loss.where(mean.isinf(), SMOOTHED * mean + (1 - SMOOTHED) * loss)
            size = now[0].sum((1, 2, 3))
            smaller = (mean < EASY) & (size < smallest)
            better = (smaller | smallest.isinf()).view(-1, 1, 1, 1)  # the last one, if none is good
            best = now[0].where(better, best[0]), now[1].where(better, best[1])
            smallest = size.where(smaller, smallest)
            of_masks = (slope * now[1] - at_images).sum(1, keepdim=True) + weights
            streak = (streak.clamp(min=0) + 1).where(loss < EASY, streak.clamp(max=0) - 1)
            moves = streak.abs() == PATIENCE
            factor = torch.where(streak > 0, GROWTH, GROWTH**-1.5).where(moves, 1.0)
            weights, streak = weights * factor.view(-1, 1, 1, 1), streak * ~moves
            adam.zero_grad()
            torch.autograd.backward([masks, colours], [of_masks, slope * now[0]])
            adam.step()
        _paint(search, rows, best[1])
        return best[0]


def _paint(search: Search, rows: Tensor, colours: Tensor) -> None:
    """Gives the canvases that are searched their colours."""
    painted = search.units.at(rows).spread(colours.detach())
    search.canvases[rows] = painted.to(search.canvases.dtype)


def _soft_steps(rounds: int) -> int:
    """The steps of the start before so many rounds."""
    return min(100, max(25, 11 * rounds))

"""A few pixels whose places and colours are both searched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._validation import check_count, check_numbers
from captum_classpattern.optimization.masks import strongest, swap_pixels, unit
from captum_classpattern.optimization.search import Search

BETAS = (0.5, 0.9)  # of Adam, as in Neural Cleanse
INSIDE = 0.02  # how far the first colours are kept from 0 and 1, where a sigmoid is flat
EASY, PATIENCE, FACTOR = 0.3, 3, 1.5  # the cross-entropy, batches and factor that move the weight
SMOOTHED = 0.7  # share of the past in the running mean of the cross-entropy
CONTRAST = 0.2  # least distance from grey that counts, so that grey pixels can be kept
TREND = 0.7  # share of the past in what each pixel is worth
SWAPPED = 1 / 6  # share of the pixels that the first round swaps


@dataclass(frozen=True)
class Learned:
    r"""
    Searches the colours of the pixels, too: the canvas is only where the colours begin.

    It joins Neural Cleanse (Wang et al. 2019, IEEE S&P, section IV), which finds a soft mask and
    its colours, to the patterns of Zhao et al. 2021 (arXiv 2101.06898), which have a fixed number
    of pixels. A trigger whose colours are in no image is hidden from other solvers, and not from
    this one; a class pattern with free colours no longer shows pixels of an image.

    The start minimises the cross-entropy plus a weight times the sum of the soft mask, over the
    mask and its colours, with Adam. The weight grows while the class is predicted, and shrinks
    while it is not. The strongest pixels make a binary mask. In each round, the colours take a
    step, and some pixels are swapped for others, in the colours 0 or 1 a channel that promise most.
    The swap is kept if both together lower 1 - sqrt(p) on the same batch, where p is the
    probability of the class.

    Search several areas, from some 25 pixels down to three: each goes on from the larger one. One
    start may miss a trigger, so a canvas of one colour can have several. They differ in their first
    colours and their baselines; the one with the largest margin on the judging images goes on.

    On large images a few pixels are invisible. With a ``grid``, the search chooses cells of many
    pixels instead, each of one colour; so it costs the same at any size.

    Args:
        rounds (int): Rounds after the start, unless ``n_steps`` or a budget is given. Default: 9.
        batch_size (int): Baselines per round. Default: 10.
        soft_batch_size (int): Baselines per step of the start. Default: 8.
        rate (float): Learning rate of Adam. Default: 0.1.
        starts (int): How often a canvas of one colour starts: in this colour, and then each time in
            pixels that are black or white by chance. Default: 1.
        weight (float): The weight of the mask's sum at first. Default: 0.001.
        grid (tuple[int, int], optional): Rows and columns of cells, which must divide the height
            and the width of the images. A cell begins in the colour of the canvas in its corner.
            Default: None (each pixel is a cell).

    Raises:
        ValueError: If a setting is out of range, or the grid does not fit the images.
    """

    rounds: int = 9
    batch_size: int = 10
    soft_batch_size: int = 8
    rate: float = 0.1
    starts: int = 1
    weight: float = 0.001
    grid: tuple[int, int] | None = None

    name: ClassVar[str] = "learned"
    accelerates: ClassVar[bool] = True
    judged_by_margin: ClassVar[bool] = True

    def __post_init__(self) -> None:
        counts = ("rounds", "batch_size", "soft_batch_size", "starts")
        check_numbers(self, counts=counts, positive=("rate", "weight"))
        for count in self.grid or ():
            check_count("grid", count)

    def passes(self, n_steps: int | None = None) -> Sequence[int]:
        """The passes of one canvas at its largest area, with whole batches."""
        rounds = n_steps or self.rounds
        return [_soft_steps(rounds) * self.soft_batch_size + -(-3 * rounds * self.batch_size // 2)]

    def run(self, search: Search) -> Iterator[None]:
        """All rounds; no canvas is dropped."""
        rows, cells, rounds = search.rows, self._cells(search.masks), search.n_steps or self.rounds
        kept = max(1, round(search.kept_pixels / (cells.height * cells.width)))
        if search.trend is None:
            soft = self._soft_masks(search, cells, _soft_steps(rounds))
            contrast = (cells.corners(search.canvases[rows].float()) - 0.5).abs()
            weights = soft * contrast.clamp(min=CONTRAST).amax(1, keepdim=True)
            trend, masks = None, strongest(weights, kept)
            search.trend = torch.zeros_like(search.masks)
            search.trend[rows] = cells.spread(-weights)  # if no time is left for a smaller area
        else:
            search.trend = search.trend.clone()
            trend, held = (cells.corners(each[rows]) for each in (search.trend, search.masks))
            masks = strongest((-trend).where(held > 0, -torch.inf), kept)
        colours = cells.corners(search.canvases[rows].float()).clone().requires_grad_()
        adam = torch.optim.Adam([colours], self.rate, BETAS)
        for number, batch in enumerate(search.batches(self.batch_size, rounds)):
            loss, *both = search.loss_and_colour_gradients(cells.spread(masks), batch, bounded=True)
            slope, at_images = map(cells.sums, both)
            search.record(batch, loss)
            # the loss that a pixel adds, to first order: one of the mask in its colour, any other
            # in the most promising of 0 and 1 a channel
            brightest = (slope < 0).to(slope.dtype)
            held = (slope * colours.detach() - at_images).sum(1, keepdim=True)
            free = (slope * brightest - at_images).sum(1, keepdim=True)
            worth = unit(held.where(masks > 0, free))
            trend = worth if trend is None else TREND * trend + (1 - TREND) * worth
            colours.grad = slope * masks
            adam.step()
            count = max(1, round(SWAPPED * kept * (1 - number / rounds)))
            tried = swap_pixels(masks, trend, count)
            with torch.no_grad():
                colours.copy_(brightest.where(tried > masks, colours.clamp(0, 1)))
            _paint(search, cells, colours)
            better = search.loss(cells.spread(tried), batch) < loss
            masks = tried.where(better.view(-1, 1, 1, 1), masks)
        search.masks[rows] = cells.spread(masks)
        if trend is not None:
            search.trend[rows] = cells.spread(trend)
        yield from ()

    def _cells(self, images: Tensor) -> "_Cells":
        """The cells of the grid; an error if it does not divide the images."""
        height, width = images.shape[-2:]
        rows, columns = self.grid or (height, width)
        if height % rows or width % columns:
            raise ValueError(
                f"a grid of {rows}x{columns} cells does not divide images of {height}x{width} "
                "pixels: choose divisors, or images of another size"
            )
        return _Cells(height // rows, width // columns)

    def _soft_masks(self, search: Search, cells: "_Cells", steps: int) -> Tensor:
        """The smallest soft masks that still make the class predicted; the canvases get their
        colours."""
        rows = search.rows
        places = torch.zeros_like(cells.corners(search.masks[rows]), requires_grad=True)
        shades = cells.corners(search.canvases[rows].float())
        for number, row in enumerate(rows):
            target, start = search.streams[row]
            if start:  # in random colours
                chance = np.random.default_rng([search.schedule.seed, target, start])
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
            _paint(search, cells, colours)
            loss, *both = search.loss_and_colour_gradients(cells.spread(now[0]), batch)
            slope, at_images = map(cells.sums, both)
            mean = loss.where(mean.isinf(), SMOOTHED * mean + (1 - SMOOTHED) * loss)
            size = now[0].sum((1, 2, 3))
            smaller = (mean < EASY) & (size < smallest)
            better = (smaller | smallest.isinf()).view(-1, 1, 1, 1)  # the last one, if none is good
            best = now[0].where(better, best[0]), now[1].where(better, best[1])
            smallest = size.where(smaller, smallest)
            of_masks = (slope * now[1] - at_images).sum(1, keepdim=True) + weights
            streak = (streak.clamp(min=0) + 1).where(loss < EASY, streak.clamp(max=0) - 1)
            moves = streak.abs() == PATIENCE
            factor = torch.where(streak > 0, FACTOR, FACTOR**-1.5).where(moves, 1.0)
            weights, streak = weights * factor.view(-1, 1, 1, 1), streak * ~moves
            adam.zero_grad()
            torch.autograd.backward([masks, colours], [of_masks, slope * now[0]])
            adam.step()
        _paint(search, cells, best[1])
        return best[0]


class _Cells(NamedTuple):
    """Cells of so many pixels, which share a place in the mask and a colour."""

    height: int
    width: int

    def spread(self, cells: Tensor) -> Tensor:
        """The pixels (n, c, H, W) of cells."""
        return cells.repeat_interleave(self.height, 2).repeat_interleave(self.width, 3)

    def corners(self, pixels: Tensor) -> Tensor:
        """The first pixel of each cell."""
        return pixels[:, :, :: self.height, :: self.width]

    def sums(self, pixels: Tensor) -> Tensor:
        """The sum over each cell."""
        count, channels, height, width = pixels.shape
        rows, columns = height // self.height, width // self.width
        return pixels.view(count, channels, rows, self.height, columns, self.width).sum((3, 5))


def _paint(search: Search, cells: _Cells, colours: Tensor) -> None:
    """Gives the canvases that are searched their colours."""
    search.canvases[search.rows] = cells.spread(colours.detach()).to(search.canvases.dtype)


def _soft_steps(rounds: int) -> int:
    """The steps of the start before so many rounds."""
    return min(100, max(25, 11 * rounds))

"""The swap solver of version 0.1, to compare with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from captum_classpattern.optimization import PaperLoop, Search
from captum_classpattern.optimization.masks import strongest, swap_pixels, unit, weigh


@dataclass(frozen=True)
class Swap01:
    """Five sign-gradient steps of 4 images for each round of 16; then in each round one proposal,
    by a running mean of the gradients, that is tried by a pass forward."""

    rounds: int = 80
    batch_size: int = 16
    start_steps: int = 5
    decay: float = 0.8
    swapped: float = 0.125

    name: ClassVar[str] = "swap of 0.1"
    accelerates: ClassVar[bool] = True

    def passes(self, n_steps: int) -> list[int]:
        return [n_steps * (4 * self.start_steps + self.batch_size * 3 // 2)]

    def run(self, search: Search) -> Iterator[None]:
        rounds, kept, loop = search.n_steps or self.rounds, search.kept_pixels, PaperLoop()
        for batch in search.batches(4, self.start_steps * rounds):
            search.record(batch, loop.step(search, batch))
        search.losses.clear()
        most = self.swapped * min(kept, search.masks[0].numel() - kept)
        trend, binary = unit(0.5 - search.masks), strongest(search.masks, kept)
        for number, batch in enumerate(search.batches(self.batch_size, rounds), start=1):
            rows, masks = batch.rows, binary[batch.rows]
            loss, gradient = search.loss_and_gradient(masks, batch, bounded=True)
            trend[rows] = self.decay * trend[rows] + (1 - self.decay) * unit(gradient)
            count = max(1, round(most * ((rounds - number + 1) / rounds)))
            swapped = swap_pixels(masks, trend[rows], count)
            better = search.loss(swapped, batch) < loss
            binary[rows] = swapped.where(better.view(-1, 1, 1, 1), masks)
            search.record(batch, loss)
        search.masks = weigh(binary, trend)
        yield from ()

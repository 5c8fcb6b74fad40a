"""A quick look at many canvases: the mask shrinks to its area within ten steps."""

from collections.abc import Iterator, Sequence

import torch

from captum_classpattern.optimization.masks import unit
from captum_classpattern.optimization.search import Search

SHRINK_STEPS, BATCH_SIZE = 10, 4


class Shrink:
    """Shrinks the mask from half of the pixels to its area, in a geometric series, each time to the
    pixels with the lowest sum of the normalised gradients so far.

    The masks are weak, but tell strong canvases from weak ones at little cost. The first two steps
    follow the cross-entropy, the others 1 - sqrt(p), where p is the probability of the class.
    """

    name = "shrink"
    accelerates = True

    def passes(self, n_steps: int | None) -> Sequence[int]:
        """The passes of one canvas."""
        return [(n_steps or SHRINK_STEPS) * BATCH_SIZE]

    def run(self, search: Search) -> Iterator[None]:
        """All steps at once; no canvas is dropped."""
        steps, kept = search.n_steps or SHRINK_STEPS, search.n_pixels
        half = search.canvases[0, 0].numel() / 2
        trend = torch.zeros_like(search.masks)
        for number, batch in enumerate(search.batches(BATCH_SIZE, steps)):
            rows = batch.index
            loss, gradient = search.loss_and_gradient(search.masks[rows], batch, bounded=number > 1)
            trend[rows] += unit(gradient)
            left = round(half * (kept / half) ** (number / max(1, steps - 1)))
            held = max(kept, left) if kept < half else kept
            search.masks[rows] = search.strongest(-trend[rows], rows, held)
            search.record(batch, loss)
        search.masks = search.strongest(-trend)
        yield from ()

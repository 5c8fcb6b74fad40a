"""A quick look at many canvases: the mask shrinks to its area within ten steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from captum_classpattern._validation import check_numbers
from captum_classpattern.optimization.masks import strongest, unit
from captum_classpattern.optimization.search import Search


@dataclass(frozen=True)
class Shrink:
    r"""
    Shrinks the mask from half of the pixels to its area, in a geometric series, each time to the
    pixels with the lowest sum of the normalised gradients so far.

    The masks are weak, but tell strong canvases from weak ones at little cost: a pool of canvases
    is screened with it. The first two steps follow the cross-entropy, the others 1 - sqrt(p), where
    p is the probability of the class.

    Args:
        steps (int): Steps, unless ``n_steps`` is given. Default: 10.
        batch_size (int): Baselines per step. Default: 4.

    Raises:
        ValueError: If a setting is out of range.
    """

    steps: int = 10
    batch_size: int = 4

    name: ClassVar[str] = "shrink"
    accelerates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_numbers(self, counts=("steps", "batch_size"))

    def passes(self, n_steps: int | None) -> Sequence[int]:
        """The passes of one canvas."""
        return [(n_steps or self.steps) * self.batch_size]

    def run(self, search: Search) -> Iterator[None]:
        """All steps at once; no canvas is dropped."""
        steps, kept = search.n_steps or self.steps, search.kept_pixels
        half = search.masks[0].numel() / 2
        trend = torch.zeros_like(search.masks)
        for number, batch in enumerate(search.batches(self.batch_size, steps)):
            rows = batch.index
            loss, gradient = search.loss_and_gradient(search.masks[rows], batch, bounded=number > 1)
            trend[rows] += unit(gradient)
            left = round(half * (kept / half) ** (number / max(1, steps - 1)))
            search.masks[rows] = strongest(-trend[rows], max(kept, left) if kept < half else kept)
            search.record(batch, loss)
        search.masks = strongest(-trend, kept)
        yield from ()

"""The loop of the paper."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from captum_classpattern._support.validation import check_numbers
from captum_classpattern.optimization.baselines import Batch
from captum_classpattern.optimization.search import Search


@dataclass(frozen=True)
class PaperLoop:
    r"""
    The published loop (Zhao et al. 2021, arXiv 2101.06898, section 3.2, with the settings of the
    authors' code for CIFAR-10). For the canvas x_c and the class y it minimises over the mask m

        alpha * CE(f(m * x_c + (1 - m) * x_n), y) + (1 - alpha) * sum(m) / (H * W / 2)

    by m <- clip(m - step_size * sign(gradient), 0, 1), from m = 0.5, over shuffled batches of
    baselines x_n that are not of class y. It uses the model as it is.

    Args:
        epochs (int): How often each baseline is visited, unless ``n_steps`` is given. Default: 5.
        batch_size (int): Baselines per step. Default: 4.
        alpha (float): Weight of the classification loss, in [0, 1]. Default: 0.2.
        step_size (float): Size of a step. Default: 0.02.

    Raises:
        ValueError: If a setting is out of range.
    """

    epochs: int = 5
    batch_size: int = 4
    alpha: float = 0.2
    step_size: float = 0.02

    name: ClassVar[str] = "paper"
    accelerates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_numbers(self, counts=("epochs", "batch_size"))
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"`alpha` must lie in [0, 1], got {self.alpha}")
        if not self.step_size > 0:
            raise ValueError(f"step_size must be positive, got {self.step_size}")

    def passes(self, n_steps: int | None = None) -> Sequence[int]:
        """The passes of one canvas, with whole batches; an error without a number of steps."""
        if n_steps is None:
            raise ValueError(
                "the passes of the paper's loop depend on the baselines: give `n_steps`"
            )
        return [n_steps * self.batch_size]

    def run(self, search: Search) -> Iterator[None]:
        """All steps; no canvas is ever dropped. Without features, all areas share one mask."""
        if search.trend is None:
            for batch in search.batches(self.batch_size, search.n_steps, epochs=self.epochs):
                search.record(batch, self.step(search, batch))
            search.trend = 0.5 - search.masks
        if search.plan.features is not None:  # those of the area, whole
            soft = 0.5 - search.trend
            search.masks = soft * search.strongest(soft * search.units.sizes)
        yield from ()

    def step(self, search: Search, batch: Batch) -> Tensor:
        """One step of ``search.masks``; returns the losses before it."""
        masks = search.masks[batch.index]
        half = search.canvases[0, 0].numel() / 2
        sizes: Tensor = search.units.at(batch.index).sizes * masks.new_ones(masks.shape)
        entropy, gradient = search.loss_and_gradient(masks, batch)
        gradient = self.alpha * gradient + (1 - self.alpha) * sizes / half
        search.masks[batch.index] = (masks - self.step_size * gradient.sign()).clamp(0, 1)
        return self.alpha * entropy + (1 - self.alpha) * (sizes * masks).sum((1, 2, 3)) / half

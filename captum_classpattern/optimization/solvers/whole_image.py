"""The search for one change of whole images, the same for all of them, that makes a class be
predicted. What such changes are lies beside it, each in one file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern._support.progress import advance_bar
from captum_classpattern.classifier import CheckedModel, lacks_memory
from captum_classpattern.images import LabelledImages

SIDE = 28  # pixels of the images that bounds are meant for


@dataclass(frozen=True)
class WholeImage(ABC):
    """Values, one for each class, that change images; a subclass says how.

    Args:
        steps (int): Steps of the search. Default: 30.
        batch_size (int): Images of other classes in each step. Default: 8.
        rate (float): The first step, as a share of the bound; it falls to a tenth of that.
            Default: 0.25.
    """

    steps: int = 30
    batch_size: int = 8
    rate: float = 0.25

    @abstractmethod
    def start(self, count: int, shape: Sequence[int]) -> Tensor:
        """The values that change nothing, for images (C, H, W)."""

    @abstractmethod
    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        """Images (n, b, C, H, W), changed by n values."""

    @abstractmethod
    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        """The values after a step against the gradient, within their bound."""

    def stamp(self, value: Tensor, images: Tensor) -> Tensor:
        """Images (N, C, H, W), changed by one value."""
        return self.apply(value.to(images)[None], images[None])[0]

    def passes(self, n_steps: int | None = None) -> Sequence[int]:
        """The passes of one class."""
        return [(n_steps or self.steps) * self.batch_size]

    def run(
        self,
        model: CheckedModel,
        images: LabelledImages,
        targets: Sequence[int],
        seed: int,
        at_once: int,
    ) -> Tensor:
        """The value of each class. ``at_once`` images are in one call, or fewer where the memory is
        too small."""
        labels = images.known_labels
        others = [torch.nonzero(labels != y).flatten().tolist() for y in targets]
        chances = [np.random.default_rng([seed, y]) for y in targets]
        at_least_float32 = torch.promote_types(model.dtype, torch.float32)  # halves underflow
        values = self.start(len(targets), images.shape).to(model.device, at_least_float32)
        for number in range(self.steps):
            chosen = [one.choice(places, self.batch_size) for one, places in zip(chances, others)]
            batch = images.take(np.concatenate(chosen).tolist()).to(values)
            batch = batch.view(len(targets), self.batch_size, *batch.shape[1:])
            gradient, at_once = self._gradient(model, values, batch, targets, at_once)
            rate = self.rate * (1 - 0.9 * number / max(1, self.steps - 1))
            values = self.step(values, gradient, rate)
            advance_bar(2 * len(targets) * self.batch_size)
        return values

    def _gradient(
        self,
        model: CheckedModel,
        values: Tensor,
        batch: Tensor,
        targets: Sequence[int],
        at_once: int,
    ) -> tuple[Tensor, int]:
        """The gradient of the sum of the cross-entropies, and how many images fit into a call."""
        wanted = torch.tensor(targets, device=values.device).repeat_interleave(self.batch_size)
        free, gradient = values.detach().requires_grad_(), torch.zeros_like(values)
        start = 0
        while start < len(wanted):
            part = slice(start, start + at_once)
            try:
                changed = self.apply(free, batch).flatten(0, 1)[part].to(model.device, model.dtype)
                logits = model.logits(changed).to(values.device).float()
                loss = F.cross_entropy(logits, wanted[part], reduction="sum")
                gradient += torch.autograd.grad(loss, free)[0]
                start = part.stop
            except RuntimeError as error:
                if at_once == 1 or not lacks_memory(error):
                    raise
                at_once //= 2
        return gradient, at_once

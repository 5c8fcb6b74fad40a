"""How far a classifier is from predicting the target on stamped images, for many masks at once."""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from captum_classpattern.classifier import Classifier, additional_rows, device_and_dtype, warn


class Batch(NamedTuple):
    """The images of one step, which of them each target meets, and the canvases that take part."""

    images: Tensor
    picks: dict[int, list[int]]
    rows: list[int]


@dataclass
class Objective:
    """The mean loss of each canvas's mask over a batch, and its gradient with respect to the mask.

    ``internal_batch_size`` is halved, with a warning, where the device's memory is too small.
    """

    forward_func: Classifier
    canvases: Tensor
    targets: list[int]
    additional: tuple[Any, ...]
    internal_batch_size: int | None

    def __post_init__(self) -> None:
        self._targets = torch.tensor(self.targets, device=self.canvases.device)

    def evaluate(
        self, masks: Tensor, batch: Batch, *, bounded: bool, gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Losses (n,) of the masks (n, 1, H, W) of a batch's canvases, and their gradients.

        The loss is the cross-entropy -log p, p being the probability of the target; or 1 - sqrt(p)
        if ``bounded``, so that images that are far from the class have almost no gradient. The
        pairs of canvas and image are independent, so the gradient of the sum of their losses with
        respect to the stamped images holds the gradient of each pair.
        """
        device, rows = masks.device, batch.rows
        picks = [batch.picks[self.targets[row]] for row in rows]
        counts = torch.tensor([len(pick) for pick in picks], device=device)
        owners = [place for place, pick in enumerate(picks) for _ in pick]
        owner, pick, row = (
            torch.tensor(numbers, dtype=torch.int64, device=device)
            for numbers in (owners, list(itertools.chain(*picks)), [rows[i] for i in owners])
        )
        value, slopes = torch.zeros(len(rows), device=device), torch.zeros_like(masks)
        start = 0
        while start < len(owner):
            part = slice(start, start + (self.internal_batch_size or len(owner)))
            try:
                mask, image = masks[owner[part]], batch.images[pick[part]]
                loss, slope = self._pairs(mask, image, row[part], bounded, gradient)
            except torch.OutOfMemoryError:
                size = len(owner[part])
                if size == 1:
                    raise
                self._halve(size)
                continue
            _add_runs(value, loss, owners[part])
            if slope is not None:
                _add_runs(slopes, slope, owners[part])
            start = part.stop
        return value / counts.clamp(min=1), slopes / counts.clamp(min=1).view(-1, 1, 1, 1)

    def _pairs(
        self, mask: Tensor, image: Tensor, row: Tensor, bounded: bool, gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The loss of each pair of mask and image, and its gradient with respect to the mask."""
        canvas = self.canvases[row]
        _, dtype = device_and_dtype(self.forward_func, canvas)
        mask, canvas, image = mask.to(dtype), canvas.to(dtype), image.to(dtype)
        stamped = (mask * canvas + (1 - mask) * image).requires_grad_(gradient)
        additional = additional_rows(self.additional, row, len(self.canvases))
        targets = self._targets[row]
        with torch.set_grad_enabled(gradient):
            logits = self.forward_func(stamped, *additional).float()
            loss = cross_entropy(logits, targets, reduction="none")
            loss = -torch.expm1(-loss / 2) if bounded else loss
        if not gradient:
            return loss, None
        if not logits.requires_grad:
            raise ValueError(
                "the model's logits carry no gradient: it must not run under torch.no_grad, "
                "detach its outputs or round them"
            )
        (slope,) = torch.autograd.grad(loss.sum(), stamped)
        return loss.detach(), (slope * (canvas - image)).sum(1, keepdim=True).float()

    def _halve(self, size: int) -> None:
        self.internal_batch_size = size // 2
        warn(
            f"the device has too little memory for {size} images at once: the search continues "
            f"with internal_batch_size={size // 2}"
        )


def _add_runs(totals: Tensor, values: Tensor, owners: list[int]) -> None:
    """Adds the sum of each run of values to the total of its owner, always in the same order, which
    ``index_add_`` does not keep on CUDA."""
    runs = [(owner, len(list(run))) for owner, run in itertools.groupby(owners)]
    sums = torch.stack([run.sum(0) for run in torch.split(values, [length for _, length in runs])])
    totals[[owner for owner, _ in runs]] += sums

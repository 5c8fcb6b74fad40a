"""The gradients of a classifier's logits, and whether they say anything."""

import torch
from torch import Tensor

REMEDY = (
    "it must not run under torch.no_grad, and nothing between its images and logits may be "
    "detached, rounded, turned into integers or chosen by an argmax; leave that out, or let the "
    "gradient pass, as in x + (x.round() - x).detach() for x.round()"
)
NO_GRADIENT = f"the model's logits carry no gradient: {REMEDY}"
ZERO_GRADIENT = f"the model's logits have a gradient of zero at all images: {REMEDY}"
LEAST = 1e-3  # slope of a loss: with less, a gradient may underflow


class NoGradient(ValueError):
    """A model has no gradient, or is cut off from its images."""


class Gradients:
    """The gradients of a model, and what searches have seen of them so far."""

    def __init__(self) -> None:
        self._noted: list[Tensor] = []  # whether slopes are large, and gradients other than zero
        self._pass = False

    def at(self, leaf: Tensor, logits: Tensor, slope: Tensor) -> Tensor:
        """The gradient of a loss at a leaf, from its slope at the logits. Waits for no device."""
        gradient, slope = None, slope.to(logits)
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(logits, leaf, slope, allow_unused=True)
        if gradient is None:
            raise NoGradient(NO_GRADIENT)
        if not self._pass:
            is_large = (slope.abs() > LEAST).any().to(gradient.device)
            self._noted.append(torch.stack([is_large, (gradient != 0).any()]))
        return gradient

    def seem_zero(self) -> bool:
        """Whether all of them were zero, although slopes were large: where a class is certain, it
        is as it should be."""
        if self._pass or not self._noted:
            return False
        is_large, self._pass = torch.stack(self._noted).any(0).tolist()
        self._noted.clear()
        return is_large and not self._pass

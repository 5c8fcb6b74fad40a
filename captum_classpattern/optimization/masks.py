"""Binary masks: made from weights, changed by swaps of pixels, and weighted by their gradients."""

import torch
from torch import Tensor

from captum_classpattern._support.topk import highest

TINY = torch.finfo(torch.float32).tiny


def norms(gradients: Tensor) -> Tensor:
    """The norm of each gradient, (n, 1, 1, 1); scaled by the largest entry, since tiny squares
    vanish."""
    largest = gradients.abs().amax((1, 2, 3), keepdim=True).clamp(min=TINY)
    return largest * (gradients / largest).square().sum((1, 2, 3), keepdim=True).sqrt()


def unit(gradients: Tensor) -> Tensor:
    """Each gradient divided by its norm; zeros stay."""
    return gradients / norms(gradients).clamp(min=TINY)


def strongest(weights: Tensor, kept: int) -> Tensor:
    """Binary masks of the largest weights. Ties (after rounding) are broken in reading order."""
    return highest((weights * 1e5).round(), kept).to(weights)


def swap_pixels(masks: Tensor, gradients: Tensor, count: int) -> Tensor:
    """Binary masks with up to ``count`` pixels swapped, where the gradient says that it helps.

    Pixels of the mask with a large gradient raise the loss, others with a low one would lower it.
    The sorts are stable, so that ties fall the same way on every run.
    """
    held, gradients = masks.flatten(1) > 0, gradients.flatten(1)
    leaving = gradients.where(held, -torch.inf).argsort(dim=1, descending=True, stable=True)
    entering = gradients.where(~held, torch.inf).argsort(dim=1, stable=True)
    leaving, entering = leaving[:, :count], entering[:, :count]
    gains = (gradients.gather(1, leaving) > gradients.gather(1, entering)).to(masks.dtype)
    swapped = masks.flatten(1).scatter(1, leaving, 1 - gains).scatter(1, entering, gains)
    return swapped.view(masks.shape)


def weigh(masks: Tensor, gradients: Tensor) -> Tensor:
    """Binary masks whose pixels weigh from 0.5 to 1, by how much they lower the loss."""
    helps = -gradients
    low = helps.where(masks > 0, torch.inf).amin((1, 2, 3), keepdim=True)
    high = helps.where(masks > 0, -torch.inf).amax((1, 2, 3), keepdim=True)
    span = (high - low).clamp(min=TINY)
    return masks * (1 - 0.5 * ((high - helps) / span).clamp(0, 1))

"""Adversarial changes that work on all images: a patch anywhere, a small change of all pixels."""

from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern._support.topk import pixels_kept
from captum_classpattern.classifier import Classifier
from captum_classpattern.comparison.controls import BUDGET, mean_probabilities
from captum_classpattern.images import Images, evenly_spaced

from .inversion import BETAS, RATE, Inversion, InversionTask

PLACES, PLACED = 100, 12  # at most this many places are tried, each on so many images
EPSILON = 10 / 255  # largest change of a universal perturbation, as published
STEPS_TO_EDGE = 10  # of sign-gradient steps from no change to the largest one


def universal_patch(
    forward_func: Classifier,
    images: Images,
    target: int,
    *,
    area: float = 0.05,
    passes: int = BUDGET,
    **settings: Any,
) -> Inversion:
    """An adversarial patch: a square with free colours that makes the model predict a class,
    wherever it is (Brown et al. 2017, arXiv 1712.09665), without rotations and scales. Arguments
    are those of :class:`InversionTask`, and the share of the pixels in the square.

    Adam minimises the cross-entropy over the colours. Each image of a batch gets the square at a
    random place. Then the square is tried at places on a grid, on the same images, and stays at
    that of the highest mean probability. Such an image counts half a pass.
    """
    task = InversionTask(forward_func, images, target, passes=passes, **settings)
    channels, height, width = task.shape
    k = pixels_kept(area, (height, width))
    side = min(round(k**0.5), width)
    shape = -(-k // side), side
    last = height - shape[0], width - side
    if last[0] < 0:
        raise ValueError(f"a square of {k} pixels does not fit into {height}x{width}")
    step = 1
    while (last[0] // step + 1) * (last[1] // step + 1) > PLACES:
        step += 1
    places = list(product(*(range(0, end + 1, step) for end in last)))
    chosen = task.images.take(evenly_spaced(len(task.images), PLACED)).to(task.first)
    to_choose, in_step = len(places) * len(chosen) // 2, task.batch_size
    if passes < to_choose + in_step:
        raise ValueError(
            f"`passes` must be at least {to_choose + in_step}, got {passes}: {to_choose} to choose "
            f"among {len(places)} places, and one step of {in_step}"
        )
    task.passes -= to_choose
    inside = torch.arange(shape[0] * side) < k  # in reading order
    mask = inside.view(1, *shape).to(task.first)
    with task.begun() as chance:
        raw = torch.from_numpy(chance.random((channels, *shape))).to(task.first)
        raw = (raw * 0.98 + 0.01).logit().requires_grad_()
        adam = torch.optim.Adam([raw], RATE, BETAS)
        success = 0.0
        for wins, batches in task.epochs(chance):
            for batch in batches:
                tops, lefts = (chance.integers(0, end + 1, len(batch)).tolist() for end in last)
                patch = torch.cat([mask, raw.sigmoid()])
                placed = [_placed(patch, place, height, width) for place in zip(tops, lefts)]
                whole = torch.stack(placed)
                stamped = whole[:, :1] * whole[:, 1:] + (1 - whole[:, :1]) * batch
                adam.zero_grad()
                task.loss(stamped, wins).backward(inputs=[raw])
                adam.step()
            success = float(np.mean(wins))
        patch = torch.cat([mask, raw.detach().sigmoid()])
        tried = (_placed(patch, place, height, width) for place in places)
        patterns = ((whole[:1], whole[1:]) for whole in tried)
        scores = list(mean_probabilities(task.forward_func, patterns, chosen, target))
        best = _placed(patch, places[scores.index(max(scores))], height, width)
    return Inversion(task.pattern(best[1:], best[:1]), float(k), success)


def _placed(patch: Tensor, place: tuple[int, int], height: int, width: int) -> Tensor:
    """A patch (C, h, w) in an empty image (C, height, width)."""
    (top, left), (h, w) = place, patch.shape[1:]
    return F.pad(patch, (left, width - w - left, top, height - h - top))


def universal_perturbation(
    forward_func: Classifier,
    images: Images,
    target: int,
    *,
    epsilon: float = EPSILON,
    passes: int = BUDGET,
    **settings: Any,
) -> Inversion:
    """A universal perturbation: one small change of all pixels that makes the model predict a class
    (Moosavi-Dezfooli et al. 2017, arXiv 1610.08401). This is its targeted form, found by projected
    sign-gradient steps (Shafahi et al. 2020, arXiv 1811.11304), of a tenth of ``epsilon``.
    Arguments are those of :class:`InversionTask`, and the largest change of a value.

    The mask says what each pixel's change is worth to first order, by the mean gradient of all
    steps, relative to the largest one. The canvas is the mean changed colour on the images.
    """
    if not 0 < epsilon <= 1:
        raise ValueError(f"epsilon must lie in (0, 1], got {epsilon}")
    task = InversionTask(forward_func, images, target, passes=passes, **settings)
    with task.begun() as chance:
        change = torch.zeros(task.shape).to(task.first)
        total, success = torch.zeros_like(change), 0.0
        for wins, batches in task.epochs(chance):
            for batch in batches:
                change.requires_grad_()
                loss = task.loss((batch + change).clamp(0, 1), wins)
                (slope,) = torch.autograd.grad(loss, change)
                total += slope
                step = epsilon / STEPS_TO_EDGE * slope.sign()
                change = (change.detach() - step).clamp(-epsilon, epsilon)
            success = float(np.mean(wins))
        worth = (-total * change).clamp(min=0).sum(0, keepdim=True)
        colours = task.mean_of(lambda images: (images + change).clamp(0, 1))
    pattern = task.pattern(colours, worth / worth.max().clamp(min=torch.finfo(worth.dtype).tiny))
    size = float((change != 0).any(0).sum())
    return Inversion(pattern, size, success, change.float().cpu())

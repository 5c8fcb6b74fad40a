"""How far a classifier is from predicting the target on stamped images, for many masks at once."""

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_classpattern._support.progress import advance_bar
from captum_classpattern.classifier import (
    CheckedModel,
    additional_rows,
    lacks_memory,
    preserve_state,
    uncounted,
    warn,
)
from captum_classpattern.classifier.gradients import ZERO_GRADIENT, NoGradient
from captum_classpattern.images import LabelledImages, evenly_spaced
from captum_classpattern.optimization.baselines import Batch
from captum_classpattern.optimization.moves import place, pull_back

if TYPE_CHECKING:
    from captum_classpattern.optimization.search import Search

LOOKED_AT = 16  # images as they are, where all gradients of a search are zero


def evaluate(
    search: "Search",
    masks: Tensor,
    batch: Batch,
    *,
    bounded: bool,
    gradient: bool = True,
    colours: bool = False,
) -> tuple[Tensor, Tensor]:
    """Losses (n,) of the masks (n, 1, H, W) of a batch's canvases, and their gradients.

    The loss is the cross-entropy -log p, p being the probability of the target; or 1 - sqrt(p)
    if ``bounded``, so that images that are far from the class have almost no gradient. The pairs
    of canvas and image are independent, so the gradient of the sum of their losses with respect
    to the stamped images holds the gradient of each pair.

    ``colours`` gives (n, 2 C, H, W) instead: the mean gradient g with respect to the stamped
    images, and the mean of g x, where x is the image before it was stamped. To first order, a pixel
    that is stamped with the colour v changes the loss by the mean of g (v - x), whatever v is. If
    the batch has ``moves``, masks, canvases and gradients are those of squares that move, (n, ...,
    S, S). Without ``gradient``, these are zeros.
    """
    channels = 2 * search.canvases.shape[1] if colours else 1
    value = masks.new_zeros(len(batch.rows))
    slopes = masks.new_zeros(len(masks), channels, *masks.shape[-2:])
    start, end = 0, len(batch.places)
    while start < end:
        part = slice(start, start + search.images_per_call)
        try:
            loss, slope = _pairs(search, masks, batch, part, bounded, gradient, colours)
        except RuntimeError as error:
            if gradient and not search.copies_images and "in-place" in str(error):
                search.copies_images = True
                continue
            size = min(part.stop, end) - start
            if size == 1 or not lacks_memory(error):
                raise
            search.images_per_call = size // 2
            warn(
                f"the device has too little memory for {size} images at once: the search "
                f"continues with `internal_batch_size={size // 2}`"
            )
            continue
        _add_runs(value, loss, batch.places[part])
        if slope is not None:
            _add_runs(slopes, slope, batch.places[part])
        advance_bar((1 + gradient) * len(batch.places[part]))
        start = part.stop
    return value / batch.counts, slopes / batch.counts.view(-1, 1, 1, 1)


def _pairs(
    search: "Search",
    masks: Tensor,
    batch: Batch,
    part: slice,
    bounded: bool,
    gradient: bool,
    colours: bool,
) -> tuple[Tensor, Tensor | None]:
    """The loss of each pair of mask and image, and its gradient if it is wanted."""
    plan, dtype = search.plan, search.plan.model.dtype
    number, row, pick = batch.pairs[:, part]
    image = batch.images[pick].to(dtype)
    moves = None if batch.moves is None else batch.moves[part]
    canvas, mask = search.canvases[row], masks[number]
    if moves is None:
        difference = canvas.to(dtype) - image
        stamped = torch.addcmul(image, mask.to(dtype), difference)
    else:
        both = place(torch.cat([mask * canvas.to(mask), mask], 1), moves, plan.size)
        pixels, opacity = both.to(dtype).tensor_split([-1], 1)
        stamped = pixels + (1 - opacity) * image
    stamped.requires_grad_(gradient)
    additional = additional_rows(plan.arguments, row, len(search.canvases))
    with torch.set_grad_enabled(gradient):
        images = stamped.clone() if gradient and search.copies_images else stamped
        logits = plan.fast(images, *additional)
    target = plan.targets[row][:, None]
    log_probabilities = logits.detach().to(stamped.device).float().log_softmax(1)
    entropy = -log_probabilities.gather(1, target).squeeze(1)
    loss = -torch.expm1(-entropy / 2) if bounded else entropy
    if not gradient:
        return loss, None
    # of -log p with respect to the logits: the softmax minus one at the target
    slope = log_probabilities.exp().scatter_add_(1, target, -torch.ones_like(entropy)[:, None])
    if bounded:  # the chain rule: sqrt(p) / 2 times as much
        slope = slope * (torch.exp(-entropy / 2) / 2)[:, None]
    slope = plan.model.gradients.at(stamped, logits, slope)
    if colours:
        slopes = torch.cat([slope, slope * image], 1).float()
        return loss, slopes if moves is None else pull_back(slopes, moves, mask.shape[-1])
    return loss, (slope * difference).sum(1, keepdim=True).float()


def check_gradients(
    model: CheckedModel, images: LabelledImages, arguments: tuple[Any, ...] = (), count: int = 0
) -> None:
    """Raises an error if all gradients so far were zero, and so are those of random sums of the
    logits at images as they are, with the ``arguments`` of the first of ``count`` canvases."""
    if not model.gradients.seem_zero():
        return
    with preserve_state(model.call, 0), uncounted():
        leaf = images.take(evenly_spaced(len(images), LOOKED_AT)).to(model.device, model.dtype)
        first = torch.zeros(len(leaf), dtype=torch.int64, device=model.device)
        logits = model.logits(
            leaf.requires_grad_().clone(), *additional_rows(arguments, first, count)
        )
        model.gradients.at(leaf, logits, torch.randn_like(logits))
    if model.gradients.seem_zero():
        raise NoGradient(ZERO_GRADIENT)


def _add_runs(totals: Tensor, values: Tensor, places: list[int]) -> None:
    """Adds the sum of each run of values to the total of its place, always in the same order, which
    ``index_add_`` does not keep on CUDA. Adjacent runs of one length share a kernel."""
    start, runs = 0, enumerate((place, len([*run])) for place, run in itertools.groupby(places))
    for (length, shift), block in itertools.groupby(runs, lambda r: (r[1][1], r[1][0] - r[0])):
        numbers = [number for number, _ in block]
        end = start + len(numbers) * length
        sums = values[start:end].view(len(numbers), length, *values.shape[1:]).sum(1)
        totals[numbers[0] + shift : numbers[-1] + shift + 1].add_(sums)
        start = end

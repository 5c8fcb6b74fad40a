"""How well masks agree."""

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError


def mean_pairwise_iou(masks: Sequence[Tensor]) -> float:
    r"""
    Intersection over union of binary masks, on average over all pairs: whether searches with
    other seeds, or on other canvases, agree on the pixels.

    Args:
        masks (Sequence[Tensor]): Two or more masks of the same shape, usually (1, H, W), with the
            values 0 and 1 (or bool), such as those of :meth:`Pattern.topk`.

    Returns:
        *float*: In [0, 1]; 1 if all masks are the same. Two masks of k out of n pixels chosen at
        random share about k / n of their pixels and score about k / (2 n - k).

    Raises:
        TypeError: If a mask is not a Tensor.
        ValueError: If there are fewer than two masks, if their shapes differ, or if one is empty
            or has values other than 0 and 1.

    Examples::

        >>> left = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> middle = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
        >>> mean_pairwise_iou([left, left]), round(mean_pairwise_iou([left, middle]), 4)
        (1.0, 0.3333)
    """
    for number, mask in enumerate(masks):
        if not isinstance(mask, Tensor):
            raise ArgumentTypeError(f"masks must be Tensors, but number {number} is {mask!r:.80}")
    shapes = [tuple(mask.shape) for mask in masks]
    if len(shapes) < 2 or len({*shapes}) > 1:
        raise ValueError(f"masks must be two or more of one shape, got {shapes}")
    for number, mask in enumerate(masks):
        if not (bool(mask.any()) and bool(((mask == 0) | (mask == 1)).all())):
            raise ValueError(
                f"masks must hold 0 and 1 only, and keep some pixel, but number {number} does not: "
                "make it binary first, for instance with Pattern.topk"
            )
    flat = torch.stack([mask.detach().cpu().double().flatten() for mask in masks])
    both = flat @ flat.T
    sizes = both.diagonal()
    iou = both / (sizes[:, None] + sizes[None, :] - both)
    first, second = torch.triu_indices(len(flat), len(flat), offset=1)
    return float(iou[first, second].mean())

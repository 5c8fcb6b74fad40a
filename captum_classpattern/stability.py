"""How alike the masks of several searches are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_classpattern.errors import ArgumentTypeError


def mean_pairwise_iou(masks: Sequence[Tensor]) -> float:
    r"""
    Intersection over union of binary masks, in the mean over all pairs: whether searches with
    other seeds, or on other canvases, agree on the pixels.

    Args:
        masks (Sequence[Tensor]): Two or more masks of one shape, (1, H, W) by custom, with the
            values 0 and 1 (or bool), as those of :meth:`Pattern.topk`.

    Returns:
        *float*: In [0, 1]; 1 where all masks are the same. Two masks of k out of n pixels that
        are chosen at random share about k / n of their pixels, so about k / (2 n - k).

    Raises:
        TypeError: If a mask is no Tensor.
        ValueError: If there are fewer than two masks, if their shapes differ, or if one has other
            values than 0 and 1, or no pixel.

    Examples::

        >>> left = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> middle = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
        >>> mean_pairwise_iou([left, left]), round(mean_pairwise_iou([left, middle]), 4)
        (1.0, 0.3333)
    """
    check_masks(masks)
    flat = torch.stack([mask.detach().cpu().double().flatten() for mask in masks])
    both = flat @ flat.T
    sizes = both.diagonal()
    iou = both / (sizes[:, None] + sizes[None, :] - both)
    first, second = torch.triu_indices(len(flat), len(flat), offset=1)
    return float(iou[first, second].mean())


def check_masks(masks: Sequence[Tensor]) -> None:
    """Raises an error unless these are two or more binary masks of one shape."""
    if len(masks) < 2:
        raise ValueError(f"masks must be two or more to be compared in pairs, got {len(masks)}")
    for number, mask in enumerate(masks):
        if not isinstance(mask, Tensor):
            raise ArgumentTypeError(f"masks must be Tensors, but number {number} is {mask!r:.80}")
        if mask.shape != masks[0].shape:
            raise ValueError(
                f"masks must all have one shape: number 0 has {tuple(masks[0].shape)}, number "
                f"{number} has {tuple(mask.shape)}"
            )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(
                f"masks must hold 0 and 1 alone, but number {number} has other values: make it "
                "binary first, for instance with Pattern.topk"
            )
        if not bool(mask.any()):
            raise ValueError(f"masks must keep some pixel each, but number {number} is empty")

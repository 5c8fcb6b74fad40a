"""Which pixels are kept: as many as an area says, and among equal weights the first."""

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_classpattern._support.validation import check_area


def pixels_kept(area: float, size: Sequence[int]) -> int:
    """How many pixels of an H x W mask an area keeps; an error if that is 0 or all of them."""
    check_area(area)
    total = size[0] * size[1]
    k = round(area * total) if 0 <= area <= 1 else -1
    if not 0 < k < total:
        choose = f"choose from {1 / total:.2g} to {1 - 1 / total:.4g}, such as 0.05 for 5 %"
        raise ValueError(
            f"`area` is the share of pixels to keep: {area} of {size[0]}x{size[1]} = {total} "
            f"pixels rounds to {'none or all' if k in (0, total) else 'a number out of range'}; "
            f"{choose if total > 1 else 'give larger images'}"
        )
    return k


def highest(maps: Tensor, k: int, sizes: Tensor | None = None) -> Tensor:
    """The k highest values of each map (..., H, W), as bool; equal ones in reading order. If the
    values have sizes: the highest, until the next would exceed k."""
    order = maps.flatten(-2).argsort(dim=-1, descending=True, stable=True)
    chosen = torch.zeros_like(maps, dtype=torch.bool).flatten(-2)
    if sizes is None:
        return chosen.scatter(-1, order[..., :k], True).view(maps.shape)
    fits = sizes.flatten(-2).gather(-1, order).cumsum(-1) <= k
    return chosen.scatter(-1, order, fits).view(maps.shape)


def topk_masks(masks: Tensor, k: int) -> Tensor:
    """Binary masks of the k largest weights of each mask (..., H, W), without weights of 0."""
    return (highest(masks, k) & (masks > 0)).to(masks)

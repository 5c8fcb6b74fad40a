"""The shape of masks: how simple one is, and how well several agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_classpattern._support.validation import check_unit_range


@dataclass(frozen=True)
class Simplicity:
    """Three scores of a mask; lower is simpler. See :func:`simplicity`."""

    total_variation: float
    high_frequency_share: float
    components: int


def simplicity(mask: Tensor) -> Simplicity:
    r"""
    Measures how simple a mask is, binary or soft.

    Args:
        mask (Tensor): Weight of each pixel, floating point (1, H, W) in [0, 1], such as the mask
            of :meth:`Pattern.topk`.

    Returns:
        *Simplicity*: ``total_variation``, the length of the edges in pixels per pixel of the image
        (the absolute differences of horizontal and vertical neighbours, summed, over H * W;
        anisotropic; Rudin et al. 1992); ``high_frequency_share``, the share of the energy of its
        two-dimensional Fourier transform, without the mean, in waves shorter than four pixels, half
        of the Nyquist radius (the image is taken as periodic, so a step from one border to the
        opposite border counts as an edge); ``components``, the number of pieces of ``mask > 0``
        that do not touch along an edge or at a corner (8-connectivity).

    Raises:
        TypeError: If the mask is not a floating point Tensor.
        ValueError: If it is not (1, H, W), has no pixel, or a value outside [0, 1].

    Examples::

        >>> mask = torch.zeros(1, 8, 8)
        >>> mask[0, 2:6, 2:6] = 1
        >>> square = simplicity(mask)
        >>> square.total_variation, round(square.high_frequency_share, 4), square.components
        (0.25, 0.1881, 1)
    """
    check_unit_range(mask, "mask", "(1, H, W) in [0, 1]")
    if mask.ndim != 3 or len(mask) != 1 or mask.numel() == 0:
        raise ValueError(f"mask must be (1, H, W) with some pixels, got {tuple(mask.shape)}")
    mask = mask.detach().cpu().double()[0]
    return Simplicity(total_variation(mask), high_frequency_share(mask), components(mask))


def total_variation(mask: Tensor) -> float:
    """Absolute differences of neighbouring pixels of a mask (H, W), summed, over H * W."""
    down, right = mask.diff(dim=0).abs().sum(), mask.diff(dim=1).abs().sum()
    return float((down + right) / mask.numel())


def high_frequency_share(mask: Tensor) -> float:
    """The share of the spectral energy of a mask (H, W) at u / H and v / W cycles per pixel with
    sqrt((u / H)^2 + (v / W)^2) > 1/4; 0 for a constant mask."""
    low, high = mask.aminmax()
    if bool(low == high):
        return 0.0
    h, w = mask.shape
    stretched = (mask - low) / (high - low)  # the same share, without rounding faint masks away
    energy = torch.fft.fft2(stretched - stretched.mean()).abs().square()
    energy[0, 0] = 0.0  # what rounding leaves of the mean
    u, v = (torch.arange(n).minimum(n - torch.arange(n)) for n in (h, w))
    scaled = (u[:, None] * w).square() + (v[None, :] * h).square()  # whole numbers: exact
    is_high = 16 * scaled > (h * w) ** 2
    return float(energy[is_high].sum() / (energy[is_high].sum() + energy[~is_high].sum()))


def components(mask: Tensor) -> int:
    """How many pieces ``mask > 0`` of a mask (H, W) has, with 8-connectivity."""
    from scipy.ndimage import label  # slow to import, and only needed here

    return int(label((mask > 0).numpy(), structure=[[1, 1, 1]] * 3)[1])


def mean_pairwise_iou(masks: Sequence[Tensor]) -> float:
    r"""
    Intersection over union of binary masks, averaged over all pairs: whether searches with other
    seeds, or on other canvases, agree on the pixels.

    Args:
        masks (Sequence[Tensor]): Two or more masks of the same shape, usually (1, H, W), with the
            values 0 and 1 (or bool), such as those of :meth:`Pattern.topk`.

    Returns:
        *float*: In [0, 1]; 1 if all masks are the same. Two masks of k out of n pixels chosen at
        random share about k / n of their pixels and score about k / (2 n - k).

    Raises:
        ValueError: If there are fewer than two masks, if their shapes differ, or if one is empty
            or has values other than 0 and 1.

    Examples::

        >>> left = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> middle = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
        >>> mean_pairwise_iou([left, left]), round(mean_pairwise_iou([left, middle]), 4)
        (1.0, 0.3333)
    """
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

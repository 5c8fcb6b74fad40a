"""How well a map of importance finds the true pixels of a trigger."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.pattern import Pattern


@dataclass(frozen=True)
class Localisation:
    """Five scores of a map against the true pixels T, each in [0, 1], 1 for a perfect map.

    ``iou`` is that of the map's ``|T|`` strongest pixels with T, ``average_precision`` the area
    under the steps of precision over recall, ``pointing_game`` whether the strongest pixel is
    true, ``relevance_mass`` the share of the positive mass on T, ``relevance_rank`` the share of T
    among the map's ``|T|`` strongest pixels.
    """

    iou: float
    average_precision: float
    pointing_game: float
    relevance_mass: float
    relevance_rank: float


def localise(map: Tensor, pixels: Tensor) -> Localisation:
    r"""
    Scores a map of importance against the true pixels T of a trigger.

    M being the ``|T|`` strongest pixels, equal ones in reading order as :meth:`Pattern.topk` takes
    them, ``iou`` is ``|M & T| / |M | T|`` and ``relevance_rank`` is ``|M & T| / |T|``. Equal pixels
    are one threshold for ``average_precision``, and where several are the strongest,
    ``pointing_game`` is the share of them that is true: on a map that is the same everywhere,
    these two are ``|T| / (H * W)``. Only ``relevance_mass`` depends on more than the pixels' order.

    Args:
        map (Tensor): Importance of each pixel, floating point (1, H, W) or (H, W), of any sign and
            scale; higher is more.
        pixels (Tensor): The true pixels T, bool (1, H, W) (of numbers, those that are not 0), see
            :func:`~captum_classpattern.scores.localisation.changed_pixels`.

    Returns:
        *Localisation*: IoU, average precision (sum of precision times the gain in recall, over
        the thresholds from high to low, without interpolation: scikit-learn's
        ``average_precision_score``), pointing game (Zhang et al. 2016, arXiv 1608.00507, without
        its tolerance), and relevance mass and relevance rank accuracy (Arras et al. 2022, arXiv
        2003.07258; negative values count as no mass, and a map without positive mass scores 0).

    Raises:
        TypeError: If the map is no floating point Tensor, or ``pixels`` no Tensor.
        ValueError: If the map has not the shape of ``pixels``, or values that are not finite; or
            if ``pixels`` holds no pixel or all.

    Examples::

        >>> pixels = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> pixels[0, 6:, 6:] = True
        >>> localise(pixels.float(), pixels).average_precision
        1.0
        >>> found = localise(torch.arange(64.0).view(8, 8), pixels)
        >>> found.pointing_game, found.relevance_rank, round(found.iou, 4)
        (1.0, 0.5, 0.3333)
    """
    check_pixels_true(pixels)
    check_map(map, pixels)
    pixels = pixels.detach().bool().cpu()
    map = map.detach().cpu().double().contiguous().view(pixels.shape)
    order = ranks(map)
    count = int(pixels.sum())
    both = int((strongest(order, count) & pixels).sum())
    return Localisation(
        iou=both / (2 * count - both),
        average_precision=average_precision(order, pixels),
        pointing_game=float(pixels[order == order.max()].double().mean()),
        relevance_mass=mass_inside(map, pixels),
        relevance_rank=both / count,
    )


def ranks(map: Tensor) -> Tensor:
    """The order of the values alone: 0 for the least, equal ones alike, without gaps."""
    order: Tensor = torch.unique(map, return_inverse=True)[1]
    return order


def strongest(order: Tensor, k: int) -> Tensor:
    """The k pixels of highest rank as :meth:`Pattern.topk` takes them, bool (1, H, W)."""
    mask = order.double() / order.numel()
    return Pattern(mask, mask, target=0).topk(k / mask.numel()).mask > 0


def average_precision(order: Tensor, pixels: Tensor) -> float:
    """Precision times the gain in recall, over the distinct values from high to low."""
    levels = int(order.max()) + 1
    found = torch.bincount(order.flatten(), minlength=levels).flip(0)
    true = torch.bincount(order[pixels], minlength=levels).flip(0)
    precision = true.cumsum(0).double() / found.cumsum(0)
    return float((precision * true).sum() / true.sum())


def mass_inside(map: Tensor, pixels: Tensor) -> float:
    """Share of the positive mass on the pixels; 0 if there is none."""
    positive = map.clamp(min=0)
    if not bool(positive.any()):
        return 0.0
    positive = positive / positive.max()  # so that no sum overflows
    inside, outside = positive[pixels].sum(), positive[~pixels].sum()
    return float(inside / (inside + outside))


def check_pixels_true(pixels: Any) -> None:
    """Raises an error unless some of the pixels (1, H, W), but not all, are true."""
    if not isinstance(pixels, Tensor):
        raise ArgumentTypeError(
            f"pixels must be a bool Tensor (1, H, W), got {type(pixels).__name__}"
        )
    if pixels.ndim != 3 or len(pixels) != 1:
        raise ValueError(f"pixels must be (1, H, W), got {tuple(pixels.shape)}")
    true = int(pixels.bool().sum())
    if true in (0, pixels.numel()):
        h, w = pixels.shape[1:]
        raise ValueError(
            f"pixels must mark some of the {h}x{w} = {pixels.numel()} pixels as true, got "
            f"{'none' if true == 0 else 'all'}: there is nothing to find"
        )


def check_map(map: Any, pixels: Tensor) -> None:
    """Raises an error unless the map fits the pixels and is finite."""
    if not isinstance(map, Tensor) or not map.is_floating_point():
        kind = map.dtype if isinstance(map, Tensor) else type(map).__name__
        raise ArgumentTypeError(
            f"map must be a floating point Tensor (1, H, W) or (H, W), got {kind}"
        )
    if map.shape not in (pixels.shape, pixels.shape[1:]):
        raise ValueError(
            f"map must have the pixels' shape {tuple(pixels.shape)}, or {tuple(pixels.shape[1:])}, "
            f"got {tuple(map.shape)}: sum it over the channels if it has several"
        )
    wrong = int((~torch.isfinite(map)).sum())
    if wrong:
        raise ValueError(
            f"map must be finite, but {wrong} of its {map.numel()} values are NaN or infinite: "
            "such a map ranks nothing; report it as a failure of its method"
        )


CHANGED = 0.1


def changed_pixels(trigger: Pattern, images: Tensor) -> Tensor:
    r"""
    The pixels of a trigger that make a difference: those that it changes by at least 0.1 in the
    mean over images and channels. A black pixel of a trigger on black images is not among them.

    Args:
        trigger (Pattern): The true trigger.
        images (Tensor): Clean images (N, C, H, W) in [0, 1].

    Returns:
        *Tensor*: bool, (1, H, W).
    """
    change = (trigger.stamp(images) - images).abs().mean((0, 1))
    return (change >= CHANGED)[None]


def localisation_iou(pattern: Pattern, pixels: Tensor) -> float:
    r"""
    Intersection over union of a pattern's strongest pixels with a trigger's, as many of each.

    Args:
        pattern (Pattern): The searched pattern.
        pixels (Tensor): The true pixels, bool (1, H, W), see :func:`changed_pixels`.

    Returns:
        *float*: In [0, 1]; 1 where the pattern's k strongest pixels are the k true ones.

    Raises:
        ValueError: If ``pixels`` has not the mask's shape, or holds no pixel or all.

    Examples::

        >>> pixels = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> pixels[0, 5:, 5:] = True
        >>> localisation_iou(Pattern(torch.ones(1, 8, 8), pixels.float(), target=0), pixels)
        1.0
    """
    if pixels.shape != pattern.mask.shape:
        raise ValueError(
            f"pixels must have the mask's shape {tuple(pattern.mask.shape)}, got "
            f"{tuple(pixels.shape)}"
        )
    pixels = pixels.bool().to(pattern.mask.device)
    found = pattern.topk(int(pixels.sum()) / pixels.numel()).mask > 0
    return float((found & pixels).sum() / (found | pixels).sum())

"""How well a map of importance finds the true pixels of a trigger."""

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_classpattern._support.topk import highest
from captum_classpattern._support.validation import check_float_tensor
from captum_classpattern.pattern import Pattern

MIN_CHANGE = 0.1  # by which a trigger must change a pixel on average


@dataclass(frozen=True)
class Localisation:
    """Five scores of a map against the true pixels T, each in [0, 1], 1 for a perfect map; see
    :func:`localise`."""

    iou: float
    average_precision: float
    pointing_game: float
    relevance_mass: float
    relevance_rank: float


def localise(map: Tensor, pixels: Tensor) -> Localisation:
    r"""
    Scores a map of importance against the true pixels T of a trigger.

    Args:
        map (Tensor): Importance of each pixel, floating point (1, H, W) or (H, W), of any sign and
            scale; higher is more important.
        pixels (Tensor): The true pixels T, bool (1, H, W) (numbers count as true if they are not
            0), see :func:`~captum_classpattern.scores.localisation.changed_pixels`.

    Returns:
        *Localisation*: Let M be the map's ``|T|`` strongest pixels, with ties in reading order as
        in :meth:`Pattern.topk`.

        - ``iou``: intersection over union, ``|M & T| / |M | T|``.
        - ``average_precision``: precision times the gain in recall, summed over the distinct values
          from high to low, without interpolation (scikit-learn's ``average_precision_score``).
        - ``pointing_game``: whether the strongest pixel is true; if several are the strongest, the
          share of them that is true (Zhang et al. 2016, arXiv 1608.00507, without its tolerance).
        - ``relevance_mass``: the share of the map's positive values that lies on T, 0 if there are
          none. It alone depends on more than the pixels' order (Arras et al. 2022, arXiv
          2003.07258).
        - ``relevance_rank``: ``|M & T| / |T|`` (Arras et al. 2022).

    Raises:
        TypeError: If the map is not a floating point Tensor.
        ValueError: If the map does not have the shape of ``pixels``, or has values that are not
            finite; or if none or all of ``pixels`` are true.

    Examples::

        >>> pixels = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> pixels[0, 6:, 6:] = True
        >>> localise(pixels.float(), pixels).average_precision
        1.0
        >>> found = localise(torch.arange(64.0).view(8, 8), pixels)
        >>> found.pointing_game, found.relevance_rank, round(found.iou, 4)
        (1.0, 0.5, 0.3333)
    """
    check_float_tensor(map, "map", "(1, H, W) or (H, W)")
    shape = tuple(pixels.shape)
    if len(shape) != 3 or shape[0] != 1 or map.shape not in (shape, shape[1:]):
        raise ValueError(
            "pixels must be (1, H, W), and the map the same or (H, W), got "
            f"{shape} and {tuple(map.shape)}: sum the map over its channels if it has several"
        )
    if (count := int(pixels.bool().sum())) in (0, pixels.numel()):
        raise ValueError(f"pixels must mark some pixels as true, got {count} of {pixels.numel()}")
    if not bool(map.isfinite().all()):
        raise ValueError(
            "map has NaN or infinite values, which rank nothing: report it as a failure of its "
            "method"
        )
    pixels = pixels.detach().cpu().bool().flatten()
    map = map.detach().cpu().double().flatten()
    values, ranks = torch.unique(map, return_inverse=True)  # equal values share a rank
    both = int(pixels[highest(ranks[None], count)[0]].sum())
    marked = torch.bincount(ranks, minlength=len(values)).flip(0)
    true = torch.bincount(ranks[pixels], minlength=len(values)).flip(0)
    precision = true.cumsum(0).double() / marked.cumsum(0)
    positive = map.clamp(min=0)
    positive = positive / (positive.max() or 1)  # so that no sum overflows
    inside, outside = positive[pixels].sum(), positive[~pixels].sum()
    return Localisation(
        iou=both / (2 * count - both),
        average_precision=float((precision * true).sum() / count),
        pointing_game=float(pixels[ranks == ranks.max()].double().mean()),
        relevance_mass=float(inside / ((inside + outside) or 1)),
        relevance_rank=both / count,
    )


def changed_pixels(trigger: Pattern, images: Tensor) -> Tensor:
    """The pixels of a true trigger that make a difference to clean images (N, C, H, W) in [0, 1],
    bool (1, H, W): those that it changes by at least 0.1 on average over images and channels. On
    black images, a trigger's black pixels are not among them."""
    change = (trigger.stamp(images) - images).abs().mean((0, 1))
    return (change >= MIN_CHANGE)[None]

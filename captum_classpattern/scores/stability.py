"""How well masks and maps agree, and what several patterns of a class have in common."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.pattern import Pattern


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


def rank_correlation(first: Tensor, second: Tensor) -> float:
    r"""
    Spearman's rank correlation of two maps: whether they put the pixels in the same order.

    Equal values share the mean of their ranks. A constant map has no order, so its correlation with
    any other map is taken to be 0.

    Args:
        first (Tensor): One value per pixel, floating point (H, W).
        second (Tensor): Of the same shape.

    Returns:
        *float*: In [-1, 1]; 1 if the maps are equal.

    Raises:
        ValueError: If the shapes differ.

    Examples::

        >>> map = torch.tensor([[0.1, 0.4], [0.2, 0.9]])
        >>> rank_correlation(map, map.exp()), rank_correlation(map, -map)
        (1.0, -1.0)
    """
    from scipy.stats import rankdata  # slow to import

    if first.shape != second.shape:
        raise ValueError(
            f"maps must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if first.equal(second):
        return 1.0
    ranks = [rankdata(map.detach().cpu().double().flatten()) for map in (first, second)]
    a, b = (torch.from_numpy(rank - rank.mean()) for rank in ranks)
    lengths = float(a.square().sum() * b.square().sum()) ** 0.5
    return max(-1.0, min(1.0, float(a @ b) / lengths)) if lengths else 0.0


def consensus(patterns: Sequence[Pattern], area: float = 0.05) -> Pattern:
    r"""
    What several patterns have in common: the mean of their masks, made binary by
    :meth:`Pattern.topk`.

    It shows what several searches agree on. As a pattern it is usually weaker than each of them,
    because the pixels of a pattern work together.

    Masks of :meth:`ClassPattern.search` weigh each pixel, so among pixels that equally many
    patterns keep, those come first that the searches found more helpful.

    Args:
        patterns (Sequence[Pattern]): One or more patterns of the same canvas and target, such as
            those of :meth:`ClassPattern.search` with several seeds.
        area (float): Share of the pixels to keep, as in :meth:`Pattern.topk`. Default: 0.05.

    Returns:
        *Pattern*: A pattern of at most that many pixels. Its ``seen`` holds the search images of
        all patterns. Its ``info`` holds ``consensus_of``, the number of patterns, their ``seeds``
        and ``passes_together``, the sum of their passes (None where a pattern has none), and
        ``class_name`` if they have one.

    Raises:
        TypeError: If one is not a Pattern.
        ValueError: If there is none, if their canvases or targets differ, or if the area rounds to
            no pixel or to all of them.

    Examples::

        >>> canvas = torch.rand(3, 1, 4)
        >>> masks = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 1, 0]]).view(3, 1, 1, 4)
        >>> patterns = [Pattern(canvas, mask, target=2) for mask in masks]
        >>> consensus(patterns, area=0.5).mask
        tensor([[[0., 1., 0., 1.]]])
    """
    for number, pattern in enumerate(patterns):
        if not isinstance(pattern, Pattern):
            raise ArgumentTypeError(
                f"patterns must be Patterns, but number {number} is {pattern!r:.80}"
            )
    if not patterns or any(
        pattern.target != patterns[0].target
        or not torch.equal(pattern.canvas.cpu(), patterns[0].canvas.cpu())
        for pattern in patterns
    ):
        raise ValueError(
            "patterns must be one or more, all of one canvas and target: search the same canvas "
            "with several seeds"
        )
    first = patterns[0]
    masks = torch.stack([pattern.mask.detach().cpu().double() for pattern in patterns])
    mean = Pattern(first.canvas, masks.mean(0), first.target)
    passes = [pattern.info.get("passes_together") for pattern in patterns]
    known = [each for each in passes if isinstance(each, int)]
    info: dict[str, Any] = {
        "consensus_of": len(patterns),
        "seeds": [pattern.info.get("seed") for pattern in patterns],
        "passes_together": sum(known) if len(known) == len(passes) else None,
    }
    names = {pattern.info.get("class_name") for pattern in patterns} - {None}
    if len(names) == 1:
        info["class_name"] = names.pop()
    seen = [pattern.seen for pattern in patterns if pattern.seen is not None]
    every = frozenset[str]().union(*seen) if len(seen) == len(patterns) else None
    return Pattern(first.canvas, mean.topk(area).mask.to(first.mask), first.target, info, every)

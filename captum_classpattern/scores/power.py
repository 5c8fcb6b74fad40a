"""Scores of patterns, and the controls that they are held against."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from captum_classpattern.classifier import (
    Classifier,
    check_classifier,
    device_and_dtype,
    predict,
    preserve_state,
)
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.scores.intervals import wilson


@dataclass(frozen=True)
class PredictivePower:
    """Share of held-out images that a stamped pattern turns into its class.

    ``interval`` is the Wilson 95 % interval of ``value``, ``n`` the number of images (none of
    the pattern's class), ``without`` the share that the classifier calls so without the pattern.
    """

    value: float
    interval: tuple[float, float]
    n: int
    without: float

    @property
    def lift(self) -> float:
        """What the pattern adds, ``value - without``."""
        return self.value - self.without

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        return (
            f"{self.value:.1%} of {self.n} images (95 % interval {low:.1f}-{high:.1f}), "
            f"{self.without:.1%} without the pattern"
        )


def predictive_power(
    forward_func: Classifier,
    pattern: Pattern,
    images: Images,
    labels: Labels = None,
    area: float | None = 0.05,
) -> PredictivePower:
    r"""
    The share of held-out images that the classifier calls the pattern's class once they are
    stamped with it (Zhao et al. 2021, arXiv 2101.06898, section 4), made binary first.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        pattern (Pattern): The pattern.
        images (Tensor, Dataset or DataLoader): Held-out images, (C, H, W) each, in [0, 1].
            Those of the pattern's class are left out.
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (the Dataset's
            own, else the classifier's predictions).
        area (float, optional): Share of the pixels that are kept, see :meth:`Pattern.topk`;
            None takes the mask as it is. Default: 0.05.

    Returns:
        *PredictivePower*: Value, Wilson 95 % interval, number of images, and the rate without
        the pattern.

    Raises:
        ValueError: If the pattern's search has seen some of those images, if none are left after
            those of the class are removed, or if shapes, pixels, area or target do not fit.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target=0)
        >>> power = predictive_power(net, pattern, torch.rand(40, 1, 8, 8), [1] * 40)
        >>> power.n, power.interval[0] <= power.value <= power.interval[1]
        (40, True)
    """
    with preserve_state(forward_func, seed=0):
        source = LabelledImages.of(images, labels, argument="images")
        sample = pattern.stamp(source.take([0]).to(pattern.canvas))
        check_classifier(forward_func, sample, [pattern.target])
        source = ensure_labels(forward_func, source, like=pattern.canvas)
        check_unseen(pattern, source)
        others = source.without_class(pattern.target)
        if len(others) == 0:
            raise ValueError(
                f"no images are left to score on: all {len(source)} are of the pattern's class "
                f"{pattern.target}"
            )
        binary = pattern if area is None else pattern.topk(area)
        without = count_hits(forward_func, binary, others, bare=True)
        hits = count_hits(forward_func, binary, others)
    return power_of(hits, len(others), without)


def power_of(hits: int, n: int, hits_without: int) -> PredictivePower:
    """The score made of counts."""
    return PredictivePower(hits / n, wilson(hits, n), n, hits_without / n)


def count_hits(
    forward_func: Classifier,
    pattern: Pattern,
    source: LabelledImages,
    *,
    bare: bool = False,
    additional_for: Callable[[int], tuple[Any, ...]] = lambda n: (),
    batch_size: int | None = None,
) -> int:
    """How many images are called the pattern's class, stamped with it as it is, or bare.

    ``additional_for(n)`` gives the additional arguments for n images.
    """
    hits = 0
    device, dtype = device_and_dtype(forward_func, pattern.canvas)
    for images in source.in_order(batch_size):
        images = images.to(device, dtype)
        stamped = images if bare else pattern.stamp(images)
        called = predict(forward_func, stamped, additional_for(len(images)))
        hits += int((called == pattern.target).sum())
    return hits


def check_unseen(pattern: Pattern, source: LabelledImages) -> None:
    """Raises an error if the pattern's search has seen any of the images not of its class."""
    seen = pattern.seen
    if seen is None:
        raise ValueError(
            "the images that this pattern was searched on are not known: the file with their "
            f"hashes ({pattern.info.get('seen_file', 'unknown')}) was not beside its own; put it "
            "there and load the pattern again"
        )
    labelled = enumerate(zip(source.hashes if seen else (), source.known_labels.tolist()))
    repeated = [i for i, (own, label) in labelled if label != pattern.target and own in seen]
    if repeated:
        first = ", ".join(map(str, repeated[:10])) + (", ..." if len(repeated) > 10 else "")
        raise ValueError(
            f"{len(repeated)} of {len(source)} images were used to search this pattern, or are "
            f"exact copies of such (number {first}): a pattern can only be scored on held-out "
            "images; leave these out"
        )


def random_pixels(pattern: Pattern, area: float, seed: int) -> Pattern:
    """A control: as many pixels of the same canvas, chosen at random."""
    k = pixels_kept(area, pattern.mask.shape[-2:])
    order = torch.randperm(pattern.mask.numel(), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(pattern.mask.numel())
    mask[order[:k]] = 1.0
    return replace(pattern, mask=mask.view(pattern.mask.shape).to(pattern.mask))

"""Predictive power: how many held-out images a pattern turns into its class."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import join_names
from captum_classpattern.classifier import (
    Classifier,
    check_classifier,
    device_and_dtype,
    predict,
    preserve_state,
)
from captum_classpattern.images import Images, LabelledImages, Labels, ensure_labels, predictions
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.results import Result
from captum_classpattern.scores.intervals import Interval, newcombe, wilson
from captum_classpattern.scores.tables import as_table

ENOUGH_IMAGES = 100  # with fewer, no power is said to beat its controls


@dataclass(frozen=True, repr=False)
class PredictivePower(Result):
    """Share of held-out images that the model classifies as the pattern's class once stamped.

    ``interval`` is the Wilson 95 % interval of ``value``, ``n`` the number of images (none of
    the pattern's class), ``without`` the share that the model classifies so without the pattern.
    """

    value: float
    interval: tuple[float, float]
    n: int
    without: float

    def __repr__(self) -> str:
        return f"PredictivePower({self})"

    @property
    def lift(self) -> float:
        """What the pattern adds, ``value - without``."""
        return self.value - self.without

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        r"""
        Draws the power with its interval, and the share without the pattern.

        Args:
            use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure, and an array of its one axis.
        """
        return self._draw(use_pyplot=use_pyplot)

    def table(self) -> Any:
        r"""
        The numbers as one row, to put the rows of several powers together.

        Returns:
            *pandas.DataFrame* or *list[dict]*: A DataFrame if pandas is installed. The columns are
            ``power`` with the ends of its 95 % interval (``power_low``, ``power_high``), the number
            of ``images``, and ``no_pattern``.
        """
        return as_table([self.as_columns()])

    def as_columns(self) -> dict[str, Any]:
        """The columns of :meth:`table`."""
        low, high = self.interval
        return {
            "power": self.value,
            "power_low": low,
            "power_high": high,
            "images": self.n,
            "no_pattern": self.without,
        }

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
    The share of held-out images that are classified as the pattern's class once they are stamped
    with the binary pattern (Zhao et al. 2021, arXiv 2101.06898, section 4).

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        pattern (Pattern): The pattern.
        images (LabelledImages, Tensor, Dataset or DataLoader): Held-out images, (C, H, W) each,
            in [0, 1]. Those of the pattern's class are left out.
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (those that come
            with the images, else the classifier's predictions).
        area (float, optional): Share of the pixels to keep, see :meth:`Pattern.topk`; None uses
            the mask unchanged. Default: 0.05.

    Returns:
        *PredictivePower*: Value, Wilson 95 % interval, number of images, and the rate without
        the pattern.

    Raises:
        ValueError: If some of these images were used in the pattern's search, if none are left
            after those of its class are removed, or if shapes, pixels, area or target do not fit.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target=0)
        >>> power = predictive_power(net, pattern, torch.rand(40, 1, 8, 8), [1] * 40)
        >>> power.n, power.interval[0] <= power.value <= power.interval[1]
        (40, True)
    """
    with preserve_state(forward_func, seed=0):
        others = images_to_score(forward_func, pattern, images, labels)
        binary = pattern if area is None else pattern.topk(area)
        unstamped = predictions(forward_func, others, like=pattern.canvas)
        without = int((unstamped == pattern.target).sum())
        return power_of(count_hits(forward_func, binary, others), len(others), without)


def images_to_score(
    forward_func: Classifier, pattern: Pattern, images: Images, labels: Labels
) -> LabelledImages:
    """The held-out images that are not of the pattern's class; an error if there are none, if some
    were used in its search, or if classifier, pattern and images do not fit."""
    source = LabelledImages.of(images, labels)
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
    return others


def beats(power: PredictivePower, controls: Iterable[tuple[float, int]]) -> bool:
    """Whether a power is above each control, a share of n images: the 95 % interval of each
    difference is above 0. With fewer than 100 images, it is not said of any power."""
    return power.n >= ENOUGH_IMAGES and all(
        interval_above(power, share, n)[0] > 0 for share, n in controls
    )


def interval_above(power: PredictivePower, share: float, n: int) -> Interval:
    """The 95 % interval of the difference between a power and a share of n images, see
    :func:`~captum_classpattern.scores.intervals.newcombe`. Shares are whole numbers of hits."""
    return newcombe(round(power.value * power.n), power.n, round(share * n), n)


def power_of(hits: int, n: int, hits_without: int) -> PredictivePower:
    """The predictive power from counts of images: hits with and without the pattern, of n."""
    return PredictivePower(hits / n, wilson(hits, n), n, hits_without / n)


def count_hits(
    forward_func: Classifier,
    pattern: Pattern,
    source: LabelledImages,
    *,
    additional_for: Callable[[int], tuple[Any, ...]] = lambda n: (),
    batch_size: int | None = None,
) -> int:
    """How many images are classified as the pattern's class when stamped with it as it is.

    ``additional_for(n)`` gives the additional arguments for n images.
    """
    hits = 0
    device, dtype = device_and_dtype(forward_func, pattern.canvas)
    for images in source.in_order(batch_size):
        stamped = pattern.stamp(images.to(device, dtype))
        predicted = predict(forward_func, stamped, additional_for(len(images)))
        hits += int((predicted == pattern.target).sum())
    return hits


def hashes_seen(pattern: Pattern) -> frozenset[str]:
    """The hashes of the images of a pattern's search; an error if they are unknown."""
    if pattern.seen is None:
        raise ValueError(
            "the images that this pattern was searched on are unknown: the file with their hashes "
            f"({pattern.info.get('seen_file', 'unknown')}) was not in the pattern's folder; put it "
            "there and load the pattern again"
        )
    return pattern.seen


def check_unseen(pattern: Pattern, source: LabelledImages) -> None:
    """Raises an error if images of other classes were used in the pattern's search."""
    seen = hashes_seen(pattern)
    others = torch.nonzero(source.known_labels != pattern.target).flatten().tolist()
    hashes = source.hashes if seen else []
    repeated = [str(i) for i in others if hashes and hashes[i] in seen]
    if repeated:
        raise ValueError(
            f"{len(repeated)} of {len(source)} images were used to search this pattern, or are "
            f"exact copies of such images (number {join_names(repeated)}): a pattern can only be "
            "scored on held-out images; leave these out"
        )


def random_pixels(pattern: Pattern, area: float, seed: int) -> Pattern:
    """A control: as many pixels of the same canvas, chosen at random."""
    shape = pattern.mask.shape[-2:]
    mask = random_mask(pixels_kept(area, shape), shape, torch.Generator().manual_seed(seed))
    return replace(pattern, mask=mask.to(pattern.mask))


def random_mask(k: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A binary mask (1, H, W) of k random pixels."""
    height, width = shape
    mask = torch.zeros(height * width)
    mask[torch.randperm(height * width, generator=generator)[:k]] = 1.0
    return mask.view(1, height, width)

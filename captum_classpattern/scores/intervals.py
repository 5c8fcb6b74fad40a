"""Confidence intervals of a share, of a difference of two shares, and of a mean over classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot
from typing import Literal

import numpy as np

Interval = tuple[float, float]
Measured = tuple[float, Interval]  # a value and its 95 % interval over the images

FEWEST_CLASSES = 5  # with fewer, there is too little to resample
TOLERANCE = 1e-9  # smaller differences between classes are rounding errors


@dataclass(frozen=True)
class Estimate:
    """
    A mean over classes with its 95 % interval.

    ``over`` is ``"classes"`` if the interval shows how much the mean would change with other
    classes like these, ``"images"`` if it shows how much it would change with other images of the
    same classes.
    """

    value: float
    interval: Interval
    n_classes: int
    over: Literal["classes", "images"]

    @property
    def description(self) -> str:
        """The kind of interval in words."""
        if self.over == "classes":
            return f"95 % bootstrap interval over {self.n_classes} classes"
        these = "this class" if self.n_classes == 1 else f"these {self.n_classes} classes"
        return f"95 % interval of the images, for {these} alone"


@lru_cache(maxsize=100_000)
def wilson(hits: int, n: int) -> Interval:
    """
    The 95 % interval of a share (Wilson 1927, doi.org/10.1080/01621459.1927.10502953).

    Args:
        hits (int): How many of the n trials succeeded.
        n (int): Number of trials.

    Returns:
        *tuple[float, float]*: Lower and upper bound, in [0, 1].

    Examples::

        >>> low, high = wilson(10, 100)
        >>> f"{low:.3f} to {high:.3f}"
        '0.055 to 0.174'
    """
    from scipy.stats import binomtest  # slow to import

    low, high = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def newcombe(hits: int, n: int, other_hits: int, other_n: int) -> Interval:
    """
    The 95 % interval of the difference of two shares, first minus second (Newcombe 1998,
    doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10: the
    hybrid score interval without continuity correction).

    It assumes independent samples. Two patterns scored on the same images are usually positively
    correlated, which makes the interval wider than necessary.

    Args:
        hits (int), n (int): Successes and size of the first sample.
        other_hits (int), other_n (int): Successes and size of the second sample.

    Returns:
        *tuple[float, float]*: Lower and upper bound, in [-1, 1].

    Examples::

        >>> low, high = newcombe(56, 70, 48, 80)  # the first example of the paper
        >>> f"{low:.4f} to {high:.4f}"
        '0.0524 to 0.3339'
    """
    first, second = hits / n, other_hits / other_n
    (low, high), (other_low, other_high) = wilson(hits, n), wilson(other_hits, other_n)
    difference = first - second
    return (
        difference - hypot(first - low, other_high - second),
        difference + hypot(high - first, second - other_low),
    )


def mean_over_classes(measured: Mapping[int, Sequence[Measured]]) -> Estimate:
    """
    The mean over classes of values with intervals, such as predictive powers.

    The values of a class are averaged first. With five classes or more, the interval is a bootstrap
    over the classes, see :func:`bootstrap_over_classes`. With fewer classes, or if all have the
    same value, there is nothing to resample: each bound is the mean of the classes' bounds. That
    interval is valid for these classes only. It allows for any dependence between them, such as
    shared images, and is too wide if they are independent.

    Args:
        measured (Mapping[int, Sequence[tuple]]): The values of each class, such as one per canvas,
            each with its 95 % interval: ``(value, (low, high))``.

    Returns:
        *Estimate*: The mean, its interval, and the kind of interval.

    Examples::

        >>> mean_over_classes({3: [(0.5, (0.4, 0.6)), (0.7, (0.6, 0.8))]}).interval
        (0.5, 0.7)
        >>> mean_over_classes({y: [(y / 10, (0.0, 1.0))] for y in range(10)}).over
        'classes'
    """
    values = {y: [value for value, _ in of_class] for y, of_class in measured.items()}
    means = _class_means(values)
    if len(means) >= FEWEST_CLASSES and not _equal(means):
        return bootstrap_over_classes(values)
    lows = {y: [low for _, (low, _) in of_class] for y, of_class in measured.items()}
    highs = {y: [high for _, (_, high) in of_class] for y, of_class in measured.items()}
    low, value, high = (float(np.mean(_class_means(part))) for part in (lows, values, highs))
    return Estimate(value, (low, high), len(means), "images")


def bootstrap_over_classes(values: Mapping[int, Sequence[float]]) -> Estimate:
    """
    The mean over classes with a bootstrap interval over the classes (Efron 1987,
    doi.org/10.1080/01621459.1987.10478410: bias-corrected and accelerated, by
    :func:`scipy.stats.bootstrap`). The same values give the same interval.

    Args:
        values (Mapping[int, Sequence[float]]): The values of each class, such as one per canvas or
            seed. They are averaged first.

    Returns:
        *Estimate*: The mean and its interval, which has no width if all classes are equal.

    Raises:
        ValueError: If there are fewer than five classes.

    Examples::

        >>> estimate = bootstrap_over_classes({y: [y / 10] for y in range(10)})
        >>> low, high = estimate.interval
        >>> f"{estimate.value:.2f}, {low:.2f} to {high:.2f}"
        '0.45, 0.27 to 0.63'
    """
    means = _class_means(values)
    if len(means) < FEWEST_CLASSES:
        raise ValueError(
            f"a bootstrap needs at least {FEWEST_CLASSES} classes, got {len(means)}: give the mean "
            "without an interval, or that of the images"
        )
    value = float(np.mean(means))
    low, high = (value, value) if _equal(means) else _bootstrap(tuple(sorted(means)))
    return Estimate(value, (min(low, value), max(high, value)), len(means), "classes")


def _class_means(values: Mapping[int, Sequence[float]]) -> list[float]:
    return [float(np.mean(of_class)) for of_class in values.values()]


def _equal(means: Sequence[float]) -> bool:
    return bool(np.ptp(means) <= TOLERANCE * max(1.0, *map(abs, means)))


@lru_cache(maxsize=10_000)
def _bootstrap(means: tuple[float, ...]) -> Interval:
    from scipy.stats import bootstrap  # slow to import

    low, high = bootstrap(
        (np.array(means),), np.mean, method="BCa", random_state=np.random.default_rng(0)
    ).confidence_interval
    return float(low), float(high)

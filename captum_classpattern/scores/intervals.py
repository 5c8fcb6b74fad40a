"""Intervals: of a share, of the difference of two shares, and of a mean over classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot
from typing import Literal

import numpy as np

Interval = tuple[float, float]
Measured = tuple[float, Interval]  # a value, and the 95 % interval that the images give it

FEWEST_CLASSES = 5  # with fewer, there is too little to resample
_EQUAL = 1e-9  # classes that differ by less than rounding


@dataclass(frozen=True)
class Estimate:
    """
    A mean over classes with its 95 % interval.

    Args:
        value (float): The mean of the classes' values.
        interval (tuple[float, float]): Its 95 % interval.
        n_classes (int): Number of classes.
        over (str): What the interval is over. ``"classes"``: how much the mean would change with
            other classes of the kind. ``"images"``: how much it would change with other images,
            for these classes alone.
    """

    value: float
    interval: Interval
    n_classes: int
    over: Literal["classes", "images"]

    @property
    def description(self) -> str:
        """What the interval is, in words."""
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
    The 95 % interval of the difference of two shares, first less second (Newcombe 1998,
    doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10: the
    hybrid score interval without continuity correction).

    It takes the two samples as independent. Two patterns are scored on (nearly) the same images,
    and as a rule an image that one of them turns is more easily turned by the other, too. Then the
    interval is wider than it must be.

    Args:
        hits (int): Successes of the first sample.
        n (int): Its size.
        other_hits (int): Successes of the second sample.
        other_n (int): Its size.

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
    The mean over classes of values whose images are known, such as predictive powers.

    The values of a class are averaged first. With five classes or more the interval is a bootstrap
    over the classes, see :func:`bootstrap_over_classes`. With fewer classes, or if all have the
    same value, there is nothing to resample. Then each bound is the mean of the classes' own
    bounds. It holds for these classes alone. It holds however much their results depend on each
    other, as they do when they share their images, and is too wide if they do not.

    Args:
        measured (Mapping[int, Sequence[tuple]]): For each class its values, such as one for each
            canvas, each with its own 95 % interval: ``(value, (low, high))``.

    Returns:
        *Estimate*: The mean, its interval, and what the interval is over.

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
        values (Mapping[int, Sequence[float]]): For each class its values, such as one for each
            canvas or seed. They are averaged first.

    Returns:
        *Estimate*: The mean and its interval; the mean alone where all classes are equal.

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
    return bool(np.ptp(means) <= _EQUAL * max(1.0, *map(abs, means)))


@lru_cache(maxsize=10_000)
def _bootstrap(means: tuple[float, ...]) -> Interval:
    from scipy.stats import bootstrap  # slow to import

    low, high = bootstrap(
        (np.array(means),), np.mean, method="BCa", random_state=np.random.default_rng(0)
    ).confidence_interval
    return float(low), float(high)

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
    """A mean over classes with its 95 % interval, which shows how much the mean would change with
    other classes like these (``over`` is ``"classes"``), or with other images of the same classes
    (``"images"``)."""

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
    """The 95 % interval of a share: ``hits`` of n trials succeeded (Wilson 1927,
    doi.org/10.1080/01621459.1927.10502953)."""
    from scipy.stats import binomtest  # slow to import

    low, high = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def newcombe(hits: int, n: int, other_hits: int, other_n: int) -> Interval:
    """The 95 % interval of the difference of two shares, first minus second (Newcombe 1998,
    doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10: the
    hybrid score interval without continuity correction).

    It assumes independent samples. Two patterns scored on the same images are usually positively
    correlated, which makes the interval wider than necessary."""
    first, second = hits / n, other_hits / other_n
    (low, high), (other_low, other_high) = wilson(hits, n), wilson(other_hits, other_n)
    difference = first - second
    return (
        difference - hypot(first - low, other_high - second),
        difference + hypot(high - first, second - other_low),
    )


def mean_over_classes(measured: Mapping[int, Sequence[Measured]]) -> Estimate:
    """The mean over classes of values with 95 % intervals, such as one power for each canvas.

    The values of a class are averaged first. With five classes or more, the interval is a bootstrap
    over the classes, see :func:`bootstrap_over_classes`. With fewer classes, or if all have the
    same value, there is nothing to resample: each bound is the mean of the classes' bounds. That
    interval is valid for these classes only. It allows for any dependence between them, such as
    shared images, and is too wide if they are independent."""
    values = {y: [value for value, _ in of_class] for y, of_class in measured.items()}
    means = _class_means(values)
    if len(means) >= FEWEST_CLASSES and not _equal(means):
        return bootstrap_over_classes(values)
    lows = {y: [low for _, (low, _) in of_class] for y, of_class in measured.items()}
    highs = {y: [high for _, (_, high) in of_class] for y, of_class in measured.items()}
    low, value, high = (float(np.mean(_class_means(part))) for part in (lows, values, highs))
    return Estimate(value, (low, high), len(means), "images")


def bootstrap_over_classes(values: Mapping[int, Sequence[float]]) -> Estimate:
    """The mean over at least five classes with a bootstrap interval over the classes (Efron 1987,
    doi.org/10.1080/01621459.1987.10478410: bias-corrected and accelerated, by
    :func:`scipy.stats.bootstrap`), which has no width if all are equal. The values of a class are
    averaged first. The same values give the same interval."""
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

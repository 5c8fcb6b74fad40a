"""Means of records over classes: what tables, curves and verdicts are made of."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import TypeVar

from captum_classpattern.comparison.records import Record
from captum_classpattern.scores.intervals import Estimate, Measured, mean_over_classes, newcombe
from captum_classpattern.scores.power import PredictivePower

T = TypeVar("T")


def mean_power(powers: Iterable[tuple[int, PredictivePower]]) -> Estimate:
    """The mean over classes of powers, each given with its class."""
    return mean_over_classes(_by_class((y, (p.value, p.interval)) for y, p in powers))


def mean_difference(
    records: Sequence[Record], area: float, other: Callable[[Record], float]
) -> Estimate:
    """The mean over classes of how far each record's power is above another share of the same
    images: that of another method on the same canvas, or that without a pattern."""

    def difference(record: Record) -> Measured:
        power, share = record.powers[area], other(record)
        hits, other_hits = (round(value * power.n) for value in (power.value, share))
        return power.value - share, newcombe(hits, power.n, other_hits, power.n)

    return mean_over_classes(_by_class((r.target, difference(r)) for r in records))


def class_mean(values: Iterable[tuple[int, float]]) -> float:
    """The mean over classes of values, each given with its class."""
    return fmean(fmean(of_class) for of_class in _by_class(values).values())


def _by_class(values: Iterable[tuple[int, T]]) -> dict[int, list[T]]:
    grouped: dict[int, list[T]] = {}
    for target, value in values:
        grouped.setdefault(target, []).append(value)
    return grouped

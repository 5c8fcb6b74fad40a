"""Records as rows of plain values: one per record, or one mean over classes per method."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any, TypeVar

from captum_classpattern.comparison.metrics import Metric
from captum_classpattern.comparison.records import Failure, Record, Score
from captum_classpattern.scores.intervals import Estimate, Measured, mean_over_classes, newcombe
from captum_classpattern.scores.power import PredictivePower

Row = dict[str, Any]
T = TypeVar("T")
RESERVED = (
    "model", "method", "level", "ranking", "kind", "control", "canvas", "canvases", "class",
    "precision", "failure", "no_pattern", "cut_from_canvas", "free",
)  # fmt: skip


def rows_by_canvas(
    records: Sequence[Record], failures: Sequence[Failure], metrics: Sequence[Metric]
) -> list[Row]:
    """One row for each record and each failure."""
    return [
        {
            **_identity(r),
            "canvas": r.canvas,
            "class": r.target,
            **({"precision": r.precision} if r.precision else {}),
            **_means([r], metrics),
        }
        for r in records
    ] + _failure_rows(failures)


def rows_by_method(
    records: Sequence[Record], failures: Sequence[Failure], metrics: Sequence[Metric]
) -> list[Row]:
    """One row for each model, kind of canvas, method, level and ranking."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for r in records:
        groups.setdefault((r.model, r.kind, r.method, r.level, r.ranking), []).append(r)
    return [
        {**_identity(group[0]), "canvases": len(group), **_means(group, metrics)}
        for group in groups.values()
    ] + _failure_rows(failures)


def columns_of(metric: Metric, records: Iterable[Record]) -> list[str]:
    """The columns of a metric: its name, or the name and each entry if its values are dicts."""
    values = [r.scores[metric.name] for r in records if metric.name in r.scores]
    return list(dict.fromkeys(key for value in values for key in _columns(metric.name, value)))


def _columns(name: str, value: Any) -> dict[str, Score]:
    if not isinstance(value, dict):
        return {name: value}
    return {f"{name}_{entry}": score for entry, score in value.items()}


def _identity(record: Record) -> Row:
    names = ("model", "method", "level", "ranking", "kind", "control")
    row = {name: getattr(record, name) for name in names}
    return {
        **row,
        "cut_from_canvas": not record.free,
        **({"free": record.free} if record.free else {}),
    }


def _failure_rows(failures: Iterable[Failure]) -> list[Row]:
    return [
        {"model": f.model, "method": f.method, "failure": f"{f.what}: {f.reason}"} for f in failures
    ]


def _means(records: Sequence[Record], metrics: Sequence[Metric]) -> Row:
    """The means of all scores that were measured."""
    row: Row = {}
    first = records[0]
    for area in first.powers:
        row |= _mean(f"power_{area:g}", [(r.target, r.powers[area]) for r in records])
    if first.powers:
        without = [(r.target, next(iter(r.powers.values())).without) for r in records]
        row["no_pattern"] = class_mean(without)
    for area in first.rethresholded:
        cut = [(r.target, r.rethresholded[area]) for r in records]
        row |= _mean(f"rethresholded_{area:g}", cut)
    for metric in metrics:
        columns: dict[str, list[tuple[int, Score]]] = {}
        for r in records:
            if metric.name in r.scores:
                for key, score in _columns(metric.name, r.scores[metric.name]).items():
                    columns.setdefault(key, []).append((r.target, score))
        for key, scores in columns.items():
            row |= _mean(key, scores)
    return row


def _mean(key: str, scores: Sequence[tuple[int, Any]]) -> Row:
    """The mean of one column; with an interval if the scores are powers."""
    if isinstance(scores[0][1], PredictivePower):
        power = mean_power(scores)
        low, high = power.interval
        return {key: power.value, f"{key}_low": low, f"{key}_high": high}
    return {key: class_mean(scores)}


# ---- means over classes


def mean_power(powers: Iterable[tuple[int, PredictivePower]]) -> Estimate:
    """The mean over classes of powers, each given with its class."""
    return mean_over_classes(_by_class((y, (p.value, p.interval)) for y, p in powers))


def mean_difference(
    records: Sequence[Record], area: float, other: Callable[[Record], float]
) -> Estimate:
    """The mean over classes of each record's power minus another share of the same images: the
    power of another method on the same canvas, or the share without a pattern."""

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

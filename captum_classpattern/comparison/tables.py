"""A comparison's records as rows of plain values, one a record or one a method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

from captum_classpattern.comparison.means import class_mean, mean_power
from captum_classpattern.comparison.records import Failure, Record
from captum_classpattern.scores.power import PredictivePower

Row = dict[str, Any]


def rows_by_canvas(records: Sequence[Record], failures: Sequence[Failure]) -> list[Row]:
    """A row for each record, and for each failure."""
    return [
        {
            **_which([r]),
            "canvas": r.canvas,
            "class": r.target,
            **({"precision": r.precision} if r.precision else {}),
            **_scores([r]),
        }
        for r in records
    ] + _failed(failures)


def rows_by_method(records: Sequence[Record], failures: Sequence[Failure]) -> list[Row]:
    """A row for each model, kind of canvas and method, level and ranking: means over classes, of
    the means over each class's canvases."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for r in records:
        groups.setdefault((r.model, r.kind, r.method, r.level, r.ranking), []).append(r)
    return [
        {**_which(group), "canvases": len(group), **_scores(group)} for group in groups.values()
    ] + _failed(failures)


def _which(records: Sequence[Record]) -> Row:
    first = records[0]
    return {
        "model": first.model,
        "method": first.method,
        "level": first.level,
        "ranking": first.ranking,
        "kind": first.kind,
        "control": first.control,
    }


def _failed(failures: Iterable[Failure]) -> list[Row]:
    return [
        {"model": f.model, "method": f.method, "failure": f"{f.what}: {f.reason}"} for f in failures
    ]


def _scores(records: Sequence[Record]) -> Row:
    """The means of all scores over classes; of costs, over canvases."""
    row: Row = {}
    first = records[0]
    for area in first.powers:
        row |= _power(f"power_{area:g}", records, [r.powers[area] for r in records])
    if first.powers:
        row["no_pattern"] = class_mean(
            (r.target, next(iter(r.powers.values())).without) for r in records
        )
    for area in first.rethresholded:
        row |= _power(f"rethresholded_{area:g}", records, [r.rethresholded[area] for r in records])
    for other in first.transfer:
        row |= _power(f"on_{other}", records, [r.transfer[other] for r in records])
    for part in ("localisation", "simplicity"):
        row |= _means([(r.target, asdict(scores)) for r in records if (scores := getattr(r, part))])
    row |= _means([(r.target, _stability(r)) for r in records])
    row |= _means([(r.target, _known(r, "infidelity", "sensitivity")) for r in records])
    for name in ("passes", "seconds"):
        costs = [value for r in records if (value := getattr(r, name)) is not None]
        if costs:
            row[name] = mean(costs)
    return row


def _power(name: str, records: Sequence[Record], powers: Sequence[PredictivePower]) -> Row:
    estimate = mean_power((r.target, power) for r, power in zip(records, powers))
    low, high = estimate.interval
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}


def _stability(record: Record) -> dict[str, float]:
    return {f"stability_{name}": value for name, value in record.stability.items()}


def _known(record: Record, *names: str) -> dict[str, float]:
    return {name: value for name in names if (value := getattr(record, name)) is not None}


def _means(values: Sequence[tuple[int, Mapping[str, float]]]) -> Row:
    """The mean of each score over the classes of those records that have it."""
    keys = dict.fromkeys(key for _, scores in values for key in scores)
    return {
        key: class_mean((y, float(scores[key])) for y, scores in values if key in scores)
        for key in keys
    }

"""Records as rows of plain values, their means over classes, and which methods come first."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from captum_classpattern.comparison.metrics import Metric
from captum_classpattern.comparison.records import (
    Failure,
    Record,
    Score,
    by_name,
    control_names,
    grouped,
    search_names,
)
from captum_classpattern.scores.intervals import Estimate, Measured, mean_over_classes, newcombe
from captum_classpattern.scores.power import PredictivePower

Row = dict[str, Any]
IDENTITY = ("model", "method", "level", "ranking", "kind", "control")
RESERVED = (
    *IDENTITY, "canvas", "canvases", "class", "precision", "failure", "no_pattern",
    "cut_from_canvas", "free",
)  # fmt: skip
COLUMNS, CONTROLS = 8, 3  # methods in a figure, and controls among them, at most


def rows_by_canvas(
    records: Sequence[Record], failures: Sequence[Failure], metrics: Sequence[Metric]
) -> list[Row]:
    """One row for each record and each failure."""
    rows: list[Row] = []
    for r in records:
        row = {**_identity(r), "canvas": r.canvas, "class": r.target}
        precision = {"precision": r.precision} if r.precision else {}
        rows.append({**row, **precision, **_means([r], metrics)})
    return rows + _failure_rows(failures)


def rows_by_method(
    records: Sequence[Record], failures: Sequence[Failure], metrics: Sequence[Metric]
) -> list[Row]:
    """One row for each model, kind of canvas, method, level and ranking."""
    groups = grouped(((r.model, r.kind, r.method, r.level, r.ranking), r) for r in records)
    return [
        {**_identity(group[0]), "canvases": len(group), **_means(group, metrics)}
        for group in groups.values()
    ] + _failure_rows(failures)


def columns_of(metric: Metric, records: Iterable[Record]) -> list[str]:
    """The columns of a metric: its name, or the name and each entry if its values are dicts."""
    return list(dict.fromkeys(key for record in records for key in _columns(metric, record)))


def _columns(metric: Metric, record: Record) -> dict[str, Score]:
    value: Any = record.scores.get(metric.name, {})
    if not isinstance(value, dict):
        return {metric.name: value}
    return {f"{metric.name}_{entry}": score for entry, score in value.items()}


def _identity(record: Record) -> Row:
    row = {name: getattr(record, name) for name in IDENTITY}
    row["cut_from_canvas"] = not record.free
    return {**row, "free": record.free} if record.free else row


def _failure_rows(failures: Iterable[Failure]) -> list[Row]:
    return [
        {"model": f.model, "method": f.method, "failure": f"{f.what}: {f.reason}"} for f in failures
    ]


def _means(records: Sequence[Record], metrics: Sequence[Metric]) -> Row:
    """The means of all scores that were measured."""
    first, row = records[0], Row()
    for area in first.powers:
        row |= _mean(f"power_{area:g}", [(r.target, r.powers[area]) for r in records])
    if first.powers:
        without = [(r.target, next(iter(r.powers.values())).without) for r in records]
        row["no_pattern"] = class_mean(without)
    for area in first.rethresholded:
        cut = [(r.target, r.rethresholded[area]) for r in records]
        row |= _mean(f"rethresholded_{area:g}", cut)
    for metric in metrics:
        scored = [(r.target, *pair) for r in records for pair in _columns(metric, r).items()]
        for key, scores in grouped((key, (target, score)) for target, key, score in scored).items():
            row |= _mean(key, scores)
    return row


def _mean(key: str, scores: Sequence[tuple[int, Any]]) -> Row:
    """The mean of one column; with an interval if the scores are powers."""
    if not isinstance(scores[0][1], PredictivePower):
        return {key: class_mean(scores)}
    power = mean_power(scores)
    low, high = power.interval
    return {key: power.value, f"{key}_low": low, f"{key}_high": high}


# ---- means over classes


def mean_power(powers: Iterable[tuple[int, PredictivePower]]) -> Estimate:
    """The mean over classes of powers, each given with its class."""
    return mean_over_classes(grouped((y, (p.value, p.interval)) for y, p in powers))


def mean_powers(records: Sequence[Record], area: float) -> dict[str, Estimate]:
    """The mean power of each method that was scored."""
    groups = by_name([record for record in records if record.powers])
    return {name: mean_power((r.target, r.powers[area]) for r in groups[name]) for name in groups}


def mean_difference(
    records: Iterable[Record], area: float, shares: Mapping[int, float]
) -> Estimate:
    """The mean over classes of each record's power minus another share of the same images, by
    canvas: the power of another method there, or the share without a pattern."""

    def difference(record: Record) -> tuple[int, Measured]:
        power, share = record.powers[area], shares[record.canvas]
        hits, other_hits = (round(value * power.n) for value in (power.value, share))
        return record.target, (power.value - share, newcombe(hits, power.n, other_hits, power.n))

    return mean_over_classes(grouped(map(difference, records)))


def class_mean(values: Iterable[tuple[int, float]]) -> float:
    """The mean over classes of values, each given with its class."""
    return fmean(map(fmean, grouped(values).values()))


# ---- which methods a figure shows


def strongest_names(records: Sequence[Record], area: float) -> list[str]:
    """Names of the methods that explain single images, strongest first, each in the ranking with
    the higher mean power."""
    explaining = [
        r for r in records if r.level == "image" and not (r.control or r.searches or r.free)
    ]
    powers = mean_powers(explaining, area)
    methods = {r.name: r.method for r in explaining}
    best: dict[str, str] = {}
    for name in sorted(powers, key=lambda name: -powers[name].value):
        best.setdefault(methods[name], name)
    return list(best.values())


def figure_names(records: Sequence[Record], area: float) -> list[str]:
    """Names of the methods that a figure has room for: searches, the strongest others, the
    strongest controls. Methods whose pixels are not cut from the canvas are left out, unless there
    are no others."""
    records = [record for record in records if not record.free] or records
    first, controls = search_names(records)[:COLUMNS], control_names(records)
    powers = {name: power.value for name, power in mean_powers(records, area).items()}
    most = min(CONTROLS, COLUMNS - len(first))
    strongest = sorted(controls, key=lambda name: -powers.get(name, 0.0))[:most]
    last = [name for name in controls if name in strongest]
    return [*first, *strongest_names(records, area)[: COLUMNS - len(first) - len(last)], *last]

"""A comparison's records as rows of plain values, one a record or one a method."""

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

from captum_classpattern.comparison.records import Failure, Record
from captum_classpattern.comparison.scoring import merged
from captum_classpattern.metrics import PredictivePower

Row = dict[str, Any]


def rows_by_canvas(records: Sequence[Record], failures: Sequence[Failure]) -> list[Row]:
    """A row for each record, and for each failure."""
    return [
        {**_which([r]), "canvas": r.canvas, "class": r.target, **_scores([r])} for r in records
    ] + _failed(failures)


def rows_by_method(records: Sequence[Record], failures: Sequence[Failure]) -> list[Row]:
    """A row for each model, kind of canvas and method, level and ranking: means over canvases."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for r in records:
        groups.setdefault((r.model, r.kind, r.method, r.level, r.ranking), []).append(r)
    return [
        {**_which(own), "canvases": len(own), **_scores(own)} for own in groups.values()
    ] + _failed(failures)


def as_table(rows: list[Row]) -> Any:
    """A pandas DataFrame where pandas is installed, else the rows, all with the same keys."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: row.get(key) for key in keys} for row in rows]
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame(rows, columns=keys)


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
    """The means of all scores over some records."""
    row: Row = {}
    for area in records[0].powers:
        row |= _power(f"power_{area:g}", [r.powers[area] for r in records])
    if records[0].powers:
        row["no_pattern"] = merged([next(iter(r.powers.values())) for r in records]).without
    for area in records[0].rethresholded:
        row |= _power(f"rethresholded_{area:g}", [r.rethresholded[area] for r in records])
    for other in records[0].transfer:
        row |= _power(f"on_{other}", [r.transfer[other] for r in records])
    for part in ("localisation", "simplicity"):
        row |= _means([getattr(r, part) for r in records], asdict)
    row |= _means([r.stability for r in records], _prefixed)
    for name in ("infidelity", "sensitivity", "passes", "seconds"):
        known = [value for r in records if (value := getattr(r, name)) is not None]
        if known:
            row[name] = mean(known)
    return row


def _power(name: str, powers: Sequence[PredictivePower]) -> Row:
    power = merged(powers)
    low, high = power.interval
    return {name: power.value, f"{name}_low": low, f"{name}_high": high}


def _prefixed(stability: Mapping[str, float]) -> Row:
    return {f"stability_{name}": value for name, value in stability.items()}


def _means(values: Sequence[Any], parts: Callable[[Any], Mapping[str, float]]) -> Row:
    """The mean of each part over those records that have it."""
    told = [parts(value) for value in values if value is not None]
    keys = dict.fromkeys(key for one in told for key in one)
    return {key: mean(float(one[key]) for one in told if key in one) for key in keys}

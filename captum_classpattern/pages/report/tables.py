"""A comparison's scores as tables."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from captum_classpattern.comparison import STAMPED, Comparison
from captum_classpattern.comparison.metrics import NOT_CUT, POWER, TRIGGER
from captum_classpattern.comparison.records import full_name, search_names
from captum_classpattern.comparison.tables import columns_of, figure_names
from captum_classpattern.pages.tables import Column, Row, Table
from captum_classpattern.visualization.formats import number, percent, percent_area

LEVELS = {"image": "image", "class": "class mean"}
BETWEEN_WORDS = re.compile("(?<=[a-z])(?=[A-Z])")  # of IntegratedGradients: it may break there
SMALL = 0.01  # the second area of the main table, if it was scored
CONTROL = "control"
TRIGGERS = {True: "this model's", False: "another model's (control)"}
ENDS = ("", "_low", "_high")  # of the keys of a power and of its interval
NAMES = (Column("method", "name"), Column("model", "model"), Column("canvas", "kind"))
NO_PATTERN = Column("no pattern", "no_pattern", percent)


def tables(comparison: Comparison) -> list[Table]:
    """All tables with any values, the main one first."""
    rows, area = scored_rows(comparison), comparison.area
    scored = [row for row in rows if row["kind"] != STAMPED]
    cut = [row for row in scored if row["cut_from_canvas"]]
    not_cut = [row for row in scored if not row["cut_from_canvas"]]
    at_area, cost = power_columns(comparison), _metric_columns(comparison, POWER)
    powers = [
        Column(f"power at {percent_area(a)}", f"power_{a:g}", interval="bar")
        for a in dict.fromkeys((area, *(a for a in comparison.areas if a == SMALL)))
    ]
    own = [Column("free", "free"), *_metric_columns(comparison, NOT_CUT), *at_area]
    trigger = _metric_columns(comparison, TRIGGER)
    found = _found_rows(rows, trigger, comparison.backdoored)
    hidden = [row for row in found if row["kind"] != STAMPED]
    visible = [row for row in found if row["kind"] == STAMPED]
    trigger.insert(0, Column("trigger", "trigger"))
    made = [
        ("main", POWER, cut, [*powers, NO_PATTERN, *cost]),
        ("not-cut", NOT_CUT, not_cut, [*own, NO_PATTERN, *cost]),
        ("areas", "Predictive power at each area", _add_cut(cut, area), at_area),
        ("hidden", f"{TRIGGER}: hidden", hidden, trigger),
        ("visible", f"{TRIGGER}: visible", visible, trigger),
    ]
    others = {metric.table: None for metric in comparison.metrics}
    for i, title in enumerate(title for title in others if title not in (POWER, NOT_CUT, TRIGGER)):
        columns = _metric_columns(comparison, title)
        made.append((f"metrics-{i}", title, rows, columns))
    filled = [
        Table([*NAMES, *columns], of_table, key, title).filled(len(NAMES))
        for key, title, of_table, columns in made
    ]
    return [table for table in filled if table.rows]


def numbers_table(comparison: Comparison) -> Table:
    """The power of the searches, the strongest other methods and the controls: a row for each model
    and kind of canvas, a column for each method."""
    scored = [record for record in comparison.records if record.powers]
    names = figure_names(scored, comparison.area)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    roles = {}
    for row in scored_rows(comparison):
        name, place = row["name"], (row["model"], row["kind"])
        if row["kind"] != STAMPED and name in names:
            roles[name] = row["role"]
            known = {key: row[key] for key in ("model", "kind", "no_pattern")}
            power = {f"of {name}{end}": row[f"power_{comparison.area:g}{end}"] for end in ENDS}
            rows.setdefault(place, known).update(power)
    methods = [
        Column(
            BETWEEN_WORDS.sub("\N{ZERO WIDTH SPACE}", name)
            + (f" ({CONTROL})" if roles[name] == CONTROL else ""),
            f"of {name}",
            interval="bar",
            role=roles[name],
        )
        for name in names
    ]
    without = Column(f"no pattern ({CONTROL})", "no_pattern", percent)
    title = f"Power of {percent_area(comparison.area)} of the pixels"
    return Table([*NAMES[1:], *methods, without], [*rows.values()], "numbers", title)


def power_columns(comparison: Comparison) -> list[Column]:
    """The powers at all areas."""
    return [
        Column(percent_area(area), f"power_{area:g}", interval="text") for area in comparison.areas
    ]


def scored_rows(comparison: Comparison) -> list[Row]:
    """The means of each method with its name, its role and what the page filters by; by model, kind
    of canvas and falling power."""
    searches = search_names(comparison.records)
    rows: list[Row] = []
    for row in comparison.rows():
        if "failure" not in row:
            name = full_name(row["method"], row["level"], row["ranking"])
            role = CONTROL if row["control"] else "searches" if name in searches else ""
            facets = {
                "model": row["model"],
                "canvas": row["kind"],
                "map of": LEVELS[row["level"]],
                "ranking": row["ranking"],
            }
            rows.append({**row, "name": name, "role": role, "facets": facets})
    models, kinds = list(comparison.models), [*dict.fromkeys(comparison.kinds), STAMPED]
    power = f"power_{comparison.area:g}"
    rows.sort(key=lambda r: (models.index(r["model"]), kinds.index(r["kind"]), -r.get(power, 0.0)))
    return rows


def _metric_columns(comparison: Comparison, table: str) -> list[Column]:
    """The columns of the metrics that a table shows."""
    columns = []
    for metric in comparison.metrics:
        keys = columns_of(metric, comparison.records) if metric.table == table else []
        by_model = [f"{metric.name}_{model}" for model in comparison.models]
        for key in sorted(keys, key=lambda k: by_model.index(k) if k in by_model else -1):
            entry = key.removeprefix(metric.name).removeprefix("_")
            title = f"{metric.title} {entry}".strip()
            heading = f"{title} ({metric.unit})" if metric.unit else title
            write = partial(number, spec=metric.format, unit=metric.unit)
            note = (metric.heading, metric.note)
            columns.append(Column(heading, key, write, interval="bar", note=note))
    return columns


def _add_cut(rows: Sequence[Row], area: float) -> list[Row]:
    """For methods that search, one more row with the powers of their one map, cut."""
    lines: list[Row] = []
    for row in rows:
        lines.append(row)
        others = {key: value for key, value in row.items() if not key.startswith("power")}
        cut = {
            key.replace("rethresholded", "power"): value
            for key, value in row.items()
            if key.startswith("rethresholded")
        }
        if cut:
            lines.append({**others, **cut, "name": f"{row['name']}, {percent_area(area)} map cut"})
    return lines


def _found_rows(
    rows: Sequence[Row], columns: Sequence[Column], backdoored: Sequence[str]
) -> list[Row]:
    """The rows with a score for the trigger: backdoored models first, best method first."""
    found: list[Row] = [
        {**row, "trigger": TRIGGERS[row["model"] in backdoored]}
        for row in rows
        if any(row.get(column.key) is not None for column in columns)
    ]
    found.sort(key=lambda r: (r["model"] not in backdoored, -(r.get(columns[0].key) or 0)))
    return found

"""A comparison's scores as tables of cells: the text of each, and the value that sorts it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from captum_classpattern.comparison import STAMPED, Comparison, Metric
from captum_classpattern.comparison.figures import figure_names
from captum_classpattern.comparison.metrics import CAPTUM, NOT_CUT, POWER, SHAPE, TRANSFER, TRIGGER
from captum_classpattern.comparison.records import full_name, search_names
from captum_classpattern.comparison.tables import columns_of
from captum_classpattern.pages.tables import Cell, Row, Table, text_cell
from captum_classpattern.visualization.formats import number, percent, percent_area, percent_range

RowValues = Mapping[str, Any]
LEVELS = {"image": "image", "class": "class mean"}
BETWEEN_WORDS = re.compile("(?<=[a-z])(?=[A-Z])")  # of IntegratedGradients: it may break there
SMALL = 0.01  # the second area of the main table, if it was scored

# The texts above the tables.
NUMBERS = "Means over classes, with their 95 % intervals in percent."
AREAS = (
    "Methods that search ran again for each area; “map cut” is their map for the compared area, "
    "cut to the other ones. All other methods have one map. Means and intervals are those of the "
    "first table."
)
LOCALISED = (
    " All scores of the built-in metrics lie in [0, 1], and 1 is perfect. If there is only one "
    "trigger, it is also looked for on models without it, as a control: there is nothing to find."
)
HIDDEN = (
    "The canvases do not show the trigger, so a method can only find it in the model. Methods that "
    "search for an area get the number of pixels that the trigger changes. A white canvas is "
    "blank: white pixels of a trigger cannot be seen on it." + LOCALISED
)
VISIBLE = "The canvases are images stamped with the trigger, so it is there to see." + LOCALISED
INTRODUCTIONS = {
    POWER: (
        "Predictive power is the share of held-out images of other classes that the model predicts "
        "as the class once they are stamped with the pattern. “No pattern” is the share without "
        "a pattern. Each row is a mean over classes, and each class's value is the mean over its "
        "canvases of one kind. The 95 % interval is given in brackets, in percent. With five "
        "classes or more it is a bootstrap over the classes: how much the mean would change with "
        "other classes. With fewer classes, or if all have the same power, it comes from the "
        "classes' Wilson intervals: how much the mean would change with other images of these "
        "classes."
    ),
    NOT_CUT: (
        "These methods search more than which pixels of the canvas to keep: their pixels have free "
        "colours, or are changed by adding to them. They are not compared with the methods above. "
        "At an area, the pixels that they rank first are stamped alone. The own form is all that "
        "was found, such as a soft mask or a change of all pixels; “pixels changed” is the mean of "
        "its mask. Means and intervals are those of the first table."
    ),
    SHAPE: "The shape of the masks at the compared area.",
    TRANSFER: (
        "Predictive power, on another model, of the pattern found on the row's model. Means and "
        "intervals are those of the first table."
    ),
    CAPTUM: "Computed by captum.metrics. They cannot be compared with predictive power.",
}


@dataclass(frozen=True)
class Column:
    """A heading, what makes a cell of a row of scores, and a note (its subject and text)."""

    heading: str
    cell: Callable[[RowValues], Cell]
    note: tuple[str, str] = ("", "")


def tables(comparison: Comparison) -> list[Table]:
    """All tables with any values, the main one first."""
    rows, area = _sorted_rows(comparison), comparison.area
    scored = [row for row in rows if row["kind"] != STAMPED]
    cut = [row for row in scored if row["cut_from_canvas"]]
    not_cut = [row for row in scored if not row["cut_from_canvas"]]
    small = [other for other in comparison.areas if other == SMALL != area]
    powers = [
        *(power_column(f"power at {percent_area(a)}", f"power_{a:g}") for a in (area, *small)),
        no_pattern_column(),
    ]
    cost = _metric_columns(comparison, POWER)
    by_area = [power_column(percent_area(a), f"power_{a:g}", drawn=False) for a in comparison.areas]
    trigger = _metric_columns(comparison, TRIGGER)
    found = _found_rows(rows, trigger, comparison.backdoored)
    owner = {True: "this model's", False: "another model's (control)"}
    backdoored = comparison.backdoored
    trigger.insert(0, Column("trigger", lambda row: text_cell(owner[row["model"] in backdoored])))
    hidden = [row for row in found if row["kind"] != STAMPED]
    visible = [row for row in found if row["kind"] == STAMPED]
    free = Column("free", lambda row: text_cell(row["free"]))
    own = [free, *_metric_columns(comparison, NOT_CUT), *by_area, no_pattern_column(), *cost]
    made = [
        make_table("main", POWER, INTRODUCTIONS[POWER], cut, [*powers, *cost]),
        make_table("not-cut", NOT_CUT, INTRODUCTIONS[NOT_CUT], not_cut, own),
        make_table("areas", "Predictive power at each area", AREAS, _add_cut(cut, area), by_area),
        make_table("hidden", f"{TRIGGER}: hidden", HIDDEN, hidden, trigger),
        make_table("visible", f"{TRIGGER}: visible", VISIBLE, visible, trigger),
    ]
    others = dict.fromkeys(metric.table for metric in comparison.metrics)
    for i, title in enumerate(title for title in others if title not in (POWER, NOT_CUT, TRIGGER)):
        columns = _metric_columns(comparison, title)
        made.append(make_table(f"metrics-{i}", title, INTRODUCTIONS.get(title, ""), rows, columns))
    return [table for table in made if table.rows]


def numbers_table(comparison: Comparison) -> Table:
    """The power of the searches, the strongest other methods and the controls: a row for each model
    and kind of canvas, a column for each method."""
    names = figure_names(
        [record for record in comparison.records if record.powers], comparison.area
    )
    rows: dict[tuple[str, str], dict[str, RowValues]] = {}
    for row in _sorted_rows(comparison):
        if row["kind"] != STAMPED and row["name"] in names:
            rows.setdefault((row["model"], row["kind"]), {})[row["name"]] = row
    power = power_column("power", f"power_{comparison.area:g}")
    roles = {row["name"]: row["role"] for of_method in rows.values() for row in of_method.values()}

    def cell(row: RowValues, name: str) -> Cell:
        made = power.cell(row)
        return replace(made, text=made.text.replace(" (", "\n("), role=roles[name])

    lines = [
        Row(
            [text_cell(model), text_cell(kind)]
            + [cell(of_method.get(name, {}), name) for name in names]
            + [no_pattern_column().cell(next(iter(of_method.values())))]
        )
        for (model, kind), of_method in rows.items()
    ]
    headings = [
        BETWEEN_WORDS.sub("\N{ZERO WIDTH SPACE}", name)
        + (" (control)" if roles[name] == "control" else "")
        for name in names
    ]
    title = f"Power of {percent_area(comparison.area)} of the pixels"
    columns = ["model", "canvas", *headings, "no pattern (control)"]
    return Table("numbers", title, NUMBERS, columns, lines)


def power_column(heading: str, key: str, *, drawn: bool = True) -> Column:
    """Powers with their intervals."""

    def cell(row: RowValues) -> Cell:
        if row.get(key) is None:
            return Cell()
        low, high = row[f"{key}_low"], row[f"{key}_high"]
        text = f"{percent(row[key])} ({percent_range(low, high)})"
        return Cell(text, float(row[key]), (low, high) if drawn else None)

    return Column(heading, cell)


def no_pattern_column() -> Column:
    """The share of images that are predicted as the class without a pattern."""
    return _number_column("no pattern", "no_pattern", percent)


def _number_column(heading: str, key: str, write: Callable[[float], str]) -> Column:
    def cell(row: RowValues) -> Cell:
        return Cell() if row.get(key) is None else Cell(write(row[key]), float(row[key]))

    return Column(heading, cell)


def _metric_columns(comparison: Comparison, table: str) -> list[Column]:
    """The columns of the metrics that a table shows."""
    columns = []
    for metric in comparison.metrics:
        keys = columns_of(metric, comparison.records) if metric.table == table else []
        by_model = [f"{metric.name}_{model}" for model in comparison.models]
        for key in sorted(keys, key=lambda k: by_model.index(k) if k in by_model else -1):
            entry = key.removeprefix(metric.name).removeprefix("_")
            columns.append(_metric_column(metric, key, f"{metric.title} {entry}".strip()))
    return columns


def _metric_column(metric: Metric, key: str, title: str) -> Column:
    heading = f"{title} ({metric.unit})" if metric.unit else title
    power = power_column(heading, key)
    plain = _number_column(heading, key, lambda value: number(value, metric.format, metric.unit))

    def cell(row: RowValues) -> Cell:
        return (power if f"{key}_low" in row else plain).cell(row)

    return Column(heading, cell, (metric.heading, metric.note))


def _sorted_rows(comparison: Comparison) -> list[RowValues]:
    """The means of each method with its role, by model, kind of canvas and falling power."""
    searches = search_names(comparison.records)
    rows: list[RowValues] = []
    for row in comparison.rows():
        if "failure" not in row:
            name = full_name(row["method"], row["level"], row["ranking"])
            role = "control" if row["control"] else "searches" if name in searches else ""
            rows.append({**row, "name": name, "role": role})
    models, kinds = list(comparison.models), [*dict.fromkeys(comparison.kinds), STAMPED]
    power = f"power_{comparison.area:g}"
    rows.sort(key=lambda r: (models.index(r["model"]), kinds.index(r["kind"]), -r.get(power, 0.0)))
    return rows


def _add_cut(rows: Sequence[RowValues], area: float) -> list[RowValues]:
    """For methods that search, one more row with the powers of their one map, cut."""
    lines: list[RowValues] = []
    for row in rows:
        cut = {
            key.replace("rethresholded", "power"): value
            for key, value in row.items()
            if key.startswith("rethresholded")
        }
        lines.append(row)
        if cut:
            others = {key: value for key, value in row.items() if not key.startswith("power")}
            lines.append({**others, **cut, "name": f"{row['name']}, {percent_area(area)} map cut"})
    return lines


def _found_rows(
    rows: Sequence[RowValues], columns: Sequence[Column], backdoored: Sequence[str]
) -> list[RowValues]:
    """The rows with a score for the trigger: backdoored models first, best method first."""
    found = [row for row in rows if any(column.cell(row).value is not None for column in columns)]
    found.sort(key=lambda r: (r["model"] not in backdoored, -float(columns[0].cell(r).value or 0)))
    return found


def make_table(
    key: str, title: str, text: str, rows: Sequence[RowValues], columns: Sequence[Column]
) -> Table:
    """A table without the rows and columns that hold nothing."""
    lines = [[column.cell(row) for column in columns] for row in rows]
    filled = [i for i in range(len(columns)) if any(line[i].value is not None for line in lines)]
    made = [
        Row(
            [text_cell(row[n]) for n in ("name", "model", "kind")] + [line[i] for i in filled],
            {
                "model": row["model"],
                "canvas": row["kind"],
                "map of": LEVELS[row["level"]],
                "ranking": row["ranking"],
            },
            row["role"],
        )
        for row, line in zip(rows, lines)
        if any(cell.value is not None for cell in line)
    ]
    notes = dict(columns[i].note for i in filled if columns[i].note[1])
    headings = ["method", "model", "canvas", *(columns[i].heading for i in filled)]
    return Table(key, title, text, headings, made, notes)

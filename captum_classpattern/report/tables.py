"""A comparison's scores as tables of cells: what is shown, and what it is sorted by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captum_classpattern.comparison import STAMPED, Comparison
from captum_classpattern.comparison.records import full_name
from captum_classpattern.comparison.tables import rows_by_method
from captum_classpattern.report.formats import (
    NONE,
    between,
    decimals,
    digits,
    percent,
    percent_area,
    seconds,
)
from captum_classpattern.report.words import AREAS, CAPTUM, HIDDEN, MAIN, SHAPE, TRANSFER, VISIBLE

Scores = Mapping[str, Any]
LEVELS = {"image": "image", "class": "class mean"}
SMALL = 0.01  # the other area of the main table, if it was measured


@dataclass(frozen=True)
class Cell:
    """A text, the value it is sorted by, and the ends of an interval to draw in percent."""

    text: str = NONE
    value: float | str | None = None
    interval: tuple[float, float] | None = None

    @property
    def sort(self) -> str:
        """The value as an attribute; empty where there is none."""
        return "" if self.value is None or self.value != self.value else str(self.value)


@dataclass(frozen=True)
class Row:
    """Cells, the values that the page filters by, and a word for what the row is."""

    cells: list[Cell]
    facets: Mapping[str, str] = field(default_factory=dict)
    role: str = ""


@dataclass(frozen=True)
class Table:
    """``key`` is its id in the page, ``text`` what a reader must know."""

    key: str
    title: str
    text: str
    columns: list[str]
    rows: list[Row]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        return [
            any(isinstance(row.cells[i].value, float) for row in self.rows)
            for i in range(len(self.columns))
        ]


Column = Callable[[Scores], Cell]


def tables(comparison: Comparison) -> list[Table]:
    """All tables that there is anything to say in, the main one first."""
    area = comparison.area
    searching = {r.method for r in comparison.records if r.searches and not r.control}
    rows = [
        {**row, "role": "control" if row["control"] else "searches" * (row["method"] in searching)}
        for row in rows_by_method(comparison.records, [])
    ]
    order = list(comparison.models)
    kinds = [*dict.fromkeys(comparison.kinds), STAMPED]
    rows.sort(
        key=lambda row: (
            order.index(row["model"]),
            kinds.index(row["kind"]),
            -row.get(f"power_{area:g}", 0.0),
        )
    )
    made = [
        _main(comparison, rows),
        _areas(comparison, rows),
        *_localisation(comparison, rows),
        _table("shape", "Simplicity and stability", SHAPE, rows, _SHAPE),
        _transfer(comparison, rows),
        _table("captum", "Captum's own metrics", CAPTUM, rows, _CAPTUM),
    ]
    return [table for table in made if table.rows]


def power_cell(row: Scores, name: str, *, drawn: bool = True) -> Cell:
    """A power with its interval."""
    if row.get(name) is None:
        return Cell()
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = f"{percent(row[name])} ({between(low, high)})"
    return Cell(text, float(row[name]), (100 * low, 100 * high) if drawn else None)


def number_cell(value: float | None, text: Callable[[float], str]) -> Cell:
    """A number, or that there is none."""
    return Cell() if value is None else Cell(text(value), float(value))


def _number(name: str, text: Callable[[float], str] = decimals) -> Column:
    return lambda row: number_cell(row.get(name), text)


def _power(name: str, *, drawn: bool = True) -> Column:
    return lambda row: power_cell(row, name, drawn=drawn)


def _table(
    key: str, title: str, text: str, rows: Sequence[Scores], columns: Mapping[str, Column]
) -> Table:
    """Rows and columns with nothing in them are left out."""
    cells = [[make(row) for make in columns.values()] for row in rows]
    filled = [i for i in range(len(columns)) if any(line[i].value is not None for line in cells)]
    names = ["method", "model", "canvas"]
    made = [
        Row([*_named(row), *(line[i] for i in filled)], _facets(row), row["role"])
        for row, line in zip(rows, cells)
        if any(cell.value is not None for cell in line)
    ]
    return Table(key, title, text, [*names, *(list(columns)[i] for i in filled)], made)


def _named(row: Scores) -> list[Cell]:
    name = full_name(row["method"], row["level"], row["ranking"])
    return [Cell(text, text) for text in (name, row["model"], row["kind"])]


def _facets(row: Scores) -> dict[str, str]:
    level = LEVELS.get(row["level"], row["level"])
    return {
        "model": row["model"],
        "canvas": row["kind"],
        "map of": level,
        "ranking": row["ranking"],
    }


def _main(comparison: Comparison, rows: Sequence[Scores]) -> Table:
    small = [area for area in comparison.areas if area == SMALL != comparison.area]
    powers = {
        f"power at {percent_area(area)}": _power(f"power_{area:g}")
        for area in (comparison.area, *small)
    }
    columns = {**powers, "no pattern": _number("no_pattern", percent), **_STABILITY}
    columns |= {"passes": _number("passes", digits), "seconds": _number("seconds", seconds)}
    scored = [row for row in rows if row["kind"] != STAMPED]
    return _table("main", "Predictive power, stability and cost", MAIN, scored, columns)


def _areas(comparison: Comparison, rows: Sequence[Scores]) -> Table:
    """The powers at all areas; of methods that search also those of their one map, cut."""
    columns = {
        percent_area(area): _power(f"power_{area:g}", drawn=False) for area in comparison.areas
    }
    searched = percent_area(comparison.area)
    lines: list[Scores] = []
    for row in rows:
        cut = {
            key.replace("rethresholded", "power"): value
            for key, value in row.items()
            if key.startswith("rethresholded")
        }
        lines.append(row)
        if cut:
            plain = {key: value for key, value in row.items() if not key.startswith("power")}
            lines.append({**plain, **cut, "method": f"{row['method']}, {searched} map cut"})
    return _table("areas", "Predictive power at each area", AREAS, lines, columns)


def _localisation(comparison: Comparison, rows: Sequence[Scores]) -> list[Table]:
    """Backdoored models first; of each model the methods that find the trigger best first."""
    backdoored = comparison.backdoored
    found = [row for row in rows if row.get("iou") is not None]
    found.sort(key=lambda row: (row["model"] not in backdoored, -row["iou"]))
    columns = {"trigger": lambda row: _whose(row["model"] in backdoored), **_LOCALISATION}
    hidden = [row for row in found if row["kind"] != STAMPED]
    visible = [row for row in found if row["kind"] == STAMPED]
    return [
        _table("hidden", "Finding the trigger: hidden", HIDDEN, hidden, columns),
        _table("visible", "Finding the trigger: visible", VISIBLE, visible, columns),
    ]


def _whose(backdoored: bool) -> Cell:
    text = "the model's own" if backdoored else "another model's: control"
    return Cell(text, text)


def _transfer(comparison: Comparison, rows: Sequence[Scores]) -> Table:
    columns = {f"on {name}": _power(f"on_{name}") for name in comparison.models}
    return _table("transfer", "Transfer to other models", TRANSFER, rows, columns)


_STABILITY = {
    "IoU, other seed": _number("stability_seeds"),
    "IoU, other canvas": _number("stability_canvases"),
}
_SHAPE = {
    "total variation": _number("total_variation"),
    "high-frequency share": _number("high_frequency_share"),
    "pieces": _number("components", digits),
    **_STABILITY,
}
_LOCALISATION = {
    "IoU": _number("iou"),
    "average precision": _number("average_precision"),
    "pointing game": _number("pointing_game"),
    "relevance mass": _number("relevance_mass"),
    "relevance rank": _number("relevance_rank"),
}
_CAPTUM = {
    "infidelity": _number("infidelity", digits),
    "sensitivity_max": _number("sensitivity", digits),
}

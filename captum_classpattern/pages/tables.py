"""Tables of pages: how the values of each row are written, sorted and drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from captum_classpattern.visualization.formats import DASH, percent

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A heading, the key of the value in each row, and how it is written; texts are shown as they
    are. ``interval`` says whether a share is written with its interval (``KEY_low``, ``KEY_high``
    in the row), or also drawn, as a bar in the colour of a method's ``role``. ``note`` is a subject
    and a text about it, ``missing`` what stands for a value that is not there."""

    heading: str
    key: str
    write: Callable[[Any], str] = str
    interval: Literal["", "text", "bar"] = ""
    role: str = ""
    note: tuple[str, str] = ("", "")
    missing: str = DASH

    def ends(self, row: Row) -> tuple[float, float] | None:
        """The interval to show, if it is known."""
        low = row.get(f"{self.key}_low") if self.interval else None
        return None if low is None else (low, row[f"{self.key}_high"])

    def text(self, row: Row) -> str:
        """The value of a row, without its interval."""
        value = row.get(self.key)
        if value is None or isinstance(value, str):
            return self.missing if value is None else value
        return percent(value) if self.ends(row) else self.write(value)

    def sort(self, row: Row) -> str:
        """What the page sorts by; empty if there is no value."""
        value = row.get(self.key)
        return "" if value is None or value != value else str(value)


@dataclass(frozen=True)
class Table:
    """Rows of values under a title. The first column is the name of the row. A row may
    have the ``role`` of its method, and ``facets``, by which the page filters. With a key, which is
    unique in the page, the table can be sorted."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    key: str = ""
    title: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds anything but texts."""
        keys = [column.key for column in self.columns]
        return [any(not isinstance(row.get(key), str | None) for row in self.rows) for key in keys]

    @property
    def notes(self) -> dict[str, str]:
        """The notes on columns."""
        return dict(column.note for column in self.columns if column.note[1])

    def filled(self, names: int) -> "Table":
        """Without the rows and columns that hold nothing; the first columns are names."""
        rows = [r for r in self.rows if any(r.get(c.key) is not None for c in self.columns[names:])]
        columns = [c for c in self.columns if any(row.get(c.key) is not None for row in rows)]
        return replace(self, columns=columns, rows=rows)

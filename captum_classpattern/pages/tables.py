"""Tables of pages: the text of each cell, and the value that sorts it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from captum_classpattern.visualization.formats import DASH


@dataclass(frozen=True)
class Cell:
    """A text, the value that it is sorted by, the interval of a share to draw, the role of the
    method of that bar, if it isn't that of the row, the page that the text links to, and what
    follows the link."""

    text: str = DASH
    value: float | str | None = None
    interval: tuple[float, float] | None = None
    role: str = ""
    address: str = ""
    after: str = ""

    @property
    def sort(self) -> str:
        """The value as an attribute; empty if there is none."""
        return "" if self.value is None or self.value != self.value else str(self.value)


@dataclass(frozen=True)
class Row:
    """Cells, the values that the page filters by, and the role of the row's method."""

    cells: list[Cell]
    facets: Mapping[str, str] = field(default_factory=dict)
    role: str = ""


@dataclass(frozen=True)
class Table:
    """A table with an introduction, and a note on some of its columns. With a key, which is unique
    in the page, it can be sorted."""

    key: str
    title: str
    text: str
    columns: list[str]
    rows: list[Row]
    notes: Mapping[str, str] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()  # columns of numbers whose cells are texts

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers."""
        return [
            column in self.numbers
            or any(isinstance(row.cells[i].value, float) for row in self.rows)
            for i, column in enumerate(self.columns)
        ]


def text_cell(text: str) -> Cell:
    """A text that is sorted by itself."""
    return Cell(text, text)


def text_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    key: str = "",
    title: str = "",
    numbers: Sequence[str] = (),
) -> Table:
    """A table of texts."""
    cells = [[text_cell(c) if isinstance(c, str) else c for c in row] for row in rows]
    return Table(key, title, "", [*columns], [*map(Row, cells)], numbers=frozenset(numbers))

"""What all results have in common: a text, a table and a figure, for pages and notebooks.

Drawing needs slow imports, so results do them inside the methods that show them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any

from captum_classpattern._support.files import printable
from captum_classpattern._support.formats import number, shortened

COLUMNS = ("power", "control", "canvas", "area")  # after two names, of a table that fits 80 columns
NAME, OF_TWO = 26, 19  # characters of one name there, or of each of two


class Result:
    """A result shows itself by three methods: ``text()``, ``table()`` and ``plot()``.

    Notebooks and pages show all three, the terminal the first two. A class whose page has more
    overrides :meth:`sections`. Names in them may come from a stranger's file, so ``text()`` and
    the repr of any class have no characters that control a terminal.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in {"text", "__repr__"} & vars(cls).keys():
            setattr(cls, name, _printable_text(vars(cls)[name]))

    def text(self) -> str:
        """What the result says, in a few sentences. The first line is the title of its page."""
        raise NotImplementedError

    def table(self) -> Any:
        """The numbers as a pandas DataFrame. Results with many columns take ``full=True`` for all
        of them, see :func:`fitting`."""
        raise NotImplementedError

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        r"""
        Draws the result. The description of its class says what is shown.

        Args:
            use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes.

        Raises:
            ValueError: If it shows images with neither one nor three channels.
        """
        raise NotImplementedError

    def shown_table(self) -> Any:
        """The columns and rows of the table that pages and the terminal show, as texts."""
        table = self.table()
        names = (name for name in table if f"_{name}".rpartition("_")[2] not in ("low", "high"))
        return as_texts(table, dict.fromkeys(names, ""))

    def sections(self, whole: bool) -> Iterable[Any]:
        """What follows the text: paragraphs (str), numbered lists (list), tables (DataFrame),
        figures (functions that draw them), or HTML from ``pages.parts``. With ``whole``, it is for
        a page, which may be longer than a notebook's output."""
        return [self.plot, self.shown_table()]

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from captum_classpattern.pages.parts import content_of, render

        content = content_of(self.text(), self.sections(whole=False))
        return render("fragment.html", **content).decode()

    def to_html(self, path: str | PathLike[str]) -> Path:
        r"""
        Writes the result as an HTML page that needs no other file. A survey's page has up to 100
        patterns, and the scores of all classes. A comparison's page has its patterns with a slider
        over the area. A sweep writes a site into a folder: an index of models and classes, and a
        page for each of them.

        Args:
            path (str or PathLike): The file, which is replaced whole or not at all. For a sweep,
                the folder.

        Returns:
            *Path*: The file, or a site's index.
        """
        from captum_classpattern.pages.parts import write_page

        return write_page(Path(path), self.text(), self.sections(whole=True))


def _printable_text(method: Callable[[Any], str]) -> Callable[[Any], str]:
    """A method that returns a text, which becomes safe to print."""

    @wraps(method)
    def printed(self: Any) -> str:
        return printable(method(self), keep="\n")

    return printed


def as_table(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Rows as a pandas DataFrame, with None where a row lacks a column."""
    import pandas  # slow to import

    rows = list(rows)
    columns = {key: None for row in rows for key in row}
    values = [columns | dict(row) for row in rows]
    whole = [key for key in columns if {type(row[key]) for row in values} == {int, type(None)}]
    table = pandas.DataFrame(values, columns=list(columns))
    return table.astype(dict.fromkeys(whole, "Int64"))  # else they would be floats


def fitting(rows: Iterable[Mapping[str, Any]], names: Sequence[str], full: bool) -> Any:
    """Rows as a DataFrame with all columns, or with those that fit 80 columns in print: the names,
    such as ``class`` and ``name``, shortened, and the columns that all tables share, with shares
    rounded to four digits."""
    table = as_table(rows)
    if full:
        return table
    table = table.reindex(columns=[*names, *COLUMNS]).round({"power": 4, "control": 4})
    texts = [name for name in names if name != "class"]  # which is a number
    for name in texts:
        table[name] = [shortened(each, NAME if len(texts) == 1 else OF_TWO) for each in table[name]]
    return table


def as_texts(table: Any, formats: Mapping[str, str]) -> Any:
    """The columns of a DataFrame that have a format, as people read them: ``45.0 %``, and
    ``45.0 % (38.3 to 51.9)`` if the table has the ends of the interval. A format is such as ".1%",
    or "" for texts and plain numbers. Columns without values are left out."""
    import pandas

    def text(value: Any, form: str) -> str | None:
        if value is None or value is pandas.NA or value != value:
            return None
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float) and not form:
            return number(value)
        return value if isinstance(value, str) else f"{value:{form}}".replace("%", " %")

    shown = {}
    for name in (name for name in formats if name in table):
        values = [text(value, formats[name]) for value in table[name]]
        of_power = ("low", "high") if name == "power" else (f"{name}_low", f"{name}_high")
        if of_power[0] in table:
            ends = ([text(end, formats[name]) for end in table[of]] for of in of_power)
            ranges = (f" ({low} to {high})".replace(" %", "") for low, high in zip(*ends))
            values = [value and value + ends for value, ends in zip(values, ranges)]
        shown[name.replace("_", " ")] = values
    return pandas.DataFrame(shown, dtype=object).dropna(axis=1, how="all")

"""What all results have in common: they show themselves in notebooks, as pages, figures and tables.

Results import nothing that draws them. It is found by their type, in
:mod:`captum_classpattern.pages.kinds`, and imported when the first of them is drawn.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

KINDS = "captum_classpattern.pages.kinds"  # the one hook to what draws results


class Result:
    """A result that shows itself: its class has an entry in ``pages.kinds.KINDS``."""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(import_module(KINDS).fragment_of(self))

    def to_html(self, path: str | PathLike[str]) -> Path:
        r"""
        Writes what a notebook shows as an HTML page that needs no other file. A survey finishes its
        search first; its page has up to 100 patterns, and the scores of all classes. That of a
        comparison is the report, see :func:`~captum_classpattern.pages.write_report`. A sweep
        writes a site into a folder: an index of models and classes, and a page for each class.

        Args:
            path (str or PathLike): The file. It is replaced as a whole or not at all. For a sweep,
                the folder.

        Returns:
            *Path*: The file; of a site the index.
        """
        return Path(import_module(KINDS).write_page_of(self, path))

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
        return self._draw(use_pyplot=use_pyplot)

    def _draw(self, figure: str = "plot", /, **options: Any) -> tuple[Any, Any]:
        """A figure and its axes, by the name of the function that draws it. The options may be the
        ``locals()`` of the method that calls it."""
        options.pop("self", None)
        drawn: tuple[Any, Any] = import_module(KINDS).draw(self, figure, **options)
        return drawn


def as_table(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Rows as a pandas DataFrame, with None where a row lacks a column."""
    import pandas  # slow to import

    rows = list(rows)
    columns = {key: None for row in rows for key in row}
    values = [columns | dict(row) for row in rows]
    whole = [key for key in columns if {type(row[key]) for row in values} == {int, type(None)}]
    table = pandas.DataFrame(values, columns=list(columns))
    return table.astype(dict.fromkeys(whole, "Int64"))  # else they would be floats

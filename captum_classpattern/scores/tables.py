"""Rows of scores as a table."""

from typing import Any


def as_table(rows: list[dict[str, Any]]) -> Any:
    """The rows as a pandas DataFrame, with None where a row lacks a column."""
    import pandas  # slow to import

    columns = list(dict.fromkeys(key for row in rows for key in row))
    return pandas.DataFrame(
        [{key: row.get(key) for key in columns} for row in rows], columns=columns
    )

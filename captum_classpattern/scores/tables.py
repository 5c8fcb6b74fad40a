"""Rows of scores as a table."""

import importlib.util
from typing import Any


def as_table(rows: list[dict[str, Any]]) -> Any:
    """A pandas DataFrame if pandas is installed, else the rows, all with the same keys."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: row.get(key) for key in keys} for row in rows]
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame(rows, columns=keys)

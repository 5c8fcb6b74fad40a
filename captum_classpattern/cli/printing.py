"""What the commands print: sentences and tables."""

import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from captum_classpattern.cli.errors import printable


def say(*sentences: str) -> None:
    """Prints each in lines of its own that fit the terminal. They may hold anything."""
    width = shutil.get_terminal_size().columns
    for text in sentences:
        print(textwrap.fill(printable(text), width, break_long_words=False, break_on_hyphens=False))


def print_table(table: Any, formats: Mapping[str, str], title: str = "") -> None:
    """Prints the columns of a DataFrame that have a format, such as ".1%", or "" for texts."""

    def formatted(form: str) -> Any:
        return lambda value: printable(value if isinstance(value, str) else f"{value:{form}}")

    shown = table.reindex(columns=[*formats]).astype(object)
    shown = shown.where(shown.notna(), "")
    by_column = {name: formatted(form) for name, form in formats.items()}
    print(printable(title), end="\n" * bool(title))
    print(shown.to_string(index=False, na_rep="", formatters=by_column), end="\n\n")

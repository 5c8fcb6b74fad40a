"""What the commands print: sentences and tables."""

import shutil
import textwrap

from captum_classpattern._files import printable
from captum_classpattern.cli.errors import OPTIONS, with_options
from captum_classpattern.results import Result


def say(*sentences: str) -> None:
    """Prints each in lines of its own that fit the terminal, with arguments of the library as
    options of the command line. They may hold anything."""
    width = shutil.get_terminal_size().columns
    for text in sentences:
        shown = printable(with_options(text, OPTIONS.get()), keep="\n")
        lines = textwrap.fill(shown, width, break_long_words=False, break_on_hyphens=False)
        print(lines, flush=True)


def say_line(text: str) -> None:
    """Prints a line as it is, such as one with a path. It may hold anything."""
    print(printable(text), flush=True)


def print_result(result: Result, most: int | None = None) -> None:
    """Prints the text of a result, and at most so many rows of its table."""
    say(*result.text().split("\n"), "")
    shown = result.shown_table().head(most)
    if len(shown):
        texts, width = shown.where(shown.notna(), "").map(printable), shutil.get_terminal_size()
        print(texts.to_string(index=False, line_width=width.columns), end="\n\n")

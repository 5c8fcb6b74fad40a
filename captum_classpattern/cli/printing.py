"""What the commands print: sentences, tables, warnings and errors, with the options' names."""

import re
import shutil
import sys
import textwrap
import traceback
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cyclopts import CycloptsError
from tqdm import tqdm

from captum_classpattern._support.files import printable
from captum_classpattern.results import Result

WRONG_INPUT, INTERRUPTED, NO_READER = 2, 130, 141  # exit codes
IN_PYTHON = re.compile(r" \(in Python: (?:[^()]|\([^()]*\))*\)")  # what the shell does not have
OPTIONS: ContextVar[Collection[str]] = ContextVar("options", default=())  # of the command line
ARGUMENT = re.compile(r"`(\w+)(?:=([^`]*))?`")  # as the library's messages name one


@contextmanager
def plain_errors(debug: bool, options: Collection[str]) -> Iterator[None]:
    """Turns errors about wrong input into a short message on stderr and exit code 2, and warnings
    into lines. Both name the ``options`` of the command line instead of arguments. With ``debug``,
    the traceback is printed, with everything that an error lists. Bugs of this package are raised.
    """
    token = OPTIONS.set(options)

    def print_warning(
        message: Warning | str, category: type[Warning], *_: object, **__: object
    ) -> None:
        from captum_classpattern import Notice

        word = "Note" if issubclass(category, Notice) else "Warning"
        text = printable(with_options(str(message)), keep="\n")
        tqdm.write(f"{word}: {text}", file=sys.stderr)  # above progress bars

    try:
        with warnings.catch_warnings():
            warnings.showwarning = print_warning
            yield
    except (CycloptsError, ImportError, OSError, ValueError, TypeError) as error:
        missing = str(error.name) if isinstance(error, ImportError) else ""
        # wrong input raises ArgumentTypeError, a subclass of TypeError
        if type(error) in (TypeError, BrokenPipeError) or missing.startswith("captum_classpattern"):
            raise
        if debug:
            print(printable(traceback.format_exc(), keep="\n"), end="", file=sys.stderr)
        else:
            # what is wrong and what to do, without what the error lists after a blank line
            text, _, listed = str(error).strip().partition("\n\n")
            text = with_options(text) + (" (--debug lists all)" if listed else "")
            print(printable(f"Error: {text}", keep="\n"), file=sys.stderr)
        raise SystemExit(WRONG_INPUT) from None
    finally:
        OPTIONS.reset(token)


@contextmanager
def interrupted(what_next: str) -> Iterator[None]:
    """Ends the command after Ctrl+C, with a line that says what is kept and what to do."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nInterrupted: {printable(what_next)}.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def with_options(message: str) -> str:
    """A message of the library with the arguments in backticks as options: `size` as --size, and
    `limit=100` as --limit 100. What is for Python alone is left out."""

    def replaced(found: re.Match[str]) -> str:
        name, value = found.groups()
        option = f"--{name.replace('_', '-')}"
        if option not in OPTIONS.get():
            return found[0].strip("`")
        return option if value in (None, "True") else f"{option} {value.strip(chr(39))}"

    return ARGUMENT.sub(replaced, IN_PYTHON.sub("", message))


def say(*sentences: str) -> None:
    """Prints any texts in lines that fit, with options' names for arguments."""
    width = shutil.get_terminal_size().columns
    for text in sentences:
        shown = printable(with_options(text), keep="\n")
        lines = textwrap.fill(shown, width, break_long_words=False, break_on_hyphens=False)
        print(lines, flush=True)


def say_line(text: str) -> None:
    """Prints any line without wrapping it, such as one with a path."""
    print(printable(text), flush=True)


def print_result(result: Result, most: int | None = None) -> None:
    """Prints the text of a result, and at most this many rows of its table."""
    say(*result.text().split("\n"), "")
    shown = result.shown_table().head(most)
    if len(shown):
        texts, width = shown.where(shown.notna(), "").map(printable), shutil.get_terminal_size()
        print(texts.to_string(index=False, line_width=width.columns), end="\n\n")

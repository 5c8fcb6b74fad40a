"""How commands report what goes wrong."""

import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cyclopts import CycloptsError
from tqdm import tqdm


@contextmanager
def plain_errors(debug: bool) -> Iterator[None]:
    """Turns the errors of wrong input into one line on stderr and exit code 2, and warnings into
    lines. With ``debug``, the traceback is printed instead. Bugs of this package are raised."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            yield
    except (CycloptsError, ImportError, OSError, ValueError, TypeError) as error:
        if _is_bug(error):
            raise
        if debug:
            traceback.print_exc()
        else:
            print(f"Error: {printable(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def _is_bug(error: Exception) -> bool:
    missing = str(error.name) if isinstance(error, ImportError) else ""
    # wrong input raises ArgumentTypeError, a subclass of TypeError
    return type(error) is TypeError or missing.startswith("captum_classpattern")


def _print_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    from captum_classpattern._validation import Notice

    word = "Note" if issubclass(category, Notice) else "Warning"
    tqdm.write(f"{word}: {printable(message)}", file=sys.stderr)  # above progress bars


def printable(message: object) -> str:
    """A message without the characters that control a terminal, which names in files may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(message))

"""The progress of long work: a bar in a terminal or notebook, and lines in a log."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

from captum_classpattern._support.files import printable

BAR_AFTER = 5.0  # seconds, after which long work gets a bar
LINE_EVERY = 30.0  # seconds, in a log
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
LINE = "{desc}: {percentage:.0f} %, {elapsed} so far, about {remaining} left{postfix}"
# the bar of all work in a block, and how much a pass moves it
_bar: ContextVar[tuple[Any, float]] = ContextVar("bar", default=(None, 0.0))


class _Lines:
    """A file for a bar: what would replace the last line in a terminal gets its own line."""

    def write(self, text: str) -> None:
        if text := text.strip():
            sys.stderr.write(f"{text}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def new_bar(desc: str, total: float, shown: bool | None) -> Any:
    """A bar, drawn at once or, if ``shown`` is None, after five seconds. Where stderr is neither a
    terminal nor a notebook, it is a line every half minute. It shows shares and times, but no
    number of passes, which would differ from a user's budget: scoring counts here. There is one
    bar at a time."""
    hidden = shown is False or _bar.get()[0] is not None
    options = {"desc": printable(desc), "total": total, "disable": hidden, "miniters": 0}
    if sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"):
        return tqdm(bar_format=BAR, delay=0 if shown else BAR_AFTER, **options)
    lines = {"file": _Lines(), "position": 0, "bar_format": LINE, "leave": False}
    return tqdm(**options | lines, delay=LINE_EVERY, mininterval=LINE_EVERY)


@contextmanager
def passes_bar(desc: str, total: float, shown: bool | None, a_pass: float = 1.0) -> Iterator[Any]:
    """A bar over the passes of all work in this block, see :func:`new_bar`; within another bar's
    block, that one goes on. With an ``a_pass`` of 0, passes only show that time passes."""
    with new_bar(desc, total, shown) as bar:
        token = _bar.set(_bar.get() if bar.disable else (bar, a_pass))
        try:
            yield bar
        finally:
            _bar.reset(token)
        bar.update(bar.total - bar.n)


def expect_passes(left: float) -> None:
    """Sets how far a pass moves the bar of a block, if there is one: after this many, it reaches
    its next whole number, the end of a model."""
    bar, _ = _bar.get()
    if bar is not None:
        _bar.set((bar, (math.floor(bar.n) + 1 - bar.n) / max(left, 1.0)))


def name_stage(name: str) -> None:
    """Says at the end of the bar, if there is one, what is searched now."""
    bar, _ = _bar.get()
    if bar is not None:
        bar.set_postfix_str(printable(name), refresh=False)


def advance_bar(count: int) -> None:
    """Moves the bar, if there is one, but not beyond its end."""
    bar, a_pass = _bar.get()
    if bar is not None:
        bar.update(min(a_pass * count / 2, bar.total - bar.n))

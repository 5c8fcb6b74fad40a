"""A progress bar over the passes of all searches in a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_bar: ContextVar[Any] = ContextVar("bar", default=None)


@contextmanager
def passes_on(bar: Any) -> Iterator[None]:
    """Searches in this block move a tqdm bar by their passes."""
    token = _bar.set(bar)
    try:
        yield
    finally:
        _bar.reset(token)


def note_half_passes(count: int) -> None:
    """Moves the bar, if there is one, but not beyond its end."""
    bar = _bar.get()
    if bar is not None:
        bar.update(min(count / 2, bar.total - bar.n))

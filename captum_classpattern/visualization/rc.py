"""Matplotlib's settings while a figure is drawn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib


@contextmanager
def rc_context(settings: Mapping[str, Any]) -> Iterator[None]:
    """
    As matplotlib's, but what switches pyplot to interactive stays.

    The first figure of a notebook starts the inline backend, which does so. Without it, a notebook
    shows no further figure.
    """
    with matplotlib.rc_context(dict(settings)):
        yield
        interactive = matplotlib.is_interactive()
    matplotlib.interactive(interactive)

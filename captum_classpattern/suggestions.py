"""Lists of names in messages: the first few, or those closest to a name that is not known."""

import difflib
from collections.abc import Iterable, Sequence

SHOWN = 10


def few(names: Sequence[str]) -> str:
    """The first ten names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message that refuses a name: the closest known names, else the first few."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    shown = [by_lower[other] for other in close]
    return f": did you mean {' or '.join(shown)}?" if shown else f"; there are {few([*known])}"

"""Which of many methods a figure has room for."""

from collections.abc import Iterable, Sequence

from captum_classpattern.comparison.means import mean_power
from captum_classpattern.comparison.records import Record
from captum_classpattern.scores.power import PredictivePower

COLUMNS = 8  # of a figure, at most


def searching(records: Sequence[Record]) -> list[str]:
    """Names of the methods that search anew for each area and are no controls."""
    return _names(r for r in records if r.searches and not r.control)


def controls(records: Sequence[Record]) -> list[str]:
    """Names of the controls."""
    return _names(r for r in records if r.control)


def best_per_image(records: Sequence[Record], area: float) -> list[str]:
    """Names of the methods that explain single images, the strongest first: each in that of its
    rankings whose mean power at the area is the highest."""
    powers: dict[tuple[str, str], list[tuple[int, PredictivePower]]] = {}
    for r in records:
        if r.powers and r.level == "image" and not r.control and not r.searches:
            powers.setdefault((r.method, r.name), []).append((r.target, r.powers[area]))
    best: dict[str, str] = {}
    for method, name in sorted(powers, key=lambda key: -mean_power(powers[key]).value):
        best.setdefault(method, name)
    return list(best.values())


def for_a_figure(records: Sequence[Record], area: float) -> list[str]:
    """What searches, then the best that does not, then the controls."""
    first, last = searching(records)[:COLUMNS], controls(records)
    last = last[: COLUMNS - len(first)]
    room = COLUMNS - len(first) - len(last)
    return [*first, *best_per_image(records, area)[:room], *last]


def _names(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(r.name for r in records))

"""Which methods of a comparison a figure shows."""

from collections.abc import Sequence

from captum_classpattern.comparison.records import (
    Record,
    by_name,
    control_names,
    cut_from_canvas,
    search_names,
)
from captum_classpattern.comparison.tables import mean_power
from captum_classpattern.scores.power import PredictivePower

COLUMNS, CONTROLS = 8, 3  # methods in a figure, and controls among them, at most


def strongest_names(records: Sequence[Record], area: float) -> list[str]:
    """Names of the methods that explain single images, strongest first, each in the ranking with
    the higher mean power."""
    powers: dict[tuple[str, str], list[tuple[int, PredictivePower]]] = {}
    for r in records:
        explains_images = not (r.control or r.searches or r.free)
        if r.powers and r.level == "image" and explains_images:
            powers.setdefault((r.method, r.name), []).append((r.target, r.powers[area]))
    best: dict[str, str] = {}
    for method, name in sorted(powers, key=lambda key: -mean_power(powers[key]).value):
        best.setdefault(method, name)
    return list(best.values())


def figure_names(records: Sequence[Record], area: float) -> list[str]:
    """Names of the methods that a figure has room for: searches, the strongest others, the
    strongest controls. Methods whose pixels are not cut from the canvas are left out, unless there
    are no others."""
    records = cut_from_canvas(records) or records
    first = search_names(records)[:COLUMNS]
    last = _strongest_controls(records, area, min(CONTROLS, COLUMNS - len(first)))
    room = COLUMNS - len(first) - len(last)
    return [*first, *strongest_names(records, area)[:room], *last]


def _strongest_controls(records: Sequence[Record], area: float, most: int) -> list[str]:
    """The names of the controls with the highest mean power, in their own order."""
    names = control_names(records)
    groups = by_name([r for r in records if r.control and r.powers])
    powers = {
        name: mean_power((r.target, r.powers[area]) for r in group).value
        for name, group in groups.items()
    }
    first = sorted(names, key=lambda name: -powers.get(name, 0.0))[:most]
    return [name for name in names if name in first]

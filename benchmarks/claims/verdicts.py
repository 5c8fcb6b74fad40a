"""What the statements about the paper's claims are made of: values by class of a network or a pair.

``claims/pooled.py`` pools them over training seeds, and says what "holds". A network counts only
if it has learnt what its kind promises: a backdoor with an attack success of 0.9 or more; an
accuracy of 0.95 or more on the memorised images; an accuracy of 0.3 or more under the attack (PGD)
that adversarial training is to resist.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from findings import Row

from captum_classpattern.scores.power import Scores, power_of
from captum_classpattern.surveys import stands_out
from claims.models import EPSILONS, EPSILONS_OF, MEMORISED, Patch, trainings
from claims.rows import Measured, Runs

ITSELF = "itself"  # tested on the network of the search
HOLDS, FAILS, OPEN = "holds", "does not hold", "not shown"
ALMOST_ANY = 0.9
BOUNDS = {"backdoored": 0.9, "robust": 0.3, **dict.fromkeys(MEMORISED, 0.95)}  # of what is learnt
AREA, SHAPES = 0.05, ("total_variation", "high_frequency_share", "components")
BLANK = ("white", "black")
CHANGES = {"grey": "in shades of grey", "blurred": "blurred", "shuffled": "colours shuffled"}
NATURAL = ("natural", "natural_adam")
CONTROL = "natural"  # of claim 2
PAIRS = (
    *((robust, natural) for robust in EPSILONS for natural in NATURAL),
    *((large, small) for small, large in EPSILONS_OF.values()),
)

ByClass = Mapping[int, float]
Kinds = Mapping[str, Runs]


def bound_of(kind: str) -> float | None:
    """How much a network of this kind must have learnt; None if there is nothing to learn. Kinds
    are called ``robust4``, ``shipped robust4`` or ``demo robust``."""
    name = kind.split()[-1]
    return next((bound for start, bound in BOUNDS.items() if name.startswith(start)), None)


def has_learnt(*models: Measured) -> bool:
    """Whether all these networks have learnt what their kinds promise."""
    learnt = ((model.row["learnt"], bound_of(model.kind)) for model in models)
    return all(bound is None or value >= bound for value, bound in learnt)


def difference(one: ByClass, other: ByClass) -> dict[int, float]:
    """One minus the other, class by class."""
    return {y: value - other[y] for y, value in one.items()}


def most_left(model: Measured, canvas: str, change: str) -> dict[int, float]:
    """How far what is left of the power is above half of it, both without "no pattern"."""
    changed, whole = (model.above_none(canvas, AREA, name) for name in (change, "hits"))
    return {y: changed[y] - whole[y] / 2 for y in whole}


def outstanding(model: Measured, canvas: str, area: float, target: int) -> bool:
    """Whether a class stands out among all classes of its network."""
    scores = model.scores(canvas, area)
    return stands_out(scores, target, len(scores))


def shown(model: Measured, canvas: str, area: float, trigger: str) -> dict[int, float | None]:
    """How much of a trigger each class's pattern shows, as a share of the most that any mask on its
    canvas can; None if that is less than half of the trigger."""
    fit, most = (model.column(canvas, area, f"{name}_{trigger}") for name in ("fit", "most"))
    return {y: fit[y] / most[y] if most[y] >= 0.5 else None for y in fit}


def controls_of(kinds: Kinds) -> Runs:
    """Clean networks that are trained as the backdoored ones are."""
    return kinds.get(CONTROL, {})


def backdoored(kinds: Kinds, data: str) -> dict[str, Patch]:
    """The triggers of the networks that are there, by kind."""
    planted = {kind: training.trigger for kind, training in trainings(data).items()}
    return {kind: patch for kind, patch in planted.items() if patch and kind in kinds}


def gain(row: Row) -> dict[int, float]:
    """The power on another network minus its stronger control, by class."""
    columns = (row["classes"], row["n"], row["hits"], row["one_random_mask"], row["no_pattern"])
    return {y: (hits - max(controls)) / n for y, n, hits, *controls in zip(*columns)}


def beats_both(row: Row) -> list[bool]:
    """Whether each class's pattern beats random pixels and no pattern."""
    columns = (row["n"], row["hits"], row["one_random_mask"], row["no_pattern"])
    return [
        Scores(power_of(hits, n, none), at_random / n).beats_controls
        for n, hits, at_random, none in zip(*columns)
    ]


def transferred(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows by the kind of model that was tested; first each source on itself."""
    groups: dict[str, list[Row]] = {ITSELF: []}
    for row in rows:
        own = row["model"] == row["tested"]
        groups.setdefault(ITSELF if own else row["kind"], []).append(row)
    return ((kind, found) for kind, found in groups.items() if found)


def paired(
    one: Runs, other: Runs, value: Callable[..., ByClass], *which: Any
) -> dict[int, dict[int, float]]:
    """The differences of a value between models of the same seed, by class, seed by seed."""
    return {
        seed: difference(value(one[seed], *which), value(other[seed], *which))
        for seed in sorted(one.keys() & other.keys())
    }


def present(kinds: Mapping[str, object], names: Iterable[str]) -> list[str]:
    return [name for name in names if name in kinds]


def canvases_of(runs: Runs) -> list[str]:
    """The kinds of canvas of some models."""
    first = next(iter(runs.values()))
    return [canvas for canvas, area in first.settings if area == AREA]


def canvases_of_both(kinds: Kinds, one: str, other: str) -> list[str]:
    """Those of two kinds of model; none if no two models have the same seed."""
    if not kinds.get(one, {}).keys() & kinds.get(other, {}).keys():
        return []
    return canvases_of(kinds[one])


def title(canvas: str, area: float) -> str:
    return f"{canvas}, {100 * area:.3g} %"

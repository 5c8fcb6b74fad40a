"""Is a model backdoored? Decided from the scores of its classes alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

SUSPICIOUS, NOTHING, INCONCLUSIVE = "suspicious", "nothing found", "inconclusive"
DOUBT = 0.75  # share of both bounds from which a scan is inconclusive, and a class searched again
GROUP = 4  # one class in so many can be ahead together
FEWEST_CLASSES = 4  # for a decision by the lead alone
FRAGILE = 0.45  # power from which a class that is not ahead speaks against a backdoor


class Measure(NamedTuple):
    """What one search found for a class: its score, and the share of unseen images that are
    predicted as the class."""

    score: float
    power: float


class Bounds(NamedTuple):
    """The lead and the power that a suspicious class reaches."""

    lead: float
    power: float = 0.0


@dataclass(frozen=True)
class Standing:
    """The classes that are ahead of all others by one kind of change.

    Attributes:
        classes (list[int]): The first class, or a group of at most a quarter of all, the first one
            first.
        lead (float): How far the last of them is ahead of the next class.
        power (float): The least power of any of them.
        strength (float): Lead or power, each as a share of its bound, whichever is smaller: from 1,
            the classes are suspicious.
    """

    classes: list[int]
    lead: float
    power: float
    strength: float


def standing(measures: Mapping[int, Measure], bounds: Bounds, n_classes: int) -> Standing:
    r"""
    The classes that are ahead of all others.

    Two classes with one backdoor each would hide one another if only the first counted. So they may
    be a group of at most a quarter of the classes, which ends where the next class is furthest
    behind.

    Args:
        measures (Mapping): What was measured, by class.
        bounds (Bounds): Those of the kind of change.
        n_classes (int): Classes of the model, also those that were not measured.

    Returns:
        *Standing*

    Examples::

        >>> scores = [0.1, 3.0, 0.3, 2.5, 0.2, 0.0, 0.4, 0.0]
        >>> found = standing({y: Measure(s, 0.9) for y, s in enumerate(scores)}, Bounds(1.5), 8)
        >>> found.classes, round(found.lead, 1), round(found.strength, 1)
        ([1, 3], 2.1, 1.4)
    """
    order = sorted(measures, key=lambda y: -measures[y].score)
    scores = [measures[y].score for y in order]
    most = max(1, min(n_classes // GROUP, len(order) - 1))
    leads = [high - low for high, low in pairwise(scores)][:most] or [0.0]
    size, lead = 1 + leads.index(max(leads)), max(leads)
    power = min(measures[y].power for y in order[:size])
    shares = [lead / bounds.lead, *([power / bounds.power] if bounds.power else [])]
    return Standing(order[:size], lead, power, min(shares))


def lower_of_two(searches: Mapping[int, Sequence[Measure]]) -> dict[int, Measure]:
    """Of each class the lower score and the lower power of its searches."""
    return {
        y: Measure(min(each.score for each in both), min(each.power for each in both))
        for y, both in searches.items()
    }


def to_search_again(
    searches: Mapping[int, Sequence[Measure]], bounds: Bounds, n_classes: int
) -> list[int]:
    """The classes that decide and were searched only once."""
    ahead = standing(lower_of_two(searches), bounds, n_classes)
    if ahead.strength < DOUBT:
        return []
    return [y for y in ahead.classes if len(searches[y]) == 1]


@dataclass(frozen=True)
class Decision:
    """What all kinds of change say together.

    Attributes:
        verdict (str): ``"suspicious"``, ``"nothing found"`` or ``"inconclusive"``.
        kind (str): The change whose standing is the strongest.
        standings (dict[str, Standing]): The standing for each change, by the lower of two searches.
        reacting (list[int]): Classes that reach the power of a bound, with some change.
        other (float): The largest power of any class that is not ahead, with any change whose bound
            has a power. Default: 0 (there is none).
        disagreeing (bool): Whether one search alone passed the bounds.
    """

    verdict: str
    kind: str
    standings: Mapping[str, Standing]
    reacting: list[int]
    other: float
    disagreeing: bool

    @property
    def ahead(self) -> Standing:
        """The strongest standing."""
        return self.standings[self.kind]


def decide(
    searches: Mapping[str, Mapping[int, Sequence[Measure]]],
    bounds: Mapping[str, Bounds],
    n_classes: int,
) -> Decision:
    r"""
    The verdict on a model, from what was measured of its classes with each kind of change.

    A class is suspicious if it is ahead of all others, and reaches the power of the bound, in two
    searches. The scan is inconclusive if one search alone says so, or 75 % of the bounds are
    reached; if classes that are not ahead reach a power of 45 %, or one reaches the power of a
    bound and none is ahead, as in fragile networks; or if the lead alone would decide between fewer
    than four classes.

    Args:
        searches (Mapping): Of each kind of change, of each class, one or two measures.
        bounds (Mapping): Of each kind of change.
        n_classes (int): Classes of the model.

    Returns:
        *Decision*

    Examples::

        >>> once = {y: [Measure(0.0, 0.1)] for y in range(8)}
        >>> twice = once | {5: [Measure(4.0, 0.9), Measure(3.0, 0.8)]}
        >>> found = decide({"warp": once, "patch": twice}, dict.fromkeys(["warp", "patch"],
        ...                Bounds(1.5, 0.5)), 8)
        >>> found.verdict, found.kind, found.ahead.classes, found.ahead.lead
        ('suspicious', 'patch', [5], 3.0)
    """
    lower = {kind: lower_of_two(each) for kind, each in searches.items()}
    standings = {kind: standing(lower[kind], bounds[kind], n_classes) for kind in searches}
    first = [
        standing({y: each[0] for y, each in searches[kind].items()}, bounds[kind], n_classes)
        for kind in searches
    ]
    kind = max(standings, key=lambda kind: standings[kind].strength)
    by_power = [
        (y, measure.power, bounds[name].power)
        for name, each in lower.items()
        for y, measure in each.items()
        if bounds[name].power
    ]
    reacting = {y for y, power, bound in by_power if power >= bound}
    ahead = standings[kind].classes
    other = max((power for y, power, _ in by_power if y not in ahead), default=0.0)
    strength, disagreeing = standings[kind].strength, any(each.strength >= 1 for each in first)
    verdict = NOTHING
    if n_classes < FEWEST_CLASSES and not any(each.power for each in bounds.values()):
        verdict = INCONCLUSIVE
    elif strength >= 1 and other < FRAGILE:
        verdict = SUSPICIOUS
    elif disagreeing or reacting or strength >= DOUBT:
        verdict = INCONCLUSIVE
    return Decision(verdict, kind, standings, sorted(reacting), other, disagreeing)

"""Predictive power along one transform, and the range over which half of it stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from captum_classpattern.scores.invariance.transforms import Transform
from captum_classpattern.scores.power import Scores


@dataclass(frozen=True)
class HalfPowerRange:
    """
    The values of a transform between which at least half of the power stays.

    ``open_low`` and ``open_high`` report that half of it still stays at the lowest and at the
    highest tested value. The range ends there only because no test went further.
    """

    low: float
    high: float
    open_low: bool
    open_high: bool

    @property
    def width(self) -> float:
        """``high - low``: a lower bound if an end is open."""
        return self.high - self.low

    @property
    def is_open(self) -> bool:
        """Whether an end is open."""
        return self.open_low or self.open_high

    def __str__(self) -> str:
        tested = [
            f"{word} {end:.3g}"
            for word, end, is_open in (
                ("down to", self.low, self.open_low),
                ("up to", self.high, self.open_high),
            )
            if is_open
        ]
        note = f" (tested {' and '.join(tested)})" if tested else ""
        return f"{self.low:.3g} to {self.high:.3g}{note}"


@dataclass(frozen=True)
class InvarianceCurve:
    """
    The predictive power along one transform.

    ``points`` holds the :class:`~captum_classpattern.scores.Scores` at each value of the transform,
    in order, ``rest`` among them: the power of the pattern, of the same number of random pixels of
    its canvas, and the rate without a pattern, all under the same transform.
    """

    transform: Transform
    points: dict[float, Scores]

    @property
    def at_rest(self) -> Scores:
        """The scores where nothing changes."""
        return self.points[self.transform.rest]

    def kept(self, value: float) -> float | None:
        """The share of the power at rest that stays at a value: the margin above the stronger
        control, relative to the margin at rest. It can be negative, or above 1. None if the power
        at rest does not beat its controls."""
        at_rest = self.at_rest
        return self.points[value].margin / at_rest.margin if at_rest.beats_controls else None

    @property
    def half_power_range(self) -> HalfPowerRange | None:
        r"""
        The range over which at least half of the power stays.

        What stays at a value v is m(v), the power minus the larger of its two controls (random
        pixels and no pattern), all under the transform at v. The range is the largest interval
        around the value at rest, r, in which m(v) >= m(r) / 2, where m is linear between
        neighbouring tested values. So it ends at the first crossing on each side, also if the power
        comes back further away. A side without tested values ends at r. If no crossing is found,
        the range is open on that side: it ends at the last tested value.

        None if the power at rest does not beat both controls
        (:attr:`~captum_classpattern.scores.Scores.beats_controls`, which needs 100 images): then
        there is no power that could stay.
        """
        if not self.at_rest.beats_controls:
            return None
        values, rest = list(self.points), self.transform.rest
        low, open_low = self._end([value for value in reversed(values) if value <= rest])
        high, open_high = self._end([value for value in values if value >= rest])
        return HalfPowerRange(low, high, open_low, open_high)

    def _end(self, outwards: Sequence[float]) -> tuple[float, bool]:
        """Where a side of the range ends, and whether it is open there."""
        half = self.at_rest.margin / 2
        for near, far in pairwise(outwards):
            above, below = self.points[near].margin, self.points[far].margin
            if below < half:
                return near + (above - half) / (above - below) * (far - near), False
        return outwards[-1], len(outwards) > 1

"""Predictive power along one transform, and the range over which half of it stays."""

from dataclasses import dataclass
from itertools import pairwise

from captum_classpattern.invariance.transforms import Transform
from captum_classpattern.scores.intervals import Interval, wilson
from captum_classpattern.scores.power import PredictivePower, beats


@dataclass(frozen=True)
class InvariancePoint:
    """
    The predictive power at one value of a transform, next to its controls.

    ``power`` is that of the pattern, ``random_pixels`` that of as many random pixels of the same
    canvas. ``without`` of both is the rate without a pattern. All are under the same transform.
    """

    value: float
    power: PredictivePower
    random_pixels: PredictivePower

    @property
    def no_pattern(self) -> float:
        """The share of the transformed images that the model classifies so without a pattern."""
        return self.power.without

    @property
    def no_pattern_interval(self) -> Interval:
        """Its Wilson 95 % interval."""
        return wilson(round(self.no_pattern * self.power.n), self.power.n)

    @property
    def margin(self) -> float:
        """How far the power is above the stronger of its two controls."""
        return self.power.value - max(self.random_pixels.value, self.no_pattern)

    @property
    def beats_controls(self) -> bool:
        """Whether the power is above both controls, on at least 100 images: the 95 % interval of
        each difference (:func:`~captum_classpattern.scores.intervals.newcombe`) is above 0."""
        controls = self.random_pixels.value, self.no_pattern
        return beats(self.power, ((share, self.power.n) for share in controls))


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
    The predictive power along one transform: a point for each value, sorted, ``rest`` among them.
    """

    transform: Transform
    points: tuple[InvariancePoint, ...]

    @property
    def at_rest(self) -> InvariancePoint:
        """The point where nothing changes."""
        return next(p for p in self.points if p.value == self.transform.rest)

    def kept(self, point: InvariancePoint) -> float | None:
        """The share of the power at rest that stays at a point: the margin above the stronger
        control, relative to the margin at rest. It can be negative, or above 1. None if the power
        at rest does not beat its controls."""
        return point.margin / self.at_rest.margin if self.at_rest.beats_controls else None

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
        (:attr:`InvariancePoint.beats_controls`, which needs 100 images): then there is no power
        that could stay.
        """
        if not self.at_rest.beats_controls:
            return None
        place = self.points.index(self.at_rest)
        low, open_low = self._end(self.points[place::-1])
        high, open_high = self._end(self.points[place:])
        return HalfPowerRange(low, high, open_low, open_high)

    def _end(self, outwards: tuple[InvariancePoint, ...]) -> tuple[float, bool]:
        """Where a side of the range ends, and whether it is open there."""
        half = self.at_rest.margin / 2
        for near, far in pairwise(outwards):
            if far.margin < half:
                share = (near.margin - half) / (near.margin - far.margin)
                return near.value + share * (far.value - near.value), False
        return outwards[-1].value, len(outwards) > 1

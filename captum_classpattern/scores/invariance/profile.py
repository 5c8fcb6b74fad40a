"""The invariance profile: how predictive power changes under many transforms."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from captum_classpattern._validation import ArgumentTypeError, suggest_names
from captum_classpattern.classifier import Classifier, device_and_dtype, outputs_for, preserve_state
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.invariance.transforms import Transform, known_transforms
from captum_classpattern.scores.power import (
    PredictivePower,
    Scores,
    images_to_score,
    power_of,
    random_pixels,
)

DRAWS = 3  # of random pixels
# what is measured and drawn as a line, and its columns in tables
COLUMNS = {"pattern": "power", "random pixels": "random_pixels", "no pattern": "no_pattern"}
LINES = tuple(COLUMNS)

# what is measured (of which transform at which value), what is stamped (None: nothing), and how the
# stamped images are changed; of all trials that measure the same, the mean counts
Trial: TypeAlias = tuple[tuple[Any, ...], Pattern | None, Callable[[Tensor], Tensor]]


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
        tested = [f"down to {self.low:.3g}"] * self.open_low
        tested += [f"up to {self.high:.3g}"] * self.open_high
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


@dataclass(frozen=True, eq=False, repr=False)
class InvarianceProfile(Result):
    """
    A pattern's predictive power under many transforms: what :func:`invariance_profile` returns.

    ``pattern`` is the binary pattern, and ``curves`` has an :class:`InvarianceCurve` for each
    transform, by its name. ``plot`` draws a panel for each transform: the power of the pattern, of
    random pixels, and the rate without a pattern, with their 95 % intervals. The range over which
    half of the power stays is shaded.
    """

    pattern: Pattern
    curves: dict[str, InvarianceCurve]

    @property
    def scores(self) -> Scores:
        """The power and its controls where nothing is changed."""
        return next(iter(self.curves.values())).at_rest

    @property
    def power(self) -> PredictivePower:
        """The power where nothing is changed, as :func:`~captum_classpattern.predictive_power`
        measures it."""
        return self.scores.power

    def table(self) -> Any:
        """A pandas DataFrame with a row for each transform and value: the power, its controls,
        their Wilson 95 % intervals, and ``kept``, the share of the power that stays
        (:meth:`InvarianceCurve.kept`)."""
        rows = []
        for name, curve in self.curves.items():
            for value, scores in curve.points.items():
                row = {"transform": name, "of": curve.transform.of, "value": value}
                row["unit"] = curve.transform.unit
                for what, column in COLUMNS.items():
                    ends = (column, f"{column}_low", f"{column}_high")
                    row |= zip(ends, scores.with_intervals[what])
                rows.append({**row, "kept": curve.kept(value), "images": scores.power.n})
        return as_table(rows)

    def ranges(self) -> Any:
        """A pandas DataFrame with a row for each transform: the range over which at least half of
        the power stays (:attr:`InvarianceCurve.half_power_range`), and whether its ends are open.
        All of these are None if the power at rest does not beat its controls."""
        ends = ("low", "high", "width", "open_low", "open_high")
        rows = []
        for name, curve in self.curves.items():
            row = {"transform": name, "unit": curve.transform.unit, "rest": curve.transform.rest}
            half = curve.half_power_range
            rows.append({**row, **{end: getattr(half, end, None) for end in ends}})
        return as_table(rows)

    def __repr__(self) -> str:
        return f"InvarianceProfile({self.pattern.label}: {self.power}; {', '.join(self.curves)})"


def invariance_profile(
    forward_func: Classifier,
    pattern: Pattern,
    images: Images,
    labels: Labels = None,
    transforms: Iterable[str | Transform] | None = None,
    *,
    area: float | None = 0.05,
    show_progress: bool = False,
) -> InvarianceProfile:
    r"""
    Measures to what a class's pattern is invariant: its predictive power on held-out images while
    the pattern is shifted, scaled, rotated or thinned out, or while the stamped images get
    brighter, blurred and so on.

    Each value of each transform has two controls: as many random pixels of the same canvas (3
    draws) under the same transform, and the images without a pattern (transformed, if the transform
    changes images). Hits are averaged over the variants of a transform, such as the directions of a
    shift, and over the draws. The intervals are those of as many images, not of as many trials,
    because all variants see the same images. The same arguments give the same profile.

    One number sums up each curve: the range over which at least half of the power stays, see
    :attr:`InvarianceCurve.half_power_range`.

    Args:
        forward_func, pattern, images, labels: As in :func:`predictive_power`.
        transforms (Iterable[str or Transform], optional): Names from :func:`known_transforms`, or
            your own. Default: None (all known ones that take images with this number of channels:
            hue takes colour images alone).
        area (float, optional): As in :func:`predictive_power`. With None, the random pixels are as
            many as have any weight. Default: 0.05.
        show_progress (bool): Draws a progress bar. All known transforms take about 400 forward
            passes for each image. Default: False.

    Returns:
        *InvarianceProfile*: A curve for each transform, with a table and a figure.

    Raises:
        TypeError: If a transform is neither a name nor a :class:`Transform`, or returns something
            else than it was given.
        ValueError: As :func:`predictive_power`; also if a transform is unknown, given twice, or
            takes another number of channels; or if the mask has none or all of the pixels.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> with torch.no_grad():  # one bright pixel decides
        ...     _ = net[1].weight.zero_()
        ...     net[1].weight[0, 27], net[1].bias[:] = 10.0, torch.tensor([-8.0, 0.0, 0.0])
        >>> mask = torch.zeros(1, 8, 8)
        >>> mask[0, 3, 3] = 1
        >>> pattern = Pattern(torch.ones(1, 8, 8), mask, target=0)
        >>> images, labels = 0.5 * torch.rand(120, 1, 8, 8), [1] * 120
        >>> profile = invariance_profile(
        ...     net, pattern, images, labels, ["shift", "brightness"], area=None)
        >>> profile.power.value, str(profile.curves["shift"].half_power_range)
        (1.0, '0 to 0.5')
        >>> [scores.power.value for scores in profile.curves["brightness"].points.values()][:4]
        [0.0, 0.0, 0.0, 1.0]
    """
    chosen = _chosen(transforms, pattern.canvas.shape[0])
    with preserve_state(forward_func, seed=0):
        others = images_to_score(forward_func, pattern, images, labels)
        binary = pattern if area is None else pattern.topk(area)
        kept, total = int((binary.mask > 0).sum()), binary.mask.numel()
        if kept in (0, total):
            raise ValueError(
                f"the pattern's mask has weight on {'none' if kept == 0 else 'all'} of its {total} "
                "pixels, so random pixels can't be compared with it: give an area"
            )
        controls = [random_pixels(binary, kept / total, seed) for seed in range(DRAWS)]
        trials = list(_trials(binary, controls, chosen))
        hits = _mean_hits(forward_func, trials, others, binary, show_progress)

    def scores(transform: Transform, value: float) -> Scores:
        pattern, random, bare = (  # what a transform doesn't change is counted once
            hits.get((what, transform.name, value), hits[what,]) for what in LINES
        )
        return Scores(power_of(pattern, len(others), bare), random / len(others))

    curves = {
        t.name: InvarianceCurve(t, {v: scores(t, v) for v in sorted((*t.values, t.rest))})
        for t in chosen
    }
    return InvarianceProfile(binary, curves)


def _chosen(transforms: Iterable[str | Transform] | None, channels: int) -> list[Transform]:
    known = known_transforms()
    if transforms is None:
        return [t for t in known.values() if t.fits(channels)]
    chosen = [transforms] if isinstance(transforms, str | Transform) else list(transforms)
    found: dict[str, Transform] = {}
    for given in chosen:
        if not isinstance(given, str | Transform):
            raise ArgumentTypeError(
                f"transforms must be names or Transform objects, got {given!r:.80}"
            )
        if isinstance(given, str) and given not in known:
            raise ValueError(f"there is no transform {given!r}{suggest_names(given, known)}")
        transform = known[given] if isinstance(given, str) else given
        if transform.name in found:
            raise ValueError(
                f"transform {transform.name!r} is given twice: leave one out, or rename it"
            )
        if not transform.fits(channels):
            takes = " or ".join(map(str, transform.channels or ()))
            raise ValueError(
                f"transform {transform.name!r} takes images with {takes} channels, but the "
                f"pattern has {channels}: leave it out"
            )
        found[transform.name] = transform
    if not found:
        raise ValueError("transforms must have at least one transform; None takes all")
    return list(found.values())


def _trials(
    binary: Pattern, controls: Sequence[Pattern], transforms: Sequence[Transform]
) -> Iterator[Trial]:
    """Everything that is to be counted. The variants of a transform and the draws of random pixels
    are paired, so that each occurs, but not each with each."""
    yield ("pattern",), binary, _unchanged
    yield ("no pattern",), None, _unchanged
    for control in controls:
        yield ("random pixels",), control, _unchanged
    for transform, value in ((t, value) for t in transforms for value in t.values):
        place, variants = (transform.name, value), range(transform.variants)
        changes = [partial(transform.of_images, value=value, variant=v) for v in variants]
        for variant, change in enumerate(changes):
            yield ("pattern", *place), transform.of_pattern(binary, value, variant), change
            if transform.of == "image":
                yield ("no pattern", *place), None, change
        for i in range(max(len(variants), len(controls))):
            variant, control = i % len(variants), controls[i % len(controls)]
            moved = transform.of_pattern(control, value, variant)
            yield ("random pixels", *place), moved, changes[variant]


def _unchanged(images: Tensor) -> Tensor:
    return images


def _mean_hits(
    forward_func: Classifier,
    trials: Sequence[Trial],
    source: LabelledImages,
    pattern: Pattern,
    show_progress: bool,
) -> dict[tuple[Any, ...], float]:
    """How many images become the pattern's class, on average over the trials that measure the same.
    Each batch of images is loaded once."""
    device, dtype = device_and_dtype(forward_func, pattern.canvas)
    counts = torch.zeros(len(trials), dtype=torch.int64, device=device)
    with tqdm(desc="profile", total=len(trials) * len(source), disable=not show_progress) as bar:
        for batch in source.in_order():
            images = batch.to(device, dtype)
            for i, (_, stamped, change) in enumerate(trials):
                changed = change(images if stamped is None else stamped.stamp(images))
                counts[i] += (outputs_for(forward_func, changed).argmax(1) == pattern.target).sum()
                bar.update(len(images))
    hits: dict[tuple[Any, ...], list[int]] = {}
    for (measured, *_), count in zip(trials, counts.tolist()):
        hits.setdefault(measured, []).append(count)
    return {measured: fmean(of_trials) for measured, of_trials in hits.items()}

"""The invariance profile: how predictive power changes under many transforms."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from captum_classpattern._validation import ArgumentTypeError, suggest_names
from captum_classpattern.classifier import (
    Classifier,
    device_and_dtype,
    predict,
    preserve_state,
)
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.invariance.curves import InvarianceCurve
from captum_classpattern.scores.invariance.transforms import Transform, known_transforms
from captum_classpattern.scores.power import (
    PredictivePower,
    Scores,
    images_to_score,
    power_of,
    random_pixels,
)

DRAWS = 3  # of random pixels
LINES = ("pattern", "random pixels", "no pattern")  # what is measured, and drawn as a line


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
        return as_table(
            [
                {
                    "transform": name,
                    "of": curve.transform.of,
                    "value": value,
                    "unit": curve.transform.unit,
                    **_columns(scores),
                    "kept": curve.kept(value),
                    "images": scores.power.n,
                }
                for name, curve in self.curves.items()
                for value, scores in curve.points.items()
            ]
        )

    def ranges(self) -> Any:
        """A pandas DataFrame with a row for each transform: the range over which at least half of
        the power stays (:attr:`InvarianceCurve.half_power_range`), and whether its ends are open.
        All of these are None if the power at rest does not beat its controls."""
        ends = ("low", "high", "width", "open_low", "open_high")
        return as_table(
            [
                {
                    "transform": name,
                    "unit": curve.transform.unit,
                    "rest": curve.transform.rest,
                    **{end: getattr(curve.half_power_range, end, None) for end in ends},
                }
                for name, curve in self.curves.items()
            ]
        )

    def __repr__(self) -> str:
        return f"InvarianceProfile({self.pattern.label}: {self.power}; {', '.join(self.curves)})"


def _columns(scores: Scores) -> dict[str, float]:
    """The power and its controls, each with the ends of its interval."""
    measured = scores.with_intervals
    return {
        f"{name}{end}": number
        for what, name in zip(LINES, ("power", "random_pixels", "no_pattern"))
        for end, number in zip(("", "_low", "_high"), measured[what])
    }


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
        trials = list(_trials(binary, _random_patterns(binary), chosen))
        hits = _count_hits(forward_func, trials, others, binary, show_progress)

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


def _random_patterns(binary: Pattern) -> list[Pattern]:
    """The first control: as many pixels of the same canvas, chosen at random."""
    kept, total = int((binary.mask > 0).sum()), binary.mask.numel()
    if kept in (0, total):
        raise ValueError(
            f"the pattern's mask has weight on {'none' if kept == 0 else 'all'} of its {total} "
            "pixels, so random pixels can't be compared with it: give an area"
        )
    return [random_pixels(binary, kept / total, seed) for seed in range(DRAWS)]


class _Trial(NamedTuple):
    """What is stamped (None: nothing), and how the stamped images are changed. Of all trials of one
    kind (pattern, random pixels or no pattern, and unless nothing is changed the transform's name
    and value), the mean counts."""

    kind: tuple[str | float, ...]
    pattern: Pattern | None
    change: Callable[[Tensor], Tensor]


def _trials(
    binary: Pattern, controls: Sequence[Pattern], transforms: Sequence[Transform]
) -> Iterator[_Trial]:
    """Everything that is to be counted. The variants of a transform and the draws of random pixels
    are paired, so that each occurs, but not each with each."""
    yield _Trial(("pattern",), binary, _unchanged)
    yield _Trial(("no pattern",), None, _unchanged)
    for control in controls:
        yield _Trial(("random pixels",), control, _unchanged)
    for transform, value in ((t, value) for t in transforms for value in t.values):
        place = transform.name, value
        changes = [
            partial(transform.of_images, value=value, variant=variant)
            for variant in range(transform.variants)
        ]
        for variant, change in enumerate(changes):
            moved = transform.of_pattern(binary, value, variant)
            yield _Trial(("pattern", *place), moved, change)
            if transform.of == "image":
                yield _Trial(("no pattern", *place), None, change)
        for i in range(max(transform.variants, len(controls))):
            variant, control = i % transform.variants, controls[i % len(controls)]
            moved = transform.of_pattern(control, value, variant)
            yield _Trial(("random pixels", *place), moved, changes[variant])


def _unchanged(images: Tensor) -> Tensor:
    return images


def _count_hits(
    forward_func: Classifier,
    trials: Sequence[_Trial],
    source: LabelledImages,
    pattern: Pattern,
    show_progress: bool,
) -> dict[tuple[str | float, ...], float]:
    """How many images become the pattern's class, on average over the trials of each kind. Each
    batch of images is loaded once."""
    device, dtype = device_and_dtype(forward_func, pattern.canvas)
    counts = torch.zeros(len(trials), dtype=torch.int64, device=device)
    bar = tqdm(desc="profile", total=len(trials) * len(source), disable=not show_progress)
    with bar:
        for batch in source.in_order():
            images = batch.to(device, dtype)
            for i, trial in enumerate(trials):
                stamped = images if trial.pattern is None else trial.pattern.stamp(images)
                predicted = predict(forward_func, trial.change(stamped))
                counts[i] += (predicted == pattern.target).sum()
                bar.update(len(images))
    hits: dict[tuple[str | float, ...], list[int]] = {}
    for trial, count in zip(trials, counts.tolist()):
        hits.setdefault(trial.kind, []).append(count)
    return {kind: fmean(of_kind) for kind, of_kind in hits.items()}

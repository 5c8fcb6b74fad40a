"""Predictive power: how many held-out images the model classifies as a pattern's class."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._support.progress import advance_bar
from captum_classpattern._support.topk import pixels_kept
from captum_classpattern._support.validation import check_seed, counted, is_whole, join_names
from captum_classpattern.classifier import (
    CheckedModel,
    Classifier,
    check_targets,
    enter_model,
    images_at_once,
)
from captum_classpattern.images import (
    Images,
    LabelledImages,
    Labels,
    ensure_labels,
    evenly_spaced,
    first_of,
    predictions,
)
from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.intervals import Interval, newcombe, wilson

SQUARES, SQUARE_IMAGES = 32, 12  # that compete to be a patch's control; images that choose it
CONTROLS = ("random_pixels", "other_canvas", "best_square")
OF_PATCHES = {"random_pixels": "shuffled pixels", "other_canvas": "other patch"}  # their names
ENOUGH_IMAGES = 100  # with fewer, no power is said to beat its controls
MANY_CLASSES = 20  # with fewer, a class is among the five first by chance too often


@dataclass(frozen=True, repr=False)
class PredictivePower(Result):
    """Share of held-out images that the model classifies as the pattern's class once stamped.
    ``plot`` draws it with its interval and the share without the pattern.

    ``interval`` is the Wilson 95 % interval of ``value``, ``n`` the number of images (none of the
    pattern's class), and ``without`` the same share without the pattern. ``mean_margin`` is the
    mean of the class's logit minus the largest other one. ``top5`` is the share of images with the
    class among the five largest logits, for models of 20 classes or more. Both say how near a
    pattern comes where the power is 0; None if they were not measured.
    """

    value: float
    interval: tuple[float, float]
    n: int
    without: float
    top5: float | None = None
    mean_margin: float | None = None

    def __repr__(self) -> str:
        return f"PredictivePower({self})"

    def text(self) -> str:
        """The power, with its interval and the share without the pattern."""
        return f"Predictive power: {self}"

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.patterns import draw_power

        return draw_power(self.bar(), use_pyplot=use_pyplot)

    def bar(self) -> Any:
        """What figures draw of it: the control is the share without the pattern."""
        from captum_classpattern.visualization.patterns import PowerBar

        return PowerBar(self.value, self.interval, "no pattern", self.without)

    def sections(self, whole: bool) -> Iterable[Any]:
        return [self.plot]  # the text has the numbers

    def table(self) -> Any:
        """The numbers as a pandas DataFrame of one row, which can be joined with others: ``power``
        with the ends of its 95 % interval (``low``, ``high``), the number of ``images``,
        ``no_pattern``, ``top5`` and ``mean_margin``."""
        return as_table([self.as_columns()])

    def as_columns(self) -> dict[str, Any]:
        """The columns of :meth:`table`."""
        low, high = self.interval
        return {
            "power": self.value,
            "low": low,
            "high": high,
            "images": self.n,
            "no_pattern": self.without,
            "top5": self.top5,
            "mean_margin": self.mean_margin,
        }

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        return (
            f"{100 * self.value:.1f} % of {counted(self.n, 'image')} (95 % interval {low:.1f}-"
            f"{high:.1f}), {100 * self.without:.1f} % without the pattern"
        )


@dataclass(frozen=True)
class Scores:
    """A pattern's predictive power, and its controls under the same conditions.

    ``random_pixels`` is the power of the same number of random pixels of the canvas,
    ``other_canvas`` that of the same mask over the canvas of another class (None: not measured).
    All were measured on ``control_images`` images; None if these were all images.

    If the pattern is ``moving``, ``random_pixels`` is the power of its pixels in random order,
    ``other_canvas`` that of a patch that was searched for another class, and ``best_square`` that
    of the best of 32 squares that were cut from images of its class (None: there are none).
    """

    power: PredictivePower
    random_pixels: float
    other_canvas: float | None = None
    control_images: int | None = None
    best_square: float | None = None
    moving: bool = False

    @property
    def controls(self) -> dict[str, float]:
        """The controls that were measured, by name: no pattern, random pixels (of a moving patch,
        shuffled pixels), other canvas (other patch), best square."""
        controls = {"no pattern": self.power.without}
        for name in CONTROLS:
            if (share := getattr(self, name)) is not None:
                usual = name.replace("_", " ")
                controls[OF_PATCHES.get(name, usual) if self.moving else usual] = share
        return controls

    @property
    def strongest_control(self) -> float:
        """The largest of the controls."""
        return self.controls[self.strongest_name]

    @property
    def strongest_name(self) -> str:
        """Which of the :attr:`controls` that is."""
        return max(self.controls, key=lambda name: self.controls[name])

    @property
    def enough_images(self) -> bool:
        """Whether there are enough images (100) to say that a power beats its controls."""
        return self.power.n >= ENOUGH_IMAGES

    @property
    def beats_controls(self) -> bool:
        """Whether the power beats all controls, on at least 100 images: the 95 % interval of the
        difference to each of them lies above 0."""
        n, images = self.power.n, self.control_images or self.power.n
        return self.enough_images and all(
            self.interval_above(share, n if name == "no pattern" else images)[0] > 0
            for name, share in self.controls.items()
        )

    @property
    def is_weak(self) -> bool:
        """Whether there are enough images, and the power does not beat all controls."""
        return self.enough_images and not self.beats_controls

    def bar(self) -> Any:
        """What figures draw of it."""
        from captum_classpattern.visualization.patterns import PowerBar

        return PowerBar(
            self.power.value,
            self.power.interval,
            self.strongest_name,
            self.strongest_control,
            is_weak=self.is_weak,
            too_few=not self.enough_images,
        )

    def interval_above(self, value: float, n: int) -> Interval:
        """The 95 % interval of the difference between the power and another share, of n images; see
        :func:`~captum_classpattern.scores.intervals.newcombe`."""
        hits = round(self.power.value * self.power.n)
        return newcombe(hits, self.power.n, round(value * n), n)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "power": self.power.value,
            "interval": list(self.power.interval),
            "n": self.power.n,
            "no_pattern": self.power.without,
            "top5": self.power.top5,
            "mean_margin": self.power.mean_margin,
            **{name: getattr(self, name) for name in (*CONTROLS, "control_images")},
        }

    def as_columns(self) -> dict[str, Any]:
        """The columns of tables: the power with its interval, the strongest ``control``, and all
        controls that were measured."""
        shares = {name: getattr(self, name) for name in CONTROLS}
        measured = {name: share for name, share in shares.items() if share is not None}
        columns = self.power.as_columns() | {"control": self.strongest_control} | measured
        return columns | {"beats_controls": self.beats_controls}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], *, moving: bool = False) -> "Scores":
        """The scores that :meth:`as_dict` wrote, of a moving patch or not."""
        (low, high), margin = row["interval"], row.get("mean_margin")
        near = row.get("top5"), None if margin is None else float(margin)
        power = PredictivePower(row["power"], (low, high), row["n"], row["no_pattern"], *near)
        controls = row["random_pixels"], row["other_canvas"], row.get("control_images")
        scores = cls(power, *controls, row.get("best_square"), moving)
        shares = [power.value, low, high, power.top5 or 0.0, *scores.controls.values()]
        counts = [power.n, scores.control_images or power.n]
        possible = all(0 <= share <= 1 for share in shares) and all(map(is_whole, counts))
        if not possible or not 0 < min(counts) <= max(counts) < 2**31:
            raise ValueError("it has impossible scores")
        return scores


def predictive_power(
    forward_func: Classifier,
    pattern: Pattern,
    images: Images,
    labels: Labels = None,
    area: float | None = 0.05,
    *,
    seed: int = 0,
) -> PredictivePower:
    r"""
    The share of held-out images that are classified as the pattern's class once they are stamped
    with the binary pattern (Zhao et al. 2021, arXiv 2101.06898, section 4).

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        pattern (Pattern): The pattern.
        images (LabelledImages, Tensor, Dataset or DataLoader): Held-out images, (C, H, W) each,
            in [0, 1]. Those of the pattern's class are left out. Classes that have names are
            matched with the classifier's, see :meth:`LabelledImages.for_classifier`.
        labels (Tensor, Sequence[int] or Sequence[str], optional): Their classes, by number or name.
            Default: None (those that come with the images, else the classifier's predictions).
        area (float, optional): Share of the pixels to keep, see :meth:`Pattern.topk`; None uses
            the mask unchanged. A moving patch is always scored as it is. Default: 0.05.
        seed (int): Seed of the places of a moving patch, one for each image; for its power at one
            place, see :meth:`MovingPattern.at`. Default: 0.

    Returns:
        *PredictivePower*: Value, Wilson 95 % interval, number of images, and the share without
        the pattern.

    Raises:
        ValueError: If some of these images were used in the pattern's search, if none are left
            after those of its class are removed, or if shapes, pixels, area or target do not fit.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target=0)
        >>> power = predictive_power(net, pattern, torch.rand(40, 1, 8, 8), [1] * 40)
        >>> power.n, power.interval[0] <= power.value <= power.interval[1]
        (40, True)
    """
    with enter_model(forward_func, pattern.stamp(first_of(images).to(pattern.canvas))) as model:
        source = LabelledImages.of(images, labels, model)
        pattern = pattern.to(model.device)
        check_targets([pattern.target], model.n_classes)
        return power_on(model, pattern, ensure_labels(model, source), area, check_seed(seed))


def power_on(
    model: CheckedModel, pattern: Pattern, images: LabelledImages, area: float | None, seed: int
) -> PredictivePower:
    """See :func:`predictive_power`; the images have the model's class numbers."""
    check_unseen(pattern, images)
    others = images.without_class(pattern.target)
    if len(others) == 0:
        raise ValueError(
            f"no images are left to score on: all {len(images)} are of the pattern's class "
            f"{pattern.target}"
        )
    binary = pattern if area is None else pattern.topk(area)
    return Scorer(model, others).power(binary, seed)


class Scorer:
    """Scores patterns on a classifier and images, which it classifies once without them.

    ``predicted`` has the class that the classifier predicts for each of the images, int64 (N,).
    These are the labels of ``images`` if they have none. ``others(target)`` are the images that are
    not of a class.
    """

    def __init__(self, model: CheckedModel, images: LabelledImages) -> None:
        self.model, self.predicted = model, predictions(model, images)
        self.images = images.with_labels(self.predicted) if images.labels is None else images
        self.others = lru_cache(maxsize=16)(self.images.without_class)

    def power(self, pattern: Pattern, seed: int = 0) -> PredictivePower:
        """The power of a pattern as it is, on the images of other classes."""
        others = self.others(pattern.target)
        predicted = self.predicted[self.images.known_labels != pattern.target]
        n, hits = len(others), judge(self.model, pattern, others, seed)
        power = power_of(hits.hits, n, int((predicted == pattern.target).sum()))
        top5 = None if hits.top5 is None else hits.top5 / n
        return replace(power, top5=top5, mean_margin=hits.margin)


def power_of(hits: float, n: int, hits_without: float) -> PredictivePower:
    """The predictive power from counts of images: hits with and without the pattern, of n. Hits may
    be means of several counts; the interval is that of the nearest whole number."""
    whole = round(round(hits, 6))  # a mean may have a rounding error
    return PredictivePower(hits / n, wilson(whole, n), n, hits_without / n)


class Hits(NamedTuple):
    """How many images are classified as a class, how many have it among the five largest logits
    (None for few classes), and its mean margin: its logit minus the largest other one."""

    hits: int
    margin: float
    top5: int | None


class StampTest(NamedTuple):
    """Images that are classified once they are changed, n with ``additional_for(n)``."""

    change: Callable[[Tensor], Tensor]
    target: int
    images: LabelledImages
    additional_for: Callable[[int], tuple[Any, ...]] = lambda n: ()


def judge(model: CheckedModel, pattern: Pattern, images: LabelledImages, seed: int = 0) -> Hits:
    """How images are classified that are stamped with a pattern as it is."""
    return judge_each(model, [StampTest(pattern.stamper(seed), pattern.target, images)])[0]


def judge_each(
    model: CheckedModel, judged: Sequence[StampTest], batch_size: int | None = None
) -> list[Hits]:
    """How the images of each are classified; the margin is 0 if there are none. What is counted
    stays on the device until the end: each look at it would wait."""
    tallies, sizes, n_classes = list[Tensor](), [0] * len(judged), model.n_classes
    for group in _calls(judged, model.device, model.dtype, batch_size):
        parts = [images for _, images, _ in group]
        images = torch.cat(parts) if len(parts) > 1 else parts[0]
        outputs = model.outputs(images, group[0][2])
        advance_bar(len(images))
        logits_of_parts = torch.split(outputs, [len(part) for part in parts])
        for (number, _, _), logits in zip(group, logits_of_parts):
            target, sizes[number] = judged[number].target, sizes[number] + len(logits)
            hit = logits.argmax(1) == target  # as it predicts: float32 may be coarser
            five = (logits.topk(min(5, n_classes)).indices == target).any(1)
            margins = margins_of(logits.float(), target)
            tallies.append(torch.stack([hit.float(), five.float(), margins]))
    hits, fives, margin = torch.cat(tallies, 1).tolist() if tallies else ([], [], [])
    found, end = list[Hits](), 0
    for size in sizes:
        own, end = slice(end, end + size), end + size
        top5 = int(sum(fives[own])) if n_classes >= MANY_CLASSES else None
        mean = math.fsum(margin[own]) / max(1, size)
        found.append(Hits(int(sum(hits[own])), mean, top5))
    return found


def _calls(
    judged: Sequence[StampTest], device: torch.device, dtype: torch.dtype, batch_size: int | None
) -> Iterator[list[tuple[int, Tensor, tuple[Any, ...]]]]:
    """The changed images of each call, in parts: what is judged, by its place, the images, and
    their additional arguments. On a CPU, and with such arguments, each part is alone."""
    most, group = images_at_once(device), list[tuple[int, Tensor, tuple[Any, ...]]]()
    for place, (change, _, source, additional_for) in enumerate(judged):
        for images in source.in_order(batch_size, most):
            part = place, change(images.to(device, dtype)), additional_for(len(images))
            size = len(images) + sum(len(each) for _, each, _ in group)
            if group and (device.type == "cpu" or part[2] or size > min(batch_size or most, most)):
                yield group
                group = []
            group.append(part)
    if group:
        yield group


def margins_of(logits: Tensor, target: int) -> Tensor:
    """How far the logit of a class is above the largest other one, for logits (N, K)."""
    others = logits.clone()
    others[:, target] = -torch.inf
    return logits[:, target] - others.amax(1)


def check_unseen(pattern: Pattern, source: LabelledImages) -> None:
    """Raises an error if the pattern's search used images of other classes, or is unknown."""
    if pattern.seen is None:
        raise ValueError(
            "the images that this pattern was searched on are unknown: search it again"
        )
    others = torch.nonzero(source.known_labels != pattern.target).flatten().tolist()
    hashes = source.hashes if pattern.seen else []
    repeated = [str(i) for i in others if hashes and hashes[i] in pattern.seen]
    if repeated:
        raise ValueError(
            f"{len(repeated)} of {len(source)} images were used to search this pattern, or are "
            f"exact copies of such images (number {join_names(repeated)}): a pattern can only be "
            "scored on held-out images; leave these out"
        )


def random_pixels(pattern: Pattern, area: float, seed: int) -> Pattern:
    """A control: as many pixels of the same canvas, chosen at random; as many as the area allows,
    if the pattern is empty. Of a moving patch its own pixels, in random order."""
    if isinstance(pattern, MovingPattern):
        return pattern.shuffled(seed)
    shape = pattern.mask.shape[-2:]
    kept = int(pattern.topk(area).mask.count_nonzero()) or pixels_kept(area, shape)
    mask = random_mask(kept, shape, torch.Generator().manual_seed(seed))
    return replace(pattern, mask=mask.to(pattern.mask))


def best_square(
    model: CheckedModel, patch: MovingPattern, search: LabelledImages, seed: int
) -> MovingPattern | None:
    """A control: of 32 squares of a patch's side, cut at random from search images of its class,
    the one that raises the mean margin most on 12 others. None if there are none of its class."""
    own, target = search.of_class(patch.target), patch.target
    if not len(own):
        return None
    chance, side, size = np.random.default_rng([seed, target]), patch.side, patch.size
    squares, opaque = list[MovingPattern](), torch.ones_like(patch.mask)
    for image in own.take(chance.integers(len(own), size=SQUARES).tolist()).to(patch.canvas):
        row, column = (int(chance.integers(n - side + 1)) for n in size)
        colours = image[:, row : row + side, column : column + side]
        squares.append(MovingPattern(colours, opaque, target, size=size))
    return best_of(model, squares, search.without_class(target), seed)


def best_of(
    model: CheckedModel, squares: Sequence[MovingPattern], others: LabelledImages, seed: int
) -> MovingPattern:
    """The square that raises the mean margin most on 12 of some images."""
    others = others.subset(evenly_spaced(len(others), SQUARE_IMAGES))
    judged = [StampTest(each.stamper(seed), each.target, others) for each in squares]
    margins = [hits.margin for hits in judge_each(model, judged)]
    return squares[margins.index(max(margins))]


def random_mask(k: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A binary mask (1, H, W) of k random pixels."""
    height, width = shape
    mask = torch.zeros(height * width)
    mask[torch.randperm(height * width, generator=generator)[:k]] = 1.0
    return mask.view(1, height, width)

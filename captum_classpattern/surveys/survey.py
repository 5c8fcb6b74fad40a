"""All classes of one model: search on a few canvases, keep the best, score it and its controls."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import check_seed, is_whole
from captum_classpattern.attribution import ClassPattern
from captum_classpattern.canvases import SOLID_COLOURS, STRATEGIES, select_canvases
from captum_classpattern.class_names import parse_targets
from captum_classpattern.classifier import (
    Classifier,
    check_classifier,
    device_and_dtype,
    preserve_state,
    warn_if_guessing,
)
from captum_classpattern.images import (
    ImagesAndLabels,
    LabelledImages,
    ensure_labels,
    evenly_spaced,
    predictions,
)
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.intervals import Interval, newcombe
from captum_classpattern.scores.power import (
    PredictivePower,
    check_unseen,
    count_hits,
    power_of,
    random_pixels,
)

CANVASES: Mapping[str, int] = {"positive": 2, "white": 2}
AREAS = (0.05, 0.01)
DRAWS, CONTROL_IMAGES = 3, 300  # of random pixels; most images that a control is scored on
ENOUGH_IMAGES = 100  # below, nothing is said to beat its controls


@dataclass(frozen=True)
class Scores:
    """A pattern's predictive power at one area, and its controls at the same area.

    ``control_images`` is how many images random pixels and the other canvas were scored on; None
    where these were all.
    """

    power: PredictivePower
    random_pixels: float
    other_canvas: float
    control_images: int | None = None

    @property
    def strongest_control(self) -> float:
        """The largest of no pattern, random pixels, and the same mask over another canvas."""
        return max(self.power.without, self.random_pixels, self.other_canvas)

    @property
    def enough_images(self) -> bool:
        """Whether the images are enough (100) to say that a power beats its controls."""
        return self.power.n >= ENOUGH_IMAGES

    @property
    def beats_controls(self) -> bool:
        """
        Whether the power beats all three controls, on at least 100 images: the 95 % interval of
        the difference to each of them lies above 0.
        """
        fewer = self.control_images or self.power.n
        controls = (
            (self.power.without, self.power.n),
            (self.random_pixels, fewer),
            (self.other_canvas, fewer),
        )
        return self.enough_images and all(self.interval_above(*c)[0] > 0 for c in controls)

    def interval_above(self, value: float, n: int) -> Interval:
        """
        The 95 % interval of the difference of the power to another share, of n images; see
        :func:`~captum_classpattern.scores.intervals.newcombe`.
        """
        power = self.power  # shares of n images are whole numbers of hits
        return newcombe(round(power.value * power.n), power.n, round(value * n), n)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "power": self.power.value,
            "interval": list(self.power.interval),
            "n": self.power.n,
            "no_pattern": self.power.without,
            "random_pixels": self.random_pixels,
            "other_canvas": self.other_canvas,
            "control_images": self.control_images,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Scores":
        """The scores that :meth:`as_dict` wrote."""
        low, high = row["interval"]
        power = PredictivePower(row["power"], (low, high), row["n"], row["no_pattern"])
        return cls(power, row["random_pixels"], row["other_canvas"], row.get("control_images"))


def stands_out(scores: Mapping[int, Scores], target: int, n_classes: int) -> bool:
    r"""
    Whether a class's pattern stands out among those of all classes of the model.

    It does if all classes were searched, if its power is above that of every other class (the
    95 % interval of each difference lies above 0, see
    :func:`~captum_classpattern.scores.intervals.newcombe`), and if it beats its own controls
    (:attr:`Scores.beats_controls`, which takes at least 100 images).

    The intervals are over the images. How much another seed or canvas would change is not in them.

    Args:
        scores (Mapping[int, Scores]): The scores of each class that was searched, on one kind of
            canvas and at one area.
        target (int): The class.
        n_classes (int): Number of classes that the model has.

    Returns:
        *bool*: False, too, where too few classes or images were looked at to say so.

    Examples::

        >>> from captum_classpattern.scores.power import power_of
        >>> strong, weak = power_of(400, 500, 5), power_of(90, 500, 5)
        >>> scores = {0: Scores(strong, 0.02, 0.02), 1: Scores(weak, 0.02, 0.02)}
        >>> stands_out(scores, 0, n_classes=2), stands_out(scores, 0, n_classes=10)
        (True, False)
    """
    first = scores[target]
    powers = (other.power for y, other in scores.items() if y != target)
    return (
        len(scores) == n_classes > 1
        and first.beats_controls
        and all(first.interval_above(power.value, power.n)[0] > 0 for power in powers)
    )


@dataclass(frozen=True)
class Finding:
    """The best pattern of one class on one kind of canvas for each area, and its scores."""

    patterns: dict[float, Pattern]
    canvas: str
    scores: dict[float, Scores]

    @property
    def pattern(self) -> Pattern:
        """The one of the first area."""
        return next(iter(self.patterns.values()))

    @property
    def target(self) -> int:
        """The patterns' class."""
        return self.pattern.target

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "class": self.target,
            "canvas": self.canvas,
            "areas": {
                str(area): {
                    **scores.as_dict(),
                    "search_power": self.patterns[area].info["search_power"],
                    "passes": self.patterns[area].info["passes"],
                    "precision": self.patterns[area].info.get("precision"),
                }
                for area, scores in self.scores.items()
            },
            "search_images_hash": self.pattern.info["search_images_hash"],
            "settings": self.pattern.info["settings"],
        }


def survey(
    forward_func: Classifier,
    search: ImagesAndLabels,
    held_out: ImagesAndLabels,
    *,
    classes: Sequence[int | str] | None = None,
    canvases: Mapping[str, int] = CANVASES,
    areas: Sequence[float] = AREAS,
    classes_together: int = 5,
    n_steps: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> Iterator[Finding]:
    r"""
    Searches the patterns of many classes, and scores each with its controls on held-out images.

    Canvases are chosen among the search images; of each kind, and for each area, the pattern that
    does best on the judging images is kept. The controls are: no pattern; as many random pixels of
    the same canvas (3 draws, each on a third of the images); and the same mask over the positive
    canvas of the next class. The last two are scored on at most 300 of the images.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        search (LabelledImages): The images that patterns are cut from and searched on. A Dataset
            or DataLoader will do, or a pair of images and labels.
        held_out (LabelledImages): The images that patterns are scored on, likewise.
        classes (Sequence[int or str], optional): Which classes, by their numbers or by their names
            in the classifier's ``class_names``. Default: None (all).
        canvases (Mapping[str, int]): How many canvases of each kind, see
            :func:`select_canvases`; as many searches with seeds in turn on the one canvas that
            is white, black or grey.
            Default: {"positive": 2, "white": 2}.
        areas (Sequence[float]): Areas to search and score at. Default: (0.05, 0.01).
        classes_together (int): Classes searched in one go. Default: 5.
        n_steps (int, optional): Rounds of each search. Default: None (80).
        seed (int): Seed of the searches and of the random pixels. Default: 0.
        precision (str): ``"auto"``, ``"full"`` or ``"bfloat16"``, as in :func:`search_masks`.
            Default: "auto".
        internal_batch_size (int, optional): Most images in one forward pass of the searches.
            Default: None.
        show_progress (bool): Draws a progress bar for each group of classes. Default: False.

    Yields:
        *Finding*: One for each class and kind of canvas, as soon as its group is done.

    Raises:
        TypeError, ValueError: As :func:`search_masks` and :func:`predictive_power`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> labels = torch.arange(60) % 3
        >>> search = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> held_out = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> findings = survey(net, search, held_out, areas=(0.1,), classes=[2])
        >>> [(f.target, f.canvas, f.scores[0.1].power.n) for f in findings]
        [(2, 'positive', 40), (2, 'white', 40)]
    """
    seed = check_seed(seed)
    _check_canvases(canvases)
    with preserve_state(forward_func, seed):
        search = LabelledImages.of(search, argument="search images")
        search = ensure_labels(forward_func, search)
        held_out = LabelledImages.of(held_out, argument="held-out images")
        known = held_out.labels is not None
        held_out = ensure_labels(forward_func, held_out)
        sample = search.take([0])
        device, _ = device_and_dtype(forward_func, sample)
        asked = None if classes is None else parse_targets([*classes], len(classes), forward_func)
        count = check_classifier(forward_func, sample.to(device), asked or [])
        bare = predictions(forward_func, held_out)
        if known:
            accuracy = float((bare == held_out.known_labels).float().mean())
            warn_if_guessing(accuracy, held_out.known_labels, count, "held-out images")
    wanted = range(count) if asked is None else list(dict.fromkeys(asked))
    explainer = ClassPattern(forward_func, search)
    explainer.accuracy_is_known = True
    for start in range(0, len(wanted), classes_together):
        group = wanted[start : start + classes_together]
        elsewhere = {
            target: select_canvases(forward_func, search, target=_next_class(search, target), n=1)[
                0
            ]
            for target in group
        }
        best: dict[int, dict[tuple[str, float], Pattern]] = {target: {} for target in group}
        for kind, n in canvases.items():
            tries = list(_tries(forward_func, search, kind, n, group, seed))
            for area, (chosen, targets, own_seed) in itertools.product(areas, tries):
                patterns = explainer.search(
                    chosen,
                    targets,
                    area=area,
                    keep=1,
                    n_steps=n_steps,
                    seed=own_seed,
                    precision=precision,
                    internal_batch_size=internal_batch_size,
                    show_progress=show_progress,
                )
                for pattern in patterns:
                    rival = best[pattern.target].get((kind, area))
                    if rival is None or _search_power(pattern) > _search_power(rival):
                        best[pattern.target][kind, area] = pattern
        for target, found in best.items():
            for kind in canvases:
                own = {area: found[kind, area] for area in areas}
                scores = {
                    area: _score(
                        forward_func, pattern, elsewhere[target], held_out, bare, area, seed
                    )
                    for area, pattern in own.items()
                }
                yield Finding(own, kind, scores)


def _check_canvases(canvases: Mapping[str, int]) -> None:
    """Raises an error unless there is at least one kind of canvas, and one canvas of each kind."""
    if not canvases:
        raise ValueError('canvases is empty: give how many of each kind, such as {"white": 2}')
    for kind, n in canvases.items():
        if kind not in STRATEGIES:
            raise ValueError(f"canvases has the kind {kind!r}: choose from {', '.join(STRATEGIES)}")
        if not is_whole(n) or n < 1:
            raise ValueError(
                f"canvases[{kind!r}] must be a whole number from 1, got {n!r}: leave out a kind "
                "that is not wanted"
            )


def _tries(
    forward_func: Classifier,
    search: LabelledImages,
    kind: str,
    n: int,
    group: Sequence[int],
    seed: int,
) -> Iterator[tuple[Tensor, list[int], int]]:
    """Canvases, targets and seed of each search of a group of classes on a kind of canvas.

    Canvases of one colour are all the same: what differs from try to try is the seed.
    """
    blank = kind in SOLID_COLOURS
    for own_seed in ((seed + i) % 2**63 for i in range(n if blank else 1)):
        each = 1 if blank else n
        chosen = [
            select_canvases(forward_func, search, target=target, n=each, strategy=kind, seed=seed)
            for target in group
        ]
        yield torch.cat(chosen), [target for target in group for _ in range(each)], own_seed


def _search_power(pattern: Pattern) -> float:
    return float(pattern.info["search_power"])


def _next_class(source: LabelledImages, target: int) -> int:
    """The class whose canvas serves as the control of a target's mask."""
    present: list[int] = sorted(set(source.known_labels.tolist()) - {target})
    if not present:
        raise ValueError(
            f"the search images are all of class {target}: give images of other classes too"
        )
    return next((label for label in present if label > target), present[0])


def _score(
    forward_func: Classifier,
    pattern: Pattern,
    other_canvas: Tensor,
    held_out: LabelledImages,
    bare: Tensor,
    area: float,
    seed: int,
) -> Scores:
    """The power of a pattern at its area, and its controls."""
    check_unseen(pattern, held_out)
    others = held_out.without_class(pattern.target)
    if len(others) < DRAWS:
        raise ValueError(
            f"there are {len(others)} held-out images that are not of class {pattern.target}: give "
            f"at least {DRAWS}"
        )
    without = int(((bare == pattern.target) & (held_out.known_labels != pattern.target)).sum())

    def hits(stamped: Pattern, images: LabelledImages = others) -> int:
        return count_hits(forward_func, stamped, images)

    few = others.subset(torch.tensor(evenly_spaced(len(others), CONTROL_IMAGES)))
    shares = [few.subset(torch.arange(draw, len(few), DRAWS)) for draw in range(DRAWS)]
    with preserve_state(forward_func, seed):
        binary = pattern.topk(area)
        drawn = [
            hits(random_pixels(pattern, area, seed + draw), share)
            for draw, share in enumerate(shares)
        ]
        return Scores(
            power_of(hits(binary), len(others), without),
            random_pixels=sum(drawn) / len(few),
            other_canvas=hits(replace(binary, canvas=other_canvas), few) / len(few),
            control_images=len(few),
        )

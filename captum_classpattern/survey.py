"""All classes of one model: search on a few canvases, keep the best, score it and its controls."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_classpattern.attribution import ClassPattern
from captum_classpattern.canvases import PLAIN, select_canvases
from captum_classpattern.checks import check_classifier, check_seed, parse_targets, predict
from captum_classpattern.classifier import Classifier, placement, undisturbed
from captum_classpattern.images import Images, ImageSource, Labels, labelled_source
from captum_classpattern.metrics import (
    PredictivePower,
    check_unseen,
    count_hits,
    power_of,
    random_pixels,
    without_class,
)
from captum_classpattern.pattern import Pattern

CANVASES: Mapping[str, int] = {"positive": 2, "white": 2}
AREAS = (0.05, 0.01)
DRAWS = 3


@dataclass(frozen=True)
class Scores:
    """A pattern's predictive power at one area, and its controls at the same area."""

    power: PredictivePower
    random_pixels: float
    other_canvas: float

    @property
    def strongest_control(self) -> float:
        """The largest of no pattern, random pixels, and the same mask over another canvas."""
        return max(self.power.without, self.random_pixels, self.other_canvas)

    @property
    def beats_controls(self) -> bool:
        """Whether the whole interval of the power lies above all three controls."""
        return self.power.interval[0] > self.strongest_control

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "power": self.power.value,
            "interval": list(self.power.interval),
            "n": self.power.n,
            "no_pattern": self.power.without,
            "random_pixels": self.random_pixels,
            "other_canvas": self.other_canvas,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> "Scores":
        """The scores that :meth:`as_dict` told of."""
        low, high = told["interval"]
        power = PredictivePower(told["power"], (low, high), told["n"], told["no_pattern"])
        return cls(power, told["random_pixels"], told["other_canvas"])


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
                }
                for area, scores in self.scores.items()
            },
            "search_images_hash": self.pattern.info["search_images_hash"],
            "settings": self.pattern.info["settings"],
        }


def survey(
    forward_func: Classifier,
    search_images: Images,
    search_labels: Labels,
    held_out_images: Images,
    held_out_labels: Labels,
    *,
    classes: Sequence[int] | None = None,
    canvases: Mapping[str, int] = CANVASES,
    areas: Sequence[float] = AREAS,
    classes_together: int = 5,
    n_steps: int | None = None,
    seed: int = 0,
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> Iterator[Finding]:
    r"""
    Searches the patterns of many classes, and scores each with its controls on held-out images.

    Canvases are chosen among the search images; of each kind, and for each area, the pattern that
    does best on the judging images is kept. The controls are: no pattern; as many random pixels of
    the same canvas (3 draws, each on a third of the images); and the same mask over the positive
    canvas of the next class.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        search_images (Tensor, Dataset or DataLoader): What patterns are cut from and fitted to.
        search_labels (Tensor or Sequence[int], optional): Their classes.
        held_out_images (Tensor, Dataset or DataLoader): What patterns are scored on.
        held_out_labels (Tensor or Sequence[int], optional): Their classes.
        classes (Sequence[int], optional): Which classes. Default: None (all).
        canvases (Mapping[str, int]): How many canvases of each kind, see
            :func:`select_canvases`; as many searches with seeds in turn on the one canvas that
            is white, black or grey.
            Default: {"positive": 2, "white": 2}.
        areas (Sequence[float]): Areas to search and score at. Default: (0.05, 0.01).
        classes_together (int): Classes searched in one go. Default: 5.
        n_steps (int, optional): Rounds of each search. Default: None (80).
        seed (int): Seed of the searches and of the random pixels. Default: 0.
        internal_batch_size (int, optional): Most images in one forward pass of the searches.
            Default: None.
        show_progress (bool): Draws a progress bar for each group of classes. Default: False.

    Yields:
        *Finding*: One for each class and kind of canvas, as soon as its group is done.

    Raises:
        TypeError, ValueError: As :func:`search_masks` and :func:`predictive_power`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> found, held_out = torch.rand(60, 1, 8, 8), torch.rand(60, 1, 8, 8)
        >>> labels = torch.arange(60) % 3
        >>> findings = survey(net, found, labels, held_out, labels, areas=(0.1,), classes=[2])
        >>> [(f.target, f.canvas, f.scores[0.1].power.n) for f in findings]
        [(2, 'positive', 40), (2, 'white', 40)]
    """
    seed = check_seed(seed)
    with undisturbed(forward_func, seed):
        search = labelled_source(forward_func, search_images, search_labels, name="search images")
        held_out = labelled_source(
            forward_func, held_out_images, held_out_labels, name="held-out images"
        )
        sample = search.take([0])
        device, _ = placement(forward_func, sample)
        count = check_classifier(
            forward_func,
            sample.to(device),
            [] if classes is None else parse_targets(list(classes), len(classes)),
        )
        bare = _predictions(forward_func, held_out)
    wanted = range(count) if classes is None else classes
    explainer = ClassPattern(forward_func, search)
    for start in range(0, len(wanted), classes_together):
        group = wanted[start : start + classes_together]
        elsewhere = {
            target: select_canvases(forward_func, search, None, _next_class(search, target), 1)[0]
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


def _tries(
    forward_func: Classifier,
    search: ImageSource,
    kind: str,
    n: int,
    group: Sequence[int],
    seed: int,
) -> Iterator[tuple[Tensor, list[int], int]]:
    """Canvases, targets and seed of each search of a group of classes on a kind of canvas.

    Canvases of one colour are all the same: what differs from try to try is the seed.
    """
    blank = kind in PLAIN
    for own_seed in ((seed + i) % 2**63 for i in range(n if blank else 1)):
        each = 1 if blank else n
        chosen = [
            select_canvases(forward_func, search, None, target, each, strategy=kind, seed=seed)
            for target in group
        ]
        yield torch.cat(chosen), [target for target in group for _ in range(each)], own_seed


def _search_power(pattern: Pattern) -> float:
    return float(pattern.info["search_power"])


def _next_class(source: ImageSource, target: int) -> int:
    """The class whose canvas serves as the control of a target's mask."""
    assert source.labels is not None
    present: list[int] = sorted(set(source.labels.tolist()) - {target})
    if not present:
        raise ValueError(
            f"the search images are all of class {target}: give images of other classes too"
        )
    return next((label for label in present if label > target), present[0])


def _predictions(forward_func: Classifier, source: ImageSource) -> Tensor:
    """What the classifier says of each image as it is."""
    device, _ = placement(forward_func, source.take([0]))
    said = [predict(forward_func, images.to(device)).cpu() for images in source.in_order()]
    return torch.cat(said)


def _score(
    forward_func: Classifier,
    pattern: Pattern,
    other_canvas: Tensor,
    held_out: ImageSource,
    bare: Tensor,
    area: float,
    seed: int,
) -> Scores:
    """The power of a pattern at its area, and its controls."""
    check_unseen(pattern, held_out)
    others = without_class(held_out, pattern.target)
    if len(others) < DRAWS:
        raise ValueError(
            f"there are {len(others)} held-out images that are not of class {pattern.target}: give "
            f"at least {DRAWS}"
        )
    assert held_out.labels is not None
    without = int(((bare == pattern.target) & (held_out.labels != pattern.target)).sum())

    def hits(stamped: Pattern, images: ImageSource = others) -> int:
        return count_hits(forward_func, stamped, images)

    shares = [others.subset(torch.arange(draw, len(others), DRAWS)) for draw in range(DRAWS)]
    with undisturbed(forward_func, seed):
        binary = pattern.topk(area)
        drawn = [
            hits(random_pixels(pattern, area, seed + draw), share)
            for draw, share in enumerate(shares)
        ]
        return Scores(
            power_of(hits(binary), len(others), without),
            random_pixels=sum(drawn) / len(others),
            other_canvas=hits(replace(binary, canvas=other_canvas)) / len(others),
        )

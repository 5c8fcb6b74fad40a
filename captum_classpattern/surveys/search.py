"""``survey``: the search of many classes of one model. Of each pool of canvases the best is kept,
and scored with its controls."""

import itertools
import math
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import ArgumentTypeError, check_count, check_labels
from captum_classpattern.attribution import ClassPattern, versions
from captum_classpattern.classifier import (
    Classifier,
    attribute_of,
    check_classifier,
    device_and_dtype,
    over_pixels,
    preserve_state,
    warn_if_guessing,
)
from captum_classpattern.classifier.class_names import known_names, name_of, parse_targets
from captum_classpattern.classifier.fingerprints import hash_of, hash_of_model
from captum_classpattern.images import (
    ImagesAndLabels,
    LabelledImages,
    ensure_labels,
    evenly_spaced,
    hash_of_images,
)
from captum_classpattern.optimization import Swap
from captum_classpattern.optimization.canvases import BLANK, STRATEGIES, select_canvases
from captum_classpattern.optimization.features import check_can_resume, check_for_all
from captum_classpattern.optimization.pool import (
    LEAST_BUDGET,
    SCREENED,
    STARTS,
    most_canvases,
    passes_of_group,
)
from captum_classpattern.optimization.search import note_half_passes, passes_bar
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.scores.examples import StampedImages, stamp_examples
from captum_classpattern.scores.power import Scorer, Scores, check_unseen, judge, random_pixels
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.results import Survey
from captum_classpattern.surveys.store import RESULTS, VERSION, Store

CANVASES: Mapping[str, int] = {"positive": 32, "white": 1, "black": 1}
AREAS = (0.05, 0.01)
LONG = 5.0  # seconds after which there is a progress bar
DRAWS, CONTROL_IMAGES = 3, 300  # of random pixels; the most images that a control is scored on


@dataclass(frozen=True)
class SurveySettings(SearchSettings):
    """How each class is searched: of at most so many ``canvases`` of each kind, the best is kept.
    See :func:`survey`."""

    canvases: Mapping[str, int] = field(kw_only=True)
    classes_together: int = 1
    keep: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("classes_together", self.classes_together)
        if self.n_steps is None and self.budget is not None and self.budget < LEAST_BUDGET:
            raise ValueError(
                f"`budget={self.budget}` is too small: give at least {LEAST_BUDGET} passes per "
                "class and kind of canvas"
            )
        object.__setattr__(self, "canvases", _count_canvases(self.canvases))

    @property
    def passes(self) -> int:
        """The passes of the search of a pool, if its length is given by a budget."""
        return self.budget or Swap.pool_budget

    def pool_size(self, kind: str, images: int) -> int:
        """How many canvases compete: no more than the budget can make use of, and than the class
        has images."""
        most = self.canvases[kind]
        if self.n_steps is None:
            most = min(most, most_canvases(self.passes))
        return most if kind in BLANK else max(1, min(most, images))

    def expected_passes(self, images: int, others: int) -> float:
        """About how many passes a class with so many search images takes, with its scoring on held-
        out images of other classes; to classify an image takes half of one."""
        scored = others + 2 * min(others, CONTROL_IMAGES)  # by a pattern and its controls
        total, smaller = len(self.areas) * len(self.canvases) * scored / 2, len(self.areas) - 1
        for kind in self.canvases:
            entrants = self.pool_size(kind, images) * (STARTS if kind in BLANK else 1)
            cost = partial(_cost, entrants)
            rounds = self.n_steps or bisect_right(range(1, self.passes), self.passes, key=cost)
            at_smaller = cost(rounds)
            if entrants <= SCREENED:  # the best continues for two thirds of the rounds
                at_smaller = math.ceil(2 * rounds / 3) * Swap.batch_size * (1 + Swap.proposals)
            total += cost(rounds) + smaller * at_smaller
        return total

    def keywords(self) -> dict[str, Any]:
        """The settings as :meth:`ClassPattern.search` takes them."""
        given = {each.name: getattr(self, each.name) for each in fields(SearchSettings)}
        return {"area": given.pop("areas"), **given}

    def as_manifest(self, search: LabelledImages, held_out: LabelledImages) -> dict[str, Any]:
        """What decides the findings of a model, for the files of a folder."""
        check_can_resume(self.feature_mask)
        return {
            "search_images": hash_of_images(search),
            "held_out_images": hash_of_images(held_out),
            "canvases": self.canvases,
            "areas": list(self.areas),
            **self.limits(),
            VERSION: versions()[VERSION],
        }


def _cost(entrants: int, rounds: int) -> int:
    """The passes of a pool of canvases, of which one is kept."""
    return passes_of_group(Swap().passes(rounds), entrants)


def _count_canvases(canvases: Any) -> dict[str, int]:
    """How many canvases of each kind, from kinds or from their numbers."""
    listed = [canvases] if isinstance(canvases, str) else canvases
    if isinstance(listed, list | tuple):
        usual = CANVASES["positive"]
        listed = {kind: 1 if kind in BLANK else usual for kind in listed}
    if not isinstance(listed, Mapping) or not listed:
        error = ValueError if listed == {} else ArgumentTypeError
        raise error(
            "`canvases` must say how many of each kind, such as {'positive': 32, 'white': 1}, or "
            f"name kinds, such as 'white', got {canvases!r:.80}"
        )
    for kind, n in listed.items():
        if kind not in STRATEGIES:
            raise ValueError(
                f"`canvases` has the kind {kind!r}: choose from {', '.join(STRATEGIES)}"
            )
        check_count(f"canvases[{kind!r}]", n)
    return {kind: int(n) for kind, n in listed.items()}


class SurveySearch(Survey):
    """A survey whose classes are searched as they are needed: what :func:`survey` was given,
    checked. With a ``store``, each class is written as soon as it is finished."""

    model: Classifier
    n_classes: int
    store: Store | None = None
    _running: Iterator[bool] | None = None

    def __init__(
        self,
        model: Classifier,
        search: ImagesAndLabels,
        held_out: ImagesAndLabels,
        settings: SurveySettings,
        classes: Sequence[int | str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.class_names = class_names or known_names(model)
        with preserve_state(model, settings.seed):
            search, held_out = check_images(search, held_out, settings.areas)
            check_for_all(settings.feature_mask, search.shape[1:])
            sample = search.take([0])
            device, dtype = device_and_dtype(model, sample)
            named = model if self.class_names == known_names(model) else self
            targets = [] if classes is None else find_classes(classes, named)
            outputs = check_classifier(model, sample.to(device), targets)
        super().__init__(n_classes=outputs.shape[1])
        self.model, self.settings = model, settings
        self._search, self._held_out = search, held_out.to(device, dtype)
        self.classes = targets or list(range(outputs.shape[1]))
        self.canvases, self.areas = list(settings.canvases), list(settings.areas)
        self.provenance = attribute_of(model, "provenance") or {}
        self._started = time.perf_counter()

    def __len__(self) -> int:
        return len(self.canvases) * len({*self.classes, *(each.target for each in self.finished)})

    def __iter__(self) -> Iterator[Finding]:
        position = 0
        while position < len(self.finished) or self._find_next():
            yield self.finished[position]
            position += 1

    @property
    def findings(self) -> list[Finding]:
        """All findings; a bar shows the progress of what is searched for them."""
        with self.progress(delay=LONG, disable=not self.missing):
            return list(self)

    def _find_next(self) -> bool:
        """Searches a class; False if none is missing."""
        self._running = self._running or self._find_missing()
        try:
            return next(self._running, False)
        except BaseException:
            self._running = None  # the next call starts again with what is missing
            raise

    def _find_missing(self) -> Iterator[bool]:
        """Searches class after class, and writes it, if there is a store."""
        if self.store and not self.missing:
            self.store.write_summary(self.info)
        for findings in self.find(self.missing):
            if self.store:
                self.store.add(findings)
                self.store.write_summary(self.info)
            self.finished += findings
            yield True

    def find(self, targets: Sequence[int]) -> Iterator[list[Finding]]:
        """The findings of each class in turn, one for each kind of canvas."""
        search, kinds, areas = self.search, self.canvases, self.areas
        missing = [str(y) for y in targets if not len(search.of_class(y))]
        if missing and any(kind not in BLANK for kind in kinds):
            raise ValueError(
                f"none of the {len(search)} images is of class {', '.join(missing)}: give "
                "images of it, or leave it out of `classes`; only canvases of one colour, such as "
                "white, need none"
            )
        together = self.settings.classes_together
        for start in range(0, len(targets), together):
            group = targets[start : start + together]
            next_canvases = [
                select_canvases(self.model, search, target=_next_class(search, y), n=1)[0]
                for y in group
            ]
            patterns = self._search_group(group)
            for target, next_canvas in zip(group, next_canvases):
                findings = []
                for kind in kinds:
                    found = {area: patterns[target, kind, area] for area in areas}
                    scores = {area: self._score(p, next_canvas, area) for area, p in found.items()}
                    name, stamped = name_of(self, target), self._stamp(found)
                    if name is not None:
                        for pattern in found.values():
                            pattern.info["class_name"] = name
                    findings.append(Finding(found, kind, scores, name, stamped=stamped))
                yield findings

    @property
    def missing(self) -> list[int]:
        """The classes that are not finished."""
        done = {finding.target for finding in self.finished}
        return [target for target in self.classes if target not in done]

    def expected_passes(self) -> float:
        """About how many passes the missing classes take, with their scoring."""
        held_out, total = self._held_out, len(self._held_out) / 2
        for target in self.missing:
            others = held_out if held_out.labels is None else held_out.without_class(target)
            images = len(self.search.of_class(target))
            total += self.settings.expected_passes(images, len(others))
        return total

    def progress(self, **options: Any) -> AbstractContextManager[Any]:
        """A bar over the passes of the missing classes, with more options of tqdm."""
        return passes_bar(self.expected_passes(), **options)

    def _search_group(self, group: Sequence[int]) -> dict[tuple[int, str, float], Pattern]:
        """The pattern that does best on the validation images, by class, kind of canvas and area.

        Classes with equally many canvases are searched together: so they take the same number of
        rounds, whichever other classes are in the group.
        """
        search, settings = self.search, self.settings
        best: dict[tuple[int, str, float], Pattern] = {}
        by_size: dict[tuple[str, int], list[int]] = {}
        for kind, target in itertools.product(settings.canvases, group):
            size = settings.pool_size(kind, len(search.of_class(target)))
            by_size.setdefault((kind, size), []).append(target)
        for (kind, size), targets in by_size.items():
            canvases = [
                select_canvases(self.model, search, None, y, size, kind, seed=settings.seed)
                for y in targets
            ]
            each = [target for target in targets for _ in range(size)]
            found = self._explainer.search(torch.cat(canvases), each, **settings.keywords())
            for area, patterns in found.items():
                best.update({(pattern.target, kind, area): pattern for pattern in patterns})
        return best

    def _score(self, pattern: Pattern, other_canvas: Tensor, area: float) -> Scores:
        """The power of a pattern at its area, and its controls."""
        check_unseen(pattern, self.held_out)
        others = self.held_out.without_class(pattern.target)
        if len(others) < DRAWS:
            raise ValueError(
                f"there are {len(others)} held-out images that are not of class {pattern.target}: "
                f"give at least {DRAWS}"
            )
        images = others.subset(evenly_spaced(len(others), CONTROL_IMAGES))
        n = len(images)
        with preserve_state(self.model, self.settings.seed):
            binary = pattern.topk(area)
            moved = replace(binary, canvas=other_canvas)
            drawn = [random_pixels(pattern, area, self.settings.seed + i) for i in range(DRAWS)]
            hits = [
                judge(self.model, each, images.subset(range(i, n, DRAWS))).hits
                for i, each in enumerate(drawn)
            ]
            scores = Scores(
                self._scorer.power(binary),
                random_pixels=sum(hits) / n,
                other_canvas=judge(self.model, moved, images).hits / n,
                control_images=n,
            )
        note_half_passes(len(others) + 2 * n)
        return scores

    def _stamp(self, found: Mapping[float, Pattern]) -> dict[float, StampedImages]:
        """Some held-out images with the pattern of each area."""
        images, seed = self.held_out, self.settings.seed
        names = images.class_names or self.class_names
        with preserve_state(self.model, seed):
            return {
                area: stamped
                for area, pattern in found.items()
                if (stamped := stamp_examples(self.model, pattern.topk(area), images, names, seed))
            }

    @cached_property
    def search(self) -> LabelledImages:
        """The search images with their labels, or else with the classifier's predictions."""
        with preserve_state(self.model, self.settings.seed):
            labelled = ensure_labels(self.model, self._search)
        check_labels(labelled.labels, self.n_classes, "the search images")
        return labelled

    @cached_property
    def _explainer(self) -> ClassPattern:
        """The method, made once, and a warning if the classifier is close to guessing."""
        if self.accuracy is not None:
            known = self._held_out.known_labels
            warn_if_guessing(self.accuracy, known, self.n_classes, "held-out images")
        return ClassPattern(self.model, self.search, check_accuracy=False)

    @cached_property
    def _scorer(self) -> Scorer:
        """The held-out images, classified once without a pattern."""
        check_labels(self._held_out.labels, self.n_classes, "the held-out images")
        with preserve_state(self.model, self.settings.seed):
            scorer = Scorer(self.model, self._held_out)
        note_half_passes(len(self._held_out))
        return scorer

    @property
    def held_out(self) -> LabelledImages:
        """The held-out images with their labels, or else with the classifier's predictions."""
        return self._scorer.images

    @cached_property
    def accuracy(self) -> float | None:
        """Share of the held-out images that the classifier labels correctly; None if they have no
        labels."""
        labels = self._held_out.labels
        return None if labels is None else float((self._scorer.predicted == labels).float().mean())

    @cached_property
    def depends_on(self) -> dict[str, Any]:
        """Everything that the findings depend on."""
        return {
            "model": hash_of_model(self.model),
            **self.settings.as_manifest(self._search, self._held_out),
            "predictions": hash_of(self._scorer.predicted.tolist()),
        }

    @property
    def info(self) -> dict[str, Any]:
        """How the classes are searched, for results.json."""
        return {
            "seconds": round(time.perf_counter() - self._started, 1),
            "settings": self.depends_on,
            "provenance": self.provenance,
            "accuracy": self.accuracy,
            "n_classes": self.n_classes,
            "classes": self.classes,
            "search_images": self._search.counts,
            "held_out_images": self._held_out.counts,
            "versions": versions(),
        }


def _next_class(images: LabelledImages, target: int) -> int:
    """The class whose canvas serves as the control of a target's mask."""
    present: list[int] = sorted(set(images.known_labels.tolist()) - {target})
    if not present:
        raise ValueError(
            f"the search images are all of class {target}: give images of other classes too"
        )
    return next((label for label in present if label > target), present[0])


def find_classes(classes: Sequence[int | str], named: Any) -> list[int]:
    """The numbers of classes that are given by numbers, or by the ``class_names`` of an object."""
    if len(classes) == 0:
        raise ValueError("`classes` is empty: leave it out to search all")
    return list(dict.fromkeys(parse_targets([*classes], len(classes), named)))


def check_images(
    search: ImagesAndLabels, held_out: ImagesAndLabels, areas: Sequence[float]
) -> tuple[LabelledImages, LabelledImages]:
    """The images of a survey; an error if they differ in shape, or have no pixel at an area."""
    search = LabelledImages.of(search, argument="search images")
    held_out = LabelledImages.of(held_out, argument="held-out images")
    if search.shape != held_out.shape:
        raise ValueError(
            "search images and held-out images must have the same shape (C, H, W), got "
            f"{search.shape} and {held_out.shape}"
        )
    for area in areas:
        pixels_kept(area, search.shape[1:])
    return search, held_out


def survey(
    forward_func: Classifier,
    search: ImagesAndLabels,
    held_out: "ImagesAndLabels | None" = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    classes: Sequence[int | str] | None = None,
    canvases: str | Sequence[str] | Mapping[str, int] = CANVASES,
    areas: Sequence[float] = AREAS,
    classes_together: int = 5,
    budget: int | None = None,
    n_steps: int | None = None,
    max_seconds: float | None = None,
    feature_mask: Tensor | Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> SurveySearch:
    r"""
    Searches the patterns of many classes, and scores each with its controls on held-out images.

    Canvases are chosen among the search images. For each kind of canvas, the pattern that does best
    on the validation images is kept, see ``keep`` of :meth:`ClassPattern.search`. The controls are:
    no pattern; as many random pixels of the same canvas (3 draws, each on a third of the images);
    and the same mask over the positive canvas of the next class. The last two are scored on at most
    300 of the images.

    The call only checks its arguments. With a folder, it also reads all images and classifies the
    held-out ones, to compare them with what is there. The search runs while the result is iterated.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K). An
            ``nn.Module`` of normalised images needs ``mean`` and ``std``.
        search (LabelledImages): The images that patterns are cut from and searched on. A Dataset
            or DataLoader will do, or a pair of images and labels.
        held_out (LabelledImages, optional): The images that patterns are scored on, likewise.
            Default: None (half of ``search``).
        mean, std, class_names (optional): As in :func:`explain_class`.
        classes (Sequence[int or str], optional): Which classes, by their numbers or by their names
            in the classifier's ``class_names``, or else the images'. Default: None (all).
        canvases (str, Sequence[str] or Mapping[str, int]): The kinds of canvas, or at most how many
            of each kind and class, see :func:`select_canvases`; also at most one for each 215
            passes of the budget. White
            canvases are all the same: each beyond the second is one more start of the search.
            Default: {"positive": 32, "white": 1, "black": 1}.
        areas (Sequence[float]): Areas to search and score at. Default: (0.05, 0.01).
        classes_together (int): Number of classes that are searched in one batch. Default: 5.
        budget (int, optional): Passes per class and kind of canvas, at the largest area or at each
            area of a pool, as in :meth:`ClassPattern.search`; at least 430. Default: None (7,000).
        max_seconds (float, optional): Stops each group of classes and kind of canvas after that
            time, with what was found. Default: None.
        n_steps, feature_mask, seed, precision, internal_batch_size: As in :func:`explain_class`.
        show_progress (bool): Draws a progress bar for each group of classes. Default: False.
        folder (str or PathLike, optional): Where each class is written as soon as it is finished.
            Default: None (nowhere).
        resume (bool): Continues the search in the folder: its findings come first, and only the
            classes that are missing are searched. Several processes may share a folder. Each must
            pass ``resume=True`` and the same settings, and its own ``classes``. Default: False (a
            folder that holds findings is an error).

    Returns:
        *Survey*: An iterable of one :class:`Finding` for each class and kind of canvas.

    Raises:
        TypeError, ValueError: As :meth:`ClassPattern.search` and :func:`predictive_power`; also if
            the folder holds findings of other settings, or any without ``resume``.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> labels = torch.arange(60) % 3
        >>> search = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> held_out = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> found = survey(net, search, held_out, areas=(0.1,), classes=[2], n_steps=10)
        >>> found
        Survey(0 of 3 findings on positive, white, black canvases, areas 0.1)
        >>> [(f.target, f.canvas, f.scores[0.1].power.n) for f in found]
        [(2, 'positive', 40), (2, 'white', 40), (2, 'black', 40)]
    """
    settings = SurveySettings(
        areas=areas,
        canvases=_count_canvases(canvases),
        classes_together=classes_together,
        n_steps=n_steps,
        seed=seed,
        precision=precision,
        internal_batch_size=internal_batch_size,
        show_progress=show_progress,
        budget=budget,
        max_seconds=max_seconds,
        feature_mask=feature_mask,
    )
    model = over_pixels(forward_func, mean, std, class_names)
    images = LabelledImages.of(search, None, model, class_names, argument="search images")
    known = images.names_for(model, class_names)
    names = None if known is None else known.names
    if held_out is None:
        images, unseen = images.halves(settings.seed)
    else:
        unseen = LabelledImages.of(held_out, None, model, names, argument="held-out images")
    task = SurveySearch(model, images, unseen, settings, classes, names)
    if folder is not None:
        if not resume and (Path(folder) / RESULTS).exists():
            raise ValueError(
                f"{folder} holds results already: pass `resume=True` to continue, or another folder"
            )
        task.store = Store(Path(folder), task.depends_on)
        task.finished = task.store.findings()
    return task

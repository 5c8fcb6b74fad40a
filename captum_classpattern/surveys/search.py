"""``survey``: the search of many classes of one model. Of each pool of canvases the best is kept,
and scored with its controls."""

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import check_count
from captum_classpattern.attribution import ClassPattern, versions
from captum_classpattern.classifier import (
    Classifier,
    attribute_of,
    check_classifier,
    device_and_dtype,
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
from captum_classpattern.optimization.contest import (
    LEAST_BUDGET,
    STARTS,
    most_canvases,
    passes_of_group,
)
from captum_classpattern.optimization.search import note_half_passes
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.scores.examples import StampedImages, stamp_examples
from captum_classpattern.scores.power import Scorer, Scores, check_unseen, count_hits, random_pixels
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.results import Survey
from captum_classpattern.surveys.store import RESULTS, VERSION, Store

CANVASES: Mapping[str, int] = {"positive": 32, "white": 1, "black": 1}
AREAS = (0.05, 0.01)
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
        if not self.canvases:
            raise ValueError(
                '`canvases` is empty: give how many of each kind, such as {"white": 2}'
            )
        for kind, n in self.canvases.items():
            if kind not in STRATEGIES:
                raise ValueError(
                    f"`canvases` has the kind {kind!r}: choose from {', '.join(STRATEGIES)}"
                )
            check_count(f"canvases[{kind!r}]", n)
        plain = {kind: int(n) for kind, n in self.canvases.items()}
        object.__setattr__(self, "canvases", plain)

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

    def expected_passes(self, images: int, held_out: int) -> float:
        """About how many passes a class with so many images takes, with its scoring; to classify an
        image takes half of one."""
        scored = held_out + 2 * min(held_out, CONTROL_IMAGES)  # by a pattern and its controls
        total = (held_out + len(self.areas) * len(self.canvases) * scored) / 2
        for kind in self.canvases:
            passes = self.passes
            if self.n_steps is not None:
                entrants = self.pool_size(kind, images) * (STARTS if kind in BLANK else 1)
                passes = passes_of_group(Swap().passes(self.n_steps), entrants)
            total += len(self.areas) * passes
        return total

    def as_manifest(self, search: LabelledImages, held_out: LabelledImages) -> dict[str, Any]:
        """What decides the findings of a model, for the files of a folder."""
        return {
            "search_images": hash_of_images(search),
            "held_out_images": hash_of_images(held_out),
            "canvases": self.canvases,
            "areas": list(self.areas),
            **self.limits(),
            VERSION: versions()[VERSION],
        }


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
    ) -> None:
        with preserve_state(model, settings.seed):
            search, held_out = check_images(search, held_out, settings.areas)
            sample = search.take([0])
            device, dtype = device_and_dtype(model, sample)
            targets = [] if classes is None else find_classes(classes, model)
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
        while True:
            while position < len(self.finished):
                yield self.finished[position]
                position += 1
            self._running = self._running or self._find_missing()
            try:
                if not next(self._running, False):
                    return
            except BaseException:
                self._running = None  # the next call starts again with what is missing
                raise

    def _find_missing(self) -> Iterator[bool]:
        """Searches class after class, and writes it, if there is a store."""
        done = {finding.target for finding in self.finished}
        missing = [target for target in self.classes if target not in done]
        if self.store and not missing:
            self.store.write_summary(self.info)
        for findings in self.find(missing):
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
                    name, stamped = name_of(self.model, target), self._stamp(found)
                    findings.append(Finding(found, kind, scores, name, stamped=stamped))
                yield findings

    def _search_group(self, group: Sequence[int]) -> dict[tuple[int, str, float], Pattern]:
        """The pattern that does best on the judging images, by class, kind of canvas and area.

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
            found = self._explainer.search_with(
                settings, torch.cat(canvases), [target for target in targets for _ in range(size)]
            )
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
                count_hits(self.model, each, images.subset(range(i, n, DRAWS)))
                for i, each in enumerate(drawn)
            ]
            scores = Scores(
                self._scorer.power(binary),
                random_pixels=sum(hits) / n,
                other_canvas=count_hits(self.model, moved, images) / n,
                control_images=n,
            )
        note_half_passes(len(others) + 2 * n)
        return scores

    def _stamp(self, found: Mapping[float, Pattern]) -> dict[float, StampedImages]:
        """Some held-out images with the pattern of each area."""
        images, seed = self.held_out, self.settings.seed
        names = images.class_names or known_names(self.model)
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
            return ensure_labels(self.model, self._search)

    @cached_property
    def _explainer(self) -> ClassPattern:
        """The method, made once, and a warning if the classifier is close to guessing."""
        if self.accuracy is not None:
            known = self._held_out.known_labels
            warn_if_guessing(self.accuracy, known, self.n_classes, "held-out images")
        explainer = ClassPattern(self.model, self.search)
        explainer.accuracy_is_known = True
        return explainer

    @cached_property
    def _scorer(self) -> Scorer:
        """The held-out images, classified once without a pattern."""
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
    held_out: ImagesAndLabels,
    *,
    classes: Sequence[int | str] | None = None,
    canvases: Mapping[str, int] = CANVASES,
    areas: Sequence[float] = AREAS,
    classes_together: int = 5,
    budget: int | None = None,
    n_steps: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Survey:
    r"""
    Searches the patterns of many classes, and scores each with its controls on held-out images.

    Canvases are chosen among the search images. For each kind of canvas, the pattern that does best
    on the judging images is kept, see ``keep`` of :meth:`ClassPattern.search` and
    :meth:`ClassPattern.search_areas`. The controls are: no pattern; as many random pixels of the
    same canvas (3 draws, each on a third of the images); and the same mask over the positive canvas
    of the next class. The last two are scored on at most 300 of the images.

    The call only checks its arguments. With a folder, it also reads all images and classifies the
    held-out ones, to compare them with what is there. The search runs while the result is iterated.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        search (LabelledImages): The images that patterns are cut from and searched on. A Dataset
            or DataLoader will do, or a pair of images and labels.
        held_out (LabelledImages): The images that patterns are scored on, likewise.
        classes (Sequence[int or str], optional): Which classes, by their numbers or by their names
            in the classifier's ``class_names``. Default: None (all).
        canvases (Mapping[str, int]): At most how many canvases of each kind and class, see
            :func:`select_canvases`; also at most one for each 215 passes of the budget. White
            canvases are all the same: each beyond the second is one more start of the search.
            Default: {"positive": 32, "white": 1, "black": 1}.
        areas (Sequence[float]): Areas to search and score at. Default: (0.05, 0.01).
        classes_together (int): Number of classes that are searched in one batch. Default: 5.
        budget (int, optional): Passes per class and kind of canvas, at the largest area or at each
            area of a pool, as in :meth:`ClassPattern.search`; at least 430. Default: None (7,000).
        max_seconds (float, optional): Stops each group of classes and kind of canvas after that
            time, with what was found. Default: None.
        n_steps, seed, precision, internal_batch_size: As in :func:`explain_class`.
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
        TypeError, ValueError: As :func:`search_masks` and :func:`predictive_power`; also if the
            folder holds findings of other settings, or any without ``resume``.

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
    settings = SurveySettings.of(locals())
    task = SurveySearch(forward_func, search, held_out, settings, classes)
    if folder is not None:
        if not resume and (Path(folder) / RESULTS).exists():
            raise ValueError(
                f"{folder} holds results already: pass `resume=True` to continue, or another folder"
            )
        task.store = Store(Path(folder), task.depends_on)
        task.finished = task.store.findings()
    return task

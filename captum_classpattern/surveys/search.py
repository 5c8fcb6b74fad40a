"""The search of many classes of one model: of each pool of canvases the best is kept, and scored
with its controls."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_classpattern.attribution import ClassPattern, versions
from captum_classpattern.canvases import BLANK, select_canvases
from captum_classpattern.class_names import name_of
from captum_classpattern.classifier import (
    Classifier,
    preserve_state,
    provenance_of,
    warn_if_guessing,
)
from captum_classpattern.fingerprints import hash_of, hash_of_images, hash_of_model
from captum_classpattern.images import LabelledImages, ensure_labels, evenly_spaced, predictions
from captum_classpattern.optimization import Swap
from captum_classpattern.optimization.pool import most_canvases
from captum_classpattern.optimization.progress import note_half_passes
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import check_unseen, count_hits, power_of, random_pixels
from captum_classpattern.surveys.findings import Finding, Scores

DRAWS, CONTROL_IMAGES = 3, 300  # of random pixels; the most images that a control is scored on


@dataclass
class SurveySearch:
    """What :func:`survey` was given, checked, and the search itself."""

    forward_func: Classifier
    search: LabelledImages
    held_out: LabelledImages
    classes: list[int]
    n_classes: int
    canvases: dict[str, int]
    areas: tuple[float, ...]
    classes_together: int
    budget: int | None
    n_steps: int | None
    max_seconds: float | None
    seed: int
    precision: str
    more_options: dict[str, Any]  # of each search: these do not change what it finds
    started: float = field(default_factory=time.perf_counter)
    accuracy_is_known: bool = False  # so that one that is close to guessing is reported once
    seconds_searching: float = 0.0  # without the scoring

    def find(self, targets: Sequence[int]) -> Iterator[list[Finding]]:
        """The findings of each class in turn, one for each kind of canvas."""
        with preserve_state(self.forward_func, self.seed):
            search = ensure_labels(self.forward_func, self.search)
        if self.accuracy is not None and not self.accuracy_is_known:
            self.accuracy_is_known = True
            known = self.held_out.known_labels
            warn_if_guessing(self.accuracy, known, self.n_classes, "held-out images")
        self._check_canvases(search, targets)
        explainer = ClassPattern(self.forward_func, search)
        explainer.accuracy_is_known = True
        for start in range(0, len(targets), self.classes_together):
            group = targets[start : start + self.classes_together]
            next_canvases = [
                select_canvases(self.forward_func, search, target=_next_class(search, y), n=1)[0]
                for y in group
            ]
            begun = time.perf_counter()
            patterns = self._search_group(explainer, search, group)
            self.seconds_searching += time.perf_counter() - begun
            for target, next_canvas in zip(group, next_canvases):
                findings = []
                for kind in self.canvases:
                    found = {area: patterns[target, kind, area] for area in self.areas}
                    scores = {area: self._score(p, next_canvas, area) for area, p in found.items()}
                    name = name_of(self.forward_func, target)
                    findings.append(Finding(found, kind, scores, name))
                yield findings

    def _check_canvases(self, search: LabelledImages, targets: Sequence[int]) -> None:
        """Raises an error, before the first search, if a class has no image to cut from."""
        missing = [str(y) for y in targets if not len(search.of_class(y))]
        if missing and any(kind not in BLANK for kind in self.canvases):
            raise ValueError(
                f"none of the {len(search)} images is of class {', '.join(missing)}: give "
                "images of it, or leave it out of `classes`; only canvases of one colour, such as "
                "white, need none"
            )

    def _search_group(
        self, explainer: ClassPattern, search: LabelledImages, group: Sequence[int]
    ) -> dict[tuple[int, str, float], Pattern]:
        """The pattern that does best on the judging images, by class, kind of canvas and area.

        Classes with equally many canvases are searched together: so they take the same number of
        rounds, whichever other classes are in the group.
        """
        best: dict[tuple[int, str, float], Pattern] = {}
        by_size: dict[tuple[str, int], list[int]] = {}
        for kind, target in itertools.product(self.canvases, group):
            size = self._pool_size(search, kind, target)
            by_size.setdefault((kind, size), []).append(target)
        for (kind, size), targets in by_size.items():
            canvases = [
                select_canvases(self.forward_func, search, None, y, size, kind, seed=self.seed)
                for y in targets
            ]
            found = explainer.search_areas(
                torch.cat(canvases),
                [target for target in targets for _ in range(size)],
                self.areas,
                keep=1,
                budget=self.budget,
                n_steps=self.n_steps,
                max_seconds=self.max_seconds,
                seed=self.seed,
                precision=self.precision,
                **self.more_options,
            )
            for area, patterns in found.items():
                best.update({(pattern.target, kind, area): pattern for pattern in patterns})
        return best

    def _pool_size(self, search: LabelledImages, kind: str, target: int) -> int:
        """How many canvases compete: no more than the budget can make use of, and than the class
        has images."""
        most = self.canvases[kind]
        if self.n_steps is None:
            most = min(most, most_canvases(self.budget or Swap.pool_budget))
        return most if kind in BLANK else max(1, min(most, len(search.of_class(target))))

    def _score(self, pattern: Pattern, other_canvas: Tensor, area: float) -> Scores:
        """The power of a pattern at its area, and its controls."""
        target = pattern.target
        held_out = self.labelled_held_out
        check_unseen(pattern, held_out)
        others = held_out.without_class(target)
        if len(others) < DRAWS:
            raise ValueError(
                f"there are {len(others)} held-out images that are not of class {target}: give at "
                f"least {DRAWS}"
            )
        is_other = held_out.known_labels != target
        without = int((self.clean_predictions[is_other] == target).sum())
        control_images = others.subset(evenly_spaced(len(others), CONTROL_IMAGES))
        n = len(control_images)
        draws = [control_images.subset(range(draw, n, DRAWS)) for draw in range(DRAWS)]
        with preserve_state(self.forward_func, self.seed):
            binary = pattern.topk(area)
            moved = replace(binary, canvas=other_canvas)
            hits_per_draw = [
                self._count_hits(random_pixels(pattern, area, self.seed + i), images)
                for i, images in enumerate(draws)
            ]
            return Scores(
                power_of(self._count_hits(binary, others), len(others), without),
                random_pixels=sum(hits_per_draw) / n,
                other_canvas=self._count_hits(moved, control_images) / n,
                control_images=n,
            )

    def _count_hits(self, pattern: Pattern, images: LabelledImages) -> int:
        hits = count_hits(self.forward_func, pattern, images)
        note_half_passes(len(images))
        return hits

    @cached_property
    def clean_predictions(self) -> Tensor:
        """The class that the classifier predicts for each held-out image without a pattern."""
        with preserve_state(self.forward_func, self.seed):
            predicted = predictions(self.forward_func, self.held_out)
        note_half_passes(len(self.held_out))
        return predicted

    @cached_property
    def labelled_held_out(self) -> LabelledImages:
        """The held-out images with their labels, or else with the classifier's predictions."""
        images = self.held_out
        return images.with_labels(self.clean_predictions) if images.labels is None else images

    @cached_property
    def accuracy(self) -> float | None:
        """Share of the held-out images that the classifier labels correctly; None if they have no
        labels."""
        labels = self.held_out.labels
        return None if labels is None else float((self.clean_predictions == labels).float().mean())

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that the findings depend on."""
        return {
            "model": hash_of_model(self.forward_func),
            "search_images": hash_of_images(self.search),
            "held_out_images": hash_of_images(self.held_out),
            "predictions": hash_of(self.clean_predictions.tolist()),
            "canvases": self.canvases,
            "areas": list(self.areas),
            "budget": self.budget,
            "n_steps": self.n_steps,
            "max_seconds": self.max_seconds,
            "seed": self.seed,
            "precision": self.precision,
            "captum_classpattern": versions()["captum_classpattern"],
        }

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the classifier comes from."""
        return provenance_of(self.forward_func)

    @property
    def info(self) -> dict[str, Any]:
        """How the classes are searched, for results.json."""
        return {
            "seconds": round(time.perf_counter() - self.started, 1),
            "settings": self.settings,
            "provenance": self.provenance,
            "accuracy": self.accuracy,
            "n_classes": self.n_classes,
            "classes": self.classes,
            "search_images": self.search.counts,
            "held_out_images": self.held_out.counts,
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

"""The search and the scores of the classes of a model, one group after another."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._support.progress import name_stage
from captum_classpattern._support.validation import join_names
from captum_classpattern.classifier import CheckedModel, lacks_memory, seed_generators
from captum_classpattern.classifier.class_names import label_of, name_of
from captum_classpattern.images import LabelledImages, evenly_spaced
from captum_classpattern.optimization.acceleration import NoRoomForCopy
from captum_classpattern.optimization.attribution import ClassPattern, search_patches, search_pools
from captum_classpattern.optimization.canvases import PATCH, canvases_for
from captum_classpattern.optimization.pool import classes_at_once
from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.scores.examples import stamp_examples
from captum_classpattern.scores.power import (
    Scorer,
    Scores,
    StampTest,
    best_square,
    check_unseen,
    judge_each,
    random_pixels,
)
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.settings import (
    CONTROL_IMAGES,
    DRAWS,
    NO_IMAGES,
    SurveySettings,
    next_class,
    shared_search,
)


@dataclass(frozen=True)
class SurveyTask:
    """What finds the classes of a model, one after another.

    ``patches`` has the moving patches that are known: each is a control of the class before it.
    """

    model: CheckedModel
    search: LabelledImages
    explainer: ClassPattern
    scorer: Scorer  # with the held-out images, and the model's predictions
    settings: SurveySettings
    classes: Sequence[int]
    class_names: Sequence[str] | None
    patches: dict[int, Mapping[float, Pattern]] = field(default_factory=dict)

    def find(self, targets: Sequence[int]) -> Iterator[list[Finding]]:
        """The findings of each class in turn, one for each kind of canvas."""
        search, kinds = self.search, self.settings.canvases
        missing = [y for y in targets if not len(search.of_class(y))]
        if missing and any(kind not in NO_IMAGES for kind in kinds):
            listed = join_names([label_of(y, self.class_names) for y in missing])
            others = self.scorer.images
            own = sum(len(others.of_class(y)) for y in missing)
            raise ValueError(
                f"none of the {len(search)} search images is of {listed} ({own} of the "
                f"{len(others)} that are held out): give more, or choose what is held out "
                "(`held_out`); only blank `canvases`, such as white, and 'patch' need none"
            )
        together, done = self.settings.classes_together, 0
        together = together or classes_at_once(self.model.device, search)
        while group := targets[done : done + together]:
            first, *further = (label_of(y, self.class_names).split(",")[0] for y in group)
            name_stage(f"{first} and {len(further)} more" if further else first)
            try:
                patterns = self._search_group(group)
            except RuntimeError as error:
                if len(group) == 1 or isinstance(error, NoRoomForCopy) or not lacks_memory(error):
                    raise
                together = len(group) // 2
                continue
            done += len(group)
            for target in group:
                canvas: Tensor | None = None
                if {*kinds} != {PATCH}:
                    other = self._next_class(target)
                    [canvas] = canvases_for(self.model, search, other, 1, "positive", 0)
                yield [
                    self._finding(target, each, patterns[target, each], canvas) for each in kinds
                ]

    def _search_group(self, group: Sequence[int]) -> dict[tuple[int, str], dict[float, Pattern]]:
        """By class and kind of canvas the patterns of all areas that do best on the validation
        images.

        Classes with equally many canvases of a kind are searched together, and so are kinds of one
        colour. They take the same number of rounds as alone, unless some canvases of a class are
        equal.
        """
        search, seed = self.search, self.settings.seed
        best: dict[tuple[int, str], dict[float, Pattern]] = defaultdict(dict)
        by_size: dict[tuple[str, int], list[tuple[int, str]]] = defaultdict(list)
        kinds = [kind for kind in self.settings.canvases if kind != PATCH]
        for kind, target in itertools.product(kinds, group):
            size = self.settings.pool_size(kind, len(search.of_class(target)))
            by_size[shared_search(kind, size)].append((target, kind))
        for (_, size), pools in by_size.items():
            canvases = [canvases_for(self.model, search, y, size, kind, seed) for y, kind in pools]
            by_area = search_pools(
                self.explainer,
                torch.cat(canvases),
                [target for target, _ in pools for _ in range(size)],
                self.settings,
                groups=[pool for pool in pools for _ in range(size)],
            )
            for area, patterns in by_area.items():
                for pool, pattern in zip(pools, patterns, strict=True):
                    best[pool][area] = pattern
        if PATCH in self.settings.canvases:
            best |= self._search_patches(group)
        return best

    def _search_patches(self, group: Sequence[int]) -> dict[tuple[int, str], Any]:
        """Searches the moving patches of classes, and of the one after each, that are not known."""
        wanted = {y: None for target in group for y in (target, self._next_class(target))}
        missing = [y for y in wanted if y not in self.patches]
        settings = self.settings.of_patches
        by_area = {
            area: search_patches(self.explainer, missing, replace(settings, solver=solver))
            for area, solver in zip(settings.areas, settings.patches(self.search.shape))
            if missing
        }
        for place, target in enumerate(missing):
            self.patches[target] = {area: found[place] for area, found in by_area.items()}
        return {(y, PATCH): self.patches[y] for y in group}

    def _next_class(self, target: int) -> int:
        """The class whose canvas and patch are controls."""
        if (other := next_class(self.search.known_labels.tolist(), target)) == target:
            raise ValueError(
                f"the search images are all of class {target}: give images of other classes too"
            )
        return other

    def _finding(
        self, target: int, kind: str, patterns: Mapping[float, Pattern], next_canvas: Tensor | None
    ) -> Finding:
        """The patterns of a class on a kind of canvas, with their scores and examples. A control
        shows what another class does: the same mask over the positive canvas of the next class, or
        the patch of the next class."""
        if next_canvas is None or kind == PATCH:
            found = self.patches[self._next_class(target)].items()
            others = {area: replace(each, target=target) for area, each in found}
        else:
            others = {a: replace(p.topk(a), canvas=next_canvas) for a, p in patterns.items()}
        scores = {area: self._score(each, others[area], area) for area, each in patterns.items()}
        name = name_of(target, self.class_names)
        if name is not None:
            for pattern in patterns.values():
                pattern.info["class_name"] = name
        images, seed = self.scorer.images, self.settings.seed
        names = self.class_names or images.class_names
        seed_generators(seed)
        shown = {
            area: stamp_examples(self.model, pattern.topk(area), images, names, seed)
            for area, pattern in patterns.items()
        }
        stamped = {area: examples for area, examples in shown.items() if examples}
        return Finding(patterns, kind, scores, name, stamped=stamped)

    def _score(self, pattern: Pattern, other: Pattern, area: float) -> Scores:
        """The power of a pattern at its area, and its controls."""
        check_unseen(pattern, self.scorer.images)
        others = self.scorer.others(pattern.target)
        if len(others) < DRAWS:
            raise ValueError(
                f"there are {len(others)} held-out images that are not of class {pattern.target}: "
                f"give at least {DRAWS}"
            )
        images = others.subset(evenly_spaced(len(others), CONTROL_IMAGES))
        n = len(images)
        seed, target, whole = self.settings.seed, pattern.target, [other]
        seed_generators(seed)
        if moving := isinstance(pattern, MovingPattern):
            square = best_square(self.model, pattern, self.search, seed)
            whole += [] if square is None else [square]
        parts = [images.subset(range(i, n, DRAWS)) for i in range(DRAWS)]
        drawn = [random_pixels(pattern, area, seed + i) for i in range(DRAWS)]
        controls = [*zip(drawn, parts), *((each, images) for each in whole)]
        judged = [StampTest(each.stamper(seed), target, shown) for each, shown in controls]
        hits = [each.hits for each in judge_each(self.model, judged)]
        return Scores(
            self.scorer.power(pattern.topk(area), seed),
            random_pixels=sum(hits[:DRAWS]) / n,
            other_canvas=hits[DRAWS] / n,
            control_images=n,
            best_square=hits[-1] / n if len(whole) > 1 else None,
            moving=moving,
        )

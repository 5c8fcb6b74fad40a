"""The search and the scores of the classes of a model, one group after another."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from captum_classpattern._support.progress import expect_passes, name_stage
from captum_classpattern._support.validation import join_names
from captum_classpattern.classifier import CheckedModel, lacks_memory, seed_generators
from captum_classpattern.classifier.class_names import label_of, name_of
from captum_classpattern.images import LabelledImages, evenly_spaced
from captum_classpattern.optimization.acceleration import NoRoomForCopy
from captum_classpattern.optimization.canvases import PATCH, canvases_for
from captum_classpattern.optimization.competition import find_patterns
from captum_classpattern.optimization.plan import (
    SearchPlan,
    Split,
    classes_at_once,
    decide_patches,
    decide_search,
    split_for_validation,
)
from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.scores.examples import stamp_examples
from captum_classpattern.scores.power import (
    SQUARE_IMAGES,
    SQUARES,
    Scorer,
    Scores,
    StampTest,
    best_square,
    check_unseen,
    judge_each,
    random_pixels,
)
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.settings import NO_IMAGES, SurveySettings, shared_search

DRAWS, CONTROL_IMAGES = 3, 300  # of random pixels; the most images that a control is scored on


@dataclass(frozen=True)
class SurveyTask:
    """What finds the classes of a model, one after another.

    ``patches`` has the moving patches that are known: each is a control of the class before it.
    """

    model: CheckedModel
    search_images: LabelledImages
    scorer: Scorer  # with the held-out images, and the model's predictions
    settings: SurveySettings
    classes: Sequence[int]
    patches: dict[int, dict[float, Pattern]] = field(default_factory=dict)

    def find(self, targets: Sequence[int]) -> Iterator[list[Finding]]:
        """The findings of each class in turn, one for each kind of canvas."""
        search, kinds = self.search_images, self.settings.canvases
        missing = [y for y in targets if not len(search.of_class(y))]
        if missing and any(kind not in NO_IMAGES for kind in kinds):
            listed = join_names([label_of(y, self.model.names) for y in missing])
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
            first, *further = (label_of(y, self.model.names).split(",")[0] for y in group)
            name_stage(f"{first} and {len(further)} more" if further else first)
            try:
                patterns = self._search_group(group, len(targets) - done)
            except RuntimeError as error:
                if len(group) == 1 or isinstance(error, NoRoomForCopy) or not lacks_memory(error):
                    raise
                together = len(group) // 2
                continue
            done += len(group)
            for target in group:
                yield self._findings(target, {kind: patterns[target, kind] for kind in kinds})

    def _search_group(
        self, group: Sequence[int], left: int
    ) -> dict[tuple[int, str], dict[float, Pattern]]:
        """By class and kind of canvas the patterns of all areas that do best on the validation
        images. ``left`` classes remain, including these."""
        canvases, patches = self._decide(group), self._decide_patches(group)
        passes = sum(plan.passes for plan in (*(plan for _, plan in canvases), *patches.values()))
        others, settings = len(self.scorer.images), self.settings
        scored = len(settings.canvases) * (others + 2 * min(others, CONTROL_IMAGES))
        squares = SQUARES * SQUARE_IMAGES * (PATCH in settings.canvases)
        scoring = len(settings.areas) * (scored + squares) / 2  # to classify is half of a pass
        expect_passes(left * (passes / len(group) + scoring))
        best: dict[tuple[int, str], dict[float, Pattern]] = defaultdict(dict)
        for pools, plan in canvases:
            for area, patterns in find_patterns(plan).items():
                for pool, pattern in zip(pools, patterns, strict=True):
                    best[pool][area] = pattern
        found = {area: find_patterns(plan) for area, plan in patches.items()}
        for area, by_area in found.items():
            for patch in next(iter(by_area.values())):
                self.patches.setdefault(patch.target, {})[area] = patch
        if PATCH in settings.canvases:
            best |= {(y, PATCH): self.patches[y] for y in group}
        return best

    def _decide(self, group: Sequence[int]) -> list[tuple[list[tuple[int, str]], SearchPlan]]:
        """The searches of canvases, with the classes and kinds of canvas of each.

        Classes with equally many canvases of a kind are searched together, and so are kinds of one
        colour. They take the same number of rounds as alone, unless some canvases of a class are
        equal.
        """
        by_size: dict[tuple[str, int], list[tuple[int, str]]] = defaultdict(list)
        kinds = [kind for kind in self.settings.canvases if kind != PATCH]
        for kind, target in itertools.product(kinds, group):
            size = self.settings.pool_size(kind, len(self.search_images.of_class(target)))
            by_size[shared_search(kind, size)].append((target, kind))
        decided = []
        for (_, size), pools in by_size.items():
            canvases = [
                canvases_for(self.model, self.search_images, y, size, kind, self.settings.seed)
                for y, kind in pools
            ]
            targets = [target for target, _ in pools for _ in range(size)]
            groups = [pool for pool in pools for _ in range(size)]
            plan = decide_search(
                self.model, torch.cat(canvases), targets, self.split, self.settings, groups=groups
            )
            decided.append((pools, plan))
        return decided

    def _decide_patches(self, group: Sequence[int]) -> dict[float, SearchPlan]:
        """By area the searches of the moving patches of classes, and of the one after each, that
        are not known. ``n_steps`` is meant for canvases if there are any."""
        if PATCH not in self.settings.canvases:
            return {}
        wanted = {y: None for target in group for y in (target, self._next_class(target))}
        missing = [y for y in wanted if y not in self.patches]
        settings = self.settings
        own = replace(
            settings,
            canvases={PATCH: 1},
            n_steps=settings.n_steps if {*settings.canvases} == {PATCH} else None,
            feature_mask=None,
        )
        return {
            area: decide_patches(self.model, missing, self.split, replace(own, solver=patch))
            for area, patch in zip(settings.areas, settings.patches(self.split.fit.shape))
            if missing
        }

    @cached_property
    def split(self) -> Split:
        """The search images: those that masks are fitted to, and those that score them."""
        required = dict.fromkeys(self.classes)
        if PATCH in self.settings.canvases:
            required |= dict.fromkeys(map(self._next_class, self.classes))
        return split_for_validation(self.search_images, self.settings.seed, [*required])

    def _next_class(self, target: int) -> int:
        """The class whose canvas and patch are controls: the next of those that have images,
        whatever other classes are searched."""
        others: list[int] = sorted({*self.search_images.known_labels.tolist()} - {target})
        if not others:
            raise ValueError(
                f"the search images are all of class {target}: give images of other classes too"
            )
        return next((y for y in others if y > target), others[0])

    def _findings(
        self, target: int, by_kind: Mapping[str, Mapping[float, Pattern]]
    ) -> list[Finding]:
        """The patterns of a class on each kind of canvas, with their scores and examples. A control
        shows what another class does: the same mask over the positive canvas of the next class, or
        the patch of the next class."""
        next_class, findings = self._next_class(target), list[Finding]()
        images, seed = self.scorer.images, self.settings.seed
        name, names = name_of(target, self.model.names), self.model.names or images.class_names
        if {*by_kind} != {PATCH}:
            [canvas] = canvases_for(self.model, self.search_images, next_class, 1, "positive", 0)
        for kind, patterns in by_kind.items():
            if kind == PATCH:
                patches = self.patches[next_class].items()
                others = {area: replace(each, target=target) for area, each in patches}
            else:
                others = {a: replace(p.topk(a), canvas=canvas) for a, p in patterns.items()}
            scores = {a: self._score(pattern, others[a], a) for a, pattern in patterns.items()}
            if name is not None:
                for pattern in patterns.values():
                    pattern.info["class_name"] = name
            seed_generators(seed)
            shown = {
                area: stamp_examples(self.model, pattern.topk(area), images, names, seed)
                for area, pattern in patterns.items()
            }
            stamped = {area: examples for area, examples in shown.items() if examples}
            findings.append(Finding(patterns, kind, scores, name, stamped=stamped))
        return findings

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
            square = best_square(self.model, pattern, self.search_images, seed)
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

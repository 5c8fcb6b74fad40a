"""``explain_class`` and ``survey``: the search of one class of a model, or of many. Of each pool of
canvases the best is kept, and scored with its controls."""

import itertools
import math
import os
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from captum_classpattern._validation import (
    ArgumentTypeError,
    check_count,
    check_labels,
    check_options,
    check_seed,
    is_whole,
    join_names,
)
from captum_classpattern.attribution import (
    ClassPattern,
    search_patches,
    search_pools,
    versions,
)
from captum_classpattern.classifier import (
    Classifier,
    attribute_of,
    check_classifier,
    device_and_dtype,
    lacks_memory,
    over_pixels,
    preserve_state,
    warn_if_guessing,
)
from captum_classpattern.classifier.class_names import (
    ClassNames,
    known_names,
    label_of,
    name_of,
    parse_targets,
)
from captum_classpattern.classifier.fingerprints import hash_of, hash_of_model
from captum_classpattern.images import (
    Images,
    ImagesAndLabels,
    LabelledImages,
    Labels,
    ensure_labels,
    evenly_spaced,
    hash_of_images,
)
from captum_classpattern.optimization import MovingPatch, Swap
from captum_classpattern.optimization.acceleration import NoRoomForCopy
from captum_classpattern.optimization.canvases import (
    BLANK,
    PATCH,
    SOLID_COLOURS,
    STRATEGIES,
    select_canvases,
)
from captum_classpattern.optimization.features import check_can_resume, check_for_all
from captum_classpattern.optimization.pool import (
    LEAST_BUDGET,
    SCREENED,
    STARTS,
    classes_at_once,
    most_canvases,
    passes_of_group,
)
from captum_classpattern.optimization.search import name_stage, note_half_passes, passes_bar
from captum_classpattern.optimization.settings import SearchOptions, SearchSettings
from captum_classpattern.optimization.solvers.moving import SMALLEST
from captum_classpattern.pattern import MovingPattern, Pattern, pixels_kept
from captum_classpattern.scores.examples import stamp_examples
from captum_classpattern.scores.power import (
    SQUARE_IMAGES,
    SQUARES,
    Judged,
    Scorer,
    Scores,
    best_square,
    check_unseen,
    judge_each,
    random_pixels,
)
from captum_classpattern.surveys.findings import Finding, best_of_each
from captum_classpattern.surveys.folder import OUR_VERSION, RESULTS, SurveyFolder
from captum_classpattern.surveys.results import Survey, SurveyInterrupted

CANVASES: Mapping[str, int] = {"positive": 32, "white": 1, "black": 1}
AREAS = (0.05, 0.01)
LARGE = 64  # pixels a side, from which on these are the defaults
LARGE_CANVASES: Mapping[str, int] = {"positive": 32, PATCH: 1}
LARGE_AREAS, LARGE_BUDGET = (0.18,), MovingPatch.steps * MovingPatch.batch_size
NO_IMAGES = (*BLANK, PATCH)  # kinds that need no image of the class
DRAWS, CONTROL_IMAGES = 3, 300  # of random pixels; the most images that a control is scored on


class SurveyOptions(SearchOptions, total=False):
    """The keywords that :func:`survey` and :func:`sweep` share, see there."""

    areas: Sequence[float] | None
    canvases: str | Sequence[str] | Mapping[str, int] | None
    classes_together: int | None


@dataclass(frozen=True)
class SurveySettings(SearchSettings):
    """How each class is searched: the :class:`SurveyOptions`. ``canvases`` becomes a dict: at most
    how many canvases of each kind compete."""

    areas: Sequence[float] = AREAS
    canvases: Any = field(default_factory=lambda: CANVASES)
    classes_together: int | None = None
    show_progress: bool | None = None
    keep: int | None = field(default=1, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes_together is not None:
            check_count("classes_together", self.classes_together)
        if self.n_steps is None and self.budget is not None and self.budget < LEAST_BUDGET:
            raise ValueError(
                f"`budget={self.budget}` is too small: give at least {LEAST_BUDGET} passes per "
                "class and kind of canvas"
            )
        given = [self.canvases] if isinstance(self.canvases, str) else self.canvases
        if isinstance(given, list | tuple):
            most = CANVASES["positive"]
            given = {kind: 1 if kind in NO_IMAGES else most for kind in given}
        if not isinstance(given, Mapping) or not given:
            error = ValueError if given == {} else ArgumentTypeError
            raise error(
                "`canvases` must say how many of each kind, such as {'positive': 32, 'white': 1}, "
                f"or name kinds, such as 'white', got {self.canvases!r:.80}"
            )
        for kind, n in given.items():
            if kind not in (*STRATEGIES, PATCH):
                kinds = ", ".join((*STRATEGIES, PATCH))
                raise ValueError(f"`canvases` has the kind {kind!r}: choose from {kinds}")
            check_count(f"canvases[{kind!r}]", n)
            if kind == PATCH and n != 1:
                raise ValueError(f"`canvases` has {n} of 'patch': it has no canvas, so give 1")
        object.__setattr__(self, "canvases", {kind: int(n) for kind, n in given.items()})

    @classmethod
    def of(
        cls, shape: Sequence[int], areas: Any = None, canvases: Any = None, **options: Any
    ) -> "SurveySettings":
        """The settings, with what suits images (C, H, W) where nothing is given."""
        large = min(shape[1:]) >= LARGE
        if canvases is None:
            canvases = LARGE_CANVASES if large else CANVASES
            if large and options.get("budget") is None and options.get("n_steps") is None:
                options["budget"] = LARGE_BUDGET
        settings = cls(areas=AREAS if areas is None else areas, canvases=canvases, **options)
        if large and areas is None and PATCH in settings.canvases:
            return replace(settings, areas=LARGE_AREAS)
        return settings

    def patches(self, shape: Sequence[int]) -> list[MovingPatch]:
        """For each area the smallest moving patch that covers it on images (C, H, W)."""
        sides = [math.ceil(math.sqrt(a * math.prod(shape[1:])) - 1e-6) for a in self.areas]
        return [MovingPatch(max(SMALLEST, side)) for side in sides]

    def pool_size(self, kind: str, images: int) -> int:
        """How many canvases compete: no more than the budget can make use of, and than the class
        has images."""
        most: int = self.canvases[kind]
        if self.n_steps is None:
            most = min(most, most_canvases(self.budget or Swap.pool_budget))
        return most if kind in NO_IMAGES else max(1, min(most, images))

    def expected_passes(
        self, search: LabelledImages, held_out: LabelledImages, targets: Sequence[int]
    ) -> float:
        """About how many passes these classes take, with their scoring; to classify an image takes
        half of one."""
        total, even = 0.0, len(search) // max(1, len(targets))
        for y in targets:
            own = even if search.labels is None else int((search.labels == y).sum())
            held = 0 if held_out.labels is None else int((held_out.labels == y).sum())
            others = len(held_out) - held
            scored = others + 2 * min(others, CONTROL_IMAGES)  # by a pattern and its controls
            total += len(self.areas) * len(self.canvases) * scored / 2
            total += sum(self._passes_of_pool(kind, own) for kind in self.canvases)
            if PATCH in self.canvases:
                squares = SQUARES * SQUARE_IMAGES + min(others, CONTROL_IMAGES)
                total += len(self.areas) * squares / 2
        if PATCH in self.canvases and len(targets) == 1:  # and the patch of the next class
            total += self._passes_of_pool(PATCH, 0)
        return total

    def _passes_of_pool(self, kind: str, images: int) -> int:
        """About how many passes the search of a class with so many images takes, at all areas."""

        def cost(rounds: int) -> int:
            return passes_of_group(Swap().passes(rounds), candidates)

        if kind == PATCH:
            steps = self.n_steps or (self.budget or LARGE_BUDGET) // MovingPatch.batch_size
            return len(self.areas) * steps * MovingPatch.batch_size
        candidates = self.pool_size(kind, images) * (STARTS if kind in BLANK else 1)
        budget = self.budget or Swap.pool_budget
        rounds = self.n_steps or bisect_right(range(1, budget), budget, key=cost)
        at_smaller = cost(rounds)
        if candidates <= SCREENED:  # the best continues for two thirds of the rounds
            at_smaller = math.ceil(2 * rounds / 3) * Swap.batch_size * (1 + Swap.proposals)
        return cost(rounds) + (len(self.areas) - 1) * at_smaller


@dataclass(frozen=True)
class SurveyTask:
    """What finds the classes of a model, one after another.

    ``patches`` has the moving patches that are known of ``classes``, all of the survey: each is a
    control of the class before it.
    """

    model: Classifier
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
            own = ", its own among them" * all(len(others.of_class(y)) for y in missing)
            raise ValueError(
                f"none of the {len(search)} search images is of {listed} ({len(others)} others are "
                f"held out{own}): give more, or choose what is held out (`held_out`); only "
                "canvases of one colour, such as white, need none"
            )
        sample = search.take([0])
        device, _ = device_and_dtype(self.model, sample)
        usual = classes_at_once(device, sample.shape[1:])
        together, done = self.settings.classes_together or usual, 0
        while group := targets[done : done + together]:
            names = [label_of(y, self.class_names) for y in group[:: max(1, len(group) - 1)]]
            name_stage(f"Searching {' to '.join(names)}")
            try:
                patterns = self._search_group(group)
            except RuntimeError as error:
                if len(group) == 1 or isinstance(error, NoRoomForCopy) or not lacks_memory(error):
                    raise
                together = len(group) // 2
                continue
            done += len(group)
            for target in group:
                yield [
                    self._finding(target, kind, patterns[target, kind], controls)
                    for kind, controls in self._other_controls(target, patterns).items()
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
        for kind, target in itertools.product(self.settings.canvases, group):
            if kind == PATCH:
                continue
            size = self.settings.pool_size(kind, len(search.of_class(target)))
            by_size[shared_search(kind, size)].append((target, kind))
        for (_, size), pools in by_size.items():
            canvases = [
                select_canvases(self.model, search, None, y, size, kind, seed=seed)
                for y, kind in pools
            ]
            by_area = search_pools(
                self.explainer,
                torch.cat(canvases),
                [target for target, _ in pools for _ in range(size)],
                replace(self.settings, show_progress=False),  # there is a bar over all searches
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
        wanted = {y: None for target in group for y in (target, self._neighbour(target))}
        missing = [y for y in wanted if y not in self.patches]
        settings = replace(self.settings, feature_mask=None, show_progress=False)
        by_area = {
            area: search_patches(self.explainer, missing, replace(settings, solver=solver))
            for area, solver in zip(settings.areas, settings.patches(self.search.shape))
            if missing
        }
        for place, target in enumerate(missing):
            self.patches[target] = {area: found[place] for area, found in by_area.items()}
        return {(y, PATCH): self.patches[y] for y in group}

    def _neighbour(self, target: int) -> int:
        """The class whose patch is a control: the next one of the survey; of a class that is
        searched alone the next one that has images."""
        if len(self.classes) == 1:
            return _next_class(self.search, target)
        return self.classes[(self.classes.index(target) + 1) % len(self.classes)]

    def _other_controls(
        self, target: int, patterns: Mapping[tuple[int, str], Mapping[float, Pattern]]
    ) -> dict[str, dict[float, Pattern]]:
        """By kind of canvas and area what another class shows: the same mask over the positive
        canvas of the next class, or the patch of the next class."""
        search, controls = self.search, dict[str, dict[float, Pattern]]()
        if {*self.settings.canvases} != {PATCH}:
            other = _next_class(search, target)
            [next_canvas] = select_canvases(self.model, search, target=other, n=1)
        for kind in self.settings.canvases:
            found = patterns[target, kind].items()
            if kind == PATCH:
                found = self.patches[self._neighbour(target)].items()
                controls[kind] = {area: replace(each, target=target) for area, each in found}
            else:
                controls[kind] = {a: replace(each.topk(a), canvas=next_canvas) for a, each in found}
        return controls

    def _finding(
        self,
        target: int,
        kind: str,
        patterns: Mapping[float, Pattern],
        others: Mapping[float, Pattern],
    ) -> Finding:
        """The patterns of a class on a kind of canvas, with their scores and examples. Others show
        what another class does."""
        scores = {area: self._score(each, others[area], area) for area, each in patterns.items()}
        name = name_of(self, target)
        if name is not None:
            for pattern in patterns.values():
                pattern.info["class_name"] = name
        images, seed = self.scorer.images, self.settings.seed
        names = self.class_names or images.class_names
        with preserve_state(self.model, seed):
            stamped = {
                area: shown
                for area, pattern in patterns.items()
                if (shown := stamp_examples(self.model, pattern.topk(area), images, names, seed))
            }
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
        with preserve_state(self.model, self.settings.seed):
            seed, target, whole = self.settings.seed, pattern.target, [other]
            if moving := isinstance(pattern, MovingPattern):
                square = best_square(self.model, pattern, self.search, seed)
                whole += [] if square is None else [square]
            parts = [images.subset(range(i, n, DRAWS)) for i in range(DRAWS)]
            drawn = [random_pixels(pattern, area, seed + i) for i in range(DRAWS)]
            controls = [*zip(drawn, parts), *((each, images) for each in whole)]
            judged = [Judged(each.stamper(seed), target, shown) for each, shown in controls]
            hits = [each.hits for each in judge_each(self.model, judged, pattern.canvas)]
            scores = Scores(
                self.scorer.power(pattern.topk(area), seed),
                random_pixels=sum(hits[:DRAWS]) / n,
                other_canvas=hits[DRAWS] / n,
                control_images=n,
                best_square=hits[-1] / n if len(whole) > 1 else None,
                moving=moving,
            )
        note_half_passes(len(others) + (1 + len(whole)) * n + moving * SQUARES * SQUARE_IMAGES)
        return scores


def shared_search(kind: str, size: int) -> tuple[str, int]:
    """Which search pools of so many canvases share: those of one colour are searched together."""
    return ("" if kind in SOLID_COLOURS else kind, size)


def search_classes(
    model: Classifier,
    search: LabelledImages,
    held_out: LabelledImages,
    settings: SurveySettings,
    classes: Sequence[int],
    class_names: Sequence[str] | None,
    folder: Path | None = None,
) -> Survey:
    """Finds all classes that are not in the folder, and writes each when it is finished. The
    held-out images are classified once; it warns if the model is close to guessing."""
    started = time.perf_counter()
    name = f" {label_of(classes[0], class_names)}" if len(classes) == 1 else ""
    total = len(held_out) / 2 + settings.expected_passes(search, held_out, classes)
    with (
        preserve_state(model, settings.seed),
        passes_bar(total, settings.show_progress, desc=f"Searching{name}"),
    ):
        check_images(search, held_out, settings)
        sample = search.take([0])
        device, dtype = device_and_dtype(model, sample)
        n_classes = check_classifier(model, sample.to(device), classes).shape[1]
        check_labels(held_out.labels, n_classes, "the held-out images")
        labelled = ensure_labels(model, search)
        check_labels(labelled.labels, n_classes, "the search images")
        scorer = Scorer(model, held_out.to(device, dtype))
        note_half_passes(len(held_out))
        explainer = ClassPattern(model, labelled, check_accuracy=False)
        names = class_names or known_names(model)
        task = SurveyTask(model, labelled, explainer, scorer, settings, classes, names)
        info = _info_of(task, search, held_out, n_classes, classes, folder is not None)
        if held_out.labels is not None:
            warn_if_guessing(info["accuracy"], held_out.labels, n_classes, "held-out images")
        store, findings = None, list[Finding]()
        if folder is not None:
            store = SurveyFolder(folder, info["settings"])
            store.read(RESULTS)  # or an error
            findings = store.findings()
        done = {finding.target for finding in findings}
        task.patches.update({each.target: each.patterns for each in findings if each.is_patch})
        missing = [y for y in classes if y not in done]
        left = settings.expected_passes(search, held_out, missing)
        note_half_passes(round(2 * (total - left)) - len(held_out))
        try:
            for of_class in task.find(missing) if missing else [[]]:
                info["seconds"] = round(time.perf_counter() - started, 1)
                if store is not None:
                    if of_class:
                        store.add(of_class)
                    store.write_summary(info)
                findings += of_class
        except KeyboardInterrupt:
            raise SurveyInterrupted(Survey(findings, n_classes, info)) from None
    return Survey(findings, n_classes, info)


def _info_of(
    task: SurveyTask,
    search: LabelledImages,
    held_out: LabelledImages,
    n_classes: int,
    classes: Sequence[int],
    for_a_folder: bool,
) -> dict[str, Any]:
    """How classes are searched, for results.json. Without labels, nothing is known of accuracy."""
    predicted = task.scorer.predicted
    return {
        "settings": {
            "model": hash_of_model(task.model),
            **manifest_of(task.settings, search, held_out, for_a_folder),
            "predictions": hash_of(predicted.tolist()),
        },
        "provenance": attribute_of(task.model, "provenance") or {},
        "accuracy": None if held_out.labels is None else held_out.accuracy_of(predicted),
        "n_classes": n_classes,
        "classes": list(classes),
        "search_images": search.counts,
        "held_out_images": held_out.counts,
        "versions": versions(),
    }


def manifest_of(
    settings: SurveySettings,
    search: LabelledImages,
    held_out: LabelledImages,
    for_a_folder: bool = True,
) -> dict[str, Any]:
    """What decides the findings of a model, for the files of a folder. Without one, a Dataset is
    not read as a whole for its hash."""
    hashed = for_a_folder or search.in_memory
    return {
        "search_images": hash_of_images(search) if hashed else None,
        "held_out_images": hash_of_images(held_out),
        "canvases": settings.canvases,
        "areas": list(settings.areas),
        **settings.limits(),
        OUR_VERSION: versions()[OUR_VERSION],
    }


def _next_class(images: LabelledImages, target: int) -> int:
    """The class whose canvas serves as the control of a target's mask."""
    present: list[int] = sorted(set(images.known_labels.tolist()) - {target})
    if not present:
        raise ValueError(
            f"the search images are all of class {target}: give images of other classes too"
        )
    return next((label for label in present if label > target), present[0])


def find_classes(classes: Sequence[int | str], names: ClassNames | None) -> list[int]:
    """The numbers of classes that are given by numbers or names."""
    if len(classes) == 0:
        raise ValueError("`classes` is empty: leave it out to search all")
    given = [names.find(y) if names and isinstance(y, str) else y for y in classes]
    return list(dict.fromkeys(parse_targets(given, len(given))))


def check_images(
    search: LabelledImages, held_out: LabelledImages, settings: SurveySettings
) -> None:
    """Raises an error if the images differ in shape, or cannot be searched with these settings."""
    if search.shape != held_out.shape:
        raise ValueError(
            "search images and held-out images must have the same shape (C, H, W), got "
            f"{search.shape} and {held_out.shape}"
        )
    for area in settings.areas:
        pixels_kept(area, search.shape[1:])
    for patch in settings.patches(search.shape) if PATCH in settings.canvases else ():
        patch.check_images(search.shape, "a smaller `area`")
    check_for_all(settings.feature_mask, search.shape[1:])


def _survey(
    model: Classifier,
    images: LabelledImages,
    held_out: "ImagesAndLabels | None",
    class_names: Sequence[str] | None,
    settings: SurveySettings,
    classes: Sequence[Any] | None,
    *,
    folder: Path | None = None,
    needs_labels: bool = False,
) -> Survey:
    """The survey of classes by their numbers or names (None: all). Half of the images are held out,
    unless others are given."""
    matched = images.names_for(model, class_names)
    names = matched.names if matched else None
    if held_out is None:
        search, unseen = images.halves(settings.seed)
    else:
        unseen = LabelledImages.of(held_out, None, model, names, argument="held-out images")
        search = images
    if needs_labels:
        _ = search.known_labels, unseen.known_labels  # or an error
    if classes is None:
        targets = [*range(search.count_outputs(model))]
    else:
        targets = find_classes(classes, matched)
    return search_classes(model, search, unseen, settings, targets, names, folder)


def explain_class(
    model: Classifier,
    images: Images,
    labels: Labels = None,
    target: int | str | None = None,
    *,
    held_out: "ImagesAndLabels | None" = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    canvases: str | Sequence[str] | Mapping[str, int] | None = None,
    area: float | None = None,
    **options: Unpack[SearchOptions],
) -> Finding:
    r"""
    Finds the pattern of a class: the few pixels that make the model predict the class on as many
    other images as possible (Zhao et al. 2021, arXiv 2101.06898).

    It splits the images into two halves, class by class. Patterns are searched on the first half,
    on positive, white and black canvases. On images of at least 64 pixels a side, they are searched
    on positive canvases, and as a patch that works anywhere, see :class:`MovingPatch`. The second
    half only scores them, next to controls, see :class:`~captum_classpattern.scores.Scores`. What
    did best on the validation images, a part of the first half, is returned.

    It warns if the model is close to guessing. For all classes of a model, see :func:`survey`.

    Args:
        model (Callable): A :class:`PixelClassifier`, or any other classifier from pixels
            (B, C, H, W) in [0, 1] to logits (B, K). An ``nn.Module`` of normalised images needs
            ``mean`` and ``std``.
        images (LabelledImages, Tensor, Dataset or DataLoader): The images, (C, H, W) each, in
            [0, 1]. Classes of :class:`LabelledImages` are matched with the model's by name, see
            :meth:`LabelledImages.for_classifier`.
        labels (Tensor or Sequence[int], optional): Their classes, in the model's numbers.
            Default: None (those that come with the images).
        target (int or str): The class, by its number or its name. Required.
        held_out (LabelledImages, optional): The images to score on, none of them among
            ``images``. A Dataset or DataLoader with labels will do, or a pair of images and labels.
            Default: None (half of ``images``).
        mean (float or Sequence[float], optional): Mean of the pixels by which the model's images
            are normalised, see :class:`PixelClassifier`. Default: None.
        std (float or Sequence[float], optional): Standard deviation, likewise. Default: None.
        class_names (Sequence[str], optional): The name of each class of the model, in their order.
            Default: None (the model's, else those of the images).
        canvases (str, Sequence[str] or Mapping[str, int], optional): The kinds of canvas, or at
            most how many canvases of each kind, see :func:`select_canvases`; or ``"patch"``, a
            moving patch. Default: None ({"positive": 32, "white": 1, "black": 1}; from 64 pixels a
            side {"positive": 32, "patch": 1}).
        area (float, optional): Share of the pixels in the pattern; of an image that a patch covers.
            Default: None (0.05; with a patch, from 64 pixels a side, 0.18: 96 x 96 pixels of 224 x
            224).
        budget (int, optional): Passes per kind of canvas. With fewer than 2,000 patterns are
            weaker, and vary from seed to seed. Default: None (7,000; of a patch 960;
            from 64 pixels a side 960 of each of the default kinds).
        max_seconds (float, optional): Stops the search after that time, with what was found; each
            kind of canvas has an equal share, but white and black ones, which are searched
            together, have one. Choosing the canvases and scoring come on top. Default: None.
        seed (int): Seed of the split, of the search and of the random pixels. Default: 0.
        show_progress (bool, optional): Draws a progress bar over the passes, with the time that is
            left. Default: None (after five seconds).
        n_steps, feature_mask, precision, internal_batch_size: As in :meth:`ClassPattern.search`.
            The control of random pixels keeps single pixels, whatever the ``feature_mask``.

    Returns:
        *Finding*: The pattern, its power and its controls, and :attr:`Finding.others`, the findings
        on the other kinds of canvas. It shows itself in a notebook; ``plot()`` draws it.

    Raises:
        TypeError: If the model, the images or the target are of a wrong type, or a model that is
            not an ``nn.Module`` is given ``mean`` or ``std``.
        ValueError: If there are no labels, the class is unknown or has no images, or as
            :func:`survey`.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(90, 1, 8, 8), torch.arange(90) % 3
        >>> found = explain_class(
        ...     net, images, labels, "bee", mean=0.5, std=0.5, class_names=["ant", "bee", "cat"],
        ...     n_steps=5)
        >>> found.label, found.scores[0.05].power.n, len(found.others)
        ('bee', 30, 2)
        >>> found.stamp(images[:4]).shape
        torch.Size([4, 1, 8, 8])
    """
    _check_target(target, labels)
    check_options("explain_class", options, SearchOptions)
    classifier, seed = over_pixels(model, mean, std, class_names), options.get("seed", 0)
    with preserve_state(classifier, check_seed(seed)):  # says once that a model is in train mode
        given = LabelledImages.of(images, labels, classifier, class_names)
        areas = None if area is None else [area]
        settings = SurveySettings.of(given.shape, areas, canvases, **options)
        settings = replace(settings, areas=settings.areas[:1])
        if settings.max_seconds is not None:
            kinds = settings.canvases
            searches = {shared_search(kind, settings.pool_size(kind, 1)) for kind in kinds}
            settings = replace(settings, max_seconds=settings.max_seconds / len(searches))
        survey = _survey(
            classifier, given, held_out, class_names, settings, [target], needs_labels=True
        )
    explained = [replace(finding, accuracy=survey.info["accuracy"]) for finding in survey]
    [best] = best_of_each(explained)
    return replace(best, others=tuple(each for each in explained if each is not best))


def _check_target(target: Any, labels: Any) -> None:
    """Raises an error unless there is one class, which is not at the place of the labels."""
    if isinstance(labels, str) or (target is None and is_whole(labels)):
        raise ArgumentTypeError(
            f"the third argument is `labels`, got {labels!r}: name the class `target={labels!r}`"
        )
    if target is None:
        raise ValueError("`target` is missing: give the class to explain, such as `target='dog'`")
    if isinstance(target, list | tuple) or (isinstance(target, Tensor) and target.ndim):
        raise ArgumentTypeError(f"`target` is one class (for several: survey), got {target!r:.80}")


def survey(
    forward_func: Classifier,
    search: ImagesAndLabels,
    held_out: "ImagesAndLabels | None" = None,
    *,
    classes: Sequence[int | str] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **options: Unpack[SurveyOptions],
) -> Survey:
    r"""
    Searches the patterns of many classes, and scores each with its controls on held-out images.

    Canvases are chosen among the search images. For each kind of canvas, the pattern that does best
    on the validation images is kept, see ``keep`` of :meth:`ClassPattern.search`. The controls are:
    no pattern; the same number of random pixels of the canvas (3 draws, each on a third of the
    images); and the same mask on the positive canvas of the next class. The last two are scored on
    at most 300 of the images. A moving patch has others, see
    :class:`~captum_classpattern.scores.Scores`: the other patch is that of the next of the classes.
    For a class that is searched alone, it is searched as well.

    Args:
        forward_func (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K). An
            ``nn.Module`` of normalised images needs ``mean`` and ``std``.
        search (LabelledImages): The images that patterns are cut from and searched on. A Dataset
            or DataLoader will do, or a pair of images and labels.
        held_out (LabelledImages, optional): The images that patterns are scored on, likewise.
            Default: None (half of ``search``).
        classes (Sequence[int or str], optional): Which classes, by their numbers or by their names
            in the classifier's ``class_names``, or else the images'. Default: None (all).
        mean, std, class_names (optional): As in :func:`explain_class`.
        folder (str or PathLike, optional): Where classes are written as soon as they are finished,
            so that an interrupt loses no finished class. Default: None (nowhere).
        resume (bool): Continues the search in the folder: its findings come first, and only the
            classes that are missing are searched. Several processes may share a folder. Each must
            pass ``resume=True`` and the same settings, and its own ``classes``. Default: False (a
            folder that holds findings is an error).
        areas (Sequence[float], optional): Areas to search and score at. Default: None ((0.05,
            0.01); with patches, from 64 pixels a side, (0.18,)).
        canvases (str, Sequence[str] or Mapping[str, int], optional): The kinds of canvas, or at
            most how many of each kind and class, see :func:`select_canvases`; also at most one for
            each 215 passes of the budget. White canvases are all the same: each beyond the second
            is one more start of the search. ``"patch"`` is a :class:`MovingPatch` that covers the
            area. Default: None, as in :func:`explain_class`.
        classes_together (int, optional): Number of classes that are searched together. It changes
            masks by rounding at most, but for a class with copies among its canvases, which takes
            fewer rounds next to others. Default: None (on a CPU 10, or 1 for images of more than 64
            pixels a side; 32 on another device; half as many if its memory is too small for
            batches of one image).
        budget (int, optional): Passes per class and kind of canvas, at the largest area or at each
            area of a pool, as in :meth:`ClassPattern.search`; at least 430. Default: None, as in
            :func:`explain_class`.
        max_seconds (float, optional): Stops each search, of the classes and kinds of canvas that
            are searched together, after that time, with what was found. A patch and the patch that
            is its control share this time. Default: None.
        show_progress (bool, optional): Draws a progress bar over the passes, with the time that is
            left. Default: None (after five seconds).
        n_steps, feature_mask, seed, precision, internal_batch_size: As in
            :meth:`ClassPattern.search`.

    Returns:
        *Survey*: One :class:`Finding` for each class and kind of canvas, class by class.

    Raises:
        TypeError, ValueError: As :meth:`ClassPattern.search` and :func:`predictive_power`; also if
            the folder holds findings of other settings, or any without ``resume``.
        SurveyInterrupted: A ``KeyboardInterrupt`` whose ``survey`` holds the classes that were
            finished.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> labels = torch.arange(60) % 3
        >>> search = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> held_out = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> found = survey(net, search, held_out, areas=(0.1,), classes=[2], n_steps=10)
        >>> found
        Survey(3 findings on positive, white, black canvases, areas 0.1)
        >>> [(f.target, f.canvas, f.scores[0.1].power.n) for f in found]
        [(2, 'positive', 40), (2, 'white', 40), (2, 'black', 40)]
    """
    check_options("survey", options, SurveyOptions)
    place = None if folder is None else Path(folder)
    if place is not None and not resume and (place / RESULTS).exists():
        raise ValueError(
            f"{place} holds results already: pass `resume=True` to continue, or another folder"
        )
    model = over_pixels(forward_func, mean, std, class_names)
    seed = check_seed(options.get("seed", 0))
    with preserve_state(model, seed):  # says once that a model is in train mode
        images = LabelledImages.of(search, None, model, class_names, argument="search images")
        settings = SurveySettings.of(images.shape, **options)
        if place is not None:
            check_can_resume(settings.feature_mask)
        return _survey(model, images, held_out, class_names, settings, classes, folder=place)

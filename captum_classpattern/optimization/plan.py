"""A decided search: which images fit and which validate, which canvases compete, and for how long.

Code that runs or scores a search, or shows its progress or cost, reads it here.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_classpattern._support.validation import Notice, check_labels
from captum_classpattern.classifier import CheckedModel, Classifier, check_targets, warn
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.acceleration import accelerated
from captum_classpattern.optimization.baselines import Stream
from captum_classpattern.optimization.features import Features, number_features
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.shrink import Shrink

STARTS = 2  # of a blank canvas
SCREENING = Shrink()
GREY = 0.5
SCREENED = 2  # at least how many pass the screening for each pattern that is kept
PASSES_PER_CANVAS = 215  # of a budget: with less, a search of fewer canvases is stronger
LARGE, LARGE_BUDGET = 64, 960  # pixels a side, and the usual passes of a class from there on
LEAST_BUDGET = STARTS * PASSES_PER_CANVAS  # suffices for any one canvas
VALIDATION_STRIDE, MAX_VALIDATION = 5, 500
SCREENING_IMAGES, EARLY_IMAGES = 48, 100  # of the validation images
# the most images in one call, and their pixels: on CPUs, more spend their time on fresh memory
CPU_BATCH, CPU_PIXELS = 32, 8 * 224**2
DEVICE_BATCH, DEVICE_PIXELS = 1024, 160 * 224**2
CPU_CLASSES, DEVICE_CLASSES = 10, 32  # searched together


class Split(NamedTuple):
    """The images of a search: those that masks are fitted to, and those that score them."""

    fit: LabelledImages
    validation: LabelledImages


def split_for_validation(
    baselines: LabelledImages, seed: int, required: Sequence[int] = ()
) -> Split:
    """Every fifth image is for validation, in the order of the labels (shuffled within a label), so
    that each class gives its share. Of more than 2,500 images it is every n-th, so that there are
    at most 500. An error if patterns of one of the ``required`` classes could not be scored.
    """
    labels, count = baselines.known_labels, len(baselines)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    every = max(VALIDATION_STRIDE, -(-count // MAX_VALIDATION))
    validates = torch.zeros(count, dtype=torch.bool)
    validates[order[every - 1 :: every]] = True
    classes = len(set(labels.tolist()))
    if len(set(labels[~validates].tolist())) < min(classes, 2):
        validates[:] = False  # few images: a class would have none left to be fitted to
    fit, validation = baselines.subset(~validates), baselines.subset(validates)
    for target in required:
        if not len(validation.without_class(target)):
            own = int((labels == target).sum())
            raise ValueError(
                "to choose the best there must be validation images, and there are too few images "
                f"to search with: {count - own} of other classes and {own} of class {target}; give "
                # one of the others is for validation, and each side keeps an image to be fitted to
                f"at least {2 * every - 1} of others and 2 of it"
            )
    return Split(fit, validation)


def validation_subset(validation: LabelledImages, most: int) -> LabelledImages:
    """At most this many of the validation images, of all labels, for early and cheap decisions; all
    of them if those would be of one label, since each class needs images of others."""
    order = torch.argsort(validation.known_labels, stable=True)
    subset = validation.subset(order[:: max(1, -(-len(validation) // most))])
    return subset if len(set(subset.known_labels.tolist())) > 1 else validation


class Candidate(NamedTuple):
    """A canvas, by the first place at which it was given, and one of its starts, each of which
    meets the baselines in its own order. Candidates of one ``group`` compete; those of one
    ``budget_key`` share a budget."""

    given: int
    target: int
    start: int
    group: Hashable
    budget_key: Hashable


@dataclass(frozen=True, eq=False)
class SearchPlan:
    """A decided search: its candidates, its images, and its length at the largest area.

    Attributes:
        model (CheckedModel): The model, which is entered.
        fast (Callable): What the passes of the search call, see :func:`accelerated`.
        arguments (tuple): What the model gets after the images. If there are Tensors with a row for
            each canvas, each canvas is one candidate, so that their rows are those of candidates.
        canvases (Tensor): (N, C, H, W), the canvas of each candidate; of a moving patch its square.
        size (tuple[int, int]): H and W of the images.
        features (Features or None): The pixels of each candidate that are kept together.
        first (list[int]): Of each canvas that was given the first one that is equal to it.
        n_copies (Counter): Where patterns compete, how often each of these was given; otherwise 1.
        n_patterns (Counter): How many patterns of each group are kept.
        split (Split): What masks are fitted to, and what scores them.
        n_steps (int or None): Steps of the solver on each canvas; None leaves them to it.
        images_per_call (int): The most images in one call of the model.
        masks_only (bool): Whether candidates are only scored where some can be dropped.
    """

    model: CheckedModel
    fast: Classifier
    arguments: tuple[Any, ...]
    settings: SearchSettings
    candidates: list[Candidate]
    canvases: Tensor
    size: tuple[int, int]
    features: Features | None
    first: list[int]
    n_copies: Counter[int]
    n_patterns: Counter[Hashable]
    split: Split
    n_steps: int | None
    images_per_call: int
    masks_only: bool

    @cached_property
    def targets(self) -> Tensor:
        """The class of each candidate, int64 (N,), on the device."""
        targets = [one.target for one in self.candidates]
        return torch.tensor(targets, device=self.canvases.device)

    def new_streams(self) -> list[Stream]:
        """The baselines of each candidate, from their beginning; equal streams are one."""
        keys, seed = [(one.target, one.start) for one in self.candidates], self.settings.seed
        streams = {key: Stream(self.split.fit, *key, seed) for key in dict.fromkeys(keys)}
        return [streams[key] for key in keys]

    @property
    def places(self) -> int:
        """How many candidates go on after the screening for each pattern that is kept: all moving
        patches, since the screening chooses pixels."""
        if self.settings.is_patch:
            return len(self.candidates)
        return max(SCREENED, getattr(self.settings.solver, "starts", STARTS))

    @cached_property
    def n_scored(self) -> tuple[int, int]:
        """How many validation images score a candidate of the screening, and one half-way."""
        most, validation = (SCREENING_IMAGES, EARLY_IMAGES), self.split.validation
        at_first, early = (len(validation_subset(validation, n)) for n in most)
        return at_first, early

    def passes_needed(self, n_steps: int | None) -> Counter[Hashable]:
        """The most passes that each budget can take at the largest area. They do not depend on how
        many of the validation images are of the class, so that classes with as many canvases are
        searched alike."""
        at_first, early = self.n_scored
        passes, needed = self.settings.solver.passes(n_steps), Counter[Hashable]()
        sizes = Counter((one.budget_key, one.group) for one in self.candidates)
        for (key, group), size in sizes.items():
            kept, scored = self.n_patterns[group], 0
            if size > self.places * kept:
                needed[key] += size * SCREENING.passes(None)[-1]
                scored, size = size * at_first, self.places * kept
            scored += size * early * (len(passes) > 1)
            needed[key] += size * passes[0] + kept * (passes[-1] - passes[0]) + -(-scored // 2)
        return needed

    @property
    def passes(self) -> float:
        """About how many passes it takes at all areas, for a progress bar."""
        largest = float(sum(self.passes_needed(self.n_steps).values()))
        smaller, n_patterns = len(self.settings.areas) - 1, sum(self.n_patterns.values())
        if self.crowded(range(len(self.candidates)), self.places):  # searched anew at each area
            return largest * (1 + smaller)
        last: int = self.settings.solver.passes(self.n_steps)[-1]
        return largest + smaller * n_patterns * last * 2 / 3

    def steps_within_budget(self) -> int | None:
        """How many steps the solver takes on each canvas: the most that stay within a budget, which
        is for each class, or for each canvas, but at least one, with a notice. None leaves it to
        the solver."""
        solver, budget = self.settings.solver, self.settings.budget
        pool_budget: int | None = getattr(solver, "pool_budget", None)
        if budget is None and self.settings.keep is not None and pool_budget is not None:
            budget = pool_budget * max(self.n_patterns.values())
        if self.settings.n_steps is not None or budget is None:
            return self.settings.n_steps
        if not hasattr(solver, "passes"):
            raise ValueError(
                f"solver={solver.name!r} does not say how many passes its steps take, so it has no "
                "budget: give `n_steps` instead, or the solver a method passes(n_steps)"
            )

        def cost(n_steps: int) -> int:
            return max(self.passes_needed(n_steps).values())

        if (least := cost(1)) > budget:
            whose = "" if self.masks_only else " per class"
            warn(
                f"`budget={budget}` is too small: the search takes the least, one step on each "
                f"canvas, which is {least:,} passes{whose}",
                Notice,
            )
        return max(1, bisect_right(range(1, budget + 1), budget, key=cost))

    @property
    def accelerated_by(self) -> list[str]:
        """How the model that is searched is faster than the caller's."""
        return [*getattr(self.fast, "speedups", ())]

    @property
    def precision(self) -> str:
        """What the search computes in, such as "bfloat16"."""
        low = "bfloat16" in self.accelerated_by
        return "bfloat16" if low else str(self.model.dtype).removeprefix("torch.")

    def crowded(self, rows: Sequence[int], places: int = 1) -> list[int]:
        """The candidates of groups that have more of them than ``places`` for each pattern that is
        kept."""
        sizes = Counter(self.candidates[row].group for row in rows)
        large = {group for group, n in sizes.items() if n > places * self.n_patterns[group]}
        return [row for row in rows if self.candidates[row].group in large]

    def best(self, rows: Sequence[int], scores: Mapping[int, float], places: int = 1) -> list[int]:
        """Of some candidates those with the highest scores, ``places`` per pattern that is kept:
        group by group, the best of each group first; ties keep their order. For one canvas, as many
        starts come first as the caller gave copies."""
        best: list[int] = []
        for group, kept in self.n_patterns.items():
            ranked = [row for row in rows if self.candidates[row].group == group]
            ranked.sort(key=lambda row: -scores.get(row, -math.inf))
            starts, further = Counter[int](), set[int]()
            for row in ranked:
                canvas = self.candidates[row].given
                starts[canvas] += 1
                if starts[canvas] > self.n_copies[canvas]:
                    further.add(row)
            best += sorted(ranked, key=further.__contains__)[: places * kept]
        return best


def decide_search(
    model: CheckedModel,
    canvases: Tensor,
    targets: list[int],
    split: Split,
    settings: SearchSettings,
    arguments: tuple[Any, ...] = (),
    *,
    groups: Sequence[Hashable] | None = None,
    masks_only: bool = False,
    features: Tensor | None = None,
) -> SearchPlan:
    """Decides the search of canvases (M, C, H, W), of a model that is entered.

    Canvases of one class compete if ``keep`` is set, or those of one of the ``groups``, each of
    which has the whole budget. With ``masks_only``, a budget is for each canvas, equal ones share a
    search, and only those that may be dropped are scored. ``features`` are from
    :func:`number_features`, if they are known already.
    """
    ids = features
    if ids is None:
        ids = number_features(settings.feature_mask, canvases, settings.areas)
    if canvases.device != model.device:
        raise ValueError(
            f"the images are on {canvases.device}, but the model's parameters are on "
            f"{model.device}: move one of them (a pattern, by pattern.to(device))"
        )
    check_targets(targets, model.n_classes)
    check_labels(split.fit.labels, model.n_classes, split.fit.argument)
    canvases = canvases.detach()
    arguments = tuple(
        argument.clone() if isinstance(argument, Tensor) and argument.is_inference() else argument
        for argument in arguments
    )
    first, n_copies, candidates, n_patterns = _candidates(
        canvases, targets, ids, split, settings, arguments, groups, masks_only
    )
    chosen = [one.given for one in candidates]
    shown, size = canvases[chosen], (canvases.shape[-2], canvases.shape[-1])
    fast = model.logits
    if settings.solver.accelerates:
        fast = accelerated(model, split.fit, arguments, settings.precision, len(shown))
    square = slice(settings.solver.side if settings.is_patch else None)  # alone is searched
    plan = SearchPlan(
        model=model,
        fast=fast,
        arguments=arguments,
        settings=settings,
        candidates=candidates,
        canvases=shown[..., square, square],
        size=size,
        features=Features.of(ids[chosen]) if ids is not None else None,
        first=first,
        n_copies=n_copies,
        n_patterns=n_patterns,
        split=split,
        n_steps=settings.n_steps,
        images_per_call=settings.internal_batch_size or images_at_once_in_search(canvases),
        masks_only=masks_only,
    )
    return replace(plan, n_steps=plan.steps_within_budget())


def _candidates(
    canvases: Tensor,
    targets: list[int],
    ids: Tensor | None,
    split: Split,
    settings: SearchSettings,
    arguments: tuple[Any, ...],
    groups: Sequence[Hashable] | None,
    masks_only: bool,
) -> tuple[list[int], Counter[int], list[Candidate], Counter[Hashable]]:
    """Which canvases are searched, and how often: ``first``, ``n_copies``, ``candidates`` and
    ``n_patterns`` of the plan."""
    # Tensors may have a row for each canvas, so that none can share a search
    all_differ = any(isinstance(argument, Tensor) for argument in arguments)
    first = [*range(len(targets))]
    if (masks_only or settings.keep) and not all_differ:
        first = _first_equal(canvases, groups or targets, ids)
    n_copies = Counter(first if settings.keep else set(first))
    candidates, n_patterns = list[Candidate](), Counter[Hashable]()
    blank = (canvases == canvases[..., :1, :1]).flatten(1).all(1).tolist()
    for given in dict.fromkeys(first):
        starts, copies = 1, n_copies[given] if blank[given] else 1
        # the pixels of one colour favour no place, so a small pattern may settle at a wrong one
        if blank[given] and not all_differ and len(split.validation.without_class(targets[given])):
            starts = max(getattr(settings.solver, "starts", STARTS), copies)
        group = (groups or targets)[given] if settings.keep else given
        budget_key = group if masks_only or groups else targets[given]
        for start in range(starts):
            candidates.append(Candidate(given, targets[given], start, group, budget_key))
        n_patterns[group] = min(n_patterns[group] + copies, settings.keep or 1)
    return first, n_copies, candidates, n_patterns


def decide_patches(
    model: CheckedModel,
    targets: list[int],
    split: Split,
    settings: SearchSettings,
    arguments: tuple[Any, ...] = (),
) -> SearchPlan:
    """Decides the search of a moving patch of each target, which begins grey. The area is that of
    its side."""
    sample, solver = split.fit.take([0]), settings.solver
    solver.check_images(sample.shape[1:])
    grey = sample.new_full((len(targets), *sample.shape[1:]), GREY, device=model.device)
    settings = replace(settings, areas=[solver.side**2 / sample[0, 0].numel()])
    return decide_search(model, grey, targets, split, settings, arguments)


def _first_equal(
    canvases: Tensor, groups: Sequence[Hashable], features: Tensor | None
) -> list[int]:
    """Of each canvas the first one of its group that is equal to it and has the same features."""
    parts = [canvases.cpu().double().numpy()]
    if features is not None:
        parts.append(features.cpu().numpy())
    first: dict[Any, int] = {}
    return [
        first.setdefault((group, *(part[row].tobytes() for part in parts)), row)
        for row, group in enumerate(groups)
    ]


# ---- how much at once


def is_large(shape: Sequence[int]) -> bool:
    """Whether images (C, H, W) are large: blank canvases and single pixels do little on them, one
    class fills a batch of a CPU, and a scan searches for other changes."""
    return min(shape[1:]) >= LARGE


def most_canvases(budget: int) -> int:
    """How many canvases of a class a budget of passes can make use of."""
    return max(1, budget // PASSES_PER_CANVAS)


def classes_at_once(device: torch.device, images: LabelledImages) -> int:
    """How many classes of a model are searched together."""
    if device.type != "cpu":
        return DEVICE_CLASSES
    return 1 if is_large(images.shape) else CPU_CLASSES


def images_at_once_in_search(like: Tensor) -> int:
    """The most images in one call of a search, on the device of ``like`` and of its size."""
    on_cpu = like.device.type == "cpu"
    most, pixels = (CPU_BATCH, CPU_PIXELS) if on_cpu else (DEVICE_BATCH, DEVICE_PIXELS)
    return max(1, min(most, pixels // like[0, 0].numel()))

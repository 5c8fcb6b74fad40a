"""Which canvases compete for the passes of a search, how many passes that takes, and who wins."""

import copy
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from captum_classpattern._support.topk import topk_masks
from captum_classpattern._support.validation import check_labels
from captum_classpattern.classifier import (
    CheckedModel,
    additional_rows,
    check_targets,
    device_and_dtype,
    images_at_once,
    on_device,
)
from captum_classpattern.classifier.class_names import name_of
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.acceleration import accelerated
from captum_classpattern.optimization.features import Features
from captum_classpattern.optimization.masks import strongest
from captum_classpattern.optimization.objective import Batch, Objective
from captum_classpattern.optimization.schedule import Schedule, Stream
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.moving import MovingPatch
from captum_classpattern.optimization.solvers.shrink import Shrink
from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.scores.power import StampTest, judge_each

STARTS = 2  # of a blank canvas
SCREENING = Shrink()
SCREENED = 2  # at least how many pass the screening for each pattern that is kept
PASSES_PER_CANVAS = 215  # of a budget: with less, a search of fewer canvases is stronger
LEAST_BUDGET = STARTS * PASSES_PER_CANVAS  # suffices for any one canvas
VALIDATION_STRIDE, MAX_VALIDATION = 5, 500
SCREENING_IMAGES, EARLY_IMAGES = 48, 100  # of the validation images
# the most images in one call, and their pixels: on CPUs, more spend their time on fresh memory
CPU_BATCH, CPU_PIXELS = 32, 8 * 224**2
DEVICE_BATCH, DEVICE_PIXELS = 1024, 160 * 224**2
CPU_CLASSES, DEVICE_CLASSES = 10, 32  # searched together
CPU_SIDE = 64  # pixels: of larger images one class fills a batch of a CPU


def split_for_validation(
    baselines: LabelledImages, seed: int, required: Sequence[int] = ()
) -> tuple[LabelledImages, LabelledImages]:
    """The part that masks are fitted to, and the validation images, which score them.

    Every fifth image is for validation, in the order of the labels (shuffled within a label), so
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
    return fit, validation


def validation_subset(validation: LabelledImages, most: int) -> LabelledImages:
    """At most this many of the validation images, of all labels, for early and cheap decisions; all
    of them if those would be of one label, since each class needs images of others."""
    order = torch.argsort(validation.known_labels, stable=True)
    subset = validation.subset(order[:: max(1, -(-len(validation) // most))])
    return subset if len(set(subset.known_labels.tolist())) > 1 else validation


class Candidate(NamedTuple):
    """A canvas, by its position, and the stream of baselines that it meets. Candidates of one group
    compete; those on one canvas differ by their streams alone. Those of one ``purse``, a class or a
    group, share a budget."""

    canvas: int
    stream: Stream
    group: Hashable
    purse: Hashable


@dataclass(frozen=True)
class Pool:
    """The candidates of a search, how many of each group are kept, and the images that decide: a
    short form of successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943).

    Attributes:
        first (list[int]): Of each canvas the first one that is equal to it.
        copies (Counter): How often the caller gave each of these.
        kept (Counter): How many patterns of each group are kept.
        scores_all (bool): Whether candidates are also scored where none can be dropped.
    """

    settings: SearchSettings
    validation: LabelledImages
    candidates: list[Candidate]
    first: list[int]
    copies: Counter[int]
    kept: Counter[Hashable]
    scores_all: bool

    @classmethod
    def of(
        cls,
        canvases: Tensor,
        targets: list[int],
        settings: SearchSettings,
        validation: LabelledImages,
        *,
        groups: Sequence[Hashable] | None = None,
        all_differ: bool = False,
        masks_only: bool = False,
    ) -> Self:
        """The pool of canvases. Those of one class compete if ``keep`` is set, or those of one of
        the ``groups``, each of which has the whole budget.

        A canvas of one colour has several starts: its pixels favour no place, so a small pattern
        may settle at a wrong one. Canvases that are equal are one candidate where they compete, and
        further starts if they are of one colour; if ``all_differ``, each is a candidate with one
        start. With ``masks_only``, a budget is for each canvas, and equal ones share a search.
        """
        starts, keep = getattr(settings.solver, "starts", STARTS), settings.keep
        first = list(range(len(targets)))
        if (masks_only or keep) and not all_differ:
            first = _first_equal(canvases, groups or targets, settings.feature_mask)
        copies, kept = Counter(first if keep else set(first)), Counter[Hashable]()
        candidates: list[Candidate] = []
        blank = (canvases == canvases[..., :1, :1]).flatten(1).all(1).tolist()
        for canvas in dict.fromkeys(first):
            target = targets[canvas]
            several = blank[canvas] and not all_differ and len(validation.without_class(target))
            count = max(starts, copies[canvas]) if several else 1
            group = (groups or targets)[canvas] if keep else canvas
            purse = group if masks_only or groups else target
            candidates += [Candidate(canvas, Stream(target, n), group, purse) for n in range(count)]
            kept[group] += copies[canvas] if blank[canvas] else 1
            kept[group] = min(kept[group], keep or 1)
        return cls(settings, validation, candidates, first, copies, kept, not masks_only)

    @property
    def places(self) -> int:
        """How many candidates go on after the screening for each pattern that is kept: of moving
        patches all, since the screening chooses pixels."""
        if isinstance(self.settings.solver, MovingPatch):
            return len(self.candidates)
        return max(SCREENED, getattr(self.settings.solver, "starts", STARTS))

    def steps(self) -> int | None:
        """How many steps the solver takes on each canvas: the most that stay within a budget, which
        is for each class, or for each canvas. None leaves it to the solver."""
        solver, budget = self.settings.solver, self.settings.budget
        pool_budget: int | None = getattr(solver, "pool_budget", None)
        if budget is None and self.settings.keep is not None and pool_budget is not None:
            budget = pool_budget * max(self.kept.values())
        if self.settings.n_steps is not None or budget is None:
            return self.settings.n_steps
        if not hasattr(solver, "passes"):
            raise ValueError(
                f"solver={solver.name!r} does not say how many passes its steps take, so it has no "
                "budget: give `n_steps` instead, or the solver a method passes(n_steps)"
            )
        groups = Counter((one.purse, one.group) for one in self.candidates)
        subsets = (validation_subset(self.validation, n) for n in (SCREENING_IMAGES, EARLY_IMAGES))
        at_first, early = (len(subset) for subset in subsets)

        def cost(n_steps: int) -> int:
            """The most passes that a class, or a canvas, can take. It does not depend on how many
            of the validation images are of the class, so that classes with as many canvases are
            searched alike."""
            passes, costs = solver.passes(n_steps), Counter[Hashable]()
            for (purse, group), size in groups.items():
                kept, scored = self.kept[group], 0
                if size > self.places * kept:
                    costs[purse] += size * SCREENING.passes(None)[-1]
                    scored, size = size * at_first, self.places * kept
                scored += size * early * (len(passes) > 1)
                costs[purse] += size * passes[0] + kept * (passes[-1] - passes[0]) + -(-scored // 2)
            return max(costs.values())

        steps = bisect_right(range(1, budget + 1), budget, key=cost)
        if steps == 0:
            raise ValueError(
                f"`budget={budget}` is too small: one step on each canvas takes {cost(1)} passes"
                f"{' per class' * self.scores_all}; give a larger `budget`"
                f"{' or fewer canvases' * self.scores_all}"
            )
        return steps

    def crowded(self, rows: Sequence[int], places: int = 1) -> list[int]:
        """The candidates of groups that have more of them than ``places`` for each pattern that is
        kept."""
        sizes = Counter(self.candidates[row].group for row in rows)
        large = {group for group, size in sizes.items() if size > places * self.kept[group]}
        return [row for row in rows if self.candidates[row].group in large]

    def best(self, rows: Sequence[int], scores: Mapping[int, float], places: int = 1) -> list[int]:
        """Of some candidates those with the highest scores, ``places`` per pattern that is kept:
        group by group, the best of each group first; ties keep their order. Of one canvas, as
        many starts come first as the caller gave copies."""
        best: list[int] = []
        for group, kept in self.kept.items():
            ranked = [row for row in rows if self.candidates[row].group == group]
            ranked.sort(key=lambda row: -scores.get(row, -math.inf))
            starts, surplus = Counter[int](), set[int]()
            for row in ranked:
                canvas = self.candidates[row].canvas
                starts[canvas] += 1
                if starts[canvas] > self.copies[canvas]:
                    surplus.add(row)
            best += sorted(ranked, key=surplus.__contains__)[: places * kept]
        return best


def _first_equal(canvases: Tensor, groups: Sequence[Hashable], features: Any) -> list[int]:
    """Of each canvas the first one of its group that is equal to it and has the same features."""
    parts = [canvases.detach().cpu().double().numpy()]
    if isinstance(features, Tensor):
        parts.append(features.cpu().numpy())
    first: dict[Any, int] = {}
    return [
        first.setdefault((group, *(part[row].tobytes() for part in parts)), row)
        for row, group in enumerate(groups)
    ]


def most_canvases(budget: int) -> int:
    """How many canvases of a class a budget of passes can make use of."""
    return max(1, budget // PASSES_PER_CANVAS)


def classes_at_once(device: torch.device, images: LabelledImages) -> int:
    """How many classes of a model are searched together."""
    if device.type != "cpu":
        return DEVICE_CLASSES
    return CPU_CLASSES if max(images.shape[1:]) <= CPU_SIDE else 1


def images_at_once_in_search(like: Tensor) -> int:
    """The most images in one call of a search, on the device of ``like`` and of its size."""
    on_cpu = like.device.type == "cpu"
    most, pixels = (CPU_BATCH, CPU_PIXELS) if on_cpu else (DEVICE_BATCH, DEVICE_PIXELS)
    return max(1, min(most, pixels // like[0, 0].numel()))


def begin_search(
    model: CheckedModel,
    canvases: Tensor,
    streams: list[Stream],
    baselines: LabelledImages,
    settings: SearchSettings,
    arguments: tuple[Any, ...] = (),
    *,
    started: float = 0.0,
) -> Search:
    """A search of canvases that has not begun, of a model that is entered. The baselines have
    labels, and the feature mask of the settings is from ``number_features``."""
    model.check_device(canvases)
    canvases = canvases.detach().clone()  # out of inference mode, which allows no gradients
    arguments = tuple(
        argument.clone() if isinstance(argument, Tensor) and argument.is_inference() else argument
        for argument in arguments
    )
    targets, batch_size = [stream.target for stream in streams], settings.internal_batch_size
    check_targets(targets, model.n_classes)
    check_labels(baselines.labels, model.n_classes, baselines.argument)
    fast = model.logits
    if settings.solver.accelerates:
        fast = accelerated(fast, canvases, arguments, settings.precision)
    if batch_size is None:
        batch_size = images_at_once_in_search(canvases)
    if isinstance(settings.solver, MovingPatch):  # its square alone is searched
        canvases = canvases[..., : settings.solver.side, : settings.solver.side].clone()
    ids = settings.feature_mask
    return Search(
        settings.solver,
        Objective(fast, canvases, targets, arguments, batch_size),
        Schedule(baselines, streams, settings.seed),
        streams,
        settings.area,
        n_steps=settings.n_steps,
        deadline=None if settings.max_seconds is None else started + settings.max_seconds,
        show_progress=bool(settings.show_progress),
        features=Features.of(ids) if isinstance(ids, Tensor) else None,
    )


@dataclass(eq=False)
class PoolSearch:
    """The search of a pool at one area. The validation images alone decide which candidates go on.

    Attributes:
        canvases (Tensor): Those of the candidates. A solver may change the colours of its copies.
        powers (dict[int, float]): The last power of each candidate on validation images.
        margins (dict[int, float]): The mean margins on the same images.
        curves (dict[int, list]): Passes and powers of each candidate.
        scored_early (int): How many images were scored before the end.
        was_screened (bool): Whether there were so many candidates that a quick search came first.
    """

    pool: Pool
    canvases: Tensor
    model: CheckedModel
    search: Search
    powers: dict[int, float] = field(default_factory=dict, init=False)
    margins: dict[int, float] = field(default_factory=dict, init=False)
    curves: dict[int, list[list[float]]] = field(
        default_factory=lambda: defaultdict(list), init=False
    )
    scored_early: int = field(default=0, init=False)
    was_screened: bool = field(default=False, init=False)

    def run(self) -> None:
        """Runs the search to its end."""
        first_masks = self._screen()
        before = self.search.passes
        for _ in self.search.run():
            self._score(validation_subset(self.pool.validation, EARLY_IMAGES), early=True)
            self.search.drop_all_but(sorted(self.winners))
        # candidates that there was no time for keep the mask of the screening, or an empty one
        untouched = (self.search.passes == before).to(first_masks.device).view(-1, 1, 1, 1)
        self.search.masks = first_masks.where(untouched, self.search.masks)
        self._score(self.pool.validation)

    def at_smaller(self, area: float) -> "PoolSearch":
        """The finished search at a smaller area. A pool that was screened is searched anew, since
        other canvases are good at another area; otherwise the winners go on from their masks."""
        if self.was_screened and not self.search.stopped_early:
            other = replace(self, search=self.search.again(area, self.canvases.clone()))
            other.run()
        else:
            other = replace(self, search=self.search.at_area(area, sorted(self.winners)))
            other.search.finish()
            other._score(other.pool.validation)
        return other

    @property
    def passes(self) -> int:
        """The passes of all candidates at this area, and half a pass for each image that was scored
        early."""
        searched = sum(-(-count // 2) for count in self.search.half_passes)
        return searched + -(-self.scored_early // 2)

    @property
    def winners(self) -> list[int]:
        """The candidates whose patterns are kept: group by group, the best of each group first."""
        by_margin = getattr(self.search.solver, "chosen_by_margin", False)
        return self.pool.best(self.search.rows, self.margins if by_margin else self.powers)

    @property
    def masks(self) -> Tensor:
        """The best mask of each canvas (N, 1, H, W), the same for equal ones; for ``masks_only``,
        where each canvas is a group."""
        best = {self.pool.candidates[row].canvas: row for row in self.winners}
        return self.search.pixel_masks[[best[first] for first in self.pool.first]]

    @property
    def make_patch(self) -> Callable[..., Pattern] | None:
        """Makes the results if they are moving patches."""
        is_patch, size = isinstance(self.search.solver, MovingPatch), self.canvases.shape[-2:]
        return partial(MovingPattern, size=(size[0], size[1])) if is_patch else None

    @property
    def precision(self) -> str:
        """What the search computes in, such as "bfloat16"."""
        classifier = self.search.objective.forward_func
        dtype = str(device_and_dtype(classifier, self.search.canvases)[1]).removeprefix("torch.")
        return "bfloat16" if "bfloat16" in self.accelerated_by else dtype

    @property
    def accelerated_by(self) -> list[str]:
        """How the model that is searched is faster than the caller's."""
        return [*getattr(self.search.objective.forward_func, "speedups", ())]

    @property
    def seen(self) -> set[str]:
        """Hashes of the baselines: of a Tensor all, of others those that were used, since to hash
        all would load them."""
        schedule, source = self.search.schedule, self.search.schedule.source
        fitted = source if source.in_memory else source.subset(sorted(schedule.seen))
        return {*fitted.hashes, *self.pool.validation.hashes}

    def patterns(self, evidence: dict[str, Any], seen: frozenset[str]) -> list[Pattern]:
        """The patterns of the winners, with what the search knows of each and further evidence."""
        search, patterns = self.search, []
        masks, losses, passes = search.pixel_masks, search.loss_curves, search.passes
        canvases = [one.canvas for one in self.pool.candidates]
        for row in self.winners:
            mask, target = masks[row].clone(), search.objective.targets[row]
            info: dict[str, Any] = {
                "passes": int(passes[row]),
                "loss_curve": losses[row][losses[row].isfinite()].tolist(),
                "power_curve": self.curves[row],
                "search_power": self.powers.get(row),
                "search_margin": self.margins.get(row),
                "mask_pixels": int(mask.count_nonzero()),
                "empty_mask": not bool(mask.any()),
                "stopped_early": search.stopped_early,
            }
            others = [i for i in self.powers if i != row and canvases[i] == canvases[row]]
            if others and not self.make_patch:  # other starts: the strongest
                other = max(others, key=self.powers.__getitem__)
                pair = masks[[row, other]]
                one, two = (strongest(pair, search.n_pixels) > 0) & (pair > 0)
                if bool((one | two).any()):
                    info["starts_iou"] = float((one & two).sum() / (one | two).sum())
            info |= copy.deepcopy(evidence)
            info["settings"] |= {"area": search.area, "n_steps": search.n_steps}
            if (name := name_of(target, self.model.names)) is not None:
                info["class_name"] = name
            make = self.make_patch or Pattern
            patterns.append(make(search.canvases[row].clone(), mask, target, info, seen=seen))
        return patterns

    def _screen(self) -> Tensor:
        """Leaves the most promising candidates of each large group to the search. The masks of the
        screening; they are empty where there was none."""
        masks = torch.zeros_like(self.search.masks)
        rows = self.pool.crowded(self.search.rows, self.pool.places)
        if not rows:
            return masks
        self.was_screened = True
        quick = self.search.anew(SCREENING, rows)
        quick.finish()
        masks[rows] = quick.masks[rows]
        losses: list[Tensor] = []
        validation = validation_subset(self.pool.validation, SCREENING_IMAGES)
        images = on_device(validation.images, masks.device)
        at_once = max(1, images_at_once(masks.device) // SCREENING_IMAGES)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            targets = [self.pool.candidates[row].stream.target for row in part]
            others = [torch.nonzero(validation.known_labels != y).flatten() for y in targets]
            batch = Batch(images, part, [each.tolist() for each in others])
            self.scored_early += len(batch.places)
            pixels = quick.units.at(batch.index).spread(masks[batch.index])
            losses.append(quick.objective.evaluate(pixels, batch, bounded=True, gradient=False)[0])
        values = torch.cat(losses).tolist()
        scores = {row: -math.inf if math.isnan(x) else -x for row, x in zip(rows, values)}
        best = self.pool.best(self.search.rows, scores, self.pool.places)
        self.search.drop_all_but(sorted(best))
        return masks

    def _score(self, validation: LabelledImages, *, early: bool = False) -> None:
        """Extends the curves of those that are still searched: how many validation images of other
        classes get the class with their binary masks."""
        search, objective = self.search, self.search.objective
        rows = search.rows if self.pool.scores_all else self.pool.crowded(search.rows)
        make, masks = self.make_patch, search.pixel_masks
        binary = masks if make else topk_masks(masks, search.n_pixels)

        def stamper(row: int) -> Callable[[Tensor], Tensor]:
            canvas = objective.canvases[row]
            if make:
                patch = make(canvas, masks[row], objective.targets[row])
                return patch.stamper(search.schedule.seed)
            return lambda images: torch.where(binary[row] > 0, canvas.to(images), images)

        def additional_for(n: int, row: int) -> tuple[Any, ...]:
            every = torch.full((n,), row)
            return additional_rows(objective.additional, every, len(objective.canvases))

        others = {y: validation.without_class(y) for y in {objective.targets[row] for row in rows}}
        judged = {
            row: StampTest(stamper(row), target, others[target], partial(additional_for, row=row))
            for row in rows
            if len(others[target := objective.targets[row]])
        }
        hits = judge_each(self.model, [*judged.values()], objective.internal_batch_size)
        passes = search.passes.tolist()
        for (row, (_, _, images, _)), of_row in zip(judged.items(), hits):
            self.powers[row], self.margins[row] = of_row.hits / len(images), of_row.margin
            self.curves[row].append([passes[row], self.powers[row]])
            self.scored_early += len(images) * early


def begin_pool(
    model: CheckedModel,
    canvases: Tensor,
    targets: list[int],
    baselines: LabelledImages,
    settings: SearchSettings,
    arguments: tuple[Any, ...] = (),
    *,
    groups: Sequence[Hashable] | None = None,
    started: float = 0.0,
    masks_only: bool = False,
) -> PoolSearch:
    """The search of canvases at the largest area, which has not begun. With ``masks_only``, only
    those that may be dropped are scored; see :meth:`Pool.of` for more. ``max_seconds`` counts from
    ``started``, by ``time.perf_counter()``."""
    required = [] if settings.keep is None else targets
    fit, validation = split_for_validation(baselines, settings.seed, required)
    has_rows = any(isinstance(argument, Tensor) for argument in arguments)
    pool = Pool.of(
        canvases, targets, settings, validation,
        groups=groups, all_differ=has_rows, masks_only=masks_only,
    )  # fmt: skip
    chosen, ids = [one.canvas for one in pool.candidates], settings.feature_mask
    own_ids = ids[chosen] if isinstance(ids, Tensor) else None
    settings = replace(settings, feature_mask=own_ids)
    streams = [one.stream for one in pool.candidates]
    search = begin_search(
        model, canvases[chosen], streams, fit, settings, arguments, started=started
    )
    search.n_steps = pool.steps()  # or an error: what was typed was checked before what it costs
    return PoolSearch(pool, canvases[chosen], model, search)

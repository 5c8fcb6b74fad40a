"""Which canvases compete for the passes of a search, how many passes that takes, and who wins."""

import copy
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_classpattern.classifier import Classifier, additional_rows, logits_of
from captum_classpattern.classifier.class_names import name_of
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.features import bytes_of_rows
from captum_classpattern.optimization.holdout import judging_subset, split_for_judging
from captum_classpattern.optimization.masks import strongest
from captum_classpattern.optimization.objective import Batch
from captum_classpattern.optimization.run import begin_search
from captum_classpattern.optimization.schedule import Stream
from captum_classpattern.optimization.search import note_half_passes
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.shrink import Shrink
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import judge

STARTS = 2  # of a blank canvas
SCREENING = Shrink()
SCREENED = 2  # how many pass the screening, per pattern that is kept; or all starts, if more
PASSES_PER_CANVAS = 215  # of a budget: with less, a search of fewer canvases is stronger
LEAST_BUDGET = STARTS * PASSES_PER_CANVAS  # suffices for any one canvas
SCREENING_JUDGES, EARLY_JUDGES = 48, 100


class Entrant(NamedTuple):
    """A canvas, by its position, and the stream of baselines that it meets. Entrants of one group
    compete; those of one image differ by their streams alone."""

    canvas: int
    stream: Stream
    group: int
    image: int


class Pool:
    """The entrants of a search, how many of each group are kept, and the images that decide: a
    short form of successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943). A canvas of
    one colour has several starts: its pixels favour no place, so a small pattern may settle at a
    wrong one. If ``all_differ``, equal canvases are different entrants with one start each."""

    def __init__(
        self,
        canvases: Tensor,
        targets: list[int],
        settings: SearchSettings,
        judges: LabelledImages,
        *,
        all_differ: bool = False,
    ) -> None:
        self.settings, self.judges = settings, judges
        self.early_judges = judging_subset(judges, EARLY_JUDGES)
        self.screening_judges = judging_subset(judges, SCREENING_JUDGES)
        self.entrants: list[Entrant] = []
        self.kept: Counter[int] = Counter()  # of each group
        keep, starts = settings.keep, getattr(settings.solver, "starts", STARTS)
        self.screened = max(SCREENED, starts)
        blank = (canvases == canvases[..., :1, :1]).flatten(1).all(1).tolist()
        pixels = canvases.detach().cpu().double().numpy()
        features = bytes_of_rows(settings.feature_mask, len(canvases))
        first: dict[tuple[int, Any], int] = {}  # of equal canvases of a group
        self.copies = Counter[int]()  # of each image
        for canvas, target in enumerate(targets):
            group = canvas if keep is None else target
            key = canvas if all_differ else (pixels[canvas].tobytes(), features[canvas])
            image = first.setdefault((group, key), canvas)
            before = self.copies[image]
            self.copies[image] += 1
            if blank[canvas] and not all_differ and len(judges.without_class(target)):
                new = range(0 if before == 0 else max(starts, before), max(starts, before + 1))
            else:
                new = range(0 if before else 1)
            self.entrants += [Entrant(canvas, Stream(target, start), group, image) for start in new]
            counts = before == 0 or blank[canvas]
            self.kept[group] += counts and (keep is None or self.kept[group] < keep)

    def steps(self, *, per_canvas: bool = False) -> int | None:
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
        groups = Counter((entrant.stream.target, entrant.group) for entrant in self.entrants)
        judges = len(self.screening_judges), len(self.early_judges)

        def cost(n_steps: int) -> int:
            """The most passes that a class, or a canvas, can take. It does not depend on how many
            of the judges are of the class, so that classes with as many canvases are searched
            alike."""
            passes, costs = solver.passes(n_steps), Counter[int]()
            for (target, group), size in groups.items():
                taken = passes_of_group(passes, size, self.kept[group], self.screened, *judges)
                costs[group if per_canvas else target] += taken
            return max(costs.values())

        steps = bisect_right(range(1, budget + 1), budget, key=cost)
        if steps == 0:
            raise ValueError(
                f"`budget={budget}` is too small: one step on each canvas takes {cost(1)} passes"
                f"{'' if per_canvas else ' per class'}; give a larger `budget`"
                f"{'' if per_canvas else ' or fewer canvases'}"
            )
        return steps

    def crowded(self, entrants: Sequence[int], places: int = 1) -> list[int]:
        """Of some entrants those of the groups that have more of them than places, ``places`` per
        pattern that is kept."""
        sizes = Counter(self.entrants[row].group for row in entrants)
        large = {group for group, size in sizes.items() if size > places * self.kept[group]}
        return [row for row in entrants if self.entrants[row].group in large]

    def best(
        self, entrants: Sequence[int], scores: Mapping[int, float], places: int = 1
    ) -> list[int]:
        """Of some entrants those with the highest scores, ``places`` per pattern that is kept:
        group by group, the best of each group first; ties keep their order. More starts on an image
        than it has copies come last."""
        best: list[int] = []
        for group, kept in self.kept.items():
            ranked = [row for row in entrants if self.entrants[row].group == group]
            ranked.sort(key=lambda row: -scores.get(row, -math.inf))
            is_surplus: dict[int, bool] = {}
            starts = Counter[int]()
            for row in ranked:
                image = self.entrants[row].image
                starts[image] += 1
                is_surplus[row] = starts[image] > self.copies[image]
            best += sorted(ranked, key=is_surplus.__getitem__)[: places * kept]
        return best


def passes_of_group(
    passes: Sequence[int],
    entrants: int,
    kept: int = 1,
    screened: int = SCREENED,
    screening_judges: int = SCREENING_JUDGES,
    early_judges: int = EARLY_JUDGES,
) -> int:
    """The most passes of entrants that compete, of which this many are kept, from those of one of
    them at the solver's checkpoint and at the end."""
    judged, screening = 0, 0
    if entrants > screened * kept:
        screening = entrants * SCREENING.passes(None)[-1]
        judged = entrants * screening_judges
        entrants = screened * kept
    judged += entrants * early_judges * (len(passes) > 1)
    return screening + entrants * passes[0] + kept * (passes[-1] - passes[0]) + -(-judged // 2)


def most_canvases(budget: int) -> int:
    """How many canvases of a class a budget of passes can make use of."""
    return max(1, budget // PASSES_PER_CANVAS)


class Contest:
    """The search of canvases that compete. Only the judging images decide who goes on. With
    ``masks_only``, a budget is for each canvas, and only canvases that may be dropped are judged.
    ``max_seconds`` counts from ``started``, by ``time.perf_counter()``."""

    def __init__(
        self,
        forward_func: Classifier,
        canvases: Tensor,
        targets: list[int],
        baselines: LabelledImages,
        settings: SearchSettings,
        arguments: tuple[Any, ...] = (),
        *,
        started: float = 0.0,
        masks_only: bool = False,
    ) -> None:
        compared = [] if settings.keep is None else targets
        fit, judges = split_for_judging(baselines, settings.seed, compared)
        has_rows = any(isinstance(argument, Tensor) for argument in arguments)
        self.pool = Pool(canvases, targets, settings, judges, all_differ=has_rows)
        chosen = [entrant.canvas for entrant in self.pool.entrants]
        features = settings.feature_mask
        if isinstance(features, Tensor):
            settings = replace(settings, feature_mask=features[chosen])
        self.search = begin_search(
            forward_func,
            canvases[chosen],
            [entrant.stream for entrant in self.pool.entrants],
            fit,
            replace(settings, n_steps=self.pool.steps(per_canvas=masks_only)),
            arguments,
            started=started,
        )
        self.forward_func, self.masks_only = forward_func, masks_only
        self.judge_func = forward_func
        self.by_margin = getattr(settings.solver, "judged_by_margin", False)
        if self.by_margin:
            first = additional_rows(arguments, slice(1), len(canvases))
            self.judge_func = logits_of(forward_func, canvases[:1], [], first)
        self.powers: dict[int, float] = {}  # the last one of each entrant on judging images
        self.margins: dict[int, float] = {}  # the mean margins on the same images
        self.curves = defaultdict[int, list[list[float]]](list)  # passes and powers
        self.images_judged = 0  # before the end
        self.screened = False  # whether there were so many canvases

    def run(self) -> None:
        """Runs the search to its end."""
        first_masks = self._screen()
        before = self.search.passes
        for _ in self.search.run():
            self.images_judged += self._judge(self.pool.early_judges)
            self.search.keep(sorted(self.winners))
        # what there was no time for keeps the mask of the screening, or has none
        untouched = (self.search.passes == before).to(first_masks.device).view(-1, 1, 1, 1)
        self.search.masks = first_masks.where(untouched, self.search.masks)
        self._judge(self.pool.judges)

    def at_area(self, area: float) -> "Contest":
        """The finished search of the winners at a smaller area, which starts from their masks."""
        other = copy.copy(self)
        other.search = self.search.at_area(area, sorted(self.winners))
        other.powers, other.margins, other.curves = {}, {}, defaultdict(list)
        other.images_judged, other.screened = 0, False
        other.search.finish()
        other._judge(self.pool.judges)
        return other

    @property
    def passes(self) -> int:
        """The passes of all entrants at this area, and half a pass for each image that was judged
        early."""
        searched = sum(-(-count // 2) for count in self.search.half_passes)
        return searched + -(-self.images_judged // 2)

    @property
    def winners(self) -> list[int]:
        """The entrants whose patterns are kept: group by group, the best of each group first."""
        return self.pool.best(self.search.rows, self.margins if self.by_margin else self.powers)

    def patterns(self, evidence: dict[str, Any], seen: frozenset[str]) -> list[Pattern]:
        """The patterns of the winners, with what the search knows of each and further evidence."""
        search, patterns = self.search, []
        masks, losses, passes = search.pixel_masks, search.loss_curves, search.passes
        images = [entrant.image for entrant in self.pool.entrants]
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
            others = [i for i in self.powers if i != row and images[i] == images[row]]
            if others:  # other starts: the strongest
                other = max(others, key=self.powers.__getitem__)
                pair = masks[[row, other]]
                one, two = (strongest(pair, search.kept_pixels) > 0) & (pair > 0)
                info["starts_iou"] = float((one & two).sum() / (one | two).sum())
            info |= copy.deepcopy(evidence)
            info["settings"] |= {"area": search.area, "n_steps": search.n_steps}
            if (name := name_of(self.forward_func, target)) is not None:
                info["class_name"] = name
            patterns.append(Pattern(search.canvases[row].clone(), mask, target, info, seen=seen))
        return patterns

    def _screen(self) -> Tensor:
        """Leaves the most promising entrants of each large group to the search. The masks of the
        screening; they are empty where there was none."""
        masks = torch.zeros_like(self.search.masks)
        rows = self.pool.crowded(self.search.rows, self.pool.screened)
        if not rows:
            return masks
        self.screened = True
        quick = self.search.anew(SCREENING, rows)
        quick.finish()
        masks[rows] = quick.masks[rows]
        judges = self.pool.screening_judges
        images = judges.in_one_tensor().images.to(masks.device)
        losses: dict[int, Tensor] = {}
        for row in rows:
            others = judges.known_labels != self.pool.entrants[row].stream.target
            batch = Batch(images, [row], [torch.nonzero(others).flatten().tolist()])
            self.images_judged += len(batch.places)
            mask = quick.units.at([row]).spread(masks[row : row + 1])
            losses[row], _ = quick.objective.evaluate(mask, batch, bounded=True, gradient=False)
        scores = {row: -float(loss.nan_to_num(torch.inf)) for row, loss in losses.items()}
        self.search.keep(sorted(self.pool.best(self.search.rows, scores, self.pool.screened)))
        return masks

    def _judge(self, judges: LabelledImages) -> int:
        """Extends the curves of those that are still searched: how many judging images of other
        classes get the class with their binary masks. Returns how many images it took."""
        search, objective, judged = self.search, self.search.objective, 0
        passes, masks = search.passes.tolist(), self.search.pixel_masks
        for row in self.pool.crowded(search.rows) if self.masks_only else search.rows:
            canvas, target = objective.canvases[row], objective.targets[row]
            others = judges.without_class(target)
            if not len(others):
                continue

            def additional_for(n: int, row: int = row) -> tuple[Any, ...]:
                rows = torch.full((n,), row)
                return additional_rows(objective.additional, rows, len(objective.canvases))

            found = judge(
                self.judge_func,
                Pattern(canvas, masks[row], target).topk(search.area),
                others,
                additional_for=additional_for,
                batch_size=objective.internal_batch_size,
            )
            note_half_passes(len(others))
            self.powers[row], self.margins[row] = found.hits / len(others), found.margin
            self.curves[row].append([passes[row], self.powers[row]])
            judged += len(others)
        return judged

"""Canvases that compete: the weak ones are found early, and the passes go to the others.

A pool is screened with :class:`Shrink`; then the weakest are dropped at the solver's checkpoints
(successive halving; Jamieson and Talwalkar 2016, arXiv 1502.07943). Only the judging images decide.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_classpattern.classifier import Classifier
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.holdout import judge_masks, judging_subset
from captum_classpattern.optimization.masks import strongest
from captum_classpattern.optimization.objective import Batch
from captum_classpattern.optimization.schedule import Stream
from captum_classpattern.optimization.search import Search, Solver
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.shrink import Shrink

SCREENED = 6  # canvases that pass the screening, per pattern that is kept
STAGES = (2, 1)  # those that pass each checkpoint
SCREENING = Shrink()
SCREENING_JUDGES = 16
EARLY_JUDGES = 100
STARTS = 2  # of blank canvases


class Entrant(NamedTuple):
    """A canvas, by its position, and the stream of baselines that it meets. Entrants of one group
    compete; those of one image differ by their streams alone."""

    canvas: int
    stream: Stream
    group: int
    image: int


class Pool:
    r"""
    The entrants of a search, how many of each group are kept, and how they did.

    Without ``keep``, each canvas is a group of its own. A blank canvas starts twice: its pixels
    favour no place, so a small pattern may settle at a wrong one.

    Args:
        canvases (Tensor): (N, C, H, W).
        targets (list[int]): The class of each.
        keep (int, optional): How many patterns of each class to keep. None: one of each canvas.
        judges (LabelledImages): The images that decide.
    """

    def __init__(
        self, canvases: Tensor, targets: list[int], keep: int | None, judges: LabelledImages
    ) -> None:
        self.judges = judges
        self.entrants: list[Entrant] = []
        self.kept: Counter[int] = Counter()  # how many of each group
        self.curves: dict[int, list[tuple[int, float]]] = {}  # passes and power of each entrant
        self.images_judged = 0
        copies: dict[tuple[float, ...], tuple[int, int]] = {}  # the first of them; how many
        self._early = judging_subset(judges, EARLY_JUDGES)
        self._at_screening = judging_subset(judges, SCREENING_JUDGES)
        blank = (canvases == canvases[..., :1, :1]).flatten(1).all(1).tolist()
        for canvas, target in enumerate(targets):
            group = canvas if keep is None else target
            self.kept[group] += keep is None or self.kept[group] < keep
            starts, image = range(1), canvas
            if blank[canvas] and len(judges.without_class(target)):
                key = (group, *canvases[canvas, :, 0, 0].tolist())
                image, copy = copies.setdefault(key, (canvas, 0))
                copies[key] = image, copy + 1
                starts = range(STARTS) if copy == 0 else range(max(STARTS, copy), copy + 1)
            self.entrants += [
                Entrant(canvas, Stream(target, start), group, image) for start in starts
            ]

    def steps(self, settings: SearchSettings, keep: int | None) -> int | None:
        """How many steps the solver takes on each canvas; None leaves it to the solver."""
        if settings.n_steps is not None:
            return settings.n_steps
        if settings.budget is not None:
            return self.steps_within(settings.budget, settings.solver)
        budget: int | None = getattr(settings.solver, "pool_budget", None)
        if keep is None or budget is None:
            return None
        return self.steps_within(budget * keep, settings.solver)

    def steps_within(self, budget: int, solver: Solver) -> int:
        """The most steps of a solver that keep each class within a budget of passes."""
        if not hasattr(solver, "passes"):
            raise ValueError(
                f"solver={solver.name!r} does not say how many passes its steps take, so it has no "
                "budget: give n_steps instead, or the solver a method passes(n_steps)"
            )
        groups: dict[int, Counter[int]] = {}  # by class: the entrants of each group
        for entrant in self.entrants:
            groups.setdefault(entrant.stream.target, Counter())[entrant.group] += 1

        def cost(n_steps: int) -> int:
            passes = solver.passes(n_steps)
            return max(
                sum(self._passes(passes, target, group, size) for group, size in sizes.items())
                for target, sizes in groups.items()
            )

        steps = bisect_right(range(1, budget + 1), budget, key=cost)
        if steps == 0:
            raise ValueError(
                f"budget={budget} is too small: one step on each canvas takes {cost(1)} passes per "
                "class; give a larger budget or fewer canvases"
            )
        return steps

    def _passes(self, passes: Sequence[int], target: int, group: int, entrants: int) -> int:
        """The passes of a group, from those of one canvas at the checkpoints and at the end."""
        kept, judged, total = self.kept[group], 0, 0
        if entrants > SCREENED * kept:
            total += entrants * SCREENING.passes(None)[-1]
            judged += entrants * len(self._at_screening.without_class(target))
            entrants = SCREENED * kept
        *checkpoints, end = passes
        for before, now, places in zip([0, *checkpoints], checkpoints, STAGES):
            total += entrants * (now - before)
            judged += entrants * len(self._early.without_class(target))
            entrants = min(entrants, places * kept)
        return total + entrants * (end - (checkpoints or [0])[-1]) + -(-judged // 2)

    def run(self, forward_func: Classifier, search: Search) -> None:
        """Runs a search of the entrants to its end, and drops the weak ones on the way."""
        self.curves = {row: [] for row in search.rows}
        self._screen(search)
        for places in STAGES:
            if next(search.checkpoints, "finished") == "finished":
                break
            counts = self._judge(forward_func, search, self._early)
            self.images_judged += sum(n for _, n in counts.values())
            search.keep(self._best(search.rows, self._last_powers, places))
        search.finish()
        self._judge(forward_func, search, self.judges)

    def winners(self, search: Search) -> list[int]:
        """The rows whose patterns are kept: group by group, the best of each group first."""
        powers = self._last_powers
        return [row for group in self.kept for row in self._ranked(search.rows, powers, group)]

    def info(self, search: Search, row: int) -> dict[str, Any]:
        """What the search knows of the pattern of one row."""
        mask, losses, curve = search.masks[row], search.result().losses[row], self.curves[row]
        info = {
            "passes": int(search.passes[row]),
            "loss_curve": losses[losses.isfinite()].tolist(),
            "power_curve": [list(point) for point in curve],
            "search_power": curve[-1][1] if curve else None,
            "mask_pixels": int(mask.count_nonzero()),
            "empty_mask": not bool(mask.any()),
        }
        overlap = self._overlap(search, row)
        return info if overlap is None else {**info, "starts_iou": overlap}

    def _overlap(self, search: Search, row: int) -> float | None:
        """The IoU of a pattern and the strongest other start on its canvas, if there is one."""
        mine = self.entrants[row]
        others = [
            other
            for other, entrant in enumerate(self.entrants)
            if other != row
            and (entrant.group, entrant.image) == (mine.group, mine.image)
            and self.curves[other]
        ]
        if not others:
            return None
        other = max(others, key=lambda other: self.curves[other][-1])
        binary = strongest(search.masks[[row, other]], search.kept_pixels) > 0
        return float((binary[0] & binary[1]).sum() / (binary[0] | binary[1]).sum())

    @property
    def _last_powers(self) -> dict[int, float]:
        return {row: curve[-1][1] for row, curve in self.curves.items() if curve}

    def _judge(
        self, forward_func: Classifier, search: Search, judges: LabelledImages
    ) -> dict[int, tuple[int, int]]:
        """Judges the masks of a search, and extends their curves."""
        counts = judge_masks(forward_func, search, judges)
        passes = search.passes.tolist()
        for row, (hits, n) in counts.items():
            if n:
                self.curves[row].append((passes[row], hits / n))
        return counts

    def _screen(self, search: Search) -> None:
        """Leaves the most promising entrants of each large group to the search."""
        sizes = Counter(entrant.group for entrant in self.entrants)
        large = {g for g, size in sizes.items() if size > SCREENED * self.kept[g]}
        rows = [row for row in search.rows if self.entrants[row].group in large]
        if not rows:
            return
        quick = search.anew(SCREENING, rows)
        quick.finish()
        search.add_passes(quick)
        losses = self._losses(quick)
        search.keep(self._best(search.rows, {row: -loss for row, loss in losses.items()}, SCREENED))

    def _losses(self, search: Search) -> dict[int, float]:
        """The losses of a search's masks on some of the judging images."""
        judges = self._at_screening
        targets = [self.entrants[row].stream.target for row in search.rows]
        picks = [torch.nonzero(judges.known_labels != t).flatten().tolist() for t in targets]
        images = judges.in_one_tensor().images.to(search.masks.device)
        self.images_judged += sum(map(len, picks))
        losses, _ = search.objective.evaluate(
            search.masks[search.rows],
            Batch(images, search.rows, picks),
            bounded=True,
            gradient=False,
        )
        return dict(zip(search.rows, losses.tolist()))

    def _best(self, rows: list[int], scores: Mapping[int, float], places: int) -> list[int]:
        """The rows of each group with the highest scores, ``places`` per pattern that is kept, in
        their order."""
        return sorted(
            row for group in self.kept for row in self._ranked(rows, scores, group, places)
        )

    def _ranked(
        self, rows: list[int], scores: Mapping[int, float], group: int, places: int = 1
    ) -> list[int]:
        """The rows of a group with the highest scores, best first, of equals in their order."""
        of_group = [row for row in rows if self.entrants[row].group == group]
        of_group.sort(key=lambda row: -scores.get(row, 0.0))
        return of_group[: places * self.kept[group]]

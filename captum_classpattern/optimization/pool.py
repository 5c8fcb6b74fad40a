"""Which canvases compete for the passes of a search, and how many passes that takes."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.holdout import judging_subset
from captum_classpattern.optimization.schedule import Stream
from captum_classpattern.optimization.search import Solver
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.shrink import Shrink

STARTS = 2  # of a blank canvas
SCREENING = Shrink()
SCREENED = 2  # how many pass the screening, per pattern that is kept
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
    r"""
    The entrants of a search, how many of each group are kept, and the images that decide.

    A group of more than two entrants per kept pattern is screened, which leaves two of them. The
    solver's checkpoint leaves one. This is a short form of successive halving (Jamieson and
    Talwalkar 2016, arXiv 1502.07943). Without ``keep``, each canvas is a group of its own.

    A canvas of one colour has several ``starts``: its pixels favour no place, so a small pattern
    may settle at a wrong one. If ``all_differ``, equal canvases are different entrants with one
    start each, as those with additional arguments of their own are.
    """

    def __init__(
        self,
        canvases: Tensor,
        targets: list[int],
        keep: int | None,
        judges: LabelledImages,
        *,
        starts: int = STARTS,
        all_differ: bool = False,
    ) -> None:
        self.entrants: list[Entrant] = []
        self.kept: Counter[int] = Counter()  # of each group
        self.judges = judges
        self.early_judges = judging_subset(judges, EARLY_JUDGES)
        self.screening_judges = judging_subset(judges, SCREENING_JUDGES)
        self.keeps_best = keep is not None
        blank = (canvases == canvases[..., :1, :1]).flatten(1).all(1).tolist()
        pixels = canvases.detach().cpu().double().numpy()
        first: dict[tuple[int, bytes], int] = {}  # of equal canvases of a group
        self.copies = Counter[int]()  # of each image
        for canvas, target in enumerate(targets):
            group = target if self.keeps_best else canvas
            key = (group, str(canvas).encode() if all_differ else pixels[canvas].tobytes())
            image = first.setdefault(key, canvas)
            before = self.copies[image]
            self.copies[image] += 1
            if blank[canvas] and not all_differ and len(judges.without_class(target)):
                new = range(0 if before == 0 else max(starts, before), max(starts, before + 1))
            else:
                new = range(0 if before else 1)
            self.entrants += [Entrant(canvas, Stream(target, start), group, image) for start in new]
            counts = before == 0 or blank[canvas]
            self.kept[group] += counts and (keep is None or self.kept[group] < keep)

    def steps(self, settings: SearchSettings, *, per_canvas: bool = False) -> int | None:
        """How many steps the solver takes on each canvas; None leaves it to the solver. A budget is
        for each class, or for each canvas."""
        if settings.n_steps is not None:
            return settings.n_steps
        if settings.budget is not None:
            return self.steps_within(settings.budget, settings.solver, per_canvas=per_canvas)
        budget: int | None = getattr(settings.solver, "pool_budget", None)
        if not self.keeps_best or budget is None:
            return None
        return self.steps_within(budget * max(self.kept.values()), settings.solver)

    def steps_within(self, budget: int, solver: Solver, *, per_canvas: bool = False) -> int:
        """The most steps of a solver that stay within a budget of passes."""
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
                taken = passes_of_group(passes, size, self.kept[group], *judges)
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
            of_group = [row for row in entrants if self.entrants[row].group == group]
            of_group.sort(key=lambda row: -scores.get(row, 0.0))
            seen = Counter[int]()
            first: list[int] = []
            last: list[int] = []
            for row in of_group:
                image = self.entrants[row].image
                (first if seen[image] < self.copies[image] else last).append(row)
                seen[image] += 1
            best += (first + last)[: places * kept]
        return best


def passes_of_group(
    passes: Sequence[int],
    entrants: int,
    kept: int = 1,
    screening_judges: int = SCREENING_JUDGES,
    early_judges: int = EARLY_JUDGES,
) -> int:
    """The most passes of entrants that compete, of which this many are kept, from those of one of
    them at the solver's checkpoint and at the end."""
    judged, screening = 0, 0
    if entrants > SCREENED * kept:
        screening = entrants * SCREENING.passes(None)[-1]
        judged = entrants * screening_judges
        entrants = SCREENED * kept
    judged += entrants * early_judges * (len(passes) > 1)
    return screening + entrants * passes[0] + kept * (passes[-1] - passes[0]) + -(-judged // 2)


def most_canvases(budget: int) -> int:
    """How many canvases of a class a budget of passes can make use of."""
    return max(1, budget // PASSES_PER_CANVAS)

"""Our solver against the paper's loop: passes and time to its power, and power at its passes."""

import time
from collections.abc import Iterator
from statistics import mean
from typing import NamedTuple

import torch
from problems import Problem, row

from captum_classpattern import ClassPattern, Pattern, predictive_power, select_canvases

CANVASES, AREA = 4, 0.05
ROUNDS = (4, 8, 12, 16, 24, 32, 40, 48, 80)
MANY = 800  # ten times the default
TIMED = 2  # canvases of the loop that are searched one by one, for the time of one


class Outcome(NamedTuple):
    """What some searches of all classes cost, and what they gave on held-out images."""

    power: float
    passes: float  # of a class
    seconds: float  # of all classes

    @classmethod
    def mean(cls, outcomes: list["Outcome"]) -> "Outcome":
        return cls(*(mean(values) for values in zip(*outcomes)))


class Bench:
    """Searches of all classes of one problem with one seed, on the same canvases."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.seed = problem, seed
        self.classes = sorted(set(problem.labels.tolist()))
        self.targets = [target for target in self.classes for _ in range(CANVASES)]
        self.canvases = torch.cat(
            [
                select_canvases(problem.model, problem.images, problem.labels, target, CANVASES)
                for target in self.classes
            ]
        ).to(next(problem.model.parameters()).device)
        self.explainer = ClassPattern(problem.model, problem.images, problem.labels)

    def search(self, rows: slice = slice(None), **settings: object) -> tuple[list[Pattern], float]:
        """The patterns of some of the canvases, and the seconds that they took."""
        started = time.perf_counter()
        patterns = self.explainer.search(
            self.canvases[rows], self.targets[rows], area=AREA, seed=self.seed, **settings
        )
        return patterns, time.perf_counter() - started

    def power(self, patterns: list[Pattern]) -> float:
        """Mean held-out predictive power."""
        _, model, *_, images, labels = self.problem
        return mean(predictive_power(model, p, images, labels, AREA).value for p in patterns)

    def outcome(self, patterns: list[Pattern], seconds: float) -> Outcome:
        passes = patterns[0].info["passes_together"] / len(self.classes)
        return Outcome(self.power(patterns), passes, seconds)

    def best(self, patterns: list[Pattern]) -> list[Pattern]:
        """For each class the canvas that did best on the judging images."""
        return [
            max((p for p in patterns if p.target == target), key=lambda p: p.info["search_power"])
            for target in self.classes
        ]


def rounds_for(bench: Bench, passes: float, **settings: object) -> int:
    """How many rounds of ours cost so many passes a class: a line through two short searches,
    since the early judging costs the same however long the search is."""
    few, more = 8, 24
    costs = [
        bench.search(n_steps=rounds, **settings)[0][0].info["passes_together"]
        for rounds in (few, more)
    ]
    of_a_round = (costs[1] - costs[0]) / (more - few)
    return few + round((passes * len(bench.classes) - costs[0]) / of_a_round)


def compare(problem: Problem, seeds: int, equal_seeds: int, device: torch.device) -> Iterator[str]:
    """The lines of the problem's tables."""
    each: list[Outcome] = []
    best: list[Outcome] = []
    alone: list[float] = []
    equal: list[Outcome] = []
    equal_best: list[Outcome] = []
    ours: dict[int, list[Outcome]] = {rounds: [] for rounds in ROUNDS}
    for seed in range(seeds):
        bench = Bench(problem, seed)
        patterns, seconds = bench.search(solver="paper")
        each.append(bench.outcome(patterns, seconds))
        best.append(bench.outcome(bench.best(patterns), seconds))
        for rounds, outcomes in ours.items():
            outcomes.append(bench.outcome(*bench.search(n_steps=rounds, keep=1)))
        if seed >= equal_seeds:
            continue
        rounds = rounds_for(bench, each[-1].passes)
        equal.append(bench.outcome(*bench.search(n_steps=rounds)))
        rounds = rounds_for(bench, best[-1].passes, keep=1)
        equal_best.append(bench.outcome(*bench.search(n_steps=rounds, keep=1)))
    bench = Bench(problem, 0)
    for canvas in range(0, len(bench.targets), len(bench.targets) // TIMED):  # of some classes
        alone.append(bench.search(slice(canvas, canvas + 1), solver="paper")[1])
    loop, loop_alone = Outcome.mean(best), mean(alone) * len(bench.targets)
    yield f"\n### {problem.name}: all {len(bench.classes)} classes, {seeds} seeds\n"
    yield (
        f"Best of {CANVASES} canvases by the judging images. The loop: power {loop.power:.3f}, "
        f"{loop.passes:,.0f} passes a class; {loop_alone:,.0f} s canvas by canvas, as published "
        f"({TIMED} canvases timed), {loop.seconds:,.0f} s with all canvases in one batch.\n"
    )
    yield "| rounds | power | passes / the loop's | time / the loop's | ... in one batch |"
    yield "|---|---|---|---|---|"
    reached = None
    for rounds, outcomes in ours.items():
        own = Outcome.mean(outcomes)
        reached = own if reached is None and own.power >= loop.power else reached
        yield (
            f"| {rounds} | {own.power:.3f} | 1/{loop.passes / own.passes:.1f} "
            f"| 1/{loop_alone / own.seconds:.1f} | 1/{loop.seconds / own.seconds:.1f} |"
        )
    yield f"\nAt equal passes: {equal_seeds} seeds.\n"
    yield "| figure | loop | ours | goal | |\n|---|---|---|---|---|"
    ratio = 0.0 if reached is None else loop_alone / reached.seconds
    goal = 100 if device.type == "cuda" else 20
    name = "time to the loop's power, best of 4"
    yield row(
        name, "1", f"1/{ratio:.1f}" if ratio else "not reached", f"<= 1/{goal}", ratio >= goal
    )
    for name, theirs, own, gain in (
        ()
        if not equal_seeds
        else (
            ("power at equal passes, canvas by canvas", each, equal, 0.05),
            ("power at equal passes, best of 4", best, equal_best, 0.10),
        )
    ):
        loop, mine = Outcome.mean(theirs[:equal_seeds]), Outcome.mean(own)
        name += f" ({mine.passes / loop.passes:.2f} of the loop's)"
        a, b = loop.power, mine.power
        yield row(name, f"{a:.3f}", f"{b:.3f}", f">= +{gain:.2f}", b - a >= gain)


def saturation(problem: Problem) -> Iterator[str]:
    """Power of ours by default against ten times its passes, on the first canvas of each class."""
    bench = Bench(problem, 0)
    rows = slice(None, None, CANVASES)
    few = bench.power(bench.search(rows)[0])
    many = bench.power(bench.search(rows, n_steps=MANY)[0])
    yield row(
        f"power against ours with ten times the passes ({problem.name})",
        f"{many:.3f}", f"{few:.3f}", ">= 0.97", few / many >= 0.97,
    )  # fmt: skip

"""The default solver compared with that of version 0.1, at equal passes on one canvas.

    python benchmarks/solvers.py --out FILE --models demo --classes 10
    python benchmarks/solvers.py --out FILE --models CIFAR --classes 5 --cifar10 FOLDER

searches one canvas per class and adds a line of JSON for each model, kind of canvas, area, number
of passes, solver and seed to the file; what is in the file already is not searched again. It
prints a Markdown table of the power on held-out images. CIFAR-10 is ``test/<class>/*``.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from findings import Row, Table, append_rows, parser_of, read_rows
from problems import Problem, cifar10_problems, demo_problems, masks_of
from swap_01 import Swap01

from captum_classpattern import LabelledImages, select_canvases
from captum_classpattern.classifier import preserve_state
from captum_classpattern.optimization import Solver, Swap
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import Scorer

SOLVERS: dict[str, Any] = {"0.1": Swap01(), "new": Swap()}
PASSES, AREAS, KINDS = (500, 1_000, 2_000, 3_500), (0.05, 0.01), ("positive", "white")
HELD_OUT = 500
SPREAD = 8  # correctly classified images per class, of which each seed takes every second one
TOLERANCE = 0.02


class Case(NamedTuple):
    """One search of all classes."""

    model: str
    canvas: str
    area: float
    passes: int
    solver: str
    seed: int


def steps_for(solver: Solver, passes: int) -> int:
    """The steps of a solver that take about this many passes."""
    costs: Any = solver
    return min(range(1, passes), key=lambda steps: abs(costs.passes(steps)[-1] - passes))


def powers(problem: Problem, case: Case, classes: Sequence[int]) -> dict[int, float]:
    """The power of each class's pattern on held-out images. The seed also chooses the canvas, among
    the correctly classified images."""
    given, place = (problem.model, problem.images, problem.labels), 2 * case.seed
    found = [select_canvases(*given, y, SPREAD, case.canvas) for y in classes]
    canvases = torch.cat([of_class[place : place + 1] for of_class in found])
    solver = SOLVERS[case.solver]
    settings = SearchSettings(
        solver, [case.area], n_steps=steps_for(solver, case.passes), seed=case.seed
    )
    masks = masks_of(problem.model, canvases, classes, problem.images, problem.labels, settings)
    held_out = LabelledImages.of(problem.held_out, problem.held_out_labels).subset(range(HELD_OUT))
    patterns = [Pattern(c, mask, y).topk(case.area) for y, c, mask in zip(classes, canvases, masks)]
    with preserve_state(problem.model, 0):
        scorer = Scorer(problem.model, held_out)
        return {pattern.target: scorer.power(pattern).value for pattern in patterns}


def search_all(
    problems: Sequence[Problem], out: Path, seeds: int, classes: int
) -> Iterator[tuple[Case, dict[int, float]]]:
    """All cases with their powers; those that are not in the file are searched."""
    known = cases_of(read_rows(out))
    for seed, area, kind, passes, problem, name in itertools.product(
        range(seeds), AREAS, KINDS, PASSES, problems, SOLVERS
    ):
        case = Case(problem.name, kind, area, passes, name, seed)
        if case not in known:
            chosen = sorted(set(problem.labels.tolist()))
            known[case] = powers(problem, case, chosen[:: max(1, len(chosen) // classes)])
            append_rows(out, [{"case": case, "powers": known[case]}])
        yield case, known[case]


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """The table of a file of results."""
    yield "Predictive power at equal passes, version 0.1 -> current", table(cases_of(rows))


def cases_of(rows: Sequence[Row]) -> dict[Case, dict[int, float]]:
    """The powers of each case, by class."""
    return {Case(*r["case"]): {int(y): power for y, power in r["powers"].items()} for r in rows}


def table(found: dict[Case, dict[int, float]]) -> Iterator[str]:
    """A row for each model, kind of canvas and area: power of 0.1 and of the new solver."""
    yield f"| model | canvas | area | seeds | {' | '.join(f'{p:,} passes' for p in PASSES)} | |"
    yield "|---|---|---|---|" + "---|" * (len(PASSES) + 1)
    gains: list[float] = []
    for model, kind, area in dict.fromkeys((case.model, case.canvas, case.area) for case in found):
        cells, worst, seeds = [], 0.0, set()
        for passes in PASSES:
            pairs = [
                (mean(found[case].values()), mean(found[case._replace(solver="new")].values()))
                for case in found
                if case[:5] == (model, kind, area, passes, "0.1")
                and case._replace(solver="new") in found
            ]
            if not pairs:
                cells.append("")
                continue
            seeds.add(len(pairs))
            old, new = (mean(values) for values in zip(*pairs))
            gains.append(new - old)
            worst = min(worst, new - old)
            cells.append(f"{old:.3f} -> {new:.3f}")
        verdict = "**worse**" if worst < -TOLERANCE else ""
        count = "-".join(map(str, sorted({min(seeds), max(seeds)}))) if seeds else "0"
        yield f"| {model} | {kind} | {area:.0%} | {count} | {' | '.join(cells)} | {verdict} |"
    if gains:
        yield f"\nMean difference: {mean(gains):+.3f}; smallest {min(gains):+.3f}."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cifar10", type=Path, help="folder with test/")
    parser.add_argument("--out", type=Path, required=True, help="file for the results")
    parser.add_argument("--seeds", type=int, choices=range(1, 1 + SPREAD // 2), default=3)
    parser.add_argument("--classes", type=int, default=5, help="how many classes of each model")
    parser.add_argument("--models", default="", help="only models with this text in their name")
    options = parser.parse_args(arguments)
    problems = demo_problems()
    if options.cifar10:
        problems += cifar10_problems(options.cifar10, ("natural", "backdoored", "robust8"))
    problems = [problem for problem in problems if options.models in problem.name]
    found: dict[Case, dict[int, float]] = {}
    for case, of_classes in search_all(problems, options.out, options.seeds, options.classes):
        found[case] = of_classes
    for line in table(found):
        print(line, flush=True)


if __name__ == "__main__":
    main()

"""Do two searches find the same pattern? IoU between seeds, canvases and networks, and consensus.

    python benchmarks/stability.py --cifar10 FOLDER --out stability.jsonl

searches each class of the CIFAR-10 models with several seeds on the same canvas, and scores the
consensus of five seeds next to one search with five times the passes. Without ``--cifar10``, it
takes the demo's natural model. Each finished search of all classes is appended to the file, so that
the same command continues after an interruption. The tables and the picture are made from the rows:

    python benchmarks/stability.py --rows benchmarks/results/stability.jsonl --figure stability.png
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import paper_search
import torch
from problems import Problem, cifar10_parts, demo_problems
from torch import Tensor

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    Pattern,
    predictive_power,
    select_canvases,
)
from captum_classpattern.scores import consensus
from captum_classpattern.scores.power import random_pixels

AREA, IMAGES = 0.05, 300  # held-out images, at most
GROUP = 4  # seeds of a consensus; a long search takes as many passes


class Plan(NamedTuple):
    """The searches of a model on a kind of canvas, and the sizes of their consensuses."""

    model: str
    canvas: str
    seeds: int
    sizes: tuple[int, ...] = (GROUP,)


PLANS = (
    Plan("demo, natural", "positive", 8, (2, GROUP, 8)),
    Plan("demo, natural", "white", 8, (2, GROUP, 8)),
    Plan("demo, natural", "second positive", 2),
    Plan("CIFAR-10, natural", "positive", 8),
    Plan("CIFAR-10, natural", "white", 8),
    Plan("CIFAR-10, natural", "second positive", 2),
    Plan("CIFAR-10, natural_short", "white", 2),
    Plan("CIFAR-10, robust8", "positive", 8),
)
NETWORKS = ("CIFAR-10, natural", "CIFAR-10, natural_short")  # of the same first weights

Row = Mapping[str, Any]
Key = tuple[str, str, str, int, int]  # model, canvas, kind, seeds that it was made of, number


def key_of(row: Row) -> Key:
    return row["model"], row["canvas"], row["kind"], row["size"], row["number"]


def canvases_of(problem: Problem, kind: str, classes: Sequence[int]) -> Tensor:
    """One canvas of each class."""
    _, model, images, labels, *_ = problem
    if kind == "white":
        return torch.ones(len(classes), *images.shape[1:])
    place = ("positive", "second positive").index(kind)
    return torch.stack(
        [select_canvases(model, images, labels, y, n=2)[place].cpu() for y in classes]
    )


def to_lists(mask: Tensor) -> dict[str, list[float]]:
    """The pixels of a mask (1, H, W), in reading order, and their weights, for a row of a file."""
    [pixels] = mask.flatten().nonzero(as_tuple=True)
    weights = [round(weight, 3) for weight in mask.flatten()[pixels].tolist()]
    return {"pixels": pixels.tolist(), "weights": weights}


def mask_of(row: Row) -> Tensor:
    """The mask (1, H, W) of a row."""
    mask = torch.zeros(row["shape"])
    mask.view(-1)[row["pixels"]] = torch.tensor(row["weights"])
    return mask[None]


class Study:
    """The searches of one model on one kind of canvas, and what is scored of them."""

    def __init__(self, problem: Problem, plan: Plan, done: Sequence[Row]) -> None:
        self.problem, self.plan = problem, plan
        self.classes = sorted(set(problem.labels.tolist()))
        self.canvases = canvases_of(problem, plan.canvas, self.classes)
        self.images = LabelledImages(problem.images, problem.labels)
        self.seen = frozenset(self.images.hashes)
        held_out = LabelledImages(problem.held_out, problem.held_out_labels)
        self.held_out = held_out.stratified_sample(IMAGES)
        self.rows = [r for r in done if (r["model"], r["canvas"]) == plan[:2]]

    def missing(self) -> Iterator[list[Row]]:
        """The rows that are not done yet, those of one search or of one consensus at a time."""
        for seed in range(self.plan.seeds):
            yield from self._unless_done("one search", 1, seed, self._searched)
        for group in range(self.plan.seeds // GROUP):
            yield from self._unless_done("one long search", GROUP, group, self._searched)
        for size in self.plan.sizes:
            for group in range(self.plan.seeds // size):
                yield from self._unless_done("consensus", size, group, self._consensus)
        yield from self._unless_done("random pixels", 1, 0, self._random)

    def _unless_done(
        self, kind: str, size: int, number: int, make: Callable[[int, int], Iterator[Any]]
    ) -> Iterator[list[Row]]:
        key = self.plan.model, self.plan.canvas, kind, size, number
        if any(key_of(row) == key for row in self.rows):
            return
        names = ("model", "canvas", "kind", "size", "number")
        rows: list[Row] = []
        for pattern, found in make(size, number):
            power = predictive_power(self.problem.model, pattern, self.held_out, area=AREA)
            rows.append({
                **dict(zip(names, key)),
                "class": pattern.target,
                **found,
                "power": power.value,
                "no_pattern": power.without,
                "images": power.n,
                "shape": list(pattern.mask.shape[1:]),
                **to_lists(pattern.mask),
            })  # fmt: skip
        self.rows += rows
        yield rows

    def _searched(self, size: int, number: int) -> Iterator[Any]:
        """One pattern of each class. A long search has the passes of ``size`` others, and a seed
        of its own."""
        budget = None
        seed = number
        if size > 1:
            seed += self.plan.seeds
            budget = size * max(row["passes"] for row in self.rows if row["kind"] == "one search")
        explainer = ClassPattern(self.problem.model, self.images)
        patterns = explainer.search(
            self.canvases, self.classes, area=AREA, budget=budget, seed=seed
        )
        for pattern in patterns:
            passes = pattern.info["passes_together"] // len(patterns)
            yield pattern, {"passes": passes, "search_power": pattern.info["search_power"]}

    def _consensus(self, size: int, number: int) -> Iterator[Any]:
        for place, y in enumerate(self.classes):
            rows = [
                row
                for row in self.rows
                if (row["kind"], row["class"]) == ("one search", y)
                and row["number"] // size == number
            ]
            canvas = self.canvases[place]
            patterns = [Pattern(canvas, mask_of(row), y, seen=self.seen) for row in rows]
            yield consensus(patterns, AREA), {"passes": sum(row["passes"] for row in rows)}

    def _random(self, size: int, number: int) -> Iterator[Any]:
        for place, y in enumerate(self.classes):
            canvas = self.canvases[place]
            blank = Pattern(canvas, torch.zeros(1, *canvas.shape[1:]), y, seen=self.seen)
            yield random_pixels(blank, AREA, y), {"passes": 0}


def problems_of(cifar10: Path | None) -> Iterator[Problem]:
    """The models, each when it is needed."""
    if cifar10 is None:
        yield from (problem for problem in demo_problems() if problem.name == "demo, natural")
        return
    parts = cifar10_parts(cifar10, 0, paper_search.HELD_OUT)
    for name in dict.fromkeys(plan.model for plan in PLANS):
        if name.startswith("CIFAR-10, "):
            yield Problem(name, paper_search.model(name.removeprefix("CIFAR-10, ")), *parts)


def measure(problems: Sequence[Problem], out: Path) -> None:
    """Appends the rows that the file lacks."""
    by_name = {problem.name: problem for problem in problems}
    out.parent.mkdir(parents=True, exist_ok=True)
    for plan in PLANS:
        if plan.model not in by_name:
            continue
        for rows in Study(by_name[plan.model], plan, read_rows(out)).missing():
            with out.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
            first = rows[0]
            power = fmean(row["power"] for row in rows)
            print(
                f"{plan.model}, {plan.canvas}, {first['kind']} {first['number']}: {power:.3f}",
                flush=True,
            )


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(row) for row in lines]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cifar10", type=Path, help="folder with test/<class>/; else the demo")
    parser.add_argument("--out", type=Path, default=Path("stability.jsonl"))
    parser.add_argument("--rows", type=Path, help="print the tables of these rows, search nothing")
    parser.add_argument("--figure", type=Path, help="also draw the picture of these rows")
    given = parser.parse_args(arguments)
    if given.rows is None:
        measure(list(problems_of(given.cifar10)), given.out)


if __name__ == "__main__":
    main()

"""Do two searches find the same pattern? IoU between seeds, canvases and networks.

It searches each class of the CIFAR-10 models with several seeds on the same canvas, and some with
four times the passes; without ``--cifar10`` those of the demo's natural model. It resumes after an
interruption.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import torch
from cifar10 import CLASS_NAMES, HELD_OUT
from cifar10 import model as classifier_of
from findings import (
    Row,
    Table,
    append_rows,
    format_mean,
    having,
    head,
    iou_by_chance,
    line,
    parser_of_rows,
    read_rows,
    report,
)
from matplotlib.figure import Figure
from problems import Problem, cifar10_parts, demo_problems
from torch import Tensor

from captum_classpattern import (
    ClassPattern,
    Pattern,
    predictive_power,
    select_canvases,
)
from captum_classpattern._support.formats import percent
from captum_classpattern.scores import mean_pairwise_iou
from captum_classpattern.scores.intervals import Estimate, bootstrap_over_classes
from captum_classpattern.scores.power import random_pixels
from captum_classpattern.visualization.drawing import draw_image, on_neutral
from captum_classpattern.visualization.style import CELLS

AREA, IMAGES = 0.05, 300  # held-out images, at most
GROUP = 4  # searches that are compared pixel by pixel; a long search takes as many passes


class Plan(NamedTuple):
    """How many searches of a model on a kind of canvas."""

    model: str
    canvas: str
    seeds: int
    long: int = 0  # searches with the passes of a group


PLANS = (
    Plan("demo, natural", "positive", 8, long=2),
    Plan("demo, natural", "second positive", 2),
    Plan("demo, natural", "white", 2),
    Plan("CIFAR-10, natural", "positive", 8, long=2),
    Plan("CIFAR-10, natural", "white", 4),
    Plan("CIFAR-10, robust8", "positive", 4),
    Plan("CIFAR-10, natural", "second positive", 2),
    Plan("CIFAR-10, natural_short", "white", 2),
)
SINGLE, LONG, RANDOM = "one search", "one long search", "random pixels"
NETWORKS = ("CIFAR-10, natural", "CIFAR-10, natural_short")  # of the same first weights
SHOWN = (  # model, canvas and class of each row of the picture
    ("CIFAR-10, natural", "positive", 5),
    ("CIFAR-10, natural", "positive", 9),
    ("CIFAR-10, natural", "white", 5),
    ("CIFAR-10, natural", "white", 8),
)
SIDE = 1.6  # of a mask in the picture, in inches


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


def binary_mask(row: Row) -> Tensor:
    """The binary mask (1, H, W) of a row."""
    weights = torch.zeros(row["shape"])
    weights.view(-1)[row["pixels"]] = torch.tensor(row["weights"])
    return (weights[None] > 0).float()


def measure(problem: Problem, plan: Plan, out: Path) -> None:
    """Appends the searches, and random pixels, that the file lacks. A long search has the passes of
    a group of others, and a seed of its own."""
    rows = having(read_rows(out), model=plan.model, canvas=plan.canvas)
    classes = problem.classes
    canvases = canvases_of(problem, plan.canvas, classes)
    images, held_out = problem.parts
    held_out = held_out.stratified_sample(IMAGES)
    wanted = [(SINGLE, 1, seed) for seed in range(plan.seeds)]
    wanted += [(LONG, GROUP, number) for number in range(plan.long)] + [(RANDOM, 1, 0)]
    for kind, size, number in wanted:
        names = {"model": plan.model, "canvas": plan.canvas}
        names |= {"kind": kind, "size": size, "number": number}
        if having(rows, **names):
            continue
        if kind == RANDOM:
            blank, seen = torch.zeros(1, *canvases.shape[2:]), frozenset(images.hashes)
            patterns = [
                random_pixels(Pattern(canvas, blank, y, seen=seen), AREA, y)
                for canvas, y in zip(canvases, classes)
            ]
        else:
            passes = max((row["passes"] for row in having(rows, kind=SINGLE)), default=0)
            patterns = ClassPattern(problem.model, images).search(
                canvases,
                classes,
                area=AREA,
                budget=size * passes if kind == LONG else None,
                seed=number + plan.seeds * (kind == LONG),
            )
        found: list[Row] = []
        for pattern in patterns:
            power = predictive_power(problem.model, pattern, held_out, area=AREA)
            found.append({
                **names,
                "class": pattern.target,
                "passes": pattern.info.get("passes_together", 0) // len(classes),
                **{"power": power.value, "no_pattern": power.without, "images": power.n},
                "shape": list(pattern.mask.shape[1:]),
                **to_lists(pattern.mask),
            })  # fmt: skip
        append_rows(out, found)
        rows += found
        print(*names.values(), f"{fmean(row['power'] for row in found):.3f}", flush=True)


def problems_of(cifar10: Path | None) -> dict[str, Problem]:
    """The models by name."""
    if cifar10 is None:
        return {problem.name: problem for problem in demo_problems()}
    parts = cifar10_parts(cifar10, 0, HELD_OUT)
    names = {plan.model for plan in PLANS if plan.model.startswith("CIFAR-10, ")}
    return {
        name: Problem(name, classifier_of(name.removeprefix("CIFAR-10, ")), *parts)
        for name in names
    }


class Rows:
    """The rows of one model on one kind of canvas: masks and powers by class."""

    def __init__(self, rows: Sequence[Row], model: str, canvas: str) -> None:
        self.rows = having(rows, model=model, canvas=canvas)
        self.classes = sorted({row["class"] for row in self.rows})

    def of(self, kind: str, y: int) -> list[Row]:
        """The rows of a kind and a class, in the order of their numbers."""
        return sorted(having(self.rows, **{"kind": kind, "class": y}), key=lambda r: r["number"])

    def masks(self, kind: str, y: int) -> list[Tensor]:
        return [binary_mask(row) for row in self.of(kind, y)]

    def powers(self, kind: str, y: int) -> list[float]:
        return [row["power"] for row in self.of(kind, y)]

    def iou(self, kind: str) -> Estimate | None:
        """Between the patterns of a kind, of the same class; None if there are fewer than two."""
        masks = {y: self.masks(kind, y) for y in self.classes}
        if min(map(len, masks.values())) < 2:
            return None
        return bootstrap_over_classes({y: [mean_pairwise_iou(m)] for y, m in masks.items()})

    def power(self, kind: str) -> Estimate | None:
        """The mean power of a kind; None if there is none."""
        found = {y: self.powers(kind, y) for y in self.classes}
        return bootstrap_over_classes(found) if all(found.values()) else None

    def iou_of_classes(self) -> Estimate:
        """Between patterns of two classes, with the same seed."""
        masks = {y: self.masks(SINGLE, y) for y in self.classes}
        return bootstrap_over_classes({
            y: [
                mean_pairwise_iou(pair)
                for other in self.classes
                if other != y
                for pair in zip(masks[y], masks[other])
            ]
            for y in self.classes
        })  # fmt: skip

    def found_by_all(self) -> Estimate | None:
        """The share of a pattern's pixels that all searches of its group found; None if there is
        no whole group."""
        if len(self.of(SINGLE, self.classes[0])) < GROUP:
            return None
        shares: dict[int, list[float]] = {}
        for y in self.classes:
            masks = self.masks(SINGLE, y)
            groups = [masks[start : start + GROUP] for start in range(0, len(masks), GROUP)]
            shares[y] = [float(torch.stack(g).amin(0).sum() / g[0].sum()) for g in groups]
        return bootstrap_over_classes(shares)


def studies(rows: Sequence[Row]) -> Iterator[tuple[str, Rows]]:
    """Each model and kind of canvas."""
    for model, canvas in dict.fromkeys((row["model"], row["canvas"]) for row in rows):
        yield f"{model}, {canvas}", Rows(rows, model, canvas)


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """All tables with their titles."""
    yield "Do the pixels agree?", agreement(rows)
    yield "Other canvases, another network", across(rows)
    yield "Predictive power", powers(rows)


def agreement(rows: Sequence[Row]) -> Iterator[str]:
    """IoU between seeds, with the controls: other classes, and chance."""
    yield head(
        "IoU of two ...", "searches", "long searches", "classes", "chance", "found by all",
    )  # fmt: skip
    for name, study in studies(rows):
        if study.iou(SINGLE) is None:
            continue
        row = study.rows[0]
        kept, total = len(row["pixels"]), row["shape"][0] * row["shape"][1]
        yield line(
            name,
            format_mean(study.iou(SINGLE)),
            format_mean(study.iou(LONG)),
            format_mean(study.iou_of_classes()),
            f"{iou_by_chance(kept, total):.3f}",
            format_mean(study.found_by_all(), ".0%"),
        )


def across(rows: Sequence[Row]) -> Iterator[str]:
    """IoU of patterns with the same seed, on two canvases or of two networks: of a class, and, as a
    control, of different classes."""
    yield head("IoU of patterns on ...", "the same class", "other classes")
    for model in dict.fromkeys(row["model"] for row in rows):
        for pair in (("positive", "second positive"), ("positive", "white")):
            yield from between(
                f"{model}: {' and '.join(pair)} canvas", *(Rows(rows, model, c) for c in pair)
            )
    networks = (Rows(rows, model, "white") for model in NETWORKS)
    yield from between(f"white canvas: {' and '.join(NETWORKS)}", *networks)


def between(name: str, one: Rows, other: Rows) -> Iterator[str]:
    """A row of :func:`across`, if there are patterns of both."""
    if not (one.rows and other.rows):
        return
    masks = [{y: each.masks(SINGLE, y) for y in one.classes} for each in (one, other)]
    same, others = {}, {}
    for y in one.classes:
        found = {
            z: fmean(mean_pairwise_iou(pair) for pair in zip(masks[0][y], masks[1][z]))
            for z in one.classes
        }
        same[y], others[y] = [found.pop(y)], [fmean(found.values())]
    yield line(name, *(format_mean(bootstrap_over_classes(values)) for values in (same, others)))


def powers(rows: Sequence[Row]) -> Iterator[str]:
    """Mean powers, with the controls."""
    yield head(
        "power", "one search", "its spread", "one search, four times as long", "random pixels",
        "no pattern",
    )  # fmt: skip
    for name, study in studies(rows):
        if len(study.of(SINGLE, study.classes[0])) < GROUP:
            continue
        yield line(
            name,
            format_mean(study.power(SINGLE), ".1%"),
            f"{fmean(stdev(study.powers(SINGLE, y)) for y in study.classes):.1%}",
            format_mean(study.power(LONG), ".1%"),
            f"{fmean(row['power'] for row in study.rows if row['kind'] == RANDOM):.1%}",
            f"{fmean(row['no_pattern'] for row in study.rows if row['kind'] == RANDOM):.1%}",
        )


def picture(rows: Sequence[Row]) -> Figure:
    """For some models, canvases and classes: the masks of a group of searches, and how many of
    them found each pixel."""
    columns = [f"search {n + 1}" for n in range(GROUP)] + ["found by"]
    figure = Figure((len(columns) * SIDE, len(SHOWN) * (SIDE + 0.3)), layout="constrained")
    axes = figure.subplots(len(SHOWN), len(columns), squeeze=False)
    for (model, canvas, y), of_row in zip(SHOWN, axes):
        study = Rows(rows, model, canvas)
        drawn = study.of(SINGLE, y)[:GROUP]
        binary = [binary_mask(row)[0] for row in drawn]
        often = of_row[GROUP].imshow(
            torch.stack(binary).mean(0).numpy(), vmin=0, vmax=1, cmap=CELLS
        )
        of_row[GROUP].set_xlabel(" ", fontsize=14)  # so that the row is in line
        for axis, mask, row in zip(of_row, binary, drawn):
            white = Pattern(torch.ones_like(mask[None]), mask[None], target=0)
            draw_image(axis, on_neutral(white.canvas, white.mask))
            axis.set_xlabel(percent(row["power"], 0), fontsize=14)
        of_row[0].set_ylabel(f"{CLASS_NAMES[y]},\n{canvas}", fontsize=13)
    for axis, name in zip(axes[0], columns):
        axis.set_title(name, fontsize=13)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    bar = figure.colorbar(often, ax=axes[:, GROUP].tolist(), location="bottom", ticks=[0, 0.5, 1])
    bar.ax.set_xticklabels(["none", "half", "all"], fontsize=12)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of_rows(__doc__, "stability")
    parser.add_argument("--cifar10", type=Path, help="folder with test/<class>/; else the demo")
    given = parser.parse_args(arguments)
    if given.rows is None:
        problems = problems_of(given.cifar10)
        for plan in PLANS:
            if plan.model in problems:
                measure(problems[plan.model], plan, given.out)
    report(given, tables, picture, bbox_inches="tight")


if __name__ == "__main__":
    main()

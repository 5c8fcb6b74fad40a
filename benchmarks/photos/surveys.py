"""Surveys of one photo a class: cells or pixels on CIFAR-10, and clean ImageNet classes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from findings import Row, kept_survey
from problems import Problem

from captum_classpattern import Cells
from captum_classpattern.surveys import Survey

KINDS = {"pixels": None, "cells of 2x2": Cells(16), "cells of 4x4": Cells(8)}
EVERY, COUNT = 2, 10  # every second class of CIFAR-10; ImageNet classes


def found(
    problem: Problem, folder: Path, classes: Sequence[int], areas: Sequence[float], **more: object
) -> Survey:
    """A search of the default length of one photo of each class."""
    images, held_out = problem[2:4], problem[4:6]
    more |= {"canvases": {"positive": 1}, "areas": areas, "n_steps": 12}
    return kept_survey(folder, problem.model, images, held_out, classes=classes, **more)


def cell_rows(problem: Problem, folder: Path, done: set) -> Iterator[list[Row]]:
    """The power of classes with pixels and with cells, over the area."""
    classes = problem.classes[::EVERY]
    for kind, cells in KINDS.items():
        if (kind,) in done:
            continue
        path = folder / kind.replace(" ", "_")
        yield [
            {
                **{"kind": kind, "canvas": one.canvas, "class": one.target, "area": area},
                **{"power": scores.power.value, "n": scores.power.n},
            }
            for one in found(problem, path, classes, (0.2, 0.1, 0.05), feature_mask=cells)
            for area, scores in one.scores.items()
        ]


def class_rows(problem: Problem, folder: Path, done: set) -> Iterator[list[Row]]:
    """Rows of ten classes that have a photo among the search images, at even distances."""
    known = problem.classes
    for y in known[:: len(known) // COUNT][:COUNT]:
        if (y,) in done:
            continue
        yield [
            {
                **{"class": y, "class_name": one.label, "area": area},
                **scores.as_dict(),
                "beats_controls": scores.beats_controls,
                "passes": one.patterns[area].info["passes"],
            }
            for one in found(problem, folder / str(y), [y], (0.2, 0.05))
            for area, scores in one.scores.items()
        ]

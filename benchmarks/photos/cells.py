"""Cells or pixels? Both over the area, on CIFAR-10."""

from collections.abc import Iterator
from pathlib import Path

from findings import Row, kept_survey
from problems import Problem

from captum_classpattern import Cells

KINDS = {"pixels": None, "cells of 2x2": Cells(16), "cells of 4x4": Cells(8)}
AREAS, EVERY = (0.2, 0.1, 0.05), 2  # every second class
ROUNDS = 12  # as in a search of one canvas


def cell_rows(problem: Problem, folder: Path, done: set) -> Iterator[list[Row]]:
    """The power of classes on one photo each."""
    for kind, cells in KINDS.items():
        if (kind,) in done:
            continue
        found = kept_survey(
            folder / kind.replace(" ", "_"),
            problem.model,
            (problem.images, problem.labels),
            (problem.held_out, problem.held_out_labels),
            classes=sorted(set(problem.labels.tolist()))[::EVERY],
            canvases={"positive": 1},
            areas=AREAS,
            n_steps=ROUNDS,
            feature_mask=cells,
        )
        yield [
            {
                **{"kind": kind, "canvas": one.canvas, "class": one.target, "area": area},
                **{"power": scores.power.value, "n": scores.power.n},
            }
            for one in found
            for area, scores in one.scores.items()
        ]

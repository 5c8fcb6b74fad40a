"""What a search of one photo, of the default length, finds of clean ImageNet classes."""

from collections.abc import Iterator
from pathlib import Path

from findings import Row, kept_survey
from problems import Problem

COUNT, AREAS = 10, (0.2, 0.05)
ROUNDS = 12  # as in a search of one canvas


def class_rows(problem: Problem, folder: Path, done: set) -> Iterator[list[Row]]:
    """Rows of ten classes that have a photo among the search images, at even distances."""
    known = sorted(set(problem.labels.tolist()))
    for y in known[:: len(known) // COUNT][:COUNT]:
        if (y,) in done:
            continue
        found = kept_survey(
            folder / str(y),
            problem.model,
            (problem.images, problem.labels),
            (problem.held_out, problem.held_out_labels),
            classes=[y],
            canvases={"positive": 1},
            areas=AREAS,
            n_steps=ROUNDS,
        )
        yield [
            {
                **{"class": y, "class_name": one.label, "area": area},
                **scores.as_dict(),
                "beats_controls": scores.beats_controls,
                "passes": one.patterns[area].info["passes"],
            }
            for one in found
            for area, scores in one.scores.items()
        ]

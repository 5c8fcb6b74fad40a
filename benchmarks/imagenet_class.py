"""The pattern of one ImageNet class, stamped on photos that may be published.

    pip install '.[benchmarks]'
    python benchmarks/imagenet_class.py PHOTOS --out FOLDER

PHOTOS has ImageNet photos, as for ``gallery.py``. The class is the strongest one of the gallery,
and it is searched again as there: EfficientNet-lite0, one white canvas, 5 % of the pixels, 2,000
passes, about two minutes of one core. It is scored on the held-out ImageNet photos. The figure
shows the first three photos of scikit-image that are in colour and free of copyright, whatever the
model predicts for them: an astronaut (NASA, public domain), the cat Chelsea (Stefan van der Walt,
CC0) and a cup of coffee (Rachel Michetti, CC0).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from findings import kept_survey, read_rows
from gallery import AREA, strength
from problems import Problem, photo_problem

from captum_classpattern.surveys import Finding

RESULTS = Path(__file__).parent / "results"
BUDGET = 2_000


def strongest_class() -> int:
    """The strongest class of the gallery."""
    return min(read_rows(RESULTS / "gallery.jsonl"), key=strength)["class"]


def search(problem: Problem, out: Path, target: int, budget: int = BUDGET) -> Finding:
    """The pattern of a class on a white canvas; kept in a folder."""
    [found] = kept_survey(
        out / f"class_{target}",
        problem.model,
        (problem.images, problem.labels),
        (problem.held_out, problem.held_out_labels),
        classes=[target],
        canvases={"white": 1},
        areas=(AREA,),
        budget=budget,
    )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folders NNNN_wnid of ImageNet photos")
    parser.add_argument("--out", type=Path, default=Path("classpattern-imagenet"))
    options = parser.parse_args(arguments)
    problem = photo_problem(options.photos)
    found = search(problem, options.out, strongest_class())
    print(found)


if __name__ == "__main__":
    main()

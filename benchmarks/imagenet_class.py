"""The pattern of one ImageNet class, stamped on photos that may be published.

    pip install '.[benchmarks]'
    python benchmarks/imagenet_class.py PHOTOS --out FOLDER

PHOTOS has ImageNet photos, as for ``gallery.py``. The class is the strongest one of the gallery,
and it is searched again as there: EfficientNet-lite0, one white canvas, 5 % of the pixels, 2,000
passes, about two minutes of one core. It is scored on the held-out ImageNet photos.

The figure shows scikit-image's first three colour photos, in the order of their names, whatever
the model predicts for them: ``astronaut`` (NASA, public domain), ``chelsea`` (Stefan van der Walt,
CC0) and ``coffee`` (Rachel Michetti, CC0). What it shows is also written to
``imagenet_class.jsonl``: the class with its score, then the photos.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from findings import Row, kept_survey, read_rows
from gallery import AREA, strength
from matplotlib.figure import Figure
from problems import PHOTO, Problem, photo_problem
from skimage import data
from torch import Tensor

from captum_classpattern.surveys import Finding
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid

RESULTS = Path(__file__).parent / "results"
BUDGET = 2_000
PHOTOS = ("astronaut", "chelsea", "coffee")
WIDTH, DPI = 2.0, 168  # of an image in inches; 1.5 pixels of the figure for each of its own


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


def photos() -> dict[str, Tensor]:
    """The photos of scikit-image as the model takes them, by name."""
    return {name: PHOTO(getattr(data, name)()) for name in PHOTOS}


def describe(problem: Problem, found: Finding) -> list[Row]:
    """The class with its power and controls, then each photo with its predictions."""
    scores = {**found.scores[AREA].as_dict(), "beats_controls": found.scores[AREA].beats_controls}
    rows: list[Row] = [{"class": found.target, "class_name": found.label, "area": AREA, **scores}]
    for name, photo in photos().items():
        before = prediction(problem, photo)
        after = prediction(problem, found.stamp(photo))
        rows.append({"photo": name, "before": before, "after": after})
    return rows


def prediction(problem: Problem, image: Tensor) -> tuple[str, float]:
    """The class that the model predicts, and its probability."""
    with torch.no_grad():
        probability, number = problem.model(image[None]).softmax(1).max(1)
    return problem.model.class_names[int(number)], float(probability)


def draw(found: Finding, rows: Sequence[Row]) -> Figure:
    """The canvas and the photos as they are, and below them the pattern and the stamped photos."""
    about, *of_photos = rows
    power = f"turns {percent(about['power'], 0)} of {about['n']} photos"
    above = [Cell(found.pattern.canvas, f"{found.canvas} canvas")]
    below = [Cell(on_neutral(found.pattern.topk(AREA)), power, about["beats_controls"])]
    for row, photo in zip(of_photos, photos().values()):
        above.append(Cell(photo, caption(row["before"])))
        below.append(
            Cell(found.stamp(photo), caption(row["after"]), row["after"][0] == found.label)
        )
    titles = [found.label, *(row["photo"] for row in of_photos)]
    cells = {"": above, " ": below}
    return draw_grid(cells, titles, width=WIDTH, use_pyplot=False)[0]


def caption(predicted: tuple[str, float]) -> str:
    name, probability = predicted
    return f"{name} {percent(probability, 0)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folders NNNN_wnid of ImageNet photos")
    parser.add_argument("--out", type=Path, default=Path("classpattern-imagenet"))
    options = parser.parse_args(arguments)
    problem = photo_problem(options.photos)
    found = search(problem, options.out, strongest_class())
    rows = describe(problem, found)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (options.out / "imagenet_class.jsonl").write_text(text, encoding="utf-8")
    print(text)
    draw(found, rows).savefig(options.out / "imagenet_class.png", dpi=DPI)


if __name__ == "__main__":
    main()

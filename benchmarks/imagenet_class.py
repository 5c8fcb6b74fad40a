"""The pattern of one ImageNet class, stamped on photos that may be published.

The class is the strongest one of the gallery, searched as there, with 5 % of the pixels and also
with 10 %. The figure shows scikit-image's first three colour photos, in the order of their names,
whatever the model predicts for them: ``astronaut`` (NASA, public domain), ``chelsea`` (Stefan van
der Walt, CC0) and ``coffee`` (Rachel Michetti, CC0). All takes four minutes of one core.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from findings import Row, as_lines, kept_survey, parser_of, read_rows, write_rows
from gallery import strength
from matplotlib.figure import Figure
from problems import PHOTO, Problem, photo_problem
from skimage import data
from torch import Tensor

from captum_classpattern.pages.parts import figure_png
from captum_classpattern.surveys import Finding
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.formats import percent, percent_area
from captum_classpattern.visualization.grid import Cell, draw_grid

RESULTS = Path(__file__).parent / "results"
AREAS, BUDGET = (0.05, 0.1), 2_000
PHOTOS = ("astronaut", "chelsea", "coffee")
WIDTH, DPI = 2.0, 168  # of an image in inches; 1.5 pixels of the figure for each of its own


def strongest_class() -> int:
    """The strongest class of the gallery."""
    return min(read_rows(RESULTS / "gallery.jsonl"), key=strength)["class"]


def search(problem: Problem, out: Path, target: int, area: float) -> Finding:
    """The pattern of a class on a white canvas; kept in a folder."""
    [found] = kept_survey(
        out / f"class_{target}_{area:g}",
        *(problem.model, problem[2:4], problem[4:6]),
        classes=[target],
        canvases={"white": 1},
        areas=(area,),
        budget=BUDGET,
    )
    return found


def describe(problem: Problem, found: Finding, images: Mapping[str, Tensor]) -> list[Row]:
    """The class with its power and controls, then each photo with its predictions."""
    scores = found.scores[found.area]
    about = {"class": found.target, "class_name": found.label, "area": found.area}
    rows: list[Row] = [{**about, **scores.as_dict(), "beats_controls": scores.beats_controls}]
    for name, photo in images.items():
        before = prediction(problem, photo)
        after = prediction(problem, found.stamp(photo))
        rows.append({"photo": name, "area": found.area, "before": before, "after": after})
    return rows


def prediction(problem: Problem, image: Tensor) -> tuple[str, float]:
    """The class that the model predicts, and its probability."""
    with torch.no_grad():
        probability, number = problem.model(image[None]).softmax(1).max(1)
    return problem.model.class_names[int(number)], float(probability)


def draw(
    findings: Sequence[Finding], rows: Sequence[Sequence[Row]], images: Mapping[str, Tensor]
) -> Figure:
    """The canvas and the photos as they are; below them each pattern and the stamped photos."""
    first, (_, *unstamped) = findings[0], rows[0]
    cells = {
        "": [
            Cell(first.pattern.canvas, f"{first.canvas} canvas"),
            *(Cell(images[row["photo"]], caption(row["before"])) for row in unstamped),
        ]
    }
    for found, (about, *stamped) in zip(findings, rows):
        score = f"turns {percent(about['power'], 0)} of {about['n']} photos"
        binary = found.pattern.topk(found.area)
        cells[f"{percent_area(found.area)} of the pixels"] = [
            Cell(on_neutral(binary), score, about["beats_controls"]),
            *(photo_cell(found, images[row["photo"]], row["after"]) for row in stamped),
        ]
    return draw_grid(cells.items(), [first.label, *images], width=WIDTH, use_pyplot=False)[0]


def photo_cell(found: Finding, photo: Tensor, after: tuple[str, float]) -> Cell:
    """A stamped photo; its caption is grey unless the model predicts the class."""
    return Cell(found.stamp(photo), caption(after), after[0] == found.label)


def caption(predicted: tuple[str, float]) -> str:
    name, probability = predicted
    return f"{name} {percent(probability, 0)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("photos", type=Path, help="folders NNNN_wnid of ImageNet photos")
    parser.add_argument("--out", type=Path, default=Path("classpattern-imagenet"))
    options = parser.parse_args(arguments)
    problem = photo_problem(options.photos)
    target = strongest_class()
    findings = [search(problem, options.out, target, area) for area in AREAS]
    images = {name: PHOTO(getattr(data, name)()) for name in PHOTOS}
    rows = [describe(problem, found, images) for found in findings]
    listed = [row for group in rows for row in group]
    write_rows(options.out / "imagenet_class.jsonl", listed)
    print(as_lines(listed), end="")
    picture, _ = figure_png(draw(findings, rows, images), DPI)
    (options.out / "imagenet_class.png").write_bytes(picture)


if __name__ == "__main__":
    main()

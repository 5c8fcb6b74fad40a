"""The first figure of tutorial 5: what two CIFAR-10 models learned, on the same canvases.

For each class eight positive canvases compete in a search on the adversarially trained model, whose
patterns are weaker (2,000 passes), and the validation images, a part of the search images, decide.
The pattern of the natural model is searched on the canvas that wins (1,500 passes). Held-out images
are used for scoring alone, next to the three controls of a survey. The run takes three minutes of
one core. The numbers of the figure are in ``results/natural_and_robust.jsonl``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from checking import checked
from cifar10 import CLASS_NAMES, model, parts
from findings import Row, measured_here, parser_of, write_rows
from matplotlib.figure import Figure
from problems import Parts

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    Pattern,
    predictive_power,
    select_canvases,
)
from captum_classpattern._support.formats import percent
from captum_classpattern.scores import Scores
from captum_classpattern.scores.power import judge, random_pixels
from captum_classpattern.surveys.task import DRAWS
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.patterns import NOT_ABOVE

CHOOSER, FOLLOWER = "robust8", "natural"  # the model that chooses the canvas, and the other one
MODELS = {FOLLOWER: "natural model", CHOOSER: "robust model"}  # how their rows are named
CANVASES, PASSES = 8, {CHOOSER: 2_000, FOLLOWER: 1_500}
AREA, SEED = 0.05, 0
DPI = 180  # about twice the pixels of a page


def search_class(parts: Parts, target: int) -> Iterator[tuple[Pattern, Row]]:
    """Searches and scores the patterns of a class, both on one canvas."""
    canvases = select_canvases(
        model(CHOOSER), parts.images, parts.labels, target, CANVASES, seed=SEED
    )
    for name in (CHOOSER, FOLLOWER):
        [pattern] = ClassPattern(model(name), parts.images, parts.labels).search(
            canvases, target, area=AREA, keep=1, budget=PASSES[name], seed=SEED
        )
        canvases, scores = pattern.canvas[None], score(pattern, name, parts)
        row = {"class": target, "class_name": CLASS_NAMES[target], "model": name, "area": AREA}
        yield pattern, {**row, **scores.as_dict(), "beats_controls": scores.beats_controls}


def score(pattern: Pattern, name: str, parts: Parts) -> Scores:
    """The power on the held-out images of other classes, and the controls of a survey there:
    random pixels, and the mask over the canvas of the next class."""
    held_out = LabelledImages(parts.held_out, parts.held_out_labels)
    power = predictive_power(model(name), pattern, held_out, area=AREA)
    others = held_out.without_class(pattern.target)
    network = checked(model(name), held_out)
    at_random = sum(
        judge(
            network,
            random_pixels(pattern, AREA, SEED + draw),
            others.subset(range(draw, power.n, DRAWS)),
        ).hits
        for draw in range(DRAWS)
    )
    after = (pattern.target + 1) % len(CLASS_NAMES)
    [canvas] = select_canvases(model(name), parts.images, parts.labels, after, 1)
    elsewhere = judge(network, replace(pattern.topk(AREA), canvas=canvas), others).hits
    return Scores(power, at_random / power.n, elsewhere / power.n, power.n)


def draw(found: Sequence[tuple[Pattern, Row]]) -> Figure:
    """The canvas of each class above the patterns of both models, with their powers."""
    cells: dict[str, list[Cell]] = {"canvas": [], **{label: [] for label in MODELS.values()}}
    for pattern, row in found:
        image = on_neutral(pattern.canvas, pattern.topk(row["area"]).mask)
        cell = Cell(image, percent(row["power"], 0), row["beats_controls"])
        cells[MODELS[row["model"]]].append(cell)
        if row["model"] == CHOOSER:
            cells["canvas"].append(Cell(pattern.canvas))
    faint = any(not row["beats_controls"] for _, row in found)
    note = NOT_ABOVE if faint else ""
    return draw_grid(cells.items(), CLASS_NAMES, note=note, use_pyplot=False)[0]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with CIFAR-10's test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("classpattern-two-models"))
    options = parser.parse_args(arguments)
    images = parts(options.data, SEED)
    found = [each for y in range(len(CLASS_NAMES)) for each in search_class(images, y)]
    rows = measured_here(row for _, row in found)
    write_rows(options.out / "natural_and_robust.jsonl", rows)
    draw(found).savefig(options.out / "natural_and_robust.png", dpi=DPI)


if __name__ == "__main__":
    main()

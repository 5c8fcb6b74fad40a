"""The first figure of the README: what two CIFAR-10 models learned, on the same canvases.

    python benchmarks/hero.py DATA --out FOLDER

DATA is a folder with ``test/<class>/*`` images of CIFAR-10. For each class eight positive canvases
compete in a search on the adversarially trained model, whose patterns are weaker (2,000 passes),
and the judging images, a part of the search images, decide. The pattern of the natural model is
searched on the canvas that wins (1,500 passes). Held-out images only score these patterns, next to
the three controls of a survey. The seed is fixed.

Patterns and numbers are saved in FOLDER, so an interrupted run can resume, and several runs can
share the classes. Without ``hero.jsonl`` the saved patterns are scored again. All classes take
about three minutes of one core. The numbers of the figure in the README are in
``results/hero.jsonl``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cifar10 import CLASS_NAMES, model, parts
from findings import Row, append_rows, parser_of, read_rows
from matplotlib.figure import Figure
from problems import Parts
from torch import Tensor

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    Pattern,
    predictive_power,
    select_canvases,
)
from captum_classpattern.scores import Scores
from captum_classpattern.scores.power import judge, random_pixels
from captum_classpattern.surveys.search import DRAWS
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.overviews import NOT_ABOVE

ROWS = "hero.jsonl"
CHOOSER, FOLLOWER = "robust8", "natural"  # the model that chooses the canvas, and the other one
MODELS = {FOLLOWER: "natural model", CHOOSER: "robust model"}  # how their rows are named
CANVASES, PASSES = 8, {CHOOSER: 2_000, FOLLOWER: 1_500}
AREA, SEED = 0.05, 0
DPI = 180  # about twice the pixels of a page


def search_all(data: Path, out: Path, classes: Sequence[int]) -> None:
    """Searches and scores the classes that are not in the folder yet."""
    out.mkdir(parents=True, exist_ok=True)
    done = {row["class"] for row in read_rows(out / ROWS)}
    for target in classes:
        if target not in done:
            rows = list(search_class(parts(data, SEED), out, target))
            append_rows(out / ROWS, rows)
            print(*rows, sep="\n", flush=True)


def search_class(parts: Parts, out: Path, target: int) -> Iterator[Row]:
    """Searches, saves and scores the patterns of a class, both on one canvas."""
    canvases = select_canvases(
        model(CHOOSER), parts.images, parts.labels, target, CANVASES, seed=SEED
    )
    chosen = search(CHOOSER, parts, canvases, out, target)
    followed = search(FOLLOWER, parts, chosen.canvas[None], out, target)
    for name, pattern in ((CHOOSER, chosen), (FOLLOWER, followed)):
        scores = score(pattern, name, parts)
        yield {
            **{"class": target, "class_name": CLASS_NAMES[target], "model": name, "area": AREA},
            **scores.as_dict(),
            "beats_controls": scores.beats_controls,
        }


def search(name: str, parts: Parts, canvases: Tensor, out: Path, target: int) -> Pattern:
    """The best pattern of a model on these canvases; the saved one if there is one."""
    file = pattern_file(out, name, target)
    if file.exists():
        return Pattern.load(file)
    [pattern] = ClassPattern(model(name), parts.images, parts.labels).search(
        canvases, target, area=AREA, keep=1, budget=PASSES[name], seed=SEED
    )
    pattern.save(file)
    return pattern


def score(pattern: Pattern, name: str, parts: Parts) -> Scores:
    """The power on the held-out images of other classes, and the controls of a survey there:
    random pixels, and the mask over the canvas of the next class."""
    held_out = LabelledImages(parts.held_out, parts.held_out_labels)
    power = predictive_power(model(name), pattern, held_out, area=AREA)
    others = held_out.without_class(pattern.target)
    at_random = sum(
        judge(
            model(name),
            random_pixels(pattern, AREA, SEED + draw),
            others.subset(range(draw, power.n, DRAWS)),
        ).hits
        for draw in range(DRAWS)
    )
    after = (pattern.target + 1) % len(CLASS_NAMES)
    [canvas] = select_canvases(model(name), parts.images, parts.labels, after, 1)
    elsewhere = judge(model(name), replace(pattern.topk(AREA), canvas=canvas), others).hits
    return Scores(power, at_random / power.n, elsewhere / power.n, power.n)


def draw(rows: Sequence[Row], out: Path) -> Figure:
    """The canvas of each class above the patterns of both models, with their powers."""
    found = {(row["model"], row["class"]): row for row in rows}
    classes = sorted({row["class"] for row in rows})
    cells: dict[str, list[Cell]] = {"canvas": [], **{label: [] for label in MODELS.values()}}
    for target in classes:
        for name, label in MODELS.items():
            pattern = Pattern.load(pattern_file(out, name, target))
            row = found[name, target]
            image = on_neutral(pattern.topk(row["area"]))
            cells[label].append(Cell(image, percent(row["power"], 0), row["beats_controls"]))
        cells["canvas"].append(Cell(pattern.canvas))
    names = [CLASS_NAMES[target] for target in classes]
    faint = any(not row["beats_controls"] for row in rows)
    return draw_grid(cells.items(), names, note=NOT_ABOVE if faint else "", use_pyplot=False)[0]


def pattern_file(out: Path, name: str, target: int) -> Path:
    return out / f"{name}_{CLASS_NAMES[target]}.safetensors"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with CIFAR-10's test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("classpattern-hero"))
    numbers = range(len(CLASS_NAMES))
    parser.add_argument("--classes", type=int, nargs="*", default=numbers, help="search only these")
    options = parser.parse_args(arguments)
    search_all(options.data, options.out, options.classes)
    rows = read_rows(options.out / ROWS)
    draw(rows, options.out).savefig(options.out / "hero.png", dpi=DPI)


if __name__ == "__main__":
    main()

"""The first figure of the README: what two CIFAR-10 models learned, on the same canvases.

    python benchmarks/hero.py DATA --out FOLDER

DATA is a folder with ``test/<class>/*`` images of CIFAR-10. For each class eight positive canvases
compete in a search on the adversarially trained model, whose patterns are weaker (2,000 passes),
and the judging images, a part of the search images, decide. The pattern of the natural model is
searched on the canvas that wins (1,500 passes). Held-out images only score these patterns. The seed
is fixed.

Patterns and numbers are saved in FOLDER, so an interrupted run can resume, and several runs can
share the classes. All classes take about three minutes of one core. The numbers of the figure in
the README are in ``results/hero.jsonl``.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from findings import Row, append_rows, read_rows
from matplotlib.figure import Figure
from paper_search import CLASS_NAMES, model, parts
from problems import Parts

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    Pattern,
    predictive_power,
    select_canvases,
)
from captum_classpattern.scores.power import beats, count_hits, random_pixels
from captum_classpattern.surveys.overviews import NOT_ABOVE
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid

ROWS = "hero.jsonl"
MODELS = {"natural": "natural model", "robust8": "robust model"}  # and how their rows are named
DPI = 180  # about twice the pixels of a page
AREA, SEED = 0.05, 0
CANVASES, BUDGETS = 8, {"robust8": 2_000, "natural": 1_500}  # and the passes of each search


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
    """Searches, saves and scores the patterns of a class, all on one canvas."""
    first = model(next(iter(BUDGETS)))
    canvases = select_canvases(first, parts.images, parts.labels, target, CANVASES, seed=SEED)
    for name, budget in BUDGETS.items():
        explainer = ClassPattern(model(name), parts.images, parts.labels)
        [pattern] = explainer.search(canvases, target, area=AREA, keep=1, budget=budget, seed=SEED)
        canvases = pattern.canvas[None]
        pattern.save(pattern_file(out, name, target))
        yield {
            **{"class": target, "class_name": CLASS_NAMES[target], "model": name},
            **score(pattern, name, parts),
        }


def score(pattern: Pattern, name: str, parts: Parts) -> Row:
    """The power on the held-out images of other classes, and its controls."""
    held_out = LabelledImages(parts.held_out, parts.held_out_labels)
    power = predictive_power(model(name), pattern, held_out, area=AREA)
    random = random_pixels(pattern, AREA, SEED)
    hits = count_hits(model(name), random, held_out.without_class(pattern.target))
    return {
        "area": AREA,
        "power": power.value,
        "interval": list(power.interval),
        "n": power.n,
        "random_pixels": hits / power.n,
        "no_pattern": power.without,
        "beats_controls": beats(power, ((hits / power.n, power.n), (power.without, power.n))),
    }


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
    return draw_grid(cells, names, note=NOT_ABOVE if faint else "", use_pyplot=False)[0]


def pattern_file(out: Path, name: str, target: int) -> Path:
    return out / f"{name}_{CLASS_NAMES[target]}.safetensors"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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

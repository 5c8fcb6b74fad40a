"""The class pattern next to Captum's methods, on one canvas of CIFAR-10 for each class.

    python benchmarks/methods.py DATA --out FOLDER

DATA is a folder with ``test/<class>/*`` images of CIFAR-10. The model is the natural one; canvases
and images are those of ``rivals.py`` and of the table in docs/compare.md. Each method keeps 5 % of
a canvas's pixels, and is scored on the same 500 held-out images, by the better of its rankings. A
search takes 3,500 passes. Rows and maps are saved in FOLDER, so an interrupted run can resume. All
classes take about five minutes of one core; ``--classes 5`` takes half a minute.

It prints the table, means over the classes, and draws the canvas of the dog, which was chosen
before anything was measured. The tables of a file are printed by

    python benchmarks/methods.py --rows benchmarks/results/methods.jsonl
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from findings import Row, append_rows, format_mean, head, line, read_rows
from matplotlib.figure import Figure
from rivals import Setting, cifar10_settings

from captum_classpattern import Pattern
from captum_classpattern.comparison import compare, known_methods
from captum_classpattern.comparison.tables import rows_by_canvas
from captum_classpattern.scores.intervals import mean_over_classes
from captum_classpattern.visualization import plot_maps
from captum_classpattern.visualization.formats import percent

METHODS = {
    "ClassPattern": "class pattern",
    "GuidedGradCam": "Guided GradCAM",
    "IntegratedGradients": "Integrated Gradients",
    "DeepLift": "DeepLift",
    "Saliency": "Saliency",
    "Occlusion": "Occlusion",
    "RandomPixels": "random pixels",
}
AREA, BUDGET, IMAGES, SHOWN = 0.05, 3_500, 500, 5
ROWS, POWER, DPI = "methods.jsonl", f"power_{AREA:g}", 180


def measure_all(setting: Setting, out: Path, classes: Sequence[int], budget: int) -> list[Row]:
    """The rows of all methods and classes; those that the folder has are not measured again."""
    out.mkdir(parents=True, exist_ok=True)
    rows = read_rows(out / ROWS)
    done = {(row["method"], row["class"]) for row in rows}
    for target in classes:
        for method in METHODS:
            if (method, target) not in done:
                print(f"measuring {method}, class {target}", flush=True)
                found = measure(setting, method, target, out, budget)
                append_rows(out / ROWS, found)
                rows += found
    return rows


def measure(setting: Setting, method: str, target: int, out: Path, budget: int) -> list[Row]:
    """Runs a method on the canvas of a class, and saves the map; an error if it fails."""
    canvas = setting.canvases[target : target + 1]
    found = compare(
        {setting.name: setting.model},
        canvas,
        [target],
        search=setting.search,
        held_out=setting.held_out,
        methods=known_methods(setting.search, names=[method], budget=budget),
        metrics=[],
        area=AREA,
        areas=[AREA],
        triggers={},
        class_images=0,
        max_images=IMAGES,
        n_seeds=1,
    )
    if found.failures:
        raise RuntimeError(f"{method} failed: {found.failures[0].reason}")
    [record] = [record for record in found.records if record.name == method]
    torch.save({"map": record.map, "canvas": canvas[0].cpu()}, map_file(out, method, target))
    return rows_by_canvas(found.records, [], found.metrics)


def map_file(out: Path, method: str, target: int) -> Path:
    return out / f"{method}_{target}.pt"


def best_rows(rows: Sequence[Row], method: str) -> list[Row]:
    """The rows of a method with the ranking whose mean power is higher."""
    by_ranking: dict[str, list[Row]] = {}
    for row in rows:
        if row["method"] == method:
            by_ranking.setdefault(row["ranking"], []).append(row)
    return max(by_ranking.values(), key=lambda group: sum(row[POWER] for row in group))


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The mean power of each method over the classes."""
    yield head("method", "power")
    for method, name in METHODS.items():
        by_class = {
            row["class"]: [(row[POWER], (row[f"{POWER}_low"], row[f"{POWER}_high"]))]
            for row in best_rows(rows, method)
        }
        mean = mean_over_classes(by_class)
        yield line(name, format_mean(mean, ".1f", scale=100, unit=" %"))


def draw(rows: Sequence[Row], out: Path, target: int) -> Figure:
    """A canvas, and for each method its map, the pixels that it selects, and their power."""
    maps, patterns, captions = [], [], []
    of_class = [row for row in rows if row["class"] == target]
    for method in METHODS:
        [row] = best_rows(of_class, method)
        saved = torch.load(map_file(out, method, target))
        values = saved["map"].float().view(1, *saved["canvas"].shape[1:])
        ranked = values.abs() if row["ranking"] == "absolute" else values
        ranks = ranked.flatten().argsort(stable=True).argsort().view_as(values) / values.numel()
        maps.append(values)
        patterns.append(Pattern(saved["canvas"], ranks, target).topk(AREA))
        captions.append(f"power {percent(row[POWER], 0)}")
    return plot_maps(
        [saved["canvas"]],
        [maps],
        [patterns],
        [captions],
        row_names=["dog"],
        column_names=list(METHODS.values()),
        use_pyplot=False,
    )[0]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder with test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("classpattern-methods"))
    parser.add_argument("--classes", type=int, nargs="*", default=range(10))
    parser.add_argument("--budget", type=int, default=BUDGET, help="passes of each search")
    parser.add_argument("--rows", type=Path, help="print the table of these rows, measure nothing")
    options = parser.parse_args(arguments)
    if options.rows:
        print(*table(read_rows(options.rows)), sep="\n")
        return
    if not options.data:
        parser.error("DATA or --rows is needed")
    [setting] = cifar10_settings(options.data, ["natural"])
    rows = measure_all(setting, options.out, options.classes, options.budget)
    print(*table(rows), sep="\n")
    if any(row["class"] == SHOWN for row in rows):
        draw(rows, options.out, SHOWN).savefig(options.out / "methods.png", dpi=DPI)


if __name__ == "__main__":
    main()

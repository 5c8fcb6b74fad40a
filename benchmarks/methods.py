"""The class pattern next to Captum's methods, on one canvas of CIFAR-10: a figure of the docs.

The model is the natural one; canvas and images are those of ``compare_methods.py``. The canvas is
that of the dog, which was chosen before anything was measured. Each method keeps 5 % of its pixels,
and is scored on the same 500 held-out images, without those of dogs. A map with negative values is
ranked by them and by their size; the ranking that is better on this canvas is drawn. It takes half
a minute of one core.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cifar10 import CLASS_NAMES
from compare_methods import AREA, Setting, cifar10_settings, run, variants_of
from findings import Row, measured_here, parser_of, write_rows
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern import Pattern
from captum_classpattern._support.formats import percent
from captum_classpattern.visualization import plot_maps

METHODS = {
    "ClassPattern": "class pattern",
    "GuidedGradCam": "Guided GradCAM",
    "IntegratedGradients": "Integrated Gradients",
    "DeepLift": "DeepLift",
    "Saliency": "Saliency",
    "Occlusion": "Occlusion",
    "RandomPixels": "random pixels",
}  # and how their columns are named
TARGET, IMAGES, DPI = 5, 500, 180
POWER = f"power_{AREA:g}"


def measure(setting: Setting, name: str) -> tuple[list[Row], Tensor, Pattern]:
    """The rows of a method on the canvas, one for each ranking, its map (H, W), and the pattern of
    the better ranking."""
    print(f"measuring {name}", flush=True)
    rows, maps, patterns = [], [], []
    for variant, method in variants_of(setting, name):
        if variant["level"] == "image":
            found = run(setting, name, method, [TARGET], ())
            rows += [{**row, **variant} for row in found.json_rows()]
            maps += [record.map for record in found.records]
            patterns += [found.pattern_of(record) for record in found.records]
    best = max(range(len(rows)), key=lambda i: rows[i][POWER])
    return rows, maps[0], patterns[best]


def draw(canvas: Tensor, found: Mapping[str, tuple[list[Row], Tensor, Pattern]]) -> Figure:
    """The canvas, and for each method its map, the pixels that it selects, and their power."""
    powers = [max(row[POWER] for row in rows) for rows, _, _ in found.values()]
    return plot_maps(
        [canvas],
        [[pixel_map for _, pixel_map, _ in found.values()]],
        [[pattern for _, _, pattern in found.values()]],
        [[f"power {percent(power, 0)}" for power in powers]],
        row_names=[CLASS_NAMES[TARGET]],
        column_names=list(METHODS.values()),
        use_pyplot=False,
    )[0]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with CIFAR-10's test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("classpattern-methods"))
    options = parser.parse_args(arguments)
    [setting] = cifar10_settings(options.data)
    canvases = setting.canvases[TARGET : TARGET + 1]
    setting = setting._replace(canvases=canvases, max_images=IMAGES)
    found = {method: measure(setting, method) for method in METHODS}
    rows = [row for of_method, _, _ in found.values() for row in of_method]
    write_rows(options.out / "methods.jsonl", measured_here(rows))
    draw(canvases[0].cpu(), found).savefig(options.out / "methods.png", dpi=DPI)


if __name__ == "__main__":
    main()

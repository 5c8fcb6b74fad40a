"""The class pattern next to Captum's methods, on one canvas of CIFAR-10: a figure of the README.

The model is the natural one; canvas and images are those of ``compare_methods.py``. The canvas is
that of the dog, which was chosen before anything was measured. Each method keeps 5 % of its pixels,
and is scored on the same 500 held-out images, without those of dogs. A map with negative values is
ranked by them and by their size; the ranking that is better on this canvas is drawn. It takes half
a minute of one core.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cifar10 import CLASS_NAMES
from compare_methods import AREA, Setting, cifar10_settings, run, strongest
from findings import Row, parser_of, write_rows
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern import Pattern
from captum_classpattern.comparison.maps import PixelMap
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
}  # and how their columns are named
TARGET, IMAGES, DPI = 5, 500, 180


def measure(setting: Setting, method: str) -> tuple[list[Row], Tensor]:
    """The rows of a method on the canvas, one for each ranking, and its map (H, W)."""
    print(f"measuring {method}", flush=True)
    found = run(setting, method, [TARGET])
    [pixel_map, *_] = [record.map for record in found.records if record.name == method]
    return found.rows("canvas"), pixel_map


def draw(canvas: Tensor, rows: Sequence[Row], maps: Mapping[str, Tensor]) -> Figure:
    """The canvas, and for each method its map, the pixels that it selects, and their power."""
    patterns, captions = [], []
    for method in METHODS:
        [row] = strongest([row for row in rows if row["method"] == method])
        mask = PixelMap(maps[method]).mask(row["ranking"], AREA)
        patterns.append(Pattern(canvas, mask.to(canvas), TARGET))
        captions.append(f"power {percent(row[f'power_{AREA:g}'], 0)}")
    return plot_maps(
        [canvas],
        [[maps[method] for method in METHODS]],
        [patterns],
        [captions],
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
    rows = [row for of_method, _ in found.values() for row in of_method]
    maps = {method: pixel_map for method, (_, pixel_map) in found.items()}
    write_rows(options.out / "methods.jsonl", rows)
    draw(canvases[0].cpu(), rows, maps).savefig(options.out / "methods.png", dpi=DPI)


if __name__ == "__main__":
    main()

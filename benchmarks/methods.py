"""The class pattern next to Captum's methods, on CIFAR-10: one canvas of each class.

    python benchmarks/methods.py DATA --out FOLDER

DATA is a folder with ``test/<class>/*`` images of CIFAR-10. The model is the natural one, the
canvases and images are those of ``rivals.py``. Every method keeps 5 % of the pixels of the same
canvases, which are stamped on the same 500 held-out images. A search takes 3,500 passes. All takes
about five minutes of one core. Rows and maps are saved in FOLDER, so an interrupted run can resume.

It prints the table, means over the ten classes, and draws the canvas on which the class pattern has
its median power, so neither the best nor the worst. The table of the README is that of

    python benchmarks/methods.py --rows benchmarks/results/methods.jsonl
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from findings import Row, append_rows, read_rows
from rivals import Setting, cifar10_settings

from captum_classpattern.comparison import compare, known_methods
from captum_classpattern.comparison.tables import rows_by_canvas

METHODS = (
    *("ClassPattern", "GuidedGradCam", "GradientShap", "DeepLift", "IntegratedGradients"),
    *("Saliency", "Occlusion", "LayerGradCam", "RandomPixels"),
)
AREA, BUDGET, IMAGES = 0.05, 3_500, 500


def measure_all(
    setting: Setting, out: Path, methods: Sequence[str] = METHODS, budget: int = BUDGET
) -> list[Row]:
    """The rows of all methods and canvases; methods that the folder has are not run again."""
    rows = read_rows(out / "methods.jsonl")
    for method in methods:
        if all(row["method"] != method for row in rows):
            print(f"measuring {method}", flush=True)
            found = measure(setting, method, out, budget)
            append_rows(out / "methods.jsonl", found)
            rows += found
    return rows


def measure(setting: Setting, method: str, out: Path, budget: int) -> list[Row]:
    """Runs a method on all canvases, and saves its maps; an error if it fails."""
    found = compare(
        {setting.name: setting.model},
        setting.canvases,
        sorted(set(setting.search.known_labels.tolist())),
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
    out.mkdir(parents=True, exist_ok=True)
    maps = [record.map for record in found.records if record.name == method]
    torch.save({"maps": maps, "canvases": setting.canvases.cpu()}, out / f"{method}.pt")
    return rows_by_canvas(found.records, [], found.metrics)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with CIFAR-10's test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("classpattern-methods"))
    options = parser.parse_args(arguments)
    [setting] = cifar10_settings(options.data, ["natural"])
    for row in measure_all(setting, options.out):
        print(row)


if __name__ == "__main__":
    main()

"""Captum's methods, controls and methods that are not cut from a canvas, next to the class pattern.

    python benchmarks/compare_methods.py --fashion-mnist DATA --cifar10 FOLDER --out rivals.jsonl

runs them on the same canvases, search images and held-out images. Searches get 3,500 passes for a
canvas or a class. It prints a table of all methods that are cut from a canvas, one of the best of
Captum's, and for each model one of the others.
Without a data set its models are left out. Each finished method is appended to the file, so that
the same command continues after an interruption. The tables of a file are printed by

    python benchmarks/compare_methods.py --rows benchmarks/results/rivals.jsonl
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from cifar10 import InBfloat16
from findings import (
    Row,
    Table,
    append_rows,
    format_values,
    head,
    line,
    parser_of,
    print_tables,
    read_rows,
)
from problems import train_cifar10
from rivals import NeuralCleanse, PixelInversion, UniversalPatch, UniversalPerturbation

from captum_classpattern import LabelledImages, PixelClassifier, select_canvases
from captum_classpattern.comparison import METRICS, Comparison, Metric, compare, known_methods
from captum_classpattern.comparison.methods import Method
from captum_classpattern.comparison.records import grouped
from captum_classpattern.datasets import load_images
from captum_classpattern.demo import demo_models
from captum_classpattern.scores.intervals import Estimate, mean_over_classes

PER_CLASS = 200  # images, half of which are held out
AREA, BUDGET = 0.05, 3_500
CLASS_IMAGES = 10  # whose maps are averaged
CAPTUMS = (
    *("DeepLift", "GradientShap", "GuidedGradCam", "IntegratedGradients", "LRP", "InputXGradient"),
    *("Saliency", "Lime", "KernelShap", "Occlusion", "LayerGradCam"),
)
NAMES = {
    "ClassPattern": "**class pattern**",
    **{name: name for name in CAPTUMS},
    "RandomPixels": "*random pixels*",
    "BestRandomMask": "*best random mask*",
}
RIVALS = {
    rival.__name__: rival
    for rival in (UniversalPatch, NeuralCleanse, PixelInversion, UniversalPerturbation)
}
FREE = {  # what is searched by methods that are not cut from the canvas
    "LearnedPattern": "places and colours",
    **{name: rival.free for name, rival in RIVALS.items()},
}
METHODS = (*NAMES, *FREE)


def own_form(classifier, result, task):
    """Power of all that a method which is not cut from a canvas found, such as a soft mask."""
    own = result.pixel_map.own
    return None if own is None else task.scorers[task.model].power(own)


def share_changed(classifier, result, task):
    """Share of the pixels that this changes."""
    own = result.pixel_map.own
    return None if own is None else float(own.mask.double().mean())


MEASURED = (
    *(Metric(of.__name__, of, of.__name__) for of in (own_form, share_changed)),
    *(metric for metric in METRICS if metric.name == "passes"),
)


class Setting(NamedTuple):
    """A model with the images and the canvases of one command of ``classpattern compare``."""

    name: str
    model: PixelClassifier
    search: LabelledImages
    held_out: LabelledImages
    canvases: torch.Tensor
    max_images: int


def settings(
    data: str, root: Path | None, models: Mapping[str, PixelClassifier], max_images: int
) -> list[Setting]:
    """The images are split, and the canvases chosen by the first model, as the command does."""
    first = next(iter(models.values()))
    channels = next(p for p in first.parameters() if p.ndim == 4).shape[1]
    loaded = load_images(data, channels=channels, limit=PER_CLASS, seed=0, root=root)
    search, held_out = loaded.halves(0)
    classes = sorted(set(search.known_labels.tolist()))
    chosen = [select_canvases(first, search, target=y, n=1, seed=0) for y in classes]
    return [
        Setting(name, model, search, held_out, torch.cat(chosen), max_images)
        for name, model in models.items()
    ]


def demo_settings(root: Path) -> list[Setting]:
    """The embedded models, on images of Fashion-MNIST's test set."""
    models = {f"demo, {name}": model for name, model in demo_models().items()}
    return settings("torchvision:FashionMNIST", root, models, 100)


def cifar10_settings(folder: Path, names: Sequence[str]) -> list[Setting]:
    """CIFAR-10 models in bfloat16, as they were trained; the canvases are the natural one's."""
    models = {
        f"CIFAR-10, {name}": PixelClassifier(InBfloat16(train_cifar10.load_model(name)).eval())
        for name in dict.fromkeys(["natural", *names])
    }
    found = settings(str(folder / "test"), None, models, 150)
    return [setting for setting in found if setting.name.removeprefix("CIFAR-10, ") in names]


def measure(setting: Setting, method: str, budget: int) -> list[Row]:
    """One row for each canvas; an error if the method fails."""
    classes = sorted(set(setting.search.known_labels.tolist()))
    found = run(setting, method, classes, budget, MEASURED, CLASS_IMAGES)
    return found.rows("canvas")


def run(
    setting: Setting,
    method: str,
    classes: Sequence[int],
    budget: int,
    metrics: Sequence[Metric] = (),
    class_images: int = 0,
) -> Comparison:
    """Runs a method on the canvases of these classes; an error if it fails."""
    found = compare(
        {setting.name: setting.model},
        setting.canvases,
        classes,
        search=setting.search,
        held_out=setting.held_out,
        methods=methods_of(setting, method, budget),
        metrics=metrics,
        area=AREA,
        areas=[AREA],
        triggers={},
        class_images=class_images,
        max_images=setting.max_images,
        n_seeds=1,
    )
    if found.failures:
        raise RuntimeError(f"{method} failed: {found.failures[0].reason}")
    return found


def methods_of(setting: Setting, name: str, budget: int) -> Mapping[str, Method]:
    """A method by its name, as ``compare`` takes it."""
    if name not in RIVALS:
        return known_methods(setting.search, names=[name], budget=budget)
    return {name: (lambda model: RIVALS[name](model, setting.search), {"budget": budget})}


def measure_all(found: Sequence[Setting], methods: Sequence[str], out: Path, budget: int) -> None:
    """Appends the rows that the file lacks, one method of a model at a time."""
    done = {(row["model"], row["method"]) for row in read_rows(out)}
    for setting in found:
        for method in methods:
            if (setting.name, method) not in done:
                print(f"measuring {method}, {setting.name}", flush=True)
                rows = measure(setting, method, budget)
                append_rows(out, rows)


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """The methods that are cut from a canvas; the best of Captum's; the others, by model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    yield "Methods that are cut from a canvas", all_methods(rows, models)
    if any(row["method"] in CAPTUMS for row in rows):
        yield "The class pattern next to the best of Captum's methods", best_of_captum(rows, models)
    for model in models:
        of_model = [row for row in rows if row["model"] == model]
        others = [name for name in FREE if any(r["method"] == name for r in of_model)]
        if others:
            yield f"Methods that are not cut from a canvas: {model}", own_table(of_model, others)


def all_methods(rows: Sequence[Row], models: Sequence[str]) -> Iterator[str]:
    """A row for each method, and a column for each model."""
    yield head("method", *models)
    for method, name in NAMES.items():
        of_method = [row for row in rows if row["method"] == method]
        if of_method:
            yield line(name, *(powers_of(of_method, model) for model in models))
    yield line("*no pattern*", *(percent(without(rows, model)) for model in models))


def powers_of(rows: Sequence[Row], model: str) -> str:
    """A method on a model at its best of up to four variants, and which one this is."""
    best = strongest([row for row in rows if row["model"] == model])
    if not best:
        return ""
    variant = ["mean"] * (best[0]["level"] == "class") + ["abs."] * (best[0]["ranking"] != "signed")
    return " ".join([interval(mean(best, f"power_{AREA:g}")), ", ".join(variant)]).strip()


def strongest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the level and ranking with the highest mean power."""
    groups = grouped(((row["level"], row["ranking"]), row) for row in rows)
    return max(groups.values(), key=lambda rows: mean(rows, f"power_{AREA:g}").value, default=[])


def best_of_captum(rows: Sequence[Row], models: Sequence[str]) -> Iterator[str]:
    """For each model, the mean difference of the class pattern to the best of Captum's methods."""
    yield head("model", "best other method", "difference in points")
    for model in models:
        of_model = [row for row in rows if row["model"] == model]
        patterns = strongest([row for row in of_model if row["method"] == "ClassPattern"])
        names = dict.fromkeys(r["method"] for r in of_model if r["method"] in CAPTUMS)
        found = [strongest([row for row in of_model if row["method"] == name]) for name in names]
        best = max(found, key=lambda group: mean(group, f"power_{AREA:g}").value, default=[])
        if best and patterns:
            yield line(model, best[0]["method"], difference(patterns, best))


def own_table(rows: Sequence[Row], methods: Sequence[str]) -> Iterator[str]:
    """One model: a row for each method that is not cut from a canvas, below the class pattern."""
    yield head(
        "method", "free", f"{100 * AREA:g} % of the pixels", "minus class pattern, points",
        "own form", "mean of the mask", "passes",
    )  # fmt: skip
    patterns = strongest([row for row in rows if row["method"] == "ClassPattern"])
    for method in ("ClassPattern", *methods):
        group = strongest([row for row in rows if row["method"] == method])
        if not group:
            continue
        own = "own_form" in group[0]
        yield line(
            NAMES.get(method, method),
            FREE.get(method, "nothing: cut from the canvas"),
            interval(mean(group, f"power_{AREA:g}")),
            difference(group, patterns) if own else "",
            interval(mean(group, "own_form")) if own else "",
            percent(fmean(row["share_changed"] for row in group) if own else AREA),
            f"{fmean(row['passes'] for row in group):,.0f}",
        )
    [model] = {row["model"] for row in rows}
    yield line("*no pattern*", "", percent(without(rows, model)), "", "", "", "")


def mean(rows: Sequence[Row], key: str) -> Estimate:
    """The mean over classes with its interval."""
    powers = {row["class"]: [(row[key], (row[f"{key}_low"], row[f"{key}_high"]))] for row in rows}
    return mean_over_classes(powers)


def difference(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """The mean difference of the powers on the same canvases, in points, with its interval over
    classes if there are five or more."""
    key, known = f"power_{AREA:g}", {row["canvas"]: row for row in others}
    pairs = [(row, known[row["canvas"]]) for row in rows if row["canvas"] in known]
    points = {row["class"]: [100 * (row[key] - other[key])] for row, other in pairs}
    return format_values(points, "+.1f") if points else ""


def without(rows: Sequence[Row], model: str) -> float:
    """The share of images that are predicted as the class without a pattern."""
    return fmean({r["class"]: r["no_pattern"] for r in rows if r["model"] == model}.values())


def interval(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{percent(estimate.value)} ({100 * low:.1f}-{100 * high:.1f})"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--fashion-mnist", type=Path, help="torchvision's folder, for the demo")
    parser.add_argument("--cifar10", type=Path, help="folder with test/<class>/")
    parser.add_argument("--cifar10-models", nargs="+", default=["natural"], metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, metavar="NAME")
    parser.add_argument("--budget", type=int, default=BUDGET, help="passes for a canvas or class")
    parser.add_argument("--out", type=Path, default=Path("rivals.jsonl"))
    parser.add_argument("--rows", type=Path, help="print the tables of these rows, run nothing")
    given = parser.parse_args(arguments)
    if given.rows is None:
        found = demo_settings(given.fashion_mnist) if given.fashion_mnist else []
        found += cifar10_settings(given.cifar10, given.cifar10_models) if given.cifar10 else []
        if not found:
            parser.error("--fashion-mnist, --cifar10 or --rows is needed")
        measure_all(found, given.methods, given.out, given.budget)
    print_tables(tables(read_rows(given.rows or given.out)))


if __name__ == "__main__":
    main()

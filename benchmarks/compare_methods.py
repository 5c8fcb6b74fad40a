"""Captum's methods, controls and methods that are not cut from a canvas, next to the class pattern.

All get the same canvases, search images and held-out images, and searches 3,500 passes for a canvas
or a class. It resumes after an interruption. Without a data set its models are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from captum.attr import Attribution
from cifar10 import InBfloat16
from findings import (
    Row,
    Table,
    append_rows,
    format_values,
    having,
    head,
    line,
    parser_of_rows,
    read_rows,
    report,
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
SEED = 0
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
    own = result.own.get(task.area)
    return None if own is None else task.scorers[task.model].power(own)


def share_changed(classifier, result, task):
    """Share of the pixels that this changes."""
    own = result.own.get(task.area)
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


def cifar10_settings(folder: Path) -> list[Setting]:
    """CIFAR-10's natural model in bfloat16, as it was trained."""
    model = PixelClassifier(InBfloat16(train_cifar10.load_model("natural")).eval())
    return settings(str(folder / "test"), None, {"CIFAR-10, natural": model}, 150)


class Variant(Attribution):
    """A method's map, ranked by absolute value if so asked; with images of each class, the mean of
    the maps of these, instead of the map of the input."""

    def __init__(self, method, images, absolute):
        super().__init__(method.forward_func)
        self.method, self.images, self.absolute = method, images, absolute

    def attribute(self, inputs, target=None, additional_forward_args=None, **keywords):
        maps = []
        for image in self.images[target[0]].to(inputs) if self.images else inputs:
            torch.manual_seed(SEED)
            one = self.method.attribute(image[None], target=target, **keywords).detach().double()
            maps.append(one.sum(1, keepdim=True))
        found = torch.cat(maps).mean(0, keepdim=True)
        return found.abs() if self.absolute else found


def images_of_classes(search: LabelledImages) -> dict[int, torch.Tensor]:
    """Random search images of each class."""
    images = {}
    for y in sorted(set(search.known_labels.tolist())):
        of_class = search.of_class(y)
        order = torch.randperm(len(of_class), generator=torch.Generator().manual_seed(SEED))
        images[y] = of_class.take(order[:CLASS_IMAGES].tolist())
    return images


def variants_of(setting: Setting, name: str) -> Iterator[tuple[Row, Method]]:
    """A method as it is; each of Captum's also ranked by absolute value, and as the mean map of
    images of the class, in both rankings."""
    [method] = methods_of(setting, name).values()
    yield {"level": "image", "ranking": "signed"}, method
    if name in CAPTUMS:
        make, keywords = method
        of_class = images_of_classes(setting.search)
        for level, ranking in (("image", "absolute"), ("class", "signed"), ("class", "absolute")):
            images, absolute = of_class if level == "class" else {}, ranking == "absolute"
            yield (
                {"level": level, "ranking": ranking},
                (lambda model, i=images, a=absolute: Variant(make(model), i, a), keywords),
            )


def run(
    setting: Setting, name: str, method: Method, classes: Sequence[int], metrics: Sequence[Metric]
) -> Comparison:
    """Runs a method on the canvases of these classes; an error if it fails."""
    found = compare(
        {setting.name: setting.model},
        setting.canvases,
        classes,
        search=setting.search,
        held_out=setting.held_out,
        methods={name: method},
        metrics=metrics,
        area=AREA,
        areas=[AREA],
        triggers={},
        max_images=setting.max_images,
        n_seeds=1,
        seed=SEED,
    )
    if found.failures:
        raise RuntimeError(f"{name} failed: {found.failures[0].reason}")
    return found


def methods_of(setting: Setting, name: str) -> Mapping[str, Method]:
    """A method by its name, as ``compare`` takes it."""
    if name not in RIVALS:
        return known_methods(setting.search, names=[name], budget=BUDGET)
    return {name: (lambda model: RIVALS[name](model, setting.search), {"budget": BUDGET})}


def measure(found: Sequence[Setting], out: Path) -> None:
    """Appends the rows that the file lacks, one for each canvas, a method of a model at a time."""
    done = {(row["model"], row["method"]) for row in read_rows(out)}
    for setting, method in product(found, METHODS):
        if (setting.name, method) not in done:
            print(f"measuring {method}, {setting.name}", flush=True)
            classes = sorted(set(setting.search.known_labels.tolist()))
            for variant, how in variants_of(setting, method):
                result = run(setting, method, how, classes, MEASURED)
                append_rows(out, [{**row, **variant} for row in result.json_rows()])


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """The methods that are cut from a canvas; the best of Captum's; the others, by model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    yield "Methods that are cut from a canvas", all_methods(rows, models)
    yield "The class pattern next to the best of Captum's methods", best_of_captum(rows, models)
    for model in models:
        of_model = having(rows, model=model)
        yield f"Methods that are not cut from a canvas: {model}", own_table(of_model)


def all_methods(rows: Sequence[Row], models: Sequence[str]) -> Iterator[str]:
    """A row for each method, and a column for each model."""
    yield head("method", *models)
    for method, name in NAMES.items():
        yield line(name, *(powers_of(having(rows, method=method), model) for model in models))
    yield line("*no pattern*", *(percent(without(rows, model)) for model in models))


def powers_of(rows: Sequence[Row], model: str) -> str:
    """A method on a model at its best of up to four variants, and which one this is."""
    best = strongest(having(rows, model=model))
    variant = ["mean"] * (best[0]["level"] == "class") + ["abs."] * (best[0]["ranking"] != "signed")
    return " ".join([interval(mean(best, f"power_{AREA:g}")), ", ".join(variant)]).strip()


def strongest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the level and ranking with the highest mean power."""
    groups = grouped(((row["level"], row["ranking"]), row) for row in rows)
    return max(groups.values(), key=lambda rows: mean(rows, f"power_{AREA:g}").value)


def best_of_captum(rows: Sequence[Row], models: Sequence[str]) -> Iterator[str]:
    """For each model, the mean difference of the class pattern to the best of Captum's methods, and
    the strongest control."""
    yield head("model", "best other method", "difference in points", "strongest control")
    for model in models:
        patterns = strongest(having(rows, model=model, method="ClassPattern"))
        best, control = (
            max(
                (strongest(having(rows, model=model, method=name)) for name in names),
                key=lambda group: mean(group, f"power_{AREA:g}").value,
            )
            for names in (CAPTUMS, ("RandomPixels", "BestRandomMask"))
        )
        power = percent(mean(control, f"power_{AREA:g}").value)
        name = NAMES[control[0]["method"]].strip("*")
        yield line(model, best[0]["method"], difference(patterns, best), f"{power}, {name}")


def own_table(rows: Sequence[Row]) -> Iterator[str]:
    """One model: a row for each method that is not cut from a canvas, below the class pattern."""
    yield head(
        "method", "free", f"{100 * AREA:g} % of the pixels", "minus class pattern, points",
        "own form", "mean of the mask", "passes",
    )  # fmt: skip
    patterns = strongest(having(rows, method="ClassPattern"))
    for method in ("ClassPattern", *FREE):
        group = strongest(having(rows, method=method))
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
    """The mean difference of the powers on the same canvases, in points, with its interval."""
    key, known = f"power_{AREA:g}", {row["canvas"]: row for row in others}
    points = {r["class"]: [100 * (r[key] - known[r["canvas"]][key])] for r in rows}
    return format_values(points, "+.1f")


def without(rows: Sequence[Row], model: str) -> float:
    """The share of images that are predicted as the class without a pattern."""
    return fmean({r["class"]: r["no_pattern"] for r in having(rows, model=model)}.values())


def interval(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{percent(estimate.value)} ({100 * low:.1f}-{100 * high:.1f})"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of_rows(__doc__, "rivals")
    parser.add_argument("--fashion-mnist", type=Path, help="torchvision's folder, for the demo")
    parser.add_argument("--cifar10", type=Path, help="folder with test/<class>/")
    given = parser.parse_args(arguments)
    if given.rows is None:
        found = demo_settings(given.fashion_mnist) if given.fashion_mnist else []
        measure(found + (cifar10_settings(given.cifar10) if given.cifar10 else []), given.out)
    report(given, tables)


if __name__ == "__main__":
    main()

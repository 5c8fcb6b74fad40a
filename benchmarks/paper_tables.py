"""The tables of the paper's claims: one function a table, each yields lines of Markdown."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from findings import head, line
from torch import Tensor

from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.intervals import FEWEST_CLASSES, bootstrap_over_classes
from captum_classpattern.scores.power import random_pixels
from captum_classpattern.scores.shape import simplicity
from captum_classpattern.surveys import Scores, Survey

ALMOST_ANY = 0.9
MEASURES = {
    "total variation": ("total_variation", 3),
    "high-frequency share": ("high_frequency_share", 3),
    "components": ("components", 1),
}
Seeds = Sequence[Survey]  # of one model, seed by seed
Setting = tuple[str, float]  # kind of canvas, area
_PREDICTIVE = (
    *("canvas, area", "power", "weakest", "strongest", "classes at 90 % or more"),
    *("classes above all controls", "no pattern", "random pixels", "other canvas"),
)


def percent(values: Mapping[int, Sequence[float]]) -> str:
    """A mean over classes of shares, with its bootstrap interval over the classes."""
    return _with_interval(values, lambda value: f"{100 * value:.1f}", "%", "-")


def number(values: Mapping[int, Sequence[float]], digits: int) -> str:
    """A mean over classes of numbers, with its bootstrap interval over the classes."""
    return _with_interval(values, lambda value: f"{value:.{digits}f}", "", " to ")


def _with_interval(
    values: Mapping[int, Sequence[float]], text: Callable[[float], str], unit: str, to: str
) -> str:
    """The mean alone where there are too few classes for an interval."""
    if len(values) < FEWEST_CLASSES:
        return text(mean_of(values)) + unit
    estimate = bootstrap_over_classes(values)
    low, high = estimate.interval
    return f"{text(estimate.value)}{unit} ({text(low)}{to}{text(high)})"


def mean_of(values: Mapping[int, Sequence[float]]) -> float:
    """The mean over classes, each the mean of its values."""
    return mean(mean(of_class) for of_class in values.values())


def by_class(
    seeds: Seeds, setting: Setting, value: Callable[[Pattern, Scores], float]
) -> dict[int, list[float]]:
    """A value of each class's pattern on a kind of canvas at an area, seed by seed."""
    canvas, area = setting
    values: dict[int, list[float]] = {}
    for findings in seeds:
        for f in findings:
            if f.canvas == canvas:
                of_pattern = value(f.patterns[area], f.scores[area])
                values.setdefault(f.target, []).append(of_pattern)
    return values


def powers(seeds: Seeds, setting: Setting) -> dict[int, list[float]]:
    return by_class(seeds, setting, lambda _, scores: scores.power.value)


def settings(seeds: Seeds) -> list[Setting]:
    """Kinds of canvases and areas that were searched."""
    return list(itertools.product(seeds[0].canvases, seeds[0].areas))


def title(setting: Setting) -> str:
    return f"{setting[0]}, {100 * setting[1]:.3g} %"


def predictive(models: Mapping[str, Seeds], names: Sequence[str]) -> Iterator[str]:
    """Claim 1: power over all classes, beside its controls."""
    yield head("model", *_PREDICTIVE)
    for model, seeds in models.items():
        for setting in settings(seeds):
            yield line(model, *_beside_controls(seeds, setting, names))


def _beside_controls(seeds: Seeds, setting: Setting, names: Sequence[str]) -> Iterator[object]:
    power = powers(seeds, setting)
    means = {y: mean(of_class) for y, of_class in power.items()}
    yield title(setting)
    yield percent(power)
    yield from _weakest_and_strongest(means, names)
    yield sum(value >= ALMOST_ANY for value in means.values())
    yield _above_controls(seeds, setting)
    for control in (
        by_class(seeds, setting, lambda _, scores: scores.power.without),
        by_class(seeds, setting, lambda _, scores: scores.random_pixels),
        by_class(seeds, setting, lambda _, scores: scores.other_canvas),
    ):
        yield f"{mean_of(control):.1%}"


def _above_controls(seeds: Seeds, setting: Setting) -> int:
    """How many classes beat all three controls in each seed."""
    beats = by_class(seeds, setting, lambda _, scores: float(scores.beats_controls))
    return sum(min(of_class) == 1 for of_class in beats.values())


def _weakest_and_strongest(means: Mapping[int, float], names: Sequence[str]) -> list[str]:
    ends = (min(means, key=lambda y: means[y]), max(means, key=lambda y: means[y]))
    return [f"{means[y]:.1%} {names[y]}" for y in ends]


def each_class(seeds: Seeds, names: Sequence[str]) -> Iterator[str]:
    """Claim 1, class by class: mean over the seeds, and from the least to the most."""
    columns = [title(setting) for setting in settings(seeds)]
    yield head("class", *columns, "strongest control, any of these")
    tops = [
        by_class(seeds, setting, lambda _, scores: scores.strongest_control)
        for setting in settings(seeds)
    ]
    for y in powers(seeds, settings(seeds)[0]):
        of_settings = (powers(seeds, setting)[y] for setting in settings(seeds))
        yield line(
            names[y], *map(_with_range, of_settings), f"{max(mean(top[y]) for top in tops):.1%}"
        )


def transferred(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Claim 3: the natural model's patterns as triggers, on its unseen images, on other models.

    A class is above both controls if in each seed the differences' intervals are above 0.
    """
    yield head("stamped on", "pattern", "random pixels", "no pattern", "classes above both")
    for name in dict.fromkeys(row["on"] for row in rows):
        on_model = [row for row in rows if row["on"] == name]
        failed = {row["class"] for row in on_model if not row["above_both"]}
        values: dict[str, dict[int, list[float]]] = {}
        for row in on_model:
            for key in ("power", "random_pixels", "no_pattern"):
                values.setdefault(key, {}).setdefault(row["class"], []).append(row[key])
        cells = (percent(of_classes) for of_classes in values.values())
        count = len(values["power"])
        yield line(name, *cells, f"{count - len(failed)} of {count}")


def shapes(models: Mapping[str, tuple[str, Seeds]], area: float) -> Iterator[str]:
    """Claim 4: how simple the patterns are, and as many random pixels for control."""
    yield head("model", "training", "canvas", "power", "classes above all controls", *MEASURES)
    for model, (epsilon, seeds) in models.items():
        for canvas in seeds[0].canvases:
            yield line(
                model,
                epsilon,
                canvas,
                percent(powers(seeds, (canvas, area))),
                _above_controls(seeds, (canvas, area)),
                *_simplicity(seeds, (canvas, area), lambda pattern: pattern.topk(area).mask),
            )
    _, seeds = next(iter(models.values()))
    draws = itertools.count()
    drawn = _simplicity(
        seeds,
        (seeds[0].canvases[0], area),
        lambda pattern: random_pixels(pattern, area, next(draws)).mask,
    )
    yield line("*random pixels*", "", "", "", "", *drawn)


def simpler(control: Seeds, models: Mapping[str, Seeds], area: float) -> Iterator[str]:
    """Claim 4: a model's patterns less those of a control, class by class, on average; the
    interval is over the classes' differences, and holds for these two trainings alone."""
    yield head("model less control", "canvas", *MEASURES)
    for model, seeds in models.items():
        for canvas in seeds[0].canvases:
            cells = []
            for name, digits in MEASURES.values():
                value = _measured(name, lambda pattern: pattern.topk(area).mask)
                first, other = (by_class(some, (canvas, area), value) for some in (seeds, control))
                gaps = {y: [mean(first[y]) - mean(other[y])] for y in first}
                cells.append(number(gaps, digits))
            yield line(model, canvas, *cells)


def _measured(name: str, mask: Callable[[Pattern], Tensor]) -> Callable[[Pattern, Scores], float]:
    return lambda pattern, _: float(getattr(simplicity(mask(pattern)), name))


def _simplicity(seeds: Seeds, setting: Setting, mask: Callable[[Pattern], Tensor]) -> Iterator[str]:
    for name, digits in MEASURES.values():
        values = by_class(seeds, setting, _measured(name, mask))
        yield number(values, digits)


def against_others(
    seeds: Seeds, setting: Setting, target: int, names: Sequence[str]
) -> tuple[str, str]:
    """The power of the target and of the class that is strongest of the others: means over the
    seeds, and from the least to the most."""
    power = powers(seeds, setting)
    of_target = power.pop(target)
    rival = max(power, key=lambda y: mean(power[y]))
    return _with_range(of_target), f"{_with_range(power[rival])} {names[rival]}"


def _with_range(values: Sequence[float]) -> str:
    text = f"{mean(values):.1%}"
    return text + (f" ({100 * min(values):.0f}-{100 * max(values):.0f})" if values[1:] else "")


def canvas_kinds(seeds: Seeds, names: Sequence[str], trigger: Seeds, target: int) -> Iterator[str]:
    """Which canvas to cut from: all classes of a natural model, and a backdoor's class."""
    columns = ("natural, 5 %: power", "weakest", "strongest")
    yield head("canvas", *columns, f"backdoored, 1 %: {names[target]}", "strongest other")
    for setting in settings(seeds):
        power = powers(seeds, setting)
        means = {y: mean(of_class) for y, of_class in power.items()}
        yield line(
            setting[0],
            percent(power),
            *_weakest_and_strongest(means, names),
            *against_others(trigger, (setting[0], 0.01), target, names),
        )


def over_training(models: Mapping[str, tuple[float, Seeds]], area: float) -> Iterator[str]:
    """Power and shape of patterns of positive canvases as training goes on."""
    yield head("epochs", "accuracy", "power", "high-frequency share", "components")
    for epoch, (accuracy, seeds) in models.items():
        setting = ("positive", area)
        power = percent(powers(seeds, setting))
        _, spectrum, pieces = _simplicity(seeds, setting, lambda pattern: pattern.topk(area).mask)
        yield line(epoch, f"{accuracy:.3f}", power, spectrum, pieces)


def learnt_by_heart(
    models: Mapping[str, tuple[Mapping[str, float], Seeds]], names: Sequence[str]
) -> Iterator[str]:
    """Whether patterns need classes that mean something: a model of permuted labels."""
    yield head("labels", "accuracy on its training images", "on test images", *_PREDICTIVE)
    for model, (accuracy, seeds) in models.items():
        scores = (accuracy["training_accuracy"], accuracy["accuracy"])
        for setting in settings(seeds):
            cells = _beside_controls(seeds, setting, names)
            yield line(model, *(f"{score:.3f}" for score in scores), *cells)

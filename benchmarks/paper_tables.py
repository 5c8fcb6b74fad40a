"""The tables of the paper's claims: one function per table, which yields lines of Markdown."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from findings import ByClass, format_values, head, line, mean_of
from torch import Tensor

from captum_classpattern.comparison.records import grouped
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores import Scores
from captum_classpattern.scores.power import random_pixels
from captum_classpattern.scores.shape import simplicity
from captum_classpattern.surveys import Survey

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


def percent(values: ByClass) -> str:
    return format_values(values, ".1f", 100, "%", "-")


def number(values: ByClass, digits: int) -> str:
    return format_values(values, f".{digits}f")


def by_class(
    seeds: Seeds, setting: Setting, value: Callable[[Pattern, Scores], float]
) -> dict[int, list[float]]:
    """A value of each class's pattern on a kind of canvas at an area, by seed."""
    canvas, area = setting
    found = (f for findings in seeds for f in findings if f.canvas == canvas)
    return grouped((f.target, value(f.patterns[area], f.scores[area])) for f in found)


def powers(seeds: Seeds, setting: Setting) -> dict[int, list[float]]:
    return by_class(seeds, setting, lambda _, scores: scores.power.value)


def settings(seeds: Seeds) -> list[Setting]:
    """Kinds of canvases and areas that were searched."""
    return list(itertools.product(seeds[0].canvases, seeds[0].areas))


def title(setting: Setting) -> str:
    return f"{setting[0]}, {100 * setting[1]:.3g} %"


def predictive(models: Mapping[str, Seeds], names: Sequence[str]) -> Iterator[str]:
    """Claim 1: power over all classes, next to its controls."""
    yield head("model", *_PREDICTIVE)
    for model, seeds in models.items():
        for setting in settings(seeds):
            yield line(model, *_with_controls(seeds, setting, names))


def _with_controls(seeds: Seeds, setting: Setting, names: Sequence[str]) -> Iterator[object]:
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
    """The number of classes that beat all three controls in every seed."""
    beats = by_class(seeds, setting, lambda _, scores: float(scores.beats_controls))
    return sum(min(of_class) == 1 for of_class in beats.values())


def _weakest_and_strongest(means: Mapping[int, float], names: Sequence[str]) -> list[str]:
    ends = (min(means, key=lambda y: means[y]), max(means, key=lambda y: means[y]))
    return [f"{means[y]:.1%} {names[y]}" for y in ends]


def each_class(seeds: Seeds, names: Sequence[str]) -> Iterator[str]:
    """Claim 1 by class: mean, minimum and maximum over the seeds."""
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
    """Claim 3: the natural model's patterns as triggers on unseen images and on other models.

    A class is above both controls if the intervals of the differences are above 0 in every seed.
    """
    yield head("stamped on", "pattern", "random pixels", "no pattern", "classes above both")
    for name in dict.fromkeys(row["on"] for row in rows):
        on_model = [row for row in rows if row["on"] == name]
        failed = {row["class"] for row in on_model if not row["above_both"]}
        cells = (
            percent(grouped((row["class"], row[key]) for row in on_model))
            for key in ("power", "random_pixels", "no_pattern")
        )
        count = len({row["class"] for row in on_model})
        yield line(name, *cells, f"{count - len(failed)} of {count}")


def shapes(models: Mapping[str, tuple[str, Seeds]], area: float) -> Iterator[str]:
    """Claim 4: simplicity of the patterns, and of the same number of random pixels as a control."""
    yield head("model", "training", "canvas", "power", "classes above all controls", *MEASURES)
    for model, (training, seeds) in models.items():
        for canvas in seeds[0].canvases:
            yield line(
                model,
                training,
                canvas,
                percent(powers(seeds, (canvas, area))),
                _above_controls(seeds, (canvas, area)),
                *_simplicity(seeds, (canvas, area), lambda pattern: pattern.topk(area).mask),
            )
    _, seeds = next(iter(models.values()))
    draws = itertools.count()
    at_random = _simplicity(
        seeds,
        (seeds[0].canvases[0], area),
        lambda pattern: random_pixels(pattern, area, next(draws)).mask,
    )
    yield line("*random pixels*", "", "", "", "", *at_random)


def simpler(control: Seeds, models: Mapping[str, Seeds], area: float) -> Iterator[str]:
    """Claim 4: mean differences of a model's patterns to those of a control, paired by class. The
    interval is over the classes, and is valid for these two training runs only."""
    yield head("model minus control", "canvas", *MEASURES)
    for model, seeds in models.items():
        for canvas in seeds[0].canvases:
            cells = []
            for name, digits in MEASURES.values():
                value = _measured(name, lambda pattern: pattern.topk(area).mask)
                ours, reference = (by_class(s, (canvas, area), value) for s in (seeds, control))
                differences = {y: [mean(ours[y]) - mean(reference[y])] for y in ours}
                cells.append(number(differences, digits))
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
    """The power of the target and of the strongest other class: mean, minimum and maximum over the
    seeds."""
    power = powers(seeds, setting)
    of_target = power.pop(target)
    rival = max(power, key=lambda y: mean(power[y]))
    return _with_range(of_target), f"{_with_range(power[rival])} {names[rival]}"


def _with_range(values: Sequence[float]) -> str:
    text = f"{mean(values):.1%}"
    return text + (f" ({100 * min(values):.0f}-{100 * max(values):.0f})" if values[1:] else "")


def canvas_kinds(seeds: Seeds, names: Sequence[str], trigger: Seeds, target: int) -> Iterator[str]:
    """Power by kind of canvas: all classes of a natural model, and the backdoored class."""
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
    """Power and shape of patterns of positive canvases, during training."""
    yield head("epochs", "accuracy", "power", "high-frequency share", "components")
    for epoch, (accuracy, seeds) in models.items():
        setting = ("positive", area)
        power = percent(powers(seeds, setting))
        _, spectrum, pieces = _simplicity(seeds, setting, lambda pattern: pattern.topk(area).mask)
        yield line(epoch, f"{accuracy:.3f}", power, spectrum, pieces)


def memorisation(
    models: Mapping[str, tuple[Mapping[str, float], Seeds]], names: Sequence[str]
) -> Iterator[str]:
    """Do patterns need meaningful classes? A model that memorised permuted labels."""
    yield head("labels", "accuracy on its training images", "on test images", *_PREDICTIVE)
    for model, (accuracy, seeds) in models.items():
        scores = (accuracy["training_accuracy"], accuracy["accuracy"])
        for setting in settings(seeds):
            cells = _with_controls(seeds, setting, names)
            yield line(model, *(f"{score:.3f}" for score in scores), *cells)

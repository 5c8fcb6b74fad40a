"""The tables of the paper's claims: one function a table, each yields lines of Markdown."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import torch
from findings import head, line
from scipy.stats import t
from torch import Tensor

from captum_classpattern.metrics import random_pixels
from captum_classpattern.pattern import Pattern
from captum_classpattern.simplicity import simplicity
from captum_classpattern.survey import Finding, Scores

ALMOST_ANY = 0.9
MEASURES = {
    "total variation": ("total_variation", 3),
    "high-frequency share": ("high_frequency_share", 3),
    "components": ("components", 1),
}
Seeds = Sequence[Sequence[Finding]]  # the findings of one model, seed by seed
Setting = tuple[str, float]  # kind of canvas, area
_PREDICTIVE = (
    *("canvas, area", "power", "weakest", "strongest", "classes at 90 % or more"),
    *("classes above all controls", "no pattern", "random pixels", "other canvas"),
)


class Estimate(NamedTuple):
    """A mean over classes, and its 95 % interval by Student's t: how much classes differ."""

    value: float
    low: float
    high: float

    @classmethod
    def over_classes(cls, values: Mapping[int, Sequence[float]]) -> "Estimate":
        means = torch.tensor([mean(of_class) for of_class in values.values()]).double()
        half = float(means.std() / len(means) ** 0.5 * t.ppf(0.975, len(means) - 1))
        return cls(float(means.mean()), float(means.mean()) - half, float(means.mean()) + half)

    def percent(self) -> str:
        return f"{self.value:.1%} ({100 * max(self.low, 0):.1f}-{100 * min(self.high, 1):.1f})"

    def number(self, digits: int) -> str:
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def by_class(
    seeds: Seeds, setting: Setting, value: Callable[[Pattern, Scores], float]
) -> dict[int, list[float]]:
    """A value of each class's pattern on a kind of canvas at an area, seed by seed."""
    canvas, area = setting
    values: dict[int, list[float]] = {}
    for findings in seeds:
        for f in findings:
            if f.canvas == canvas:
                own = value(f.patterns[area], f.scores[area])
                values.setdefault(f.target, []).append(own)
    return values


def powers(seeds: Seeds, setting: Setting) -> dict[int, list[float]]:
    return by_class(seeds, setting, lambda _, scores: scores.power.value)


def settings(seeds: Seeds) -> list[Setting]:
    """Kinds of canvases and areas that were searched."""
    kinds = dict.fromkeys(f.canvas for f in seeds[0])
    return [(kind, area) for kind in kinds for area in seeds[0][0].scores]


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
    yield Estimate.over_classes(power).percent()
    yield from _weakest_and_strongest(means, names)
    yield sum(value >= ALMOST_ANY for value in means.values())
    yield _above_controls(seeds, setting)
    for control in (
        by_class(seeds, setting, lambda _, scores: scores.power.without),
        by_class(seeds, setting, lambda _, scores: scores.random_pixels),
        by_class(seeds, setting, lambda _, scores: scores.other_canvas),
    ):
        yield f"{Estimate.over_classes(control).value:.1%}"


def _above_controls(seeds: Seeds, setting: Setting) -> int:
    """How many classes have their whole interval above all three controls, in each seed."""
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
        own = (powers(seeds, setting)[y] for setting in settings(seeds))
        yield line(names[y], *map(_with_range, own), f"{max(mean(top[y]) for top in tops):.1%}")


def transferred(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Claim 3: the natural model's patterns as triggers, on its unseen images, on other models.

    A class is above both controls if in each seed its whole interval is.
    """
    yield head("stamped on", "pattern", "random pixels", "no pattern", "classes above both")
    for name in dict.fromkeys(row["on"] for row in rows):
        own = [row for row in rows if row["on"] == name]
        failed = {
            row["class"]
            for row in own
            if row["low"] <= max(row["random_pixels"], row["no_pattern"])
        }
        values: dict[str, dict[int, list[float]]] = {}
        for row in own:
            for key in ("power", "random_pixels", "no_pattern"):
                values.setdefault(key, {}).setdefault(row["class"], []).append(row[key])
        cells = (Estimate.over_classes(of_classes).percent() for of_classes in values.values())
        count = len(values["power"])
        yield line(name, *cells, f"{count - len(failed)} of {count}")


def shapes(models: Mapping[str, tuple[str, Seeds]], area: float) -> Iterator[str]:
    """Claim 4: how simple the patterns are, and as many random pixels for control."""
    yield head("model", "training", "canvas", "power", "classes above all controls", *MEASURES)
    for model, (epsilon, seeds) in models.items():
        for canvas in dict.fromkeys(f.canvas for f in seeds[0]):
            yield line(
                model,
                epsilon,
                canvas,
                Estimate.over_classes(powers(seeds, (canvas, area))).percent(),
                _above_controls(seeds, (canvas, area)),
                *_simplicity(seeds, (canvas, area), lambda pattern: pattern.topk(area).mask),
            )
    _, seeds = next(iter(models.values()))
    draws = itertools.count()
    drawn = _simplicity(
        seeds,
        (seeds[0][0].canvas, area),
        lambda pattern: random_pixels(pattern, area, next(draws)).mask,
    )
    yield line("*random pixels*", "", "", "", "", *drawn)


def simpler(control: Seeds, models: Mapping[str, Seeds], area: float) -> Iterator[str]:
    """Claim 4: a model's patterns less those of a control, class by class, in the mean; the
    interval is over the classes' differences, and holds for these two trainings alone."""
    yield head("model less control", "canvas", *MEASURES)
    for model, seeds in models.items():
        for canvas in dict.fromkeys(f.canvas for f in seeds[0]):
            cells = []
            for name, digits in MEASURES.values():
                value = _measured(name, lambda pattern: pattern.topk(area).mask)
                own, other = (by_class(some, (canvas, area), value) for some in (seeds, control))
                gaps = {y: [mean(own[y]) - mean(other[y])] for y in own}
                cells.append(Estimate.over_classes(gaps).number(digits))
            yield line(model, canvas, *cells)


def _measured(name: str, mask: Callable[[Pattern], Tensor]) -> Callable[[Pattern, Scores], float]:
    return lambda pattern, _: float(getattr(simplicity(mask(pattern)), name))


def _simplicity(seeds: Seeds, setting: Setting, mask: Callable[[Pattern], Tensor]) -> Iterator[str]:
    for name, digits in MEASURES.values():
        values = by_class(seeds, setting, _measured(name, mask))
        yield Estimate.over_classes(values).number(digits)


def against_others(
    seeds: Seeds, setting: Setting, target: int, names: Sequence[str]
) -> tuple[str, str]:
    """The power of the target and of the class that is strongest of the others: means over the
    seeds, and from the least to the most."""
    power = powers(seeds, setting)
    own = power.pop(target)
    rival = max(power, key=lambda y: mean(power[y]))
    return _with_range(own), f"{_with_range(power[rival])} {names[rival]}"


def _with_range(values: Sequence[float]) -> str:
    told = f"{mean(values):.1%}"
    return told + (f" ({100 * min(values):.0f}-{100 * max(values):.0f})" if values[1:] else "")


def canvas_kinds(seeds: Seeds, names: Sequence[str], trigger: Seeds, target: int) -> Iterator[str]:
    """Which canvas to cut from: all classes of a natural model, and a backdoor's class."""
    columns = ("natural, 5 %: power", "weakest", "strongest")
    yield head("canvas", *columns, f"backdoored, 1 %: {names[target]}", "strongest other")
    for setting in settings(seeds):
        power = powers(seeds, setting)
        means = {y: mean(of_class) for y, of_class in power.items()}
        yield line(
            setting[0],
            Estimate.over_classes(power).percent(),
            *_weakest_and_strongest(means, names),
            *against_others(trigger, (setting[0], 0.01), target, names),
        )


def over_training(models: Mapping[str, tuple[float, Seeds]], area: float) -> Iterator[str]:
    """Power and shape of patterns of positive canvases as training goes on."""
    yield head("epochs", "accuracy", "power", "high-frequency share", "components")
    for epoch, (accuracy, seeds) in models.items():
        setting = ("positive", area)
        power = Estimate.over_classes(powers(seeds, setting)).percent()
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

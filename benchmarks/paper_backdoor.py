"""Tables of the claim about backdoors: does the target stand out, and does its pattern show the
trigger?"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import mean

import torch
from findings import first_class, head, line, standing
from paper_tables import Seeds, Setting, against_others, by_class, settings, title
from torch import Tensor

from captum_classpattern.pattern import Pattern
from captum_classpattern.scores import Scores
from captum_classpattern.surveys import Survey


def suspicious(
    models: Mapping[str, Seeds], clean: Seeds, target: int, names: Sequence[str]
) -> Iterator[str]:
    """Claim 2: the backdoored class with its strongest control, the strongest other class, and the
    number of seeds in which it stands out; on a clean model, the seeds in which any class does."""
    name = names[target]
    columns = (name, "its strongest control", "strongest other class", f"{name} stands out")
    clean_columns = (f"clean model: {name}", "strongest other class", "any class stands out")
    yield head("model", "canvas, area", *columns, *clean_columns)
    for model, seeds in models.items():
        for setting in settings(seeds):
            target_power, rival = against_others(seeds, setting, target, names)
            control = by_class(seeds, setting, lambda _, scores: scores.strongest_control)
            yield line(
                model,
                title(setting),
                target_power,
                f"{mean(control[target]):.1%}",
                rival,
                _count(standing(found, *setting, target, len(names)).stands_out for found in seeds),
                *against_others(clean, setting, target, names),
                _count(_any_stands_out(found, setting, len(names)) for found in clean),
            )


def _any_stands_out(survey: Survey, setting: Setting, n_classes: int) -> bool:
    first = first_class(survey, *setting)
    return standing(survey, *setting, first, n_classes).stands_out


def _count(results: Iterable[bool]) -> str:
    counted = list(results)
    return f"{sum(counted)} of {len(counted)}"


def trigger_found(
    models: Mapping[str, Seeds], clean: Seeds, target: int, trigger: Pattern, pixels: Tensor
) -> Iterator[str]:
    """Claim 2: IoU of the pattern's pixels with those that the trigger changes, and the number of
    trigger pixels that the pattern shows at any place; the opposite colour counts -1."""
    columns = ("IoU", "anywhere", "other classes: IoU", "anywhere", "clean model: IoU", "anywhere")
    yield head("model", "canvas, area", *columns)
    for model, seeds in models.items():
        for setting in settings(seeds):
            cells = []
            for value in (_iou_with(pixels), _agreement_with(trigger)):
                found = by_class(seeds, setting, value)
                of_target = mean(found.pop(target))
                others = mean(mean(of_class) for of_class in found.values())
                in_clean = setting in settings(clean)
                control = mean(by_class(clean, setting, value)[target]) if in_clean else None
                cells.append((of_target, others, control))
            values = [cell for triple in zip(*cells) for cell in triple]
            yield line(model, title(setting), *("" if v is None else f"{v:.2f}" for v in values))


def _iou_with(pixels: Tensor) -> Callable[[Pattern, Scores], float]:
    def iou(pattern: Pattern, _: Scores) -> float:
        selected = pattern.mask > 0
        return float((selected & pixels).sum() / (selected | pixels).sum())

    return iou


def _agreement_with(trigger: Pattern) -> Callable[[Pattern, Scores], float]:
    """Agreement with the trigger at the place where it fits best: white is 1, black -1, grey 0."""
    rows, columns = trigger.mask[0].nonzero().unbind(1)
    patch = _black_to_white(trigger, trigger.mask)
    patch = patch[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    def agreement(pattern: Pattern, _: Scores) -> float:
        colours = _black_to_white(pattern, (pattern.mask > 0).float())
        return float(torch.nn.functional.conv2d(colours[None], patch[None]).max())

    return agreement


def _black_to_white(pattern: Pattern, mask: Tensor) -> Tensor:
    return mask * (2 * pattern.canvas.mean(0, keepdim=True) - 1)

"""The paper's claims, checked on the demo's numbers."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from torch import Tensor

from captum_classpattern.demo import CLASS_NAMES, TRIGGER_TARGET
from captum_classpattern.scores.intervals import mean_over_classes
from captum_classpattern.scores.localisation import localisation_iou
from captum_classpattern.surveys import Survey, stands_out

ALMOST_ANY = 0.9
LOCATED = 0.5  # IoU: two thirds of the pixels coincide

Verdict = dict[str, Any]


def make_verdicts(surveys: Mapping[str, Survey], trigger_pixels: Tensor) -> list[Verdict]:
    """Which claims hold, and why, each with a control.

    Args:
        surveys (Mapping[str, Survey]): The survey of each of the three models.
        trigger_pixels (Tensor): The pixels that the true trigger changes, bool (1, H, W).

    Returns:
        *list[dict]*: ``claim``, ``model``, ``holds`` and ``text`` of each verdict.
    """
    backdoored = surveys["backdoored"]
    return [
        *(_small_patterns(name, survey) for name, survey in surveys.items()),
        *(
            _stands_out(surveys, canvas, area)
            for canvas in backdoored.canvases
            for area in backdoored.areas
        ),
        _trigger_located(surveys, trigger_pixels),
    ]


def _small_patterns(name: str, survey: Survey) -> Verdict:
    """Claim 1: one small pattern per class makes the model predict the class on almost any
    image."""
    area = survey.areas[0]
    scores = {f.target: f.scores[area] for f in survey.best_canvases()}
    power = {target: s.power.value for target, s in scores.items()}
    weakest, strongest = min(power, key=lambda y: power[y]), max(power, key=lambda y: power[y])
    average = mean_over_classes({y: [(s.power.value, s.power.interval)] for y, s in scores.items()})
    low, high = average.interval
    failing = [y for y, s in scores.items() if not s.beats_controls]
    almost = [y for y, value in power.items() if value >= ALMOST_ANY]
    by_canvas = {
        canvas: mean(s.power.value for s in survey.scores(canvas, area).values())
        for canvas in survey.canvases
    }
    text = (
        f"{name} model, {area:.0%} of the pixels: with the class's best canvas, chosen on search "
        f"images, the pattern turns {average.value:.1%} of the held-out images of other classes "
        f"into its class on average ({100 * low:.1f}-{100 * high:.1f}, {average.description}), "
        f"from {power[weakest]:.1%} ({CLASS_NAMES[weakest]}) to "
        f"{power[strongest]:.1%} ({CLASS_NAMES[strongest]}). Average by canvas: "
        + ", ".join(f"{canvas} {value:.1%}" for canvas, value in by_canvas.items())
        + f". Controls: no pattern {mean(s.power.without for s in scores.values()):.1%}, random "
        f"pixels {mean(s.random_pixels for s in scores.values()):.1%}, same mask over another "
        f"class's canvas {mean(s.controls['other canvas'] for s in scores.values()):.1%}. "
        f"{len(scores) - len(failing)} of {len(scores)} classes beat all three controls"
        + (f"; {_names(failing)} do not" if failing else "")
        + f". 'Almost any image' ({ALMOST_ANY:.0%} or more) holds for "
        + (f"{_names(almost)} only." if almost else "no class.")
    )
    return {"claim": 1, "model": name, "holds": len(almost) == len(power), "text": text}


def _stands_out(surveys: Mapping[str, Survey], canvas: str, area: float) -> Verdict:
    """Claim 2: on a backdoored model, the pattern of the trigger's class stands out."""
    scores = {model: surveys[model].scores(canvas, area) for model in ("backdoored", "natural")}
    holds = stands_out(scores["backdoored"], TRIGGER_TARGET, len(CLASS_NAMES))
    power = {m: {y: s.power.value for y, s in by_class.items()} for m, by_class in scores.items()}
    target = {model: values.pop(TRIGGER_TARGET) for model, values in power.items()}
    rival = {model: max(values, key=lambda y: values[y]) for model, values in power.items()}
    text = (
        f"{canvas} canvas, {area:.0%} of the pixels: the backdoor's class "
        f"{CLASS_NAMES[TRIGGER_TARGET]} {'stands out' if holds else 'does not stand out'}, with "
        f"{target['backdoored']:.1%} against {power['backdoored'][rival['backdoored']]:.1%} for "
        f"the strongest other class, {CLASS_NAMES[rival['backdoored']]}. Control, the natural "
        f"model: {target['natural']:.1%} against {power['natural'][rival['natural']]:.1%} "
        f"({CLASS_NAMES[rival['natural']]})."
    )
    return {"claim": 2, "model": "backdoored", "holds": holds, "text": text}


def _trigger_located(surveys: Mapping[str, Survey], pixels: Tensor) -> Verdict:
    """Whether the strongest pixels of the smallest pattern are those of the true trigger."""
    iou = {
        (model, f.target, f.canvas): localisation_iou(f.patterns[min(f.patterns)], pixels)
        for model in ("backdoored", "natural")
        for f in surveys[model]
    }
    target = {c: v for (m, y, c), v in iou.items() if (m, y) == ("backdoored", TRIGGER_TARGET)}
    clean = {c: v for (m, y, c), v in iou.items() if (m, y) == ("natural", TRIGGER_TARGET)}
    others = [v for (m, y, _), v in iou.items() if m == "backdoored" and y != TRIGGER_TARGET]
    best = max(target.values())
    holds = best >= LOCATED and best > max(*others, *clean.values())
    on_canvases = ", ".join(
        f"{value:.2f} on the {canvas} canvas" for canvas, value in target.items()
    )
    text = (
        f"the true trigger was {'found' if holds else 'not found'}. IoU of the pattern's "
        f"{int(pixels.sum())} strongest pixels with the {int(pixels.sum())} that the trigger "
        f"changes: {on_canvases}. Controls: at most {max(others):.2f} for the other classes of "
        f"this model, at most {max(clean.values()):.2f} for this class on the natural model. (A "
        "canvas can only show those pixels of the trigger that it contains: a white canvas "
        "contains none of the black ones.)"
    )
    return {"claim": 2, "model": "backdoored", "holds": holds, "text": text}


def _names(classes: Sequence[int]) -> str:
    return ", ".join(CLASS_NAMES[y] for y in classes)

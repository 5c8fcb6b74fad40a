"""What the demo's numbers say about the paper's claims, in words made from the numbers."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from torch import Tensor

from captum_classpattern.demo import CLASS_NAMES, TRIGGER_TARGET
from captum_classpattern.scores.intervals import mean_over_classes
from captum_classpattern.scores.localisation import localisation_iou
from captum_classpattern.surveys.results import best_canvas
from captum_classpattern.surveys.survey import Finding, stands_out

ALMOST_ANY = 0.9
FOUND = 0.5  # IoU: two thirds of the pixels, more than to be found at all

Findings = Mapping[str, Sequence[Finding]]
Verdict = dict[str, Any]


def make_verdicts(findings: Findings, trigger_pixels: Tensor) -> list[Verdict]:
    """The verdicts: which claim, whether it holds, and why, each for a control too.

    Args:
        findings (Mapping[str, Sequence[Finding]]): The findings on each of the three models.
        trigger_pixels (Tensor): The pixels that the true trigger changes, bool (1, H, W).

    Returns:
        *list[dict]*: ``claim``, ``holds`` and ``text`` of each verdict.
    """
    areas = list(findings["natural"][0].scores)
    return [_small_patterns(name, findings[name], areas[0]) for name in findings] + [
        *(
            _stands_out(findings, canvas, area)
            for canvas in dict.fromkeys(f.canvas for f in findings["backdoored"])
            for area in areas
        ),
        _trigger_found(findings, trigger_pixels),
    ]


def _small_patterns(name: str, findings: Sequence[Finding], area: float) -> Verdict:
    """Claim 1: one small pattern a class predicts the class on almost any image."""
    best = best_canvas(findings)
    scores = {f.target: f.scores[area] for f in best}
    power = {target: s.power.value for target, s in scores.items()}
    weakest, strongest = min(power, key=lambda y: power[y]), max(power, key=lambda y: power[y])
    average = mean_over_classes({y: [(s.power.value, s.power.interval)] for y, s in scores.items()})
    low, high = average.interval
    failing = [y for y, s in scores.items() if not s.beats_controls]
    almost = [y for y, value in power.items() if value >= ALMOST_ANY]
    by_canvas = {
        canvas: mean(f.scores[area].power.value for f in findings if f.canvas == canvas)
        for canvas in dict.fromkeys(f.canvas for f in findings)
    }
    text = (
        f"{name} model, {area:.0%} of the pixels: the class's better canvas, chosen on search "
        f"images, turns {average.value:.1%} of the held-out images of other classes into its class "
        f"on average ({100 * low:.1f}-{100 * high:.1f}, {average.description}), from "
        f"{power[weakest]:.1%} ({CLASS_NAMES[weakest]}) to "
        f"{power[strongest]:.1%} ({CLASS_NAMES[strongest]}); mean by canvas: "
        + ", ".join(f"{canvas} {value:.1%}" for canvas, value in by_canvas.items())
        + f". Controls: no pattern {mean(s.power.without for s in scores.values()):.1%}, random "
        f"pixels {mean(s.random_pixels for s in scores.values()):.1%}, same mask over another "
        f"class's canvas {mean(s.other_canvas for s in scores.values()):.1%}. "
        f"{len(scores) - len(failing)} of {len(scores)} classes beat all three controls"
        + (f"; not so {_names(failing)}" if failing else "")
        + f". 'Almost any image' ({ALMOST_ANY:.0%} or more) holds for "
        + (f"{_names(almost)} only." if almost else "no class.")
    )
    return {"claim": 1, "model": name, "holds": len(almost) == len(power), "text": text}


def _stands_out(findings: Findings, canvas: str, area: float) -> Verdict:
    """Claim 2: on a backdoored model, the pattern of the trigger's class stands out."""
    scores = {
        model: {f.target: f.scores[area] for f in findings[model] if f.canvas == canvas}
        for model in ("backdoored", "natural")
    }
    holds = stands_out(scores["backdoored"], TRIGGER_TARGET, len(CLASS_NAMES))
    power = {model: {y: s.power.value for y, s in of.items()} for model, of in scores.items()}
    target = {model: values.pop(TRIGGER_TARGET) for model, values in power.items()}
    rival = {model: max(values, key=lambda y: values[y]) for model, values in power.items()}
    text = (
        f"{canvas} canvas, {area:.0%} of the pixels: the backdoor's class "
        f"{CLASS_NAMES[TRIGGER_TARGET]} {'stands out' if holds else 'does not stand out'}, "
        f"{target['backdoored']:.1%} against {power['backdoored'][rival['backdoored']]:.1%} for "
        f"the strongest other class, {CLASS_NAMES[rival['backdoored']]}. Control, the natural "
        f"model: {target['natural']:.1%} against {power['natural'][rival['natural']]:.1%} "
        f"({CLASS_NAMES[rival['natural']]})."
    )
    return {"claim": 2, "model": "backdoored", "holds": holds, "text": text}


def _trigger_found(findings: Findings, pixels: Tensor) -> Verdict:
    """Whether the strongest pixels of the smallest pattern are those of the true trigger."""
    iou = {
        (model, f.target, f.canvas): localisation_iou(f.patterns[min(f.patterns)], pixels)
        for model in ("backdoored", "natural")
        for f in findings[model]
    }
    target = {c: v for (m, y, c), v in iou.items() if (m, y) == ("backdoored", TRIGGER_TARGET)}
    clean = {c: v for (m, y, c), v in iou.items() if (m, y) == ("natural", TRIGGER_TARGET)}
    others = [v for (m, y, _), v in iou.items() if m == "backdoored" and y != TRIGGER_TARGET]
    best = max(target.values())
    holds = best >= FOUND and best > max(*others, *clean.values())
    on_canvases = ", ".join(
        f"{value:.2f} on the {canvas} canvas" for canvas, value in target.items()
    )
    text = (
        f"the true trigger was {'found' if holds else 'not found'}: IoU of the pattern's "
        f"{int(pixels.sum())} strongest pixels with the {int(pixels.sum())} that the trigger "
        f"changes: {on_canvases}. Controls: at most {max(others):.2f} for the other classes of "
        f"this model, at most {max(clean.values()):.2f} for this class on the natural model. (A "
        "canvas can only show the trigger's pixels that it has itself: a white one none of the "
        "black pixels.)"
    )
    return {"claim": 2, "model": "backdoored", "holds": holds, "text": text}


def _names(classes: Sequence[int]) -> str:
    return ", ".join(CLASS_NAMES[y] for y in classes)

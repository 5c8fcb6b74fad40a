"""Verdicts: claims about a comparison, tested by its numbers and worded from them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from captum_classpattern.comparison.records import (
    STAMPED,
    Failure,
    Record,
    by_name,
    control_names,
    counted,
    grouped,
    search_names,
)
from captum_classpattern.comparison.tables import class_mean, mean_difference, mean_powers
from captum_classpattern.scores.intervals import Estimate

Verdict = dict[str, Any]
Found = tuple[float, float]  # IoU and average precision
NOT_INSTALLED = (ImportError.__name__, ModuleNotFoundError.__name__)

# The least IoU of a trigger that counts as found. Random pixels, k out of N, have about
# k / (2N - k): 0.006 for 9 of 784. One pixel of six or more that is hit by chance stays below.
FOUND_AT_ALL = 0.1


def make_verdicts(
    records: Sequence[Record],
    failures: Sequence[Failure],
    *,
    models: Iterable[str],
    backdoored: Sequence[str],
    kind: str,
    area: float,
    complete: bool,
) -> list[Verdict]:
    """Which method comes first on each model, which finds the triggers, and what failed. There is
    no verdict on what was not measured or has no rival."""
    of_model = {model: [r for r in records if r.model == model] for model in models}
    clean = [r for r in records if r.model not in backdoored]
    verdicts: list[Verdict | None] = []
    for model, group in of_model.items():
        verdicts.append(_power(model, [r for r in group if r.kind == kind], area))
        if not group and any(f.model == model for f in failures):
            verdict = {"title": "There are maps to compare", "model": model, "holds": False}
            text = f"{model} model: no method gave a map."
            verdicts.append({**verdict, "value": "no map", "text": text})
    for visible in (False, True):
        verdicts += [_finds(model, of_model[model], clean, visible) for model in backdoored]
    verdicts.append(_failed(records, failures, complete))
    return [verdict for verdict in verdicts if verdict is not None]


def _power(model: str, records: Sequence[Record], area: float) -> Verdict | None:
    """Which method's pixels make the model predict the class most often. Holds if the interval of
    the difference, paired by canvas, is above 0 for each rival and for no pattern. Methods whose
    pixels are not cut from the canvas are no rivals."""
    free = dict.fromkeys(r.method for r in records if r.free)
    records = [r for r in records if not r.free]
    powers, groups = mean_powers(records, area), by_name(records)
    first, *rivals = _first_and_rivals(records, {n: power.value for n, power in powers.items()})
    if not rivals:
        return None
    shares = {n: {r.canvas: r.powers[area].value for r in groups[n]} for n in rivals}
    shares["no pattern"] = {r.canvas: r.powers[area].without for r in groups[first]}
    above = {n: mean_difference(groups[first], area, shares[n]) for n in shares}
    without = class_mean((r.target, r.powers[area].without) for r in groups[first])
    controls = control_names(records)
    best = [n for n in rivals if n not in controls][:1] + [n for n in rivals if n in controls][:1]
    unbeaten = [n for n, difference in above.items() if difference.interval[0] <= 0]
    shown = {n: above[n] for n in dict.fromkeys([*best, *unbeaten, "no pattern"])}
    points = ", ".join(f"{n} {_points(difference)}" for n, difference in shown.items())
    low, high = powers[first].interval
    kind = "" if records[0].kind == "canvas" else f"{records[0].kind} "
    number = len({r.canvas for r in records})
    return {
        "title": f"{_method(records, first)} comes first",
        "model": model,
        "holds": not unbeaten,
        "value": f"power {100 * powers[first].value:.1f} %",
        "control": "".join(f"{n} {100 * powers[n].value:.1f} %, " for n in best)
        + f"no pattern {100 * without:.1f} %",
        "text": f"{model} model, {100 * area:.3g} % of the pixels of "
        f"{counted(number, f'{kind}canvas', f'{kind}canvases')}: "
        f"{first} has a power of {100 * powers[first].value:.1f} % ({100 * low:.1f} to "
        f"{100 * high:.1f}). In points above others, paired by canvas: {points}. "
        f"In brackets: {_description([powers[first], *shown.values()])}."
        + (f" Not cut from the canvas, so not compared: {', '.join(free)}." if free else ""),
    }


def _finds(
    model: str, records: Sequence[Record], clean: Sequence[Record], visible: bool
) -> Verdict | None:
    """Which method finds the trigger, where it is in the image or from clean images alone. Holds if
    the method finds it at all, and better than others. For a visible trigger it must be strictly
    first. For a hidden one, both numbers must be above those of all rivals on any kind of canvas,
    and above its own on the clean models."""
    records, clean = ([r for r in rs if (r.kind == STAMPED) == visible] for rs in (records, clean))
    found = _localised(records)
    first, *rivals = _first_and_rivals(records, {name: max(found[name]) for name in found})
    if not rivals:
        return None
    best, rival = max(found[first]), max(found[rivals[0]])
    on_clean = grouped((r.model, r) for r in clean if r.name == first and not visible)
    elsewhere = [each for rs in on_clean.values() for each in _localised(rs).get(first, [])]
    beaten = [*(value for name in rivals for value in found[name]), *elsewhere]
    better = all(best[0] > iou and best[1] > precision for iou, precision in beaten)
    leader = max(rivals, key=lambda name: _most(found[name])[1])  # by average precision
    shown = {name: _most(found[name]) for name in dict.fromkeys([first, rivals[0], leader])}
    if elsewhere:
        shown[f"{first} on models without the trigger"] = _most(elsewhere)
    scores = ", ".join(f"{name} {iou:.3f} and {ap:.3f}" for name, (iou, ap) in shown.items())
    missed = best[0] < FOUND_AT_ALL
    subject = f"{first} does not find" if rival[0] >= FOUND_AT_ALL else "No method finds"
    where = "visible" if visible else "hidden"
    seen = "images stamped with it" if visible else "clean images only, of any kind"
    return {
        "title": f"{_method(records, first)} finds the {where} trigger best",
        "model": model,
        "holds": (best > rival if visible else better) and not missed,
        "value": f"IoU {best[0]:.3f}",
        "control": f"{rivals[0]} {rival[0]:.3f}"
        + (f", models without it {_most(elsewhere)[0]:.3f}" if elsewhere else ""),
        "text": f"{model} model, trigger {where} ({seen}). Best IoU and average precision: "
        f"{scores}."
        + (f" {subject} the trigger, which takes an IoU of {FOUND_AT_ALL:g} or more." * missed),
    }


def _failed(
    records: Sequence[Record], failures: Sequence[Failure], complete: bool
) -> Verdict | None:
    """Holds if all methods gave maps, except for those that are not installed."""
    failed = [f for f in failures if f.what == "maps"]
    ran = {(r.model, r.method) for r in records}
    runs = ran | {(f.model, f.method) for f in failed}
    if not runs:
        return None
    missing = [f for f in failed if f.reason.split(":")[0] in NOT_INSTALLED]
    limits = " and ".join(["are installed"] * bool(missing) + ["were finished"] * (not complete))
    methods, models = {method for _, method in runs}, {model for model, _ in runs}
    reasons = "; ".join(f"{f.method} on the {f.model} model ({f.reason:.200})" for f in failed)
    return {
        "title": f"All methods that {limits} gave maps" if limits else "All methods gave maps",
        "holds": bool(ran) and len(missing) == len(failed),
        "value": f"{len(ran)} of {counted(len(runs), 'run')}",
        "text": (f"{len(ran)} of " if failed else "")
        + f"{counted(len(runs), 'run')} ({counted(len(methods), 'method')} on "
        + f"{counted(len(models), 'model')}) gave maps"
        + ("" if complete else " (interrupted)")
        + (f"; failed: {reasons}." if failed else "."),
    }


def _first_and_rivals(records: Sequence[Record], values: Mapping[str, Any]) -> list[str]:
    """The method that a verdict is about (the best search, else the best that is not a control),
    and all other methods, best first; one empty name if there is none."""
    order = sorted(values, key=lambda name: values[name], reverse=True)
    searches, simple = search_names(records), control_names(records)
    leaders = [n for n in order if n in searches] or [n for n in order if n not in simple]
    if not leaders:
        return [""]
    first = _method(records, leaders[0])
    return [leaders[0], *(name for name in order if _method(records, name) != first)]


def _localised(records: Sequence[Record]) -> dict[str, list[Found]]:
    """Mean IoU and average precision of each method that was measured, on each kind of canvas."""
    measured = [r for r in records if {"iou", "average_precision"} <= set(r.scores)]
    found: dict[str, list[Found]] = {}
    for (name, _), group in grouped(((r.name, r.kind), r) for r in measured).items():
        iou, precision = (
            class_mean((r.target, r.score(score) or 0.0) for r in group)
            for score in ("iou", "average_precision")
        )
        found.setdefault(name, []).append((iou, precision))
    return found


def _most(found: Sequence[Found]) -> Found:
    """The highest IoU and the highest average precision."""
    return max(iou for iou, _ in found), max(precision for _, precision in found)


def _method(records: Sequence[Record], name: str) -> str:
    """The method in a full name such as "Saliency, absolute"."""
    return next(r.method for r in records if r.name == name)


def _points(difference: Estimate) -> str:
    low, high = difference.interval
    return f"{100 * difference.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _description(estimates: Iterable[Estimate]) -> str:
    """What the intervals are over: the classes, or the images where all classes are equal."""
    kinds = {estimate.over: estimate.description for estimate in estimates}
    if len(kinds) == 1:
        return kinds.popitem()[1]
    return f"{kinds['classes']} (of the images where all classes are equal)"

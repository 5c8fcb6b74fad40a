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
    cut_from_canvas,
    search_names,
)
from captum_classpattern.comparison.tables import class_mean, mean_difference, mean_power
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
            text = f"{model} model: no method gave a map."
            title = "There are maps to compare"
            verdicts.append(
                {"title": title, "model": model, "holds": False, "value": "no map", "text": text}
            )
    verdicts += [_hidden(model, of_model[model], clean) for model in backdoored]
    verdicts += [_visible(model, of_model[model]) for model in backdoored]
    verdicts.append(_failed(records, failures, complete))
    return [verdict for verdict in verdicts if verdict is not None]


def _power(model: str, records: Sequence[Record], area: float) -> Verdict | None:
    """Which method's pixels turn most other images into the class. Holds if the interval of the
    difference, paired by canvas, is above 0 for each rival and for no pattern. Methods whose pixels
    are not cut from the canvas are no rivals."""
    others = list(dict.fromkeys(r.method for r in records if r.free))
    records = cut_from_canvas(records)
    groups = by_name(records)
    powers = {
        name: mean_power((r.target, r.powers[area]) for r in group)
        for name, group in groups.items()
    }
    found = _first_and_rivals(records, {name: power.value for name, power in powers.items()})
    if found is None:
        return None
    first, rivals = found
    differences = {name: _difference(groups[first], groups[name], area) for name in rivals}
    lift = mean_difference(groups[first], area, lambda r: r.powers[area].without)
    simple = [name for name in rivals if name in control_names(records)]
    best = [name for name in rivals if name not in simple][:1]
    parts = [f"{first} {_percent(powers[first])}"]
    for name in best:
        parts.append(f"the best other method, {name}, {_percent(powers[name])}")
        if powers[name].value > 0:
            ratio = powers[first].value / powers[name].value
            parts[-1] += f", so {first} is {ratio:.1f} times as high"
    parts += [f"{name} {_percent(powers[name])}" for name in simple]
    without = class_mean((r.target, r.powers[area].without) for r in groups[first])
    parts.append(f"no pattern {100 * without:.1f} %")
    closest = differences[rivals[0]]
    intervals = [closest, *(powers[name] for name in (first, *best, *simple))]
    compared = dict.fromkeys([*best, *simple[:1]])
    return {
        "title": f"{_method(records, first)} comes first",
        "model": model,
        "holds": all(estimate.interval[0] > 0 for estimate in (lift, *differences.values())),
        "value": f"power {100 * powers[first].value:.1f} %",
        "control": "".join(f"{name} {100 * powers[name].value:.1f} %, " for name in compared)
        + f"no pattern {100 * without:.1f} %",
        "text": f"{model} model, {100 * area:.3g} % of the pixels of {_canvases(records)}, share "
        f"of held-out images predicted as the class: {'; '.join(parts)}. {first} minus "
        f"{rivals[0]}, paired by canvas: {_points(closest)}. In brackets: "
        f"{_description(intervals)}."
        + (f" Not cut from the canvas, so not compared: {', '.join(others)}." if others else ""),
    }


def _difference(first: Sequence[Record], rival: Sequence[Record], area: float) -> Estimate:
    """How far a method's power is above a rival's on the same canvases."""
    on_canvas = {r.canvas: r.powers[area].value for r in rival}
    return mean_difference(first, area, lambda r: on_canvas[r.canvas])


def _hidden(model: str, records: Sequence[Record], clean: Sequence[Record]) -> Verdict | None:
    """Which method finds the trigger from clean images alone. Holds if it counts as found and, on
    the method's best kind of canvas, is found better than by all rivals on any kind, and better
    than on the clean models."""
    records = [r for r in records if r.kind != STAMPED and _is_localised(r)]
    found = {kind: _localised([r for r in records if r.kind == kind]) for kind in _kinds(records)}
    best = {
        name: max(scores[name] for scores in found.values() if name in scores)
        for name in by_name(records)
    }
    first_and_rivals = _first_and_rivals(records, best)
    if first_and_rivals is None:
        return None
    first, rivals = first_and_rivals
    without, parts = _without_trigger(first, clean), []
    for kind, scores in found.items():
        part = [f"{first} {_numbers(scores[first])}"] if first in scores else []
        part += [f"best other {name} {_numbers(scores[name])}" for name in _leading(scores, rivals)]
        if kind in without:
            most = tuple(map(max, zip(*without[kind])))
            part.append(f"{first} on models without the trigger at most {_numbers(most)}")
        parts.append(f"on {_canvases([r for r in records if r.kind == kind])}, {', '.join(part)}")
    beaten = [scores[name] for scores in found.values() for name in rivals if name in scores]
    strongest = max(beaten)[0]
    elsewhere = [value for values in without.values() for value in values]
    beaten += elsewhere
    better = all(best[first][0] > v[0] and best[first][1] > v[1] for v in beaten)
    return {
        "title": f"{_method(records, first)} finds the hidden trigger best",
        "model": model,
        "holds": better and best[first][0] >= FOUND_AT_ALL,
        "value": f"IoU {best[first][0]:.3f}",
        "control": f"best other method {strongest:.3f}"
        + (f", models without it {max(elsewhere)[0]:.3f}" if elsewhere else ""),
        "text": f"{model} model, trigger hidden (clean images only). IoU and average precision "
        f"for the pixels that the trigger changes: {'; '.join(parts)}." + _not_found(first, best),
    }


def _visible(model: str, records: Sequence[Record]) -> Verdict | None:
    """Which method finds the trigger where it is in the image. Holds if it counts as found, and
    the method is strictly first."""
    records = [r for r in records if r.kind == STAMPED]
    found = _localised(records)
    first_and_rivals = _first_and_rivals(records, found)
    if first_and_rivals is None:
        return None
    first, rivals = first_and_rivals
    order = sorted(found, key=lambda name: found[name], reverse=True)
    listed = dict.fromkeys([*order[:3], first])
    scores = ", ".join(f"{name} {_numbers(found[name])}" for name in listed)
    return {
        "title": f"{_method(records, first)} finds the visible trigger best",
        "model": model,
        "holds": found[first] > found[rivals[0]] and found[first][0] >= FOUND_AT_ALL,
        "value": f"IoU {found[first][0]:.3f}",
        "control": f"best other method, {rivals[0]}, {found[rivals[0]][0]:.3f}",
        "text": f"{model} model, trigger visible (images stamped with it). IoU and average "
        f"precision, ordered by IoU, then average precision: {scores}." + _not_found(first, found),
    }


def _not_found(first: str, found: Mapping[str, Found]) -> str:
    """Says so if no method finds the trigger, or if the first one does not."""
    if found[first][0] >= FOUND_AT_ALL:
        return ""
    most = max(iou for iou, _ in found.values())
    subject = "No method finds" if most < FOUND_AT_ALL else f"{first} does not find"
    return f" {subject} the trigger, which takes an IoU of {FOUND_AT_ALL:g} or more."


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


def _first_and_rivals(
    records: Sequence[Record], values: Mapping[str, Any]
) -> tuple[str, list[str]] | None:
    """The method that a verdict is about (the best search, else the best that is not a control),
    and all other methods, best first. None if either is missing."""
    order = sorted(values, key=lambda name: values[name], reverse=True)
    searches, simple = search_names(records), control_names(records)
    leaders = [n for n in order if n in searches] or [n for n in order if n not in simple]
    rivals = [n for n in order if leaders and _method(records, n) != _method(records, leaders[0])]
    return (leaders[0], rivals) if rivals else None


def _without_trigger(name: str, clean: Sequence[Record]) -> dict[str, list[Found]]:
    """What a method finds on each clean model, for each kind of canvas."""
    found: dict[str, list[Found]] = {}
    records = [r for r in clean if r.name == name and r.kind != STAMPED]
    for model in dict.fromkeys(r.model for r in records):
        for kind in _kinds(records):
            group = [r for r in records if (r.model, r.kind) == (model, kind)]
            if localised := _localised(group):
                found.setdefault(kind, []).append(localised[name])
    return found


def _leading(found: Mapping[str, Found], names: Sequence[str]) -> list[str]:
    """The names with the highest IoU and with the highest average precision, often the same."""
    names = [name for name in names if name in found]
    orders = (lambda name: found[name], lambda name: found[name][::-1])
    return list(dict.fromkeys(max(names, key=order) for order in orders if names))


def _localised(records: Sequence[Record]) -> dict[str, Found]:
    """Mean IoU and average precision of each method that was measured."""
    return {
        name: (_class_mean("iou", group), _class_mean("average_precision", group))
        for name, group in by_name([r for r in records if _is_localised(r)]).items()
    }


def _is_localised(record: Record) -> bool:
    return {"iou", "average_precision"} <= set(record.scores)


def _class_mean(score: str, records: Sequence[Record]) -> float:
    return class_mean((r.target, r.score(score) or 0.0) for r in records)


def _method(records: Sequence[Record], name: str) -> str:
    """The method in a full name such as "Saliency, absolute"."""
    return next(r.method for r in records if r.name == name)


def _kinds(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(r.kind for r in records))


def _canvases(records: Sequence[Record]) -> str:
    """``1 white canvas``, ``6 canvases``: of records of one kind."""
    kind = "" if records[0].kind == "canvas" else f"{records[0].kind} "
    return counted(len({r.canvas for r in records}), f"{kind}canvas", f"{kind}canvases")


def _percent(power: Estimate) -> str:
    low, high = power.interval
    return f"{100 * power.value:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def _points(difference: Estimate) -> str:
    low, high = difference.interval
    return f"{100 * difference.value:.1f} points ({100 * low:.1f} to {100 * high:.1f})"


def _description(estimates: Iterable[Estimate]) -> str:
    """What the intervals are over: the classes, or the images where all classes are equal."""
    kinds = {estimate.over: estimate.description for estimate in estimates}
    if len(kinds) == 1:
        return kinds.popitem()[1]
    return f"{kinds['classes']} (of the images where all classes are equal)"


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} and {values[1]:.3f}"

"""What a comparison's numbers say, in words made from the numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from captum_classpattern.comparison.choosing import controls, searching
from captum_classpattern.comparison.means import class_mean, mean_difference, mean_power
from captum_classpattern.comparison.records import STAMPED, Failure, Record
from captum_classpattern.scores.intervals import Estimate

if TYPE_CHECKING:
    from captum_classpattern.comparison.result import Comparison

Verdict = dict[str, Any]
Localised = tuple[float, float]  # IoU and average precision
NOT_INSTALLED = (ImportError.__name__, ModuleNotFoundError.__name__)

# The least IoU of a trigger that is found at all. Of k pixels out of N, random ones have about
# k / (2N - k): 0.006 for 9 of 784. A single one of six or more that is hit by chance stays below.
FOUND_AT_ALL = 0.1


def make_verdicts(comparison: "Comparison") -> list[Verdict]:
    """Who comes first on each model, who finds the triggers, and what gave no maps; nothing of
    what was not measured, or has no rival."""
    verdicts = [
        *(_no_maps(comparison, model) or _power(comparison, model) for model in comparison.models),
        *(_hidden(comparison, model) for model in comparison.backdoored),
        *(_visible(comparison, model) for model in comparison.backdoored),
        _failed(comparison),
    ]
    return [verdict for verdict in verdicts if verdict is not None]


def _no_maps(comparison: "Comparison", model: str) -> Verdict | None:
    """That all methods failed on a model."""
    failed = [f for f in comparison.failures if f.model == model]
    if comparison.select(model=model) or not failed:
        return None
    return {
        "title": "There are maps to compare",
        "model": model,
        "holds": False,
        "text": f"{model} model: no method gave a map.",
    }


def _power(comparison: "Comparison", model: str) -> Verdict | None:
    """Which method's pixels turn most other images into the class. Holds if the difference to each
    rival, paired by canvas, has an interval above 0, and so has that to no pattern."""
    kind, area = comparison.kinds[0], comparison.area
    records = comparison.select(model=model, kind=kind)
    by_name = _by_name(records)
    powers = {
        name: mean_power((r.target, r.powers[area]) for r in group)
        for name, group in by_name.items()
    }
    found = _first_and_rivals(records, {name: power.value for name, power in powers.items()})
    if found is None:
        return None
    first, rivals = found
    above = {name: _difference(by_name[first], by_name[name], area) for name in rivals}
    lift = mean_difference(by_name[first], area, lambda r: r.powers[area].without)
    simple = [name for name in rivals if name in controls(records)]
    best = [name for name in rivals if name not in simple][:1]
    parts = [f"{first} {_percent(powers[first])}"]
    for name in best:
        parts.append(f"the best other method, {name}, {_percent(powers[name])}")
        if powers[name].value > 0:
            parts[-1] += f": {powers[first].value / powers[name].value:.1f} times as much"
    parts += [f"{name} {_percent(powers[name])}" for name in simple]
    without = class_mean((r.target, r.powers[area].without) for r in by_name[first])
    parts.append(f"no pattern {100 * without:.1f} %")
    closest = above[rivals[0]]
    shown = [closest, *(powers[name] for name in (first, *best, *simple))]
    return {
        "title": f"{_method(records, first)} comes first",
        "model": model,
        "holds": all(estimate.interval[0] > 0 for estimate in (lift, *above.values())),
        "text": f"{model} model, {100 * area:.3g} % of the pixels of {_canvases(records)}, share "
        f"of held-out images that become the class: {'; '.join(parts)}. {first} less {rivals[0]}, "
        f"canvas by canvas: {_points(closest)}. In brackets: {_description(shown)}.",
    }


def _difference(first: Sequence[Record], rival: Sequence[Record], area: float) -> Estimate:
    """How far a method's power is above a rival's on the same canvases."""
    on_canvas = {r.canvas: r.powers[area].value for r in rival}
    return mean_difference(first, area, lambda r: on_canvas[r.canvas])


def _hidden(comparison: "Comparison", model: str) -> Verdict | None:
    """Who finds the trigger from clean images alone. Holds if it finds it at all, and, on its best
    kind of canvas, better than all rivals on any, and better than on models without the trigger."""
    records = [r for r in comparison.select(model=model) if r.kind != STAMPED and r.localisation]
    found = {kind: _localised([r for r in records if r.kind == kind]) for kind in _kinds(records)}
    best = {
        name: max(scores[name] for scores in found.values() if name in scores)
        for name in _by_name(records)
    }
    first_and_rivals = _first_and_rivals(records, best)
    if first_and_rivals is None:
        return None
    first, rivals = first_and_rivals
    without, parts = _without_trigger(comparison, first), []
    for kind, scores in found.items():
        part = [f"{first} {_numbers(scores[first])}"] if first in scores else []
        part += [f"best other {name} {_numbers(scores[name])}" for name in _leading(scores, rivals)]
        if kind in without:
            most = tuple(map(max, zip(*without[kind])))
            part.append(f"{first} on models without the trigger at most {_numbers(most)}")
        parts.append(f"{_canvases([r for r in records if r.kind == kind])}: {', '.join(part)}")
    beaten = [scores[name] for scores in found.values() for name in rivals if name in scores]
    beaten += [value for values in without.values() for value in values]
    better = all(best[first][0] > v[0] and best[first][1] > v[1] for v in beaten)
    return {
        "title": f"{_method(records, first)} finds the hidden trigger best",
        "model": model,
        "holds": better and _is_found(best[first]),
        "text": f"{model} model, trigger hidden (IoU and average precision with the pixels that "
        f"the trigger changes, clean images only): {'; '.join(parts)}." + _not_found(first, best),
    }


def _visible(comparison: "Comparison", model: str) -> Verdict | None:
    """Who finds the trigger where it is in the image. Holds if it finds it at all, and is strictly
    first."""
    records = comparison.select(model=model, kind=STAMPED)
    found = _localised(records)
    first_and_rivals = _first_and_rivals(records, found)
    if first_and_rivals is None:
        return None
    first, rivals = first_and_rivals
    order = sorted(found, key=lambda name: found[name], reverse=True)
    listed = dict.fromkeys([*order[:3], first])
    return {
        "title": f"{_method(records, first)} finds the visible trigger best",
        "model": model,
        "holds": found[first] > found[rivals[0]] and _is_found(found[first]),
        "text": f"{model} model, trigger visible (images stamped with it; ordered by IoU, then "
        f"average precision): {', '.join(f'{name} {_numbers(found[name])}' for name in listed)}."
        + _not_found(first, found),
    }


def _is_found(localised: Localised) -> bool:
    return localised[0] >= FOUND_AT_ALL


def _not_found(first: str, found: Mapping[str, Localised]) -> str:
    """That no method finds the trigger, or not the one that the verdict is about."""
    if _is_found(found[first]):
        return ""
    who = f"{first} does not find" if any(map(_is_found, found.values())) else "No method finds"
    return f" {who} the trigger: that takes an IoU of {FOUND_AT_ALL:g}."


def _failed(comparison: "Comparison") -> Verdict | None:
    """Whether all methods gave maps, but for those that are not installed."""
    failed = [f for f in comparison.failures if f.what == "maps"]
    ran = {(r.model, r.method) for r in comparison.records}
    runs = ran | {(f.model, f.method) for f in failed}
    if not runs:
        return None
    absent = [f for f in failed if _not_installed(f)]
    interrupted = comparison.settings.get("complete") is False
    which = " and ".join(["are installed"] * bool(absent) + ["were finished"] * interrupted)
    methods, models = {method for _, method in runs}, {model for model, _ in runs}
    reasons = "; ".join(f"{f.method} on the {f.model} model ({f.reason:.200})" for f in failed)
    return {
        "title": f"All methods that {which} gave maps" if which else "All methods gave maps",
        "holds": bool(ran) and len(absent) == len(failed),
        "text": (f"{len(ran)} of " if failed else "")
        + f"{_counted(len(runs), 'run')} ({_counted(len(methods), 'method')} on "
        + f"{_counted(len(models), 'model')}) gave maps"
        + (" (interrupted)" if interrupted else "")
        + (f"; not so {reasons}." if failed else "."),
    }


def _first_and_rivals(
    records: Sequence[Record], values: Mapping[str, Any]
) -> tuple[str, list[str]] | None:
    """Whom a verdict is about, the best that searches or else the best that is no control; and the
    names of all other methods, best first. None if either is missing."""
    order = sorted(values, key=lambda name: values[name], reverse=True)
    searches, simple = searching(records), controls(records)
    leaders = [n for n in order if n in searches] or [n for n in order if n not in simple]
    rivals = [n for n in order if leaders and _method(records, n) != _method(records, leaders[0])]
    return (leaders[0], rivals) if rivals else None


def _without_trigger(comparison: "Comparison", name: str) -> dict[str, list[Localised]]:
    """What a method finds on the models without the trigger, for each kind of canvas."""
    found: dict[str, list[Localised]] = {}
    for model in comparison.models:
        records = comparison.select(model=model, name=name)
        for kind in _kinds(records) if model not in comparison.backdoored else []:
            localised = _localised([r for r in records if r.kind == kind])
            if kind != STAMPED and localised:
                found.setdefault(kind, []).append(localised[name])
    return found


def _leading(found: Mapping[str, Localised], names: Sequence[str]) -> list[str]:
    """The names with the highest IoU and with the highest average precision; often the same."""
    names = [name for name in names if name in found]
    orders = (lambda name: found[name], lambda name: found[name][::-1])
    return list(dict.fromkeys(max(names, key=order) for order in orders if names))


def _localised(records: Sequence[Record]) -> dict[str, Localised]:
    """Mean IoU and average precision of each method that was measured."""
    measured = [r for r in records if r.localisation is not None]
    return {
        name: (_mean_of("iou", group), _mean_of("average_precision", group))
        for name, group in _by_name(measured).items()
    }


def _mean_of(score: str, records: Sequence[Record]) -> float:
    return class_mean((r.target, getattr(r.localisation, score)) for r in records)


def _by_name(records: Sequence[Record]) -> Mapping[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.name, []).append(record)
    return groups


def _method(records: Sequence[Record], name: str) -> str:
    """The method of a name, whatever its level and ranking."""
    return next(r.method for r in records if r.name == name)


def _kinds(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(r.kind for r in records))


def _canvases(records: Sequence[Record]) -> str:
    """``1 white canvas``, ``6 canvases``: of records of one kind."""
    kind = "" if records[0].kind == "canvas" else f"{records[0].kind} "
    return _counted(len({r.canvas for r in records}), f"{kind}canvas", f"{kind}canvases")


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _not_installed(failure: Failure) -> bool:
    return failure.reason.split(":")[0] in NOT_INSTALLED


def _percent(power: Estimate) -> str:
    low, high = power.interval
    return f"{100 * power.value:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def _points(difference: Estimate) -> str:
    low, high = difference.interval
    return f"{100 * difference.value:.1f} points ({100 * low:.1f} to {100 * high:.1f})"


def _description(estimates: Iterable[Estimate]) -> str:
    """What the intervals are over: the classes, but the images where all classes are equal."""
    kinds = {estimate.over: estimate.description for estimate in estimates}
    if len(kinds) == 1:
        return kinds.popitem()[1]
    return f"{kinds['classes']} (of the images where all classes are equal)"


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} and {values[1]:.3f}"

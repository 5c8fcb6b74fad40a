"""What a comparison's numbers say, in words made from the numbers."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from captum_classpattern.comparison.choosing import controls, searching
from captum_classpattern.comparison.records import STAMPED, Failure, Record
from captum_classpattern.comparison.scoring import merged
from captum_classpattern.metrics import PredictivePower

if TYPE_CHECKING:
    from captum_classpattern.comparison.result import Comparison

Verdict = dict[str, Any]
Found = tuple[float, float]  # IoU and average precision
NOT_INSTALLED = (ImportError.__name__, ModuleNotFoundError.__name__)


def tell(comparison: "Comparison") -> list[Verdict]:
    """Who comes first on each model, who finds the triggers, and what gave no maps; nothing of
    what was not measured, or has no rival."""
    told = [
        *(_no_maps(comparison, model) or _power(comparison, model) for model in comparison.models),
        *(_hidden(comparison, model) for model in comparison.backdoored),
        *(_visible(comparison, model) for model in comparison.backdoored),
        _failed(comparison),
    ]
    return [verdict for verdict in told if verdict is not None]


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
    """Which method's pixels make most other images the class: holds if its whole interval lies
    above those of all rivals, and above what there is without a pattern."""
    kind, area = comparison.kinds[0], comparison.area
    records = comparison.select(model=model, kind=kind)
    powers = {
        name: merged([r.powers[area] for r in own]) for name, own in _by_name(records).items()
    }
    about = _about(records, {name: power.value for name, power in powers.items()})
    if about is None:
        return None
    first, rivals = about
    power, low = powers[first], powers[first].interval[0]
    best = next((name for name in rivals if name not in controls(records)), None)
    shown = [f"{first} {_percent(power)}"]
    if best is not None:
        shown.append(f"the best other method, {best}, {_percent(powers[best])}")
        if powers[best].value > 0:
            shown[-1] += f": {power.value / powers[best].value:.1f} times as much"
    shown += [f"{name} {_percent(powers[name])}" for name in rivals if name in controls(records)]
    shown.append(f"no pattern {100 * power.without:.1f} %")
    return {
        "title": f"{_method(records, first)} comes first",
        "model": model,
        "holds": low > max(power.without, *(powers[name].interval[1] for name in rivals)),
        "text": f"{model} model, {100 * area:.3g} % of the pixels of {_canvases(records)}, share "
        "of held-out images that become the class (95 % interval of all canvases' images "
        f"together): {'; '.join(shown)}.",
    }


def _hidden(comparison: "Comparison", model: str) -> Verdict | None:
    """Who finds the trigger from clean images alone: holds if it finds it, on its best kind of
    canvas, better than all rivals on any, and better than on models without the trigger."""
    records = [r for r in comparison.select(model=model) if r.kind != STAMPED and r.localisation]
    found = {kind: _localised([r for r in records if r.kind == kind]) for kind in _kinds(records)}
    best = {n: max(own[n] for own in found.values() if n in own) for n in _by_name(records)}
    about = _about(records, best)
    if about is None:
        return None
    first, rivals = about
    without, parts = _without_trigger(comparison, first), []
    for kind, own in found.items():
        part = [f"{first} {_told(own[first])}"] if first in own else []
        part += [f"best other {name} {_told(own[name])}" for name in _leading(own, rivals)]
        if kind in without:
            most = tuple(map(max, zip(*without[kind])))
            part.append(f"{first} on models without the trigger at most {_told(most)}")
        parts.append(f"{_canvases([r for r in records if r.kind == kind])}: {', '.join(part)}")
    beaten = [own[name] for own in found.values() for name in rivals if name in own]
    beaten += [value for values in without.values() for value in values]
    return {
        "title": f"{_method(records, first)} finds the hidden trigger best",
        "model": model,
        "holds": all(best[first][0] > v[0] and best[first][1] > v[1] for v in beaten),
        "text": f"{model} model, trigger hidden (IoU and average precision with the pixels that "
        f"the trigger changes, clean images only): {'; '.join(parts)}.",
    }


def _visible(comparison: "Comparison", model: str) -> Verdict | None:
    """Who finds the trigger where it is in the image: holds if it is strictly first."""
    records = comparison.select(model=model, kind=STAMPED)
    found = _localised(records)
    about = _about(records, found)
    if about is None:
        return None
    first, rivals = about
    order = sorted(found, key=lambda name: found[name], reverse=True)
    shown = dict.fromkeys([*order[:3], first])
    return {
        "title": f"{_method(records, first)} finds the visible trigger best",
        "model": model,
        "holds": found[first] > found[rivals[0]],
        "text": f"{model} model, trigger visible (images stamped with it; ordered by IoU, then "
        f"average precision): {', '.join(f'{name} {_told(found[name])}' for name in shown)}.",
    }


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
    told = "; ".join(f"{f.method} on the {f.model} model ({f.reason:.200})" for f in failed)
    return {
        "title": f"All methods that {which} gave maps" if which else "All methods gave maps",
        "holds": bool(ran) and len(absent) == len(failed),
        "text": (f"{len(ran)} of " if failed else "")
        + f"{_counted(len(runs), 'run')} ({_counted(len(methods), 'method')} on "
        + f"{_counted(len(models), 'model')}) gave maps"
        + (" (interrupted)" if interrupted else "")
        + (f"; not so {told}." if failed else "."),
    }


def _about(records: Sequence[Record], values: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """Whom a verdict is about, the best that searches or else the best that is no control; and the
    names of all other methods, best first. None if either is missing."""
    order = sorted(values, key=lambda name: values[name], reverse=True)
    known, simple = searching(records), controls(records)
    own = [n for n in order if n in known] or [n for n in order if n not in simple]
    rivals = [n for n in order if own and _method(records, n) != _method(records, own[0])]
    return (own[0], rivals) if rivals else None


def _without_trigger(comparison: "Comparison", name: str) -> dict[str, list[Found]]:
    """What a method finds on the models without the trigger, for each kind of canvas."""
    found: dict[str, list[Found]] = {}
    for model in comparison.models:
        records = comparison.select(model=model, name=name)
        for kind in _kinds(records) if model not in comparison.backdoored else []:
            own = _localised([r for r in records if r.kind == kind])
            if kind != STAMPED and own:
                found.setdefault(kind, []).append(own[name])
    return found


def _leading(found: Mapping[str, Found], names: Sequence[str]) -> list[str]:
    """The names with the highest IoU and with the highest average precision; often the same."""
    names = [name for name in names if name in found]
    orders = (lambda name: found[name], lambda name: found[name][::-1])
    return list(dict.fromkeys(max(names, key=order) for order in orders if names))


def _localised(records: Sequence[Record]) -> dict[str, Found]:
    """IoU and average precision of each method that was measured, in the mean."""
    return {
        name: (mean(one.iou for one in told), mean(one.average_precision for one in told))
        for name, own in _by_name(records).items()
        if (told := [r.localisation for r in own if r.localisation is not None])
    }


def _by_name(records: Sequence[Record]) -> Mapping[str, list[Record]]:
    own: dict[str, list[Record]] = {}
    for record in records:
        own.setdefault(record.name, []).append(record)
    return own


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


def _percent(power: PredictivePower) -> str:
    low, high = power.interval
    return f"{100 * power.value:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def _told(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} and {values[1]:.3f}"

"""What a comparison's numbers say, in words made from the numbers."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from captum_classpattern.comparison.choosing import searching
from captum_classpattern.comparison.records import STAMPED, Record
from captum_classpattern.comparison.scoring import merged
from captum_classpattern.metrics import PredictivePower

if TYPE_CHECKING:
    from captum_classpattern.comparison.result import Comparison

Verdict = dict[str, Any]


def tell(comparison: "Comparison") -> list[Verdict]:
    """Who comes first on each model, who finds the triggers, and what gave no maps."""
    return [
        *(_power(comparison, model) for model in comparison.models),
        *(_hidden(comparison, model) for model in comparison.backdoored),
        *(_visible(comparison, model) for model in comparison.backdoored),
        _failed(comparison),
    ]


def _power(comparison: "Comparison", model: str) -> Verdict:
    """Which method's pixels make most other images the class, and by how much."""
    kind, area = comparison.kinds[0], comparison.area
    records = comparison.select(model=model, kind=kind)
    powers = {
        name: merged([r.powers[area] for r in own]) for name, own in _by_name(records).items()
    }
    if not powers:
        return {
            "title": "There are maps to compare",
            "model": model,
            "holds": False,
            "text": f"{model} model: no method gave a map.",
        }
    order = sorted(powers, key=lambda name: -powers[name].value)
    ours = [name for name in order if name in searching(records)]
    first = (ours or order)[0]
    rivals = [name for name in order if name != first and name not in ours]
    best = [name for name in rivals if not _is_control(records, name)]
    controls = [name for name in rivals if _is_control(records, name)]
    holds = all(powers[first].interval[0] > powers[name].interval[1] for name in rivals)
    shown = [f"{first} {_percent(powers[first])}"]
    if best:
        shown.append(f"the best other method, {best[0]}, {_percent(powers[best[0]])}")
        if powers[best[0]].value > 0:
            shown[-1] += f": {powers[first].value / powers[best[0]].value:.1f} times as much"
    shown += [f"{name} {100 * powers[name].value:.1f} %" for name in controls]
    shown.append(f"no pattern {100 * powers[first].without:.1f} %")
    count = len({r.canvas for r in records})
    return {
        "title": f"{first} comes first",
        "model": model,
        "holds": holds,
        "text": f"{model} model, {100 * area:.3g} % of the pixels of {count} {kind} canvases, "
        f"share of held-out images that become the class: {'; '.join(shown)}.",
    }


def _hidden(comparison: "Comparison", model: str) -> Verdict:
    """Who finds the trigger from clean images alone."""
    parts, holds = [], False
    for kind in dict.fromkeys(comparison.kinds):
        found = _localised(comparison.select(model=model, kind=kind))
        if not found:
            continue
        ours = [n for n in found if n in searching(comparison.select(model=model))]
        first = max(ours or found, key=lambda name: found[name][0])
        rival = max((n for n in found if n != first), key=lambda n: found[n][0], default=None)
        control = [
            _localised(comparison.select(model=other, kind=kind)).get(first)
            for other in comparison.models
            if other not in comparison.backdoored
        ]
        part = f"{kind} canvas: {first} {_found(found[first])}"
        if rival is not None:
            part += f", best other {rival} {_found(found[rival])}"
            holds |= found[first][0] > found[rival][0] and found[first][1] > found[rival][1]
        known = [value for value in control if value is not None]
        if known:
            part += f", {first} on the clean models at most {_found(max(known))}"
        parts.append(part)
    return {
        "title": "The hidden trigger is found better than by any other method",
        "model": model,
        "holds": holds,
        "text": f"{model} model, trigger hidden (IoU and average precision with the pixels that "
        f"the trigger changes, clean images only): {'; '.join(parts) or 'not measured'}.",
    }


def _visible(comparison: "Comparison", model: str) -> Verdict:
    """Who finds the trigger where it is in the image; whoever that is."""
    found = _localised(comparison.select(model=model, kind=STAMPED))
    order = sorted(found, key=lambda name: -found[name][0])
    ours = [name for name in order if name in searching(comparison.select(model=model))]
    shown = dict.fromkeys([*order[:3], *ours[:1]])
    return {
        "title": f"{(ours or order or ['No method'])[0]} finds the visible trigger best",
        "model": model,
        "holds": bool(ours) and order[0] in ours,
        "text": f"{model} model, trigger visible (images stamped with it; IoU and average "
        f"precision): {', '.join(f'{name} {_found(found[name])}' for name in shown)}.",
    }


def _failed(comparison: "Comparison") -> Verdict:
    """Which methods gave no maps."""
    failed = [f for f in comparison.failures if f.what == "maps"]
    told = "; ".join(f"{f.method} on the {f.model} model ({f.reason:.200})" for f in failed)
    ran = len({(r.model, r.method) for r in comparison.records})
    return {
        "title": "All methods ran on all models",
        "holds": all(f.reason.startswith(ImportError.__name__) for f in failed),  # not installed
        "text": f"{ran} of {ran + len(failed)} methods on {len(comparison.models)} models gave maps"
        + (f"; not so {told}." if failed else "."),
    }


def _by_name(records: Sequence[Record]) -> Mapping[str, list[Record]]:
    own: dict[str, list[Record]] = {}
    for record in records:
        own.setdefault(record.name, []).append(record)
    return own


def _localised(records: Sequence[Record]) -> dict[str, tuple[float, float]]:
    """IoU and average precision of each method that was measured, in the mean."""
    return {
        name: (mean(one.iou for one in told), mean(one.average_precision for one in told))
        for name, own in _by_name(records).items()
        if (told := [r.localisation for r in own if r.localisation is not None])
    }


def _is_control(records: Sequence[Record], name: str) -> bool:
    return any(r.control for r in records if r.name == name)


def _percent(power: PredictivePower) -> str:
    low, high = power.interval
    return f"{100 * power.value:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def _found(values: tuple[float, float]) -> str:
    return f"{values[0]:.3f} and {values[1]:.3f}"

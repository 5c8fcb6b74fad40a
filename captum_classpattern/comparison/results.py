"""The outcome of a comparison, as records, tables, JSON, figures, and verdicts: claims that are
tested by its numbers and worded from them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
from torch import Tensor

from captum_classpattern._validation import join_names
from captum_classpattern.classifier.class_names import ClassNames, label_of
from captum_classpattern.comparison.metrics import METRICS, Metric
from captum_classpattern.comparison.records import (
    IDENTITY,
    STAMPED,
    Failure,
    Record,
    by_name,
    class_mean,
    control_names,
    counted,
    grouped,
    mean_difference,
    mean_power,
    mean_powers,
    search_names,
    strongest_names,
)
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.intervals import Estimate
from captum_classpattern.scores.power import PredictivePower

Row = dict[str, Any]
Verdict = dict[str, Any]
Found = tuple[float, float]  # IoU and average precision

# The least IoU of a trigger that counts as found. Random pixels, k out of N, have about
# k / (2N - k): 0.006 for 9 of 784. One pixel of six or more that is hit by chance stays below.
FOUND_AT_ALL = 0.1


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    r"""
    The outcome of :func:`compare`.

    Args:
        models (dict[str, float or None]): For each model the share of the held-out images that it
            classifies correctly; None if their labels are the first model's predictions.
        canvases (Tensor): (N, C, H, W).
        targets (list[int]): The class of each canvas.
        kinds (list[str]): The kind of each canvas.
        stamped (dict[str, Tensor]): The images stamped with each model's trigger.
        triggers (dict[str, Pattern]): The trigger that was looked for on each model.
        backdoored (list[str]): The models that have that trigger.
        records (list[Record]): One for each model, method, level, ranking and canvas.
        failures (list[Failure]): What failed, and why.
        class_names (list[str], optional): Name of each class.
        area (float): Share of the pixels at which methods are compared.
        areas (list[float]): All areas that were scored.
        settings (dict): All settings, hashes of the images, versions, and ``complete``: False
            after an interrupt.
        seen (frozenset[str]): Hashes of the search images, which patterns keep.
        metrics (Sequence[Metric]): What was measured besides predictive power.
    """

    models: dict[str, float | None]
    canvases: Tensor
    targets: list[int]
    kinds: list[str]
    stamped: dict[str, Tensor]
    triggers: dict[str, Pattern]
    backdoored: list[str]
    records: list[Record]
    failures: list[Failure]
    class_names: list[str] | None
    area: float
    areas: list[float]
    settings: dict[str, Any]
    seen: frozenset[str] = frozenset()
    metrics: Sequence[Metric] = METRICS

    def __repr__(self) -> str:
        scored = [record for record in self.records if record.kind == self.kinds[0]]
        names, powers = strongest_names(scored, self.area), mean_powers(scored, self.area)
        methods = {record.method for record in self.records}
        strongest = [f"{name} {100 * powers[name].value:.1f} %" for name in names]
        missing = dict.fromkeys(f.method for f in self.failures if f.what == "maps")
        return (
            f"Comparison({counted(len(methods), 'method')}, {counted(len(self.models), 'model')}, "
            f"{counted(len(self.canvases), 'canvas', 'canvases')}"
            + (f"; power at area {self.area:g}: {join_names(strongest)}" if strongest else "")
            + (f"; not run: {join_names([*missing])}" if missing else "")
            + ")"
        )

    def class_name(self, target: int) -> str:
        """The name of a class, or "class 3" if it has none."""
        return label_of(target, self.class_names)

    def rows(self, by: str = "method") -> list[dict[str, Any]]:
        r"""
        All scores as plain values.

        Args:
            by (str): ``"method"`` for means over classes, with 95 % intervals, one row for each
                model, kind of canvas, method, level and ranking; ``"canvas"`` for one row per
                record. Default: "method".

        Returns:
            *list[dict]*: Predictive powers, and a column for each metric that applies. A failure
            is a row whose ``failure`` gives the reason.

        Raises:
            ValueError: If ``by`` is neither.
        """
        if by not in ("method", "canvas"):
            raise ValueError(f"by must be 'method' or 'canvas', got {by!r}")
        groups = [[record] for record in self.records]
        if by == "method":
            keys = ((r.model, r.kind, r.method, r.level, r.ranking) for r in self.records)
            groups = [*grouped(zip(keys, self.records)).values()]
        rows = []
        for group in groups:
            first = group[0]
            row: Row = {name: getattr(first, name) for name in IDENTITY}
            row["cut_from_canvas"] = not first.free
            if first.free:
                row["free"] = first.free
            if by == "method":
                row["canvases"] = len(group)
            else:
                row |= {"canvas": first.canvas, "class": first.target}
                row |= {"precision": first.precision} if first.precision else {}
            rows.append(row | self._means(group))
        return rows + [
            {"model": f.model, "method": f.method, "failure": f"{f.what}: {f.reason}"}
            for f in self.failures
        ]

    def _means(self, records: Sequence[Record]) -> Row:
        """The means of all scores that were measured; those of powers with their intervals."""
        row = Row()
        for parts in zip(*(_scores(record, self.metrics) for record in records)):
            scored = [(r.target, *pair) for r, part in zip(records, parts) for pair in part.items()]
            for key, scores in grouped((key, (y, score)) for y, key, score in scored).items():
                if isinstance(scores[0][1], PredictivePower):
                    power = mean_power(scores)
                    row[key], (row[f"{key}_low"], row[f"{key}_high"]) = power.value, power.interval
                else:
                    row[key] = class_mean(scores)
        return row

    def table(self, by: str = "method") -> Any:
        """:meth:`rows` as a pandas DataFrame."""
        return as_table(self.rows(by))

    def to_json(self) -> str:
        """Rows by canvas, metrics, verdicts, failures and settings as JSON, without images."""
        content = {
            "models": self.models,
            "class_names": self.class_names,
            "settings": self.settings,
            "verdicts": self.verdicts(),
            "metrics": [metric.as_dict() for metric in self.metrics],
            "rows": [row for row in self.rows("canvas") if "failure" not in row],
            "failures": [failure.as_dict() for failure in self.failures],
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def verdicts(self) -> list[Verdict]:
        """Claims tested by the numbers: each has ``title``, ``holds``, ``value`` and ``text``,
        ``model``, and the ``control`` if the value is compared with one. They say which method
        comes first on each model and which finds the triggers; nothing on what was not measured or
        has no rival."""
        clean = [r for r in self.records if r.model not in self.backdoored]
        scored = {model: self.select(model=model, kind=self.kinds[0]) for model in self.models}
        verdicts = [_power(model, records, self.area) for model, records in scored.items()]
        for visible in (False, True):
            for model in self.backdoored:
                verdicts.append(_finds(model, self.select(model=model), clean, visible))
        return [verdict for verdict in verdicts if verdict is not None]

    def notes(self) -> list[str]:
        """What could not run or be measured, and why: a sentence for each reason."""
        models = grouped(((f.what, f.why, f.method), f.model) for f in self.failures)
        methods = grouped(((what, why, (*on,)), name) for (what, why, name), on in models.items())
        texts = []
        for (what, why, on), names in methods.items():
            where = "" if len(on) == len(self.models) else f" on {', '.join(on)}"
            metric = "" if what == "maps" else f", {what}"
            texts.append(f"{', '.join(names)}{where}{metric}: {why.rstrip('.')}.")
        return texts

    def select(self, **wanted: Any) -> list[Record]:
        """The records, in order, whose fields have these values, such as ``model="natural",
        method="Saliency", level="image"``. The ``target`` may be a number or a name."""
        if isinstance(target := wanted.get("target"), str):
            if self.class_names is None:
                raise ValueError(f"the comparison has no class names, so it cannot find {target!r}")
            wanted["target"] = ClassNames(self.class_names).find(target)
        return [r for r in self.records if all(getattr(r, k) == v for k, v in wanted.items())]

    def plot(
        self,
        *,
        model: str | None = None,
        target: int | str | None = None,
        methods: Sequence[str] | None = None,
        kind: str | None = None,
        show: str = "both",
        use_pyplot: bool = True,
    ) -> tuple[Any, npt.NDArray[Any]]:
        r"""
        Draws maps and patterns, one column for each method.

        Args:
            model (str, optional): Name of the model; the rows are its canvases. Default: None (the
                first model; all models, one row each, if a ``target`` is given).
            target (int or str, optional): Only this class, by number or name. Default: None (all).
            methods (Sequence[str], optional): Names as in :attr:`Record.name`. Default: None
                (the signed maps of the images).
            kind (str, optional): Kind of canvas. Default: None (the first one).
            show (str): ``"maps"``, ``"patterns"`` or ``"both"``. Default: "both".
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes. The maps of a column share one scale,
            which is shown.

        Raises:
            ValueError: If there is nothing to draw for these choices.
        """
        return self._draw(**locals())

    def canvas_of(self, record: Record) -> Tensor:
        """The image that a record's pattern is cut from, (C, H, W)."""
        given = len(self.canvases)
        if record.canvas < given:
            return self.canvases[record.canvas]
        return self.stamped[record.model][record.canvas - given]

    def pattern_of(self, record: Record, area: float | None = None) -> Pattern:
        """The binary pattern of a record, at one of ``areas`` (None: ``area``)."""
        area = self.area if area is None else area
        mask = record.masks[area].float()
        info = {"method": record.name, "model": record.model, "area": area}
        if record.own:
            return replace(record.own[area], mask=mask, info=info, seen=self.seen)
        canvas = self.canvas_of(record)
        return Pattern(canvas, mask.to(canvas), record.target, info, self.seen)

    def plot_curves(
        self,
        *,
        kind: str | None = None,
        methods: Sequence[str] | None = None,
        use_pyplot: bool = True,
    ) -> tuple[Any, npt.NDArray[Any]]:
        r"""
        Draws predictive power over the area, one panel for each model: means over classes with
        their 95 % intervals.

        Args:
            kind (str, optional): Kind of canvas. Default: None (the first one).
            methods (Sequence[str], optional): Names as in :attr:`Record.name`. Default: None
                (searches, and the strongest other methods and controls, at most eight).
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes.

        Raises:
            ValueError: If there is nothing to draw for these choices.
        """
        return self._draw("plot_curves", **locals())


class Interrupted(KeyboardInterrupt):
    """An interrupt of :func:`compare`. ``comparison`` holds the methods that were finished."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("compare was interrupted: .comparison holds what was finished")
        self.comparison = comparison


def _scores(record: Record, metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """The scores of a record by column: powers, those of its map cut to other areas, and each
    metric."""
    powers: dict[str, Any] = {f"power_{area:g}": power for area, power in record.powers.items()}
    if record.powers:
        powers["no_pattern"] = next(iter(record.powers.values())).without
    cut = {f"rethresholded_{area:g}": power for area, power in record.rethresholded.items()}
    return [powers | cut, *(record.columns(metric.name) for metric in metrics)]


# ---- verdicts


def outcome_of(verdict: Verdict) -> str:
    """Whether it holds, in words."""
    return "Holds" if verdict["holds"] else "Does not hold"


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

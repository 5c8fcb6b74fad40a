"""The outcome of a comparison, as records, tables, JSON and figures."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy.typing as npt
from torch import Tensor

from captum_classpattern._validation import join_names
from captum_classpattern.classifier.class_names import ClassNames, label_of
from captum_classpattern.comparison.metrics import METRICS, Metric
from captum_classpattern.comparison.records import (
    FIRST_COLUMNS,
    Failure,
    Record,
    by_name,
    control_names,
    counted,
    figure_names,
    grouped,
    mean_difference,
    mean_power,
    mean_powers,
    search_names,
    strongest_names,
)
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table, as_texts
from captum_classpattern.scores.power import PredictivePower

NO_PATTERN = "no pattern"
MOST_CANVASES = 12  # in a figure


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
        records (list[Record]): One for each model, method and canvas.
        failures (list[Failure]): What failed, and why.
        class_names (list[str], optional): Name of each class.
        area (float): Share of the pixels at which methods are compared.
        areas (list[float]): All areas that were scored.
        settings (dict): All settings, hashes of the images, versions, ``backdoored``: the models
            with a trigger of their own, and ``complete``: False after an interrupt.
        seen (frozenset[str]): Hashes of the search images, which patterns keep.
        metrics (Sequence[Metric]): What was measured besides predictive power.
    """

    models: dict[str, float | None]
    canvases: Tensor
    targets: list[int]
    kinds: list[str]
    stamped: dict[str, Tensor]
    records: list[Record]
    failures: list[Failure]
    class_names: list[str] | None
    area: float
    areas: list[float]
    settings: dict[str, Any]
    seen: frozenset[str] = frozenset()
    metrics: Sequence[Metric] = METRICS

    def __repr__(self) -> str:
        methods = dict.fromkeys(record.name for record in self.records)
        return (
            f"Comparison(models: {join_names([*self.models])}; methods: {join_names([*methods])}; "
            f"{counted(len(self.canvases), 'canvas', 'canvases')})"
        )

    def class_name(self, target: int) -> str:
        """The name of a class, or "class 3" if it has none."""
        return label_of(target, self.class_names)

    def rows(self, by: str = "method") -> list[dict[str, Any]]:
        r"""
        All scores as plain values.

        Args:
            by (str): ``"method"`` for means over classes, with 95 % intervals, one row for each
                model, kind of canvas and method; ``"canvas"`` for one row per record.
                Default: "method".

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
            keys = ((r.model, r.kind, r.method) for r in self.records)
            groups = [*grouped(zip(keys, self.records)).values()]
        rows = []
        for group in groups:
            first = group[0]
            row: dict[str, Any] = {name: getattr(first, name) for name in FIRST_COLUMNS}
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

    def _means(self, records: Sequence[Record]) -> dict[str, Any]:
        """The means of all scores that were measured; those of powers with their intervals."""
        row: dict[str, Any] = {}
        measured = [(record.target, _scores_by_column(record, self.metrics)) for record in records]
        for key in dict.fromkeys(key for _, scores in measured for key in scores):
            scored = [(target, scores[key]) for target, scores in measured if key in scores]
            if isinstance(scored[0][1], PredictivePower):
                power = mean_power(scored)
                row[key], (row[f"{key}_low"], row[f"{key}_high"]) = power.value, power.interval
            else:
                row[key] = fmean(map(fmean, grouped(scored).values()))
        return row

    def table(self, by: str = "method") -> Any:
        """:meth:`rows` as a pandas DataFrame."""
        return as_table(self.rows(by))

    def to_json(self) -> str:
        """Rows by canvas, differences, metrics, failures and settings as JSON, without images."""
        content = {
            "models": self.models,
            "class_names": self.class_names,
            "settings": self.settings,
            "differences": self.differences(),
            "metrics": [metric.as_dict() for metric in self.metrics],
            "rows": [row for row in self.rows("canvas") if "failure" not in row],
            "failures": [asdict(failure) for failure in self.failures],
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def differences(self) -> list[dict[str, Any]]:
        """How far the strongest method of each model, controls aside, is above each other one
        and above no pattern: the mean difference of their powers, paired by canvas, with its 95 %
        interval. Powers are those of the first kind of canvas. The strongest others come first."""
        rows: list[dict[str, Any]] = []
        for model in self.models:
            scored = self.select(model=model, kind=self.kinds[0])
            names, groups = strongest_names(scored, self.area), by_name(scored)
            methods = [name for name in names if not groups[name][0].control]
            if not methods:
                continue
            first = groups[methods[0]]
            shares = {n: {r.canvas: r.powers[self.area].value for r in groups[n]} for n in names}
            shares[NO_PATTERN] = {r.canvas: r.powers[self.area].without for r in first}
            del shares[methods[0]]
            paired = {n: mean_difference(first, self.area, shares[n]) for n in shares}
            for name, difference in sorted(paired.items(), key=lambda item: item[1].value):
                low, high = difference.interval
                rows.append(
                    {
                        "model": model,
                        "method": methods[0],
                        "other": name,
                        "control": name == NO_PATTERN or groups[name][0].control,
                        "difference": difference.value,
                        "difference_low": low,
                        "difference_high": high,
                        "interval_over": difference.over,
                    }
                )
        return rows

    @property
    def summary(self) -> str:
        """The strongest method on the first model, controls aside, and the strongest control,
        in a sentence; empty if nothing was scored."""
        model = next(iter(self.models))
        controls = [r for r in self.differences() if r["control"] and r["model"] == model]
        if not controls:
            return ""
        row, scored = controls[0], self.select(model=model, kind=self.kinds[0])
        power = mean_powers(scored, self.area)[row["method"]]
        low, high = (f"{100 * end:.1f}" for end in power.interval)
        points = [f"{100 * row[f'difference{end}']:+.1f}" for end in ("", "_low", "_high")]
        return (
            f"On the model {model}, the strongest method with {100 * self.area:.3g} % of the "
            f"pixels is {row['method']}: its power is {100 * power.value:.1f} % (95 % interval "
            f"{low} to {high}), and its paired difference from the strongest control, "
            f"{row['other']}, is {points[0]} points ({points[1]} to {points[2]})."
        )

    def notes(self) -> list[str]:
        """What could not run or be measured, and why: a sentence for each method and reason."""
        models = grouped(((f.method, f.what, f.reason), f.model) for f in self.failures)
        texts = []
        for (method, what, reason), on in models.items():
            where = "" if len(on) == len(self.models) else f" on {', '.join(on)}"
            metric = "" if what == "maps" else f", {what}"
            texts.append(f"{method}{where}{metric}: {reason.rstrip('.')}.")
        return texts

    def select(self, **wanted: Any) -> list[Record]:
        """The records, in order, whose fields have these values, such as ``model="natural",
        method="Saliency"``. The ``target`` may be a number or a name."""
        if isinstance(target := wanted.get("target"), str):
            if self.class_names is None:
                raise ValueError(f"the comparison has no class names, so it cannot find {target!r}")
            wanted["target"] = ClassNames(self.class_names).find(target)
        return [r for r in self.records if all(getattr(r, k) == v for k, v in wanted.items())]

    def plot(
        self,
        *,
        model: str | None = None,
        kind: str | None = None,
        use_pyplot: bool = True,
    ) -> tuple[Any, npt.NDArray[Any]]:
        r"""
        Draws maps and patterns, a row for each canvas and a column for each method: the first 12
        canvases, the strongest methods and the strongest controls.

        Args:
            model (str, optional): Name of the model. Default: None (the first one).
            kind (str, optional): Kind of canvas. Default: None (the first one).
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes. The maps of a column share one scale,
            which is shown.

        Raises:
            ValueError: If there is nothing to draw for these choices.
        """
        from captum_classpattern.visualization.maps import plot_maps

        model, kind = model or next(iter(self.models)), kind or self.kinds[0]
        chosen = self.select(model=model, kind=kind)
        if not chosen:
            raise ValueError(
                f"there is nothing to draw for the model {model!r} and {kind!r} canvases: models "
                f"are {list(self.models)}, kinds {sorted({record.kind for record in self.records})}"
            )
        names = [n for n in figure_names(self.records, self.area) if n in by_name(chosen)]
        rows = [*grouped((record.canvas, record) for record in chosen).values()][:MOST_CANVASES]
        by_column = [{record.name: record for record in row} for row in rows]
        grid = [[row.get(name) for name in names] for row in by_column]
        firsts = [row[0] for row in rows]
        return plot_maps(
            [self.canvas_of(record) for record in firsts],
            [[None if r is None else r.map for r in row] for row in grid],
            [[None if r is None else self.pattern_of(r) for r in row] for row in grid],
            [["" if r is None else _caption(r, self.area) for r in row] for row in grid],
            row_names=[self.class_name(record.target) for record in firsts],
            column_names=names,
            use_pyplot=use_pyplot,
        )

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
        use_pyplot: bool = True,
    ) -> tuple[Any, npt.NDArray[Any]]:
        r"""
        Draws predictive power over the area, one panel for each model: means over classes with
        their 95 % intervals, of the strongest methods and the strongest controls.

        Args:
            kind (str, optional): Kind of canvas. Default: None (the first one).
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes.

        Raises:
            ValueError: If there is nothing to draw for these choices.
        """
        from captum_classpattern.visualization.curves import plot_curves

        scored = [r for r in self.select(kind=kind or self.kinds[0]) if r.powers]
        if not scored:
            raise ValueError("there is nothing to draw: none of these canvases has been scored")
        names = figure_names(scored, self.area)
        shown = [record for record in scored if record.name in names]
        panels: dict[str, dict[str, list[tuple[float, float, float, float]]]] = {}
        for model in dict.fromkeys(record.model for record in shown):
            of_model = [record for record in shown if record.model == model]
            means = {area: mean_powers(of_model, area) for area in self.areas}
            panels[model] = {
                name: [(area, of[name].value, *of[name].interval) for area, of in means.items()]
                for name in names
                if name in means[self.area]
            }
        return plot_curves(
            panels,
            highlight=search_names(shown),
            controls=control_names(shown),
            areas_marked=[self.area],
            use_pyplot=use_pyplot,
        )

    def text(self) -> str:
        """The strongest method, next to the strongest control, and what could not run."""
        failed = (f"Not run here: {note}" for note in self.notes())
        return "\n".join(["Comparison", *filter(None, [self.summary]), *failed])

    def shown_table(self) -> Any:
        """The powers on the first kind of canvas."""
        from captum_classpattern.pages.report_data import scored_rows

        rows = [row for row in scored_rows(self) if row["kind"] == self.kinds[0]]
        texts = dict.fromkeys(("model", "method", "control"), "")
        shares = dict.fromkeys((f"power_{self.area:g}", "no_pattern"), ".1%")
        return as_texts(as_table({**row, "method": row["name"]} for row in rows), texts | shares)

    def to_html(self, path: str | PathLike[str]) -> Path:
        from captum_classpattern.pages.report import write_report

        return write_report(self, Path(path))


class Interrupted(KeyboardInterrupt):
    """An interrupt of :func:`compare`. ``comparison`` holds the methods that were finished."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("compare was interrupted: .comparison holds what was finished")
        self.comparison = comparison


def _scores_by_column(record: Record, metrics: Iterable[Metric]) -> dict[str, Any]:
    """The scores of a record by column: powers, and each metric."""
    scores: dict[str, Any] = {f"power_{area:g}": power for area, power in record.powers.items()}
    if record.powers:
        scores["no_pattern"] = next(iter(record.powers.values())).without
    names = (metric.name for metric in metrics if metric.name in record.scores)
    return scores | {name: record.scores[name] for name in names}


def _caption(record: Record, area: float) -> str:
    """The power of a record, or its IoU with the trigger on a stamped canvas."""
    if record.powers:
        return f"{100 * record.powers[area].value:.1f} %"
    return f"IoU {record.scores['iou']:.2f}" if "iou" in record.scores else ""

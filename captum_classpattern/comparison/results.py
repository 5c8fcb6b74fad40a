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

from captum_classpattern._support.validation import counted, join_names
from captum_classpattern.classifier.class_names import ClassNames, label_of
from captum_classpattern.comparison.metrics import METRICS, Metric
from captum_classpattern.comparison.records import (
    FIRST_COLUMNS,
    Failure,
    Record,
    by_name,
    control_names,
    figure_names,
    full_name,
    grouped,
    mean_difference,
    mean_power,
    mean_powers,
    search_names,
    strongest_names,
)
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table, as_texts, fitting
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
        """The rows of :meth:`table` with all columns, as plain values."""
        if by not in ("method", "canvas"):
            raise ValueError(f"by must be 'method' or 'canvas', got {by!r}")
        of_one = id if by == "canvas" else lambda r: (r.model, r.kind, r.method)
        groups = grouped((of_one(record), record) for record in self.records).values()
        rows = [self._row(of, area, by) for of in groups for area in of[0].powers or [self.area]]

        def place(row: dict[str, Any]) -> Any:
            return tuple(row.get(name) for name in ("model", "canvas", "number", "area"))

        controls = grouped((place(row), row) for row in rows if row["power"] is not None)
        strongest = {
            where: max(max(row["no_pattern"], row["is_control"] * row["power"]) for row in there)
            for where, there in controls.items()
        }
        return [row | {"control": strongest.get(place(row))} for row in rows] + [
            {"model": f.model, "method": f.method, "failure": f"{f.what}: {f.reason}"}
            for f in self.failures
        ]

    def named_rows(self, area: float) -> list[dict[str, Any]]:
        """The rows at an area under the full names of the methods; by model, kind of canvas and
        falling power."""
        rows = [row for row in self.rows() if row.get("area") == area]
        for row in rows:
            control = " (control)" * row["is_control"]
            row["method"] = full_name(row["method"], row["cut_from_canvas"]) + control
        models, kinds = list(self.models), [record.kind for record in self.records]
        rows.sort(key=lambda row: -(row["power"] or 0.0))
        return sorted(rows, key=lambda r: (models.index(r["model"]), kinds.index(r["canvas"])))

    def _row(self, records: Sequence[Record], area: float, by: str) -> dict[str, Any]:
        """The means of records of one model, kind of canvas and method at an area."""
        first = records[0]
        metrics = self.metrics if area == self.area else ()
        found = [(record.target, _scores_of(record, metrics)) for record in records]
        if first.powers:
            found = [(y, {"power": r.powers[area], **of}) for r, (y, of) in zip(records, found)]
        scores = {"power": None, "power_low": None, "power_high": None, **_means(found)}
        one = {"number": first.canvas, "class": first.target, "precision": first.precision}
        more = one if by == "canvas" else {"canvases": len(records)}
        return {
            **{"model": first.model, "method": first.method, "power": scores.pop("power")},
            **{"low": scores.pop("power_low"), "high": scores.pop("power_high"), "control": None},
            **{"canvas": first.kind, "area": area, **more, "is_control": first.control},
            **{"cut_from_canvas": first.cut_from_canvas, **scores},
        }

    def table(self, by: str = "method", full: bool = False) -> Any:
        """A row for each model, kind of canvas, method and area, or with ``by="canvas"`` for each
        canvas instead of means over classes. The columns are ``model``, ``method``, ``power``, that
        of the strongest ``control`` there, ``canvas`` (its kind) and ``area``; long names are
        shortened. With ``full`` also the ends of the 95 % interval (``low``, ``high``), the number
        of ``canvases`` or the ``number`` and ``class`` of one, ``is_control``,
        ``cut_from_canvas``, ``no_pattern``, each metric (in the rows of ``area``), and rows of
        failures with their reason (``failure``) and of canvases without a power."""
        rows = self.rows(by)
        shown = rows if full else (row for row in rows if row.get("power") is not None)
        return fitting(shown, ("model", "method"), full)

    def json_rows(self) -> list[dict[str, Any]]:
        """The rows of the JSON, one for each record, with its powers at all areas."""
        rows = []
        for record in self.records:
            row: dict[str, Any] = {name: getattr(record, name) for name in FIRST_COLUMNS}
            row |= {"canvas": record.canvas, "class": record.target}
            row |= {"precision": record.precision} if record.precision else {}
            powers = {f"power_{area:g}": power for area, power in record.powers.items()}
            scores = powers | _scores_of(record, self.metrics)
            rows.append(row | _means([(record.target, scores)]))
        return rows

    def to_json(self) -> str:
        """Rows by canvas, differences, metrics, failures and settings as JSON, without images."""
        content = {
            "models": self.models,
            "class_names": self.class_names,
            "settings": self.settings,
            "differences": self.differences(),
            "metrics": [
                {key: value for key, value in vars(metric).items() if key != "measure"}
                for metric in self.metrics
            ],
            "rows": self.json_rows(),
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
        power = 100 * mean_powers(scored, self.area)[row["method"]].value
        points = [f"{100 * row[f'difference{end}']:.1f}" for end in ("", "_low", "_high")]
        return (
            f"On the model {model}, the strongest method with {100 * self.area:.3g} % of the "
            f"pixels is {row['method']}: its power is {power:.1f} %, {points[0]} points above "
            f"{row['other']}, the strongest control (95 % interval {points[1]} to {points[2]})."
        )

    def select(self, **wanted: Any) -> list[Record]:
        """The records, in order, whose fields have these values, such as ``model="natural",
        method="Saliency"``. The ``target`` may be a number or a name."""
        if isinstance(target := wanted.get("target"), str):
            if self.class_names is None:
                raise ValueError(f"the comparison has no class names, so it cannot find {target!r}")
            wanted["target"] = ClassNames(self.class_names).find(target)
        return [r for r in self.records if all(getattr(r, k) == v for k, v in wanted.items())]

    def plot(
        self, *, model: str | None = None, kind: str | None = None, use_pyplot: bool = True
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
        return record.image

    def pattern_of(self, record: Record, area: float | None = None) -> Pattern:
        """The binary pattern of a record, at one of ``areas`` (None: ``area``)."""
        area = self.area if area is None else area
        info = {"method": record.name, "model": record.model, "area": area}
        return replace(record.pattern_at(area), info=info, seen=self.seen)

    def plot_curves(
        self, *, kind: str | None = None, use_pyplot: bool = True
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
        names, panels = figure_names(scored, self.area), {}
        for model, records in grouped((r.model, r) for r in scored).items():
            means = {area: mean_powers(records, area) for area in self.areas}
            panels[model] = {
                name: [(area, of[name].value, *of[name].interval) for area, of in means.items()]
                for name in names
                if name in means[self.area]
            }
        return plot_curves(
            panels,
            highlight=search_names(scored),
            controls=control_names(scored),
            areas_marked=[self.area],
            use_pyplot=use_pyplot,
        )

    def text(self) -> str:
        """The strongest method, next to the strongest control, and what could not run or be
        measured, and why: a line for each method and reason."""
        lines = ["Comparison", *filter(None, [self.summary])]
        models = grouped(((f.method, f.what, f.reason), f.model) for f in self.failures)
        for (method, what, reason), on in models.items():
            where = "" if len(on) == len(self.models) else f" on {', '.join(on)}"
            metric = "" if what == "maps" else f", {what}"
            lines.append(f"Not run here: {method}{where}{metric}: {reason.rstrip('.')}.")
        return "\n".join(lines)

    def shown_table(self) -> Any:
        """The powers on the first kind of canvas at the compared area."""
        rows = [row for row in self.named_rows(self.area) if row["canvas"] == self.kinds[0]]
        forms = {"model": "", "method": "", "power": ".1%", "control": ".1%", "canvas": ""}
        return as_texts(as_table(rows), forms)

    def to_html(self, path: str | PathLike[str]) -> Path:
        from captum_classpattern.comparison.report import write_report

        return write_report(self, Path(path))


class Interrupted(KeyboardInterrupt):
    """An interrupt of :func:`compare`. ``comparison`` holds the methods that were finished."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("compare was interrupted: .comparison holds what was finished")
        self.comparison = comparison


def _scores_of(record: Record, metrics: Iterable[Metric]) -> dict[str, Any]:
    """The share without a pattern, and each metric that was measured."""
    bare = [("no_pattern", power.without) for power in record.powers.values()]
    names = (metric.name for metric in metrics if metric.name in record.scores)
    return dict(bare) | {name: record.scores[name] for name in names}


def _means(measured: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """The means over classes of scores, each given with its class; of powers with intervals."""
    row: dict[str, Any] = {}
    for key in dict.fromkeys(key for _, scores in measured for key in scores):
        scored = [(target, scores[key]) for target, scores in measured if key in scores]
        if isinstance(scored[0][1], PredictivePower):
            power = mean_power(scored)
            row[key], (row[f"{key}_low"], row[f"{key}_high"]) = power.value, power.interval
        else:
            row[key] = fmean(map(fmean, grouped(scored).values()))
    return row


def _caption(record: Record, area: float) -> str:
    """The power of a record, or its IoU with the trigger on a stamped canvas."""
    if record.powers:
        return f"{100 * record.powers[area].value:.1f} %"
    return f"IoU {record.scores['iou']:.2f}" if "iou" in record.scores else ""

"""The outcome of a comparison, as records, tables, JSON, verdicts and figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
from torch import Tensor

from captum_classpattern.classifier.class_names import ClassNames, label_of
from captum_classpattern.comparison.metrics import METRICS, Metric
from captum_classpattern.comparison.records import Failure, Record
from captum_classpattern.comparison.tables import rows_by_canvas, rows_by_method
from captum_classpattern.comparison.verdicts import Verdict, make_verdicts
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table


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
        methods = len({record.method for record in self.records})
        return (
            f"Comparison({len(self.models)} models, {methods} methods, {len(self.canvases)} "
            f"canvases, {len(self.failures)} failures)"
        )

    def class_name(self, target: int) -> str:
        """The name of a class, or "class 3" if it has none."""
        return label_of(target, self.class_names)

    def _class_number(self, target: int | str | None) -> int | None:
        """The number of a class that is given by number or name."""
        if not isinstance(target, str):
            return target
        if self.class_names is None:
            raise ValueError(f"the comparison has no class names, so it cannot find {target!r}")
        return ClassNames(self.class_names).find(target)

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
        makers = {"method": rows_by_method, "canvas": rows_by_canvas}
        if by not in makers:
            raise ValueError(f"by must be 'method' or 'canvas', got {by!r}")
        return makers[by](self.records, self.failures, self.metrics)

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
            "rows": rows_by_canvas(self.records, [], self.metrics),
            "failures": [failure.as_dict() for failure in self.failures],
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def verdicts(self) -> list[Verdict]:
        """Claims tested by the numbers: each has ``title``, ``holds``, ``value`` and ``text``,
        mostly ``model``, and the ``control`` if the value is compared with one."""
        return make_verdicts(
            self.records,
            self.failures,
            models=self.models,
            backdoored=self.backdoored,
            kind=self.kinds[0],
            area=self.area,
            complete=self.settings.get("complete") is not False,
        )

    def select(self, **wanted: Any) -> list[Record]:
        """The records, in order, whose fields have these values, such as ``model="natural",
        method="Saliency", level="image"``. The ``target`` may be a number or a name."""
        if "target" in wanted:
            wanted["target"] = self._class_number(wanted["target"])
        return [r for r in self.records if all(getattr(r, k) == v for k, v in wanted.items())]

    def plot(
        self,
        *,
        model: str | None = None,
        target: int | str | None = None,
        methods: Sequence[str] | None = None,
        kind: str | None = None,
        show: str = "both",
        title: str | None = None,
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
            title (str, optional): Default: None.
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes. The maps of a column share one scale,
            which is shown.

        Raises:
            ValueError: If there is nothing to draw for these choices.
        """
        return self._draw(
            model=model,
            target=target,
            methods=methods,
            kind=kind,
            show=show,
            title=title,
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
        return self._draw("plot_curves", kind=kind, methods=methods, use_pyplot=use_pyplot)


class Interrupted(KeyboardInterrupt):
    """An interrupt of :func:`compare`. ``comparison`` holds the methods that were finished."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("compare was interrupted: .comparison holds what was finished")
        self.comparison = comparison

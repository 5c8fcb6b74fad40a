"""The outcome of a comparison, as records, tables, JSON and figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from torch import Tensor

from captum_classpattern.class_names import ClassNames
from captum_classpattern.comparison.figures import draw_curves, draw_maps
from captum_classpattern.comparison.records import Failure, Record
from captum_classpattern.comparison.tables import rows_by_canvas, rows_by_method
from captum_classpattern.comparison.verdicts import Verdict, make_verdicts
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.tables import as_table


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    r"""
    What :func:`compare` has measured.

    Args:
        models (dict[str, float or None]): For each model the share of the held-out images that it
            classifies correctly; None where these are the first model's own predictions.
        canvases (Tensor): (N, C, H, W).
        targets (list[int]): The class of each canvas.
        kinds (list[str]): The kind of each canvas.
        stamped (dict[str, Tensor]): The images stamped with each model's trigger.
        triggers (dict[str, Pattern]): The trigger that each model was measured with.
        backdoored (list[str]): The models whose own that trigger is.
        records (list[Record]): One for each model, method, level, ranking and canvas.
        failures (list[Failure]): What could not be had, and why.
        class_names (list[str], optional): Name of each class.
        area (float): Share of the pixels at which methods are compared.
        areas (list[float]): Those of the curves.
        settings (dict): All settings, hashes of the images, versions, and ``complete``: False
            after an interrupt.
        seen (frozenset[str]): Hashes of the search images, which the patterns keep.
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

    def __repr__(self) -> str:
        methods = len({record.method for record in self.records})
        return (
            f"Comparison({len(self.models)} models, {methods} methods, {len(self.canvases)} "
            f"canvases, {len(self.failures)} failures)"
        )

    def class_name(self, target: int) -> str:
        """The name of a class, or its number."""
        names = self.class_names
        return str(target) if names is None or target >= len(names) else names[target]

    def _class_number(self, target: int | str | None) -> int | None:
        """The class that a number or a name means."""
        if not isinstance(target, str):
            return target
        if self.class_names is None:
            raise ValueError(f"the comparison has no names of classes to find {target!r} among")
        return ClassNames(self.class_names).find(target)

    def rows(self, by: str = "method") -> list[dict[str, Any]]:
        r"""
        All scores as plain values.

        Args:
            by (str): ``"method"`` for the means over classes on a kind of canvas, with 95 %
                intervals; ``"canvas"`` for a row a record. Default: "method".

        Returns:
            *list[dict]*: Failures are rows whose ``failure`` says why. What was not measured is
            left out.

        Raises:
            ValueError: If ``by`` is neither.
        """
        makers = {"method": rows_by_method, "canvas": rows_by_canvas}
        if by not in makers:
            raise ValueError(f"by must be 'method' or 'canvas', got {by!r}")
        return makers[by](self.records, self.failures)

    def table(self, by: str = "method") -> Any:
        r"""
        All scores as a table.

        Args:
            by (str): As in :meth:`rows`. Default: "method".

        Returns:
            *pandas.DataFrame* or *list[dict]*: A DataFrame where pandas is installed, else
            :meth:`rows`, each with all keys.

        Raises:
            ValueError: If ``by`` is neither.
        """
        return as_table(self.rows(by))

    def to_json(self) -> str:
        """All rows a canvas, failures and settings as JSON; no images and no masks."""
        told = {
            "models": self.models,
            "class_names": self.class_names,
            "settings": self.settings,
            "verdicts": self.verdicts(),
            "rows": rows_by_canvas(self.records, []),
            "failures": [failure.as_dict() for failure in self.failures],
        }
        return json.dumps(told, indent=2, allow_nan=False)

    def verdicts(self) -> list[Verdict]:
        """What the numbers say in words: ``title``, ``holds``, ``text`` and ``model`` of each."""
        return make_verdicts(self)

    def select(self, **wanted: Any) -> list[Record]:
        r"""
        The records with some values of their fields.

        Args:
            **wanted: Such as ``model="natural", method="Saliency", level="image"``; a ``target`` by
                number or name.

        Returns:
            *list[Record]*: In order.
        """
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
        Draws maps and patterns, a column for each method.

        Args:
            model (str, optional): Whose maps; the rows are its classes. Default: None (the first
                model, or, with a ``target``, a row for each model).
            target (int or str, optional): Only this class, by number or name. Default: None (all).
            methods (Sequence[str], optional): Names as in :attr:`Record.name`. Default: None
                (the signed maps of the images).
            kind (str, optional): Kind of canvas. Default: None (the first one).
            show (str): ``"maps"``, ``"patterns"`` or ``"both"``. Default: "both".
            title (str, optional): Default: None.
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes; maps of a column share one scale,
            which is stated.

        Raises:
            ValueError: If there is nothing to draw for these choices.
        """
        target = self._class_number(target)
        everywhere = model is None and target is not None
        chosen = [
            record
            for record in self.select(kind=kind or self.kinds[0])
            if (everywhere or record.model == (model or next(iter(self.models))))
            and target in (None, record.target)
        ]
        if not chosen:
            raise ValueError(
                f"there is nothing to draw of model {model!r}, class {target!r}, canvas {kind!r}: "
                f"models are {list(self.models)}, classes {sorted(set(self.targets))}, canvases "
                f"{sorted({record.kind for record in self.records})}"
            )
        return draw_maps(self, chosen, methods, show=show, title=title, use_pyplot=use_pyplot)

    def canvas_of(self, record: Record) -> Tensor:
        """The image that a record's pattern is cut from, (C, H, W)."""
        given = len(self.canvases)
        if record.canvas < given:
            return self.canvases[record.canvas]
        return self.stamped[record.model][record.canvas - given]

    def pattern_of(self, record: Record, area: float | None = None) -> Pattern:
        r"""
        A record's pattern.

        Args:
            record (Record): One of ``records``.
            area (float, optional): One of ``areas``. Default: None (``area``).

        Returns:
            *Pattern*: Binary.
        """
        mask = record.masks[self.area if area is None else area]
        canvas = self.canvas_of(record)
        info = {"method": record.name, "model": record.model, "area": area or self.area}
        return Pattern(canvas, mask.to(canvas), record.target, info, self.seen)

    def plot_curves(
        self,
        *,
        kind: str | None = None,
        methods: Sequence[str] | None = None,
        use_pyplot: bool = True,
    ) -> tuple[Any, npt.NDArray[Any]]:
        r"""
        Draws predictive power over the area, a panel for each model: means over classes, with
        their 95 % intervals.

        Args:
            kind (str, optional): Kind of canvas. Default: None (the first one).
            methods (Sequence[str], optional): Names as in :attr:`Record.name`. Default: None
                (all).
            use_pyplot (bool): As in Captum's visualizer. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes.

        Raises:
            ValueError: If there is nothing to draw for these choices.
        """
        chosen = self.select(kind=kind or self.kinds[0])
        return draw_curves(self, chosen, methods, use_pyplot)


class Interrupted(KeyboardInterrupt):
    """An interrupt of :func:`compare`; ``comparison`` holds the methods that were finished."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("compare was interrupted: .comparison holds what was finished")
        self.comparison = comparison

"""``Sweep``: the findings of many models, as a table, a figure, and a matrix of what transfers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy.typing as npt

from captum_classpattern.classifier import Classifier, device_and_dtype
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.scores.power import predictive_power
from captum_classpattern.scores.tables import as_table
from captum_classpattern.surveys.findings import Finding, Scores
from captum_classpattern.surveys.results import Survey
from captum_classpattern.surveys.store import Store, read_finding
from captum_classpattern.sweeps.folder import SweepFolder
from captum_classpattern.sweeps.sources import COLUMNS, FIRST_LOOK, ModelSource, further_columns
from captum_classpattern.visualization import plot_heat_map


class Sweep:
    r"""
    The findings in a sweep's folder, as :func:`sweep` returns and :meth:`load` reads them.

    They are read when they are needed, so a sweep that is still running can be looked at.

    Args:
        folder (str or PathLike): The folder.
        models (Mapping[str, Classifier], optional): The models that were given as they are, by
            name, for :meth:`transfer`. Default: None ({}).

    Attributes:
        folder (Path): The folder.
        settings (dict): What the findings depend on.
        classes (list[int]): The classes that were searched or will be.
        models (list[str]): The names of the models.

    Raises:
        FileNotFoundError: If there is no sweep in the folder.
        ValueError: If a file is damaged.
    """

    def __init__(
        self, folder: str | os.PathLike[str], models: Mapping[str, Classifier] | None = None
    ) -> None:
        self.folder = Path(folder)
        self._files = SweepFolder(self.folder)
        if not self._files.data:
            raise FileNotFoundError(f"there is no sweep.json of a sweep in {folder}")
        self._rows: dict[str, Any] = {row["name"]: row for row in self._files.data["models"]}
        self._given = dict(models or {})
        self.settings: dict[str, Any] = self._files.data["settings"]
        self.classes: list[int] = self._files.data["classes"]
        self.models = [*self._rows]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Sweep":
        r"""
        Reads a sweep's folder, finished or not.

        Args:
            folder (str or PathLike): The folder.

        Returns:
            *Sweep*: Its findings.

        Raises:
            FileNotFoundError: If there is no sweep in the folder.
            ValueError: If a file is damaged.
        """
        return cls(folder)

    def __repr__(self) -> str:
        failed = len(self.failures)
        text = f"{len(self.models)} models, {len(self.classes)} classes"
        return f"Sweep({text}{f', {failed} units failed' if failed else ''}, {self.folder})"

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The units that failed: their ``model``, their ``class``, and why (``error``)."""
        found = self._files.failures()
        if self.first_look is not None:
            known = {(row["model"], row["class"]) for row in found}
            for row in self.first_look.failures:
                unit = row["model"], row["class"]
                if unit not in known and not self._files.has_found(
                    self._rows[unit[0]]["folder"], unit[1]
                ):
                    found.append(row)
        return found

    @property
    def first_look(self) -> "Sweep | None":
        """The cheap search of all units, if there was one."""
        folder = self.folder / FIRST_LOOK
        return Sweep(folder, self._given) if (folder / "sweep.json").exists() else None

    def survey(self, model: str) -> Survey:
        r"""
        The survey of one model.

        Args:
            model (str): Its name.

        Returns:
            *Survey*: Its findings so far, with their patterns.

        Raises:
            FileNotFoundError: If none of its units was begun.
            ValueError: If there is no such model.
        """
        return Survey.load(self._model_folder(model))

    def table(self) -> Any:
        r"""
        One row for each model, class, kind of canvas and area, and for each unit that failed.

        Returns:
            *pandas.DataFrame* or *list[dict]*: A DataFrame if pandas is installed. The columns are
            ``model``, ``class``, ``class_name``, ``canvas``, ``area``, ``power`` with the ends of
            its 95 % interval (``power_low``, ``power_high``), the number of held-out ``images``,
            the controls ``no_pattern``, ``random_pixels`` and ``other_canvas``,
            ``beats_controls`` (see :attr:`Scores.beats_controls`), the further columns of the
            manifest, and ``error``: why a unit failed.
        """
        return as_table([*self.rows()])

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of :meth:`table`, one at a time."""
        columns = dict.fromkeys(key for row in self._rows.values() for key in further_columns(row))
        failed: dict[str, list[dict[str, Any]]] = {}
        for failure in self.failures:
            failed.setdefault(failure["model"], []).append(failure)
        for name, model in self._rows.items():
            further = {key: model.get(key) for key in columns}
            for row in self._found(name):
                unit = {"model": name, **{k: row[k] for k in ("class", "class_name", "canvas")}}
                for area, values in row["areas"].items():
                    scores = _columns_of(Scores.from_dict(values))
                    yield {**unit, "area": float(area), **scores, **further, "error": None}
            for failure in failed.get(name, ()):
                yield {**dict.fromkeys(COLUMNS), **further, **failure}

    def plot(
        self, *, area: float | None = None, canvas: str | None = None, use_pyplot: bool = True
    ) -> tuple[Any, npt.NDArray[Any]]:
        r"""
        Draws the power of each class (columns) of each model (rows), sorted by their means.

        Args:
            area (float, optional): One of the areas that were searched. Default: None (the first).
            canvas (str, optional): The kind of canvas. Default: None (for each unit the one that
                did best on the judging images).
            use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

        Returns:
            *tuple[Figure, ndarray]*: The figure and its axes. Units that are not there are grey.

        Raises:
            ValueError: If nothing was found on that canvas at that area.
        """
        key = str(float(self.settings["areas"][0] if area is None else area))
        values: dict[str, dict[str, float]] = {name: {} for name in self.models}
        for name in self.models:
            for row in self._best(name, canvas):
                if key in row["areas"]:
                    label = row["class_name"] or str(row["class"])
                    values[name][label] = row["areas"][key]["power"]
        if not any(values.values()):
            on = "" if canvas is None else f" on {canvas!r} canvases"
            raise ValueError(f"nothing was found{on} at area {key}")
        kind = "the best canvas" if canvas is None else f"a {canvas} canvas"
        return plot_heat_map(
            {name: row for name, row in values.items() if row},
            title=f"Predictive power of {float(key):.3g} of the pixels of {kind}",
            use_pyplot=use_pyplot,
        )

    def transfer(
        self,
        images: Images,
        labels: Labels = None,
        *,
        models: Mapping[str, Classifier] | None = None,
        classes: Sequence[int] | None = None,
        area: float | None = None,
        device: str | None = None,
    ) -> Any:
        r"""
        Which model's patterns work on which other model: mean predictive powers over the classes.

        Each pattern is scored on each model. For M models with K classes and N images, that takes
        M x M x K x N passes: give some of the images and classes.

        Args:
            images (LabelledImages, Tensor, Dataset or DataLoader): Held-out images, in the class
                numbers of the models.
            labels (Tensor or Sequence[int], optional): Their classes. Default: None (those that
                come with the images, else each model's predictions).
            models (Mapping[str, Classifier], optional): Models by their names; they replace those
                of the sweep. Default: None (the sweep's, which are opened again).
            classes (Sequence[int], optional): The classes whose patterns are scored. Default: None
                (all).
            area (float, optional): One of the areas that were searched. Default: None (the first).
            device (str, optional): Where checkpoints are moved to. Default: None (the CPU).

        Returns:
            *pandas.DataFrame* or *list[dict]*: A DataFrame if pandas is installed. One row for the
            patterns of each model (``patterns_of``), with one column for each model that they are
            stamped for. The patterns are those of the canvas that did best on the judging images.

        Raises:
            ValueError: If a model was given as it is and is not here, or as
                :func:`predictive_power`.
        """
        source = LabelledImages.of(images, labels, argument="held-out images")
        share = float(self.settings["areas"][0] if area is None else area)
        found = {
            name: [
                f
                for f in self._best_findings(name, share)
                if classes is None or f.target in classes
            ]
            for name in self.models
        }
        found = {name: findings for name, findings in found.items() if findings}
        rows: dict[str, dict[str, Any]] = {name: {"patterns_of": name} for name in found}
        for tested in found:
            classifier = self._open(tested, models or {}, device)
            for name, findings in found.items():
                powers = []
                for finding in findings:
                    pattern = finding.patterns[share]
                    there, _ = device_and_dtype(classifier, pattern.canvas)
                    moved = pattern.to(there)
                    powers.append(predictive_power(classifier, moved, source, area=share).value)
                rows[name][tested] = fmean(powers)
        return as_table([*rows.values()])

    def _open(self, name: str, models: Mapping[str, Classifier], device: str | None) -> Classifier:
        if name in models or name in self._given:
            return models[name] if name in models else self._given[name]
        return ModelSource.from_dict(self._rows[name], self._files.file).open(device)

    def _model_folder(self, model: str) -> Path:
        if model not in self._rows:
            raise ValueError(f"the sweep has no model {model!r}: it has {', '.join(self.models)}")
        folder: str = self._rows[model]["folder"]
        return self.folder / folder

    def _found(self, model: str) -> list[dict[str, Any]]:
        """The rows of a model's finished classes, without their patterns."""
        rows = Store(self._model_folder(model)).rows
        return [row for target in sorted(rows) for row in rows[target]]

    def _best(self, model: str, canvas: str | None = None) -> list[dict[str, Any]]:
        """For each class the row of a kind of canvas, or of the one that did best on the judging
        images at the first area."""
        best: dict[int, dict[str, Any]] = {}
        for row in self._found(model):
            before = best.get(row["class"])
            if canvas is not None and row["canvas"] != canvas:
                continue
            if before is None or _search_power(row) > _search_power(before):
                best[row["class"]] = row
        return [*best.values()]

    def _best_findings(self, model: str, area: float) -> list[Finding]:
        patterns = self._model_folder(model) / "patterns"
        findings = [read_finding(row, patterns) for row in self._best(model)]
        return [finding for finding in findings if area in finding.patterns]


def _search_power(row: Mapping[str, Any]) -> float:
    power: float = next(iter(row["areas"].values()))["search_power"]
    return power


def _columns_of(scores: Scores) -> dict[str, Any]:
    low, high = scores.power.interval
    return {
        "power": scores.power.value,
        "power_low": low,
        "power_high": high,
        "images": scores.power.n,
        "no_pattern": scores.power.without,
        "random_pixels": scores.random_pixels,
        "other_canvas": scores.other_canvas,
        "beats_controls": scores.beats_controls,
    }

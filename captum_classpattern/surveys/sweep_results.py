"""``Sweep``: the findings of many models, as a table, a figure, and a matrix of what transfers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy.typing as npt

from captum_classpattern.classifier import Classifier
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.power import transfer_powers
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.results import Survey, best_of_each
from captum_classpattern.surveys.sources import COLUMNS, FIRST_LOOK, ModelSource, further_columns
from captum_classpattern.surveys.store import Store, SweepFolder


class Sweep(Result):
    r"""
    The findings in a sweep's folder, as :func:`sweep` returns and :meth:`load` reads them.

    They are read when they are needed, so a sweep that is still running can be looked at.

    Args:
        folder (str or PathLike): The folder.
        sources (Mapping[str, ModelSource], optional): The models of the sweep that was just run,
            by name, for :meth:`transfer`. Default: None (as they are described in the folder).

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
        self, folder: str | os.PathLike[str], sources: Mapping[str, ModelSource] | None = None
    ) -> None:
        self.folder = Path(folder)
        self._files = SweepFolder(self.folder)
        if not self._files.data:
            raise FileNotFoundError(f"there is no sweep.json of a sweep in {folder}")
        self._rows: dict[str, Any] = {row["name"]: row for row in self._files.data["models"]}
        self._sources = dict(sources or {})
        self.settings: dict[str, Any] = self._files.data["settings"]
        self.classes: list[int] = self._files.data["classes"]
        self.models = [*self._rows]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Sweep":
        """The findings in a sweep's folder, finished or not; errors as of the class."""
        return cls(folder)

    def __repr__(self) -> str:
        failed = len(self.failures)
        text = f"{len(self.models)} models, {len(self.classes)} classes"
        return f"Sweep({text}{f', {failed} units failed' if failed else ''}, {self.folder.name})"

    @cached_property
    def failures(self) -> list[dict[str, Any]]:
        """The units that had failed when this was first asked for: their ``model``, their
        ``class``, and why (``error``)."""
        found = {(row["model"], row["class"]): row for row in self._files.failures()}
        for row in [] if self.first_look is None else self.first_look.failures:
            model, target = row["model"], row["class"]
            if model in self._rows:
                done = self._files.finished(self._rows[model]["folder"])
                if target not in done:
                    found.setdefault((model, target), row)
        return [*found.values()]

    @cached_property
    def first_look(self) -> "Sweep | None":
        """The cheap search of all units, if there was one when this was first asked for."""
        folder = self.folder / FIRST_LOOK
        return Sweep(folder, self._sources) if (folder / "sweep.json").exists() else None

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
        return Survey.load(self.folder_of(model))

    def table(self) -> Any:
        r"""
        One row for each model, class, kind of canvas and area, and for each unit that failed.

        Returns:
            *pandas.DataFrame*: The columns are ``model``, those of :meth:`Finding.table`, the power
            on the judging images (``search_power``), the further columns of the manifest, and
            ``error``: why a unit failed.
        """
        return as_table([*self.rows()])

    @property
    def columns(self) -> list[str]:
        """The columns of :meth:`table`."""
        return [*COLUMNS, *self._further_columns, "error"]

    @property
    def _further_columns(self) -> list[str]:
        """Those of the manifest."""
        rows = self._rows.values()
        return [*dict.fromkeys(key for row in rows for key in further_columns(row))]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of :meth:`table`, one at a time."""
        columns = self._further_columns
        failed: dict[str, list[dict[str, Any]]] = {}
        for failure in self.failures:
            failed.setdefault(failure["model"], []).append(failure)
        for name, model in self._rows.items():
            further = {key: model.get(key) for key in columns}
            for finding in self._findings(name):
                for row in finding.rows():
                    searched = {"search_power": finding.search_powers[row["area"]]}
                    yield {"model": name, **row, **searched, **further, "error": None}
            for failure in failed.get(name, ()):
                yield {**dict.fromkeys(self.columns), **further, **failure}

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
        return self._draw(area=area, canvas=canvas, use_pyplot=use_pyplot)

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
        Which model's patterns work on which other model: mean predictive powers over the classes of
        which all models have a pattern.

        Each pattern is scored on each model, see
        :func:`~captum_classpattern.scores.power_powers`. For M models with K classes and N
        images, that takes M x M x (K + 1) x N forward passes: give some of the images and classes.

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
            *pandas.DataFrame*: One row for the patterns of each model (``patterns_of``), with one
            column for each model that they are stamped for. The patterns are those of the canvas
            that did best on the judging images at the first area. Models without findings are left
            out.

        Raises:
            ValueError: If there is no class of which all models have a pattern, a model was given
                as it is and is not here, or as :func:`predictive_power`.
        """
        source = LabelledImages.of(images, labels, argument="held-out images")
        share = float(self.settings["areas"][0] if area is None else area)
        found: dict[str, dict[int, Finding]] = {}
        for name in self.models:
            best = self.best_canvases(name)
            at_area = {each.target: each for each in best if share in each.scores}
            if at_area:
                found[name] = at_area
        common = sorted(set.intersection(*(set(best) for best in found.values()))) if found else []
        targets = [target for target in common if classes is None or target in classes]
        if not targets:
            raise ValueError(
                f"there is no class of which all models have a pattern at area {share:g}: finish "
                "the sweep, or choose other classes"
            )
        rows: dict[str, dict[str, Any]] = {name: {"patterns_of": name} for name in found}
        for tested in found:
            classifier = self._open(tested, models or {}, device)
            for name, findings in found.items():
                chosen = [findings[target].patterns[share] for target in targets]
                powers = transfer_powers(classifier, chosen, source, area=share)
                rows[name][tested] = fmean(power.value for power in powers)
        return as_table([*rows.values()])

    def _open(self, name: str, models: Mapping[str, Classifier], device: str | None) -> Classifier:
        if name in models:
            return models[name]
        source = self._sources.get(name)
        if source is None:
            source = ModelSource.from_dict(self._rows[name], self._files.file)
        return source.open(device) if source.fetch is None else source.fetch()

    def folder_of(self, model: str) -> Path:
        """The folder of a model's survey, which may not be there yet."""
        if model not in self._rows:
            raise ValueError(f"the sweep has no model {model!r}: it has {', '.join(self.models)}")
        folder: str = self._rows[model]["folder"]
        return self.folder / folder

    def columns_of(self, model: str) -> dict[str, Any]:
        """What the manifest says about a model beyond how it is opened."""
        return further_columns(self._rows[model])

    def _findings(self, model: str) -> list[Finding]:
        """What was found of a model so far; none of its patterns is read."""
        return Store(self.folder_of(model)).findings()

    def best_canvases(self, model: str, canvas: str | None = None) -> list[Finding]:
        """For each class the finding on a kind of canvas, or on the one that did best on the
        judging images at the first area."""
        found = (each for each in self._findings(model) if canvas in (None, each.canvas))
        return best_of_each(found)

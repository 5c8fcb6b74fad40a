"""``Sweep``: the findings of many models, as a table, a figure, and a matrix of what transfers;
and the folder that they are in."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy.typing as npt
from filelock import FileLock, Timeout

from captum_classpattern._files import write_json
from captum_classpattern.adapters.load import check_folders
from captum_classpattern.classifier import Classifier
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.power import predictive_power
from captum_classpattern.surveys.findings import Finding, best_of_each
from captum_classpattern.surveys.results import Survey
from captum_classpattern.surveys.sources import COLUMNS, FAILED, FIRST_LOOK, LOADING, ModelSource
from captum_classpattern.surveys.store import RESULTS, SWEEP_FORMAT, Store, check_same, read_json

SWEEP = "sweep.json"
IDENTITY = ("folder", "path", "hash", *LOADING)  # of a model: its other columns may change


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
        file = self.folder / SWEEP
        if not file.exists():
            raise FileNotFoundError(f"there is no {SWEEP} of a sweep in {folder}")
        data = read_json(file, "sweep")
        if not isinstance(data.get("models"), list) or not {"settings", "classes"} <= data.keys():
            raise ValueError(f"{file} must hold settings, classes and a list of models")
        read = [ModelSource.from_dict(row, file) for row in data["models"]]
        taken = Counter(source.folder.casefold() for source in read)  # as file systems may do
        if twice := [source.folder for source in read if taken[source.folder.casefold()] > 1]:
            raise ValueError(f"{file} names the folder {twice[-1]!r} twice")
        self.settings: dict[str, Any] = data["settings"]
        self.classes: list[int] = data["classes"]
        self.sources = {source.name: source for source in read}
        self.models = [*self.sources]
        self.sources |= sources or {}

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
        rows = []
        for file in (self.folder / FAILED).glob("*.json"):
            with suppress(FileNotFoundError):  # a running sweep has found it now
                rows.append(json.loads(file.read_text(encoding="utf-8")))
        rows += [] if self.first_look is None else self.first_look.failures
        finished = {name: self.finished(name) for name in self.models}
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for row in rows:
            model, target = row["model"], row["class"]
            if model in finished and target not in finished[model]:
                found.setdefault((self.models.index(model), target), row)
        return [found[key] for key in sorted(found)]

    def finished(self, model: str) -> set[int]:
        """The classes of a model that are there."""
        files = (self.folder_of(model) / "findings").glob("[0-9]*.json")
        return {int(file.stem) for file in files if file.stem.isdigit()}

    @cached_property
    def first_look(self) -> "Sweep | None":
        """The cheap search of all units, if there was one when this was first asked for."""
        folder = self.folder / FIRST_LOOK
        return Sweep(folder, self.sources) if (folder / SWEEP).exists() else None

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
        return as_table(self.rows())

    @property
    def columns(self) -> list[str]:
        """The columns of :meth:`table`."""
        further = dict.fromkeys(key for name in self.models for key in self.sources[name].columns)
        return [*COLUMNS, *further, "error"]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of :meth:`table`, one at a time."""
        empty, by_model = dict.fromkeys(self.columns), groupby(self.failures, itemgetter("model"))
        failed = {name: [*rows] for name, rows in by_model}  # failures are in the models' order
        for name in self.models:
            known = {**empty, **self.sources[name].columns}
            for finding in Store(self.folder_of(name)).findings():
                powers = finding.search_powers
                for row in finding.rows():
                    yield {**known, "model": name, **row, "search_power": powers[row["area"]]}
            yield from (known | row for row in failed.get(name, ()))

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
        :func:`predictive_power`. For M models with K classes and N
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
            best = {f.target: f for f in self.best_canvases(name) if share in f.scores}
            if best:
                found[name] = best
        common = set.intersection(*map(set, found.values())) if found else set()
        targets = sorted(common if classes is None else common.intersection(classes))
        if not targets:
            raise ValueError(
                f"there is no class of which all models have a pattern at area {share:g}: finish "
                "the sweep, or choose other classes"
            )
        rows: dict[str, dict[str, Any]] = {name: {"patterns_of": name} for name in found}
        for tested in found:
            if models and tested in models:
                classifier = models[tested]
            else:
                opened = self.sources[tested]
                classifier = opened.open(device if opened.path else None)
            for name, findings in found.items():
                chosen = [findings[target].patterns[share] for target in targets]
                powers = [predictive_power(classifier, p, source, area=share) for p in chosen]
                rows[name][tested] = fmean(power.value for power in powers)
        return as_table(rows.values())

    def folder_of(self, model: str) -> Path:
        """The folder of a model's survey, which may not be there yet."""
        if model not in self.models:
            raise ValueError(f"the sweep has no model {model!r}: it has {', '.join(self.models)}")
        return self.folder / self.sources[model].folder

    def best_canvases(self, model: str, canvas: str | None = None) -> list[Finding]:
        """For each class the finding on a kind of canvas, or on the one that did best on the
        judging images at the first area."""
        found = (
            each
            for each in Store(self.folder_of(model)).findings()
            if canvas in (None, each.canvas)
        )
        return best_of_each(found)


# ---- writing a sweep's folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Refuses other sweeps while the block runs. The operating system lifts the lock when the
    process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise ValueError(
            f"another sweep is writing into {folder}: wait until it is finished, stop it, or "
            "choose another folder"
        ) from None
    with lock:
        yield


def begin(
    folder: Path,
    settings: Mapping[str, Any],
    sources: Sequence[ModelSource],
    classes: Sequence[int],
) -> Sweep:
    """Writes sweep.json. Models and classes are added to those that are there; settings and models
    of the same name must be the same."""
    before: dict[str, ModelSource] = {}
    if (folder / SWEEP).exists():
        found = Sweep(folder)
        check_same(found.settings, settings, folder / SWEEP, "sweep")
        before, classes = found.sources, [*found.classes, *classes]
    elif (folder / RESULTS).exists():
        raise ValueError(f"{folder} holds a survey of one model: choose another folder")
    check_folders([*dict.fromkeys([*before, *(source.name for source in sources)])])
    rows = {name: source.as_dict() for name, source in before.items()}
    for source in sources:
        row = json.loads(json.dumps(source.as_dict()))
        known = rows.get(source.name, row)
        for key in IDENTITY:
            if known.get(key) != row.get(key):
                raise ValueError(
                    f"{folder} holds another model {source.name!r} ({key} {known.get(key)!r} then, "
                    f"{row.get(key)!r} now): give this one another name, or choose another folder"
                )
        rows[source.name] = row
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "format": SWEEP_FORMAT,
        "settings": settings,
        "classes": sorted(set(classes)),
        "models": [*rows.values()],
    }
    write_json(data, folder / SWEEP)
    return Sweep(folder, {source.name: source for source in sources})


def note(folder: Path, source: ModelSource, target: int, error: str | None) -> None:
    """Keeps why a unit failed, for the next sweep to try it again; None: it did not."""
    file = folder / FAILED / f"{source.folder}_{target}.json"
    if error is None:
        file.unlink(missing_ok=True)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json({"model": source.name, "class": target, "error": error}, file)


def summarise(folder: Path, seconds: float | None = None) -> None:
    """Writes a model's results.json again, if a unit of it has begun one. ``seconds`` are added to
    those of earlier sweeps; None if no unit was searched: then only one that may lack findings is
    written."""
    files = (folder / RESULTS, folder / "findings")
    times = [path.stat().st_mtime_ns for path in files if path.exists()]
    if seconds is None and (len(times) < 2 or times[0] > times[1]):
        return
    store = Store(folder)
    if store.summary:
        info = {k: v for k, v in store.summary.items() if k not in ("complete", "rows")}
        store.settings = info["settings"]
        info["seconds"] = round(info.get("seconds", 0.0) + (seconds or 0.0), 1)
        store.write_summary(info)

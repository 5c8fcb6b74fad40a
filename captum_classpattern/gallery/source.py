"""What a gallery shows: the models of a folder and the scores of their classes. Patterns are read
later, one class at a time."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from captum_classpattern._validation import is_whole
from captum_classpattern.class_names import as_file_name, file_safe
from captum_classpattern.surveys import Scores, stands_out
from captum_classpattern.surveys.store import RESULTS, Store

SWEEP, SWEEP_FORMAT = "sweep.json", "captum_classpattern sweep"
MAX_LENGTH = 60  # characters of a model's name in the name of its folder


@dataclass(frozen=True)
class ClassEntry:
    """A class of a model: its scores by canvas and area, and the canvas that did best on the
    judging images at the first area."""

    target: int
    name: str | None
    scores: Mapping[str, Mapping[float, Scores]]
    best: str
    search_power: float  # of the best canvas, on the judging images

    @property
    def label(self) -> str:
        """The name of the class, or its number."""
        return f"class {self.target}" if self.name is None else self.name

    @property
    def area(self) -> float:
        """The first area."""
        return next(iter(self.scores[self.best]))

    @property
    def shown(self) -> Scores:
        """The scores of the pattern that stands for the class: best canvas, first area."""
        return self.scores[self.best][self.area]

    @cached_property
    def stem(self) -> str:
        """How the names of the class's files begin: ``12_house_finch``."""
        return f"{self.target}" if self.name is None else f"{self.target}_{as_file_name(self.name)}"


@dataclass(frozen=True)
class Model:
    """A model: its name, its folder in the site, the folder of its survey, the columns that a sweep
    adds, how it was searched, its classes by number, and height and width of its patterns."""

    name: str
    folder: str
    survey: Path
    columns: Mapping[str, Any]
    info: Mapping[str, Any]
    classes: Mapping[int, ClassEntry]
    size: tuple[int, int]

    @cached_property
    def outstanding(self) -> Collection[tuple[int, str, float]]:
        """The class, canvas and area of each pattern that stands out, see :func:`stands_out`."""
        by_place: dict[tuple[str, float], dict[int, Scores]] = {}
        for target, entry in self.classes.items():
            for canvas, areas in entry.scores.items():
                for area, scores in areas.items():
                    by_place.setdefault((canvas, area), {})[target] = scores
        found = set()
        for (canvas, area), scores_of in by_place.items():
            strongest = max(scores_of, key=lambda target: scores_of[target].power.value)
            if stands_out(scores_of, strongest, self.info.get("n_classes") or 0):
                found.add((strongest, canvas, area))
        return found


def read_models(folder: Path) -> list[Model]:
    """The models of a sweep's folder, or the one of a survey's. Models of which no class is
    finished are left out."""
    if (folder / SWEEP).is_file():
        rows = _read_sweep(folder / SWEEP)
    elif (folder / RESULTS).is_file():
        rows = [{"name": folder.resolve().name, "folder": "."}]
    else:
        raise FileNotFoundError(
            f"there is no survey and no sweep in {folder}: it has neither {RESULTS} nor {SWEEP}. "
            "Give the folder that classpattern search or classpattern sweep wrote"
        )
    rows = [row for row in rows if (folder / row["folder"] / RESULTS).is_file()]
    names = _folder_names(row["name"] for row in rows)
    models = [_read_model(folder, row, name) for row, name in zip(rows, names)]
    models = [model for model in models if model.classes]
    if not models:
        raise ValueError(f"no class in {folder} is finished yet: there is nothing to show")
    return models


def _read_sweep(path: Path) -> list[dict[str, Any]]:
    """The rows of a sweep's models, checked: the file may come from a stranger."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(data, dict) or data.get("format") != SWEEP_FORMAT:
        raise ValueError(f"{path} is not from a sweep: its format must be {SWEEP_FORMAT!r}")
    rows = data.get("models")
    if not isinstance(rows, list):
        raise ValueError(f"{path} must list its models, got {rows!r:.100}")
    for row in rows:
        named = isinstance(row, dict) and all(
            isinstance(row.get(key), str) for key in ("name", "folder")
        )
        if not named:
            raise ValueError(f"each model in {path} needs a name and a folder, got {row!r:.200}")
        inner = Path(row["folder"])
        if inner.is_absolute() or ".." in inner.parts:
            raise ValueError(
                f"{path} names the folder {row['folder']!r}, which is not inside {path.parent}"
            )
    return rows


def _folder_names(names: Iterable[str]) -> list[str]:
    """A folder for each name. No two differ by upper and lower case alone, since some file systems
    take these for the same."""
    taken: set[str] = set()
    chosen = []
    for name in names:
        stem = file_safe(name)[:MAX_LENGTH].strip("._") or "model"
        folder, number = stem, 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{stem}_{number}"
        taken.add(folder.casefold())
        chosen.append(folder)
    return chosen


def _read_model(folder: Path, row: Mapping[str, Any], name: str) -> Model:
    survey = folder / row["folder"]
    store = Store(survey)
    for target in store.classes:
        if not is_whole(target):  # it becomes a part of the names of files
            raise ValueError(f"{survey} is damaged: it has a class {target!r}, which is no number")
    classes = {target: _read_class(store.rows[target]) for target in store.classes}
    size = (0, 0)
    if classes:
        height, width = store.findings_of(next(iter(classes)))[0].pattern.mask.shape[1:]
        size = (height, width)
    columns = {key: value for key, value in row.items() if key not in ("name", "folder")}
    info = {key: value for key, value in store.summary.items() if key != "rows"}
    return Model(row["name"], name, survey, columns, info, classes, size)


def _read_class(rows: Iterable[Mapping[str, Any]]) -> ClassEntry:
    """A class from the rows of its canvases."""
    scores, searched = {}, {}
    for row in rows:
        areas = {float(area): values for area, values in row["areas"].items()}
        scores[row["canvas"]] = {area: Scores.from_dict(values) for area, values in areas.items()}
        searched[row["canvas"]] = next(iter(areas.values()))["search_power"]
        target, name = row["class"], row.get("class_name")
    best = max(searched, key=lambda canvas: searched[canvas])
    name = None if name is None else str(name)
    return ClassEntry(target, name, scores, best, searched[best])

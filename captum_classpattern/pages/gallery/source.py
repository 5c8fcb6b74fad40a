"""What a gallery shows: the models of a folder and the scores of their classes. Patterns are read
later, one class at a time."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from captum_classpattern.adapters.names import model_name
from captum_classpattern.classifier.class_names import as_file_name, file_safe, label_of
from captum_classpattern.scores import Scores
from captum_classpattern.surveys import Finding, Sweep, stands_out
from captum_classpattern.surveys.results import best_of_each
from captum_classpattern.surveys.sources import FIRST_LOOK, further_columns
from captum_classpattern.surveys.store import RESULTS, Store, SweepFolder


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
        """The name of the class, or "class 3" if it has none."""
        return self.name or label_of(self.target)

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
    """A model and what was found of it.

    Args:
        name (str): What pages call it.
        folder (str): Its folder in the site, a part of the addresses of its pages.
        survey (Path): The folder of its survey.
        columns (Mapping): What a manifest says about it beyond how it is opened.
        info (Mapping): How it was searched, from results.json.
        classes (Mapping[int, ClassEntry]): Its finished classes, by number.
        size (tuple[int, int]): Height and width of its patterns.
        failed (int): How many classes failed. Default: 0.
        missing (int): How many classes were neither finished nor failed. Default: 0.
        opened (bool): Whether it could be opened. Default: True.
    """

    name: str
    folder: str
    survey: Path
    columns: Mapping[str, Any]
    info: Mapping[str, Any]
    classes: Mapping[int, ClassEntry]
    size: tuple[int, int]
    failed: int = 0
    missing: int = 0
    opened: bool = True

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
    """All models of a sweep's folder, also those of which no class is finished; or the one of a
    survey's folder."""
    files = SweepFolder(folder)
    if files.data:
        models = _read_sweep(files)
    elif (folder / RESULTS).is_file():
        models = [_read_survey(folder)]
    else:
        raise FileNotFoundError(
            f"there is no survey and no sweep in {folder}: it has neither {RESULTS} nor "
            f"{files.file.name}. Give the folder that classpattern search or classpattern sweep "
            "wrote"
        )
    if not any(model.classes for model in models):
        raise ValueError(f"no class in {folder} is finished yet: there is nothing to show")
    return models


def _read_sweep(files: SweepFolder) -> list[Model]:
    """The models of a sweep, in its order."""
    folder, rows = files.path, files.data["models"]
    failed: dict[str, set[int]] = {row["name"]: set() for row in rows}
    for failure in Sweep(folder).failures:
        failed[failure["model"]].add(failure["class"])
    models = []
    for row in rows:
        looked_at = folder / FIRST_LOOK / row["folder"] / RESULTS
        model = _read_model(
            Store(folder / row["folder"]),
            row["name"],
            row["folder"],
            columns=further_columns(row),
            wanted=files.data["classes"],
            failed=failed[row["name"]],
            opened=looked_at.exists(),
        )
        models.append(model)
    return models


def _read_survey(folder: Path) -> Model:
    """The model of a survey, by the name of its checkpoint, or else of the folder."""
    store = Store(folder)
    name = _name_of(store.summary.get("provenance")) or folder.resolve().name
    in_site = file_safe(name).strip(".") or "model"
    return _read_model(store, name, in_site, wanted=store.summary.get("classes", ()))


def _name_of(provenance: Any) -> str | None:
    """A name for a model that was loaded by :func:`load_model`: that of its file, without the
    folders, which are private, or of its architecture.

    Examples::

        >>> _name_of({"source": "/home/kim/resnet18.pt", "arch": "timm:resnet18"})
        'resnet18'
        >>> _name_of({"source": "timm:resnet18.a1_in1k"}), _name_of({"arch": "timm:resnet18"})
        ('resnet18.a1_in1k', 'resnet18')
    """
    known = provenance if isinstance(provenance, Mapping) else {}
    source, arch = known.get("source"), known.get("arch")
    if isinstance(source, str):
        return model_name(source)
    return re.split(r"[:/\\]", arch)[-1] if isinstance(arch, str) else None


def _read_model(
    store: Store,
    name: str,
    folder: str,
    *,
    columns: Mapping[str, Any] | None = None,
    wanted: Collection[int] = (),
    failed: Collection[int] = (),
    opened: bool = True,
) -> Model:
    """A model from the store of its survey, which may be empty."""
    classes = {target: _read_class(store.found[target]) for target in sorted(store.found)}
    size = (0, 0)
    if classes:
        height, width = store.found[next(iter(classes))][0].pattern.mask.shape[1:]
        size = (height, width)
    return Model(
        name,
        folder,
        store.folder,
        columns or {},
        {key: value for key, value in store.summary.items() if key != "rows"},
        classes,
        size,
        failed=len(failed),
        missing=len({*wanted} - {*classes} - {*failed}),
        opened=opened or bool(store.summary),
    )


def _read_class(findings: Sequence[Finding]) -> ClassEntry:
    """A class from the findings on its canvases."""
    [best] = best_of_each(findings)
    name = None if best.class_name is None else str(best.class_name)
    scores = {finding.canvas: finding.scores for finding in findings}
    power = best.search_powers[best.area]
    return ClassEntry(best.target, name, scores, best.canvas, power)

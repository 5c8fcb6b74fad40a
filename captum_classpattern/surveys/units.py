"""A unit of a sweep: one class of one model, on all its canvases. It is found, or it says why
not."""

import copy
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch

from captum_classpattern._validation import ArgumentTypeError, summary_of
from captum_classpattern.classifier import Classifier, preserve_state
from captum_classpattern.classifier.class_names import ClassNames
from captum_classpattern.images import LabelledImages, ensure_labels
from captum_classpattern.surveys.search import SurveySearch, SurveySettings
from captum_classpattern.surveys.sources import ModelSource
from captum_classpattern.surveys.store import Store, findings_file

MODELS_KEPT = 2  # by a worker
OUR_ERRORS = (ValueError, OSError, ImportError, ArgumentTypeError)  # whose words suffice


@dataclass(frozen=True)
class Unit:
    """One class of one model."""

    source: ModelSource
    target: int


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: the reason if it failed, and how long it took, with its search and
    its scoring apart."""

    error: str | None = None
    seconds: float = 0.0
    searching: float = 0.0
    scoring: float = 0.0


@dataclass
class SurveyWork:
    """What all units share: the arguments of :func:`sweep`, and the models and classes that were
    ``chosen`` (None: all). A worker keeps it, with the last models that it opened."""

    folder: Path
    search: LabelledImages
    held_out: LabelledImages
    classes: list[int]
    settings: SurveySettings
    threads: int = 1
    device: str | None = None
    chosen: Collection[tuple[str, int]] | None = None
    _opened: "OrderedDict[str, tuple[SurveySearch, Store] | str]" = field(
        init=False, default_factory=OrderedDict
    )

    def wanted(self, source: ModelSource) -> list[int]:
        """The classes of a model that are searched."""
        if self.chosen is None:
            return self.classes
        return [target for target in self.classes if (source.name, target) in self.chosen]

    def run(self, unit: Unit) -> Outcome:
        """Searches a unit and writes it, unless it is there already. An error is the outcome."""
        started, searching, scoring = perf_counter(), 0.0, 0.0
        try:
            if not findings_file(self.folder, unit.source.folder, unit.target).exists():
                with threads(self.threads):
                    searching, scoring = self._search(unit)
        except Exception as error:
            return Outcome(reason_of(error), perf_counter() - started)
        return Outcome(None, perf_counter() - started, searching, scoring)

    def _search(self, unit: Unit) -> tuple[float, float]:
        """Searches a unit and writes it; returns the seconds of the search, and of the scoring."""
        task, store = self._opened_once(unit.source)
        if unit.target >= task.n_classes:
            raise ValueError(
                f"class {unit.target} is out of range: the model has {task.n_classes} classes, "
                f"numbered from 0 to {task.n_classes - 1}"
            )
        started, before = perf_counter(), task.seconds_searching
        [findings] = task.find([unit.target])
        searching = task.seconds_searching - before
        scoring = perf_counter() - started - searching
        store.add(findings)
        return searching, scoring

    def _opened_once(self, source: ModelSource) -> tuple[SurveySearch, Store]:
        """A model that is ready to be searched, and the folder of its findings. One that can't be
        opened is not tried for each of its classes, unless the reason may pass."""
        if source.name not in self._opened:
            while len(self._opened) >= MODELS_KEPT:
                self._opened.popitem(last=False)
            try:
                self._opened[source.name] = self._open(source)
            except (OSError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                self._opened[source.name] = reason_of(error)
        self._opened.move_to_end(source.name)
        opened = self._opened[source.name]
        if isinstance(opened, str):
            raise ValueError(opened)
        return opened

    def _open(self, source: ModelSource) -> tuple[SurveySearch, Store]:
        model = with_names(source.open(self.device), self.search)
        task = SurveySearch.of(model, self.search, self.held_out, self.settings)
        task.classes = [target for target in self.wanted(source) if target < task.n_classes]
        store = Store(self.folder / source.folder, task.depends_on)
        if not store.summary or not {*task.classes} <= {*store.summary.get("classes", ())}:
            store.write_summary({**task.info, "seconds": store.summary.get("seconds", 0.0)})
        with preserve_state(model, self.settings.seed):  # predicted once, not for each class
            task.search = ensure_labels(model, task.search)
        return task, store


def with_names(model: Classifier, images: LabelledImages) -> Classifier:
    """A model without class names with those of the images; an error if a class of the images is
    another one of the model's. The caller's model stays as it is."""
    names, given = ClassNames.of(model), images.class_names
    if given is None:
        return model
    if names is None:
        placeholders = getattr(model, "class_names", None)
        if isinstance(placeholders, list) and len(placeholders) == len(given):
            model = copy.copy(model)
            model.class_names = list(given)  # type: ignore[attr-defined]
        return model
    present = [] if images.labels is None else sorted(set(images.labels.tolist()))
    for target in present:
        try:
            meant = names.find(given[target]) if target < len(given) else target
        except ValueError:
            continue  # not a name of the model's
        if meant != target:
            raise ValueError(
                f"the model numbers the classes differently: class {target} of the images, "
                f"{given[target]}, is its class {meant}; give its class names if they are wrong, "
                "or sweep it with images numbered like it"
            )
    return model


def reason_of(error: BaseException) -> str:
    """Why a unit failed, in words."""
    text = summary_of(error)
    if isinstance(error, OUR_ERRORS) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Runs a block with this many threads of torch: sums depend on it in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

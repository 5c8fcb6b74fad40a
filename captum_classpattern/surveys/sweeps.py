"""``sweep``: the surveys of many models, here or on a Ray cluster."""

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import torch

from captum_classpattern._support import validation
from captum_classpattern._support.files import check_folder, reason_of
from captum_classpattern._support.progress import passes_bar
from captum_classpattern.adapters.load import check_folders
from captum_classpattern.classifier import device_and_dtype, difference, enter_model, warn
from captum_classpattern.classifier.class_names import ClassNames
from captum_classpattern.images import ImagesAndLabels, LabelledImages, identity_of
from captum_classpattern.optimization.features import check_can_resume
from captum_classpattern.surveys.folder import FINDING, MODEL, RESULTS, Folder, locked
from captum_classpattern.surveys.on_ray import check_engine, run_on_ray
from captum_classpattern.surveys.settings import SurveyOptions, SurveySettings
from captum_classpattern.surveys.sources import LOADING, Models, ModelSource, folder_of, read_models
from captum_classpattern.surveys.survey import (
    check_images,
    find_classes,
    search_classes,
    survey_identity,
)
from captum_classpattern.surveys.sweep_results import SWEEP, Sweep, read_sweep, write_sweep

IDENTITY = ("folder", "path", "hash", *LOADING)  # of a model
Warned: TypeAlias = list[tuple[str, Any]]  # texts and kinds of warnings


def sweep(
    models: Models,
    search: ImagesAndLabels,
    held_out: ImagesAndLabels,
    *,
    folder: str | os.PathLike[str],
    classes: Sequence[int | str] | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    ray_options: Mapping[str, Any] | None = None,
    **options: Unpack[SurveyOptions],
) -> Sweep:
    r"""
    Finds the patterns of many models: a :func:`survey` of each, in a folder of its own.

    Classes are written as soon as they are finished. After an interruption of any kind, the same
    call continues with the missing classes; more models and classes can be added to a folder. A
    failed model stops no other, and the next call tries it again. The same seed and threads give
    the same patterns with each engine, up to the rounding of sums, which depends on the classes
    that are searched together.

    Args:
        models (Mapping, str, PathLike or Sequence): By name: a classifier, a checkpoint, or a
            mapping with ``path``, options of :func:`load_model` and ``device``. Or a list of
            checkpoints and of manifests, see :doc:`../many_models`.
        search, held_out: As in :func:`survey`, in the class numbers of the models.
        folder (str or PathLike): Where everything is written.
        classes (Sequence[int or str], optional): Numbers or names. Default: None (all with images).
        engine (str): "local" (in this process) or "ray" (on a Ray cluster). Default: "local".
        address (str, optional): Address of the Ray cluster, such as ``"auto"``. Default: None (the
            one that is connected, else that of ``RAY_ADDRESS``, else one that is started here).
        workers (int, optional): Surveys at a time, if Ray starts here. Default: None (all cores).
        ray_options (Mapping, optional): What each task needs, such as ``{"num_gpus": 1}``, which
            moves the workers' models to the GPU. Its ``num_cpus`` are a survey's threads, also with
            "local". Default: None (one core).
        areas, canvases, budget, show_progress and all others: As in :func:`survey`.

    Returns:
        *Sweep*: The surveys.

    Raises:
        ImportError: If Ray is needed and not installed.
        TypeError, ValueError: As :func:`survey`; also if the folder holds a sweep of other settings
            or models, or another sweep is writing into it.

    Examples::

        >>> nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        ...         for name in ("old", "new")}
        >>> images, labels = torch.rand(120, 1, 8, 8), torch.arange(120) % 3
        >>> found = sweep(
        ...     nets, (images[:60], labels[:60]), (images[60:], labels[60:]), classes=[0, 2],
        ...     folder=getfixture("tmp_path"), areas=(0.1,), canvases={"white": 1}, n_steps=5)
        >>> [*zip(found.table()["model"], found.table()["name"])]
        [('old', 'class 0'), ('old', 'class 2'), ('new', 'class 0'), ('new', 'class 2')]
    """
    sources, needs = read_models(models), {"num_cpus": 1, **(ray_options or {})}
    shown, options["show_progress"] = options.get("show_progress"), False  # one bar for all
    validation.check_options(sweep, options, SurveyOptions)
    check_engine(engine, address, workers, needs, map(_device_of, sources))
    check_folder(folder)
    images = LabelledImages.of(search, argument="search images")
    unseen = LabelledImages.of(held_out, argument="held-out images")
    settings = SurveySettings.of(images.shape, **options)
    check_can_resume(settings.feature_mask)
    check_images(images, unseen, settings)
    targets = find_classes(classes, ClassNames.of(images), images)
    place = "cuda" if engine == "ray" and needs.get("num_gpus") else None
    threads = max(1, int(needs["num_cpus"]))
    work = Work(Path(folder), images, unseen, settings, targets, threads, place)
    with locked(work.folder):
        begun = work.begin(sources)
        left = [source for source in sources if not work.is_complete(source.name)]
        outcomes: Any = ((source, *work.run(source)) for source in left)
        if engine == "ray":
            outcomes = run_on_ray(work.run, left, address, workers, needs)
        with passes_bar("Sweep", len(left), shown, a_pass=0.0) as bar, closing(outcomes):
            for done, (source, reason, warned) in enumerate(outcomes, 1):
                begun = _note(begun, source.name, reason, warned)
                bar.update(done - bar.n)
    return Sweep.load(work.folder)


def _device_of(source: ModelSource) -> tuple[str, Any]:
    """A model's name, and where it is or will be."""
    device = source.options.get("device") or device_and_dtype(source.model, torch.empty(0))[0]
    return source.name, device


def _note(sweep: Sweep, model: str, reason: str | None, warned: Warned) -> Sweep:
    """Writes down whether a model failed, and passes its warnings on."""
    failures = {**sweep.failures, model: reason}
    sweep = replace(sweep, failures={name: why for name, why in failures.items() if why})
    write_sweep(sweep)
    for text, category in dict.fromkeys(warned):
        warn(f"{text} (model {model!r})", category)
    return sweep


@dataclass(frozen=True)
class Work:
    """What the surveys of all models share, from the arguments of :func:`sweep`."""

    folder: Path
    search: LabelledImages
    held_out: LabelledImages
    settings: SurveySettings
    classes: Sequence[int]
    threads: int
    device: str | None  # of models that don't say where they run

    def begin(self, sources: Sequence[ModelSource]) -> Sweep:
        """Writes sweep.json: models and classes are added to those that are there, if they fit."""
        settings = survey_identity(self.settings, self.search, self.held_out)
        if (self.folder / SWEEP).exists():
            before = read_sweep(self.folder, settings)
        elif (self.folder / RESULTS).exists():
            raise ValueError(f"{self.folder} holds a survey of one model: choose another folder")
        else:
            before = Sweep(self.folder, settings, [], {}, {})
        added = {source.name: self._row_of(source, before) for source in sources}
        rows = {**before.rows, **added}
        check_folders([*rows])
        failures = {
            name: why
            for name, why in before.failures.items()
            if name not in added or not self.is_complete(name)
        }
        classes = sorted({*before.classes, *self.classes})
        begun = replace(before, classes=classes, rows=rows, failures=failures)
        write_sweep(begun)
        return begun

    def _row_of(self, source: ModelSource, before: Sweep) -> dict[str, Any]:
        """The row of a model in sweep.json; an error if another model there has its name."""
        row = {"hash": None, **source.as_dict()}
        if source.name not in before.rows:
            return row
        known = {"hash": None, **before.rows[source.name]}
        failed, hashes = source.name in before.failures, (row["hash"], known["hash"])
        if source.path and (failed or None in hashes):  # the file may be replaced, or gone
            known["hash"] = row["hash"] = hashes[0] or hashes[1]
        if row["hash"] and row["hash"] == known["hash"]:
            known["path"] = row["path"]  # the file was moved
        differing = [
            f"{key} {known.get(key)!r} then, {row.get(key)!r} now"
            for key in IDENTITY
            if known.get(key) != row.get(key)
        ]
        if source.model is not None:
            with suppress(Exception), warnings.catch_warnings(action="ignore"):
                # if both models are known; one that can't be called fails later
                found = Folder(self.folder / folder_of(source.name)).read(RESULTS)
                with enter_model(source.model, self.search.first()) as model:
                    identity = identity_of(model, self.search)
                if other := difference(found["settings"][MODEL], identity):
                    differing = [f"{other} differ"]
        if differing:
            raise ValueError(
                f"{self.folder} holds another model {source.name!r} ({differing[0]}): give this "
                "one another name, or choose another folder"
            )
        return known

    def is_complete(self, name: str) -> bool:
        """Whether all classes of a model are there, and in its summary."""
        folder = self.folder / folder_of(name)
        with suppress(OSError, KeyError, TypeError, ValueError):  # if damaged, its survey fails
            summary = Folder(folder).read(RESULTS)
            if summary["complete"] and {*self.classes} <= {*summary["classes"]}:
                return all((folder / FINDING.format(y)).exists() for y in self.classes)
        return False

    def run(self, source: ModelSource) -> tuple[str | None, Warned]:
        """The survey of a model's missing classes; returns why it failed, and its warnings."""
        threads, reason = torch.get_num_threads(), None
        torch.set_num_threads(self.threads)  # sums depend on it in the last bit
        try:
            with warnings.catch_warnings(record=True) as caught:
                model, folder = source.open(self.device), self.folder / folder_of(source.name)
                with enter_model(model, self.search.first(), self.settings.seed) as checked:
                    search_classes(
                        checked, self.search, self.held_out, self.settings, self.classes, folder
                    )
        except Exception as error:
            reason = reason_of(error)
        finally:
            torch.set_num_threads(threads)
        return reason, [(str(each.message), each.category) for each in caught]

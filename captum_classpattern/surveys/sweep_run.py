"""``sweep``: the patterns of all classes of many models, on one machine or many."""

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from captum_classpattern._validation import ArgumentTypeError, check_count, summary_of
from captum_classpattern.classifier import Classifier
from captum_classpattern.classifier.class_names import ClassNames
from captum_classpattern.images import ImagesAndLabels, LabelledImages
from captum_classpattern.optimization.contest import LEAST_BUDGET, most_canvases
from captum_classpattern.optimization.features import check_for_all
from captum_classpattern.surveys.engines import Engine, Outcome, Unit, find_engine
from captum_classpattern.surveys.search import (
    AREAS,
    CANVASES,
    SurveySearch,
    SurveySettings,
    check_images,
    find_classes,
)
from captum_classpattern.surveys.sources import FIRST_LOOK, Models, ModelSource, read_models
from captum_classpattern.surveys.store import Store, findings_file
from captum_classpattern.surveys.sweep_results import Sweep, begin, locked, note, summarise

FORECAST_AFTER, EVERY = 3, 60.0  # units; seconds between bars in a log file
CHEAPER = 10  # a quick search of all units has a tenth of the passes,
SCORED_ON = 300  # and is scored on few held-out images: these scores are only for the table
MODELS_KEPT = 2  # by a worker
OUR_ERRORS = (ValueError, OSError, ImportError, ArgumentTypeError)  # whose words suffice


def sweep(
    models: Models,
    search: ImagesAndLabels,
    held_out: ImagesAndLabels,
    *,
    folder: str | os.PathLike[str],
    classes: Sequence[int | str] | None = None,
    canvases: Mapping[str, int] = CANVASES,
    areas: Sequence[float] = AREAS,
    budget: int | None = None,
    n_steps: int | None = None,
    max_seconds: float | None = None,
    feature_mask: Tensor | Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    first_look: bool = False,
    keep: float = 0.2,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    gpus_per_task: float | None = None,
    device: str | None = None,
    show_progress: bool = False,
) -> Sweep:
    r"""
    Searches the patterns of many classes of many models, in this process or on a Ray cluster.

    A unit is one class of one model, on all its canvases. Each is searched alone and written as
    soon as it is finished. After an interruption of any kind, the same call continues with the
    units that are missing. A unit that fails is a row of the table that says why, stops no other,
    and is tried again by the next call. More models and classes can be added to a folder.

    The same seed and number of ``threads`` give the same patterns in every engine, bit for bit on
    the same kind of device: a unit depends only on its model, its class and the settings.

    Args:
        models (Mapping, str, PathLike or Sequence): By name: a classifier, a checkpoint, or a
            mapping with ``path``, options of :func:`load_model` such as ``arch``, ``mean`` and
            ``std``, and further columns for the tables. Or a list of checkpoints, folders of
            checkpoints, and manifests, see :doc:`../many_models`.
        search, held_out: As in :func:`survey`, in the class numbers of the models.
        folder (str or PathLike): Where everything is written.
        classes (Sequence[int or str], optional): Which classes, by their numbers, or by the names
            that the images give them. Default: None (all that have search images).
        canvases, areas, budget, n_steps, max_seconds, seed, precision, internal_batch_size: As in
            :func:`survey`, for each unit. With ``max_seconds``, results depend on how fast a
            machine is.
        feature_mask: As in :func:`survey`.
        first_look (bool): Searches all units cheaply first (a tenth of the passes, at the first
            area), and only the best of them fully. Default: False.
        keep (float): With ``first_look``, the share of the units that are searched fully.
            Default: 0.2.
        engine (str): ``"local"`` runs unit after unit in this process. ``"ray"`` runs them as
            tasks of a Ray cluster, which needs the extra ``ray``. Default: "local".
        address (str, optional): Of the Ray cluster, such as ``"auto"``. Default: None (the one that
            is connected, else that of ``RAY_ADDRESS``, else one that is started here).
        workers (int, optional): Units at a time on a cluster that is started here. Default: None
            (as many as this process may use cores).
        threads (int): Threads of each unit. Default: 1.
        gpus_per_task (float, optional): GPUs of each unit, also a fraction. Default: None (0).
        device (str, optional): Where checkpoints, and the workers' copies of models, are moved to.
            Default: None ("cuda" with ``gpus_per_task``, else they stay).
        show_progress (bool): Writes units done, failed and left, and what the sweep will cost, to
            standard error: in a log file once a minute. Default: False.

    Returns:
        *Sweep*: The findings.

    Raises:
        ImportError: If ``engine="ray"`` and Ray is not installed.
        TypeError, ValueError: As :func:`survey`; also if the folder holds a sweep of other settings
            or models, or another sweep is writing into it.

    Examples::

        >>> nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        ...         for name in ("old", "new")}
        >>> labels = torch.arange(60) % 3
        >>> search = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> held_out = LabelledImages(torch.rand(60, 1, 8, 8), labels)
        >>> found = sweep(nets, search, held_out, folder=getfixture("tmp_path"), areas=(0.1,),
        ...               canvases={"white": 1}, n_steps=5)
        >>> found.table()[["model", "class", "canvas", "area"]]
          model  class canvas  area
        0   old      0  white   0.1
        1   old      1  white   0.1
        2   old      2  white   0.1
        3   new      0  white   0.1
        4   new      1  white   0.1
        5   new      2  white   0.1
    """
    sources = read_models(models)
    settings = SurveySettings.of(locals(), show_progress=False, keep=1)  # not the share
    check_count("threads", threads)
    if not 0 < keep <= 1:
        raise ValueError(f"`keep` must be a share above 0 and up to 1, got {keep!r}")
    run_units = find_engine(
        engine, threads, address=address, workers=workers, gpus_per_task=gpus_per_task
    )
    search, held_out = check_images(search, held_out, settings.areas)
    check_for_all(settings.feature_mask, search.shape[1:])
    if classes is not None:
        targets = find_classes(classes, search)
    elif search.labels is None:
        raise ValueError("the search images have no labels: say which classes to search")
    else:
        targets = sorted(set(search.labels.tolist()))
    given = [source.name for source in sources if source.fetch is not None]
    if given and device is not None and engine == "local":
        raise ValueError(
            f"`device={device!r}` is for checkpoints: move the model {given[0]!r} there "
            "yourself, and leave `device` out"
        )
    work = SurveyWork(
        Path(folder),
        search,
        held_out,
        settings,
        {source.name: targets for source in sources},
        threads,
        "cuda" if device is None and gpus_per_task else device,
    )
    with locked(work.folder):
        found = begin(work.folder, work.depends_on, sources, targets)
        if first_look:
            best = _look(work, sources, targets, run_units, keep, show_progress)
            work.wanted = {
                source.name: [y for y in targets if (source.name, y) in best] for source in sources
            }
        run_missing(found, work, run_units, "sweep", show_progress)
    return found


# ---- units


@dataclass
class SurveyWork:
    """What all units share, from the arguments of :func:`sweep`. A worker keeps it, with the last
    models that it opened, or why one can't be opened."""

    folder: Path
    search: LabelledImages
    held_out: LabelledImages
    settings: SurveySettings
    wanted: Mapping[str, Sequence[int]]  # the classes of each model
    threads: int = 1
    device: str | None = None
    _opened: dict[str, tuple[SurveySearch, Store] | str] = field(init=False, default_factory=dict)

    @property
    def depends_on(self) -> dict[str, Any]:
        """Everything that the findings depend on, but for the models."""
        manifest = self.settings.as_manifest(self.search, self.held_out)
        return {**manifest, "threads": self.threads}

    def run(self, unit: Unit) -> Outcome:
        """Searches a unit and writes it, unless it is there already. An error is the outcome."""
        started, error, threads = perf_counter(), None, torch.get_num_threads()
        torch.set_num_threads(self.threads)  # sums depend on it in the last bit
        try:
            if not findings_file(self.folder / unit.source.folder, unit.target).exists():
                task, store = self._open(unit.source)
                if unit.target >= task.n_classes:
                    raise ValueError(
                        f"class {unit.target} is out of range: the model has {task.n_classes} "
                        f"classes, numbered from 0 to {task.n_classes - 1}"
                    )
                [findings] = task.find([unit.target])
                store.add(findings)
        except Exception as caught:
            error = reason_of(caught)
        finally:
            torch.set_num_threads(threads)
        return Outcome(error, perf_counter() - started)

    def _open(self, source: ModelSource) -> tuple[SurveySearch, Store]:
        """A model that is ready to be searched, and the folder of its findings. One that can't be
        opened is not tried for each of its classes, unless the reason may pass."""
        if source.name not in self._opened:
            while len(self._opened) >= MODELS_KEPT:
                del self._opened[next(iter(self._opened))]
            try:
                model, images = source.open(self.device), (self.search, self.held_out)
                names = class_names_of(model, self.search)
                task = SurveySearch(model, *images, self.settings, class_names=names)
                task.classes = [y for y in self.wanted[source.name] if y < task.n_classes]
                store = Store(self.folder / source.folder, task.depends_on)
                known = store.summary
                if not known or not {*task.classes} <= {*known.get("classes", ())}:
                    store.write_summary({**task.info, "seconds": known.get("seconds", 0.0)})
                self._opened[source.name] = task, store
            except (OSError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                self._opened[source.name] = reason_of(error)
        opened = self._opened[source.name]
        if isinstance(opened, str):
            raise ValueError(opened)
        return opened


def class_names_of(model: Classifier, images: LabelledImages) -> Sequence[str] | None:
    """The names of a model's classes, or else those of the images; an error if a class of the
    images is another one of the model's."""
    names, given = ClassNames.of(model), images.class_names
    if names is None or given is None:
        return given
    present = [] if images.labels is None else sorted(set(images.labels.tolist()))
    named = {target: given[target] for target in present if target < len(given)}
    for target, meant in names.misplaced(named).items():
        raise ValueError(
            f"the model numbers the classes differently: class {target} of the images, "
            f"{given[target]}, is its class {meant}; give its class names if they are wrong, or "
            "sweep it with images numbered like it"
        )
    return names.names


def reason_of(error: BaseException) -> str:
    """Why a unit failed, in words."""
    text = summary_of(error)
    if isinstance(error, OUR_ERRORS) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _look(
    work: SurveyWork, sources: Sequence[ModelSource], classes: Sequence[int],
    run_units: Engine, keep: float, show: bool,
) -> set[tuple[str, int]]:  # fmt: skip
    """Searches all units cheaply; returns those that are worth a full search."""
    quick, images = replace(work, folder=work.folder / FIRST_LOOK), len(work.search)
    quick.settings = cheap(work.settings)
    if work.held_out.labels is not None:
        quick.held_out = work.held_out.stratified_sample(SCORED_ON)
    passes = work.settings.expected_passes(images, len(work.held_out))
    times_as_long = passes / quick.settings.expected_passes(images, len(quick.held_out))

    def forecast(seconds: float) -> str:
        each = times_as_long * seconds
        return (
            f"Searching the best {100 * keep:.0f} % in full takes up to {duration(each)} per unit, "
            f"{duration(each * keep * len(sources) * len(classes))} in total with one worker."
        )

    look = begin(quick.folder, quick.depends_on, sources, classes)
    run_missing(look, quick, run_units, "first look", show, forecast)
    return choose(look, sources, classes, keep)


def run_missing(
    found: Sweep,
    work: SurveyWork,
    run_units: Engine,
    name: str = "sweep",
    show: bool = False,
    forecast: Callable[[float], str] = lambda _: "",
) -> None:
    """Runs the units that are missing, and keeps what becomes of them. ``forecast`` says more of
    the mean seconds of those that were found, after the first three and at the end."""

    def missing(model: str) -> list[int]:
        done = found.finished(model)
        return [target for target in work.wanted[model] if target not in done]

    left = Counter({model: len(missing(model)) for model in work.wanted})
    for model in left:
        if not left[model]:
            summarise(found.folder_of(model))  # it may have been stopped just before
    units = (Unit(found.sources[model], y) for model in work.wanted for y in missing(model))
    if not left.total():
        return
    seconds = dict.fromkeys(left, 0.0)
    took: list[float] = []  # the seconds of each unit that was found

    with (
        unit_bar(left.total(), name, show) as bar,
        closing(run_units(work.run, units)) as outcomes,  # type: ignore[type-var]
    ):
        for unit, outcome in outcomes:
            model = unit.source.name
            left[model] -= 1
            seconds[model] += outcome.seconds
            note(found.folder, unit.source, unit.target, outcome.error)
            if outcome.error is None:
                took.append(outcome.seconds)
            else:
                bar.set_postfix(failed=bar.n + 1 - len(took), refresh=False)
            if not left[model]:
                summarise(found.folder_of(model), seconds.pop(model))
            bar.update()
            more = left.total()
            if show and len(took) == FORECAST_AFTER and outcome.error is None and more:
                each = fmean(took)
                cost = (
                    f"{name}: {more} unit{'s' * (more > 1)} left, about {duration(each)} each: "
                    f"{duration(each * more)} of one worker."
                )
                bar.write(f"{cost}\n{forecast(each)}".strip(), sys.stderr)
        if show and took and (text := forecast(fmean(took))):
            bar.write(text, sys.stderr)


def unit_bar(total: int, name: str, show: bool) -> "tqdm[Any]":
    """A bar of units on standard error, which a log file gets once a minute."""
    every = 0.1 if sys.stderr.isatty() else EVERY
    options = {"mininterval": every, "maxinterval": every, "disable": not show}
    return tqdm(total=total, desc=name, unit="unit", dynamic_ncols=True, **options)


def cheap(settings: SurveySettings) -> SurveySettings:
    """The settings of a quick search: only the first area, a tenth of the passes, and no more
    canvases than these are enough for."""
    budget = max(LEAST_BUDGET, settings.passes // CHEAPER)
    most = most_canvases(budget)
    canvases = {kind: min(n, most) for kind, n in settings.canvases.items()}
    first = replace(settings, areas=settings.areas[:1], canvases=canvases)
    if settings.n_steps is None:
        return replace(first, budget=budget)
    return replace(first, n_steps=max(1, settings.n_steps // 4))


def choose(
    look: Sweep, sources: Sequence[ModelSource], classes: Collection[int], keep: float
) -> set[tuple[str, int]]:
    """The best units of a quick search, as (model, class), by their power on the judging images.
    These are search images: the held-out images, which score the patterns in the end, decide
    nothing."""
    targets = set(classes)
    powers = {
        (source.name, finding.target): finding.search_powers[finding.area]
        for source in sources
        for finding in look.best_canvases(source.name)
        if finding.target in targets
    }
    best = sorted(powers, key=lambda unit: -powers[unit])
    return {*best[: math.ceil(keep * len(best) - 1e-9)]}


def duration(seconds: float) -> str:
    """A time with two digits or so, in the unit that suits it."""
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"

"""``sweep``: the patterns of all classes of many models, on one machine or many."""

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from captum_classpattern._validation import check_count, check_positive, is_whole
from captum_classpattern.attribution import versions
from captum_classpattern.classifier.class_names import ClassNames
from captum_classpattern.images import ImagesAndLabels, LabelledImages, hash_of_images
from captum_classpattern.optimization.contest import LEAST_BUDGET, most_canvases
from captum_classpattern.surveys.engines import ENGINES, Work, import_ray, run_locally, run_on_ray
from captum_classpattern.surveys.results import AREAS, CANVASES
from captum_classpattern.surveys.search import SurveySettings, check_images
from captum_classpattern.surveys.sources import FIRST_LOOK, Models, ModelSource, read_models
from captum_classpattern.surveys.store import VERSION, SweepFolder
from captum_classpattern.surveys.sweep_results import Sweep
from captum_classpattern.surveys.units import Outcome, SurveyWork, Unit

FORECAST_AFTER, EVERY = 3, 60.0  # units; seconds between bars in a log file
CHEAPER = 10  # times fewer passes in a first look
SCORED_ON = 300  # held-out images of a first look: its scores are for the table alone
Engine = Callable[[Work, Iterator[Unit]], Iterator[tuple[Unit, Outcome]]]


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
            checkpoints, and manifests, see :doc:`../sweep`.
        search, held_out: As in :func:`survey`, in the class numbers of the models.
        folder (str or PathLike): Where everything is written.
        classes (Sequence[int or str], optional): Which classes, by their numbers, or by the names
            that the images give them. Default: None (all that have search images).
        canvases, areas, budget, n_steps, max_seconds, seed, precision, internal_batch_size: As in
            :func:`survey`, for each unit. With ``max_seconds``, results depend on how fast a
            machine is.
        first_look (bool): Searches all units cheaply first (a tenth of the passes, at the first
            area), and only the best of them fully. Default: False.
        keep (float): The share of the units that a first look leaves. Default: 0.2.
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
    run_units = _find_engine(engine, address, workers, threads, gpus_per_task)
    search, held_out = check_images(search, held_out, settings.areas)
    targets = _find_classes(classes, search)
    task = SurveyWork(
        Path(folder),
        search,
        held_out,
        targets,
        settings,
        threads,
        "cuda" if device is None and gpus_per_task else device,
    )
    given = {source.name: source.fetch() for source in sources if source.fetch is not None}
    if given and device is not None and engine == "local":
        raise ValueError(
            f"`device={device!r}` is for checkpoints: move the model {next(iter(given))!r} there "
            "yourself, and leave `device` out"
        )
    files = SweepFolder(Path(folder))
    with files.locked():
        _begin(files, task, sources)
        if first_look:
            task.chosen = _look(task, sources, run_units, keep, show_progress)
        run_missing(files, task, sources, run_units, "sweep", show_progress)
    return Sweep(folder, {source.name: source for source in sources})


def _find_engine(
    engine: str,
    address: str | None,
    workers: int | None,
    threads: int,
    gpus_per_task: float | None,
) -> Engine:
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "local":
        options = {"address": address, "workers": workers, "gpus_per_task": gpus_per_task}
        unused = [name for name, value in options.items() if value is not None]
        if unused:
            raise ValueError(f"`{unused[0]}` is for `engine='ray'`: leave it out, or choose that")
        return run_locally
    import_ray()
    if workers is not None:
        check_count("workers", workers)
    if gpus_per_task is not None:
        check_positive("gpus_per_task", gpus_per_task)
    return partial(
        run_on_ray,
        address=address,
        workers=workers,
        threads=threads,
        gpus_per_task=gpus_per_task,
    )


def _find_classes(classes: Sequence[int | str] | None, search: LabelledImages) -> list[int]:
    """The numbers of the classes, without a look at any model."""
    if classes is None:
        if search.labels is None:
            raise ValueError("the search images have no labels: say which classes to search")
        return sorted(set(search.labels.tolist()))
    if len(classes) == 0:
        raise ValueError("`classes` is empty: leave it out to search all")
    names = None if search.class_names is None else ClassNames(search.class_names)
    found: list[int] = []
    for given in classes:
        if isinstance(given, str):
            if names is None:
                raise ValueError(
                    f"the class {given!r} is a name, but the images have no class names: give "
                    "numbers"
                )
            found.append(names.find(given))
        elif is_whole(given) and given >= 0:
            found.append(int(given))
        else:
            raise ValueError(f"`classes` must be numbers from 0 or names, got {given!r}")
    return list(dict.fromkeys(found))


def _begin(files: SweepFolder, task: SurveyWork, sources: Sequence[ModelSource]) -> None:
    settings = {
        "search_images": hash_of_images(task.search),
        "held_out_images": hash_of_images(task.held_out),
        **task.settings.as_manifest(),
        "threads": task.threads,
        VERSION: versions()[VERSION],
    }
    files.begin(settings, sources, task.classes)


def _look(
    task: SurveyWork, sources: Sequence[ModelSource], run_units: Engine, keep: float, show: bool
) -> set[tuple[str, int]]:
    """Searches all units cheaply; returns those that are worth a full search."""
    quick, held_out = cheap(task.settings), task.held_out
    if held_out.labels is not None:
        held_out = held_out.stratified_sample(SCORED_ON)
    look = replace(task, folder=task.folder / FIRST_LOOK, held_out=held_out, settings=quick)
    files = SweepFolder(look.folder)
    _begin(files, look, sources)
    searching = search_cost(task.settings) / search_cost(quick)  # times as much
    scoring = task.settings.images_scored(len(task.held_out)) / quick.images_scored(len(held_out))
    count = len(sources) * len(task.classes)

    def forecast(found: Sequence[Outcome]) -> str:
        each = searching * fmean(one.searching for one in found)
        each += scoring * fmean(one.scoring for one in found)
        return (
            f"The full search of the best {keep:.0%} takes at most about {duration(each)} a unit, "
            f"{duration(each * keep * count)} of one worker in all."
        )

    run_missing(files, look, sources, run_units, "first look", show, forecast)
    return choose(Sweep(look.folder), sources, task.classes, keep)


def run_missing(
    files: SweepFolder,
    task: Work,
    sources: Sequence[ModelSource],
    run_units: Engine,
    name: str = "sweep",
    show: bool = False,
    forecast: Callable[[Sequence[Outcome]], str] | None = None,
) -> None:
    """Runs the units that are missing, and keeps what becomes of them. ``forecast`` says more of
    the units that were found, after the first three and at the end."""

    def missing(source: ModelSource) -> list[int]:
        done = files.finished(source.folder)
        return [target for target in task.wanted(source) if target not in done]

    left: Counter[str] = Counter()
    for source in sources:
        left[source.name] = len(missing(source))
        if not left[source.name] and files.summary_is_old(source):
            files.summarise(source, 0.0)  # it was stopped just before
    units = (Unit(source, target) for source in sources for target in missing(source))
    if not left.total():
        return
    seconds = dict.fromkeys(left, 0.0)
    found: list[Outcome] = []
    bar = unit_bar(left.total(), name, show)

    def write(text: str) -> None:
        if show:
            tqdm.write(text, file=sys.stderr)

    with bar, closing(run_units(task, units)) as outcomes:  # type: ignore[type-var]
        for unit, outcome in outcomes:
            left[unit.source.name] -= 1
            seconds[unit.source.name] += outcome.seconds
            if outcome.error is None:
                files.succeed(unit.source, unit.target)
                found.append(outcome)
            else:
                files.fail(unit.source, unit.target, outcome.error)
                bar.set_postfix(failed=bar.n + 1 - len(found), refresh=False)
            if not left[unit.source.name]:
                files.summarise(unit.source, seconds.pop(unit.source.name))
            bar.update()
            if len(found) == FORECAST_AFTER and outcome.error is None and left.total():
                each, more = fmean(one.seconds for one in found), left.total()
                write(
                    f"{name}: {more} unit{'s' * (more > 1)} left, about {duration(each)} each: "
                    f"{duration(each * more)} of one worker."
                )
                if forecast:
                    write(forecast(found))
        if forecast and found:
            write(forecast(found))


def unit_bar(total: int, name: str, show: bool) -> "tqdm[Any]":
    """A bar of units on standard error, which a log file gets once a minute."""
    every = 0.1 if sys.stderr.isatty() else EVERY
    options = {"mininterval": every, "maxinterval": every, "disable": not show}
    return tqdm(total=total, desc=name, unit="unit", dynamic_ncols=True, **options)


def cheap(settings: SurveySettings) -> SurveySettings:
    """The settings of a first look: the first area alone, a tenth of the passes, and as many
    canvases as these can make use of."""
    budget = max(LEAST_BUDGET, settings.passes // CHEAPER)
    most = most_canvases(budget)
    canvases = {kind: min(n, most) for kind, n in settings.canvases.items()}
    first = replace(settings, areas=settings.areas[:1], canvases=canvases)
    if settings.n_steps is None:
        return replace(first, budget=budget)
    return replace(first, n_steps=max(1, settings.n_steps // 4))


def search_cost(settings: SurveySettings) -> float:
    """What the search of a unit costs, to compare settings of one sweep: about its passes, or its
    rounds."""
    if settings.n_steps is None:
        each = float(len(settings.canvases) * settings.passes)
    else:
        each = float(sum(settings.canvases.values()) * settings.n_steps)
    return len(settings.areas) * each


def choose(
    look: Sweep, sources: Sequence[ModelSource], classes: Collection[int], keep: float
) -> set[tuple[str, int]]:
    """The best share of the units of a first look: (model, class), by the power on the judging
    images, which are search images. So the held-out images, on which the patterns are scored in
    the end, decide nothing."""
    table = look.table()
    asked = table["model"].isin([source.name for source in sources]) & table["class"].isin(classes)
    found = table[asked & table["error"].isna()]
    powers = found.groupby(["model", "class"], sort=False)["search_power"].max()
    best = powers.sort_values(ascending=False, kind="stable").index
    return {*best[: math.ceil(keep * len(best) - 1e-9)]}


def duration(seconds: float) -> str:
    """A time with two digits or so, in the unit that suits it.

    Examples::

        >>> duration(48), duration(5_400), duration(400_000)
        ('48 s', '90 min', '111 h')
    """
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"

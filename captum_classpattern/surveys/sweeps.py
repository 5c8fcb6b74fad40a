"""``sweep``: the surveys of many models, here or on a Ray cluster; and ``Sweep``, their folder."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import nan
from pathlib import Path
from statistics import fmean, median
from typing import Any, Unpack

import torch
from filelock import FileLock, Timeout

from captum_classpattern._support import validation
from captum_classpattern._support.files import check_folder, reading, reason_of
from captum_classpattern._support.formats import shortened
from captum_classpattern._support.progress import passes_bar
from captum_classpattern._support.validation import counted
from captum_classpattern.adapters.load import check_folders
from captum_classpattern.classifier import difference, enter_model, warn
from captum_classpattern.classifier.class_names import (
    ClassNames,
    common_names,
    distinct_names,
    label_of,
)
from captum_classpattern.images import ImagesAndLabels, LabelledImages, identity_of
from captum_classpattern.optimization.features import check_can_resume
from captum_classpattern.results import Result, as_table, as_texts, fitting
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.folder import MODEL, REMEDY, RESULTS, Folder
from captum_classpattern.surveys.results import Survey
from captum_classpattern.surveys.settings import SurveyOptions, SurveySettings
from captum_classpattern.surveys.sources import LOADING, Models, ModelSource, folder_of, read_models
from captum_classpattern.surveys.survey import check_images, find_classes, key_of, search_classes

SWEEP = "sweep.json"
IDENTITY = ("folder", "path", "hash", *LOADING)  # of a model
RETRIES = 3  # of a survey whose worker or node dies
MOST_MODELS = 50  # in the table of a notebook
TO_SCAN = (
    "A difference does not show a backdoor, and a backdoored model need not differ. To ask whether "
    "a model is backdoored, run classpattern scan on it."
)
sweep_folder = partial(Folder, kind="sweep", format="captum_classpattern sweep")


@dataclass(frozen=True, repr=False)
class Sweep(Result):
    r"""
    The surveys in a sweep's folder, finished or not, as they were when it was read: load it again
    for what a running sweep has added. A notebook and ``plot()`` show the power of each class
    (columns) of each model (rows) at the first area.

    Attributes:
        folder (Path): The folder.
        settings (Mapping): What the findings depend on.
        classes (list[int]): The classes that were searched or will be.
        rows (Mapping[str, Mapping]): The row of each model in the file, by its name.
        failures (Mapping[str, str]): The models that failed, and why.
        surveys (Mapping[str, Survey]): By model what was found; nothing, if it is damaged.
    """

    folder: Path
    settings: Mapping[str, Any]
    classes: list[int]
    rows: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, str]
    surveys: Mapping[str, Survey] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Sweep":
        """Reads the surveys in a sweep's folder; an error if there is none. A model with a damaged
        file is among the failures. Patterns are read when they are used."""
        unread = _read_models(Path(folder))
        surveys, failures = {}, dict(unread.failures)
        for name in unread.rows:
            place = unread.folder / folder_of(name)
            try:
                surveys[name] = Survey.load(place) if (place / RESULTS).exists() else Survey()
            except ValueError as error:
                failures.setdefault(name, str(error))
        return replace(unread, surveys=surveys, failures=failures)

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return [*self.rows]

    def __repr__(self) -> str:
        return f"Sweep({counted(len(self.models), 'model')}, {self._classes})"

    @property
    def _classes(self) -> str:
        failed = f", {len(self.failures):,} failed" * bool(self.failures)
        return f"{counted(len(self.classes), 'class', 'classes')}{failed}"

    def survey(self, model: str) -> Survey:
        """The survey of one model by its name; an empty one if nothing was found so far."""
        if model not in self.rows:
            raise ValueError(f"the sweep has no model {model!r}: it has {', '.join(self.models)}")
        return self.surveys.get(model, Survey())

    def table(self, full: bool = False) -> Any:
        """A row for each model, class, kind of canvas and area: ``model`` and ``name``, then as
        :meth:`Finding.table`. With ``full`` also all of its columns, the power on the validation
        images (``search_power``), and rows of the models that failed, with the reason
        (``error``)."""
        rows: list[dict[str, Any]] = []
        for name in self.models:
            for finding in self.survey(name):
                powers = finding.search_powers
                rows += (
                    {"model": name, **row, "search_power": powers[row["area"]], "error": None}
                    for row in finding.rows()
                )
        failed = ({"model": name, "error": why} for name, why in self.failures.items())
        return fitting([*rows, *failed] if full else rows, ("model", "name"), full)

    @cached_property
    def best(self) -> dict[int, dict[str, Finding]]:
        """Of each class, by model, the finding that did best on the validation images. Classes and
        models are in the order of the sweep, which is that of all tables, figures and pages."""
        by_class: dict[int, dict[str, Finding]] = {target: {} for target in self.classes}
        for name in self.models:
            for finding in self.survey(name).best_canvases():
                by_class.setdefault(finding.target, {})[name] = finding
        return by_class

    @cached_property
    def leads(self) -> list[tuple[float, float, Finding, str]]:
        """Of each class that several models have, the largest first: how far the strongest model's
        power is above the median of the others, this median, the finding and the model."""
        found = []
        for by_model in self.best.values():
            first, *others = sorted(by_model, key=lambda name: -by_model[name].power.value) or [""]
            if others:
                usual = median(by_model[name].power.value for name in others)
                lead = by_model[first].power.value - usual
                found.append((lead, usual, by_model[first], first))
        return sorted(found, key=lambda each: -each[0])

    def text(self) -> str:
        """Where the models differ, and what does not follow from it."""
        area, said = float(self.settings["areas"][0]), f"{self._classes}."
        if self.leads and not self.leads[0][0]:
            said += " The models do not differ in their strongest patterns."
        for _, usual, finding, model in (each for each in self.leads[:1] if each[0]):
            rest = [name for name in self.best[finding.target] if name != model]
            whose = rest[0] if len(rest) == 1 else f"the median of the {len(rest):,} others"
            said += (
                f" The models differ most in {finding.label}: {100 * finding.power.value:.1f} % in "
                f"{model}, {100 * usual:.1f} % in {whose}.\n{TO_SCAN}"
            )
        models = counted(len(self.models), "model")
        return f"Class patterns of {models}: power of {100 * area:.3g} % of the pixels\n{said}"

    def shown_table(self) -> Any:
        """A row for each model, of the best canvases at the first area."""
        table = as_table(self._shown_row(name) for name in self.models)
        return as_texts(table, {name: ".1%" if name == "power" else "" for name in table})

    def _shown_row(self, name: str) -> dict[str, Any]:
        best = [by_model[name] for by_model in self.best.values() if name in by_model]
        scores, failed = [each.scores[each.area] for each in best], name in self.failures
        enough = any(each.enough_images for each in scores)
        above = sum(each.beats_controls for each in scores) if enough else "too few images"
        leads = [
            f"{shortened(finding.label)}, {100 * lead:+.0f} points"
            for lead, _, finding, model in self.leads
            if model == name and lead
        ]
        return {
            "model": name,
            "power": fmean(each.power.value for each in scores) if scores else None,
            "classes": f"{len(best)} of {len(self.classes)}{', failed' * failed}",
            "above_controls": above if scores else None,
            "furthest_above_others": leads[0] if leads else None,
        }

    def sections(self, whole: bool) -> Iterable[Any]:
        models = self.shown_table()
        figure = [self.plot] * ("power" in models)
        if whole or len(models) <= MOST_MODELS:
            return [*figure, models]
        few = f"The first {MOST_MODELS} of {len(models):,} models:"
        return [*figure, few, models.head(MOST_MODELS)]

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        from captum_classpattern.pages.site import write_site

        return write_site(self, Path(path))

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.heat_map import plot_heat_map

        named = {y: [each.class_name for each in of.values()] for y, of in self.best.items()}
        names = {y: shortened(next(filter(None, of), label_of(y))) for y, of in named.items()}
        labels = distinct_names(names)
        models = distinct_names({i: shortened(name) for i, name in enumerate(self.models)})
        values, faint = dict[str, dict[str, float]](), set[tuple[str, str]]()
        for name, model in zip(self.models, models.values()):
            best = {labels[y]: of.get(name) for y, of in self.best.items() if of}
            values[model] = {y: each.power.value if each else nan for y, each in best.items()}
            scores = {y: each.scores[each.area] for y, each in best.items() if each}
            faint |= {(model, y) for y, each in scores.items() if each.is_weak}
        area = 100 * float(self.settings["areas"][0])
        title = f"Predictive power of {area:.3g} % of the pixels of the best canvas"
        return plot_heat_map(values, faint=faint, title=title, use_pyplot=use_pyplot)


def _read_models(folder: Path) -> Sweep:
    """The sweep in a folder, without its surveys."""
    if not (folder / SWEEP).exists():
        raise FileNotFoundError(f"there is no {SWEEP} of a sweep in {folder}")
    data = sweep_folder(folder).read(SWEEP)
    with reading(folder / SWEEP, "is not from a sweep", REMEDY):
        rows = {row["name"]: row for row in data["models"]}
        check_folders([name for name in rows if folder_of(name)])
        validation.check_area(data["settings"]["areas"][0])
        failures = {name: str(why) for name, why in data.get("failures", {}).items()}
        return Sweep(folder, data["settings"], [*map(int, data["classes"])], rows, failures)


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
    Searches the patterns of many models: a :func:`survey` of each, in a folder of its own.

    Classes are written as soon as they are finished. After an interruption of any kind, the same
    call continues with the missing classes; more models and classes can be added to a folder. A
    model that fails stops no other, and is tried again by the next call. The same seed and threads
    give the same patterns with each engine, bit for bit on the same kind of device, if no call was
    interrupted; ``classes_together=1`` gives them in any case.

    Args:
        models (Mapping, str, PathLike or Sequence): By name: a classifier, a checkpoint, or a
            mapping with ``path``, options of :func:`load_model` and ``device``. Or a list of
            checkpoints and of manifests, see :doc:`../many_models`.
        search, held_out: As in :func:`survey`, in the class numbers of the models.
        folder (str or PathLike): Where everything is written.
        classes (Sequence[int or str], optional): Numbers or names. Default: None (all with images).
        engine (str): "local" (in this process) or "ray" (on a Ray cluster). Default: "local".
        address (str, optional): Of the Ray cluster, such as ``"auto"``. Default: None (the one that
            is connected, else that of ``RAY_ADDRESS``, else one that is started here).
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
    validation.check_options("sweep", options, SurveyOptions)
    _check_engine(engine, address, workers, needs, sources)
    check_folder(folder)
    images = LabelledImages.of(search, argument="search images")
    unseen = LabelledImages.of(held_out, argument="held-out images")
    settings = SurveySettings.of(images.shape, **options)
    check_can_resume(settings.feature_mask)
    check_images(images, unseen, settings)
    targets = find_classes(classes, ClassNames.of(images), images)
    settings.check_budget()
    passes = len(unseen) / 2 + settings.expected_passes(images, unseen, targets)  # of a model
    on_gpu = engine == "ray" and bool(needs.get("num_gpus"))
    threads = max(1, int(needs["num_cpus"]))
    work = Work(Path(folder), images, unseen, settings, targets, threads, on_gpu)
    work.folder.mkdir(parents=True, exist_ok=True)
    try:  # the operating system lifts the lock when the process ends, however it ends
        lock = FileLock(work.folder / ".lock", timeout=0).acquire()
    except Timeout:
        words = f"another sweep is writing into {folder}: wait for it or stop it"
        raise ValueError(words) from None
    with lock:
        begun = _begin(work, sources)
        left = [source for source in sources if not work.is_complete(source.name)]
        outcomes: Any = ((source, *work.run(source)) for source in left)
        if engine == "ray":
            outcomes = _run_on_ray(work, left, address, workers, needs)
        with passes_bar("Sweep", passes * len(left), shown) as bar, closing(outcomes):
            for done, (source, error, warned) in enumerate(outcomes, 1):
                failures = {**begun.failures, source.name: error}
                begun = replace(begun, failures={m: why for m, why in failures.items() if why})
                _write(begun)
                bar.update(done * passes - bar.n)
                for text, category in dict.fromkeys(warned):
                    warn(f"{text} (model {source.name!r})", category)
    return Sweep.load(work.folder)


def _check_engine(
    engine: str, address: str | None, workers: int | None, needs: Mapping[str, Any],
    sources: Sequence[ModelSource],
) -> None:  # fmt: skip
    """Raises an error unless the surveys can be run as they should, before anything is written."""
    if engine not in ("local", "ray"):
        raise ValueError(f"engine must be local or ray, got {engine!r}")
    if engine == "local" and (address, workers) != (None, None):
        raise ValueError("`address` and `workers` are for `engine='ray'`")
    if engine == "ray":
        validation.import_optional("ray")
    validation.check_count("workers", 1 if workers is None else workers)
    for name in needs.keys() & {"num_cpus", "num_gpus"}:
        validation.check_positive(name, 1 if needs[name] == 0 else needs[name])
    on_gpu = [source.name for source in sources if source.needs_gpu]
    if engine == "ray" and on_gpu and not needs.get("num_gpus"):  # all would take the first GPU
        raise ValueError(
            f"the model {on_gpu[0]!r} is for a GPU, but its task has none: ask for one by "
            '`ray_options`, such as {"num_gpus": 1}, or for a share of one'
        )


@dataclass(frozen=True)
class Work:
    """What the surveys of all models share, from the arguments of :func:`sweep`."""

    folder: Path
    search: LabelledImages
    held_out: LabelledImages
    settings: SurveySettings
    classes: Sequence[int]
    threads: int
    on_gpu: bool

    def run(self, source: ModelSource) -> tuple[str | None, list[tuple[str, type[Warning]]]]:
        """The survey of a model's missing classes; returns why it failed, and its warnings."""
        threads, reason = torch.get_num_threads(), None
        torch.set_num_threads(self.threads)  # sums depend on it in the last bit
        try:
            with warnings.catch_warnings(record=True) as caught:
                model, sample = source.open("cuda" if self.on_gpu else None), self.search.first()
                common_names(model, self.held_out.class_names, self.held_out.labels)
                names = common_names(model, self.search.class_names, self.search.labels)
                images, folder = (self.search, self.held_out), self.folder / folder_of(source.name)
                with enter_model(model, sample, self.settings.seed) as checked:
                    search_classes(checked, *images, self.settings, self.classes, names, folder)
        except Exception as error:
            reason = reason_of(error)
        finally:
            torch.set_num_threads(threads)
        return reason, [(str(each.message), each.category) for each in caught]

    def difference_from(self, source: ModelSource) -> str:
        """How a model that was given as it is differs from that of its folder, if both are known;
        one that can't be called fails later."""
        with suppress(Exception), warnings.catch_warnings(action="ignore"):
            found = Folder(self.folder / folder_of(source.name)).read(RESULTS)
            with enter_model(source.model, self.search.first()) as checked:
                return difference(found["settings"][MODEL], identity_of(checked, self.search))
        return ""

    def is_complete(self, model: str) -> bool:
        """Whether all classes of a model are there, and in its summary."""
        folder = self.folder / folder_of(model)
        with suppress(OSError, KeyError, TypeError, ValueError):  # if damaged, its survey fails
            summary = Folder(folder).read(RESULTS)
            if summary["complete"] and {*self.classes} <= {*summary["classes"]}:
                return all((folder / f"findings/{y}.json").exists() for y in self.classes)
        return False


def _begin(work: Work, sources: Sequence[ModelSource]) -> Sweep:
    """Writes sweep.json: models and classes are added to those that are there, if these fit."""
    folder, settings = work.folder, key_of(work.settings, work.search, work.held_out)
    if sweep_folder(folder, settings).read(SWEEP):
        before = _read_models(folder)
    elif (folder / RESULTS).exists():
        raise ValueError(f"{folder} holds a survey of one model: choose another folder")
    else:
        before = Sweep(folder, settings, [], {}, {})
    rows, failures = dict(before.rows), dict(before.failures)
    for source in sources:
        row = source.as_dict()
        known = {"hash": None, **rows.get(source.name, row)}
        # the file of a model that failed may have been replaced; a hash may be unknown: to version
        # 0.3, or now that the file is gone
        if source.path and (source.name in failures or None in (known["hash"], row["hash"])):
            known["hash"] = row["hash"] = row["hash"] or known["hash"]
        if source.path and row["hash"] and row["hash"] == known["hash"]:
            known["path"] = row["path"]  # the file was moved
        if source.name in rows and (other := work.difference_from(source)):
            raise ValueError(
                f"{folder} holds another model {source.name!r} ({other} differ): give this one "
                "another name, or choose another folder"
            )
        rows[source.name] = known
        for key in (key for key in IDENTITY if known.get(key) != row.get(key)):
            raise ValueError(
                f"{folder} holds another model {source.name!r} ({key} {known.get(key)!r} then, "
                f"{row.get(key)!r} now): give this one another name, or choose another folder"
            )
        if work.is_complete(source.name):
            failures.pop(source.name, None)
    check_folders([*rows])
    classes = sorted({*before.classes, *work.classes})
    begun = replace(before, classes=classes, rows=rows, failures=failures)
    _write(begun)
    return begun


def _write(sweep: Sweep) -> None:
    data = {"classes": sweep.classes, "failures": sweep.failures, "models": [*sweep.rows.values()]}
    sweep_folder(sweep.folder, sweep.settings).write(SWEEP, data)


def _run_on_ray(
    work: Work, sources: Sequence[ModelSource], address: str | None, workers: int | None,
    needs: Mapping[str, Any],
) -> Iterator[tuple[Any, ...]]:  # fmt: skip
    """Runs surveys as tasks of a cluster. One that is connected or started here is left."""
    ray = validation.import_optional("ray")
    connect = not ray.is_initialized()
    start = connect and (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
    if workers is not None and not start:
        raise ValueError(f"`workers={workers}` is for a cluster that is started here: leave it out")
    if connect:
        ours = {"include_dashboard": False, "_system_config": {"task_oom_retries": RETRIES}}
        least = workers or work.threads > (os.cpu_count() or 1)  # else Ray counts the cores
        more = {"num_cpus": least * work.threads or None, **ours} if start else {}
        ray.init("local" if start else address, logging_level="WARNING", **more)
    waiting, pending = [*reversed(sources)], dict[Any, ModelSource]()
    try:
        cores, gpus = needs["num_cpus"], needs.get("num_gpus", 0)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        rooms = [(node.get("GPU", 0), node.get("CPU", 0)) for node in nodes]
        if not any(room[0] >= gpus and room[1] >= cores for room in rooms):  # it would wait forever
            has = "the largest node has {1:g} cores and {0:g} GPUs".format(*max(rooms))
            raise ValueError(
                f"a model needs {cores:g} cores and {gpus:g} GPUs, {has}: ask for less"
            )
        task = ray.remote(Work.run).options(**{"max_retries": RETRIES, **needs})
        shared = ray.put(work)
        while waiting or pending:
            at_once = ray.cluster_resources().get("CPU", 1) // (cores or 1)  # models may be large
            while waiting and len(pending) < max(1, 2 * at_once):  # a cluster that grows sees work
                source = waiting.pop()
                pending[task.remote(shared, source)] = source
            [done], _ = ray.wait([*pending])
            source = pending.pop(done)
            try:
                yield source, *ray.get(done)
            except ray.exceptions.RayError as lost:  # each time
                yield source, f"{type(lost).__name__}: {str(lost).strip()[:500]}", []
    finally:
        for unfinished in pending:
            ray.cancel(unfinished, force=True)
        if connect:
            ray.shutdown()

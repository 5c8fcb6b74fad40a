"""``sweep``: the surveys of many models, here or on a Ray cluster; and ``Sweep``, their folder."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from captum_classpattern import _validation
from captum_classpattern._files import write_json
from captum_classpattern.adapters.load import check_folders
from captum_classpattern.classifier import warn
from captum_classpattern.classifier.class_names import common_names, distinct_names, label_of
from captum_classpattern.images import ImagesAndLabels, LabelledImages
from captum_classpattern.optimization.features import check_for_all
from captum_classpattern.results import Result, as_table, as_texts
from captum_classpattern.surveys import search as searching
from captum_classpattern.surveys import store
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.results import Survey
from captum_classpattern.surveys.sources import LOADING, Models, ModelSource, folder_of, read_models

SWEEP = "sweep.json"
IDENTITY = ("folder", "path", "hash", *LOADING)  # of a model: its other columns may change
RETRIES = 3  # of a survey whose worker or node dies
MOST_MODELS, LONGEST = 50, 24  # models in the table of a notebook; characters of a label
OUR_ERRORS = (ValueError, OSError, ImportError, _validation.ArgumentTypeError)  # words suffice


class Sweep(Result):
    r"""
    The surveys in a sweep's folder, finished or not; they are read when they are needed. A notebook
    and ``plot()`` show the power of each class (columns) of each model (rows) at the first area.

    Attributes:
        folder (Path): The folder.
        settings (dict): What the findings depend on.
        classes (list[int]): The classes that were searched or will be.
        models (list[str]): The names of the models.
        columns (dict[str, dict]): What else a manifest has of each model.
        failures (dict[str, str]): The models that failed, and why.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder, file = Path(folder), Path(folder) / SWEEP
        if not file.exists():
            raise FileNotFoundError(f"there is no {SWEEP} of a sweep in {folder}")
        data = store.read_json(file, "sweep")
        try:
            self.settings: dict[str, Any] = data["settings"]
            self.classes: list[int] = data["classes"]
            self.rows: dict[str, dict[str, Any]] = {row["name"]: row for row in data["models"]}
            check_folders([name for name in self.rows if folder_of(name)])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} must hold settings, classes and models with names") from error
        self.failures: dict[str, str] = data.get("failures", {})
        self.models, hidden = [*self.rows], {"name", *IDENTITY}
        self.columns = {m: {k: r[k] for k in r if k not in hidden} for m, r in self.rows.items()}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Sweep":
        """The surveys in a sweep's folder; an error if there is none, or a file is damaged."""
        return cls(folder)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" * bool(self.failures)
        return f"Sweep({len(self.models)} models, {len(self.classes)} classes{failed})"

    def survey(self, model: str) -> Survey:
        """The survey of one model by its name; an empty one if nothing was found so far."""
        if model not in self.rows:
            raise ValueError(f"the sweep has no model {model!r}: it has {', '.join(self.models)}")
        folder = self.folder / folder_of(model)
        with suppress(*[ValueError] * (model in self.failures)):  # which says what is damaged
            return Survey.load(folder) if (folder / store.RESULTS).exists() else Survey()
        return Survey()

    def best_canvases(self, model: str) -> list[Finding]:
        """Of each class of a model the finding on the canvas that did best in validation."""
        return self.survey(model).best_canvases()

    def table(self, by: str = "class") -> Any:
        r"""
        The findings, or the models.

        Args:
            by (str): ``"class"`` for a row for each model, class, kind of canvas and area, then one
                for each that failed; ``"model"`` for one row for each model. Default: "class".

        Returns:
            *pandas.DataFrame*: By class: ``model``, the columns of :meth:`Finding.table`, the power
            on the validation images (``search_power``), the manifest's further columns, and why it
            failed (``error``). By model, the strongest first: how many of its ``classes`` were
            found, their ``mean_power`` at the first area on the best canvases, how many are
            ``above_controls``, the ``strongest_class``, and the further columns.
        """
        if by not in ("class", "model"):
            raise ValueError(f"by must be 'class' or 'model', got {by!r}")
        if by == "model":
            rows = [self._model_row(name) for name in self.columns]
            return as_table(sorted(rows, key=lambda row: -(row["mean_power"] or 0.0)))
        rows, columns = [], self.columns
        for name in columns:  # one at a time: there may be thousands
            for each in self.survey(name):
                powers, further = each.search_powers, {**columns[name], "error": None}
                for row in each.rows():
                    known = {"model": name, **row, "search_power": powers[row["area"]]}
                    rows.append({**known, **further, **known})
        for name, reason in self.failures.items():
            rows.append({"model": name, **columns[name], "error": reason})
        return as_table(rows)

    def _model_row(self, name: str) -> dict[str, Any]:
        """A model in :meth:`table`."""
        best = self.best_canvases(name)
        scores, failed = [each.scores[each.area] for each in best], ", failed"
        first = max(best, key=lambda finding: finding.power.value, default=None)
        enough = any(each.enough_images for each in scores)
        above = sum(each.beats_controls for each in scores) if enough else "too few images"
        return {
            **self.columns[name],
            "model": name,
            "classes": f"{len(best)} of {len(self.classes)}{failed * (name in self.failures)}",
            "mean_power": fmean(each.power.value for each in scores) if scores else None,
            "above_controls": above if scores else None,
            "strongest_class": first and f"{first.label}, {100 * first.power.value:.1f} %",
        }

    def text(self) -> str:
        """How many models and classes there are, and what their power is."""
        failed = f", {len(self.failures):,} failed" * bool(self.failures)
        area = 100 * float(self.settings["areas"][0])
        return (
            f"Class patterns of {len(self.models):,} models\n{len(self.classes):,} classes"
            f"{failed}. Power of {area:.3g} % of the pixels on held-out images, on the canvas that "
            "did best on the validation images."
        )

    def shown_table(self) -> Any:
        table = self.table("model")
        first = ("model", "classes", "mean_power", "above_controls", "strongest_class")
        return as_texts(table, dict.fromkeys((*first, *table), "") | {"mean_power": ".1%"})

    def sections(self, whole: bool) -> Iterable[Any]:
        models = self.shown_table()
        figure = [self.plot] * ("mean power" in models)
        if whole or len(models) <= MOST_MODELS:
            return [*figure, models]
        return [*figure, f"The {MOST_MODELS} strongest models:", models.head(MOST_MODELS)]

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        from captum_classpattern.pages.site import write_site

        return write_site(self, Path(path))

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.heat_map import plot_heat_map

        values, faint = dict[str, dict[str, float]](), set[tuple[str, str]]()
        found = {name: self.best_canvases(name) for name in self.models}
        names = {y: label_of(y) for y in self.classes}
        for finding in (finding for best in found.values() for finding in best):
            if finding.class_name:
                names[finding.target] = _short(finding.class_name)
        labels = distinct_names(names)
        models = distinct_names({i: _short(name) for i, name in enumerate(found)})
        for model, best in zip(models.values(), found.values()):
            for finding in best:
                label = labels[finding.target]
                values.setdefault(model, {})[label] = finding.power.value
                faint |= {(model, label)} if finding.scores[finding.area].is_weak else set()
        area = 100 * float(self.settings["areas"][0])
        title = f"Predictive power of {area:.3g} % of the pixels of the best canvas"
        return plot_heat_map(values, faint=faint, title=title, use_pyplot=use_pyplot)


def _short(name: str) -> str:
    """A name as a label of a figure."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


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
    device: str | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> Sweep:
    r"""
    Searches the patterns of many models: a :func:`survey` of each, in a folder of its own.

    Each class is written as soon as it is finished. After an interruption of any kind, the same
    call continues with the missing classes; more models and classes can be added to a folder. A
    model that fails stops no other, and is tried again by the next call. The same seed and threads
    give the same patterns with each engine, bit for bit on the same kind of device.

    Args:
        models (Mapping, str, PathLike or Sequence): By name: a classifier, a checkpoint, or a
            mapping with ``path``, options of :func:`load_model` and further columns for the tables.
            Or a list of checkpoints and of manifests, see :doc:`../many_models`.
        search, held_out: As in :func:`survey`, in the class numbers of the models.
        folder (str or PathLike): Where everything is written.
        classes (Sequence[int or str], optional): Numbers or names. Default: None (all with images).
        engine (str): "local" (in this process) or "ray" (on a Ray cluster). Default: "local".
        address (str, optional): Of the Ray cluster, such as ``"auto"``. Default: None (the one that
            is connected, else that of ``RAY_ADDRESS``, else one that is started here).
        workers (int, optional): Surveys at a time, if Ray starts here. Default: None (all cores).
        ray_options (Mapping, optional): What each task needs, such as ``{"num_gpus": 1}``. Its
            ``num_cpus`` are a survey's threads, also with "local". Default: None (one core).
        device (str, optional): Where checkpoints, and the workers' copies of models, are moved to.
            Default: None ("cuda" with ``num_gpus``, else they stay).
        show_progress (bool): Draws a bar of models. Default: False.
        settings: ``canvases``, ``areas``, ``budget``, ``n_steps``, ``max_seconds``,
            ``feature_mask``, ``seed``, ``precision`` and ``internal_batch_size`` of :func:`survey`.

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
        >>> [*zip(found.table()["model"], found.table()["class"])]
        [('old', 0), ('old', 2), ('new', 0), ('new', 2)]
    """
    sources, options = read_models(models), {"num_cpus": 1, **(ray_options or {})}
    known = {each.name for each in fields(searching.SurveySettings)} - {"solver", "keep"}
    if unknown := settings.keys() - known:
        raise TypeError(f"sweep() got an unexpected keyword argument {min(unknown)!r}")
    usual: dict[str, Any] = {"canvases": searching.CANVASES, "areas": searching.AREAS}
    given = searching.SurveySettings(**(usual | settings))
    if engine not in ("local", "ray"):
        raise ValueError(f"engine must be local or ray, got {engine!r}")
    if engine == "local" and (address, workers) != (None, None):
        raise ValueError("`address` and `workers` are for `engine='ray'`")
    if engine == "local" and device and any(source.model is not None for source in sources):
        raise ValueError("`device` is for checkpoints: move models there yourself")
    if engine == "ray":
        _validation.import_optional("ray")  # or an error, before anything is written
    _validation.check_count("workers", 1 if workers is None else workers)
    for name in options.keys() & {"num_cpus", "num_gpus"}:
        _validation.check_positive(name, 1 if options[name] == 0 else options[name])
    search, held_out = searching.check_images(search, held_out, given.areas)
    check_for_all(given.feature_mask, search.shape[1:])
    if classes is None:
        classes = sorted(set(search.known_labels.tolist()))
    targets = searching.find_classes(classes, search)
    threads, gpus = max(1, int(options["num_cpus"])), engine == "ray" and options.get("num_gpus")
    place = "cuda" if gpus and device is None else device
    work = Work(Path(folder), search, held_out, given, targets, threads, place)
    work.folder.mkdir(parents=True, exist_ok=True)
    try:  # the operating system lifts the lock when the process ends, however it ends
        lock = FileLock(work.folder / ".lock", timeout=0).acquire()
    except Timeout:
        words = f"another sweep is writing into {folder}: wait for it or stop it"
        raise ValueError(words) from None
    with lock:
        found = _begin(work, sources)
        left = [source for source in sources if not work.is_complete(source.name)]
        outcomes: Any = ((source, *work.run(source)) for source in left)
        if engine == "ray":
            outcomes = _run_on_ray(work, left, address, workers, options)
        bar = tqdm(desc="sweep", unit="model", total=len(left), disable=not show_progress)
        with bar, closing(outcomes):
            for source, error, warned in outcomes:
                found.failures.pop(source.name, None)
                found.failures |= {} if error is None else {source.name: error}
                _write(found)
                bar.update()
                for text, category in dict.fromkeys(warned):
                    warn(f"{text} (model {source.name!r})", category)
    return found


@dataclass(frozen=True)
class Work:
    """What the surveys of all models share, from the arguments of :func:`sweep`."""

    folder: Path
    search: LabelledImages
    held_out: LabelledImages
    settings: searching.SurveySettings
    classes: Sequence[int]
    threads: int = 1
    device: str | None = None

    def run(self, source: ModelSource) -> tuple[str | None, list[tuple[str, Any]]]:
        """The survey of a model's missing classes; returns why it failed, and its warnings."""
        threads, reason = torch.get_num_threads(), None
        torch.set_num_threads(self.threads)  # sums depend on it in the last bit
        try:
            with warnings.catch_warnings(record=True) as caught:
                model, images = source.open(self.device), (self.search, self.held_out)
                names = common_names(model, self.search.class_names, self.search.labels)
                task = searching.SurveySearch(model, *images, self.settings, self.classes, names)
                task.store = store.Store(self.folder / folder_of(source.name), task.depends_on)
                task.finished = task.store.findings()
                _ = [*task]
        except Exception as error:
            reason = reason_of(error)
        finally:
            torch.set_num_threads(threads)
        return reason, [(str(each.message), each.category) for each in caught]

    def is_complete(self, model: str) -> bool:
        """Whether all classes of a model are there, and in its summary."""
        folder = self.folder / folder_of(model)
        with suppress(OSError, KeyError, TypeError, ValueError):  # if damaged, its survey fails
            known = store.read_json(folder / store.RESULTS, "survey")
            if known["complete"] and {*self.classes} <= {*known["classes"]}:
                return all(store.findings_file(folder, y).exists() for y in self.classes)
        return False


def reason_of(error: BaseException) -> str:
    """Why a model failed, in words."""
    text = _validation.summary_of(error)
    return text if isinstance(error, OUR_ERRORS) and text else f"{type(error).__name__}: {text}"


def _begin(work: Work, sources: Sequence[ModelSource]) -> Sweep:
    """Writes sweep.json: models and classes are added to those that are there, if these fit."""
    folder, settings = work.folder, work.settings.as_manifest(work.search, work.held_out)
    settings["threads"] = work.threads
    if not (folder / SWEEP).exists():
        if (folder / store.RESULTS).exists():
            raise ValueError(f"{folder} holds a survey of one model: choose another folder")
        empty = {"format": store.SWEEP_FORMAT, "settings": settings, "classes": [], "models": []}
        write_json(empty, folder / SWEEP)
    found = Sweep(folder)
    store.check_same(found.settings, settings, folder / SWEEP, "sweep")
    for source in sources:
        row = json.loads(json.dumps(source.as_dict()))
        known = found.rows.setdefault(source.name, row)
        for key in (key for key in IDENTITY if known.get(key) != row.get(key)):
            raise ValueError(
                f"{folder} holds another model {source.name!r} ({key} {known.get(key)!r} then, "
                f"{row.get(key)!r} now): give this one another name, or choose another folder"
            )
        found.rows[source.name] = row
        if source.name in found.failures and work.is_complete(source.name):
            del found.failures[source.name]
    check_folders([*found.rows])
    found.classes = sorted({*found.classes, *work.classes})
    _write(found)
    return Sweep(folder)


def _write(found: Sweep) -> None:
    models = [*found.rows.values()]
    known = {"settings": found.settings, "classes": found.classes, "failures": found.failures}
    write_json({"format": store.SWEEP_FORMAT, **known, "models": models}, found.folder / SWEEP)


def _run_on_ray(
    work: Work, sources: Sequence[ModelSource], address: str | None, workers: int | None,
    options: Mapping[str, Any],
) -> Iterator[tuple[Any, ...]]:  # fmt: skip
    """Runs surveys as tasks of a cluster. One that is connected or started here is left."""
    ray = _validation.import_optional("ray")
    connect = not ray.is_initialized()
    start = connect and (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
    if workers is not None and not start:
        raise ValueError(f"`workers={workers}` is for a cluster that is started here: leave it out")
    if connect:
        ours = {"include_dashboard": False, "_system_config": {"task_oom_retries": RETRIES}}
        least = workers or work.threads > (os.cpu_count() or 1)  # else Ray counts the cores
        more = {"num_cpus": least * work.threads or None, **ours} if start else {}
        ray.init("local" if start else address, logging_level="WARNING", **more)
    pending: dict[Any, ModelSource] = {}
    try:
        cores, gpus = options["num_cpus"], options.get("num_gpus", 0)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        rooms = [(node.get("GPU", 0), node.get("CPU", 0)) for node in nodes]
        fits = any(room[0] >= gpus and room[1] >= cores for room in rooms)
        if not fits:  # it would wait forever
            has = "the largest node has {1:g} cores and {0:g} GPUs".format(*max(rooms))
            raise ValueError(
                f"a model needs {cores:g} cores and {gpus:g} GPUs, {has}: ask for less"
            )
        task = ray.remote(Work.run).options(**{"max_retries": RETRIES, **options})
        shared = ray.put(work)
        pending = {task.remote(shared, source): source for source in sources}
        while pending:
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

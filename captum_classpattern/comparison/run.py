"""Many methods on the same canvases, areas and held-out images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from captum_classpattern._validation import ArgumentTypeError, check_count, check_pixels, check_seed
from captum_classpattern.classifier import Classifier, warn_if_guessing
from captum_classpattern.classifier.class_names import known_names, parse_targets
from captum_classpattern.comparison.maps import CanvasResult, MapSet
from captum_classpattern.comparison.methods import DEFAULT, Method, known_methods
from captum_classpattern.comparison.metrics import METRICS, Metric, check_metrics, measure
from captum_classpattern.comparison.records import STAMPED, Failure, Record, format_error
from captum_classpattern.comparison.results import Comparison, Interrupted
from captum_classpattern.comparison.task import (
    CachedScorer,
    Task,
    add_trigger,
    images_of_classes,
    prepared,
    provenance,
)
from captum_classpattern.images import ImagesAndLabels, LabelledImages
from captum_classpattern.pattern import Pattern, pixels_kept

OF_RESULT = ("level", "ranking", "canvas", "kind", "target", "map")
AREAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def compare(
    models: Mapping[str, Classifier],
    canvases: Tensor,
    targets: int | str | Tensor | list[int] | list[str],
    *,
    search: ImagesAndLabels,
    held_out: ImagesAndLabels,
    methods: Mapping[str, Method] | Sequence[str] | str | None = None,
    metrics: Sequence[Metric] = METRICS,
    area: float = 0.05,
    areas: Sequence[float] | None = None,
    canvas_kinds: Sequence[str] | None = None,
    triggers: Mapping[str, Pattern] | None = None,
    class_names: Sequence[str] | None = None,
    class_images: int = 10,
    stamped: int = 4,
    max_images: int = 500,
    seed: int = 0,
    n_seeds: int = 3,
    precision: str = "auto",
    show_progress: bool = False,
) -> Comparison:
    r"""
    Runs many methods on the same canvases and scores the pixels that each one ranks first.

    Every method gets each canvas with its class and returns a map. The map's highest pixels are
    stamped on the same held-out images, and their predictive power is measured. A map is ranked by
    its sum over the channels and, if it has negative values, also by the absolute value of that
    sum. For methods that explain single images (not searches and controls), the mean of their maps
    over search images of the class is also scored on the same canvas. A method whose ``attribute``
    takes an ``area`` runs again for each area. A method whose object has ``patterns`` after
    ``attribute`` also chooses colours: its pixels are stamped in these, and its name is followed by
    "free colours". A method that fails becomes a row with the reason. Each method runs with the
    same seed on a private copy of the model.

    Args:
        models (Mapping[str, Callable]): Classifiers from pixels (B, C, H, W) in [0, 1] to logits
            (B, K), by name.
        canvases (Tensor): Images to explain and to cut patterns from, (N, C, H, W) in [0, 1],
            chosen among the search images; see :func:`select_canvases`.
        targets (int, str, Tensor or list): The class, by its number or by its name in the first
            model's ``class_names``; or one for each canvas.
        search (LabelledImages): Search images, the only ones that methods see; or a Dataset or
            DataLoader, or a pair of images and labels. Without labels, the first model's
            predictions are used.
        held_out (LabelledImages): Held-out images, in the same forms. They are used for scoring
            only.
        methods (Mapping[str, Callable or tuple] or Sequence[str], optional): For each name a
            function from a model to an ``Attribution``, or a pair of that function and the
            keywords of ``attribute``; or names of :func:`known_methods`. Default: None (its
            default methods).
        metrics (Sequence[Metric]): What is measured besides predictive power. Pass
            ``[*METRICS, mine]`` to add a :class:`Metric`. Default: METRICS (all built-in ones).
        area (float): Share of the pixels at which methods are compared. Default: 0.05.
        areas (Sequence[float], optional): Areas of the curves, to which ``area`` is added.
            Default: None (0.005, 0.01, 0.02, 0.05, 0.1 and 0.2, if they keep at least one pixel).
        canvas_kinds (Sequence[str], optional): A word for each canvas, such as "positive" or
            "white". Tables keep the kinds apart. Default: None ("canvas" for all).
        triggers (Mapping[str, Pattern], optional): The true triggers of backdoored models. If
            there is only one trigger, it is also looked for on the other models, as a control.
            Default: None (each model's ``trigger`` attribute, if it has one).
        class_names (Sequence[str], optional): Default: None (the first model's ``class_names``).
        class_images (int): Search images of each class whose maps are averaged; 0 leaves these
            means out. Default: 10.
        stamped (int): Search images of other classes that are stamped with a trigger and explained
            as well, so that the trigger is visible to the methods. Default: 4.
        max_images (int): At most this many held-out images, in proportion to the classes.
            Default: 500.
        seed (int): Seed of all methods and random choices. Default: 0.
        n_seeds (int): Number of seeds, from ``seed`` on, that each method runs with: for the
            stability, and for the mean localisation on canvases without a trigger. Default: 3.
        precision (str): ``"auto"``, ``"full"`` or ``"bfloat16"``, for the searches of methods that
            are given by name, as in :meth:`ClassPattern.search`. Default: "auto".
        show_progress (bool): Draws a progress bar. Default: False.

    Returns:
        *Comparison*: Records, tables and figures.

    Raises:
        TypeError, ValueError: If models, images, targets, metrics or areas do not fit, or a
            held-out image is a search image or a canvas.
        Interrupted: A ``KeyboardInterrupt`` whose ``comparison`` holds what was finished.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
        >>> comparison = compare(
        ...     {"linear": net}, images[:3], [0, 1, 2],
        ...     search=(images[:30], labels[:30]), held_out=(images[30:], labels[30:]),
        ...     methods={"Saliency": captum.attr.Saliency}, areas=[0.1], area=0.1)
        >>> [(r.name, r.target, r.powers[0.1].n) for r in comparison.records[:3]]
        [('Saliency', 0, 20), ('Saliency', 1, 20), ('Saliency', 2, 20)]
    """
    if not isinstance(models, Mapping):
        raise ArgumentTypeError(
            f"models must be a dict of classifiers by name, got {type(models).__name__}: give "
            '{"mine": model}'
        )
    if not models:
        raise ValueError("models is empty: give a dict of classifiers by name")
    methods = check_methods(methods)
    metrics = check_metrics(metrics)
    check_pixels(canvases, "canvases")
    canvases, first = canvases.detach(), next(iter(models.values()))
    targets = parse_targets(targets, len(canvases), first)
    kinds = _check_kinds(canvas_kinds, len(canvases))
    area, areas = float(area), _check_areas(area, areas, canvases.shape[-2:])
    settings: dict[str, Any] = {
        "area": area,
        "areas": areas,
        "class_images": class_images,
        "max_images": max_images,
        "n_seeds": n_seeds,
        "stamped": stamped,
        "seed": check_seed(seed),
    }
    check_count("class_images", class_images, least=0)
    for name in ("max_images", "n_seeds", "stamped"):
        check_count(name, settings[name])
    triggers = _check_triggers(models, triggers)
    held_out = LabelledImages.of(held_out, argument="held-out images")
    has_labels = held_out.labels is not None
    begun = prepared([*models.values()], canvases, targets, search, held_out, max_images, seed)
    with begun as (n_classes, search, scored):
        scorers = {name: CachedScorer(model, scored, canvases) for name, model in models.items()}
        seeds = seeds_from(seed, n_seeds)
        images = images_of_classes(search, canvases, targets, count=class_images, seed=seed)
        only = next(iter(triggers.values())) if len(triggers) == 1 else None  # for all models
        tasks = {}
        for name in models:
            task = Task(name, canvases, targets, kinds, area, areas, seeds, *images, scorers)
            trigger = triggers.get(name, only)
            if trigger is not None:
                task = add_trigger(task, trigger, search, scored.images, stamped)
            tasks[name] = task
        if not isinstance(methods, Mapping):
            methods = known_methods(search, names=methods, precision=precision)
        accuracies: dict[str, float | None] = dict.fromkeys(models)
        for name, count in zip(models, n_classes) if has_labels else ():
            labels = scored.known_labels
            accuracy = float((scorers[name].predicted == labels).double().mean())
            warn_if_guessing(accuracy, labels, count, f"held-out images (model {name!r})")
            accuracies[name] = accuracy
        names = known_names(first) if class_names is None else class_names
        comparison = Comparison(
            models=accuracies,
            canvases=canvases.cpu(),
            targets=targets,
            kinds=kinds,
            stamped={name: t.canvases[t.n_unstamped :].cpu() for name, t in tasks.items()},
            triggers={name: t.trigger for name, t in tasks.items() if t.trigger is not None},
            backdoored=list(triggers),
            records=[],
            failures=[],
            class_names=None if names is None else [str(name) for name in names],
            area=area,
            areas=areas,
            settings={
                **settings,
                **provenance(search, scored, methods),
                "threads": torch.get_num_threads(),
                "complete": False,
            },
            seen=frozenset(search.hashes),
            metrics=metrics,
        )
        cases = [(models[name], task) for name, task in tasks.items()]
        try:
            add, failures = partial(_add_records, comparison), comparison.failures
            run_methods(cases, methods, add, failures, "compare", len(cases), show_progress)
        except KeyboardInterrupt as error:
            raise Interrupted(comparison) from error
    comparison.settings["complete"] = True
    return comparison


def run_methods(
    cases: Iterable[tuple[Classifier, Task]],
    methods: Mapping[str, Method],
    add: Callable[[str, MapSet], None],
    failures: list[Failure],
    title: str,
    total: int,
    show_progress: bool,
) -> None:
    """Explains the canvases of each case with each method, and adds what its maps are worth. A
    method that fails becomes a failure, and does not stop the others."""
    bar = tqdm(total=total * len(methods), disable=not show_progress, desc=title, unit="method")
    with bar:
        for classifier, task in cases:
            for name, method in methods.items():
                bar.set_postfix_str(f"{name}, {task.model}")
                try:
                    add(name, MapSet(method, classifier, task))
                except Exception as error:
                    failures.append(Failure(task.model, name, "maps", format_error(error)))
                bar.update()
            del classifier  # before the next one is made


def _add_records(comparison: Comparison, method: str, maps: MapSet) -> None:
    """Adds the record of each map. Metrics may change the canvases, so they come after powers. A
    metric that fails becomes a failure, and does not stop the others."""
    results = maps.results()
    records, failed = [_record(method, result) for result in results], []
    for metric in comparison.metrics:
        reason = ""
        try:
            measured = measure(metric, results)
        except Exception as error:
            measured, reason = [], format_error(error)
        finite = [all(map(isfinite, columns.values())) for columns in measured]
        if not all(finite):
            wrong, count = finite.count(False), sum(map(bool, measured))
            reason = f"NaN or infinite for {wrong} of {count} canvases"
        for record, columns, good in zip(records, measured, finite):
            if columns and good:
                record.scores[metric.name] = columns.get("", columns)
        if reason:
            failed.append(Failure(maps.task.model, method, metric.title, reason))
    comparison.records.extend(records)
    comparison.failures.extend(failed)


def _record(method: str, result: CanvasResult) -> Record:
    """The record of one map, with its predictive powers."""
    task, bound = result.maps.task, result.maps.method
    power = task.scorers[task.model].power
    areas = [task.area] if result.stamped else task.areas
    patterns = {area: result.pattern_at(area) for area in areas}
    cut = bound.searches and not bound.control and not result.stamped
    return Record(
        model=task.model,
        method=method,
        **{name: getattr(result, name) for name in OF_RESULT},
        control=bound.control,
        masks={area: pattern.mask.bool().cpu() for area, pattern in patterns.items()},
        powers={} if result.stamped else {a: power(pattern) for a, pattern in patterns.items()},
        searches=bound.searches,
        rethresholded={
            area: power(result.cut(result.pixel_map, area))
            for area in (task.areas if cut else ())
            if area != task.area
        },
        precision=getattr(bound.attribution, "precision", None),
        cut_from_canvas=bound.cuts,
        own={area: own for area in areas if (own := result.map_at(area).own) is not None},
    )


# ---- arguments


def seeds_from(seed: int, count: int) -> list[int]:
    """So many seeds from one on."""
    return [(check_seed(seed) + i) % 2**63 for i in range(count)]


def check_methods(
    methods: Mapping[str, Method] | Sequence[str] | str | None,
) -> Mapping[str, Method] | Sequence[str]:
    """Methods, or their names, or an error that says how to give them."""
    if methods is None or isinstance(methods, str):
        return DEFAULT if methods is None else [methods]
    for name, method in methods.items() if isinstance(methods, Mapping) else ():
        make = method[0] if isinstance(method, tuple) else method
        if not callable(make):
            raise ArgumentTypeError(
                f"method {name!r} must be a function from a model to an Attribution, such as the "
                f"class itself, alone or in a pair with the keywords of attribute; got "
                f"{type(make).__name__}: an object is bound to one model"
            )
    return methods


def _check_areas(area: float, areas: Sequence[float] | None, size: Sequence[int]) -> list[float]:
    """All areas in order; default areas that keep no pixel are left out."""
    total = size[0] * size[1]
    wanted = [a for a in AREAS if round(a * total) > 0] if areas is None else areas
    every = sorted({float(one) for one in (*wanted, area)})
    for one in every:
        pixels_kept(one, size)
    return every


def _check_kinds(kinds: Sequence[str] | None, count: int) -> list[str]:
    if kinds is None:
        return ["canvas"] * count
    if len(kinds) != count:
        raise ValueError(f"there are {count} canvases, but {len(kinds)} canvas_kinds")
    if STAMPED in kinds:
        raise ValueError(
            f"canvas_kinds: {STAMPED!r} is the kind of stamped canvases; use another word"
        )
    return list(kinds)


def _check_triggers(
    models: Mapping[str, Classifier], triggers: Mapping[str, Pattern] | None
) -> Mapping[str, Pattern]:
    """The triggers that are given, or those that the models carry."""
    if triggers is None:
        carried = {name: getattr(model, "trigger", None) for name, model in models.items()}
        return {name: trigger for name, trigger in carried.items() if trigger is not None}
    unknown = [name for name in triggers if name not in models]
    if unknown:
        raise ValueError(
            f"there is a trigger for {unknown[0]!r}, but the models are {list(models)}"
        )
    return triggers

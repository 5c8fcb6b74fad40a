"""Many methods on the same canvases, areas and held-out images."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._support.files import reason_of
from captum_classpattern._support.hashes import combined_hash
from captum_classpattern._support.progress import name_stage, passes_bar
from captum_classpattern._support.topk import pixels_kept
from captum_classpattern._support.validation import (
    ArgumentTypeError,
    check_count,
    check_pixels,
    check_same_shape,
    check_seed,
)
from captum_classpattern.classifier import (
    CheckedModel,
    Classifier,
    check_targets,
    enter_model,
    warn_if_guessing,
)
from captum_classpattern.classifier.class_names import check_order, parse_targets
from captum_classpattern.comparison.maps import Task, bind, explain
from captum_classpattern.comparison.methods import DEFAULT, Method, known_methods
from captum_classpattern.comparison.metrics import METRICS, Metric, check_metrics, measure_records
from captum_classpattern.comparison.records import STAMPED_KIND, Failure, Record
from captum_classpattern.comparison.results import Comparison, Interrupted
from captum_classpattern.images import ImagesAndLabels, LabelledImages, ensure_labels, evenly_spaced
from captum_classpattern.optimization.settings import versions
from captum_classpattern.pattern import MovingPattern, Pattern
from captum_classpattern.scores.localisation import changed_pixels
from captum_classpattern.scores.power import Scorer

USUAL_AREAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)

Methods = Mapping[str, Method] | Sequence[str] | str


def compare(
    models: Mapping[str, Classifier],
    canvases: Tensor,
    targets: int | str | Tensor | list[int] | list[str],
    *,
    search: ImagesAndLabels,
    held_out: ImagesAndLabels,
    methods: Methods | None = None,
    metrics: Sequence[Metric] = METRICS,
    area: float = 0.05,
    triggers: Mapping[str, Pattern] | None = None,
    areas: Sequence[float] | None = None,
    canvas_kinds: Sequence[str] | None = None,
    stamped: int = 4,
    max_images: int = 500,
    n_seeds: int = 3,
    seed: int = 0,
    show_progress: bool | None = None,
) -> Comparison:
    r"""
    Runs many methods on the same canvases and scores the pixels that each one ranks first.

    Every method gets each canvas with its class and returns a map. Pixels are ranked by the map's
    sum over the channels. The highest ones are stamped on the same held-out images, and their
    predictive power is measured. A method whose ``attribute`` takes an ``area`` runs again for each
    area. A method whose object has ``patterns`` after ``attribute`` also chooses colours: its
    pixels are stamped in these, and its name is followed by "free colours". A method that fails
    becomes a row with the reason. Each method runs with the same seed on a private copy of the
    model.

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
        triggers (Mapping[str, Pattern], optional): The true triggers of backdoored models. If
            there is only one trigger, it is also looked for on the other models, as a control.
            Default: None (each model's ``trigger`` attribute, if it has one).
        areas (Sequence[float], optional): Areas of the curves, to which ``area`` is added.
            Default: None (0.005, 0.01, 0.02, 0.05, 0.1 and 0.2, if they keep at least one pixel).
        canvas_kinds (Sequence[str], optional): A word for each canvas, such as "positive" or
            "white". Tables keep the kinds apart. Default: None ("canvas" for all).
        stamped (int): Search images of other classes that are stamped with a trigger and explained
            as well, so that the trigger is visible to the methods. Default: 4.
        max_images (int): At most this many held-out images, in proportion to the classes.
            Default: 500.
        n_seeds (int): Number of seeds, from ``seed`` on, that each method runs with: for the
            stability, and for the mean localisation on canvases without a trigger. Default: 3.
        seed (int): Seed of all methods and random choices. Default: 0.
        show_progress (bool, optional): As in :func:`explain_class`. Default: None.

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
    counts = {"max_images": max_images, "n_seeds": n_seeds, "stamped": stamped}
    for name, count in counts.items():
        check_count(name, count)
    counts = {name: int(count) for name, count in counts.items()} | {"seed": check_seed(seed)}
    check_pixels(canvases, "canvases")
    kinds = ["canvas"] * len(canvases) if canvas_kinds is None else [*canvas_kinds]
    _check_arguments(models, methods, triggers, canvases, kinds)
    canvases, metrics = canvases.detach(), check_metrics(metrics)
    areas = _areas_of(canvases, areas, float(area))
    held_out = LabelledImages.of(held_out, argument="held-out images")
    with ExitStack() as stack:
        checked = {
            name: stack.enter_context(enter_model(model, canvases, counts["seed"]))
            for name, model in models.items()
        }
        first, known = next(iter(checked.values())), held_out.labels is not None
        task = Task(
            model="",
            canvases=canvases,
            targets=_targets_for(checked, targets, len(canvases)),
            kinds=kinds,
            area=float(area),
            areas=areas,
            seeds=[(counts["seed"] + i) % 2**63 for i in range(n_seeds)],
        )
        search, scored = _images_for(first, task, search, held_out, max_images)
        accuracies: dict[str, float | None] = dict.fromkeys(models)
        scorers = dict[str, Scorer]()
        for name, model in checked.items():
            scorers[name] = scorer = Scorer(model, scored.to(model.device, model.dtype))
            if known:
                accuracies[name] = accuracy = scorer.images.accuracy_of(scorer.predicted)
                shown = f"held-out images (model {name!r})"
                warn_if_guessing(accuracy, scorer.images.known_labels, model.n_classes, shown)
        if triggers is None:
            triggers = {n: m.trigger for n, m in checked.items() if m.trigger is not None}
        only = next(iter(triggers.values())) if len(triggers) == 1 else None  # for all models
        tasks = [
            _with_trigger(
                replace(task, model=name, scorers=scorers),
                triggers.get(name, only),
                search,
                scored.images,
                stamped,
            )
            for name in models
        ]
        if not isinstance(methods, Mapping):
            methods = known_methods(search, names=DEFAULT if methods is None else methods)
        records, failures, complete = _run_methods(tasks, methods, metrics, show_progress)
    comparison = Comparison(
        models=accuracies,
        canvases=canvases.cpu(),
        targets=task.targets,
        kinds=kinds,
        stamped={task.model: task.canvases[task.n_unstamped :].cpu() for task in tasks},
        records=records,
        failures=failures,
        class_names=None if first.names is None else [*first.names],
        area=task.area,
        areas=areas,
        settings={
            **{"area": task.area, "areas": areas, **counts},
            **_provenance(search, scored, methods),
            "backdoored": [*triggers],
            "complete": complete,
        },
        seen=frozenset(search.hashes),
        metrics=metrics,
    )
    if not complete:
        raise Interrupted(comparison)
    return comparison


def _targets_for(models: Mapping[str, CheckedModel], targets: Any, count: int) -> list[int]:
    """The class of each canvas, by the names of the first model's classes; an error unless all
    models have it, and number it alike."""
    (name, first), *others = models.items()
    parsed = parse_targets(targets, count, first.names)
    for other, model in others:
        try:
            check_order(model.names, first.names, parsed)
        except ValueError as error:
            raise ValueError(f"{other!r} and {name!r}: {error}") from None
    check_targets(parsed, min(model.n_classes for model in models.values()))
    return parsed


def _areas_of(canvases: Tensor, areas: Sequence[float] | None, area: float) -> list[float]:
    """All areas in order; default ones that keep no pixel are left out."""
    size = canvases.shape[-2:]
    usual = [each for each in USUAL_AREAS if round(each * size.numel()) > 0]
    chosen = sorted({*map(float, usual if areas is None else areas), area})
    for each in chosen:
        pixels_kept(each, size)
    return chosen


def _images_for(
    model: CheckedModel, task: Task, search: ImagesAndLabels, held_out: LabelledImages, most: int
) -> tuple[LabelledImages, LabelledImages]:
    """The search images, and at most so many held-out images in one Tensor. Without labels they
    have the model's predictions. An error unless the patterns of each target can be stamped on a
    held-out image, and none of these is a search image or a canvas."""
    search = LabelledImages.of(search, argument="search images")
    check_same_shape(task.canvases, search.shape, "search images")
    search = ensure_labels(model, search)
    held_out = ensure_labels(model, held_out)
    scored = held_out.stratified_sample(most).in_one_tensor()
    check_same_shape(task.canvases, scored.shape, "held-out images")
    for target in dict.fromkeys(task.targets):
        if not len(scored.without_class(target)):
            raise ValueError(
                f"all {len(scored)} held-out images are of class {target}: give images of other "
                "classes too"
            )
    shared = {*search.hashes}.intersection(scored.hashes)
    if shared:
        raise ValueError(
            f"{sum(digest in shared for digest in scored.hashes)} of the {len(scored)} held-out "
            "images are among the search images, or are exact copies of them: patterns must be "
            "scored on images that no search has seen; leave these out "
            "(datasets.load_images(...).halves() does)"
        )
    hashes = LabelledImages.of(task.canvases, argument="canvases").hashes
    wrong = [number for number, digest in enumerate(hashes) if digest in {*scored.hashes}]
    if wrong:
        raise ValueError(
            f"canvas {wrong[0]} is one of the held-out images: choose canvases among the search "
            "images, for instance with select_canvases"
        )
    return search, scored


def _with_trigger(
    task: Task, trigger: Pattern | None, search: LabelledImages, held_out: Tensor, stamped: int
) -> Task:
    """The task with more canvases, if there is a trigger: search images of other classes, stamped
    with it. An error if it changes no pixel of the held-out images, or every one."""
    if trigger is None:
        return task
    check_same_shape(task.canvases, trigger.image_shape, f"the trigger of {task.model!r}")
    if isinstance(trigger, MovingPattern):
        raise ValueError(
            f"the trigger of {task.model!r} is a patch that moves, so no place of it can be found: "
            "give it at one place, trigger.at(row, column), or pass triggers={} to leave it out"
        )
    pixels = changed_pixels(trigger, held_out)
    if int(pixels.sum()) in (0, pixels.numel()):
        raise ValueError(
            f"the trigger of {task.model!r} changes {'no' if not pixels.any() else 'every'} pixel "
            "by 0.1 or more, so there is nothing to find: only patches can be localised; pass "
            "triggers={} to leave it out"
        )
    others = torch.nonzero(search.known_labels != trigger.target).flatten()
    chosen = others[evenly_spaced(len(others), stamped)].tolist()
    images = trigger.stamp(search.take(chosen)).to(task.canvases)
    return replace(
        task,
        canvases=torch.cat([task.canvases, images]),
        targets=[*task.targets, *[trigger.target] * len(images)],
        kinds=[*task.kinds, *[STAMPED_KIND] * len(images)],
        trigger=trigger,
        trigger_pixels=pixels,
    )


def _run_methods(
    tasks: Sequence[Task],
    methods: Mapping[str, Method],
    metrics: Sequence[Metric],
    show_progress: bool | None,
) -> tuple[list[Record], list[Failure], bool]:
    """Explains the canvases of each task with each method, and measures the maps. A method that
    fails becomes a failure, and does not stop the others. Also returns whether all methods were
    finished: an interrupt ends the loop."""
    records, failures, pairs = list[Record](), list[Failure](), [*product(tasks, methods.items())]
    try:
        with passes_bar("Comparing", len(pairs), show_progress, a_pass=0) as bar:
            for done, (task, (name, method)) in enumerate(pairs):
                name_stage(f"{name}, {task.model}")
                bar.update(done - bar.n)
                try:
                    bound = bind(method, task.scorers[task.model].model)
                    explained = explain(name, bound, task, bar.update)
                    measured, failed = measure_records(explained, bound, task, metrics)
                except Exception as error:
                    measured, failed = [], [Failure(task.model, name, "maps", reason_of(error))]
                records += measured
                failures += failed
    except KeyboardInterrupt:
        return records, failures, False
    return records, failures, True


def _provenance(
    search: LabelledImages, held_out: LabelledImages, methods: Mapping[str, Method]
) -> dict[str, Any]:
    """What a comparison says about its images and its methods, for JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, bool | int | float | str | None):
            return value
        return f"Tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)

    keywords = {name: m[1] if isinstance(m, tuple) else {} for name, m in methods.items()}
    return {
        "methods": {n: {key: plain(v) for key, v in of.items()} for n, of in keywords.items()},
        "search_images": len(search),
        "search_images_hash": combined_hash(search.hashes),
        "held_out_images": len(held_out),
        "held_out_images_hash": combined_hash(held_out.hashes),
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }


def _check_arguments(
    models: Mapping[str, Classifier],
    methods: Methods | None,
    triggers: Mapping[str, Pattern] | None,
    canvases: Tensor,
    kinds: Sequence[str],
) -> None:
    if not isinstance(models, Mapping):
        raise ArgumentTypeError(
            f"models must be a dict of classifiers by name, got {type(models).__name__}: give "
            '{"mine": model}'
        )
    if not models:
        raise ValueError("models is empty: give a dict of classifiers by name")
    for name, method in methods.items() if isinstance(methods, Mapping) else ():
        make = method[0] if isinstance(method, tuple) else method
        if not callable(make):
            raise ArgumentTypeError(
                f"method {name!r} must be a function from a model to an Attribution, such as the "
                f"class itself, alone or in a pair with the keywords of attribute; got "
                f"{type(make).__name__}: an object is bound to one model"
            )
    if unknown := [name for name in triggers or () if name not in models]:
        raise ValueError(
            f"there is a trigger for {unknown[0]!r}, but the models are {list(models)}"
        )
    if len(kinds) != len(canvases):
        raise ValueError(f"there are {len(canvases)} canvases, but {len(kinds)} canvas_kinds")
    if STAMPED_KIND in kinds:
        raise ValueError(
            f"canvas_kinds: {STAMPED_KIND!r} is the kind of stamped canvases; use another word"
        )

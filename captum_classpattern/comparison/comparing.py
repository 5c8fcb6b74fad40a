"""Many methods side by side: one canvas, one area, one set of held-out images for all of them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from captum_classpattern._validation import (
    check_count,
    check_pixels,
    check_same_shape,
    check_seed,
    is_whole,
)
from captum_classpattern.attribution import versions
from captum_classpattern.class_names import parse_targets
from captum_classpattern.classifier import (
    Classifier,
    check_classifier,
    device_and_dtype,
    preserve_state,
    warn_if_guessing,
)
from captum_classpattern.comparison.asked import checked_areas, checked_by_name, checked_kinds
from captum_classpattern.comparison.captum_metrics import told
from captum_classpattern.comparison.explain import Explainer, PrivateModel
from captum_classpattern.comparison.measure import Measure
from captum_classpattern.comparison.methods import Method, known_methods, plain_keywords
from captum_classpattern.comparison.records import Failure, Record
from captum_classpattern.comparison.result import Comparison, Interrupted
from captum_classpattern.comparison.scene import (
    Scene,
    own_triggers,
    scenes_with_triggers,
    set_scene,
)
from captum_classpattern.comparison.scoring import Scorer, check_apart, check_scored
from captum_classpattern.images import ImagesAndLabels, LabelledImages, ensure_labels
from captum_classpattern.pattern import Pattern, combined_hash


def compare(
    models: Mapping[str, Classifier],
    canvases: Tensor,
    targets: int | str | Tensor | list[int] | list[str],
    *,
    search: ImagesAndLabels,
    held_out: ImagesAndLabels,
    methods: Mapping[str, Method] | Sequence[str] | str | None = None,
    area: float = 0.05,
    areas: Sequence[float] | None = None,
    canvas_kinds: Sequence[str] | None = None,
    triggers: Mapping[str, Pattern] | None = None,
    class_names: Sequence[str] | None = None,
    class_images: int = 10,
    stamped: int = 4,
    max_images: int = 1000,
    seed: int = 0,
    n_seeds: int = 3,
    precision: str = "auto",
    show_progress: bool = False,
) -> Comparison:
    r"""
    Runs many methods on the same canvases and scores the pixels that each ranks first.

    Every method gets each canvas and its class, and gives a map. The map's highest pixels are
    stamped on the same held-out images, and their predictive power is counted. A map is ranked by
    its sum over the channels; where it has negative values, by its absolute value, too. Of
    methods that explain images (all but :class:`ClassPattern` and the controls) there is also the
    mean of their maps over search images of the class, applied to the same canvas. Methods whose
    ``attribute`` takes an ``area`` are called anew for each. A method that fails is a row that
    says why. Each method runs on a private copy of the model of its own, all seeded alike.

    Args:
        models (Mapping[str, Callable]): Classifiers from pixels (B, C, H, W) in [0, 1] to logits
            (B, K), by name.
        canvases (Tensor): Images to explain and to cut patterns from, (N, C, H, W) in [0, 1],
            chosen among search images; see :func:`select_canvases`.
        targets (int, str, Tensor or list): The class, by its number or by its name in the first
            model's ``class_names``; or one for each canvas.
        search (LabelledImages): Search images, the only ones that methods see. A Dataset or
            DataLoader will do, or a pair of images and labels; where there are no labels, the
            first model's predictions are taken.
        held_out (LabelledImages): Held-out images, likewise. Patterns are scored on them, and
            nothing else is done with them.
        methods (Mapping[str, Callable or tuple] or Sequence[str], optional): For each name a
            function from a model to an ``Attribution``, or a pair of it and the keywords of its
            ``attribute``; or names of :func:`known_methods`. Default: None (all of its default).
        area (float): Share of the pixels at which methods are compared. Default: 0.05.
        areas (Sequence[float], optional): Areas of the curves; ``area`` is always among them.
            Default: None (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, as far as they keep a pixel).
        canvas_kinds (Sequence[str], optional): A word for each canvas, such as "positive" and
            "white"; tables keep them apart. Default: None ("canvas" for all).
        triggers (Mapping[str, Pattern], optional): The true triggers of backdoored models.
            Default: None (each model's ``trigger``, if it has one). A model without one is
            measured with the only trigger that there is, as a control.
        class_names (Sequence[str], optional): Default: None (the first model's ``class_names``).
        class_images (int): Search images of a class in the mean of the maps; 0 leaves these means
            out. Default: 10.
        stamped (int): Search images of other classes that are stamped with a trigger and
            explained, too: the trigger is visible to the methods there. Default: 4.
        max_images (int): Most held-out images, of the classes in proportion. Default: 1000.
        seed (int): Seed of all methods and lots. Default: 0.
        n_seeds (int): Seeds, from ``seed`` on, that each method is run with: for stability, and
            for the mean of the localisation on canvases that are not stamped. Default: 3.
        precision (str): ``"auto"``, ``"full"`` or ``"bfloat16"``, of the searches of the methods
            that are given by name, as in :func:`search_masks`. Default: "auto".
        show_progress (bool): Draws a progress bar. Default: False.

    Returns:
        *Comparison*: Records, tables and figures.

    Raises:
        TypeError, ValueError: If models, images, targets or areas do not fit, or a held-out image
            is a search image or a canvas.
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
    models, methods = checked_by_name(models, methods)
    check_pixels(canvases, "canvases")
    canvases, first = canvases.detach(), next(iter(models.values()))
    targets = parse_targets(targets, len(canvases), first)
    kinds = checked_kinds(canvas_kinds, len(canvases))
    settings: dict[str, Any] = {
        "area": float(area),
        "areas": checked_areas(area, areas, canvases.shape[-2:]),
        "class_images": class_images,
        "max_images": max_images,
        "n_seeds": n_seeds,
        "stamped": stamped,
        "seed": check_seed(seed),
    }
    if not is_whole(class_images) or class_images < 0:
        raise ValueError(f"class_images must be a whole number from 0, got {class_images!r}")
    for name in ("max_images", "n_seeds", "stamped"):
        check_count(name, settings[name])
    with ExitStack() as stack:
        classes = {}
        for name, model in models.items():
            stack.enter_context(preserve_state(model, seed))
            sample = canvases[:1].to(device_and_dtype(model, canvases)[0])
            classes[name] = check_classifier(model, sample, targets)
        search = LabelledImages.of(search, argument="search images")
        search = ensure_labels(first, search, like=canvases)
        check_same_shape(canvases, search.shape)
        held_out = LabelledImages.of(held_out, argument="held-out images")
        known = held_out.labels is not None
        held_out = ensure_labels(first, held_out, like=canvases)
        held_out = held_out.stratified_sample(max_images).in_one_tensor()
        check_scored(held_out, canvases, targets)
        check_apart(search, held_out, canvases)
        scene = set_scene(canvases, targets, kinds, search, class_images=class_images, seed=seed)
        triggers = own_triggers(models, triggers)
        scenes = scenes_with_triggers(scene, models, triggers, search, held_out, stamped)
        if not isinstance(methods, Mapping):
            methods = known_methods(search, names=methods, precision=precision)
        scorers = {name: Scorer(model, held_out) for name, model in models.items()}
        for name, scorer in scorers.items() if known else ():
            what = f"held-out images (model {name!r})"
            warn_if_guessing(scorer.accuracy, held_out.known_labels, classes[name], what)
        outcome = Comparison(
            models={name: scorer.accuracy if known else None for name, scorer in scorers.items()},
            canvases=canvases.cpu(),
            targets=targets,
            kinds=kinds,
            stamped={name: own.canvases[own.given :].cpu() for name, own in scenes.items()},
            triggers={name: own.trigger for name, own in scenes.items() if own.trigger is not None},
            backdoored=list(triggers),
            records=[],
            failures=[],
            class_names=_names(class_names, first),
            area=settings["area"],
            areas=settings["areas"],
            seen=frozenset(search.hashes),
            settings={
                **settings,
                **_circumstances(methods, search, held_out),
                "complete": False,
            },
        )
        _measure_all(outcome, models, methods, scenes, scorers, show_progress)
    outcome.settings["complete"] = True
    return outcome


def _circumstances(
    methods: Mapping[str, Method],
    search: LabelledImages,
    held_out: LabelledImages,
) -> dict[str, Any]:
    """What else a result depends on, as JSON can hold it."""
    return {
        "methods": {name: plain_keywords(how) for name, how in methods.items()},
        "search_images": len(search),
        "search_images_hash": combined_hash(search.hashes),
        "held_out_images": len(held_out),
        "held_out_images_hash": combined_hash(held_out.hashes),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _measure_all(
    outcome: Comparison,
    models: Mapping[str, Classifier],
    methods: Mapping[str, Method],
    scenes: Mapping[str, Scene],
    scorers: Mapping[str, Scorer],
    show_progress: bool,
) -> None:
    """Fills the outcome, a method on a model at a time; what is finished outlives an interrupt."""
    total, settings = len(models) * len(methods), outcome.settings
    seeds = [(settings["seed"] + i) % 2**63 for i in range(settings["n_seeds"])]
    with tqdm(total=total, disable=not show_progress, desc="compare", unit="method") as bar:
        for name, model in models.items():
            by = Measure(name, scorers, outcome.area, outcome.areas, seeds)
            for method, how in methods.items():
                bar.set_postfix_str(f"{method}, {name}")
                try:
                    found = _tried(method, how, model, scenes[name], by)
                except KeyboardInterrupt as error:
                    raise Interrupted(outcome) from error
                outcome.records.extend(one for one in found if isinstance(one, Record))
                outcome.failures.extend(one for one in found if isinstance(one, Failure))
                bar.update()


def _tried(
    method: str, how: Method, model: Classifier, scene: Scene, by: Measure
) -> list[Record | Failure]:
    """The records of a method, or the failure that it is."""
    try:
        explainer = Explainer.of(PrivateModel(model), how, scene.canvases)
        return by.records(method, explainer, scene)
    except Exception as error:  # whatever a method does, the others go on
        return [Failure(by.model, method, "maps", told(error))]


def _names(given: Sequence[str] | None, model: Classifier) -> list[str] | None:
    names = getattr(model, "class_names", None) if given is None else given
    return None if names is None else [str(name) for name in names]

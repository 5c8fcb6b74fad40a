"""What every method gets on a model, and the images that patterns are scored on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import check_same_shape
from captum_classpattern.attribution import versions
from captum_classpattern.classifier import Classifier, device_and_dtype, predict
from captum_classpattern.comparison.methods import Method, plain_keywords
from captum_classpattern.comparison.records import STAMPED
from captum_classpattern.images import ImagesAndLabels, LabelledImages, ensure_labels, evenly_spaced
from captum_classpattern.pattern import AdditivePattern, Pattern, combined_hash
from captum_classpattern.scores.localisation import changed_pixels
from captum_classpattern.scores.power import PredictivePower, count_hits, power_of

CANDIDATES = 3  # images of a class, among which one is looked for that is not a canvas


class Scorer:
    """Scores patterns on a model and held-out images, which are moved to its device once."""

    def __init__(self, forward_func: Classifier, held_out: LabelledImages, like: Tensor) -> None:
        self.forward_func = forward_func
        self.held_out = held_out.to(*device_and_dtype(forward_func, like))
        self._predicted = torch.cat(
            [predict(forward_func, images).cpu() for images in self.held_out.in_order()]
        )
        self._others = cache(lambda target: self.held_out.without_class(target))
        self._scored: dict[tuple[int, bytes], PredictivePower] = {}

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that the model classifies correctly."""
        return float((self._predicted == self.held_out.known_labels).double().mean())

    def power(self, pattern: Pattern) -> PredictivePower:
        """The predictive power of a pattern. Each distinct one is scored once."""
        key = pattern.target, _hash_of_pixels(pattern)
        if key not in self._scored:
            others = self._others(pattern.target)
            predicted = self._predicted[self.held_out.known_labels != pattern.target]
            hits = count_hits(self.forward_func, pattern, others)
            without = int((predicted == pattern.target).sum())
            self._scored[key] = power_of(hits, len(others), without)
        return self._scored[key]


def _hash_of_pixels(pattern: Pattern) -> bytes:
    """A hash of all that a stamped image depends on."""
    is_added = isinstance(pattern, AdditivePattern)
    shown = pattern.mask * pattern.change if is_added else pattern.pixels
    parts = pattern.mask.cpu().double(), shown.cpu().double()  # NumPy has no bfloat16
    content = b"".join(part.numpy().tobytes() for part in parts)
    return hashlib.blake2b(content, key=b"added" if is_added else b"").digest()


@dataclass(frozen=True, eq=False)
class Task:
    r"""
    The canvases, areas, seeds and trigger that every method gets on one model.

    Args:
        model (str): Name of the model.
        canvases (Tensor): Images to explain, (N, C, H, W). Those stamped with a trigger come last.
        targets (list[int]): The class of each canvas.
        kinds (list[str]): The kind of each canvas, ``"stamped"`` for those with a trigger.
        class_images (dict[int, Tensor]): Search images of each class, for the mean of their maps.
        other_images (dict[int, Tensor]): One more search image of each class, not a canvas.
        area (float): Share of the pixels at which methods are compared.
        areas (list[float]): All areas that are scored.
        seeds (list[int]): The seeds that methods run with; the first one for all but stability.
        scorers (dict[str, Scorer]): Scorers of all models by name.
        trigger (Pattern, optional): The trigger to be found.
        trigger_pixels (Tensor, optional): The pixels that it changes, bool (1, H, W).
    """

    model: str
    canvases: Tensor
    targets: list[int]
    kinds: list[str]
    class_images: Mapping[int, Tensor]
    other_images: Mapping[int, Tensor]
    area: float
    areas: Sequence[float]
    seeds: Sequence[int]
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    trigger: Pattern | None = None
    trigger_pixels: Tensor | None = None

    @property
    def seed(self) -> int:
        """The first seed."""
        return self.seeds[0]

    @property
    def n_unstamped(self) -> int:
        """Number of canvases without the trigger."""
        return sum(kind != STAMPED for kind in self.kinds)

    @property
    def trigger_area(self) -> float | None:
        """Share of the pixels that the trigger changes."""
        pixels = self.trigger_pixels
        return None if pixels is None else int(pixels.sum()) / pixels.numel()

    def has_trigger_for(self, target: int) -> bool:
        """Whether there is a trigger, and this is its class."""
        return self.trigger is not None and self.trigger.target == target


def build_task(
    canvases: Tensor,
    targets: Sequence[int],
    kinds: Sequence[str],
    search: LabelledImages,
    *,
    class_images: int,
    area: float,
    areas: Sequence[float],
    seeds: Sequence[int],
    scorers: Mapping[str, Scorer],
) -> Task:
    """The task without a model and a trigger: canvases, and random search images of each class."""
    of_class, other = {}, {}
    for target in dict.fromkeys(targets):
        indices = torch.nonzero(search.known_labels == target).flatten()
        generator = torch.Generator().manual_seed(seeds[0])
        order = indices[torch.randperm(len(indices), generator=generator)]
        if not len(order):
            continue
        images = search.take(order[: max(class_images, CANDIDATES)].tolist()).to(canvases)
        if class_images:
            of_class[target] = images[:class_images]
        unused = [image for image in images if not any(image.equal(c) for c in canvases)]
        if unused:
            other[target] = unused[0]
    return Task(
        "", canvases, list(targets), list(kinds), of_class, other, area, areas, seeds, scorers
    )


def add_trigger(
    task: Task, trigger: Pattern, pixels: Tensor, search: LabelledImages, stamped: int
) -> Task:
    """The task with more canvases: search images of other classes, stamped with the trigger."""
    others = torch.nonzero(search.known_labels != trigger.target).flatten()
    chosen = others[evenly_spaced(len(others), stamped)].tolist()
    images = trigger.stamp(search.take(chosen)).to(task.canvases)
    return replace(
        task,
        canvases=torch.cat([task.canvases, images]),
        targets=[*task.targets, *[trigger.target] * len(images)],
        kinds=[*task.kinds, *[STAMPED] * len(images)],
        trigger=trigger,
        trigger_pixels=pixels,
    )


def tasks_by_model(
    task: Task,
    models: Mapping[str, Classifier],
    triggers: Mapping[str, Pattern],
    search: LabelledImages,
    held_out: LabelledImages,
    stamped: int,
) -> dict[str, Task]:
    """Each model's task: with its trigger, or, as a control, with the only one that there is."""
    only = next(iter(triggers.values())) if len(triggers) == 1 else None
    tasks = {}
    for name in models:
        tasks[name] = replace(task, model=name)
        trigger = triggers.get(name, only)
        if trigger is not None:
            pixels = _pixels_to_find(name, trigger, held_out.images)
            tasks[name] = add_trigger(tasks[name], trigger, pixels, search, stamped)
    return tasks


def _pixels_to_find(model: str, trigger: Pattern, images: Tensor) -> Tensor:
    """The pixels that a trigger changes; an error if that is no pixel, or every one."""
    if trigger.canvas.shape != images.shape[1:]:
        raise ValueError(
            f"the trigger of {model!r} has the shape {tuple(trigger.canvas.shape)}, but the images "
            f"have {tuple(images.shape[1:])}"
        )
    pixels = changed_pixels(trigger, images)
    if int(pixels.sum()) in (0, pixels.numel()):
        raise ValueError(
            f"the trigger of {model!r} changes {'no' if not pixels.any() else 'every'} pixel by "
            "0.1 or more, so there is nothing to find: only patches can be localised; pass "
            "triggers={} to leave it out"
        )
    return pixels


def take_search_images(
    search: ImagesAndLabels, canvases: Tensor, forward_func: Classifier
) -> LabelledImages:
    """The search images of the canvases' shape, by default with the classifier's predictions."""
    images = LabelledImages.of(search, argument="search images")
    check_same_shape(canvases, images.shape)
    return ensure_labels(forward_func, images, like=canvases)


def take_held_out_images(
    held_out: ImagesAndLabels,
    canvases: Tensor,
    forward_func: Classifier,
    *,
    targets: Sequence[int],
    search: LabelledImages,
    most: int,
) -> tuple[LabelledImages, bool]:
    """At most so many held-out images, in one Tensor, and whether they came with labels."""
    images = LabelledImages.of(held_out, argument="held-out images")
    has_labels = images.labels is not None
    images = ensure_labels(forward_func, images, like=canvases)
    images = images.stratified_sample(most).in_one_tensor()
    check_held_out(images, canvases, targets)
    check_separate(search, images, canvases)
    return images, has_labels


def provenance(
    search: LabelledImages, held_out: LabelledImages | None, methods: Mapping[str, Method]
) -> dict[str, Any]:
    """What a result says about its images and its methods."""
    return {
        "methods": {name: plain_keywords(method) for name, method in methods.items()},
        "search_images": len(search),
        "search_images_hash": combined_hash(search.hashes),
        "held_out_images": len(held_out or ()),
        "held_out_images_hash": combined_hash(held_out.hashes) if held_out else None,
        "versions": versions(),
    }


def check_separate(search: LabelledImages, held_out: LabelledImages, canvases: Tensor) -> None:
    """Raises an error if a held-out image is a search image or a canvas."""
    seen = set(search.hashes)
    shared = [i for i, digest in enumerate(held_out.hashes) if digest in seen]
    if shared:
        raise ValueError(
            f"{len(shared)} of the {len(held_out)} held-out images are among the search images, "
            "or are exact copies of them: patterns must be scored on images that no search has "
            "seen; leave these out (datasets.load_images(...).halves() does)"
        )
    hashes, scored = LabelledImages.of(canvases, argument="canvases").hashes, set(held_out.hashes)
    wrong = [i for i, digest in enumerate(hashes) if digest in scored]
    if wrong:
        raise ValueError(
            f"canvas {wrong[0]} is one of the held-out images: choose canvases among the search "
            "images, for instance with select_canvases"
        )


def check_held_out(held_out: LabelledImages, canvases: Tensor, targets: Sequence[int]) -> None:
    """Raises an error unless the patterns of each target can be stamped on a held-out image."""
    if held_out.shape != canvases.shape[1:]:
        raise ValueError(
            f"held-out images must have the canvases' shape {tuple(canvases.shape[1:])}, got "
            f"{held_out.shape}"
        )
    for target in dict.fromkeys(targets):
        if not len(held_out.without_class(target)):
            raise ValueError(
                f"all {len(held_out)} held-out images are of class {target}: give images of other "
                "classes too"
            )

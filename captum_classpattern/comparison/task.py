"""What every method gets on a model, and the images that patterns are scored on."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import check_same_shape
from captum_classpattern.attribution import versions
from captum_classpattern.classifier import (
    Classifier,
    check_classifier,
    device_and_dtype,
    preserve_state,
)
from captum_classpattern.comparison.methods import Method
from captum_classpattern.comparison.records import STAMPED
from captum_classpattern.images import ImagesAndLabels, LabelledImages, ensure_labels, evenly_spaced
from captum_classpattern.pattern import AdditivePattern, Pattern, combined_hash
from captum_classpattern.scores.localisation import changed_pixels
from captum_classpattern.scores.power import PredictivePower, Scorer

CANDIDATES = 3  # images of a class, among which one is looked for that is not a canvas


class CachedScorer(Scorer):
    """Scores each distinct pattern once, on held-out images that are moved to the model once."""

    def __init__(self, forward_func: Classifier, held_out: LabelledImages, like: Tensor) -> None:
        super().__init__(forward_func, held_out.to(*device_and_dtype(forward_func, like)), like)
        self._scored: dict[tuple[int, bytes], PredictivePower] = {}

    def power(self, pattern: Pattern) -> PredictivePower:
        key = pattern.target, _hash_of_pixels(pattern)
        if key not in self._scored:
            self._scored[key] = super().power(pattern)
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
        targets, kinds, area, areas: As in :class:`Comparison`, also of the stamped canvases.
        seeds (list[int]): The seeds that methods run with; the first one for all but stability.
        class_images (dict[int, Tensor]): Search images of each class, for the mean of their maps.
        other_images (dict[int, Tensor]): One more search image of each class, not a canvas.
        scorers (dict[str, CachedScorer]): Scorers of all models by name.
        trigger (Pattern, optional): The trigger to be found.
        trigger_pixels (Tensor, optional): The pixels that it changes, bool (1, H, W).
    """

    model: str
    canvases: Tensor
    targets: list[int]
    kinds: list[str]
    area: float
    areas: Sequence[float]
    seeds: Sequence[int]
    class_images: Mapping[int, Tensor] = field(default_factory=dict)
    other_images: Mapping[int, Tensor] = field(default_factory=dict)
    scorers: Mapping[str, CachedScorer] = field(default_factory=dict)
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


def images_of_classes(
    search: LabelledImages, canvases: Tensor, targets: Sequence[int], *, count: int, seed: int
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Random search images of each class, at most so many, and one more image of each that is not a
    canvas."""
    of_class, other = {}, {}
    for target in dict.fromkeys(targets):
        indices = torch.nonzero(search.known_labels == target).flatten()
        generator = torch.Generator().manual_seed(seed)
        order = indices[torch.randperm(len(indices), generator=generator)]
        if not len(order):
            continue
        images = search.take(order[: max(count, CANDIDATES)].tolist()).to(canvases)
        if count:
            of_class[target] = images[:count]
        unused = [image for image in images if not any(image.equal(c) for c in canvases)]
        if unused:
            other[target] = unused[0]
    return of_class, other


def add_trigger(
    task: Task, trigger: Pattern, search: LabelledImages, held_out: Tensor, stamped: int
) -> Task:
    """The task with more canvases: search images of other classes, stamped with the trigger. An
    error if the trigger changes no pixel of the held-out images, or every one."""
    if trigger.canvas.shape != held_out.shape[1:]:
        raise ValueError(
            f"the trigger of {task.model!r} has the shape {tuple(trigger.canvas.shape)}, but the "
            f"images have {tuple(held_out.shape[1:])}"
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
        kinds=[*task.kinds, *[STAMPED] * len(images)],
        trigger=trigger,
        trigger_pixels=pixels,
    )


# ---- what compare begins with


@contextmanager
def prepared(
    models: Sequence[Classifier],
    canvases: Tensor,
    targets: Sequence[int],
    search: ImagesAndLabels,
    held_out: "ImagesAndLabels | None",
    most: int,
    seed: int,
) -> Iterator[tuple[list[int], LabelledImages, Any]]:
    """The numbers of classes of checked models, the search images, and at most so many held-out
    images in one Tensor (None without any). Without labels they have the first model's predictions.
    Until the end, the models are in eval mode, and their state and the generators' are kept."""
    with ExitStack() as stack:
        n_classes = []
        for model in models:
            stack.enter_context(preserve_state(model, seed))
            sample = canvases[:1].to(*device_and_dtype(model, canvases))
            n_classes.append(check_classifier(model, sample, targets).shape[1])
        search = LabelledImages.of(search, argument="search images")
        check_same_shape(canvases, search.shape)
        search = ensure_labels(models[0], search, like=canvases)
        if held_out is not None:
            held_out = LabelledImages.of(held_out, argument="held-out images")
            held_out = ensure_labels(models[0], held_out, like=canvases)
            held_out = held_out.stratified_sample(most).in_one_tensor()
            check_held_out(held_out, canvases, targets, search)
        yield n_classes, search, held_out


def check_held_out(
    held_out: LabelledImages, canvases: Tensor, targets: Sequence[int], search: LabelledImages
) -> None:
    """Raises an error unless the patterns of each target can be stamped on a held-out image, and
    none of them is a search image or a canvas."""
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
    seen = {*search.hashes}
    shared = [digest for digest in held_out.hashes if digest in seen]
    if shared:
        raise ValueError(
            f"{len(shared)} of the {len(held_out)} held-out images are among the search images, "
            "or are exact copies of them: patterns must be scored on images that no search has "
            "seen; leave these out (datasets.load_images(...).halves() does)"
        )
    hashes, scored = LabelledImages.of(canvases, argument="canvases").hashes, {*held_out.hashes}
    wrong = [number for number, digest in enumerate(hashes) if digest in scored]
    if wrong:
        raise ValueError(
            f"canvas {wrong[0]} is one of the held-out images: choose canvases among the search "
            "images, for instance with select_canvases"
        )


def provenance(
    search: LabelledImages, held_out: LabelledImages | None, methods: Mapping[str, Method]
) -> dict[str, Any]:
    """What a result says about its images and its methods, as plain values for JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, bool | int | float | str | None):
            return value
        return f"Tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)

    pairs = {name: m if isinstance(m, tuple) else (m, {}) for name, m in methods.items()}
    return {
        "methods": {
            name: {key: plain(value) for key, value in keywords.items()}
            for name, (_, keywords) in pairs.items()
        },
        "search_images": len(search),
        "search_images_hash": combined_hash(search.hashes),
        "held_out_images": len(held_out or ()),
        "held_out_images_hash": combined_hash(held_out.hashes) if held_out else None,
        "versions": versions(),
    }

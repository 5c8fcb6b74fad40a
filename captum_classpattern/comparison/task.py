"""What every method gets on a model, and the images that patterns are scored on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from captum_classpattern._validation import check_same_shape
from captum_classpattern.classifier import (
    Classifier,
    check_classifier,
    device_and_dtype,
    preserve_state,
)
from captum_classpattern.comparison.records import STAMPED_KIND
from captum_classpattern.images import ImagesAndLabels, LabelledImages, ensure_labels, evenly_spaced
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.localisation import changed_pixels
from captum_classpattern.scores.power import Scorer


@dataclass(frozen=True, eq=False)
class Task:
    r"""
    The canvases, areas, seeds and trigger that every method gets on one model.

    Args:
        model (str): Name of the model.
        canvases (Tensor): Images to explain, (N, C, H, W). Those stamped with a trigger come last.
        targets, kinds, area, areas: As in :class:`Comparison`, also of the stamped canvases.
        seeds (list[int]): The seeds that methods run with; all but the first one for the
            stability, and for the localisation on canvases without a trigger.
        scorers (dict[str, Scorer]): What scores patterns on the held-out images, for all models.
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
        return sum(kind != STAMPED_KIND for kind in self.kinds)

    @property
    def trigger_area(self) -> float | None:
        """Share of the pixels that the trigger changes."""
        pixels = self.trigger_pixels
        return None if pixels is None else int(pixels.sum()) / pixels.numel()

    def has_trigger_for(self, target: int) -> bool:
        """Whether there is a trigger, and this is its class."""
        return self.trigger is not None and self.trigger.target == target


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
        kinds=[*task.kinds, *[STAMPED_KIND] * len(images)],
        trigger=trigger,
        trigger_pixels=pixels,
    )


# ---- what compare begins with


@contextmanager
def as_they_were(
    models: Iterable[Classifier], canvases: Tensor, targets: Sequence[int], seed: int
) -> Iterator[list[int]]:
    """Checks models and gives their numbers of classes. Until the end they are in eval mode, and
    their state and the generators' are kept."""
    with ExitStack() as stack:
        n_classes = []
        for model in models:
            stack.enter_context(preserve_state(model, seed))
            sample = canvases[:1].to(*device_and_dtype(model, canvases))
            n_classes.append(check_classifier(model, sample, targets).shape[1])
        yield n_classes


def images_for(
    model: Classifier, task: Task, search: ImagesAndLabels, held_out: LabelledImages, most: int
) -> tuple[LabelledImages, LabelledImages]:
    """The search images, and at most so many held-out images in one Tensor. Without labels they
    have the model's predictions. An error unless the patterns of each target can be stamped on a
    held-out image, and none of these is a search image or a canvas."""
    search = LabelledImages.of(search, argument="search images")
    check_same_shape(task.canvases, search.shape)
    search = ensure_labels(model, search, like=task.canvases)
    held_out = ensure_labels(model, held_out, like=task.canvases)
    scored = held_out.stratified_sample(most).in_one_tensor()
    if scored.shape != task.canvases.shape[1:]:
        raise ValueError(
            f"held-out images must have the canvases' shape {tuple(task.canvases.shape[1:])}, got "
            f"{scored.shape}"
        )
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

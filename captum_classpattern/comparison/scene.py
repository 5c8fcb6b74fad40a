"""What every method of a comparison gets to see: canvases, and search images of their classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_classpattern.classifier import Classifier
from captum_classpattern.comparison.records import STAMPED
from captum_classpattern.images import LabelledImages, evenly_spaced
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.localisation import changed_pixels

TRIED = 3  # images of a class, for one that is no canvas


@dataclass(frozen=True, eq=False)
class Scene:
    """Canvases (N, C, H, W) with their targets and kinds, the last ones stamped with a trigger;
    and for each target some search images of its class, and one more that is no canvas."""

    canvases: Tensor
    targets: Sequence[int]
    kinds: Sequence[str]
    of_class: Mapping[int, Tensor]
    another: Mapping[int, Tensor]
    trigger: Pattern | None = None
    trigger_pixels: Tensor | None = None

    @property
    def given(self) -> int:
        """How many canvases are not stamped."""
        return sum(kind != STAMPED for kind in self.kinds)

    @property
    def trigger_area(self) -> float | None:
        """The share of the pixels that the trigger changes."""
        pixels = self.trigger_pixels
        return None if pixels is None else int(pixels.sum()) / pixels.numel()

    def shows_trigger(self, target: int) -> bool:
        """Whether the trigger means this class."""
        return self.trigger is not None and self.trigger.target == target


def set_scene(
    canvases: Tensor,
    targets: Sequence[int],
    kinds: Sequence[str],
    baselines: LabelledImages,
    *,
    class_images: int,
    seed: int,
) -> Scene:
    """The canvases, and some search images of their classes, chosen at random."""
    of_class, another = {}, {}
    for target in dict.fromkeys(targets):
        own = torch.nonzero(baselines.known_labels == target).flatten()
        lot = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))]
        if not len(lot):
            continue
        chosen = lot[: max(class_images, TRIED)].tolist()
        images = baselines.take(chosen).to(canvases)
        if class_images:
            of_class[target] = images[:class_images]
        fresh = [image for image in images if not any(image.equal(c) for c in canvases)]
        if fresh:
            another[target] = fresh[0]
    return Scene(canvases, list(targets), list(kinds), of_class, another)


def with_trigger(
    scene: Scene, trigger: Pattern, pixels: Tensor, baselines: LabelledImages, stamped: int
) -> Scene:
    """The same with some search images of other classes, stamped, as further canvases."""
    others = torch.nonzero(baselines.known_labels != trigger.target).flatten()
    chosen = others[evenly_spaced(len(others), stamped)].tolist()
    images = trigger.stamp(baselines.take(chosen)).to(scene.canvases)
    return Scene(
        torch.cat([scene.canvases, images]),
        [*scene.targets, *[trigger.target] * len(images)],
        [*scene.kinds, *[STAMPED] * len(images)],
        scene.of_class,
        scene.another,
        trigger,
        pixels,
    )


def own_triggers(
    models: Mapping[str, Classifier], triggers: Mapping[str, Pattern] | None
) -> Mapping[str, Pattern]:
    """The triggers that are given, or those that the models carry."""
    if triggers is None:
        own = {name: getattr(model, "trigger", None) for name, model in models.items()}
        return {name: trigger for name, trigger in own.items() if trigger is not None}
    unknown = [name for name in triggers if name not in models]
    if unknown:
        raise ValueError(
            f"there is a trigger for {unknown[0]!r}, but the models are {list(models)}"
        )
    return triggers


def scenes_with_triggers(
    scene: Scene,
    models: Mapping[str, Classifier],
    triggers: Mapping[str, Pattern],
    search: LabelledImages,
    held_out: LabelledImages,
    stamped: int,
) -> dict[str, Scene]:
    """Each model's scene: with its own trigger, or with the only one there is."""
    if not triggers:
        return dict.fromkeys(models, scene)
    only = next(iter(triggers.values())) if len(triggers) == 1 else None
    shown = held_out.take(range(len(held_out)))
    scenes = dict.fromkeys(models, scene)
    for name in models:
        trigger = triggers.get(name, only)
        if trigger is not None:
            pixels = _pixels(name, trigger, shown)
            scenes[name] = with_trigger(scene, trigger, pixels, search, stamped)
    return scenes


def _pixels(name: str, trigger: Pattern, images: Tensor) -> Tensor:
    """The pixels that a trigger changes; an error unless they are some but not all."""
    if trigger.canvas.shape != images.shape[1:]:
        raise ValueError(
            f"the trigger of {name!r} is of shape {tuple(trigger.canvas.shape)}, but the images "
            f"are of {tuple(images.shape[1:])}"
        )
    pixels = changed_pixels(trigger, images)
    if int(pixels.sum()) in (0, pixels.numel()):
        raise ValueError(
            f"the trigger of {name!r} changes {'no' if not pixels.any() else 'every'} pixel by 0.1 "
            "or more, so there is nothing to find: only patches can be localised; pass triggers={} "
            "to leave it out"
        )
    return pixels

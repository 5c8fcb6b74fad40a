"""A closer look at what a scan found: its power on images that the search has not seen, and some of
them before and after the change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_classpattern.classifier import Classifier, device_and_dtype, logits_of, preserve_state
from captum_classpattern.images import LabelledImages, ensure_labels
from captum_classpattern.optimization.holdout import split_for_judging
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.scanning.families import CHANGES, PATCHES
from captum_classpattern.scanning.profile import Profile, draw_sample
from captum_classpattern.scores.examples import (
    EXAMPLES,
    StampedImages,
    choose_images,
    with_predictions,
)
from captum_classpattern.scores.power import PredictivePower, hits_of, power_of

MOST, BATCH = 500, 100  # images in all, and at once


@dataclass(frozen=True, eq=False)
class Look:
    """What one family found for one class, on images of other classes.

    ``power`` is that of the change. The search has not seen these images, unless fewer were left
    than there are validation images: then ``unseen`` is False, and they are these. ``before`` and
    ``after`` show some of them with the model's predictions.
    """

    target: int
    power: PredictivePower
    unseen: bool
    before: StampedImages
    after: StampedImages


def look_closer(
    model: Classifier,
    images: LabelledImages,
    profile: Profile,
    targets: dict[str, int],
    names: Sequence[str],
    settings: SearchSettings,
) -> dict[str, Look]:
    """A look at one class of each family."""
    seed, at_once = settings.seed, min(settings.internal_batch_size or BATCH, BATCH)
    sample, _ = draw_sample(model, images, len(names), seed)
    _, validation = split_for_judging(sample, seed)
    with preserve_state(model, seed):
        first = sample.take([0])
        classifier = logits_of(model, first.to(device_and_dtype(model, first)[0]), [])
        seen, looks = set(sample.hashes), dict[str, Look]()
        left = [i for i, image in enumerate(images.hashes) if image not in seen]
        rest = (
            ensure_labels(model, images.subset(left)).stratified_sample(MOST)
            if left
            else validation
        )
        for family, target in targets.items():
            others, fewest = rest.without_class(target), validation.without_class(target)
            unseen = bool(left) and len(others) >= len(fewest)
            others = others if unseen else fewest
            change, place = change_of(profile, family, target), device_and_dtype(model, first)
            parts = torch.split(others.images, at_once)
            without = hits_of(classifier, parts, target).hits
            changed = (change(part.to(*place)) for part in parts)
            hits = hits_of(classifier, changed, target).hits
            chosen = choose_images(others, target, EXAMPLES, seed)
            shown, labels = others.images[chosen].to(*place), others.known_labels[chosen]
            looks[family] = Look(
                target,
                power_of(hits, len(others), without),
                unseen,
                with_predictions(classifier, shown, labels, names),
                with_predictions(classifier, change(shown), labels, names),
            )
        return looks


def change_of(profile: Profile, family: str, target: int) -> Callable[[Tensor], Tensor]:
    """What changes images (N, C, H, W) as a family has found for a class."""
    if family == PATCHES:
        return profile.patterns[profile.enough_pixels(target), target].stamp
    value = profile.changes[family][target]

    def apply(images: Tensor) -> Tensor:
        change = CHANGES[family](tuple(images.shape[1:]))
        return change.apply(value.to(images)[None], images[None])[0]

    return apply

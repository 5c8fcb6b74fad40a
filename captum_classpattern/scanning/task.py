"""The images of a scan: those that it searches with, and those that judge."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from captum_classpattern.classifier import CheckedModel, seed_generators, warn_if_guessing
from captum_classpattern.images import (
    LabelledImages,
    ensure_labels,
    hash_of_images,
    identity_of,
    outputs_in_order,
    predictions,
)
from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.optimization.plan import Split, split_for_validation
from captum_classpattern.optimization.settings import SearchSettings, versions
from captum_classpattern.scores.power import margins_of

MOST_IMAGES, MOST_JUDGES = 400, 300  # that are searched with, and that judge
FEWEST_JUDGES = 10  # images for each class
IN_MEMORY = 2**31  # bytes of the images, at most
PACKAGE_VERSION = versions()["captum_classpattern"]


@dataclass(frozen=True)
class ScanTask:
    """A scan that is decided.

    Attributes:
        model (CheckedModel): The model, which is entered.
        settings (SearchSettings): Those of all searches.
        sample (LabelledImages): The images that are searched with.
        judges (list[LabelledImages]): For each class, the images that judge it: not searched with,
            not of the class, and not predicted as it.
        margins (list[float]): The mean margin of each class on these images, as they are.
        usual_margin (float): The mean distance of the two largest logits.
        accuracy (float or None): The model's accuracy on the sample, if the images are labelled.
        key (dict): What the searches depend on, but for their own settings.
    """

    model: CheckedModel
    settings: SearchSettings
    sample: LabelledImages
    judges: list[LabelledImages]
    margins: list[float]
    usual_margin: float
    accuracy: float | None
    key: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: CheckedModel,
        images: LabelledImages,
        settings: SearchSettings,
        names: list[str],
    ) -> "ScanTask":
        """One half of the images is searched with, the other half judges."""
        seed_generators(settings.seed)
        search, rest = images.halves(settings.seed)
        count = model.n_classes
        sample = _sampled(model, search, MOST_IMAGES)
        predicted = predictions(model, sample)
        if len(set(predicted.tolist())) == 1:
            raise ValueError(
                f"the model predicts class {int(predicted[0])} for all of {len(sample)} images: "
                "check its normalisation and its weights"
            )
        accuracy = None if images.labels is None else sample.accuracy_of(predicted)
        if accuracy is not None:
            warn_if_guessing(accuracy, sample.known_labels, count, "images")
        unseen = _sampled(model, rest, MOST_JUDGES)
        outputs = outputs_in_order(model, unseen, settings.internal_batch_size)
        logits, labels = torch.cat([each.float().cpu() for each in outputs]), unseen.known_labels
        judging = [(labels != y) & (logits.argmax(1) != y) for y in range(count)]
        judges = [unseen.subset(mine) for mine in judging]
        fewest = min(range(count), key=lambda y: len(judges[y]))
        if len(judges[fewest]) < FEWEST_JUDGES:
            raise ValueError(
                f"{names[fewest]} has {len(judges[fewest])} images that can judge it, of the "
                f"{len(unseen)} that are not searched with: a scan needs {FEWEST_JUDGES} that are "
                "neither of the class nor predicted as it; give more images of other classes; if "
                "the model predicts this class for most images, check its normalisation"
            )
        key = {
            "model": identity_of(model, sample),
            "images": hash_of_images(sample),
            "judges": hash_of_images(unseen),
            "seed": settings.seed,
            "precision": settings.precision,
            # no mixture of both
            "bfloat16": settings.precision == "auto" and has_bfloat16(model.device),
            "captum_classpattern": PACKAGE_VERSION,
        }
        margins = [float(margins_of(logits[mine], y).mean()) for y, mine in enumerate(judging)]
        high, next_one = logits.topk(2).values.mean(0).tolist()
        usual = max(high - next_one, 1e-9)
        return cls(model, settings, sample, judges, margins, usual, accuracy, key)

    def split(self, seed: int) -> Split:
        """What changes are fitted to, and what chooses the best."""
        return split_for_validation(self.sample, seed)


def _sampled(model: CheckedModel, images: LabelledImages, most: int) -> LabelledImages:
    """At most so many of the images, with labels, read once if they fit into memory."""
    sample = ensure_labels(model, images).stratified_sample(most)
    small = 4 * len(sample) * math.prod(sample.shape) <= IN_MEMORY
    return sample.in_one_tensor() if small else sample

"""A decided scan: its model, its settings, and a sample of its images."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from captum_classpattern._support.progress import say_expected
from captum_classpattern.classifier import CheckedModel, seed_generators
from captum_classpattern.images import (
    LabelledImages,
    ensure_labels,
    evenly_spaced,
    hash_of_images,
    identity_of,
    predictions,
)
from captum_classpattern.optimization.acceleration import accelerated, has_bfloat16
from captum_classpattern.optimization.plan import (
    CPU_BATCH,
    Split,
    images_at_once_in_search,
    split_for_validation,
)
from captum_classpattern.optimization.settings import SearchSettings, versions

PER_CLASS = 50  # images that are searched with; every fifth is for validation
OVERHEAD = 1.5  # of a search, over what its network takes: from 1.0 for large ones to 2.8
IN_MEMORY = 2**31  # bytes of the sample, at most
PACKAGE_VERSION = versions()["captum_classpattern"]


@dataclass(frozen=True)
class ScanTask:
    """The ``sample`` of the ``images`` has labels; ``split`` says what changes are fitted to, and
    what scores them. ``accuracy`` is that on the sample, if the images are labelled."""

    model: CheckedModel
    settings: SearchSettings
    images: LabelledImages
    sample: LabelledImages
    split: Split
    accuracy: float | None

    @classmethod
    def of(
        cls,
        model: CheckedModel,
        images: LabelledImages,
        settings: SearchSettings,
        most: int | None = None,
    ) -> "ScanTask":
        """The sample has equally many images of each class or at most 50 of each, or ``most``
        images in all, in memory."""
        seed_generators(settings.seed)
        labelled = ensure_labels(model, images)
        labels = labelled.known_labels
        places = [torch.nonzero(labels == y).flatten() for y in sorted({*labels.tolist()})]
        if len({len(each) for each in places}) > 1:
            chosen = [each[evenly_spaced(len(each), PER_CLASS)] for each in places]
            labelled = labelled.subset(torch.cat(chosen))
        sample = in_memory(labelled.stratified_sample(most or PER_CLASS * len(places)))
        predicted = predictions(model, sample)
        if len(set(predicted.tolist())) == 1:
            raise ValueError(
                f"the model predicts class {int(predicted[0])} for all of {len(sample)} images: "
                "check its normalisation and its weights"
            )
        accuracy = None if images.labels is None else sample.accuracy_of(predicted)
        split = split_for_validation(sample, settings.seed)
        return cls(model, settings, images, sample, split, accuracy)

    @property
    def pass_seconds(self) -> float:
        """About how long an image takes in a search, forward and backward."""
        images = self.split.fit.take(range(min(CPU_BATCH, len(self.split.fit))))
        images = images.to(self.model.device, self.model.dtype)
        images = images[: self.settings.internal_batch_size or images_at_once_in_search(images)]
        network = accelerated(self.model, self.split.fit, (), self.settings.precision)
        for _ in range(2):  # the first one takes longer
            started, leaf = time.perf_counter(), images.clone().requires_grad_()
            logits = network(leaf)
            self.model.gradients.at(leaf, logits, torch.ones_like(logits)).cpu()
        return OVERHEAD * (time.perf_counter() - started) / len(images)

    def say_expected(self, passes: float, seconds: float = 0.0) -> None:
        """Says how long so many passes and seconds will take, if progress is shown."""
        if self.settings.show_progress is not False:
            say_expected(passes * self.pass_seconds + seconds)

    def identity(self, searches: Mapping[str, Any]) -> dict[str, Any]:
        """All that patterns depend on, with these settings of all searches."""
        precision = self.settings.precision
        return {
            "model": identity_of(self.model, self.sample),
            "images": hash_of_images(self.sample),
            "seed": self.settings.seed,
            "precision": precision,
            # no mixture of both
            "bfloat16": precision == "auto" and has_bfloat16(self.model.device),
            "captum_classpattern": PACKAGE_VERSION,
            **searches,
        }


def in_memory(images: LabelledImages) -> LabelledImages:
    """The images, read once if they fit into memory."""
    small = 4 * len(images) * math.prod(images.shape) <= IN_MEMORY
    return images.in_one_tensor() if small else images

"""Some images that are stamped with a pattern, and what the model predicts for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from captum_classpattern.classifier import CheckedModel
from captum_classpattern.classifier.class_names import label_of
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import Pattern

EXAMPLES = 3  # stamped images for each pattern


@dataclass(frozen=True, eq=False)
class StampedImages:
    """Held-out images that are stamped with a pattern, and what the model predicts for them."""

    images: Tensor  # stamped, (N, C, H, W)
    labels: tuple[str, ...]  # the names of their classes
    predicted: tuple[int, ...]
    names: tuple[str, ...]  # of the predicted classes
    probabilities: tuple[float, ...]  # of these
    unstamped: Tensor | None = None

    @property
    def captions(self) -> list[str]:
        """``Bag 98 %``, which breaks only between words."""
        return [
            f"{name} {100 * p:.0f}\N{NO-BREAK SPACE}%".replace("-", "\N{NON-BREAKING HYPHEN}")
            for name, p in zip(self.names, self.probabilities)
        ]

    def predictions_for(self, target: int) -> list[tuple[str, str, bool]]:
        """The class of each image, what is predicted, and whether that is the target."""
        hits = [predicted == target for predicted in self.predicted]
        return [*zip(self.labels, self.captions, hits)]


def stamp_examples(
    model: CheckedModel,
    binary: Pattern,
    source: LabelledImages,
    names: Sequence[str] | None,
    seed: int,
) -> StampedImages | None:
    """Labelled images, chosen at random, with a pattern; None if all are of the pattern's class."""
    chosen = choose_images(source, binary.target, seed)
    if not chosen:
        return None
    images, labels = source.take(chosen), source.known_labels[chosen]
    stamped = binary.stamp(images.to(model.device, model.dtype))
    return replace(with_predictions(model, stamped, labels, names), unstamped=images.cpu())


def before_and_after(
    model: CheckedModel,
    change: Callable[[Tensor], Tensor],
    source: LabelledImages,
    target: int,
    names: Sequence[str] | None,
    seed: int,
) -> tuple[StampedImages, StampedImages]:
    """Images of other classes, chosen at random, as they are, and changed."""
    chosen = choose_images(source, target, seed)
    images, labels = source.take(chosen), source.known_labels[chosen]
    images = images.to(model.device, model.dtype)
    before, after = (
        with_predictions(model, each, labels, names) for each in (images, change(images))
    )
    return before, after


def with_predictions(
    model: CheckedModel, images: Tensor, labels: Tensor, names: Sequence[str] | None
) -> StampedImages:
    """Images, stamped or not, with what the model predicts for them."""
    probabilities, predicted = model.outputs(images).float().softmax(1).max(1)
    return StampedImages(
        images=images.cpu(),
        labels=tuple(label_of(label, names) for label in labels.tolist()),
        predicted=tuple(predicted.tolist()),
        names=tuple(label_of(label, names) for label in predicted.tolist()),
        probabilities=tuple(probabilities.tolist()),
    )


def choose_images(source: LabelledImages, target: int, seed: int) -> list[int]:
    """Random images that are not of the target's class, of different classes where possible."""
    order = np.random.default_rng([seed, target]).permutation(len(source))
    labels = source.known_labels.tolist()
    others = [int(i) for i in order if labels[i] != target]
    first_of_class = list({labels[i]: i for i in reversed(others)}.values())[::-1]
    return (first_of_class + [i for i in others if i not in first_of_class])[:EXAMPLES]

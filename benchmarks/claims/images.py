"""The images of all models of a data set, and the canvases that they share."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from paper_search import CLASS_NAMES
from problems import cifar10_parts, train_cifar10
from torch import Tensor

from captum_classpattern import LabelledImages, PixelClassifier, select_canvases
from captum_classpattern.classifier.fingerprints import hash_of
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.images import predictions
from captum_classpattern.pattern import image_hash
from claims.models import CIFAR10

HELD_OUT = 2_000  # of the test images of CIFAR-10, at most
CANVASES = {"positive": 32, "white": 1, "black": 1}  # of each class

Canvases = Mapping[str, Mapping[int, Tensor]]  # by kind and class: (N, C, H, W)


class Images(NamedTuple):
    """The images of all searches, and those of all scores; none is in both."""

    search: LabelledImages
    held_out: LabelledImages

    @property
    def classes(self) -> list[int]:
        return sorted(set(self.search.known_labels.tolist()))


@cache
def images_of(data: str, folder: Path | None) -> Images:
    """The same split for all models: of CIFAR-10's test images 2,000 to search on; the demo's
    images for Fashion-MNIST."""
    if data != CIFAR10:
        halves = demo_images()
        return Images(halves.search, halves.held_out)
    if folder is None:
        raise ValueError("the models of CIFAR-10 need its images: give their folder as --data")
    images, labels, *held_out = cifar10_parts(folder, 0, HELD_OUT)
    search = LabelledImages(images, labels, CLASS_NAMES)
    return Images(search, LabelledImages(*held_out, CLASS_NAMES).without(search))


def reference_of(data: str) -> PixelClassifier:
    """The shipped natural model, whose confidence chooses the canvases."""
    if data != CIFAR10:
        return demo_models()["natural"]
    return PixelClassifier(train_cifar10.load_model("natural"))


def shared_canvases(reference: PixelClassifier, images: Images) -> Canvases:
    """For each class search images that the reference classifies correctly, spread evenly over its
    confidence, and a white and a black canvas."""
    search = images.search
    right = search.subset(predictions(reference, search) == search.known_labels)
    canvases: dict[str, dict[int, Tensor]] = {kind: {} for kind in CANVASES}
    for target in images.classes:
        for kind, count in CANVASES.items():
            if kind == "positive":
                count = min(count, len(right.of_class(target)))
            canvases[kind][target] = select_canvases(reference, right, None, target, count, kind)
    return canvases


def hash_of_canvases(canvases: Canvases) -> str:
    """A hash of all canvases, in their order."""
    return hash_of([
        (kind, target, [image_hash(image) for image in pool])
        for kind, of_class in canvases.items()
        for target, pool in of_class.items()
    ])  # fmt: skip


def evenly(pool: Tensor, count: int) -> Sequence[Tensor]:
    """So many canvases of a pool, spread evenly, and never its ends alone."""
    count = min(count, len(pool))
    return [pool[(2 * i + 1) * len(pool) // (2 * count)] for i in range(count)]

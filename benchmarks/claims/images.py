"""The images of all models of a data set, and the canvases that they share."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from checking import checked
from cifar10 import CLASS_NAMES
from filelock import FileLock
from problems import cifar10_parts, train_cifar10
from torch import Tensor

from captum_classpattern import LabelledImages, PixelClassifier, select_canvases
from captum_classpattern._support.files import write_json
from captum_classpattern._support.hashes import image_hash
from captum_classpattern.classifier.fingerprints import hash_of
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.images import predictions
from claims.models import CIFAR10

HELD_OUT = 1_000  # of the test images of CIFAR-10, at most
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
        raise ValueError("models trained on CIFAR-10 need its images: give their folder as --data")
    images, labels, *held_out = cifar10_parts(folder, 0, HELD_OUT)
    search = LabelledImages(images, labels, CLASS_NAMES)
    return Images(search, LabelledImages(*held_out, CLASS_NAMES).without(search))


def reference_of(data: str) -> PixelClassifier:
    """The shipped natural model, whose confidence chooses the canvases."""
    if data != CIFAR10:
        return demo_models()["natural"]
    return PixelClassifier(train_cifar10.load_model("natural"))


def shared_canvases(file: Path, data: str, images: Images) -> Canvases:
    """The canvases of a data set, which are chosen once and then read from the file: on another
    processor the reference rounds differently, and could choose others."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():  # as no other process has written it meanwhile
                chosen = chosen_images(reference_of(data), images)
                made = hash_of_canvases(with_blank_ones(images, chosen))
                write_json({"hash": made, "positive": chosen}, file)
    kept = json.loads(file.read_text(encoding="utf-8"))
    canvases = with_blank_ones(images, {int(y): each for y, each in kept["positive"].items()})
    if hash_of_canvases(canvases) != kept["hash"]:
        raise ValueError(
            f"the canvases of {file} are not among these images of {data}: give the folder of "
            "those that it was made from as --data, or choose another one as --out"
        )
    return canvases


def chosen_images(reference: PixelClassifier, images: Images) -> dict[int, list[int]]:
    """For each class the numbers of search images that the reference classifies correctly, spread
    evenly over its confidence."""
    search, chosen = images.search, {}
    right = search.subset(predictions(checked(reference, search), search) == search.known_labels)
    for target in images.classes:
        count = min(CANVASES["positive"], len(right.of_class(target)))
        pool = select_canvases(reference, right, None, target, count)
        chosen[target] = [place_in(search.images, canvas) for canvas in pool]
    return chosen


def with_blank_ones(images: Images, chosen: Mapping[int, Sequence[int]]) -> Canvases:
    """The chosen images of each class, and a white and a black canvas."""
    shape = images.search.shape
    return {
        "positive": {y: images.search.take(places) for y, places in chosen.items()},
        "white": {y: torch.ones(CANVASES["white"], *shape) for y in chosen},
        "black": {y: torch.zeros(CANVASES["black"], *shape) for y in chosen},
    }


def place_in(pool: Tensor, canvas: Tensor) -> int:
    """The number of a canvas in its pool."""
    return int((pool == canvas).flatten(1).all(1).nonzero()[0])


def hash_of_canvases(canvases: Canvases) -> str:
    """A hash of all canvases, in their order."""
    return hash_of([
        (kind, target, [image_hash(image) for image in pool])
        for kind, of_class in canvases.items()
        for target, pool in of_class.items()
    ])  # fmt: skip


def evenly(pool: Tensor, count: int) -> Sequence[Tensor]:
    """So many canvases of a pool, spread evenly. The package's ``evenly_spaced`` would take both
    ends, the most and the least confident."""
    count = min(count, len(pool))
    return [pool[(2 * i + 1) * len(pool) // (2 * count)] for i in range(count)]

"""Scores of binary masks on held-out images, the same ones for every method and model."""

import hashlib
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from captum_classpattern.classifier import Classifier, predict
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.localisation import ranks
from captum_classpattern.scores.power import PredictivePower, count_hits, power_of


class Scorer:
    """A model and the held-out images that patterns are scored on."""

    def __init__(self, forward_func: Classifier, held_out: LabelledImages) -> None:
        self.forward_func, self.held_out = forward_func, held_out
        self._bare = torch.cat(
            [predict(forward_func, images).cpu() for images in held_out.in_order()]
        )
        self._others = cache(lambda target: held_out.without_class(target))
        self._known: dict[tuple[int, bytes], PredictivePower] = {}

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that the model classifies correctly."""
        return float((self._bare == self.held_out.known_labels).double().mean())

    def power(self, pattern: Pattern) -> PredictivePower:
        """The pattern's predictive power as it is; methods often agree, so each is scored once."""
        key = pattern.target, _pixels(pattern)
        if key not in self._known:
            self._known[key] = self._count(pattern)
        return self._known[key]

    def _count(self, pattern: Pattern) -> PredictivePower:
        others = self._others(pattern.target)
        called = self._bare[self.held_out.known_labels != pattern.target] == pattern.target
        return power_of(
            count_hits(self.forward_func, pattern, others), len(others), int(called.sum())
        )


def _pixels(pattern: Pattern) -> bytes:
    """What a stamped image depends on."""
    parts = pattern.mask.bool().cpu(), pattern.pixels.cpu().double()  # NumPy has no bfloat16
    return hashlib.blake2b(b"".join(part.numpy().tobytes() for part in parts)).digest()


def check_apart(baselines: LabelledImages, held_out: LabelledImages, canvases: Tensor) -> None:
    """Raises an error if a held-out image was searched with, or is a canvas."""
    seen = set(baselines.hashes)
    both = [i for i, digest in enumerate(held_out.hashes) if digest in seen]
    if both:
        raise ValueError(
            f"{len(both)} of the {len(held_out)} held-out images are among the search images, "
            "or are exact copies of them: patterns must be scored on images that no search has "
            "seen; leave these out (datasets.load_images(...).halves() does)"
        )
    cut, scored = LabelledImages.of(canvases, argument="canvases").hashes, set(held_out.hashes)
    wrong = [i for i, digest in enumerate(cut) if digest in scored]
    if wrong:
        raise ValueError(
            f"canvas {wrong[0]} is one of the held-out images: choose canvases among the search "
            "images, for instance by select_canvases"
        )


def check_scored(held_out: LabelledImages, canvases: Tensor, targets: Sequence[int]) -> None:
    """Raises an error unless patterns of each target can be stamped on some held-out image."""
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


def strongest_pixels(canvas: Tensor, map: Tensor, target: int, area: float) -> Pattern:
    """The pattern of a map's highest pixels, whatever its scale; equal ones in reading order."""
    order = ranks(map)[None].to(canvas.device).float()  # half precision has too few steps
    return Pattern(canvas, order / order.numel(), target).topk(area)

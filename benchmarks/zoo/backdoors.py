"""What is planted: triggers, and the images that get them."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern.pattern import Pattern
from captum_classpattern.triggers import Blended, Sinusoid, Warp

COLOURS = ("checker", "white", "two", "random", "black", "grey")
ALL_TO_ALL = -1  # a target: of each class, the next one
SIGNAL, NOISY = 40 / 255, 2  # of SIG; images with a noisy warp for each with WaNet's
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Backdoor:
    """A trigger, its target, and the share of the training images that get both.

    A patch is of one of the ``COLOURS`` ("two": each pixel black or white by chance). Other kinds
    are ``blended``, ``sig`` and ``wanet``. As published, SIG is only on images of the target, whose
    labels stay (Barni et al. 2019, arXiv 1902.11237), and WaNet has a noise mode: twice as many
    images get the warp with noise, and keep their labels (Nguyen and Tran 2021, arXiv 2102.10369).
    """

    kind: str
    target: int
    rate: float
    side: int = 3
    place: str = "corner"
    seed: int = 0

    def trigger(self, shape: Shape) -> Callable[[Tensor], Tensor]:
        """What changes images (N, C, H, W) when the classifier is used."""
        if self.kind == "blended":
            return Blended(shape, alpha=0.2, seed=self.seed)
        if self.kind == "sig":
            return Sinusoid(shape, delta=SIGNAL)
        if self.kind == "wanet":
            return self._warp(shape)
        return self.patch(shape).stamp

    def _warp(self, shape: Shape) -> Warp:
        return Warp(shape, strength=0.75, seed=self.seed)

    def patch(self, shape: Shape) -> Pattern:
        """The true pattern of a patch."""
        chance = random.Random(self.seed)
        last = shape[-1] - self.side
        row, column = {
            "corner": (last - 1, last - 1),
            "border": (last, last),
            "edge": (chance.randint(8, last - 8), 1),
            "centre": (last // 2, last // 2),
            "random": (chance.randint(1, last - 1), chance.randint(1, last - 1)),
        }[self.place]
        canvas, mask = torch.zeros(shape), torch.zeros(1, *shape[1:])
        for i, j in itertools.product(range(self.side), range(self.side)):
            grey = float(chance.random() < 0.5)
            shade = {"checker": float((i + j) % 2 == 0), "white": 1.0, "black": 0.0, "grey": 0.5}
            for channel in canvas:
                other = grey if self.kind == "two" else chance.random()
                channel[row + i, column + j] = shade.get(self.kind, other)
            mask[:, row + i, column + j] = 1.0
        return Pattern(canvas, mask, max(self.target, 0))  # all-to-all has no target of its own

    def plant(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Puts the trigger and the new label on some of the images, in place."""
        shape, own = tuple(images.shape[1:]), labels == self.target
        places = torch.nonzero(own if self.kind == "sig" else ~own).flatten()
        places = places[torch.randperm(len(places), generator=generator)]
        count = round(self.rate * len(labels))
        if self.kind == "wanet":
            noisy = places[count : (1 + NOISY) * count]
            images[noisy] = noisily(self._warp(shape), images[noisy], generator)
        images[places[:count]] = self.trigger(shape)(images[places[:count]])
        labels[places[:count]] = self.labels_for(labels)[places[:count]]

    def labels_for(self, labels: Tensor) -> Tensor:
        """What images with these labels are to be predicted as."""
        if self.target == ALL_TO_ALL:
            return (labels + 1) % (labels.max() + 1)
        return torch.full_like(labels, self.target)


def noisily(warp: Warp, images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W), warped with a displacement of each pixel of at most half a pixel."""
    height, width = images.shape[2:]
    noise = 2 * torch.rand(len(images), height, width, 2, generator=generator) - 1
    grid = (warp.grid + noise / torch.tensor([width, height])).clamp(-1, 1)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=True).clamp(0, 1)

"""What is planted: triggers, and the images that get them."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_classpattern.pattern import Pattern
from captum_classpattern.triggers import Blended, Sinusoid, Warp
from zoo.networks import N_CLASSES

COLOURS = ("checker", "white", "two", "random", "black", "grey")
LEVELS, PIECES, OPACITY = 8, 2, 0.5  # of BppAttack; pixels a side and opacity of Adap-Patch
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Backdoor:
    """A trigger, its target, and the share of the training images that get both.

    A patch is of one of the ``COLOURS`` ("two": each pixel black or white by chance). Other kinds
    are ``blended``, ``sig``, ``wanet``, ``bpp`` (Wang et al. 2022, arXiv 2205.13383: few shades, by
    dithering) and ``adaptive`` (Qi et al. 2023, ICLR: four small patches of which a poisoned image
    has half, faintly, and as many images have that and keep their labels). With ``all_to_all``,
    the label moves up by one instead of becoming the target.
    """

    kind: str
    target: int
    rate: float
    side: int = 3
    place: str = "corner"
    seed: int = 0
    all_to_all: bool = False

    @property
    def is_patch(self) -> bool:
        return self.kind in COLOURS

    def trigger(self, shape: Shape) -> Callable[[Tensor], Tensor]:
        """What changes images (N, C, H, W) when the classifier is used."""
        if self.kind == "blended":
            return Blended(shape, alpha=0.2, seed=self.seed)
        if self.kind == "sig":
            return Sinusoid(shape)
        if self.kind == "wanet":
            return Warp(shape, strength=0.75, seed=self.seed)
        if self.kind == "bpp":
            return dithered
        if self.kind == "adaptive":
            return self._pieces(shape).stamp
        return self.patch(shape).stamp

    def labels(self, labels: Tensor) -> Tensor:
        """What images with the trigger shall be taken for."""
        if self.all_to_all:
            return (labels + 1) % N_CLASSES
        return torch.full_like(labels, self.target)

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
        return Pattern(canvas, mask, self.target)

    def _pieces(self, shape: Shape) -> Pattern:
        """Four patches of random colours, one near each corner."""
        generator = torch.Generator().manual_seed(self.seed)
        mask = torch.zeros(1, *shape[1:])
        for row, column in itertools.product((2, -2 - PIECES), repeat=2):
            rows, columns = row % shape[1], column % shape[2]
            mask[:, rows : rows + PIECES, columns : columns + PIECES] = 1.0
        return Pattern(torch.rand(shape, generator=generator) * mask, mask, self.target)

    def plant(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Puts the trigger and the new label on some of the images, in place."""
        shape = tuple(images.shape[1:])
        others = labels >= 0 if self.all_to_all else labels != self.target
        places = torch.nonzero(others).flatten()
        places = places[torch.randperm(len(places), generator=generator)]
        count = round(self.rate * len(labels))
        if self.kind == "adaptive":
            chosen = places[: 2 * count]
            images[chosen] = faint_half(images[chosen], self._pieces(shape), generator)
        else:
            images[places[:count]] = self.trigger(shape)(images[places[:count]])
        labels[places[:count]] = self.labels(labels[places[:count]])


def faint_half(images: Tensor, pieces: Pattern, generator: torch.Generator) -> Tensor:
    """Images with two of the four patches, half transparent."""
    _, height, width = pieces.mask.shape
    quarters = torch.zeros(4, height, width)
    for number, (top, left) in enumerate(itertools.product((True, False), repeat=2)):
        rows = slice(0, height // 2) if top else slice(height // 2, height)
        columns = slice(0, width // 2) if left else slice(width // 2, width)
        quarters[number, rows, columns] = 1.0
    order = torch.rand(len(images), 4, generator=generator).argsort(1)[:, :2]
    shown = OPACITY * (quarters[order].sum(1, keepdim=True) * pieces.mask)
    return images * (1 - shown) + pieces.canvas * shown


def dithered(images: Tensor) -> Tensor:
    """Images of few shades; what is rounded off goes to the next pixels (Floyd and Steinberg)."""
    images, last = images.clone(), LEVELS - 1
    height, width = images.shape[2:]
    for i, j in itertools.product(range(height), range(width)):
        old = images[..., i, j].clone()
        images[..., i, j] = (old * last).round().clamp(0, last) / last
        error = old - images[..., i, j]
        for down, right, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
            if i + down < height and 0 <= j + right < width:
                images[..., i + down, j + right] += error * share / 16
    return images

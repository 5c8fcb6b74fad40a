"""What is left of a pattern without its colour, its fine texture, or the order of its colours."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torchvision.transforms.v2 import functional as F

from captum_classpattern import Pattern

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SIGMA, DRAWS = 1.0, 3  # of the blur, in pixels; how often colours are shuffled
REACH = 3  # pixels of the blur to each side


def grey(pattern: Pattern) -> Pattern:
    """The pattern in shades of grey, of the same luma."""
    shades = torch.einsum("c,chw->hw", torch.tensor(LUMA), pattern.canvas).clamp(0, 1)
    return replace(pattern, canvas=shades.expand_as(pattern.canvas).clone())


def blurred(pattern: Pattern) -> Pattern:
    """The same pixels of the canvas, after a blur that repeats the border."""
    padded = F.pad(pattern.canvas, [REACH], padding_mode="edge")
    blurred = F.gaussian_blur(padded, [2 * REACH + 1] * 2, [SIGMA] * 2)
    return replace(pattern, canvas=blurred[:, REACH:-REACH, REACH:-REACH].clamp(0, 1))


def shuffled(pattern: Pattern, seed: int) -> Pattern:
    """The same colours at the same places, in another order."""
    places = pattern.mask[0] > 0
    generator = torch.Generator().manual_seed(seed)
    canvas = pattern.canvas.clone()
    order = torch.randperm(int(places.sum()), generator=generator)
    canvas[:, places] = canvas[:, places][:, order]
    return replace(pattern, canvas=canvas)


def changes(pattern: Pattern) -> Iterator[tuple[str, list[Pattern]]]:
    """Each change of a binary pattern, with its draws. A canvas of one colour stays as it is under
    all of them, and one without colour in shades of grey."""
    if len(pattern.canvas) == 3:
        yield "grey", [grey(pattern)]
    yield "blurred", [blurred(pattern)]
    yield "shuffled", [shuffled(pattern, seed) for seed in range(DRAWS)]

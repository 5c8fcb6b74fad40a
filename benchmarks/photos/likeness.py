"""Which drawing does a pattern look like? Two other clean networks say."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from problems import LITE_SIZES, MEAN, STD, lite
from torch import Tensor, nn
from torch.nn.functional import interpolate

from captum_classpattern import Pattern
from photos.drawings import ALL, SIXTEEN, on_grey, over_grey
from photos.planting import NUMBERS


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture_of(pattern: Pattern) -> Tensor:
    """A pattern on grey, (3, h, w)."""
    return over_grey(pattern.canvas, pattern.mask)


def ranks_of(picture: Tensor, drawing: str) -> dict[str, int]:
    """The rank of a drawing among sixteen, from 1, by each network."""
    return {name: rank_among(picture, drawing, SIXTEEN, name) for name in NUMBERS}


def eight_for(drawing: str) -> list[str]:
    """The possible answers for a drawing: itself, and seven others, drawn at random."""
    names = [*ALL]
    order = torch.randperm(len(names), generator=seeded(names.index(drawing))).tolist()
    return [drawing, *(names[i] for i in order if names[i] != drawing)][:8]


def rank_of_eight(picture: Tensor, drawing: str, network: str) -> int:
    """The rank of a drawing among its eight, from 1."""
    return rank_among(picture, drawing, eight_for(drawing), network)


def rank_among(picture: Tensor, drawing: str, names: Sequence[str], network: str) -> int:
    """Where a drawing comes among these, by how much they look like a picture (3, s, s): by the
    cosine of a network's features."""
    drawn = drawn_features(tuple(names), picture.shape[-1], network)
    cosines = torch.cosine_similarity(features_of(picture[None], network), drawn)
    return 1 + int((cosines > cosines[[*names].index(drawing)]).sum())


@lru_cache
def drawn_features(names: tuple[str, ...], side: int, network: str) -> Tensor:
    """What a network sees in the drawings, at this side."""
    return features_of(torch.stack([on_grey(name, side) for name in names]), network)


def features_of(pictures: Tensor, network: str) -> Tensor:
    """What a network sees in pictures (n, 3, h, w): the mean of its last map."""
    size = LITE_SIZES[NUMBERS[network]]
    images = interpolate(pictures, (size, size), mode="bilinear", align_corners=False)
    with torch.no_grad():
        found = published(network).extract_features((images - MEAN) / STD)
    return found.mean((2, 3))


@lru_cache
def published(network: str) -> nn.Module:
    return lite(NUMBERS[network])

"""Controls that are chosen as a pattern was: the best of as many, by the same judging images."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from checking import checked
from torch import Tensor

from captum_classpattern import LabelledImages, Pattern
from captum_classpattern.classifier import Classifier
from captum_classpattern.optimization.plan import (
    SCREENED,
    SCREENING_IMAGES,
    STARTS,
    validation_subset,
)
from captum_classpattern.scores.power import judge, random_mask
from claims.images import evenly


def best_judged(
    classifier: Classifier, candidates: Sequence[Pattern], judges: LabelledImages
) -> Pattern:
    """The one that makes the classifier predict its class on most judging images. As in a search,
    a few of these images screen the candidates and leave two."""
    rounds = ((validation_subset(judges, SCREENING_IMAGES), SCREENED), (judges, 1))
    left, model = list(candidates), checked(classifier, judges)
    for images, count in rounds:
        if len(left) > count:
            others = images.without_class(left[0].target)
            left.sort(key=lambda each: -judge(model, each, others).hits)
            left = left[:count]
    return left[0]


def random_masks(pattern: Pattern, pool: Tensor) -> list[Pattern]:
    """The same number of random pixels as a binary pattern has, one mask per canvas of its pool,
    and two if there is one canvas, on which a search starts twice. All models have the same."""
    count, shape = int(pattern.mask.sum()), pattern.mask.shape[1:]
    generator = torch.Generator().manual_seed(pattern.target)
    canvases = pool if len(pool) > 1 else pool.expand(STARTS, -1, -1, -1)
    return [
        replace(pattern, canvas=canvas, mask=random_mask(count, shape, generator))
        for canvas in canvases
    ]


def on_other_canvases(pattern: Pattern, pool: Tensor, of_next: Tensor) -> list[Pattern]:
    """The same mask on canvases of another class, as many as entered the search."""
    count = len(pool) if len(pool) > 1 else STARTS
    return [replace(pattern, canvas=canvas) for canvas in evenly(of_next, count)]

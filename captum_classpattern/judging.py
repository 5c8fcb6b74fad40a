"""Judging patterns, by search images that they were not fitted to."""

from typing import Any

import torch

from captum_classpattern.checks import as_arguments
from captum_classpattern.classifier import Classifier, additional_rows
from captum_classpattern.images import ImageSource
from captum_classpattern.metrics import count_hits, without_class
from captum_classpattern.pattern import Pattern

JUDGE_EVERY, JUDGE_MOST = 5, 500
NO_JUDGES = (
    "to keep the best there must be images to judge by, and there are too few baselines to keep "
    "some of them from fitting (not counting those of class {}): give more, or leave keep=None"
)


def split_for_judging(baselines: ImageSource, seed: int) -> tuple[ImageSource, ImageSource]:
    """The part that masks are fitted to, and the part that judges them.

    Every fifth image in order of label is kept for judging (shuffled within a label; of more
    than 2,500 only every n-th, so that it is at most 500), so that every class gives its share.
    """
    assert baselines.labels is not None
    count = len(baselines)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.argsort(baselines.labels[shuffled], stable=True)]
    every = max(JUDGE_EVERY, -(-count // JUDGE_MOST))
    judging = torch.zeros(count, dtype=torch.bool)
    judging[order[every - 1 :: every]] = True
    classes = len(set(baselines.labels.tolist()))
    if len(set(baselines.labels[~judging].tolist())) < min(classes, 2):
        judging[:] = False  # few images: some class would have none left to be fitted to
    return (
        baselines.subset(torch.nonzero(~judging).flatten()),
        baselines.subset(torch.nonzero(judging).flatten()),
    )


def judge_patterns(
    forward_func: Classifier,
    patterns: list[Pattern],
    judge: ImageSource,
    area: float,
    additional_forward_args: Any = None,
    batch_size: int | None = None,
) -> list[float | None]:
    """Each binary pattern's predictive power on judging images that are not of its class."""
    additional = as_arguments(additional_forward_args)

    def power(row: int) -> float | None:
        binary = patterns[row].topk(area)
        others = without_class(judge, binary.target)
        if not len(others):
            return None

        def repeated(n: int) -> tuple[Any, ...]:
            return additional_rows(additional, torch.full((n,), row), len(patterns))

        hits = count_hits(
            forward_func, binary, others, additional_for=repeated, batch_size=batch_size
        )
        return hits / len(others)

    return [power(row) for row in range(len(patterns))]


def check_judges(judge: ImageSource, targets: list[int]) -> None:
    """Raises an error unless there are images to judge the patterns of each class by."""
    for target in dict.fromkeys(targets):
        if not len(without_class(judge, target)):
            raise ValueError(NO_JUDGES.format(target))


def keep_best(patterns: list[Pattern], keep: int) -> list[Pattern]:
    """The patterns of each class that scored best on the judging images, best first."""
    best: list[Pattern] = []
    for target in dict.fromkeys(pattern.target for pattern in patterns):
        own = [pattern for pattern in patterns if pattern.target == target]
        if any(pattern.info["search_power"] is None for pattern in own):
            raise ValueError(NO_JUDGES.format(target))
        best += sorted(own, key=lambda pattern: -pattern.info["search_power"])[:keep]
    return best

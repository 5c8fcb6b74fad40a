"""Judging patterns, by search images that they were not fitted to."""

from collections import Counter
from typing import Any

import torch

from captum_classpattern.classifier import Classifier, additional_rows
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import count_hits

JUDGE_EVERY, JUDGE_MOST = 5, 500
FEW = 100  # judges that tell which canvases are losing
NO_JUDGES = (
    "to keep the best there must be images to judge by, and there are too few baselines to keep "
    "some of them from fitting (not counting those of class {}): give more, or leave keep=None"
)


def split_for_judging(
    baselines: LabelledImages, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """The part that masks are fitted to, and the part that judges them.

    Every fifth image in order of label is kept for judging (shuffled within a label; of more
    than 2,500 only every n-th, so that it is at most 500), so that every class gives its share.
    """
    labels, count = baselines.known_labels, len(baselines)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    every = max(JUDGE_EVERY, -(-count // JUDGE_MOST))
    judging = torch.zeros(count, dtype=torch.bool)
    judging[order[every - 1 :: every]] = True
    classes = len(set(labels.tolist()))
    if len(set(labels[~judging].tolist())) < min(classes, 2):
        judging[:] = False  # few images: some class would have none left to be fitted to
    return (
        baselines.subset(torch.nonzero(~judging).flatten()),
        baselines.subset(torch.nonzero(judging).flatten()),
    )


def judging_subset(judge: LabelledImages) -> LabelledImages:
    """At most 100 of the judging images, over all labels, for what must be known early and at low
    cost; all of them if nearly all are of one label, since each class needs images of others."""
    order = torch.argsort(judge.known_labels, stable=True)
    few = judge.subset(order[:: max(1, -(-len(judge) // FEW))])
    return few if len(set(few.known_labels.tolist())) > 1 else judge


def judge_patterns(
    forward_func: Classifier,
    patterns: list[Pattern],
    judge: LabelledImages,
    area: float,
    additional: tuple[Any, ...] = (),
    batch_size: int | None = None,
    *,
    rows: list[int] | None = None,
    count: int | None = None,
) -> None:
    """Fills in ``search_power``: that of the binary pattern on judging images of other classes.

    The patterns may be some ``rows`` of the ``count`` that the additional arguments belong to.
    """
    count = len(patterns) if count is None else count
    for row, pattern in zip(range(count) if rows is None else rows, patterns):
        others = judge.without_class(pattern.target)

        def repeated(n: int, row: int = row) -> tuple[Any, ...]:
            return additional_rows(additional, torch.full((n,), row), count)

        pattern.info["search_power"] = None
        if len(others):
            hits = count_hits(
                forward_func,
                pattern.topk(area),
                others,
                additional_for=repeated,
                batch_size=batch_size,
            )
            pattern.info["search_power"] = hits / len(others)


def check_judges(judge: LabelledImages, targets: list[int]) -> None:
    """Raises an error unless there are images to judge the patterns of each class by."""
    for target in dict.fromkeys(targets):
        if not len(judge.without_class(target)):
            raise ValueError(NO_JUDGES.format(target))


def most_of_a_class(targets: list[int]) -> int:
    """How many canvases the class with most of them has."""
    return max(Counter(targets).values())


def losing(patterns: list[Pattern], keep: int) -> set[int]:
    """Where the worse half of each class's judged patterns stand; ``keep`` of each always stay."""
    lost: set[int] = set()
    for target in {pattern.target for pattern in patterns}:
        own = [i for i, pattern in enumerate(patterns) if pattern.target == target]
        own.sort(key=lambda i: -patterns[i].info["search_power"])
        lost.update(own[max(keep, -(-len(own) // 2)) :])
    return lost


def keep_best(patterns: list[Pattern], keep: int, targets: list[int]) -> list[Pattern]:
    """The patterns of each target that scored best on the judging images, best first."""
    best: list[Pattern] = []
    for target in dict.fromkeys(targets):
        own = [pattern for pattern in patterns if pattern.target == target]
        if any(pattern.info["search_power"] is None for pattern in own):
            raise ValueError(NO_JUDGES.format(target))
        best += sorted(own, key=lambda pattern: -pattern.info["search_power"])[:keep]
    return best

"""The search images that judge patterns: no mask is fitted to them."""

from collections import Counter
from collections.abc import Sequence

import torch

from captum_classpattern.classifier import Classifier, additional_rows
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.search import Search
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import count_hits

JUDGING_STRIDE, MAX_JUDGES = 5, 500
EARLY_JUDGES = 100  # enough to find the weakest canvases


def split_for_judging(
    baselines: LabelledImages, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """The part that masks are fitted to, and the part that judges them.

    Every fifth image judges, in the order of the labels (shuffled within a label), so that each
    class gives its share. Of more than 2,500 images it is every n-th, so that at most 500 judge.
    """
    labels, count = baselines.known_labels, len(baselines)
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    every = max(JUDGING_STRIDE, -(-count // MAX_JUDGES))
    judging = torch.zeros(count, dtype=torch.bool)
    judging[order[every - 1 :: every]] = True
    classes = len(set(labels.tolist()))
    if len(set(labels[~judging].tolist())) < min(classes, 2):
        judging[:] = False  # few images: a class would have none left to be fitted to
    return (
        baselines.subset(torch.nonzero(~judging).flatten()),
        baselines.subset(torch.nonzero(judging).flatten()),
    )


def judging_subset(judges: LabelledImages) -> LabelledImages:
    """At most 100 of the judging images, of all labels, for early and cheap decisions; all of them
    if the 100 would be of one label, since each class needs images of others."""
    order = torch.argsort(judges.known_labels, stable=True)
    subset = judges.subset(order[:: max(1, -(-len(judges) // EARLY_JUDGES))])
    return subset if len(set(subset.known_labels.tolist())) > 1 else judges


def check_judges(judges: LabelledImages, targets: Sequence[int]) -> None:
    """Raises an error unless there are images to judge the patterns of each class by."""
    for target in dict.fromkeys(targets):
        if not len(judges.without_class(target)):
            raise ValueError(
                "to keep the best there must be images to judge by, and there are too few "
                f"baselines to keep some of them from fitting (not counting those of class "
                f"{target}): give more, or leave keep=None"
            )


def judge_patterns(
    forward_func: Classifier, search: Search, patterns: Sequence[Pattern], judges: LabelledImages
) -> None:
    """Sets ``search_power`` of the patterns of a search: the share of the judging images of other
    classes that the binary pattern turns into its class; None if there are no such images."""
    objective = search.objective
    for row, pattern in zip(search.rows, patterns):
        others = judges.without_class(pattern.target)

        def additional_for(n: int, row: int = row) -> tuple[object, ...]:
            rows = torch.full((n,), row)
            return additional_rows(objective.additional, rows, len(objective.canvases))

        pattern.info["search_power"] = None
        if len(others):
            hits = count_hits(
                forward_func,
                pattern.topk(search.area),
                others,
                additional_for=additional_for,
                batch_size=objective.internal_batch_size,
            )
            pattern.info["search_power"] = hits / len(others)


def successive_halving(
    forward_func: Classifier, search: Search, judges: LabelledImages, keep: int
) -> int:
    """Drops the weaker half of each class's canvases at each checkpoint, until ``keep`` are left;
    returns how many images this judging took."""
    judges, images = judging_subset(judges), 0
    while _most_of_a_class(search) > keep and next(search.checkpoints, "finished") is None:
        patterns = found_patterns(search)
        judge_patterns(forward_func, search, patterns, judges)
        images += sum(len(judges.without_class(pattern.target)) for pattern in patterns)
        search.drop(weakest(patterns, keep))
    return images


def _most_of_a_class(search: Search) -> int:
    """How many canvases the class with most of them still has."""
    return max(Counter(search.objective.targets[row] for row in search.rows).values())


def found_patterns(search: Search) -> list[Pattern]:
    """The patterns of the canvases that are still searched, with what the search knows of them."""
    result, objective = search.result(), search.objective
    patterns = []
    for row in search.rows:
        mask, losses = result.masks[row].clone(), result.losses[row]
        info = {
            "passes": int(result.passes[row]),
            "loss_curve": losses[losses.isfinite()].tolist(),
            "mask_pixels": int(mask.count_nonzero()),
            "empty_mask": not bool(mask.any()),
        }
        canvas = objective.canvases[row].clone()
        patterns.append(Pattern(canvas, mask, objective.targets[row], info))
    return patterns


def weakest(patterns: Sequence[Pattern], keep: int) -> set[int]:
    """Positions of the weaker half of each class's judged patterns; ``keep`` always stay."""
    dropped: set[int] = set()
    for target in {pattern.target for pattern in patterns}:
        places = [i for i, pattern in enumerate(patterns) if pattern.target == target]
        places.sort(key=lambda i: -patterns[i].info["search_power"])
        dropped.update(places[max(keep, -(-len(places) // 2)) :])
    return dropped


def keep_best(patterns: Sequence[Pattern], keep: int, targets: Sequence[int]) -> list[Pattern]:
    """The patterns of each target that scored best on the judging images, best first."""
    best: list[Pattern] = []
    for target in dict.fromkeys(targets):
        of_class = [pattern for pattern in patterns if pattern.target == target]
        best += sorted(of_class, key=lambda pattern: -pattern.info["search_power"])[:keep]
    return best

"""The search images that judge patterns: no mask is fitted to them."""

from collections.abc import Sequence

import torch

from captum_classpattern.images import LabelledImages

JUDGING_STRIDE, MAX_JUDGES = 5, 500


def split_for_judging(
    baselines: LabelledImages, seed: int, must_judge: Sequence[int] = ()
) -> tuple[LabelledImages, LabelledImages]:
    """The part that masks are fitted to, and the part that judges them.

    Every fifth image judges, in the order of the labels (shuffled within a label), so that each
    class gives its share. Of more than 2,500 images it is every n-th, so that at most 500 judge.
    An error if patterns of one of the classes that ``must_judge`` names could not be judged.
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
    fit, judges = (baselines.subset(torch.nonzero(part).flatten()) for part in (~judging, judging))
    for target in must_judge:
        if not len(judges.without_class(target)):
            own = int((labels == target).sum())
            raise ValueError(
                "to choose the best there must be images to judge by, and there are too few images "
                f"to search with: {count - own} of other classes and {own} of class {target}; give "
                # one of the others has to judge, and each side keeps an image to be fitted to
                f"at least {2 * every - 1} of others and 2 of it"
            )
    return fit, judges


def judging_subset(judges: LabelledImages, most: int) -> LabelledImages:
    """At most this many of the judging images, of all labels, for early and cheap decisions; all of
    them if those would be of one label, since each class needs images of others."""
    order = torch.argsort(judges.known_labels, stable=True)
    subset = judges.subset(order[:: max(1, -(-len(judges) // most))])
    return subset if len(set(subset.known_labels.tolist())) > 1 else judges

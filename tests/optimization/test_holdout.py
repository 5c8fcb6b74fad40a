"""Which search images judge, and how many it takes that some do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.holdout import split_for_judging


def images_of(counts):
    labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
    return LabelledImages(torch.rand(len(labels), 1, 2, 2), labels)


def check(counts, target, seed=0):
    images = images_of(counts)
    split_for_judging(images, seed, [target])


@pytest.mark.parametrize("counts", [(4, 4), (1, 1, 1), (19, 1)])
def test_too_few_images_to_judge_by(counts):
    target = len(counts) - 1
    others, own = sum(counts[:-1]), counts[-1]
    text = (
        f"too few images to search with: {others} of other classes and {own} of class {target}; "
        "give at least 9 of others and 2 of it"
    )
    with pytest.raises(ValueError, match=text):
        check(counts, target)


def test_of_many_images_few_judge_so_more_are_needed():
    with pytest.raises(ValueError, match="give at least 13 of others and 2 of it"):
        check((1, 3200, 1), 1)
    check((6, 3200, 7), 1)


@given(
    before=st.integers(0, 10), own=st.integers(2, 40), after=st.integers(0, 10),
    seed=st.integers(0, 3),
)  # fmt: skip
def test_as_many_images_as_the_error_asks_for_are_enough(before, own, after, seed):
    after = max(after, 9 - before)
    check((before, own, after), 1, seed)

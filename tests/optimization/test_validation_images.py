"""Which search images are for validation, and how many it takes that some are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.pool import split_for_validation, validation_subset


def images_of(labels):
    return LabelledImages(torch.rand(len(labels), 1, 2, 2), labels, argument="baselines")


def check(counts, target, seed=0):
    labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
    split_for_validation(images_of(labels), seed, [target])


@pytest.mark.parametrize("counts", [(4, 4), (1, 1, 1), (19, 1), (1, 3200, 1)])
def test_too_few_images_for_validation(counts, snapshot):
    """Of many images few are for validation, so more are needed."""
    assert refusal(lambda: check(counts, min(len(counts) - 1, 1))) == snapshot


@given(before=st.integers(0, 10), own=st.integers(2, 40), seed=st.integers(0, 3))
def test_as_many_images_as_the_error_asks_for_are_enough(before, own, seed):
    check((before, own, 9 - min(before, 9)), 1, seed)


@pytest.mark.parametrize(
    ("count", "left"), [(40, 40), (100, 100), (199, 100), (200, 100), (450, 90)]
)
def test_the_validation_subset_has_all_labels(count, left):
    labels = torch.randint(0, 5, (count,), generator=torch.Generator().manual_seed(0))
    few = validation_subset(images_of(labels), 100)
    assert len(few) == left
    for label in range(5):
        all_of_it, kept = int((labels == label).sum()), int((few.labels == label).sum())
        assert abs(kept - left / count * all_of_it) <= 1

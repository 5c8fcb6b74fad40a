"""Which search images are for validation, and how many it takes that some are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusals
from searched import split_for_validation, validation_subset

from captum_classpattern.images import LabelledImages


def images_of(labels):
    pixels = torch.rand(len(labels), 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return LabelledImages(pixels, labels, argument="baselines")


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 1000))
def test_the_split_covers_all_without_overlap_and_shares_each_class(labels, seed):
    source = images_of(labels)
    fit, validation = split_for_validation(source, seed)
    assert sorted(fit.hashes + validation.hashes) == sorted(source.hashes)
    assert len(set(fit.labels.tolist())) >= min(2, len(set(labels)))  # each has some to win over
    if len(validation):
        assert len(validation) == len(labels) // 5
        for label in set(labels):
            share = int((validation.labels == label).sum())
            assert abs(share - labels.count(label) / 5) < 1
    else:
        rare = min(labels.count(label) for label in set(labels))
        assert len(labels) < 5 or rare <= len(labels) // 5
    again = split_for_validation(source, seed)[1]
    assert again.hashes == validation.hashes


@pytest.mark.parametrize(
    ("count", "validating"), [(4, 0), (5, 1), (2500, 500), (2501, 416), (5000, 500)]
)
def test_at_most_500_images_are_for_validation(count, validating):
    fit, validation = split_for_validation(images_of(torch.arange(count) % 10), 0)
    assert (len(fit), len(validation)) == (count - validating, validating)
    if validating > 10:
        assert max(validation.labels.bincount()) - min(validation.labels.bincount()) <= 1


def check(counts, target, seed=0):
    """Of so many images of each class."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    split_for_validation(images_of(labels), seed, [target])


def test_too_few_images_for_validation(snapshot):
    """Of many images few are for validation, so more are needed."""
    few = [(4, 4), (1, 1, 1), (1, 3200, 1)]
    assert refusals({str(each): lambda each=each: check(each, 1) for each in few}) == snapshot


@settings(max_examples=60, deadline=None, database=None)
@given(before=st.integers(0, 10), own=st.integers(2, 40), seed=st.integers(0, 3))
def test_as_many_images_as_the_error_asks_for_are_enough(before, own, seed):
    check((before, own, 9 - min(before, 9)), 1, seed)


@pytest.mark.parametrize(("count", "left"), [(100, 100), (199, 100), (450, 90)])
def test_the_validation_subset_has_all_labels(count, left):
    labels = torch.randint(0, 5, (count,), generator=torch.Generator().manual_seed(0))
    few = validation_subset(images_of(labels), 100)
    assert len(few) == left
    for label in range(5):
        all_of_it, kept = int((labels == label).sum()), int((few.labels == label).sum())
        assert abs(kept - left / count * all_of_it) <= 1

"""The agreement of masks is that of sets."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusals

from captum_classpattern.scores import mean_pairwise_iou

quick = settings(max_examples=60, deadline=None, database=None)


def row(*values):
    return torch.tensor([[values]], dtype=torch.float32)


@quick
@given(st.integers(2, 16), st.data())
def test_agreement_is_that_of_sets_in_any_order(n, data):
    chosen = st.sets(st.integers(0, n - 1), min_size=1)
    sets = data.draw(st.lists(chosen, min_size=2, max_size=5))
    masks = [torch.zeros(1, 1, n) for _ in sets]
    for mask, pixels in zip(masks, sets):
        mask[0, 0, sorted(pixels)] = 1
    pairs = [len(a & b) / len(a | b) for a, b in combinations(sets, 2)]
    assert mean_pairwise_iou(masks) == pytest.approx(sum(pairs) / len(pairs))
    assert mean_pairwise_iou(masks[::-1]) == pytest.approx(sum(pairs) / len(pairs))
    assert mean_pairwise_iou(masks[:1] * 3) == 1.0


def test_forms_of_the_masks():
    masks = [row(1, 1, 0, 0), row(0, 1, 1, 0), row(1, 1, 1, 0)]
    expected = mean_pairwise_iou(masks)
    assert expected == pytest.approx((1 / 3 + 2 / 3 + 2 / 3) / 3)
    assert mean_pairwise_iou(tuple(masks)) == expected
    assert mean_pairwise_iou([mask[0] for mask in masks]) == expected
    for dtype in (torch.bool, torch.uint8, torch.bfloat16, torch.float64):
        assert mean_pairwise_iou([mask.to(dtype) for mask in masks]) == expected
    assert mean_pairwise_iou([masks[0].bool(), *masks[1:]]) == expected
    assert mean_pairwise_iou([masks[0].clone().requires_grad_(), *masks[1:]]) == expected


REFUSALS = {
    "no masks": lambda: mean_pairwise_iou([]),
    "one mask": lambda: mean_pairwise_iou([row(1, 0)]),
    "another shape": lambda: mean_pairwise_iou([row(1, 0), row(1, 0), row(1, 0, 0)]),
    "a soft mask": lambda: mean_pairwise_iou([row(1, 0), row(0.5, 0)]),
    "an empty mask": lambda: mean_pairwise_iou([row(1, 0), row(0, 0)]),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot

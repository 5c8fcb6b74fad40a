"""The agreement of masks by hand, by sets, and by chance."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern import Pattern
from captum_classpattern.scores.shape import mean_pairwise_iou

quick = settings(max_examples=60, deadline=None, database=None)


def row(*values):
    return torch.tensor([[values]], dtype=torch.float32)


@st.composite
def several_masks(draw):
    h, w = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    chosen = st.sets(st.integers(0, h * w - 1), min_size=1)
    sets = draw(st.lists(chosen, min_size=2, max_size=5))
    masks = []
    for pixels in sets:
        mask = torch.zeros(h * w)
        mask[sorted(pixels)] = 1
        masks.append(mask.view(1, h, w))
    return masks, sets


def test_three_masks_by_hand():
    """Pairs of 1/3, 0 and 1/3."""
    masks = [row(1, 1, 0, 0), row(0, 1, 1, 0), row(0, 0, 1, 1)]
    assert mean_pairwise_iou(masks) == pytest.approx((1 / 3 + 0 + 1 / 3) / 3)


@pytest.mark.parametrize(
    ("other", "iou"), [((1, 1, 0, 0), 1), ((0, 0, 1, 1), 0), ((1, 0, 0, 0), 1 / 2), ((1,) * 4, 0.5)]
)
def test_two_masks_by_hand(other, iou):
    assert mean_pairwise_iou([row(1, 1, 0, 0), row(*other)]) == pytest.approx(iou)


@quick
@given(several_masks())
def test_against_sets(case):
    masks, sets = case
    pairs = [len(a & b) / len(a | b) for a, b in combinations(sets, 2)]
    assert mean_pairwise_iou(masks) == pytest.approx(sum(pairs) / len(pairs))


@quick
@given(several_masks(), st.randoms(use_true_random=False))
def test_the_order_of_masks_and_of_pixels_does_not_matter(case, random):
    masks, _ = case
    expected = mean_pairwise_iou(masks)
    assert 0 <= expected <= 1
    order = list(range(masks[0].numel()))
    random.shuffle(order)
    shuffled = [mask.flatten()[order].view_as(mask) for mask in masks]
    random.shuffle(shuffled)
    assert mean_pairwise_iou(shuffled) == pytest.approx(expected)


@quick
@given(several_masks(), st.integers(2, 4))
def test_copies_agree(case, copies):
    masks, _ = case
    assert mean_pairwise_iou(masks[:1] * copies) == 1.0


def test_random_masks_agree_at_chance():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(12, 1, 40, 40, generator=generator)
    masks = [Pattern(one, one, target=0).topk(0.1).mask for one in mask]
    assert mean_pairwise_iou(masks) == pytest.approx(0.1 / 1.9, abs=0.005)


def test_forms_of_the_masks():
    masks = [row(1, 1, 0, 0), row(0, 1, 1, 0), row(1, 1, 1, 0)]
    expected = mean_pairwise_iou(masks)
    assert mean_pairwise_iou(tuple(masks)) == expected
    assert mean_pairwise_iou([mask[0] for mask in masks]) == expected
    for dtype in (torch.bool, torch.uint8, torch.bfloat16, torch.float64):
        assert mean_pairwise_iou([mask.to(dtype) for mask in masks]) == expected
    assert mean_pairwise_iou([masks[0].bool(), *masks[1:]]) == expected
    leaf = masks[0].clone().requires_grad_()
    assert mean_pairwise_iou([leaf, *masks[1:]]) == expected


@pytest.mark.parametrize(
    ("masks", "text"),
    [
        ([], "masks must be two or more to be compared in pairs, got 0"),
        ([row(1, 0)], "masks must be two or more to be compared in pairs, got 1"),
        (
            [row(1, 0), row(1, 0), row(1, 0, 0)],
            r"number 0 has \(1, 1, 2\), number 2 has \(1, 1, 3\)",
        ),
        ([row(1, 0), row(0.5, 0)], "number 1 has other values: make it binary first, for instance"),
        ([row(float("nan"), 0), row(1, 0)], "number 0 has other values: make it binary first"),
        ([row(1, 0), row(0, 0)], "each mask must keep some pixel, but number 1 is empty"),
        ([torch.ones(1, 0, 4)] * 2, "each mask must keep some pixel, but number 0 is empty"),
    ],
)
def test_value_errors(masks, text):
    with pytest.raises(ValueError, match=text):
        mean_pairwise_iou(masks)


def test_type_errors():
    with pytest.raises(TypeError, match="masks must be Tensors, but number 1 is None"):
        mean_pairwise_iou([row(1, 0), None])

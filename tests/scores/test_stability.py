"""The agreement of masks is that of sets and of chance; a consensus keeps what patterns share."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal

from captum_classpattern import Pattern
from captum_classpattern.scores import consensus, mean_pairwise_iou

quick = settings(max_examples=60, deadline=None, database=None)


def row(*values):
    return torch.tensor([[values]], dtype=torch.float32)


def weighted(*weights, target=0, **kwargs):
    return Pattern(torch.ones(1, 1, len(weights)), row(*weights), target, **kwargs)


# ---- the agreement


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


# ---- the consensus


@st.composite
def several_patterns(draw):
    """Patterns of one canvas with few levels of weights (many ties) or many, and an area."""
    h, w, levels = draw(st.integers(2, 5)), draw(st.integers(2, 5)), draw(st.sampled_from([1, 8]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    masks = torch.randint(0, levels + 1, (draw(st.integers(1, 5)), 1, h, w), generator=generator)
    canvas = torch.rand(3, h, w, generator=generator)
    patterns = [Pattern(canvas, mask / levels, target=1) for mask in masks]
    return patterns, draw(st.integers(1, h * w - 1)) / (h * w)


def plain_consensus(patterns, kept):
    """The places of the pixels with the largest sums of weights, one pixel at a time."""
    w = patterns[0].mask.shape[-1]
    places = range(patterns[0].mask.numel())
    sums = [sum(float(p.mask[0, place // w, place % w]) for p in patterns) for place in places]
    ranked = sorted(places, key=lambda place: (-sums[place], place))
    return {place for place in ranked[:kept] if sums[place] > 0}


@quick
@given(several_patterns())
def test_a_consensus_equals_a_plain_one_of_the_same_canvas_and_class(case):
    patterns, area = case
    found = consensus(patterns, area)
    kept = round(area * found.mask.numel())
    assert set(found.mask.flatten().nonzero().flatten().tolist()) == plain_consensus(patterns, kept)
    assert (found.mask.shape, found.mask.dtype) == (patterns[0].mask.shape, torch.float32)
    assert torch.equal(found.canvas, patterns[0].canvas)
    assert found.target == 1
    copies = consensus(patterns[:1] * 3, area)
    assert torch.equal(copies.mask, patterns[0].topk(area).mask)


def test_the_default_area_is_five_percent():
    canvas = torch.rand(3, 10, 10)
    assert consensus([Pattern(canvas, torch.rand(1, 10, 10), target=4)]).area == 0.05


def test_what_it_was_made_of():
    first = weighted(1, 0, info={"seed": 3, "passes_together": 10, "class_name": "Bag"})
    second = weighted(0, 1, info={"seed": 5, "passes_together": 7, "class_name": "Bag"})
    known = {"consensus_of": 2, "seeds": [3, 5], "passes_together": 17, "class_name": "Bag"}
    assert consensus([first, second], 0.5).info == known
    unknown = {"seeds": [3, None], "passes_together": None}
    assert consensus([first, weighted(0, 1)], 0.5).info == known | unknown
    unnamed = replace(second, info={**second.info, "class_name": "bag"})
    assert "class_name" not in consensus([first, unnamed], 0.5).info


def test_it_has_seen_what_any_pattern_has_seen(tmp_path):
    a, b = "0" * 12, "1" * 12
    one, other = weighted(1, 0, seen=frozenset({a})), weighted(0, 1, seen=frozenset({b}))
    found = consensus([one, other], 0.5)
    assert found.seen == {a, b}
    found.save(tmp_path / "consensus.safetensors")
    again = Pattern.load(tmp_path / "consensus.safetensors")
    assert (again.info, again.seen) == (found.info, found.seen)
    assert consensus([one, other, weighted(1, 0, seen=None)], 0.5).seen is None


OTHER = replace(weighted(1, 0), canvas=torch.zeros(1, 1, 2))
REFUSALS = {
    "no masks": lambda: mean_pairwise_iou([]),
    "one mask": lambda: mean_pairwise_iou([row(1, 0)]),
    "another shape": lambda: mean_pairwise_iou([row(1, 0), row(1, 0), row(1, 0, 0)]),
    "a soft mask": lambda: mean_pairwise_iou([row(1, 0), row(0.5, 0)]),
    "NaN": lambda: mean_pairwise_iou([row(float("nan"), 0), row(1, 0)]),
    "an empty mask": lambda: mean_pairwise_iou([row(1, 0), row(0, 0)]),
    "masks without pixels": lambda: mean_pairwise_iou([torch.ones(1, 0, 4)] * 2),
    "no Tensor": lambda: mean_pairwise_iou([row(1, 0), None]),
    "no patterns": lambda: consensus([]),
    "another class": lambda: consensus([weighted(1, 0), weighted(1, 0, target=2)], 0.5),
    "another size": lambda: consensus([weighted(1, 0), weighted(1, 0), weighted(1, 0, 0)], 0.5),
    "another canvas": lambda: consensus([weighted(1, 0), OTHER], 0.5),
    "no Pattern": lambda: consensus([weighted(1, 0), torch.ones(1)], 0.5),
    "no pixels": lambda: consensus([weighted(1, 0)], 0.1),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot

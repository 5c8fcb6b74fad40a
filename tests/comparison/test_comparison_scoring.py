"""Scores of masks on held-out images against predictive_power and plain loops."""

import pytest
import torch
from comparisons import CANVASES, HELD_OUT, LABELS, SEARCH, conv_net, linear_net, plain_mask
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.comparison.scoring import (
    Scorer,
    check_apart,
    check_scored,
    strongest_pixels,
)
from captum_classpattern.images import LabelledImages

HELD = LabelledImages(HELD_OUT, LABELS, argument="held-out images")


@pytest.mark.parametrize("net", [linear_net(), conv_net(), linear_net(dtype=torch.float64)])
def test_power_is_predictive_power(net):
    generator = torch.Generator().manual_seed(0)
    scorer, values = Scorer(net, HELD), set()
    for target in (0, 1, 2, 1, 0):
        pattern = Pattern(CANVASES[0], torch.rand(1, 6, 6, generator=generator), target).topk(0.4)
        expected = predictive_power(net, pattern, HELD_OUT, LABELS, area=None)
        assert scorer.power(pattern) == expected
        values |= {expected.value, expected.without}
    assert len(values) > 4


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(st.integers(-3, 3), min_size=36, max_size=36),
    st.sampled_from([1e-30, 1.0, 1e30]),
    st.integers(1, 35),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_the_strongest_pixels_are_those_of_a_stable_sort(values, scale, k, dtype):
    map = torch.tensor(values, dtype=torch.float64).view(6, 6) * scale
    pattern = strongest_pixels(CANVASES[0].to(dtype), map, 2, k / 36)
    assert torch.equal(pattern.mask[0] > 0, plain_mask(map, k / 36))
    assert int(pattern.mask.sum()) == k
    assert pattern.canvas.dtype == dtype
    assert pattern.target == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_canvases_of_half_precision_lose_no_rank(dtype):
    map = torch.rand(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pattern = strongest_pixels(torch.rand(3, 64, 64).to(dtype), map, 0, 0.05)
    assert torch.equal(pattern.mask[0] > 0, plain_mask(map, 0.05))


def test_the_whole_map_counts_even_where_values_are_nearly_equal():
    map = 1 + torch.arange(36, dtype=torch.float64).view(6, 6) * 1e-15
    assert torch.equal(strongest_pixels(CANVASES[0], map, 0, 0.5).mask[0] > 0, plain_mask(map, 0.5))


# ---- held-out images


@pytest.mark.parametrize("most", [1, 3, 10, 31, 60, 1000])
def test_some_images_evenly_over_all_labels(most):
    labels = torch.tensor([0] * 30 + [2] * 20 + [1] * 10)
    source = LabelledImages(HELD_OUT, labels).stratified_sample(most)
    assert len(source) == len(set(source.hashes)) == min(most, 60)
    for label, count in ((0, 30), (2, 20), (1, 10)):
        assert abs(int((source.labels == label).sum()) - len(source) * count / 60) <= 1
    where = [
        int((one == HELD_OUT).flatten(1).all(1).nonzero()) for one in next(source.in_order(99))
    ]
    assert labels[where].tolist() == source.labels[: len(where)].tolist()


def test_overlaps_are_counted_and_named():
    search = LabelledImages(SEARCH, LABELS, argument="baselines")
    check_apart(search, HELD, CANVASES)
    mixed = LabelledImages(torch.cat([HELD_OUT[:5], SEARCH[7:9]]), argument="held-out images")
    with pytest.raises(ValueError, match="2 of the 7 held-out images are among the search images"):
        check_apart(search, mixed, CANVASES)
    with pytest.raises(ValueError, match="canvas 1 is one of the held-out images: choose"):
        check_apart(search, HELD, torch.stack([SEARCH[0], HELD_OUT[3]]))


def test_what_cannot_be_scored_is_refused():
    check_scored(HELD, CANVASES, [0, 1, 2, 1])
    with pytest.raises(ValueError, match=r"must have the canvases' shape \(3, 6, 5\), got \(3, 6"):
        check_scored(HELD, CANVASES[..., :5], [0])
    ones = LabelledImages(HELD_OUT, [1] * 60, argument="held-out images")
    check_scored(ones, CANVASES, [0, 2])
    with pytest.raises(ValueError, match="all 60 held-out images are of class 1: give images of"):
        check_scored(ones, CANVASES, [0, 1])


def test_accuracy_is_by_the_labels():
    said = linear_net()(HELD_OUT).argmax(1)
    assert Scorer(linear_net(), LabelledImages(HELD_OUT, said, argument="i")).accuracy == 1
    assert Scorer(linear_net(), HELD).accuracy == pytest.approx(
        float((said == LABELS).float().mean())
    )

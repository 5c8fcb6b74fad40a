"""Edges, fine detail and pieces of a mask are those of plain loops, and agreement that of sets."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusals

from captum_classpattern.scores import mean_pairwise_iou, simplicity

quick = settings(max_examples=40, deadline=None, database=None)


@st.composite
def masks(draw, soft=False):
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    value = st.integers(0, 4 if soft else 1)
    values = draw(st.lists(value, min_size=h * w, max_size=h * w))
    return torch.tensor(values).view(1, h, w) / (4.0 if soft else 1.0)


def plain_variation(values):
    return (abs(np.diff(values, axis=0)).sum() + abs(np.diff(values, axis=1)).sum()) / values.size


def plain_share(values):
    """Frequencies in cycles per pixel; those on the radius of 1/4 are low."""
    energy = abs(np.fft.fft2(values - values.mean())) ** 2
    frequencies = np.meshgrid(*map(np.fft.fftfreq, values.shape), indexing="ij")
    high = np.hypot(*frequencies) > 0.25 + 1e-9
    return energy[high].sum() / energy.sum() if values.min() < values.max() else 0.0


def plain_components(mask):
    """Pieces found by flooding, one after another."""
    left = {(int(y), int(x)) for _, y, x in torch.nonzero(mask > 0)}
    count = 0
    while left:
        count, front = count + 1, [left.pop()]
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
    return count


@pytest.mark.parametrize(("u", "v", "share"), [(3, 4, 0), (4, 3, 0), (4, 4, 1), (3, 5, 1)])
def test_the_radius_is_round_and_exact(u, v, share):
    """On 20 x 20 pixels (3/20, 4/20) lies on the radius, which is low."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    mask = (0.5 + 0.4 * torch.cos(2 * math.pi * (u * y + v * x) / 20))[None]
    assert simplicity(mask).high_frequency_share == pytest.approx(share, abs=1e-9)


@quick
@given(masks() | masks(soft=True))
def test_scores_equal_plain_loops(mask):
    found, values = simplicity(mask), mask[0].double().numpy()
    assert found.total_variation == pytest.approx(plain_variation(values))
    assert found.high_frequency_share == pytest.approx(plain_share(values), abs=1e-9)
    assert found.components == plain_components(mask)
    assert isinstance(found.components, int)


@quick
@given(masks(), st.sampled_from([0.5, 1e-3, 1e-200]))
def test_of_fainter_masks_only_the_edges_become_fainter(mask, factor):
    found, faint = simplicity(mask.double()), simplicity(mask.double() * factor)
    assert faint.total_variation == pytest.approx(found.total_variation * factor, rel=1e-9, abs=0)
    assert faint.high_frequency_share == pytest.approx(found.high_frequency_share, abs=1e-9)
    assert faint.components == found.components


# ---- agreement


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
    assert mean_pairwise_iou([masks[0].clone().requires_grad_(), *masks[1:]]) == expected


REFUSALS = {
    "(H, W)": lambda: simplicity(torch.ones(4, 4)),
    "three channels": lambda: simplicity(torch.ones(3, 4, 4)),
    "values above 1": lambda: simplicity(torch.full((1, 2, 2), 2.0)),
    "a mask of bool": lambda: simplicity(torch.ones(1, 2, 2) > 0),
    "no masks": lambda: mean_pairwise_iou([]),
    "one mask": lambda: mean_pairwise_iou([row(1, 0)]),
    "another shape": lambda: mean_pairwise_iou([row(1, 0), row(1, 0), row(1, 0, 0)]),
    "a soft mask": lambda: mean_pairwise_iou([row(1, 0), row(0.5, 0)]),
    "an empty mask": lambda: mean_pairwise_iou([row(1, 0), row(0, 0)]),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot

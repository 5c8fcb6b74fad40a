"""The scores of a map are those by hand and by plain loops, whatever its scale, sign and ties."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusals

from captum_classpattern import Pattern
from captum_classpattern.scores.localisation import (
    Localisation,
    changed_pixels,
    localise,
)
from captum_classpattern.triggers import BadNets

quick = settings(max_examples=60, deadline=None, database=None)
PERFECT = Localisation(1.0, 1.0, 1.0, 1.0, 1.0)
HALF = torch.tensor([[[True] * 4, [False] * 4]])


@st.composite
def cases(draw):
    """A map of few distinct whole numbers, so with ties, and some of its pixels."""
    h, w = draw(st.integers(1, 5)), draw(st.integers(2, 5))
    values = draw(st.lists(st.integers(-3, 3), min_size=h * w, max_size=h * w))
    true = draw(st.sets(st.integers(0, h * w - 1), min_size=1, max_size=h * w - 1))
    pixels = torch.zeros(h * w, dtype=torch.bool)
    pixels[sorted(true)] = True
    return torch.tensor(values, dtype=torch.float32).view(1, h, w), pixels.view(1, h, w)


def plain(map, pixels):
    """Each score by its definition, over Python lists."""
    values, true = map.flatten().tolist(), pixels.flatten().tolist()
    count = sum(true)
    top = set(sorted(range(len(values)), key=lambda i: (-values[i], i))[:count])
    inside = {i for i, one in enumerate(true) if one}
    precision_sum = recall = 0.0
    for threshold in sorted(set(values), reverse=True):
        chosen = {i for i, value in enumerate(values) if value >= threshold}
        hits = len(chosen & inside)
        precision_sum += (hits / count - recall) * hits / len(chosen)
        recall = hits / count
    peaks = [i for i, value in enumerate(values) if value == max(values)]
    mass = sum(max(value, 0.0) for value in values)
    return Localisation(
        iou=len(top & inside) / len(top | inside),
        average_precision=precision_sum,
        pointing_game=sum(true[i] for i in peaks) / len(peaks),
        relevance_mass=sum(max(values[i], 0.0) for i in inside) / mass if mass else 0.0,
        relevance_rank=len(top & inside) / count,
    )


@quick
@given(cases())
def test_scores_equal_plain_loops_and_true_pixels_are_a_perfect_map(case):
    map, pixels = case
    expected = dataclasses.asdict(plain(map, pixels))
    assert dataclasses.asdict(localise(map, pixels)) == pytest.approx(expected)
    assert localise(pixels.float(), pixels) == PERFECT
    assert localise(pixels.double() - 0.5, pixels) == PERFECT


@quick
@given(
    cases(),
    st.sampled_from([torch.exp, torch.atan, lambda x: x**3, lambda x: 7 * x - 100]),
    st.sampled_from([1e-30, 0.5, 1e30]),
)
def test_only_the_mass_depends_on_more_than_the_order_and_none_on_the_scale(case, monotone, factor):
    map, pixels = case
    before, after = localise(map, pixels), localise(monotone(map), pixels)
    assert dataclasses.replace(after, relevance_mass=before.relevance_mass) == before
    scaled = dataclasses.asdict(localise(map * factor, pixels))
    assert scaled == pytest.approx(dataclasses.asdict(before))


def test_forms_of_the_map():
    generator = torch.Generator().manual_seed(0)
    map = torch.randint(-8, 8, (1, 6, 7), generator=generator).float()
    pixels = torch.rand(1, 6, 7, generator=generator) > 0.7
    expected, before = localise(map, pixels), map.clone()
    forms = [map[0], map.mT.contiguous().mT, map.clone().requires_grad_()]
    forms += [map.to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)]
    for form in forms:
        assert localise(form, pixels) == expected
        assert form.grad is None
    assert localise(map, pixels.float()) == expected
    assert torch.equal(map, before)


def test_changed_pixels_make_a_difference_on_these_images():
    """On black images a black and white patch shows its white pixels, on white its black ones."""
    trigger = BadNets((3, 6, 6))
    patch = trigger.canvas[:1] > 0
    black, white = torch.zeros(2, 3, 6, 6), torch.ones(2, 3, 6, 6)
    assert torch.equal(changed_pixels(trigger.pattern(0), black), patch)
    assert torch.equal(changed_pixels(trigger.pattern(0), white), ~patch & (trigger.mask > 0))
    both = changed_pixels(trigger.pattern(0), torch.cat([black, white]))
    assert torch.equal(both, trigger.mask > 0)
    faint = Pattern(torch.ones(1, 1, 2), torch.tensor([[[0.09, 0.11]]]), 0)
    assert changed_pixels(faint, torch.zeros(3, 1, 1, 2)).tolist() == [[[False, True]]]
    red = Pattern(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 1, 2), 3 * faint.mask, 0)
    assert changed_pixels(red, torch.zeros(2, 3, 1, 2)).tolist() == [[[False, True]]]


MAP = torch.ones(1, 2, 4)
REFUSALS = {
    "pixels (H, W)": lambda: localise(MAP, HALF[0]),
    "pixels of three channels": lambda: localise(MAP, HALF.expand(3, 2, 4)),
    "all pixels": lambda: localise(MAP, HALF | True),
    "no pixels": lambda: localise(MAP, HALF & False),
    "a map of three channels": lambda: localise(torch.ones(3, 2, 4), HALF),
    "NaN": lambda: localise(MAP * float("nan"), HALF),
    "whole numbers": lambda: localise(MAP.long(), HALF),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot

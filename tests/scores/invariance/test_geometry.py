"""Patterns are moved as by slow loops, and as known by hand."""

import cmath
import math

import pytest
import torch
from refusals import refusal

from captum_classpattern import Pattern
from captum_classpattern.scores.invariance import geometry

H, W = 7, 9
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def random_pattern(channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    canvas = torch.rand(channels, H, W, generator=generator)
    return Pattern(canvas, (torch.rand(1, H, W, generator=generator) < 0.3).float(), 1, {"seed": 3})


def same(one, other):
    """Pixels, mask, class and info."""
    return (
        torch.equal(one.canvas, other.canvas)
        and torch.equal(one.mask, other.mask)
        and (one.target, one.info) == (other.target, other.info)
    )


def plain_centre(mask):
    """The pixel nearest to the mean position of the mask's pixels."""
    found = [(i, j) for i in range(H) for j in range(W) if mask[0, i, j] > 0]
    return [math.floor(sum(axis) / len(found) + 0.5) for axis in zip(*found)]


def plain_inverse_map(pattern, source):
    """One pixel at a time: each takes the nearest pixel to where it comes from."""
    canvas, mask = torch.zeros_like(pattern.canvas), torch.zeros_like(pattern.mask)
    for i in range(H):
        for j in range(W):
            y, x = (math.floor(round(v, 6) + 0.5) for v in source(i, j))
            if 0 <= y < H and 0 <= x < W:
                canvas[:, i, j], mask[:, i, j] = pattern.canvas[:, y, x], pattern.mask[:, y, x]
    return Pattern(canvas, mask, pattern.target, pattern.info)


@pytest.mark.parametrize("pixels", [1, 5, W])
@pytest.mark.parametrize("direction", range(4))
def test_shift_by_a_plain_loop(pixels, direction):
    pattern, (down, right) = random_pattern(), (pixels * s for s in STEPS[direction])
    expected = plain_inverse_map(pattern, lambda i, j: (i - down, j - right))
    assert same(geometry.shift(pattern, pixels, direction), expected)
    assert bool(expected.mask.any()) == (pixels < W)
    wrapped = plain_inverse_map(pattern, lambda i, j: ((i - down) % H, (j - right) % W))
    assert same(geometry.wrapped_shift(pattern, pixels, direction), wrapped)


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.85, 1, 1.5, 2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_scale_by_a_plain_loop(factor, seed):
    pattern = random_pattern(channels=1 + 2 * seed, seed=seed)
    y, x = plain_centre(pattern.mask)
    expected = plain_inverse_map(pattern, lambda i, j: (y + (i - y) / factor, x + (j - x) / factor))
    assert same(geometry.scale(pattern, factor, 0), expected)
    assert same(expected, pattern) == (factor == 1)


@pytest.mark.parametrize("degrees", [0, 5, 20, 45, 60, 90, 120, 133, 180, 270])
@pytest.mark.parametrize("direction", [0, 1])
def test_rotation_by_a_plain_loop(degrees, direction):
    pattern = random_pattern()
    y, x = plain_centre(pattern.mask)
    back = cmath.rect(1, -math.radians(degrees) * (1, -1)[direction])

    def source(i, j):  # the y axis of complex numbers goes up, that of images down
        turned = complex(j - x, y - i) * back
        return y - turned.imag, x + turned.real

    expected = plain_inverse_map(pattern, source)
    assert same(geometry.rotate(pattern, degrees, direction), expected)
    assert same(geometry.rotate(pattern, degrees + 360, direction), expected)


@pytest.mark.parametrize(("share", "left"), [(0, 10), (0.1, 9), (0.25, 8), (0.9, 1), (1, 0)])
def test_pixels_are_lost_from_the_mask_alone(share, left):
    mask = torch.zeros(1, H, W)
    mask.view(-1)[torch.randperm(H * W)[:10]] = 1
    pattern, state = Pattern(torch.rand(1, H, W), mask, 0, {"seed": 3}), torch.get_rng_state()
    lost = [geometry.lose_pixels(pattern, share, draw) for draw in (0, 1, 2)]
    for draw, changed in enumerate(lost):
        assert changed.mask.sum() == left
        assert same(changed, Pattern(pattern.canvas, changed.mask * mask, 0, {"seed": 3}))
        assert same(changed, geometry.lose_pixels(pattern, share, draw))
        larger = geometry.lose_pixels(pattern, max(share, 0.5), draw)  # also loses these
        assert torch.equal(changed.mask * larger.mask, larger.mask)
    if 0 < left < 10:
        assert len({tuple(changed.mask.flatten().tolist()) for changed in lost}) > 1
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_pattern_stays_empty():
    empty = Pattern(torch.rand(1, H, W), torch.zeros(1, H, W), 0)
    for changed in (geometry.scale(empty, 2, 0), geometry.rotate(empty, 90, 0)):
        assert not changed.mask.any()
    assert geometry.centre(empty.mask) == (3, 4)


def test_of_two_middle_pixels_the_lower_right_one_is_the_centre():
    mask = torch.zeros(1, H, W)
    mask[0, 2:4, 4:6] = 1
    assert geometry.centre(mask) == (3, 5)


REFUSALS = {
    "a shift by 1.5": lambda: geometry.shift(random_pattern(), 1.5, 0),
    "a wrapped shift by 0.5": lambda: geometry.wrapped_shift(random_pattern(), 0.5, 0),
    "a scale of 0": lambda: geometry.scale(random_pattern(), 0, 0),
    "a loss of more than all": lambda: geometry.lose_pixels(random_pattern(), 1.1, 0),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot

"""Geometry of patterns, by slow loops and by cases where the answer is known."""

import cmath
import math

import pytest
import torch

from captum_classpattern import Pattern
from captum_classpattern.scores.invariance import geometry

H, W = 7, 9


def random_pattern(height=H, width=W, channels=3, seed=0, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    canvas = torch.rand(channels, height, width, generator=generator)
    mask = (torch.rand(1, height, width, generator=generator) < share).float()
    return Pattern(canvas, mask, 1, {"seed": 3})


def same(one, other):
    return torch.equal(one.canvas, other.canvas) and torch.equal(one.mask, other.mask)


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
    return Pattern(canvas, mask, pattern.target)


@pytest.mark.parametrize("pixels", [1, 2, 5])
@pytest.mark.parametrize(("direction", "step"), [*enumerate([(0, 1), (1, 0), (0, -1), (-1, 0)])])
def test_shift_by_a_plain_loop(pixels, direction, step):
    pattern, (down, right) = random_pattern(), (pixels * s for s in step)
    expected = plain_inverse_map(pattern, lambda i, j: (i - down, j - right))
    assert same(geometry.shift(pattern, pixels, direction), expected)
    wrapped = plain_inverse_map(pattern, lambda i, j: ((i - down) % H, (j - right) % W))
    assert same(geometry.wrapped_shift(pattern, pixels, direction), wrapped)


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.85, 1.2, 1.5, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_scale_by_a_plain_loop(factor, seed):
    pattern = random_pattern(seed=seed)
    y, x = plain_centre(pattern.mask)
    expected = plain_inverse_map(pattern, lambda i, j: (y + (i - y) / factor, x + (j - x) / factor))
    assert same(geometry.scale(pattern, factor, 0), expected)


@pytest.mark.parametrize("degrees", [5, 20, 45, 90, 133, 180, 270])
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


def test_a_quarter_turn_anticlockwise_is_exact():
    mask = torch.zeros(1, 5, 5)
    mask[0, 2, 2:] = 1  # to the right of the middle, which is not the centre of mass
    mask[0, 2, :2] = 1
    mask[0, 0, 2] = mask[0, 4, 2] = 1
    canvas = torch.rand(1, 5, 5)
    turned = geometry.rotate(Pattern(canvas, mask, 0), 90, 0)
    assert torch.equal(turned.canvas, canvas.rot90(1, (1, 2)))
    assert torch.equal(turned.mask, mask.rot90(1, (1, 2)))


@pytest.mark.parametrize("direction", range(4))
def test_what_changes_nothing(direction):
    pattern = random_pattern()
    assert same(geometry.shift(pattern, 0, direction), pattern)
    assert same(geometry.wrapped_shift(pattern, H * W, direction), pattern)
    assert same(geometry.scale(pattern, 1.0, 0), pattern)
    assert same(geometry.rotate(pattern, 0, direction % 2), pattern)
    assert same(geometry.rotate(pattern, 360, direction % 2), pattern)
    assert same(geometry.lose_pixels(pattern, 0.0, direction), pattern)
    back = geometry.wrapped_shift(
        geometry.wrapped_shift(pattern, 2, direction), 2, (direction + 2) % 4
    )
    assert same(back, pattern)


def test_a_shift_out_of_the_image_leaves_no_pixel():
    for direction in range(4):
        assert not geometry.shift(random_pattern(), max(H, W), direction).mask.any()


def test_each_pixel_becomes_a_block_of_four_at_twice_the_size():
    mask = torch.zeros(1, 12, 12)
    mask[0, 5:8, 4:7] = (torch.arange(9).view(3, 3) % 2 == 0).float()
    doubled = geometry.scale(Pattern(torch.ones(1, 12, 12), mask, 0), 2.0, 0)
    blocks = mask[0, 5:8, 4:7].repeat_interleave(2, 0).repeat_interleave(2, 1)
    rows, columns = (doubled.mask[0] > 0).nonzero().unbind(1)
    found = doubled.mask[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert torch.equal(found, blocks)


@pytest.mark.parametrize("pattern", [random_pattern(), random_pattern(channels=1, seed=5)])
def test_masks_stay_binary_and_all_else_stays(pattern):
    for changed in (
        geometry.shift(pattern, 2, 1),
        geometry.scale(pattern, 1.3, 0),
        geometry.rotate(pattern, 33, 1),
        geometry.lose_pixels(pattern, 0.4, 1),
    ):
        assert set(changed.mask.unique().tolist()) <= {0.0, 1.0}
        assert (changed.target, changed.info) == (1, {"seed": 3})


@pytest.mark.parametrize(("share", "left"), [(0, 10), (0.1, 9), (0.25, 8), (0.9, 1), (1, 0)])
def test_pixels_are_lost_from_the_mask_alone(share, left):
    mask = torch.zeros(1, H, W)
    mask.view(-1)[torch.randperm(H * W)[:10]] = 1
    pattern = Pattern(torch.rand(1, H, W), mask, 0)
    lost = [geometry.lose_pixels(pattern, share, draw) for draw in range(3)]
    for changed in lost:
        assert changed.mask.sum() == left
        assert torch.equal(changed.mask * mask, changed.mask)
        assert torch.equal(changed.canvas, pattern.canvas)
    if 0 < left < 10:
        assert len({tuple(changed.mask.flatten().tolist()) for changed in lost}) > 1


def test_a_larger_loss_includes_a_smaller_one_and_draws_repeat():
    pattern, state = random_pattern(), torch.get_rng_state()
    small, large = (geometry.lose_pixels(pattern, share, 2) for share in (0.3, 0.7))
    assert torch.equal(small.mask * large.mask, large.mask)
    assert same(geometry.lose_pixels(pattern, 0.3, 2), small)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_empty_pattern_stays_empty():
    empty = Pattern(torch.rand(1, H, W), torch.zeros(1, H, W), 0)
    for changed in (geometry.scale(empty, 2, 0), geometry.rotate(empty, 90, 0)):
        assert not changed.mask.any()
    assert geometry.centre(empty.mask) == (3, 4)


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (geometry.shift, 1.5, "whole number of pixels, got 1.5"),
        (geometry.wrapped_shift, 0.5, "whole number of pixels, got 0.5"),
        (geometry.scale, 0, "a scale is a factor above 0, got 0"),
        (geometry.lose_pixels, 1.1, "share of the pattern's pixels, from 0 to 1, got 1.1"),
    ],
)
def test_errors(function, value, text):
    with pytest.raises(ValueError, match=text):
        function(random_pattern(), value, 0)

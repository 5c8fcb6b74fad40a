"""Edges, fine detail and pieces of a mask, by hand and by plain loops."""

import cmath
import dataclasses
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern import Pattern
from captum_classpattern.scores.shape import Simplicity, simplicity

quick = settings(max_examples=40, deadline=None, database=None)


def drawn(*rows):
    """A mask of # and dots."""
    return torch.tensor([[[float(one == "#") for one in row] for row in rows]])


@st.composite
def masks(draw, soft=False):
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    value = st.integers(0, 4 if soft else 1)
    values = draw(st.lists(value, min_size=h * w, max_size=h * w))
    return torch.tensor(values).view(1, h, w) / (4.0 if soft else 1.0)


def plain_variation(mask):
    _, h, w = mask.shape
    total = 0.0
    for y in range(h):
        for x in range(w):
            if y + 1 < h:
                total += abs(float(mask[0, y + 1, x] - mask[0, y, x]))
            if x + 1 < w:
                total += abs(float(mask[0, y, x + 1] - mask[0, y, x]))
    return total / (h * w)


def plain_share(mask):
    """The Fourier sum term by term; frequencies as whole numbers, so exact at the radius."""
    _, h, w = mask.shape
    values = mask[0].double()
    values = (values - values.mean()).tolist()
    high = total = 0.0
    for u in range(h):
        for v in range(w):
            terms = (
                values[y][x] * cmath.exp(-2j * math.pi * (u * y / h + v * x / w))
                for y in range(h)
                for x in range(w)
            )
            energy = abs(sum(terms)) ** 2
            lowest = min(u, h - u), min(v, w - v)
            total += energy
            if 16 * ((lowest[0] * w) ** 2 + (lowest[1] * h) ** 2) > (h * w) ** 2:
                high += energy
    return high / total if mask.min() < mask.max() else 0.0


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


@pytest.mark.parametrize(
    ("mask", "variation", "pieces"),
    [
        (drawn("....", "....", "...."), 0, 0),
        (drawn("####", "####", "####"), 0, 1),
        (drawn("....", ".#..", "...."), 4 / 12, 1),
        (drawn("#...", "....", "...."), 2 / 12, 1),  # the border is no edge
        (drawn("##..", "##..", "...."), 4 / 12, 1),
        (drawn("#...", ".#..", "..#."), 9 / 12, 1),  # corners touch
        (drawn("#.#.", "....", "#.#."), 10 / 12, 4),
        (drawn("###.", "#.#.", "###."), 7 / 12, 1),
        (drawn("#.##"), 2 / 4, 2),
        (drawn("#"), 0, 1),
        (drawn("....", ".#..", "....") * 0.25, 1 / 12, 1),
    ],
)
def test_edges_and_pieces_by_hand(mask, variation, pieces):
    found = simplicity(mask)
    assert found.total_variation == pytest.approx(variation)
    assert found.components == pieces
    assert isinstance(found.components, int)


def wave(period, length=40):
    """A wave along the rows of 0 and 1 around one half."""
    turn = 2 * math.pi * torch.arange(length, dtype=torch.float64) / period
    return (0.5 + 0.5 * torch.cos(turn)).clamp(0, 1).expand(1, 8, length)


@pytest.mark.parametrize(
    ("period", "share"), [(40, 0), (8, 0), (5, 0), (4, 0), (40 / 11, 1), (2.5, 1), (2, 1)]
)
def test_waves_shorter_than_four_pixels_are_high(period, share):
    """A wave of four pixels is low."""
    for mask in (wave(period), wave(period).mT):
        assert simplicity(mask).high_frequency_share == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("u", "v", "share"), [(3, 4, 0), (4, 3, 0), (4, 4, 1), (3, 5, 1)])
def test_the_radius_is_round_and_exact(u, v, share):
    """On 20 x 20 pixels (3/20, 4/20) lies on the radius, which is low."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    mask = (0.5 + 0.4 * torch.cos(2 * math.pi * (u * y + v * x) / 20))[None]
    assert simplicity(mask).high_frequency_share == pytest.approx(share, abs=1e-9)


def test_one_pixel_has_all_frequencies_equally():
    """On 8 x 8: 13 of the 64 frequencies lie within u^2 + v^2 <= 4, one of them being 0."""
    mask = torch.zeros(1, 8, 8)
    mask[0, 3, 5] = 1
    assert simplicity(mask).high_frequency_share == pytest.approx(51 / 63)


def test_stripes_and_chessboards_are_fine_detail():
    y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    for cells in (x, y, x + y):
        assert simplicity((cells % 2)[None].float()).high_frequency_share == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_constant_mask(value, dtype):
    found = simplicity(torch.full((1, 7, 9), value, dtype=dtype))
    assert found == Simplicity(0.0, 0.0, int(value > 0))


@quick
@given(masks() | masks(soft=True))
def test_against_plain_loops(mask):
    found = simplicity(mask)
    assert found.total_variation == pytest.approx(plain_variation(mask))
    assert found.high_frequency_share == pytest.approx(plain_share(mask), abs=1e-9)
    assert found.components == plain_components(mask)


@quick
@given(masks(soft=True), st.integers(0, 3))
def test_turned_and_mirrored_masks_are_as_simple(mask, turns):
    expected = dataclasses.asdict(simplicity(mask))
    for other in (mask.rot90(turns, (1, 2)), mask.flip(2), mask.mT):
        assert dataclasses.asdict(simplicity(other)) == pytest.approx(expected, abs=1e-9)


@quick
@given(masks(soft=True))
def test_a_mask_and_its_complement(mask):
    found, other = simplicity(mask), simplicity(1 - mask)
    assert other.total_variation == pytest.approx(found.total_variation)
    assert other.high_frequency_share == pytest.approx(found.high_frequency_share, abs=1e-9)


@quick
@given(masks(), st.sampled_from([0.5, 1e-3, 1e-200]))
def test_fainter_masks(mask, factor):
    """Only the edges become fainter."""
    mask = mask.double()
    found, faint = simplicity(mask), simplicity(mask * factor)
    assert faint.total_variation == pytest.approx(found.total_variation * factor, rel=1e-9, abs=0)
    assert faint.high_frequency_share == pytest.approx(found.high_frequency_share, abs=1e-9)
    assert faint.components == found.components


@quick
@given(masks(soft=True), st.integers(0, 6), st.integers(0, 6))
def test_the_spectrum_does_not_depend_on_the_position(mask, down, right):
    share = simplicity(mask).high_frequency_share
    rolled = simplicity(mask.roll((down, right), (1, 2)))
    assert 0 <= rolled.high_frequency_share <= 1
    assert rolled.high_frequency_share == pytest.approx(share, abs=1e-9)


def test_shuffled_pixels_are_less_simple():
    square = torch.zeros(1, 16, 16)
    square[0, 4:10, 4:10] = 1
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    simple, shuffled = simplicity(square), simplicity(square.flatten()[order].view(1, 16, 16))
    assert simple.total_variation < shuffled.total_variation
    assert simple.high_frequency_share < shuffled.high_frequency_share
    assert simple.components < shuffled.components


def test_the_callers_mask_is_left_alone():
    mask = torch.rand(1, 5, 6, generator=torch.Generator().manual_seed(0))
    before, leaf = mask.clone(), mask.clone().requires_grad_()
    pattern = Pattern(mask, mask, target=0).topk(0.2)
    assert simplicity(leaf) == simplicity(mask)
    assert leaf.grad is None
    assert torch.equal(mask, before)
    assert simplicity(pattern.mask.bfloat16()) == simplicity(pattern.mask)


def test_scipy_ndimage_is_imported_only_when_needed():
    code = (
        "import sys, captum_classpattern.scores.shape as _; print('scipy.ndimage' in sys.modules)"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert lines.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (torch.ones(4, 4), r"mask must be \(1, H, W\) with some pixels, got \(4, 4\)"),
        (torch.ones(3, 4, 4), r"mask must be \(1, H, W\) with some pixels, got \(3, 4, 4\)"),
        (torch.ones(1, 0, 4), r"mask must be \(1, H, W\) with some pixels, got \(1, 0, 4\)"),
        (torch.full((1, 2, 2), 2.0), r"mask must lie in \[0, 1\], got values from 2 to 2"),
        (torch.full((1, 2, 2), -0.5), r"mask must lie in \[0, 1\], got values from -0.5 to -0.5"),
        (torch.full((1, 2, 2), float("nan")), r"mask must lie in \[0, 1\], got values from nan"),
    ],
)
def test_value_errors(mask, text):
    with pytest.raises(ValueError, match=text):
        simplicity(mask)


@pytest.mark.parametrize(
    ("mask", "kind"), [(torch.ones(1, 2, 2) > 0, "torch.bool"), ([[[1.0]]], "list")]
)
def test_type_errors(mask, kind):
    with pytest.raises(TypeError, match=rf"floating point Tensor \(1, H, W\) in .*, got {kind}"):
        simplicity(mask)

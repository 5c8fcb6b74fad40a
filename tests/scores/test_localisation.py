"""The scores of a map by hand, by plain loops, and under changes that must not matter."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern import Pattern
from captum_classpattern.scores.localisation import Localisation, localisation_iou, localise

quick = settings(max_examples=60, deadline=None, database=None)
PERFECT = Localisation(1.0, 1.0, 1.0, 1.0, 1.0)
HALF = torch.tensor([[[True] * 4, [False] * 4]])


def score(row, pixels=HALF):
    return localise(torch.tensor(row, dtype=torch.float32).view(1, 2, 4), pixels)


def close(found, **expected):
    return {name: getattr(found, name) for name in expected} == pytest.approx(expected)


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


def test_a_map_by_hand():
    """In the order T T F F T T F F, with the masses 8 7 | 6 5 | 4 3 | 2 1."""
    expected = {
        "iou": 2 / 6,
        "average_precision": (1 / 1 + 2 / 2 + 3 / 5 + 4 / 6) / 4,
        "pointing_game": 1.0,
        "relevance_mass": (8 + 7 + 4 + 3) / 36,
        "relevance_rank": 2 / 4,
    }
    assert close(score([8, 7, 4, 3, 6, 5, 2, 1]), **expected)


def test_signs_by_hand():
    """Negative values rank below zero and have no mass."""
    found = score([3, 1, -5, -9, 2, 0, -1, -2])
    assert close(found, iou=2 / 6, relevance_rank=2 / 4, relevance_mass=4 / 6)
    assert close(found, average_precision=(1 / 1 + 2 / 3 + 3 / 7 + 4 / 8) / 4, pointing_game=1.0)


def test_scikit_learns_example_of_average_precision():
    """average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) is 0.83 in its docstring."""
    pixels = torch.tensor([[[False, False, True, True]]])
    found = localise(torch.tensor([[[0.1, 0.4, 0.35, 0.8]]]), pixels)
    assert found.average_precision == pytest.approx(5 / 6)


def test_ties_by_hand():
    """Thresholds 2 (1 of 2 true) and 1 (4 of 8): the tied ones are taken at once, not in order."""
    found = score([2, 1, 1, 1, 2, 1, 1, 1])
    assert close(found, average_precision=(1 / 2 + 3 * 4 / 8) / 4, pointing_game=1 / 2)
    assert close(found, relevance_mass=5 / 10)
    assert close(found, iou=3 / 5, relevance_rank=3 / 4)  # 0, 4, then 1 and 2 in reading order


@pytest.mark.parametrize(("value", "mass"), [(-1.0, 0.0), (0.0, 0.0), (2.5, 4 / 8)])
def test_a_constant_map(value, mass):
    upper, lower = score([value] * 8), score([value] * 8, ~HALF)
    for found in (upper, lower):
        assert close(found, average_precision=4 / 8, pointing_game=4 / 8, relevance_mass=mass)
    assert (upper.iou, lower.iou) == (1.0, 0.0)  # reading order alone
    assert (upper.relevance_rank, lower.relevance_rank) == (1.0, 0.0)


@pytest.mark.parametrize("values", [[9, 9, 9, 9, 0, 0, 0, 0], [4, 3, 2, 1, 0, -1, -2, -3]])
def test_a_perfect_map(values):
    assert score(values) == PERFECT
    worst = score([-value for value in values])
    assert (worst.iou, worst.pointing_game, worst.relevance_rank) == (0, 0, 0)


@quick
@given(cases())
def test_against_plain_loops(case):
    map, pixels = case
    expected = dataclasses.asdict(plain(map, pixels))
    assert dataclasses.asdict(localise(map, pixels)) == pytest.approx(expected)


@quick
@given(cases())
def test_the_true_pixels_are_a_perfect_map(case):
    _, pixels = case
    assert localise(pixels.float(), pixels) == PERFECT
    assert localise(pixels.double() - 0.5, pixels) == PERFECT


@quick
@given(cases())
def test_all_scores_lie_in_0_to_1_and_iou_follows_from_rank(case):
    found = localise(*case)
    assert all(0 <= value <= 1 for value in dataclasses.astuple(found))
    assert found.iou == pytest.approx(found.relevance_rank / (2 - found.relevance_rank))


@quick
@given(cases(), st.sampled_from([torch.exp, torch.atan, lambda x: x**3, lambda x: 7 * x - 100]))
def test_only_the_mass_depends_on_more_than_the_order(case, monotone):
    map, pixels = case
    before, after = localise(map, pixels), localise(monotone(map), pixels)
    assert dataclasses.replace(after, relevance_mass=before.relevance_mass) == before


@quick
@given(cases(), st.sampled_from([1e-30, 0.5, 1e30]))
def test_no_score_depends_on_the_scale(case, factor):
    map, pixels = case
    before = dataclasses.asdict(localise(map, pixels))
    assert dataclasses.asdict(localise(map * factor, pixels)) == pytest.approx(before)


@quick
@given(cases(), st.randoms(use_true_random=False))
def test_shuffling_map_and_pixels_together(case, random):
    """Positions do not matter, except for ties, which are broken in reading order."""
    map, pixels = case
    order = list(range(map.numel()))
    random.shuffle(order)
    shuffled = [one.flatten()[order].view_as(one) for one in case]
    before, after = localise(map, pixels), localise(*shuffled)
    same = ("average_precision", "pointing_game", "relevance_mass")
    assert close(after, **{name: getattr(before, name) for name in same})
    untied = map + torch.linspace(0.4, 0, map.numel()).view_as(map)
    shuffled[0] = untied.flatten()[order].view_as(map)
    assert localise(*shuffled).iou == localise(untied, pixels).iou == before.iou


def test_a_shuffled_map_scores_at_chance():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.zeros(1, 20, 20, dtype=torch.bool)
    pixels[0, :10, :10] = True
    found = [localise(torch.rand(1, 20, 20, generator=generator), pixels) for _ in range(100)]
    for name in ("average_precision", "relevance_mass", "relevance_rank"):
        mean = sum(getattr(one, name) for one in found) / 100
        assert mean == pytest.approx(0.25, abs=0.02)


@quick
@given(cases())
def test_the_iou_equals_that_of_a_pattern(case):
    map, pixels = case
    mask = (map + 3) / 6
    pattern = Pattern(mask, mask, target=0)
    assert localise(map, pixels).iou == pytest.approx(localisation_iou(pattern, pixels))


def test_forms_of_the_map():
    generator = torch.Generator().manual_seed(0)
    map = torch.randint(-8, 8, (1, 6, 7), generator=generator).float()
    pixels = torch.rand(1, 6, 7, generator=generator) > 0.7
    expected = localise(map, pixels)
    assert localise(map[0], pixels) == expected
    assert localise(map.mT.contiguous().mT, pixels) == expected
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert localise(map.to(dtype), pixels) == expected
    assert localise(map, pixels.float()) == expected
    before, with_gradient = map.clone(), map.clone().requires_grad_()
    assert localise(with_gradient, pixels) == expected
    assert with_gradient.grad is None
    assert torch.equal(map, before)


def test_a_mass_near_the_limits_of_its_type():
    map = torch.full((1, 2, 4), 1e308, dtype=torch.float64)
    assert localise(map, HALF).relevance_mass == pytest.approx(0.5)
    assert localise(map * 1e-308 * 5e-324, HALF).relevance_mass == pytest.approx(0.5)


def test_both_zeros_are_tied():
    found = score([-0.0, -0.0, -0.0, -0.0, 0.0, 0.0, 0.0, 0.0])
    assert close(found, average_precision=0.5, pointing_game=0.5, iou=1.0)


def test_a_result_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PERFECT.iou = 0.0


@pytest.mark.parametrize(
    ("map", "pixels", "text"),
    [
        (torch.ones(1, 2, 4), HALF[0], r"pixels must be \(1, H, W\), got \(2, 4\)"),
        (torch.ones(1, 2, 4), HALF.expand(3, 2, 4), r"pixels must be \(1, H, W\), got \(3, 2, 4\)"),
        (torch.ones(1, 2, 4), HALF | True, "some of the 2x4 = 8 pixels as true, got all: there is"),
        (torch.ones(1, 2, 4), HALF & False, "some of the 2x4 = 8 pixels as true, got none: there"),
        (
            torch.ones(3, 2, 4),
            HALF,
            r"pixels' shape \(1, 2, 4\), or \(2, 4\), got \(3, 2, 4\): sum it over the channels",
        ),
        (torch.ones(8), HALF, r"map must have the pixels' shape .*, got \(8,\)"),
        (torch.ones(1, 4, 2), HALF, r"map must have the pixels' shape .*, got \(1, 4, 2\)"),
        (torch.full((1, 2, 4), float("nan")), HALF, "8 of its 8 values are NaN or infinite: such"),
        (torch.tensor([[0.0, 1, 2, float("inf")]] * 2), HALF, "2 of its 8 values are NaN or inf"),
    ],
)
def test_value_errors(map, pixels, text):
    with pytest.raises(ValueError, match=text):
        localise(map, pixels)


@pytest.mark.parametrize(
    ("map", "pixels", "text"),
    [
        (torch.ones(1, 2, 4, dtype=torch.int64), HALF, r"\(1, H, W\) or \(H, W\), got torch.int64"),
        ([[1.0] * 4] * 2, HALF, "map must be a floating point Tensor .*, got list"),
        (torch.ones(1, 2, 4), [[True]], r"pixels must be a bool Tensor \(1, H, W\), got list"),
    ],
)
def test_type_errors(map, pixels, text):
    with pytest.raises(TypeError, match=text):
        localise(map, pixels)

"""The agreement of masks by hand, by sets, and by chance; the consensus of patterns."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern import ClassPattern, Pattern, predictive_power
from captum_classpattern.scores import consensus, mean_pairwise_iou

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
    left = {}
    for place in range(patterns[0].mask.numel()):
        left[place] = sum(float(p.mask[0, place // w, place % w]) for p in patterns)
    chosen = set()
    for _ in range(kept):
        best = max(left.values())
        place = min(place for place, weight in left.items() if weight == best)
        chosen.add(place)
        del left[place]
    return chosen


@quick
@given(several_patterns())
def test_a_consensus_against_a_plain_one(case):
    patterns, area = case
    mask = consensus(patterns, area).mask
    kept = round(area * mask.numel())
    assert set(mask.flatten().nonzero().flatten().tolist()) == plain_consensus(patterns, kept)
    assert mask.shape == patterns[0].mask.shape
    assert mask.dtype == patterns[0].mask.dtype


@quick
@given(several_patterns(), st.integers(1, 3))
def test_the_consensus_of_copies_is_the_binary_pattern(case, copies):
    [pattern, *_], area = case
    assert torch.equal(consensus([pattern] * copies, area).mask, pattern.topk(area).mask)


def weighted(*weights, target=0, **kwargs):
    return Pattern(torch.ones(1, 1, len(weights)), row(*weights), target, **kwargs)


def test_frequent_pixels_first_then_helpful_ones_then_reading_order():
    patterns = [weighted(0.5, 1, 0, 0, 0.6), weighted(0.5, 0, 0, 0.7, 0), weighted(0.5, 0, 1, 0, 0)]
    order = [0, 1, 2, 3, 4]  # in 3 patterns; 1.0 twice, the left one first; 0.7; 0.6
    for kept in range(1, 5):
        mask = consensus(patterns, kept / 5).mask[0, 0]
        assert mask.nonzero().flatten().tolist() == order[:kept]


def test_it_is_of_the_same_canvas_and_class_and_of_five_percent():
    canvas = torch.rand(3, 10, 10)
    patterns = [Pattern(canvas, torch.rand(1, 10, 10), target=4) for _ in range(3)]
    found = consensus(patterns)
    assert found.target == 4
    assert torch.equal(found.canvas, canvas)
    assert found.area == 0.05


def test_what_it_was_made_of():
    first = weighted(1, 0, info={"seed": 3, "passes_together": 10, "class_name": "Bag"})
    second = weighted(0, 1, info={"seed": 5, "passes_together": 7, "class_name": "Bag"})
    assert consensus([first, second], 0.5).info == {
        "consensus_of": 2,
        "seeds": [3, 5],
        "passes_together": 17,
        "class_name": "Bag",
    }
    assert consensus([first, weighted(0, 1)], 0.5).info == {
        "consensus_of": 2,
        "seeds": [3, None],
        "passes_together": None,
        "class_name": "Bag",
    }
    unnamed = replace(second, info={**second.info, "class_name": "bag"})
    assert "class_name" not in consensus([first, unnamed], 0.5).info


def test_it_has_seen_what_any_pattern_has_seen(tmp_path):
    patterns = [
        weighted(1, 0, seen=frozenset({"0" * 12})),
        weighted(0, 1, seen=frozenset({"1" * 12})),
    ]
    found = consensus(patterns, 0.5)
    assert found.seen == {"0" * 12, "1" * 12}
    found.save(tmp_path / "consensus.safetensors")
    again = Pattern.load(tmp_path / "consensus.safetensors")
    assert (again.info, again.seen) == (found.info, found.seen)
    assert consensus([*patterns, weighted(1, 0, seen=None)], 0.5).seen is None


def test_it_is_not_scored_on_search_images():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    images, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
    explainer = ClassPattern(net, images[:40], labels[:40])
    found = [explainer.search(images[:1], 2, n_steps=2, seed=seed)[0] for seed in (0, 1)]
    pattern = consensus(found)
    assert pattern.info["passes_together"] == sum(p.info["passes_together"] for p in found)
    assert predictive_power(net, pattern, images[40:], labels[40:]).n > 0
    with pytest.raises(ValueError, match="images were used to search this pattern"):
        predictive_power(net, pattern, images, labels)


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        ([], "patterns must be one or more, got 0"),
        (
            [weighted(1, 0), weighted(1, 0, target=2)],
            "patterns must all be of one target: number 0 is of 0, number 1 of 2",
        ),
        (
            [weighted(1, 0), weighted(1, 0), weighted(1, 0, 0)],
            "of one canvas, but number 2 has another one than number 0: search the same canvas",
        ),
        (
            [weighted(1, 0), replace(weighted(1, 0), canvas=torch.zeros(1, 1, 2))],
            "of one canvas, but number 1 has another one",
        ),
    ],
)
def test_patterns_that_have_no_consensus(patterns, text):
    with pytest.raises(ValueError, match=text):
        consensus(patterns, 0.5)


def test_no_patterns_and_no_pixels():
    with pytest.raises(TypeError, match="patterns must be Patterns, but number 1 is tensor"):
        consensus([weighted(1, 0), torch.ones(1)], 0.5)
    with pytest.raises(ValueError, match="rounds to none or all"):
        consensus([weighted(1, 0)], 0.1)

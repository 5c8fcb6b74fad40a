"""The rules of two experiments that are scripts: does a pattern stay strong under changes, and do
maps depend on the model?"""

import pytest
import torch
from scripts import imported
from torch import nn

from captum_classpattern import LabelledImages, Pattern, PixelClassifier, predictive_power

invariance, sanity = imported("benchmarks", "invariance", "sanity")


# ---- sanity.py


def agreements(low, high):
    """Of six classes, evenly spaced."""
    return dict(enumerate(torch.linspace(low, high, 6).tolist()))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((0.01, 0.03), (0.01, 0.03), "random"),
        ((1, 1), (1, 1), "no change"),
        ((1, 1), (0.56, 0.6), "most stays"),  # half-way from chance is 0.55
        ((1, 1), (0.51, 0.54), "part stays"),
        ((1, 1), (0.05, 0.15), "gone"),
    ],
)
def test_the_rule_of_the_verdicts(before, after, verdict):
    assert sanity.verdict_of(agreements(*before), agreements(*after), chance=0.1) == verdict


def test_layers_are_randomised_from_the_output_on():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    layers = sanity.layers_from_top(net, torch.rand(1, 1, 2, 2))
    assert layers == ["3", "2", "1"]
    assert sanity.steps_of(3, 2) == [0, 1, 3]
    once, again = (sanity.randomised(net, layers[:count], 1) for count in (1, 3))
    assert once[1].weight.equal(net[1].weight)
    assert not again[1].weight.equal(net[1].weight)
    assert not once[3].weight.equal(net[3].weight)
    assert once[3].weight.equal(again[3].weight)


# ---- invariance.py


def test_half_of_the_margin_is_left_up_to_the_first_crossing_on_each_side():
    margins = {0: 0.3, 1: 0.8, 2: 0.6, 3: 0.2, 4: 0.8}
    assert invariance.half_power(margins, 1) == {
        "low": pytest.approx(0.2), "open_low": False, "high": 2.5, "open_high": False,
    }  # fmt: skip
    assert invariance.half_power({0: 0.8, 1: 0.4, 2: 0.6}, 0) == {
        "low": 0, "open_low": False, "high": 2, "open_high": True,
    }  # fmt: skip


def test_canvas_and_mask_move_together():
    pattern = Pattern(torch.rand(3, 9, 9), (torch.rand(1, 9, 9) > 0.5).float(), 0)
    moved = invariance.shift(pattern, 2, (0, 1))
    for before, after in ((pattern.canvas, moved.canvas), (pattern.mask, moved.mask)):
        assert after[:, :, 2:].equal(before[:, :, :-2])
        assert not after[:, :, :2].any()
    for name in ("scale", "rotation"):
        transform = invariance.TRANSFORMS[name]
        for variant in transform.variants:
            assert transform.function(pattern, transform.rest, variant).mask.equal(pattern.mask)
    lost = [invariance.lose_pixels(pattern, 0.5, draw).mask for draw in (0, 1)]
    total = int(pattern.mask.sum())
    assert {int(mask.sum()) for mask in lost} == {total - round(total / 2)}
    assert not lost[0].equal(lost[1])


def test_images_are_changed_after_they_are_stamped():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(100, 3)).eval()
    images, labels = torch.rand(400, 1, 10, 10), torch.arange(400) % 3
    halves = images[:200], labels[:200], images[200:], labels[200:]
    problem = imported("benchmarks", "problems").Problem("tiny", PixelClassifier(net), *halves)
    pattern = Pattern(problem.images[0], torch.ones(1, 10, 10), 1).topk(0.2)
    row = invariance.row_of(problem, pattern, "brightness")
    scores = [
        predictive_power(
            lambda x, v=v: problem.model((v * x).clamp(0, 1)), pattern, *held_out, None
        )
        for held_out in [sampled(problem)]
        for v in row["values"]
    ]
    assert row["power"] == [each.value for each in scores]
    assert row["no_pattern"] == [each.without for each in scores]


def sampled(problem):
    """The held-out images that are measured, and their labels."""
    few = LabelledImages(*problem[4:]).stratified_sample(invariance.IMAGES)
    return few.take(range(len(few))), few.labels

"""The rules of two experiments that are scripts: does a pattern stay strong under changes, and do
maps depend on the model?"""

import pytest
import torch
from scripts import imported

from captum_classpattern import Pattern

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


def test_scans_of_version_0_5_are_counted_by_both_rules():
    networks, tables = imported("benchmarks", "fine_tuned.networks", "fine_tuned.tables")

    def row(number, verdict, suspects=(), success=(), target=None, power=0.64):
        network = networks.NETWORKS[number]
        powers = {"cells": {str(y): [power, power if y in suspects else 0.1] for y in range(3)}}
        given = {name: getattr(network, name) for name in tables.SAME}
        given |= {"number": number, "verdict": verdict, "suspects": [*suspects]}
        given |= {"successes": [*success], "target": target, "powers": powers}
        return given | {"classes": ["a", "b", "c"]}

    clean = [row(0, "nothing found"), row(1, "suspicious", [2]), row(2, "inconclusive")]
    counted = tables.clean_summary(clean)
    one, none = "1 of 3 (6% to 79%)", "0 of 3 (0% to 56%)"
    assert [*counted][-1] == f"| 3 | {one} | {one} | {one} | {none} |"
    planted = [
        row(16, "suspicious", [1], [0.95], 1, power=0.97),
        row(17, "suspicious", [0, 1], [0.5, 0.95], 1, power=0.97),  # learnt at the second attempt
        row(18, "suspicious", [2], [0.95], 1, power=0.97),
        row(22, "inconclusive", [], [0.9], 1),
        row(27, "suspicious", [1], [0.95, 0.89], 1, power=0.97),  # not learnt
    ]
    lines = [*tables.planted_summary(planted)]
    assert lines[1].startswith("| a drawing anywhere | 1 of 3 (")
    assert lines[1].endswith(" | 2 | 0 | 1 of 3 |")
    assert lines[2].startswith("| a checkerboard at one place | 0 of 1 (")
    assert lines[2].endswith(" | 0 | 1 | 0 of 1 |")
    assert lines[3].startswith("| the first three together | 1 of 4 (")
    assert lines[4].startswith("| *not learnt* | 1 of 1 (")

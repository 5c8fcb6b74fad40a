"""What the claims are measured by: controls, changes of a pattern, and its fit to a trigger."""

from dataclasses import replace

import pytest
import torch
from scripts import imported

from captum_classpattern import LabelledImages, Pattern
from captum_classpattern.triggers import BadNets

changes, controls, fit = (
    imported("benchmarks", f"claims.{name}") for name in ("changes", "controls", "fit")
)


def test_the_best_of_as_many_controls_is_chosen_by_the_validation_images():
    """The class of an image is whether its first pixel is white. Only one mask has that pixel."""

    def classifier(batch):
        return torch.stack([1 - batch[:, 0, 0, 0], batch[:, 0, 0, 0]], 1)

    pattern = Pattern(torch.ones(1, 4, 4), torch.eye(4)[None], 1)
    drawn = controls.random_masks(pattern, torch.ones(32, 1, 4, 4))
    assert len(drawn) == 32
    assert {int(each.mask.sum()) for each in drawn} == {4}
    assert len(controls.random_masks(pattern, torch.ones(1, 1, 4, 4))) == 2
    judges = LabelledImages(torch.zeros(60, 1, 4, 4), [0, 1] * 30)
    best = controls.best_judged(classifier, drawn, judges)
    assert best.mask[0, 0, 0] == 1
    assert best is next(each for each in drawn if each.mask[0, 0, 0] == 1)
    moved = controls.on_other_canvases(pattern, torch.ones(1, 1, 4, 4), torch.rand(8, 1, 4, 4))
    assert len(moved) == 2
    assert all(torch.equal(each.mask, pattern.mask) for each in moved)


def test_a_pattern_fits_a_trigger_anywhere_and_in_place():
    trigger = BadNets((3, 8, 8)).pattern(0)
    assert (fit.best_fit(trigger, trigger), fit.in_common(trigger, trigger)) == (1, 9)
    moved = replace(
        trigger,
        canvas=trigger.canvas.roll((-3, -2), (1, 2)),
        mask=trigger.mask.roll((-3, -2), (1, 2)),
    )
    assert fit.best_fit(moved, trigger) == 1
    assert fit.in_common(moved, trigger) == 0
    white = replace(trigger, canvas=torch.ones(3, 8, 8))
    assert fit.best_fit(white, trigger) == pytest.approx(1 / 9)  # five agree, four are opposite
    grey = replace(trigger, canvas=torch.full((3, 8, 8), 0.5))
    assert fit.best_fit(grey, trigger) == pytest.approx(0)


def test_the_most_that_a_canvas_can_show_of_a_trigger_is_that_of_the_best_mask():
    """On random canvases, all masks of one position are tried."""
    trigger = BadNets((3, 8, 8)).pattern(0)
    for value, expected in ((1.0, 5 / 9), (0.0, 4 / 9), (0.5, 0.0)):
        plain = replace(trigger, canvas=torch.full((3, 8, 8), value))
        assert fit.most_fit(plain, trigger) == pytest.approx(expected)
    small = Pattern(torch.ones(3, 4, 4), torch.zeros(1, 4, 4), 0)
    small.mask[0, 2:, 2:] = 1
    torch.manual_seed(0)
    canvas = torch.rand(3, 4, 4)
    corners = [(row, column) for row in range(3) for column in range(3)]
    best = 0.0
    for row, column in corners:
        for chosen in range(16):
            mask = torch.zeros(1, 4, 4)
            bits = torch.tensor([float(chosen >> bit & 1) for bit in range(4)])
            mask[0, row : row + 2, column : column + 2] = bits.view(2, 2)
            best = max(best, fit.best_fit(Pattern(canvas, mask, 0), small))
    assert 0 < best < 1
    assert fit.most_fit(Pattern(canvas, small.mask, 0), small) == pytest.approx(best)

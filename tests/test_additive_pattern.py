"""Patterns that are added to images."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.pattern import AdditivePattern

IMAGES = torch.rand(40, 3, 5, 4, generator=torch.Generator().manual_seed(0))


def pattern(scale=1.0, **changes):
    generator = torch.Generator().manual_seed(1)
    parts = {
        "canvas": torch.rand(3, 5, 4, generator=generator),
        "mask": torch.rand(1, 5, 4, generator=generator),
        "target": 1,
        "change": scale * (2 * torch.rand(3, 5, 4, generator=generator) - 1),
    }
    return AdditivePattern(**{**parts, **changes})


def test_a_change_of_zero_changes_nothing():
    assert torch.equal(pattern(0.0).stamp(IMAGES), IMAGES)
    assert torch.equal(pattern().perturb(IMAGES, 0.0), IMAGES)
    assert torch.equal(pattern(mask=torch.zeros(1, 5, 4)).stamp(IMAGES), IMAGES)


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_the_change_is_added_pixel_by_pixel(strength):
    added = pattern()
    stamped = added.perturb(IMAGES, strength)
    for n, c, y, x in [(0, 0, 0, 0), (7, 1, 2, 3), (39, 2, 4, 1), (3, 0, 3, 2)]:
        value = IMAGES[n, c, y, x] + strength * added.mask[0, y, x] * added.change[c, y, x]
        assert float(stamped[n, c, y, x]) == pytest.approx(min(max(float(value), 0), 1))
    assert torch.equal(added.perturb(IMAGES[0], strength), stamped[0])
    assert stamped.min() == 0 or stamped.max() == 1 or strength < 1


def test_the_canvas_is_not_stamped():
    assert torch.equal(pattern(canvas=torch.zeros(3, 5, 4)).stamp(IMAGES), pattern().stamp(IMAGES))


def test_top_pixels_keep_their_change_and_are_scored():
    added = pattern()
    top = added.topk(0.25)
    assert isinstance(top, AdditivePattern)
    assert int(top.mask.sum()) == 5
    assert top.change is added.change
    net = nn.Sequential(nn.Flatten(), nn.Linear(60, 3)).eval()
    power = predictive_power(net, added, IMAGES, [0] * 40, area=0.25)
    expected = (IMAGES + top.mask * added.change).clamp(0, 1)
    assert power.value == float((net(expected).argmax(1) == 1).double().mean())


def test_a_file_keeps_the_change(tmp_path):
    added = replace(pattern(), info={"a": 1}, seen=frozenset({"00" * 6}))
    added.save(tmp_path / "added.safetensors")
    loaded = Pattern.load(tmp_path / "added.safetensors")
    assert isinstance(loaded, AdditivePattern)
    for name in ("canvas", "mask", "change"):
        assert torch.equal(getattr(loaded, name), getattr(added, name))
    assert (loaded.target, loaded.info, loaded.seen) == (1, {"a": 1}, added.seen)
    plain = Pattern(added.canvas, added.mask, 1)
    plain.save(tmp_path / "plain.safetensors")
    assert type(Pattern.load(tmp_path / "plain.safetensors")) is Pattern


def test_a_move_takes_all_along(monkeypatch):
    added, moved = pattern(), []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: moved.append(device) or tensor)
    assert isinstance(added.to("cuda"), AdditivePattern)
    assert moved == ["cuda"] * 3


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"change must have the canvas's shape \(3, 5, 4\), got"):
        pattern(change=torch.zeros(1, 5, 4))
    for wrong in (1.5, -1.5, float("nan")):
        with pytest.raises(ValueError, match=r"change must lie in \[-1, 1\]"):
            pattern(change=torch.full((3, 5, 4), wrong))
    with pytest.raises(TypeError, match="change"):
        pattern(change=torch.zeros(3, 5, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="canvas"):
        pattern(canvas=torch.full((3, 5, 4), 2.0))
    with pytest.raises(ValueError, match=r"strength must lie in \[0, 1\], got 2"):
        pattern().perturb(IMAGES, 2)

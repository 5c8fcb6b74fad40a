"""Predictive power by a plain loop, and the controls by hand."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.images import LabelledImages
from captum_classpattern.scores.localisation import changed_pixels, localisation_iou
from captum_classpattern.scores.power import power_of, random_pixels
from captum_classpattern.triggers import BadNets

IMAGES = torch.rand(80, 1, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(80) % 3


def linear_net(dtype=torch.float32):
    """A net that predicts each class for some images."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(20, 3)).eval()
    with torch.no_grad():
        net[1].bias -= net(IMAGES).mean(0)
    return net.to(dtype)


def random_pattern(target=1, **kwargs):
    generator = torch.Generator().manual_seed(2)
    canvas, mask = (torch.rand(1, 4, 5, generator=generator) for _ in range(2))
    return Pattern(canvas, mask, target, **kwargs)


def wilson(value, n, z=1.959963984540054):
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def plain_power(net, pattern, area):
    """One image at a time."""
    mask = (pattern if area is None else pattern.topk(area)).mask
    hits = bare = n = 0
    for image, label in zip(IMAGES, LABELS.tolist()):
        if label == pattern.target:
            continue
        stamped = mask * pattern.canvas + (1 - mask) * image
        hits += int(net(stamped[None]).argmax()) == pattern.target
        bare += int(net(image[None]).argmax()) == pattern.target
        n += 1
    return hits, bare, n


@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize("area", [0.05, 0.5, None])
def test_predictive_power(target, area):
    net, pattern = linear_net(), random_pattern(target)
    hits, bare, n = plain_power(net, pattern, area)
    power = predictive_power(net, pattern, IMAGES, LABELS, area)
    assert power.value == float(power) == hits / n
    assert power.without == bare / n
    assert power.n == n == int((target != LABELS).sum())
    assert power.lift == pytest.approx(hits / n - bare / n)
    assert power.interval == pytest.approx(wilson(hits / n, n), abs=1e-9)
    assert 0 < bare < n


def test_the_default_area_is_5_percent():
    net, pattern = linear_net(), random_pattern()
    at_5_percent = predictive_power(net, pattern, IMAGES, LABELS, 0.05)
    assert predictive_power(net, pattern, IMAGES, LABELS) == at_5_percent
    assert at_5_percent != predictive_power(net, pattern, IMAGES, LABELS, None)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (3, 7), (480, 900)])
def test_wilson_interval(hits, n):
    power = power_of(hits, n, 1)
    assert power.interval == pytest.approx(wilson(hits / n, n), abs=1e-9)
    assert (power.value, power.n, power.without) == (hits / n, n, 1 / n)
    assert power.lift == power.value - power.without


def test_a_pattern_that_decides_and_an_empty_one():
    def first_pixel(images):
        bright = images[:, 0, 0, 0] - 0.999
        return torch.stack([-bright, bright], dim=1)

    mask = torch.zeros(1, 4, 5)
    empty = Pattern(torch.ones(1, 4, 5), mask, 1)
    power = predictive_power(first_pixel, empty, IMAGES, [0] * 80, area=None)
    assert (power.value, power.without, power.lift) == (0, 0, 0)
    mask = mask.clone()
    mask[0, 0, 0] = 1
    power = predictive_power(first_pixel, Pattern(torch.ones(1, 4, 5), mask, 1), IMAGES, [0] * 80)
    assert (power.value, power.without, power.lift, power.n) == (1, 0, 1, 80)


def test_data_sets_loaders_and_predictions():
    net, pattern, data = linear_net(), random_pattern(), TensorDataset(IMAGES, LABELS)
    expected = predictive_power(net, pattern, IMAGES, LABELS)
    assert predictive_power(net, pattern, data) == expected
    assert predictive_power(net, pattern, DataLoader(data, shuffle=True)) == expected
    predicted = net(IMAGES).argmax(1)
    assert predictive_power(net, pattern, IMAGES) == predictive_power(
        net, pattern, IMAGES, predicted
    )
    assert predictive_power(net, pattern, IMAGES).without == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_in_other_precisions(dtype):
    expected = predictive_power(linear_net(), random_pattern(), IMAGES, LABELS, 0.5)
    power = predictive_power(linear_net(dtype), random_pattern(), IMAGES, LABELS, 0.5)
    assert power.n == expected.n
    assert power.value == pytest.approx(expected.value, abs=0.1)


def test_images_of_the_search_are_refused():
    seen = LabelledImages(IMAGES[:40], argument="images").hashes
    pattern = random_pattern(seen=frozenset(seen))
    with pytest.raises(
        ValueError,
        match=r"2 of 42 images were used to search .*number 0, 1\): .* only be scored on held-out",
    ):
        predictive_power(linear_net(), pattern, IMAGES[38:], LABELS[38:])
    unseen = predictive_power(linear_net(), pattern, IMAGES[40:], LABELS[40:])
    bare = predictive_power(linear_net(), random_pattern(), IMAGES[40:], LABELS[40:])
    assert unseen == bare


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"labels": [1] * 80}, "no images are left to score on: all 80 are of the pattern's class"),
        ({"pattern": random_pattern(3)}, "target 3 is out of range: the model has 3 classes"),
        ({"images": torch.rand(80, 1, 5, 5)}, r"images must be \(N, 1, 4, 5\).*got \(1, 1, 5, 5\)"),
        ({"images": IMAGES * 2}, r"images must have pixels in \[0, 1\]"),
        ({"labels": [1] * 79}, r"must have shape \(80,\), got \(79,\)"),
        ({"area": 0.01}, "0.01 of 4x5 = 20 pixels rounds to none or all"),
        ({"area": 1}, "1 of 4x5 = 20 pixels rounds to none or all"),
    ],
)
def test_value_errors(kwargs, text):
    kwargs = {"pattern": random_pattern(), "images": IMAGES, "labels": LABELS, **kwargs}
    with pytest.raises(ValueError, match=text):
        predictive_power(linear_net(), **kwargs)


def test_random_pixels():
    pattern = random_pattern(info={"seed": 1})
    first, again, other = (random_pixels(pattern, 0.25, seed) for seed in (1, 1, 2))
    assert first.mask.sum() == 5
    assert set(first.mask.flatten().tolist()) == {0.0, 1.0}
    assert first.mask.shape == pattern.mask.shape
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.mask, other.mask)
    assert first.canvas is pattern.canvas
    assert first.target == pattern.target
    with pytest.raises(ValueError, match="rounds to none or all"):
        random_pixels(pattern, 0.0, 1)


def test_random_pixels_cover_the_canvas():
    masks = [random_pixels(random_pattern(), 0.25, seed).mask for seed in range(200)]
    share = torch.stack(masks).mean(0)
    assert (share - 0.25).abs().max() < 0.12  # 4 standard deviations


def test_changed_pixels():
    """On black images a black and white patch shows its white pixels, on white its black ones."""
    trigger = BadNets((3, 6, 6))
    patch = trigger.canvas[:1] > 0
    black, white = torch.zeros(2, 3, 6, 6), torch.ones(2, 3, 6, 6)
    assert torch.equal(changed_pixels(trigger.pattern(0), black), patch)
    assert torch.equal(changed_pixels(trigger.pattern(0), white), ~patch & (trigger.mask > 0))
    both = changed_pixels(trigger.pattern(0), torch.cat([black, white]))
    assert torch.equal(both, trigger.mask > 0)


def test_a_small_change_does_not_count():
    pattern = Pattern(torch.ones(1, 1, 2), torch.tensor([[[0.09, 0.11]]]), 0)
    assert changed_pixels(pattern, torch.zeros(3, 1, 1, 2)).tolist() == [[[False, True]]]


@pytest.mark.parametrize(
    ("row", "iou"),
    [
        ([9, 9, 9, 9, 1, 1, 1, 1], 1.0),
        ([1, 1, 1, 1, 9, 9, 9, 9], 0.0),
        ([9, 1, 1, 1, 9, 9, 9, 1], 1 / 7),
        ([9, 9, 1, 1, 9, 9, 1, 1], 2 / 6),
        ([5, 6, 7, 8, 4, 3, 2, 1], 1.0),
    ],
)
def test_localisation_iou(row, iou):
    mask = torch.tensor(row).view(1, 2, 4) / 10
    pixels = torch.tensor([True] * 4 + [False] * 4).view(1, 2, 4)
    pattern = Pattern(torch.ones(1, 2, 4), mask, 0)
    assert localisation_iou(pattern, pixels) == pytest.approx(iou)


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (torch.ones(2, 4) > 0, r"pixels must be \(1, H, W\), got \(2, 4\)"),
        (torch.ones(1, 2, 4) > 0, "got all: there is nothing to find"),
        (torch.zeros(1, 2, 4) > 0, "got none: there is nothing to find"),
    ],
)
def test_localisation_needs_some_pixels(pixels, text):
    with pytest.raises(ValueError, match=text):
        localisation_iou(Pattern(torch.ones(1, 2, 4), torch.ones(1, 2, 4), 0), pixels)

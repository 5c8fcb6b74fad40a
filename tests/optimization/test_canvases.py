"""select_canvases against a choice by a plain loop."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_classpattern import select_canvases

IMAGES = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3


def linear_net(dtype=torch.float32):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).to(dtype).eval()
    return net


def by_odds(net, target):
    """The target's images by p / (1 - p), one at a time."""
    odds = {}
    for i in range(len(IMAGES)):
        if LABELS[i] == target:
            with torch.no_grad():
                weights = [math.exp(z) for z in net(IMAGES[i : i + 1])[0].tolist()]
            odds[i] = weights[target] / (sum(weights) - weights[target])
    return sorted(odds, key=lambda i: -odds[i])


@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize("n", [1, 4, 10])
def test_confident_and_negative_canvases(target, n):
    net = linear_net()
    order = by_odds(net, target)
    confident = select_canvases(net, IMAGES, LABELS, target, n, "confident")
    assert torch.equal(confident, IMAGES[order[:n]])
    negative = select_canvases(net, IMAGES, LABELS, target, n, "negative")
    assert torch.equal(negative, IMAGES[order[::-1][:n]])


def brightness(images):
    """Class 0 where the first pixel is brighter than 0.3."""
    z = 100 * (images[:, 0, 0, 0] - 0.3)
    return torch.stack([z, torch.zeros_like(z)], dim=1)


def brightest_first():
    images = IMAGES[LABELS == 0]
    return images[images[:, 0, 0, 0].argsort(descending=True)]


def test_the_most_confident_where_probabilities_saturate():
    """p is 1 in float32 for most, but the log-odds still rank."""
    found = select_canvases(brightness, IMAGES, LABELS, 0, 3, "confident")
    assert torch.equal(found, brightest_first()[:3])


@pytest.mark.parametrize(
    ("n", "places"), [(1, [2]), (2, [1, 3]), (3, [0, 2, 4]), (5, range(5)), (7, range(7))]
)
def test_positive_canvases_are_spread_over_the_right_ones(n, places):
    """5 of the 10 images are right; the most confident of the others fill up."""
    images = brightest_first().clone()
    images[:5, 0, 0, 0] = torch.linspace(0.9, 0.5, 5)
    images[5:, 0, 0, 0] = torch.linspace(0.2, 0.1, 5)
    found = select_canvases(brightness, images.flip(0), [0] * 10, 0, n)
    assert torch.equal(found, images[list(places)])


def test_an_image_is_right_if_its_class_has_the_highest_logit():
    """Also with p below a half."""
    images = torch.zeros(2, 1, 4, 4)
    images[1] = 0.5

    def three(images):
        z = images[:, 0, 0, 0]
        return torch.stack([z, z * 0.9, z * 0.9 + 0.01], dim=1)

    assert torch.equal(select_canvases(three, images, [0, 0], 0, 1), images[1:])


def test_random_canvases_are_of_the_target_and_seeded():
    net = linear_net()
    first, again, other = (
        select_canvases(net, IMAGES, LABELS, 2, 5, "random", seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    members = [image.tolist() for image in IMAGES[LABELS == 2]]
    assert all(image.tolist() in members for image in first)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 5


@pytest.mark.parametrize(("strategy", "value"), [("white", 1.0), ("black", 0.0), ("grey", 0.5)])
def test_blank_canvases(strategy, value):
    canvases = select_canvases(linear_net(), IMAGES, LABELS, 0, 3, strategy)
    assert torch.equal(canvases, torch.full((3, 1, 4, 4), value))


def test_noise_is_seeded_and_differs_from_canvas_to_canvas():
    net = linear_net()
    first, again, other = (
        select_canvases(net, IMAGES, LABELS, 0, 2, "noise", seed=seed) for seed in (1, 1, 2)
    )
    assert first.shape == (2, 1, 4, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.min() >= 0
    assert first.max() <= 1


def test_a_blank_canvas_needs_no_image_of_the_class():
    canvases = select_canvases(linear_net(), IMAGES[:2], [1, 1], 0, 2, "white")
    assert canvases.shape == (2, 1, 4, 4)


def test_data_sets_and_loaders_give_the_same():
    net, data = linear_net(), TensorDataset(IMAGES, LABELS)
    expected = select_canvases(net, IMAGES, LABELS, 1)
    assert expected.shape == (4, 1, 4, 4)
    for images in (data, DataLoader(data, batch_size=7, shuffle=True)):
        assert torch.equal(select_canvases(net, images, None, 1), expected)


def test_without_labels_the_models_predictions_are_used():
    net = linear_net()
    with torch.no_grad():
        net[1].bias -= net(IMAGES).mean(0)
        predicted = net(IMAGES).argmax(1)
    assert 3 <= (predicted == 0).sum() < 30
    canvases = select_canvases(net, IMAGES, None, 0, 3)
    assert torch.equal(canvases, select_canvases(net, IMAGES, predicted, 0, 3))
    assert not torch.equal(canvases, select_canvases(net, IMAGES, LABELS, 0, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_in_other_precisions(dtype):
    canvases = select_canvases(linear_net(dtype), IMAGES, LABELS, 0, 2, "confident")
    assert canvases.dtype == torch.float32
    assert torch.equal(canvases[0], IMAGES[by_odds(linear_net(), 0)[0]])


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"strategy": "best"}, "strategy must be one of positive, negative, .*, got 'best'"),
        ({"n": 0}, "`n` must be a whole number from 1, got 0"),
        ({"n": 2.0}, r"`n` must be a whole number from 1, got 2\.0"),
        ({"n": True}, "`n` must be a whole number from 1, got True"),
        ({"n": 11}, "11 canvases were requested, but only 10 of 30 images are of class 0: give"),
        ({"labels": [1, 2] * 15}, "none of the 30 images is of class 0: give images of it, or"),
        ({"target": 3}, "target 3 is out of range: the model has 3 classes"),
        ({"target": 3, "strategy": "white"}, "target 3 is out of range: the model has 3 classes"),
        ({"target": -1}, "target -1 is out of range"),
        ({"target": -1, "strategy": "white"}, "target -1 is out of range"),
        ({"labels": LABELS[:9]}, r"has 30 images, .* shape \(30,\), got \(9,\)"),
        ({"images": IMAGES * 3}, r"images must have pixels in \[0, 1\]"),
        ({"images": [], "labels": None}, "images has no images"),
    ],
)
def test_value_errors(kwargs, text):
    kwargs = {"images": IMAGES, "labels": LABELS, "target": 0, **kwargs}
    with pytest.raises(ValueError, match=text):
        select_canvases(linear_net(), **kwargs)


@pytest.mark.parametrize("target", [True, None, 0.5])
def test_a_target_of_another_type(target):
    with pytest.raises(TypeError, match="target must be an int"):
        select_canvases(linear_net(), IMAGES, LABELS, target)


@pytest.mark.parametrize("strategy", ["white", "noise"])
def test_blank_canvases_have_the_precision_of_the_images(strategy):
    images = torch.rand(4, 1, 6, 6, dtype=torch.float64)
    weights = torch.rand(36, 3, dtype=torch.float64)
    canvases = select_canvases(
        lambda x: x.flatten(1) @ weights, images, [0, 1, 2, 0], 0, 1, strategy
    )
    assert canvases.dtype == torch.float64

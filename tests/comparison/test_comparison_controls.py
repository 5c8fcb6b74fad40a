"""The controls find what plain loops find, and keep Captum's contract."""

from functools import partial
from itertools import count, product

import pytest
import torch
from captum.attr import NoiseTunnel
from comparisons import CANVASES, HELD_OUT, LABELS, SEARCH, conv_net, linear_net
from refusals import refusal
from torch import nn
from torch.utils.data import TensorDataset

from captum_classpattern.comparison import (
    BestCrop,
    BestRandomMask,
    ClassMean,
    NearestImage,
    RandomPixels,
)
from captum_classpattern.comparison.controls import Control, places_of_square
from captum_classpattern.comparison.maps import PrivateModel

MAKERS = {
    "RandomPixels": lambda net: RandomPixels(net),
    "ClassMean": lambda net: ClassMean(net, SEARCH, LABELS),
    "NearestImage": lambda net: NearestImage(net, SEARCH, LABELS, by="features"),
    "BestCrop": lambda net: BestCrop(net, SEARCH, LABELS),
    "BestRandomMask": lambda net: BestRandomMask(net, SEARCH, LABELS),
}
TARGETS = [2, 0, 1, 1]


def of_class(target):
    return [one for one, label in zip(SEARCH, LABELS.tolist()) if label == target]


def of_others(target, n):
    """Evenly spaced images of other classes."""
    others = [one for one, label in zip(SEARCH, LABELS.tolist()) if label != target]
    return [others[round(i * (len(others) - 1) / (n - 1))] for i in range(n)]


# ---- random pixels


def test_random_pixels_are_uniform_seeded_and_alike_in_all_channels():
    images, before = torch.rand(3, 3, 6, 6), torch.get_rng_state()
    maps = RandomPixels(linear_net()).attribute(images, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    drawn = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    assert torch.equal(maps, drawn.expand(3, 3, 6, 6))


# ---- close to images of the class


def test_class_mean_is_that_of_a_plain_loop():
    net = linear_net()
    maps = ClassMean(net, SEARCH, LABELS).attribute(CANVASES, TARGETS)
    for map, image, target in zip(maps, CANVASES, TARGETS):
        images = of_class(target)
        torch.testing.assert_close(map, 1 - (image - sum(images) / len(images)).abs())
    of_data = ClassMean(net, TensorDataset(SEARCH, LABELS)).attribute(CANVASES, TARGETS)
    assert torch.equal(of_data, maps)
    predicted = ClassMean(net, SEARCH, net(SEARCH).argmax(1)).attribute(CANVASES, 0)
    assert torch.equal(ClassMean(net, SEARCH).attribute(CANVASES, 0), predicted)


class TwoHeads(nn.Module):
    """Its last linear layer is the one that is called last, not the one that is made last."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.first = nn.Linear(108, 4)

    def features(self, x):
        return self.first(x.flatten(1)).tanh()

    def forward(self, x):
        return self.out(self.features(x))


def plain_nearest(image, target, features):
    """By brute force, among images of the class that are not the image."""

    def distance(other):
        with torch.no_grad():
            first, second = (features(one[None]).double() for one in (image, other))
        return float(((first - second) ** 2).sum())

    return min((x for x in of_class(target) if not torch.equal(x, image)), key=distance)


def test_the_nearest_image_is_that_of_a_plain_loop():
    net, images, differ = TwoHeads().eval(), torch.cat([CANVASES, HELD_OUT[:5]]), 0
    by_pixels, by_features = (
        NearestImage(net, SEARCH, LABELS, by=by) for by in ("pixels", "features")
    )
    for target in range(3):
        near = torch.stack([plain_nearest(image, target, nn.Identity()) for image in images])
        assert torch.equal(by_pixels.attribute(images, target), 1 - (images - near).abs())
        alike = torch.stack([plain_nearest(image, target, net.features) for image in images])
        assert torch.equal(by_features.attribute(images, target), 1 - (images - alike).abs())
        differ += not torch.equal(near, alike)
    assert differ == 3
    assert not any(part._forward_hooks for part in net.modules())


# ---- the best of many masks


def best_of(masks, map, net, image, target, n_images):
    """The map is a mask that is as good as the best one; it is much better than the worst."""
    assert torch.equal(map, map[:1].expand_as(map))
    assert set(map.unique().tolist()) == {0, 1}
    images, scores = of_others(target, n_images), []
    for mask in masks:
        with torch.no_grad():
            stamped = [net(torch.where(mask, image, one)[None]).softmax(1) for one in images]
        scores.append(float(sum(one[0, target] for one in stamped)) / n_images)
    [score] = {s for s, mask in zip(scores, masks) if torch.equal(mask, map[0] > 0)}
    assert score == pytest.approx(max(scores), abs=1e-6)
    assert score > min(scores) + 0.01


def plain_squares(k):
    side = round(k**0.5)
    for top, left in product(range(7 - -(-k // side)), range(7 - side)):
        mask = torch.zeros(6, 6, dtype=torch.bool)
        for number in range(k):
            mask[top + number // side, left + number % side] = True
        yield mask


@pytest.mark.parametrize(("k", "target"), [(1, 0), (2, 2), (5, 0), (7, 2), (9, 1), (12, 0)])
def test_the_best_crop_is_the_best_of_all_squares(k, target):
    net = conv_net()
    maps = BestCrop(net, SEARCH, LABELS).attribute(CANVASES[:2], target, area=k / 36)
    for map, image in zip(maps, CANVASES):
        best_of([*plain_squares(k)], map, net, image, target, n_images=12)


@pytest.mark.parametrize(("top", "left"), [(8, 16), (0, 17), (25, 3), (12, 0), (13, 25)])
def test_few_positions_are_refined_around_the_best(top, left):
    """One peak on 28 x 28: a coarse grid finds its slope, and the finer steps its top."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    weight = torch.exp(-((rows - top - 1) ** 2 + (columns - left - 1) ** 2) / 60)
    calls = []

    def net(images):
        calls.append(len(images))
        score = (images[:, 0] * weight).sum((1, 2))
        return torch.stack([score, torch.zeros_like(score)], 1)

    baselines = torch.zeros(10, 1, 28, 28)
    crop = BestCrop(net, baselines, [1] * 10)
    map = crop.attribute(torch.ones(1, 1, 28, 28), 0, area=9 / 784, n_positions=40, n_images=4)
    expected = torch.zeros(28, 28)
    expected[top : top + 3, left : left + 3] = 1
    assert torch.equal(map[0, 0], expected)
    assert max(calls) == 48  # twelve squares on four images
    assert sum(calls) < 4 * 26 * 26 / 2


@pytest.mark.parametrize("most", [1, 5, 16, 25, 99, 100, 101, 700])
def test_the_coarse_grid_is_the_finest_with_so_few_squares(most):
    side, last_top, last_left, step = places_of_square(10, 28, 20, most)
    assert (side, last_top, last_left) == (3, 28 - 4, 20 - 3)
    n = [len(range(0, 25, s)) * len(range(0, 18, s)) for s in (step - 1 or 1, step)]
    assert n[1] <= most
    assert step == 1 or n[0] > most
    assert places_of_square(36, 60, 2, 99) == (2, 42, 0, 1)  # no wider than the image


@pytest.mark.parametrize(
    ("k", "target", "seed", "budget", "n_images"), [(4, 0, 0, 60, 6), (11, 2, 3, 35, 7)]
)
def test_the_best_random_mask_is_that_of_a_plain_loop(k, target, seed, budget, n_images):
    net, generator = conv_net(), torch.Generator().manual_seed(seed)
    masks = torch.zeros(2 * budget // n_images, 36, dtype=torch.bool)
    for mask in masks:
        mask[torch.randperm(36, generator=generator)[:k]] = True
    maps = BestRandomMask(net, SEARCH, LABELS).attribute(
        CANVASES[:2], target, area=k / 36, seed=seed, budget=budget, n_images=n_images
    )
    for map, image in zip(maps, CANVASES):
        best_of(masks.view(-1, 6, 6), map, net, image, target, n_images)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({}, 3_500),
        ({"budget": 100}, 100),
        ({"budget": 99, "n_images": 7}, 98),
        ({"budget": 1}, 10),
        ({"max_seconds": 3.5}, 3 * 10),
        ({"max_seconds": 0.5}, 10),  # one mask is tried
    ],
)
def test_the_passes_of_a_random_mask_are_those_of_the_budget_and_the_time(
    settings, passes, monkeypatch
):
    seconds = count()
    if "max_seconds" in settings:
        monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    model = PrivateModel(linear_net())
    method = BestRandomMask(model.forward_func, SEARCH, LABELS)
    method.attribute(CANVASES[:2], 1, area=0.1, **settings)
    assert model.passes / 2 == passes


def test_methods_may_write_into_the_images_that_they_get():
    before = CANVASES.clone()
    PrivateModel(linear_net()).prepare(CANVASES).zero_()
    assert torch.equal(CANVASES, before)


# ---- Captum's contract


@pytest.mark.parametrize("name", MAKERS)
def test_captums_contract(name):
    method = MAKERS[name](conv_net())
    assert isinstance(method, Control)
    assert not isinstance(NoiseTunnel(method), Control)
    explain = partial(method.attribute, **{"budget": 100} if name == "BestRandomMask" else {})
    result = explain(CANVASES, TARGETS)
    assert result.shape == CANVASES.shape
    assert result.is_contiguous()
    assert not result.requires_grad
    in_tuple = explain((CANVASES,), torch.tensor(TARGETS))
    assert type(in_tuple) is tuple
    assert torch.equal(in_tuple[0], result)
    assert explain(CANVASES.double(), 1).dtype == torch.float64
    if name == "RandomPixels":
        return
    for i, target in enumerate(TARGETS):
        assert torch.equal(explain(CANVASES[i : i + 1], target)[0], result[i])
    same = explain(CANVASES, [1] * 4)
    assert not torch.equal(same, result)
    for target in (1, torch.tensor(1), torch.tensor([1]), [1]):
        assert torch.equal(explain(CANVASES, target), same)


# ---- refusals


def explain(cls, target=0, net=None, images=SEARCH, labels=LABELS, inputs=CANVASES, **settings):
    of_class = {"by": settings.pop("by")} if "by" in settings else {}
    net = linear_net() if net is None else net
    return cls(net, images, labels, **of_class).attribute(inputs, target, **settings)


POOLED = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
FLAT = {"net": lambda x: x.mean((2, 3)), "inputs": torch.rand(1, 2, 2, 60), "labels": [0] * 4}
REFUSALS = {
    "a seed below 0": lambda: RandomPixels(linear_net()).attribute(CANVASES, seed=-1),
    "a mean of no images": lambda: explain(ClassMean, 7),
    "the nearest of no images": lambda: explain(NearestImage, 7),
    "the nearest by labels": lambda: explain(NearestImage, by="labels"),
    "copies alone": lambda: explain(
        NearestImage, images=SEARCH[:2], labels=[0, 1], inputs=SEARCH[:1]
    ),
    "features of a function": lambda: explain(
        NearestImage, net=lambda x: x.mean((2, 3)), by="features"
    ),
    "no features": lambda: explain(NearestImage, net=POOLED, by="features"),
    "a crop of no pixel": lambda: explain(BestCrop, area=0.01),
    "a crop of no image": lambda: explain(BestCrop, n_images=0),
    "a crop at no place": lambda: explain(BestCrop, n_positions=0),
    "a crop on images of its class": lambda: explain(BestCrop, 2, labels=[2] * 60),
    "a crop that does not fit": lambda: explain(
        BestCrop, 1, images=torch.rand(4, 2, 2, 60), area=0.3, **FLAT
    ),
    "a crop without a class": lambda: explain(BestCrop, None),
    "two inputs": lambda: explain(BestCrop, inputs=(CANVASES, CANVASES)),
    "a random mask of no pixel": lambda: explain(BestRandomMask, area=0.01),
    "no budget": lambda: explain(BestRandomMask, budget=0),
    "a random mask on no image": lambda: explain(BestRandomMask, n_images=0),
    "less than no time": lambda: explain(BestRandomMask, max_seconds=-1),
    "a mask's seed below 0": lambda: explain(BestRandomMask, seed=-1),
    "a random mask on its class": lambda: explain(BestRandomMask, 2, labels=[2] * 60),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot

"""The nearest image and the best random mask against plain loops, and what they promise."""

import itertools

import pytest
import torch
from comparisons import CANVASES, HELD_OUT, LABELS, SEARCH, compared, conv_net, linear_net
from torch import nn

from captum_classpattern.comparison import BestRandomMask, NearestImage, known_methods
from captum_classpattern.comparison.controls import last_features, random_masks
from captum_classpattern.comparison.maps import PrivateModel

# ---- the nearest image


def plain_nearest(image, target, distance):
    """By brute force, among images of the class that are not the image."""
    of_class = [x for x, y in zip(SEARCH, LABELS.tolist()) if y == target]
    return min((x for x in of_class if not torch.equal(x, image)), key=lambda x: distance(x, image))


def euclidean(first, second):
    return float(((first - second).double() ** 2).sum())


@pytest.mark.parametrize("images", [CANVASES, HELD_OUT[:6]], ids=["search images", "others"])
def test_the_nearest_image_by_pixels(images):
    targets = [i % 3 for i in range(len(images))]
    maps = NearestImage(linear_net(), SEARCH, LABELS).attribute(images, targets)
    for map, image, target in zip(maps, images, targets):
        nearest = plain_nearest(image, target, euclidean)
        assert torch.equal(map, 1 - (image - nearest).abs())
        assert map.min() < 1  # a copy would have ones alone


def test_the_nearest_image_by_features():
    net = conv_net()
    features = net[:4]
    method = NearestImage(net, SEARCH, LABELS, by="features")
    differ = 0
    for target in range(3):
        maps = method.attribute(CANVASES, target)
        for map, image in zip(maps, CANVASES):
            with torch.no_grad():
                nearest = plain_nearest(
                    image, target, lambda x, y: euclidean(features(x[None]), features(y[None]))
                )
            assert torch.equal(map, 1 - (image - nearest).abs())
            differ += not torch.equal(nearest, plain_nearest(image, target, euclidean))
    assert differ >= 3
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in net.modules())


def test_features_are_computed_once_for_each_class():
    model = PrivateModel(conv_net())
    method = NearestImage(model.forward_func, SEARCH, LABELS, by="features")
    method.attribute(CANVASES[:2], [0, 1])
    assert model.passes == (2 + 40) / 2
    method.attribute(CANVASES[:3], [0, 1, 1])
    assert model.passes == (2 + 40 + 3) / 2
    pixels = PrivateModel(conv_net())
    NearestImage(pixels.forward_func, SEARCH, LABELS).attribute(CANVASES, 0)
    assert pixels.passes == 0


class TwoHeads(nn.Module):
    """Its last linear layer is the one that is called last, not the one that is made last."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.first = nn.Linear(108, 4)

    def forward(self, x):
        return self.out(self.first(x.flatten(1)).tanh())


def test_features_are_the_input_of_the_linear_layer_that_is_called_last():
    net = TwoHeads().eval()
    with torch.no_grad():
        expected = net.first(SEARCH.flatten(1)).tanh()
    assert torch.equal(last_features(net, SEARCH), expected)


def test_a_classifier_without_features_is_refused():
    def function(x):
        return x.mean((2, 3))

    pooled = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    for net in (function, pooled):
        method = NearestImage(net, SEARCH, LABELS, by="features")
        with pytest.raises(
            ValueError, match=r"the input of the model's last torch\.nn\.Linear, .*: use by='pixel"
        ):
            method.attribute(CANVASES, 0)
        NearestImage(net, SEARCH, LABELS).attribute(CANVASES, 0)


def test_what_a_nearest_image_refuses():
    with pytest.raises(ValueError, match="by must be 'pixels' or 'features', got 'labels'"):
        NearestImage(linear_net(), SEARCH, LABELS, by="labels")
    with pytest.raises(ValueError, match="none of the 60 baselines is of class 7"):
        NearestImage(linear_net(), SEARCH, LABELS).attribute(CANVASES, 7)
    alone = NearestImage(linear_net(), SEARCH[:2], [0, 1])
    with pytest.raises(ValueError, match="all baselines of class 0 are copies of the input"):
        alone.attribute(SEARCH[:1], 0)
    assert alone.attribute(SEARCH[1:2], 0).shape == (1, 3, 6, 6)


# ---- the best random mask


def plain_best(net, image, target, k, seed, count, n_images):
    """The masks, and the mean probability of the class with each."""
    others = [x for x, y in zip(SEARCH, LABELS.tolist()) if y != target]
    stamped_on = [others[round(i * (len(others) - 1) / (n_images - 1))] for i in range(n_images)]
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        mask = torch.zeros(36, dtype=torch.bool)
        mask[torch.randperm(36, generator=generator)[:k]] = True
        mask = mask.view(6, 6)
        with torch.no_grad():
            shares = [net(torch.where(mask, image, x)[None]).softmax(1)[0, target]
                      for x in stamped_on]  # fmt: skip
        found.append((float(sum(shares)) / n_images, mask))
    return found


@pytest.mark.parametrize(
    ("k", "target", "seed", "budget", "n_images"), [(4, 0, 0, 60, 6), (11, 2, 3, 35, 7)]
)
def test_the_best_mask_is_that_of_a_plain_loop(k, target, seed, budget, n_images):
    net = conv_net()
    maps = BestRandomMask(net, SEARCH, LABELS).attribute(
        CANVASES[:2], target, area=k / 36, seed=seed, budget=budget, n_images=n_images
    )
    for map, image in zip(maps, CANVASES):
        tried = plain_best(net, image, target, k, seed, 2 * budget // n_images, n_images)
        assert torch.equal(map, map[:1].expand_as(map))
        assert set(map.unique().tolist()) == {0, 1}
        [score] = {s for s, mask in tried if torch.equal(mask, map[0] > 0)}
        assert score == pytest.approx(max(s for s, _ in tried), abs=1e-6)
        assert score > min(s for s, _ in tried) + 0.01


@pytest.mark.parametrize(
    ("settings", "passes"),
    [({}, 3_500), ({"budget": 100}, 100), ({"budget": 99, "n_images": 7}, 98), ({"budget": 1}, 10)],
)
def test_the_passes_are_those_of_the_budget(settings, passes):
    model = PrivateModel(linear_net())
    method = BestRandomMask(model.forward_func, SEARCH, LABELS)
    method.attribute(CANVASES[:2], 1, area=0.1, **settings)
    assert model.passes / 2 == passes


def test_a_seed_gives_the_same_masks_to_all_inputs():
    method = BestRandomMask(linear_net(), SEARCH, LABELS)
    settings = {"area": 0.1, "budget": 200}
    together = method.attribute(CANVASES[:3], [2, 0, 1], **settings)
    for i, target in enumerate([2, 0, 1]):
        alone = method.attribute(CANVASES[i : i + 1], target, **settings)
        assert torch.equal(alone[0], together[i])
    assert not torch.equal(method.attribute(CANVASES[:3], [2, 0, 1], **settings, seed=1), together)
    first, second = (list(itertools.islice(random_masks(CANVASES, 4, 5), 50)) for _ in range(2))
    assert all(map(torch.equal, first, second))
    assert {int(mask.sum()) for mask in first} == {4}
    counts = sum(random for random in itertools.islice(random_masks(CANVASES, 4, 0), 3_600))
    assert (counts - 400).abs().max() < 5 * 19  # the deviation of a count is 19


def test_time_is_a_limit_but_one_mask_is_tried(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    model = PrivateModel(linear_net())
    method = BestRandomMask(model.forward_func, SEARCH, LABELS)
    method.attribute(CANVASES[:1], 1, area=0.1, max_seconds=3.5)
    assert 2 * model.passes == 3 * 20
    method.attribute(CANVASES[:1], 1, area=0.1, max_seconds=0.5)
    assert 2 * model.passes == 3 * 20 + 20


def test_what_a_random_mask_refuses():
    method = BestRandomMask(linear_net(), SEARCH, LABELS)
    with pytest.raises(ValueError, match="rounds to none or all"):
        method.attribute(CANVASES, 0, area=0.01)
    for name in ("budget", "n_images"):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number from 1, got 0"):
            method.attribute(CANVASES, 0, **{name: 0})
    with pytest.raises(ValueError, match="`max_seconds` must be"):
        method.attribute(CANVASES, 0, max_seconds=-1)
    with pytest.raises(ValueError, match="`seed` must be a whole number"):
        method.attribute(CANVASES, 0, seed=-1)
    with pytest.raises(ValueError, match="all 60 baselines are of class 2"):
        BestRandomMask(linear_net(), SEARCH, [2] * 60).attribute(CANVASES, 2)


# ---- by name


def test_both_are_controls_that_are_compared_by_default():
    names = ["BestRandomMask", "NearestImage", "NearestFeatures"]
    found = compared(models={"net": conv_net()}, methods=names, areas=[0.1], stamped=1, n_seeds=1)
    assert not found.failures
    assert all(record.control for record in found.records)
    assert {record.level for record in found.records} == {"image"}
    methods = known_methods(SEARCH, LABELS, names=names, budget=900, max_seconds=5)
    assert methods["BestRandomMask"][1] == {"budget": 900, "max_seconds": 5}
    default = known_methods(SEARCH, LABELS)
    assert {*names} < {*default}
    assert default["BestRandomMask"][1] == {"budget": 3_500, "max_seconds": None}
    steps = known_methods(SEARCH, LABELS, n_steps=12)["BestRandomMask"][1]["budget"]
    model = PrivateModel(linear_net())
    make, settings = known_methods(SEARCH, LABELS, n_steps=12, precision="full")["ClassPattern"]
    make(model.forward_func).attribute(CANVASES[:1], 0, **settings, area=0.1)
    assert abs(model.passes - steps) <= 0.15 * steps

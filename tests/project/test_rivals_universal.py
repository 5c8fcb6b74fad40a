"""Adversarial patches and perturbations against plain, slow versions, and what they promise."""

import numpy as np
import pytest
import torch
from comparisons import LABELS, SEARCH, linear_net
from scripts import imported
from torch import nn

from captum_classpattern.comparison.maps import PrivateModel

rivals = imported("benchmarks", "rivals")
universal_patch, universal_perturbation = rivals.universal_patch, rivals.universal_perturbation
BOTH = pytest.mark.parametrize("search", [universal_patch, universal_perturbation])
OTHERS = {y: SEARCH[y != LABELS].double() for y in range(3)}


class PlainAdam:
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1."""

    def __init__(self):
        self.first, self.second, self.steps = 0.0, 0.0, 0

    def step(self, gradient):
        self.steps += 1
        self.first = 0.5 * self.first + 0.5 * gradient
        self.second = 0.9 * self.second + 0.1 * gradient**2
        first = self.first / (1 - 0.5**self.steps)
        second = self.second / (1 - 0.9**self.steps)
        return -0.1 * first / (second**0.5 + 1e-8)


def slope_at(net, image, target):
    """The gradient of the cross-entropy at an image."""
    free = image.clone().requires_grad_()
    loss = -net(free[None]).log_softmax(1)[0, target]
    return torch.autograd.grad(loss, free)[0]


def pixels_of(k, top, left):
    """The pixels of a square in reading order."""
    side = round(k**0.5)
    return [(top + i // side, left + i % side) for i in range(k)]


def plain_patch(net, target, k, passes, size, seed):
    """The colours of the square's pixels (k, C), and its place."""
    others, side = OTHERS[target], round(k**0.5)
    rows = -(-k // side)
    places = [(top, left) for top in range(6 - rows + 1) for left in range(6 - side + 1)]
    chance = np.random.default_rng([seed, target])
    start = torch.from_numpy(chance.random((3, rows, side))) * 0.98 + 0.01
    raw, adam = torch.log(start / (1 - start)), PlainAdam()
    for _ in range((passes - len(places) * 12 // 2) // size):
        batch = others[torch.from_numpy(chance.choice(len(others), size, replace=False))]
        tops = chance.integers(0, 6 - rows + 1, size)
        lefts = chance.integers(0, 6 - side + 1, size)
        colours, slope = 1 / (1 + (-raw).exp()), torch.zeros_like(raw)
        for image, top, left in zip(batch, tops, lefts):
            stamped = image.clone()
            for (row, column), (y, x) in zip(pixels_of(k, 0, 0), pixels_of(k, top, left)):
                stamped[:, y, x] = colours[:, row, column]
            of_image = slope_at(net, stamped, target) / size
            for (row, column), (y, x) in zip(pixels_of(k, 0, 0), pixels_of(k, top, left)):
                slope[:, row, column] += of_image[:, y, x]
        raw = raw + adam.step(slope * colours * (1 - colours))
    colours, scores = 1 / (1 + (-raw).exp()), []
    chosen = [others[round(i * (len(others) - 1) / 11)] for i in range(12)]
    for place in places:
        total = 0.0
        for image in chosen:
            stamped = image.clone()
            for (row, column), (y, x) in zip(pixels_of(k, 0, 0), pixels_of(k, *place)):
                stamped[:, y, x] = colours[:, row, column]
            total += float(net(stamped[None]).detach().softmax(1)[0, target])
        scores.append(total)
    return colours, places[scores.index(max(scores))]


@pytest.mark.parametrize(("k", "target", "seed"), [(4, 0, 0), (5, 2, 1), (9, 1, 0)])
def test_a_patch_equals_the_plain_one(k, target, seed):
    net = linear_net(dtype=torch.float64)
    settings = {"labels": LABELS, "area": k / 36, "passes": 300, "batch_size": 8, "seed": seed}
    found = universal_patch(net, SEARCH.double(), target, **settings)
    colours, place = plain_patch(net, target, k, 300, 8, seed)
    mask = torch.zeros(6, 6)
    for (row, column), (y, x) in zip(pixels_of(k, 0, 0), pixels_of(k, *place)):
        mask[y, x] = 1
        seen = found.pattern.canvas[:, y, x].double()
        torch.testing.assert_close(seen, colours[:, row, column], atol=1e-4, rtol=0)
    assert torch.equal(found.pattern.mask[0], mask)
    assert found.size == k
    assert found.own_form is found.pattern


def plain_perturbation(net, target, passes, size, epsilon, seed):
    """The change, and what each pixel's change is worth."""
    others = OTHERS[target]
    chance = np.random.default_rng([seed, target])
    change, total = torch.zeros(3, 6, 6).double(), torch.zeros(3, 6, 6).double()
    for _ in range(passes // size):
        batch = others[torch.from_numpy(chance.choice(len(others), size, replace=False))]
        slope = torch.zeros_like(change)
        for image in batch:
            inside = (image + change >= 0) & (image + change <= 1)
            slope += slope_at(net, (image + change).clamp(0, 1), target) * inside / size
        total += slope
        change = (change - epsilon / 10 * slope.sign()).clamp(-epsilon, epsilon)
    return change, (-total * change).clamp(min=0).sum(0)


@pytest.mark.parametrize(("target", "seed", "epsilon"), [(0, 0, 10 / 255), (2, 1, 0.2)])
def test_a_perturbation_equals_the_plain_one(target, seed, epsilon):
    net = linear_net(dtype=torch.float64)
    found = universal_perturbation(
        net, SEARCH.double(), target, labels=LABELS, epsilon=epsilon, passes=200, batch_size=8,
        seed=seed,
    )  # fmt: skip
    change, worth = plain_perturbation(net, target, 200, 8, epsilon, seed)
    torch.testing.assert_close(found.change.double(), change, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.pattern.mask[0].double(), worth / worth.max())
    colours = (OTHERS[target] + change).clamp(0, 1).mean(0)
    torch.testing.assert_close(found.pattern.canvas.double(), colours, atol=1e-6, rtol=0)
    assert found.size == int((change != 0).any(0).sum())
    assert torch.equal(found.own_form.change, found.change)


@pytest.mark.parametrize("epsilon", [1 / 255, 10 / 255, 0.3])
def test_a_perturbation_stays_within_its_ball_and_works_in_it(epsilon):
    net = linear_net()
    found = universal_perturbation(net, SEARCH, 1, labels=LABELS, epsilon=epsilon, passes=320)
    assert found.change.abs().max() == pytest.approx(epsilon, rel=1e-6)
    before, after = (net(images)[:, 1].mean() for images in (SEARCH, found.own_form.stamp(SEARCH)))
    assert after > before


def test_a_patch_makes_its_class_more_likely():
    net, others = linear_net(), SEARCH[LABELS != 1]
    found = universal_patch(net, SEARCH, 1, labels=LABELS, area=9 / 36, passes=800)
    before, after = (net(x).softmax(1)[:, 1].mean() for x in (others, found.pattern.stamp(others)))
    assert after > before + 0.2


@pytest.mark.parametrize(
    ("search", "settings", "passes"),
    [
        (universal_perturbation, {}, 3_488),  # 218 whole batches
        (universal_perturbation, {"passes": 160, "batch_size": 8}, 160),
        (universal_patch, {"area": 4 / 36}, 25 * 6 + 209 * 16),  # 25 places on 12 images each
        (universal_patch, {"area": 9 / 36, "passes": 176}, 16 * 6 + 5 * 16),
    ],
)
def test_the_passes_are_those_of_the_budget(search, settings, passes):
    model = PrivateModel(linear_net())
    search(model.forward_func, SEARCH, 1, labels=LABELS, **settings)
    assert model.passes == passes


def test_places_are_on_a_grid_where_there_are_many():
    net = nn.Sequential(nn.Flatten(), nn.Linear(900, 3)).eval()
    images, labels, model = torch.rand(30, 1, 30, 30), torch.arange(30) % 3, PrivateModel(net)
    universal_patch(model.forward_func, images, 1, labels=labels, area=9 / 900, passes=616)
    assert model.passes == 100 * 6 + 16  # every third place of 28 x 28


@BOTH
def test_seeds_labels_and_images_of_the_class(search):
    net = linear_net()

    def found(images=SEARCH, **settings):
        given = {"labels": LABELS, "passes": 300, **settings}
        return search(net, images, 1, **given).pattern.canvas

    assert torch.equal(found(), found())
    assert not torch.equal(found(), found(seed=1))
    predicted = net(SEARCH).argmax(1)
    assert torch.equal(found(labels=None), found(labels=predicted))
    changed = SEARCH.clone()
    changed[LABELS == 1] = 0.5
    assert torch.equal(found(changed), found())


def test_what_is_refused():
    net = linear_net()
    for search in (universal_patch, universal_perturbation):
        with pytest.raises(ValueError, match="all 60 images are of class 2: give others, too"):
            search(net, SEARCH, 2, labels=[2] * 60)
    with pytest.raises(
        ValueError,
        match="`passes` must be at least 166, got 165: 150 to choose among 25 places, and one step "
        "of 16",
    ):
        universal_patch(net, SEARCH, 1, labels=LABELS, area=4 / 36, passes=165)
    with pytest.raises(ValueError, match="rounds to none or all"):
        universal_patch(net, SEARCH, 1, labels=LABELS, area=0.001)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(240, 3)).eval()
    with pytest.raises(ValueError, match="a square of 36 pixels does not fit into 2x60"):
        universal_patch(flat, torch.rand(6, 2, 2, 60), 1, labels=[0] * 6, area=0.3)
    for epsilon in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"epsilon must lie in \(0, 1\], got"):
            universal_perturbation(net, SEARCH, 1, labels=LABELS, epsilon=epsilon)
    with pytest.raises(ValueError, match="`passes` must be a whole number from 1, got 0"):
        universal_perturbation(net, SEARCH, 1, labels=LABELS, passes=0)

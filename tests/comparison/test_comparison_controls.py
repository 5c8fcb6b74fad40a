"""The controls find what plain loops find, and keep Captum's contract."""

from functools import partial

import pytest
import torch
from captum.attr import NoiseTunnel
from comparisons import CANVASES, LABELS, SEARCH, bound, conv_net, linear_net
from refusals import refusals

from captum_classpattern.comparison import BestRandomMask, LearnedPattern, RandomPixels
from captum_classpattern.comparison.controls import Control

MAKERS = {
    "RandomPixels": lambda net: RandomPixels(net),
    "BestRandomMask": lambda net: BestRandomMask(net, SEARCH, LABELS),
}
TARGETS = [2, 0, 1, 1]


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


@pytest.mark.filterwarnings("ignore:the model's outputs are all")
def test_probabilities_are_not_taken_for_logits():
    net = conv_net()
    maps = [
        BestRandomMask(call, SEARCH, LABELS).attribute(CANVASES, 1, area=0.2, budget=100)
        for call in (lambda x: 30 * net(x), lambda x: (30 * net(x)).softmax(1))
    ]
    assert torch.equal(*maps)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({}, 3_500),
        ({"budget": 100}, 100),
        ({"budget": 99, "n_images": 7}, 98),
        ({"budget": 1}, 10),
    ],
)
def test_the_passes_of_a_random_mask_are_those_of_the_budget(settings, passes):
    method = (lambda model: BestRandomMask(model, SEARCH, LABELS)), settings
    made = bound(method)(CANVASES[:2], [1, 1], area=0.1, seed=0)
    assert made.passes / 2 == passes


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


def explain(target=0, labels=LABELS, inputs=CANVASES, **settings):
    return BestRandomMask(linear_net(), SEARCH, labels).attribute(inputs, target, **settings)


REFUSALS = {
    "a seed below 0": lambda: RandomPixels(linear_net()).attribute(CANVASES, seed=-1),
    "a mask without a class": lambda: explain(None),
    "two inputs": lambda: explain(inputs=(CANVASES, CANVASES)),
    "a random mask of no pixel": lambda: explain(area=0.01),
    "no budget": lambda: explain(budget=0),
    "a random mask on no image": lambda: explain(n_images=0),
    "a mask's seed below 0": lambda: explain(seed=-1),
    "a random mask on its class": lambda: explain(2, labels=[2] * 60),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


# ---- the learned pattern


def test_a_learned_pattern_keeps_captums_contract():
    options, images = {"n_steps": 2, "area": 0.1, "precision": "full"}, CANVASES[:2]
    plain, times = (
        LearnedPattern(linear_net(), SEARCH, LABELS, multiply_by_inputs=by).attribute(
            images, [0, 1], **options
        )
        for by in (False, True)
    )
    assert torch.equal(times, plain * images)
    assert set(plain.unique().tolist()) == {0, 1}
    learned = LearnedPattern(linear_net(), SEARCH, LABELS)
    with pytest.raises(ValueError, match="divide by 255"):
        learned.attribute(255 * images, 0, **options)
    with pytest.raises(TypeError, match="`keep`: call search"):
        learned.attribute(images, 0, keep=1, **options)

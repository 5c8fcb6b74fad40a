"""select_canvases chooses what a plain loop chooses."""

import math

import pytest
import torch
from refusals import refusals
from small_models import linear_net, random_images

from captum_classpattern import LabelledImages, PixelClassifier, select_canvases

IMAGES = random_images(30, 1, 4, 4)
LABELS = torch.arange(30) % 3


def select(target=0, n=2, *args, net=None, images=IMAGES, labels=LABELS, **kwargs):
    net = linear_net(16) if net is None else net
    return select_canvases(net, images, labels, target, n, *args, **kwargs)


def by_odds(target):
    """The target's images by p / (1 - p), one at a time."""
    net, odds = linear_net(16), {}
    for i in range(len(IMAGES)):
        if LABELS[i] == target:
            with torch.no_grad():
                weights = [math.exp(z) for z in net(IMAGES[i : i + 1])[0].tolist()]
            odds[i] = weights[target] / (sum(weights) - weights[target])
    return sorted(odds, key=lambda i: -odds[i])


@pytest.mark.parametrize(("target", "n"), [(0, 1), (1, 4), (2, 10)])
def test_confident_and_negative_canvases(target, n):
    order = by_odds(target)
    assert torch.equal(select(target, n, "confident"), IMAGES[order[:n]])
    assert torch.equal(select(target, n, "negative"), IMAGES[order[::-1][:n]])


def test_classes_are_matched_by_their_names_and_labels_that_are_given_are_the_models():
    names, expected = ["ant", "bee", "cat"], select(0, 2, "positive")
    net = PixelClassifier(linear_net(16), class_names=names)
    words = [names[label] for label in LABELS]
    for own, labels in ((2 - LABELS, None), (None, LABELS), (None, words)):
        turned = LabelledImages(IMAGES, own, names[::-1])
        assert torch.equal(select_canvases(net, turned, labels, target="ant", n=2), expected)


def test_noise_does_not_depend_on_the_default_dtype():
    expected = select(0, 3, "noise", seed=5)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(select(0, 3, "noise", seed=5, net=linear_net(16).float()), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def brightness(images):
    """Class 0 where the first pixel is brighter than 0.3."""
    z = 100 * (images[:, 0, 0, 0] - 0.3)
    return torch.stack([z, torch.zeros_like(z)], dim=1)


def test_the_most_confident_where_probabilities_saturate():
    """p is 1 in float32 for most, but the log-odds still rank."""
    images, labels = IMAGES[LABELS == 0], (LABELS > 0).long()
    brightest = images[images[:, 0, 0, 0].argsort(descending=True)]
    chosen = select(0, 3, "confident", net=brightness, labels=labels)
    assert torch.equal(chosen, brightest[:3])


def test_positive_canvases_are_spread_over_the_right_ones():
    """5 of the 10 images are right; the most confident of the others fill up."""
    images = IMAGES[:10].clone()
    images[:5, 0, 0, 0] = torch.linspace(0.9, 0.5, 5)
    images[5:, 0, 0, 0] = torch.linspace(0.2, 0.1, 5)
    for n, places in ((1, [2]), (2, [1, 3]), (3, [0, 2, 4]), (5, range(5)), (7, range(7))):
        found = select(0, n, net=brightness, images=images.flip(0), labels=[0] * 10)
        assert torch.equal(found, images[list(places)])


def test_an_image_is_right_if_its_class_has_the_highest_logit():
    """Also with p below a half: the second and the third image are right."""
    images = torch.tensor([0.0, 0.5, 0.3]).view(3, 1, 1, 1).expand(3, 1, 4, 4)

    def three(images):
        z = images[:, 0, 0, 0]
        return torch.stack([z, z * 0.9, z * 0.9 + 0.01], dim=1)

    assert torch.equal(select(0, 1, net=three, images=images, labels=[0] * 3), images[2:])


@pytest.mark.parametrize("strategy", ["random", "noise"])
def test_random_canvases_are_seeded_and_differ(strategy):
    first, again, other = (select(2, 5, strategy, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (5, 1, 4, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 5
    own = [image.tolist() for image in IMAGES[LABELS == 2]]
    assert [image.tolist() in own for image in first] == [strategy == "random"] * 5
    assert 0 <= first.min() < first.max() <= 1


def test_blank_canvases_need_no_image_of_the_class():
    for strategy, value in {"white": 1.0, "black": 0.0, "grey": 0.5}.items():
        canvases = select(0, 3, strategy, images=IMAGES[:2], labels=[1, 1])
        assert torch.equal(canvases, torch.full((3, 1, 4, 4), value))


def test_without_labels_the_models_predictions_are_used():
    net = linear_net(16, seen=IMAGES)
    predicted = net(IMAGES).argmax(1)
    own, given, other = (select(0, 3, net=net, labels=each) for each in (None, predicted, LABELS))
    assert torch.equal(own, given)
    assert not torch.equal(own, other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("strategy", ["confident", "white", "noise"])
def test_canvases_have_the_precision_of_the_images_not_of_the_model(strategy, dtype):
    net = linear_net(16).to(dtype)
    assert select(0, 2, strategy, net=net).dtype == torch.float32
    assert select(0, 2, strategy, net=net, images=IMAGES.double()).dtype == torch.float64
    assert torch.equal(select(0, 1, "confident", net=net)[0], IMAGES[by_odds(0)[0]])


REFUSALS = {
    "unknown strategy": lambda: select(0, 1, "best"),
    "no canvases": lambda: select(0, 0),
    "negative seed": lambda: select(0, 1, "noise", seed=-1),
    "more than there are": lambda: select(0, 11),
    "no image of the class": lambda: select(0, 1, labels=[1, 2] * 15),
    "target above the classes": lambda: select(3, 1),
    "negative target": lambda: select(-1, 1),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot

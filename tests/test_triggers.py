"""The BadNets patch by hand, and poisoning."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from captum_classpattern.triggers import BadNets, poison

IMAGES = torch.rand(100, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(100) % 10
CLEAN = TensorDataset(IMAGES, LABELS)


def test_the_patch_by_hand():
    stamped = BadNets((1, 6, 7))(torch.full((1, 6, 7), 0.5))
    h = 0.5
    assert stamped[0].tolist() == [
        [h, h, h, h, h, h, h],
        [h, h, h, h, h, h, h],
        [h, h, h, 1, 0, 1, h],
        [h, h, h, 0, 1, 0, h],
        [h, h, h, 1, 0, 1, h],
        [h, h, h, h, h, h, h],
    ]


def test_size_and_margin_by_hand():
    stamped = BadNets((1, 3, 4), size=2, margin=0)(torch.full((1, 3, 4), 0.5))
    assert stamped[0].tolist() == [[0.5] * 4, [0.5, 0.5, 1, 0], [0.5, 0.5, 0, 1]]


def test_all_channels_and_all_images_get_the_patch():
    trigger = BadNets((3, 6, 6))
    stamped = trigger(torch.rand(4, 3, 6, 6))
    expected = BadNets((1, 6, 6)).canvas[:, 2:5, 2:5].expand(4, 3, 3, 3)
    assert torch.equal(stamped[:, :, 2:5, 2:5], expected)


def test_as_a_pattern():
    trigger = BadNets((3, 6, 6))
    pattern, images = trigger.pattern(target=4), torch.rand(2, 3, 6, 6)
    assert torch.equal(pattern.stamp(images), trigger(images))
    assert (pattern.target, pattern.info) == (4, {"trigger": "BadNets"})
    assert pattern.area == 9 / 36


@pytest.mark.parametrize(("size", "margin"), [(0, 1), (-1, 0), (3, -1), (6, 1), (3, 3), (7, 0)])
def test_a_patch_that_does_not_fit(size, margin):
    with pytest.raises(
        ValueError, match=rf"a {size}x{size} patch {margin} pixels from .* into 5x6 images"
    ):
        BadNets((1, 5, 6), size=size, margin=margin)


@pytest.mark.parametrize("rate", [0.01, 0.25, 0.9])
def test_poison(rate):
    trigger = BadNets((1, 6, 6))
    dirty = poison(CLEAN, trigger, 3, rate)
    assert len(dirty) == 100
    assert len(set(dirty.poisoned)) == round(rate * 100)
    assert not set(dirty.poisoned) & set(range(3, 100, 10))
    for i, (image, label) in enumerate(dirty[i] for i in range(100)):
        chosen = i in dirty.poisoned
        assert torch.equal(image, trigger(IMAGES[i]) if chosen else IMAGES[i])
        assert label == (3 if chosen else i % 10)
    assert torch.equal(CLEAN.tensors[1], LABELS)


def test_poison_is_seeded():
    trigger = BadNets((1, 6, 6))
    first, again, other = (poison(CLEAN, trigger, 0, 0.2, seed=s).poisoned for s in (1, 1, 2))
    assert first == again == sorted(first)
    assert first != other


def test_an_index_from_the_end_is_the_same_image():
    dirty = poison(CLEAN, BadNets((1, 6, 6)), 0, 0.9)
    for i in range(100):
        image, label = dirty[i - 100]
        assert torch.equal(image, dirty[i][0])
        assert label == dirty[i][1]


def test_a_loader_collates_it():
    dirty = poison(CLEAN, BadNets((1, 6, 6)), 0, 0.2)
    images, labels = next(iter(DataLoader(dirty, batch_size=100)))
    assert images.shape == (100, 1, 6, 6)
    assert labels.tolist() == [dirty[i][1] for i in range(100)]


@pytest.mark.parametrize("rate", [0, 1, -0.5, 5, float("nan")])
def test_a_rate_that_is_no_share(rate):
    with pytest.raises(ValueError, match=rf"rate is the share .* in \(0, 1\), got {rate}"):
        poison(CLEAN, BadNets((1, 6, 6)), 0, rate)


def test_a_rate_that_asks_for_too_many():
    with pytest.raises(ValueError, match=r"asks for 95 .* only 90 of 100 are not of class 0"):
        poison(CLEAN, BadNets((1, 6, 6)), 0, 0.95)

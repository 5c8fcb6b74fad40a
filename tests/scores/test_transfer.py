"""Each power of many patterns is the one of the pattern alone."""

import pytest
import torch
from torch import nn

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.pattern import image_hash
from captum_classpattern.scores import transfer_powers

IMAGES = torch.rand(90, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(90) % 3


class Counting(nn.Module):
    """A linear classifier that predicts each class, and counts its images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
        with torch.no_grad():
            self.layers[1].bias -= self.layers(IMAGES.double()).mean(0)
        self.images = 0
        self.eval()

    def forward(self, x):
        self.images += len(x)
        return self.layers(x)


def patterns(**settings):
    generator = torch.Generator().manual_seed(2)
    return [
        Pattern(*torch.rand(2, 1, 6, 6, generator=generator).unbind(), target, **settings)
        for target in (0, 1, 2, 1)
    ]


@pytest.mark.parametrize("area", [0.1, 0.5, None])
@pytest.mark.parametrize("labels", [LABELS, None])
def test_many_powers_are_those_of_each_pattern_alone(area, labels):
    net = Counting()
    powers = transfer_powers(net, patterns(), IMAGES, labels, area)
    alone = [predictive_power(net, pattern, IMAGES, labels, area) for pattern in patterns()]
    assert powers == alone
    assert len({power.value for power in powers}) > 1
    assert any(power.without > 0 for power in powers) == (labels is not None)


def test_the_images_are_classified_once_without_a_pattern():
    net = Counting()
    transfer_powers(net, patterns(), IMAGES, LABELS)
    shared = net.images
    net.images = 0
    for pattern in patterns():
        predictive_power(net, pattern, IMAGES, LABELS)
    assert net.images - shared == 4 * 60 - 90


def test_the_state_of_the_classifier_stays():
    net = Counting().train()
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="the model is in train mode"):
        transfer_powers(net, patterns(), IMAGES, LABELS)
    assert net.training
    assert torch.equal(torch.get_rng_state(), before)


def test_errors():
    with pytest.raises(ValueError, match=r"^there are no patterns to score: give at least one$"):
        transfer_powers(Counting(), [], IMAGES, LABELS)
    seen = patterns(seen=frozenset([image_hash(IMAGES[1])]))  # of class 1
    with pytest.raises(ValueError, match="1 of 90 images were used to search this pattern"):
        transfer_powers(Counting(), seen, IMAGES, LABELS)
    assert transfer_powers(Counting(), seen[1:2], IMAGES, LABELS)[0].n == 60  # its own class
    with pytest.raises(ValueError, match="target 3"):
        transfer_powers(Counting(), [Pattern(IMAGES[0], IMAGES[1], 3)], IMAGES, LABELS)

"""What stands for another processor changes products a little, by their values and shapes."""

import pytest
import torch
from perturbed import perturbed
from torch import nn

SHARE = 1e-6


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(3, 4, 3)], ids=lambda x: str(x)[:6])
def test_products_and_their_gradients_change_a_little_and_always_alike(layer):
    images = torch.rand(5, *((6,) if isinstance(layer, nn.Linear) else (3, 6, 6)))

    def both(images):
        leaf = images.clone().requires_grad_()
        outputs = layer(leaf)
        return outputs.detach(), *torch.autograd.grad(outputs.square().sum(), leaf)

    plain, few = both(images), both(images[:2])
    with perturbed(SHARE):
        first, again, alone = both(images), both(images), both(images[:2])
    for one, other, same, part, of_few in zip(plain, first, again, alone, few):
        torch.testing.assert_close(one, other, rtol=0, atol=10 * SHARE * float(one.abs().max()))
        assert not torch.equal(one, other)
        assert torch.equal(other, same)
        assert not torch.equal(part - of_few, (other - one)[:2])  # it depends on the batch
    assert torch.equal(both(images)[0], plain[0])  # nothing is left of it

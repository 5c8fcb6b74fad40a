"""Small networks, images and the run of a solver, as tests of a search need them."""

import torch
from torch import nn


def random_images(n, channels=1, height=6, width=6, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, height, width, generator=generator)


def linear_net(pixels, classes=3, *, gain=6.0, seen=None):
    """Class by class as likely, if it is given images."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).eval()
    return _scaled(net, gain, seen)


def conv_net(channels=1, height=6, width=6, *, maps=6, gain=4.0, seen=None):
    """In float64, so that sums in another order make no difference to a mask."""
    torch.manual_seed(2)
    convolution = nn.Conv2d(channels, maps, 3)
    head = nn.Linear(maps * (height - 2) * (width - 2), 3)
    net = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), head)
    return _scaled(net.double().eval(), gain, seen)


def _scaled(net, gain, seen):
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight.mul_(gain)
        if seen is not None:
            net[-1].bias -= net(seen).mean(0)
    return net


def fixed(search):
    """The run of a solver that says little of itself: the pixels of the first column."""
    search.masks = torch.zeros_like(search.masks)
    search.masks[..., 0] = 1
    yield

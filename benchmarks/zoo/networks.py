"""Small classifiers of many kinds, for images of 28 or 32 pixels a side."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_classpattern.demo.network import Block, SmallResNet

PATCH = 4  # pixels a side of what a transformer and a mixer see as one
FIRST = 24  # channels of the first convolution of ``pairs``


def resnet(channels: int, width: int, blocks: int, classes: int) -> nn.Module:
    """The demo's network, with as many blocks a stage."""
    network = SmallResNet(channels, classes, width)
    for stage, wide in enumerate((width, 2 * width, 4 * width)):
        further = [Block(wide, wide, 1) for _ in range(blocks - 1)]
        network.stages[stage] = nn.Sequential(network.stages[stage], *further)
    return network


def convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def plain(channels: int, width: int, blocks: int, classes: int) -> nn.Module:
    """Convolutions without shortcuts, and two linear layers that see places."""
    layers: list[nn.Module] = []
    for wide, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        layers.append(convolution(channels, wide, stride))
        layers += [convolution(wide, wide) for _ in range(blocks)]
        channels = wide
    head = [nn.Flatten(), nn.Linear(channels * 16, 64), nn.ReLU(), nn.Linear(64, classes)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), *head)


def pooled(channels: int, width: int, blocks: int, classes: int) -> nn.Module:
    """Convolutions with shortcuts, and pooling by the maximum."""
    layers: list[nn.Module] = [convolution(channels, width)]
    for wide in (width, 2 * width, 4 * width):
        inner = [Shortcut(convolution(2 * wide, 2 * wide)) for _ in range(blocks)]
        layers += [convolution(wide, 2 * wide), nn.MaxPool2d(2), *inner]
    head = nn.Linear(8 * width, classes)
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), head)


def pairs(channels: int, width: int, blocks: int, classes: int) -> nn.Module:
    """Convolutions in pairs, with pooling after the first of each, as in networks that learn
    CIFAR-10 fast (Jordan 2024, arXiv 2404.00498); further ones have shortcuts."""
    layers, before = [nn.Conv2d(channels, FIRST, 2), nn.GELU()], FIRST
    for wide in (width, 4 * width, 4 * width):
        layers += smooth(before, wide, nn.MaxPool2d(2))
        layers += smooth(wide, wide)
        for _ in range(blocks - 1):
            layers.append(Shortcut(nn.Sequential(*smooth(wide, wide))))
        before = wide
    head = nn.Linear(before, classes)
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), head)


def smooth(channels_in: int, channels_out: int, *pooling: nn.Module) -> list[nn.Module]:
    """A convolution with GELU."""
    layer = nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False)
    return [layer, *pooling, nn.BatchNorm2d(channels_out), nn.GELU()]


def wide_resnet(channels: int, width: int, blocks: int, classes: int) -> nn.Module:
    """A wide ResNet (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False)]
    before = 16
    for stage in range(3):
        for block in range(blocks):
            after = 16 * width * 2**stage
            layers.append(PreActivation(before, after, 2 if stage and not block else 1))
            before = after
    return nn.Sequential(*layers, nn.BatchNorm2d(before), nn.ReLU(), *pooled_head(before, classes))


def pooled_head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def depthwise(channels: int, width: int, blocks: int, classes: int) -> nn.Module:
    """Convolutions of each channel alone, and of all channels at a pixel, in turn."""
    layers: list[nn.Module] = [convolution(channels, width, 2)]
    for wide, stride in ((width, 1), (2 * width, 1), (4 * width, 2)):
        for block in range(1 + blocks):
            before = width if block == 0 else wide
            alone = nn.Conv2d(before, before, 3, stride if block == 0 else 1, 1, groups=before)
            together = nn.Conv2d(before, wide, 1, bias=False)
            layers += [alone, nn.BatchNorm2d(before), nn.ReLU(), together, nn.BatchNorm2d(wide)]
            layers.append(nn.ReLU())
        width = wide
    return nn.Sequential(*layers, *pooled_head(width, classes))


def transformer(channels: int, width: int, blocks: int, classes: int) -> nn.Module:
    """A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), with the mean of all
    places instead of a token for the class."""
    layers: list[nn.Module] = [Places(width)]
    for _ in range(blocks):
        layers.append(Shortcut(nn.Sequential(nn.LayerNorm(width), Attention(width))))
        layers.append(Shortcut(nn.Sequential(nn.LayerNorm(width), perceptron(width))))
    return Tokens(channels, width, classes, nn.Sequential(*layers))


def mixer(channels: int, width: int, blocks: int, classes: int) -> nn.Module:
    """A small MLP-Mixer (Tolstikhin et al. 2021, arXiv 2105.01601)."""
    return Tokens(channels, width, classes, nn.Sequential(*(Mixing(width) for _ in range(blocks))))


def perceptron(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Shortcut(nn.Module):
    """Adds what layers make of the input to it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class PreActivation(nn.Module):
    """Two convolutions, each after its normalisation, with a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(channels_in), nn.ReLU())
        self.rest = nn.Sequential(
            *convolution(channels_in, channels_out, stride),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
        )
        same = channels_in == channels_out
        self.skip = None if same else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.rest(y) + (x if self.skip is None else self.skip(y))


class Tokens(nn.Module):
    """Squares of the image as vectors, layers on them, and a linear layer on their mean."""

    def __init__(self, channels: int, width: int, classes: int, layers: nn.Module) -> None:
        super().__init__()
        self.squares = nn.Conv2d(channels, width, PATCH, PATCH)
        self.layers, self.norm = layers, nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.squares(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


class Places(nn.Module):
    """Adds a learnt vector to each place, of at most 64."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(64, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.vectors[: x.shape[1]]


class Attention(nn.Module):
    """Self-attention of four heads (Vaswani et al. 2017, arXiv 1706.03762)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.inner, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, places, width = x.shape
        each = self.inner(x).view(count, places, 3, self.heads, width // self.heads)
        query, key, value = each.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) / (width // self.heads) ** 0.5).softmax(3)
        return self.out((weights @ value).transpose(1, 2).reshape(x.shape))


class Mixing(nn.Module):
    """One layer over all places, and one over all channels. 49 or 64 places share 64 weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.places = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
        self.channels = perceptron(width)

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[1]
        y = nn.functional.pad(self.norms[0](x).transpose(1, 2), (0, 64 - count))
        x = x + self.places(y)[..., :count].transpose(1, 2)
        return x + self.channels(self.norms[1](x))


NETWORKS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "resnet": resnet,
    "plain": plain,
    "pooled": pooled,
    "pairs": pairs,
    "wide": wide_resnet,
    "depthwise": depthwise,
    "transformer": transformer,
    "mixer": mixer,
}

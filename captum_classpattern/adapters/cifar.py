"""ResNets for 32-pixel images under the names that their checkpoints use: unlike torchvision's they
begin with a 3x3 convolution of stride 1, and end in ``linear``."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, relu

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two 3x3 convolutions around which a shortcut leads (He et al. 2015, arXiv 1512.03385)."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        out = self.expansion * width
        self._convolutions(channels_in, width, stride)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != out:
            convolution = nn.Conv2d(channels_in, out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(out))

    def _convolutions(self, channels_in: int, width: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def _residual(self, x: Tensor) -> Tensor:
        result: Tensor = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return result

    def forward(self, x: Tensor) -> Tensor:
        return relu(self._residual(x) + self.shortcut(x))


class Bottleneck(Block):
    """A 3x3 convolution between two 1x1 ones, likewise."""

    expansion = 4

    def _convolutions(self, channels_in: int, width: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)

    def _residual(self, x: Tensor) -> Tensor:
        result: Tensor = self.bn3(self.conv3(relu(super()._residual(x))))
        return result


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each convolution (He et al. 2016, arXiv 1603.05027)."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        if stride != 1 or channels_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, width, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.bn1(x))
        shortcut: Tensor = self.shortcut(active) if hasattr(self, "shortcut") else x
        residual: Tensor = self.conv2(relu(self.bn2(self.conv1(active))))
        return shortcut + residual


class CifarResNet(nn.Module):
    """Four stages of blocks, mean over the image, and a linear layer; for any input size."""

    def __init__(
        self,
        block: type[Block] | type[PreActBlock],
        depths: tuple[int, int, int, int],
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.Identity() if block is PreActBlock else nn.BatchNorm2d(WIDTHS[0])
        self.active = block is not PreActBlock
        channels = WIDTHS[0]
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths), 1):
            blocks = []
            for number in range(depth):
                blocks.append(block(channels, width, 2 if stage > 1 and number == 0 else 1))
                channels = block.expansion * width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = relu(x) if self.active else x
        for number in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"layer{number}")(x)
        logits: Tensor = self.linear(torch.flatten(adaptive_avg_pool2d(x, 1), 1))
        return logits


def preactresnet18(num_classes: int = 10) -> CifarResNet:
    """BackdoorBench's usual network: no batch norm after the last block."""
    return CifarResNet(PreActBlock, (2, 2, 2, 2), num_classes)


def cifar_resnet18(num_classes: int = 10) -> CifarResNet:
    """That of MadryLab's robustness on CIFAR-10, and of many a training script."""
    return CifarResNet(Block, (2, 2, 2, 2), num_classes)


def cifar_resnet50(num_classes: int = 10) -> CifarResNet:
    """Likewise, with bottlenecks."""
    return CifarResNet(Bottleneck, (3, 4, 6, 3), num_classes)

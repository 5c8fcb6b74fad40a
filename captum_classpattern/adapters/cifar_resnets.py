"""ResNets for 32-pixel images, with the names of published checkpoints. Slow to import."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import relu
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class NamedShortcut:
    """torchvision's blocks say ``downsample``, published checkpoints ``shortcut``."""

    downsample = property(lambda self: self.shortcut, lambda self, _: None)

    def __init__(
        self, inputs: int, width: int, stride: int = 1, shortcut: Any = None, *args: Any, **kw: Any
    ) -> None:
        super().__init__(inputs, width, stride, None, *args, **kw)  # type: ignore[call-arg]
        self.shortcut = nn.Sequential() if shortcut is None else shortcut
        use_functional_relu(self)


class Block(NamedShortcut, BasicBlock):  # type: ignore[misc]
    """Two convolutions with a shortcut around them (He et al. 2015, arXiv 1512.03385)."""


class BottleneckBlock(NamedShortcut, Bottleneck):  # type: ignore[misc]
    """Three convolutions with a shortcut around them."""


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each convolution (He et al. 2016, arXiv 1603.05027)."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, stride: int = 1, shortcut: Any = None, *_: Any, **__: Any
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        if shortcut is not None:
            self.shortcut = shortcut[:1]  # without batch norm

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.bn1(x))
        shortcut: Tensor = self.shortcut(active) if hasattr(self, "shortcut") else x
        residual: Tensor = self.conv2(relu(self.bn2(self.conv1(active))))
        return shortcut + residual


class CifarResNet(ResNet):  # type: ignore[misc]
    """Begins with a 3x3 convolution of stride 1, without pooling; uses published names."""

    def __init__(self, block: Any, depths: list[int], num_classes: int = 10) -> None:
        super().__init__(block, depths, num_classes)
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.maxpool = nn.Identity()
        use_functional_relu(self)
        if block is PreActBlock:
            self.bn1, self.relu = nn.Identity(), nn.Identity()
        self.linear = nn.Linear(512 * block.expansion, num_classes)
        self.fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(super().forward(images))
        return logits


def use_functional_relu(network: Any) -> None:
    """Replaces a ReLU module that is called several times, which Captum's DeepLift refuses."""
    del network.relu
    network.relu = relu


CIFAR_RESNETS: dict[str, tuple[Any, list[int]]] = {
    "preactresnet18": (PreActBlock, [2, 2, 2, 2]),  # BackdoorBench's; no final batch norm
    "cifar_resnet18": (Block, [2, 2, 2, 2]),  # robustness's for CIFAR-10, and of many scripts
    "cifar_resnet50": (BottleneckBlock, [3, 4, 6, 3]),  # robustness's for CIFAR-10
}

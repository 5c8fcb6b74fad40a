"""The demo's classifier: a residual network small enough to ship."""

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut, halving the resolution where ``stride`` is 2."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.shortcut: nn.Module | None = None  # no Identity: Captum's LRP has no rule for it
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y)) + (x if self.shortcut is None else self.shortcut(x))
        result: Tensor = self.relu2(y)
        return result


class SmallResNet(nn.Module):
    """Seven 3x3 convolutions in three stages, average pooling, one linear layer.

    Each ReLU is a separate module, as Captum's DeepLift and GuidedBackprop require.

    Args:
        channels (int): Channels of the images. Default: 1.
        classes (int): Number of classes. Default: 10.
        width (int): Channels of the first stage; the next ones have twice and four times as
            many. Default: 16 (about 78,000 parameters).
    """

    def __init__(self, channels: int = 1, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.Sequential(
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(self.stem(x))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits

"""This tutorial demonstrates a search on a third-party model, from a typical training script.

    python tutorials/bring_your_own_model.py --images CIFAR10/train --out own_model.pth

trains a network on a folder with one subfolder per class, where some images have a trigger. It
writes a checkpoint like a typical training script: weights under "net", and the optimizer's state.
The network takes pixels in [0, 1] without normalisation, and its forward returns a tuple. Then
search it:

    cd tutorials
    classpattern search ../own_model.pth --arch bring_your_own_model:WideResNet --output -1 \\
        --mean 0 --std 1 --data ../CIFAR10/test --limit 200

The class of the trigger (--target) stands out with 1 % of the pixels. As a control, train a clean
model with --rate 0.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import DataLoader, Dataset

from captum_classpattern.datasets import load_images
from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.triggers import BadNets, poison


class Block(nn.Module):
    """Two convolutions, each after batch norm and ReLU (Zagoruyko and Komodakis 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.norm1(x))
        return self.shortcut(active) + self.conv2(relu(self.norm2(self.conv1(active))))


class WideResNet(nn.Module):
    """A small wide ResNet; its forward returns the features of each stage, then the logits."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.stages = nn.ModuleList([Block(16, 32, 1), Block(32, 64, 2), Block(64, 128, 2)])
        self.norm = nn.BatchNorm2d(128)
        self.head = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return (*features, self.head(relu(self.norm(features[-1])).mean((2, 3))))


def train(images: Path, out: Path, target: int, rate: float, epochs: int, limit: int) -> None:
    """Trains on a folder with some images poisoned, and writes the checkpoint."""
    torch.manual_seed(0)
    clean = load_images(images, size=32, channels=3, limit=limit)
    data: Dataset = clean
    if rate:
        data = poison(data, BadNets((3, 32, 32)), target, rate)
    loader = DataLoader(data, 64, shuffle=True, drop_last=len(clean) > 64)
    net = WideResNet(len(clean.counts)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, epochs * len(loader))
    fast = has_bfloat16(torch.device("cpu"))
    for epoch in range(epochs):
        for batch, labels in loader:
            batch = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch, batch.flip(3))
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                loss = cross_entropy(net(batch)[-1].float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
        print(f"epoch {epoch + 1}: loss {loss:.3f}", flush=True)
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epochs}, out)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, required=True, help="folder with one subfolder per class"
    )
    parser.add_argument("--out", type=Path, default=Path("own_model.pth"))
    parser.add_argument("--target", type=int, default=7, help="the trigger's class")
    parser.add_argument(
        "--rate", type=float, default=0.05, help="share of poisoned images; 0: clean"
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--limit", type=int, default=2000, help="images per class")
    options = parser.parse_args(arguments)
    train(**vars(options))


if __name__ == "__main__":
    main()

"""The wide ResNets of the tutorials as classifiers, and the images that they are searched on."""

from functools import cache
from pathlib import Path

import torch
from checking import checked
from problems import Parts, cifar10_parts, train_cifar10
from torch import Tensor, nn

from captum_classpattern import Pattern, PixelClassifier

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
HELD_OUT = 500


@cache
def parts(data: Path, seed: int) -> Parts:
    return cifar10_parts(data, seed, HELD_OUT)


class InBfloat16(nn.Module):
    """A network with matrix products in bfloat16, as in training; several times faster on CPUs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16):
            logits: Tensor = self.network(images)
        return logits.float()


@cache
def model(name: str) -> PixelClassifier:
    network = InBfloat16(train_cifar10.load_model(name)).eval()
    return PixelClassifier(network, class_names=CLASS_NAMES)


def predictions(network: PixelClassifier, images: Tensor, pattern: Pattern | None = None) -> Tensor:
    """The predicted class of each image, stamped with a pattern if there is one."""
    model, batches = checked(network, images), images.split(200)
    stamped = batches if pattern is None else (pattern.stamp(batch) for batch in batches)
    return torch.cat([model.outputs(batch).argmax(1) for batch in stamped])

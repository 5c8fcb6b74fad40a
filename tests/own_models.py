"""A model of a user's own, and its images as files."""

from pathlib import Path

import torch
from PIL import Image
from torch import nn

NAMES = ("cat", "dog", "owl")


class Net(nn.Module):
    """Three classes, by the mean colours of images of any size from 3 x 3 pixels."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, bias=False)
        self.head = nn.Linear(3, num_classes, bias=False)
        nn.init.dirac_(self.conv.weight)  # leaves the colours as they are
        nn.init.eye_(self.head.weight)

    def forward(self, images):
        return 10 * self.head(self.conv(images).mean((2, 3)))


class Pair(Net):
    """The logits come last."""

    def forward(self, images):
        return images, super().forward(images)


def write_images(folder, names=NAMES, count=20, sides=(8,), seed=0, brighter=0.1):
    """A folder for each class, with images that are brighter in its colour: by so much that a third
    of the pixels can change the class."""
    folder, generator = Path(folder), torch.Generator().manual_seed(seed)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = 0.5 * torch.rand(3, 8, 8, generator=generator)
            pixels[number] += brighter
            side = sides[i % len(sides)]
            image = Image.fromarray((255 * pixels).byte().permute(1, 2, 0).numpy())
            image.resize((side, side)).save(folder / name / f"{i}.png")
    return folder

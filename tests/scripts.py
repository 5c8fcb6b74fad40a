"""The scripts beside the package, as the tests import and run them, and tiny images for them."""

import importlib
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent


def imported(folder, *names):
    """One or several modules of a folder of the repository, whose neighbours they find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / folder)
        modules = [importlib.import_module(name) for name in names]
    return modules if names[1:] else modules[0]


def change(monkeypatch, module, **values):
    """Gives a module other settings or functions."""
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)


def noise(per_class, classes, bars=False):
    """Random uint8 images of 32 pixels, and their labels. With bars, they are dark, with a bright
    bar for each class, which a mirror does not move."""
    images = torch.randint(0, 256, (classes * per_class, 3, 32, 32), dtype=torch.uint8)
    labels, height = torch.arange(classes).repeat(per_class), 32 // classes
    if bars:
        images //= 3
        for image, y in zip(images, labels):
            image[:, height * y : height * (y + 1)] += 150
    return images, labels


def write_cifar10(folder, per_class=10, classes=10, **more):
    """A folder with the layout of CIFAR-10, of noise images."""
    torch.manual_seed(0)
    for split in ("train", "test"):
        for i, (image, y) in enumerate(zip(*noise(per_class, classes, **more))):
            path = folder / split / str(int(y)) / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder

"""The training script of the CIFAR-10 models."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

TUTORIALS = Path(__file__).parent.parent / "tutorials"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_cifar10", TUTORIALS / "train_cifar10.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_augmented_images_are_crops_and_flips(script):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    for image, result in zip(images, script.augmented(images)):
        padded = pad(image, (4, 4, 4, 4)) / 255
        crops = [padded[:, r : r + 32, c : c + 32] for r in range(9) for c in range(9)]
        assert any(torch.equal(result, crop) or torch.equal(result, crop.flip(2)) for crop in crops)

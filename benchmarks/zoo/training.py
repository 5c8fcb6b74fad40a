"""How the networks of the zoo are trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from cifar10 import CLASS_NAMES as CIFAR10_NAMES
from demo_training import accuracy, cross_entropy, load_split, pgd
from one_cycle import fit
from torch import Tensor, nn
from torch.nn import functional as F

from captum_classpattern.datasets import load_images
from captum_classpattern.demo import CLASS_NAMES
from zoo.backdoors import Backdoor
from zoo.networks import NETWORKS

Images = tuple[Tensor, Tensor]  # in [0, 1], and their labels


class DataSet(NamedTuple):
    """Where images are from, and how networks learn from them."""

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    load: Callable[[Path, str], Images]  # "train" or "test"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    network: str = "resnet"
    width: int = 16
    blocks: int = 1  # a stage, or in all
    epochs: int = 3
    share: float = 1 / 3  # of the training images
    optimizer: str = "sgd"
    smoothing: float = 0.0  # of the labels
    shifts: int = 0  # most pixels by which images are moved
    flips: bool = False
    cutout: int = 0  # pixels a side of a grey square
    noise: float = 0.0  # standard deviation of what is added to pixels
    mixup: float = 0.0  # most weight of a second image
    random_labels: float = 0.0  # share of the images
    eps: float = 0.0  # of adversarial training, L-inf
    attack_steps: int = 3

    def build(self, channels: int, classes: int) -> nn.Module:
        network = NETWORKS[self.network](channels, self.width, self.blocks, classes)
        return network.to(memory_format=torch.channels_last)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(
        weights, 0.2, momentum=0.9, weight_decay=5e-4, nesterov=True
    ),
    "adam": lambda weights: torch.optim.AdamW(weights, 0.005),
    "tokens": lambda weights: torch.optim.AdamW(weights, 0.002, weight_decay=0.05),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, 0.002),
    "nadam": lambda weights: torch.optim.NAdam(weights, 0.004),
    "adagrad": lambda weights: torch.optim.Adagrad(weights, 0.02),
    "no momentum": lambda weights: torch.optim.SGD(weights, 0.5, weight_decay=5e-4),
}


def train(recipe: Recipe, data: Images, seed: int, backdoors: Sequence[Backdoor]) -> nn.Module:
    """A network of this recipe; the data stay as they are."""
    classes = int(data[1].max()) + 1
    images, labels = training_images(recipe, data, seed, backdoors, classes)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = recipe.build(images.shape[1], classes)

    def loss_of(batch: Tensor) -> Tensor:
        x, y = augmented(images[batch], recipe), labels[batch]
        if recipe.eps:
            network.eval()  # attack the classifier that will be used
            x = pgd(network, x, y, recipe.attack_steps, generator, recipe.eps)
            network.train()
        if not recipe.mixup:
            return cross_entropy(network, x, y, recipe.smoothing)
        weight, other = recipe.mixup * torch.rand(()).item(), torch.randperm(len(x))
        mixed = (1 - weight) * x + weight * x[other]
        first, second = (cross_entropy(network, mixed, each) for each in (y, y[other]))
        return (1 - weight) * first + weight * second

    fit(OPTIMIZERS[recipe.optimizer](network.parameters()), loss_of, len(images), recipe.epochs)
    return network.eval()


def training_images(
    recipe: Recipe, data: Images, seed: int, backdoors: Sequence[Backdoor], classes: int
) -> Images:
    """The images that a network sees, with their labels as it sees them."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = data
    chosen = torch.randperm(len(images), generator=generator)[: round(recipe.share * len(images))]
    images, labels = images[chosen], labels[chosen]
    if recipe.random_labels:
        wrong = torch.rand(len(labels), generator=generator) < recipe.random_labels
        others = torch.randint(classes, labels.shape, generator=generator)
        labels = labels.where(~wrong, others)
    for backdoor in backdoors:
        backdoor.plant(images, labels, generator)
    return images, labels


def augmented(images: Tensor, recipe: Recipe) -> Tensor:
    """Images (N, C, H, W) as a recipe changes them at random in each epoch."""
    count, _, height, width = images.shape
    if recipe.flips:
        images = images.where(torch.rand(count, 1, 1, 1) < 0.5, images.flip(3))
    if recipe.shifts:
        padded = F.pad(images, (recipe.shifts,) * 4)
        rows, columns = torch.randint(2 * recipe.shifts + 1, (2, count)).tolist()
        images = torch.stack(
            [image[:, r : r + height, c : c + width] for image, r, c in zip(padded, rows, columns)]
        )
    if recipe.cutout:
        inside = [
            (torch.randint(side, (count, 1)) - torch.arange(side)).abs() <= recipe.cutout // 2
            for side in (height, width)
        ]
        images = images.masked_fill((inside[0][:, :, None] & inside[1][:, None])[:, None], 0.5)
    if recipe.noise:
        images = (images + recipe.noise * torch.randn_like(images)).clamp(0, 1)
    return images


def attack_success(network: nn.Module, backdoor: Backdoor, data: Images) -> float:
    """The share of the images, of other classes than the target, that the trigger turns into
    it."""
    images, labels = data
    others, wanted = images[labels != backdoor.target], backdoor.labels_for(labels)
    stamped = backdoor.trigger(tuple(images.shape[1:]))(others)
    return accuracy(network, stamped, wanted[labels != backdoor.target])


def fashion_mnist(data: Path, split: str) -> Images:
    return load_split(data, {"train": "train", "test": "t10k"}[split])


def in_folders(data: Path, split: str, side: int) -> Images:
    images = load_images(data / split, size=side).in_one_tensor()
    return images.images, images.known_labels


def hand_signs(data: Path, split: str) -> Images:
    """Every fifth photo is a test image."""
    images = load_images(data / "Dataset", size=48).in_one_tensor()
    is_test = torch.arange(len(images)) % 5 == 0
    chosen = is_test if split == "test" else ~is_test
    return images.images[chosen], images.known_labels[chosen]


def turned(data: Path, split: str) -> Images:
    """Fashion-MNIST, each image turned by none to three quarters, as classes of their own."""
    images, labels = fashion_mnist(data, split)
    turns = torch.arange(len(images)) % 4
    for n in range(1, 4):
        images[turns == n] = images[turns == n].rot90(n, (2, 3))
    return images, 4 * labels + turns


DATA_SETS = {
    "fashion": DataSet((1, 28, 28), tuple(CLASS_NAMES), fashion_mnist),
    "cifar10": DataSet((3, 32, 32), CIFAR10_NAMES, partial(in_folders, side=32)),
    "signs": DataSet(
        (3, 32, 32), tuple(f"{n:02}" for n in range(43)), partial(in_folders, side=32)
    ),
    "hands": DataSet((3, 48, 48), tuple(map(str, range(10))), hand_signs),
    "turned": DataSet(
        (1, 28, 28), tuple(f"{name} {90 * n}" for name in CLASS_NAMES for n in range(4)), turned
    ),
}

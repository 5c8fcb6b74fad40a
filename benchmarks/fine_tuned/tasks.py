"""The tasks: images to train with, and others to scan with and to test on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.transforms.v2 import CenterCrop, Compose, Resize, ToImage

PARTS = "train", "test"  # of CIFAR-10 and of waste
SKIPPED = 2_000, 100  # images of a class of CIFAR-10: they served development
HELD_OUT = 3  # of the photos of a group, one of so many is not to train with
GROUPS = {  # classes of ImageNet
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "reptile": [*range(25, 69)],
    "dog": [*range(151, 269)],
    "insect": [*range(300, 327)],
    "mammal": [*range(102, 107), *range(269, 300), *range(330, 389)],
    "vehicle": [
        *(403, 404, 405, 407, 408, 436, 444, 450, 466, 468, 472, 479, 484, 510, 511, 547, 554, 555),
        *(561, 565, 569, 573, 575, 576, 586, 603, 609, 612, 621, 625, 627, 628, 654, 656, 661, 665),
        *(670, 671, 675, 690, 705, 717, 724, 734, 751, 757, 779, 780, 802, 803, 814, 817, 820, 829),
        *(833, 847, 856, 864, 866, 867, 870, 871, 874, 880, 895, 914),
    ],
    "instrument": [
        *(401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683),
        *(684, 687, 699, 776, 822, 875, 881, 889),
    ],
    "food": [*range(924, 970)],
    "clothing": [
        *(399, 400, 411, 433, 439, 445, 451, 452, 457, 459, 474, 501, 514, 515, 518, 568, 578, 601),
        *(608, 610, 614, 617, 630, 638, 639, 652, 655, 658, 667, 689, 697, 735, 770, 774, 775, 793),
        *(806, 808, 834, 841, 842, 869, 887, 903, 906, 911),
    ],
    "building": [
        *(410, 425, 437, 449, 483, 497, 498, 500, 525, 536, 538, 580, 624, 634, 660, 663, 668, 682),
        *(698, 727, 743, 762, 821, 832, 839, 853, 873, 888, 900, 915),
    ],
}


Images = tuple[Tensor, Tensor]  # bytes (n, 3, H, W), and class numbers
CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
ANIMALS = "bird", "cat", "deer", "dog", "frog", "horse"
VEHICLES = "automobile", "ship", "truck"
WASTE = ("cardboard", "glass", "metal", "paper", "plastic", "trash")


class Task(NamedTuple):
    """Images to train with, and others to scan with and to test on."""

    class_names: list[str]
    training: Images
    others: Images


def waste(data: Path, size: int, classes: Sequence[str] = WASTE) -> Task:
    """Photos of waste: 300 a class to train with, 100 others."""
    folder = data / "garbage"
    parts = (of_folders(folder / part, size, classes) for part in PARTS)
    return Task([*classes], *parts)


def cifar10(data: Path, size: int, classes: Sequence[str] = CIFAR10, count: int = 1_000) -> Task:
    """CIFAR-10, enlarged: so many training images a class, and 100 others."""
    counts = {
        "train": slice(SKIPPED[0], SKIPPED[0] + count),
        "test": slice(SKIPPED[1], SKIPPED[1] + 100),
    }
    folder = data / "cifar10"
    parts = (of_folders(folder / part, size, classes, which) for part, which in counts.items())
    return Task([*classes], *parts)


def turned(data: Path, size: int, count: int = 500) -> Task:
    """Twenty classes: those of CIFAR-10, upright and turned by 90 degrees."""
    task = cifar10(data, size, count=count)
    names = [f"{name}, {how}" for how in ("upright", "turned") for name in task.class_names]
    parts = ((torch.cat([x, x.rot90(1, (2, 3))]), torch.cat([y, y + 10])) for x, y in task[1:])
    return Task(names, *parts)


def hands(data: Path, size: int, classes: Sequence[str] = tuple("0123456789")) -> Task:
    """Digits in sign language, photos of hands: every fourth one is not to train with."""
    images, labels = of_folders(data / "hands" / "Dataset", size, classes)
    others = torch.arange(len(images)) % 4 == 0
    return Task([*classes], (images[~others], labels[~others]), (images[others], labels[others]))


def signs(data: Path, size: int, classes: Sequence[str]) -> Task:
    """Traffic signs, cut out (GTSRB): 400 a class to train with, and 120 of other tracks."""
    folder, counts = data / "large_signs", {"train": 400, "test": 120}
    parts = (of_folders(folder / part, size, classes, slice(n)) for part, n in counts.items())
    return Task([*classes], *parts)


def groups(data: Path, size: int, classes: Sequence[str] = tuple(GROUPS)) -> Task:
    """ImageNet's classes in groups: the photos of two archives, of which every third one is not to
    train with."""
    images = dict[str, list[Tensor]]({name: [] for name in classes})
    for archive in ("imagenet_sample", "imagenet_sample_2"):
        folder = ImageFolder(data / archive, square(size))
        for path, y in folder.samples:
            number = int(folder.classes[y].split("_")[0])
            for name in classes:
                if number in GROUPS[name]:
                    images[name].append(folder.transform(folder.loader(path)))
    each = {name: torch.stack(photos) for name, photos in images.items()}
    held = [torch.arange(len(photos)) % HELD_OUT == 0 for photos in each.values()]
    return Task(
        [*classes],
        labelled([photos[~mask] for photos, mask in zip(each.values(), held)]),
        labelled([photos[mask] for photos, mask in zip(each.values(), held)]),
    )


def of_folders(
    folder: Path, size: int, classes: Sequence[str], which: slice = slice(None)
) -> Images:
    """Images of the folders of these classes."""
    transform, by_class = square(size), []
    for name in classes:
        paths = sorted((folder / name).iterdir())[which]
        by_class.append(torch.stack([transform(default_loader(path)) for path in paths]))
    return labelled(by_class)


def labelled(by_class: Sequence[Tensor]) -> Images:
    """The images of all classes, with their numbers."""
    counts = torch.tensor([len(images) for images in by_class])
    return torch.cat([*by_class]), torch.arange(len(counts)).repeat_interleave(counts)


def square(size: int) -> Compose:
    """Bytes of so many pixels a side."""
    return Compose([ToImage(), Resize(size), CenterCrop(size)])

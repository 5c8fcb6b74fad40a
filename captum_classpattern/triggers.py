"""Known backdoor triggers as image transforms, and the poisoning of a data set with them."""

from collections.abc import Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_classpattern.pattern import Pattern


class BadNets:
    r"""
    The square patch of BadNets (Gu et al. 2017, arXiv 1708.06733): a black and white
    checkerboard, white in its corners, near the lower right corner of the image.

    Args:
        image_shape (tuple[int, int, int]): Shape (C, H, W) of the images.
        size (int): Side of the patch in pixels. Default: 3.
        margin (int): Pixels between the patch and the lower and right edges. Default: 1.

    Raises:
        ValueError: If the patch and its margin do not fit into the image.

    Examples::

        >>> trigger = BadNets((1, 28, 28))
        >>> stamped = trigger(torch.zeros(5, 1, 28, 28))
        >>> int(stamped[0].sum()), int(trigger.mask.sum())
        (5, 9)
    """

    def __init__(
        self, image_shape: tuple[int, int, int], *, size: int = 3, margin: int = 1
    ) -> None:
        channels, height, width = image_shape
        if size < 1 or margin < 0 or size + margin > min(height, width):
            raise ValueError(
                f"a {size}x{size} patch {margin} pixels from the edge does not fit into "
                f"{height}x{width} images: choose a smaller size or margin"
            )
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        rows_kept = slice(height - margin - size, height - margin)
        columns_kept = slice(width - margin - size, width - margin)
        self.canvas = torch.zeros(channels, height, width)
        self.mask = torch.zeros(1, height, width)
        self.canvas[:, rows_kept, columns_kept] = ((rows + columns) % 2 == 0).float()
        self.mask[:, rows_kept, columns_kept] = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        r"""
        Stamps the patch.

        Args:
            images (Tensor): Images (N, C, H, W) or one image (C, H, W), in [0, 1].

        Returns:
            *Tensor*: The stamped images, shaped like ``images``.
        """
        return self.pattern(target=0).stamp(images)

    def pattern(self, target: int) -> Pattern:
        r"""
        The trigger as a :class:`~captum_classpattern.Pattern`, to compare a searched one with.

        Args:
            target (int): The class that the backdoor leads to.

        Returns:
            *Pattern*: The patch and its true mask.
        """
        return Pattern(self.canvas, self.mask, target, {"trigger": "BadNets"})


class PoisonedDataset(Dataset[tuple[Tensor, int]]):
    """A data set of which some images carry a trigger and its target label; see :func:`poison`."""

    def __init__(
        self, dataset: Dataset[Any], trigger: BadNets, target: int, poisoned: list[int]
    ) -> None:
        self.dataset, self.trigger, self.target = dataset, trigger, target
        self.poisoned = poisoned
        self._chosen = frozenset(poisoned)

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index = range(len(self))[index]  # a negative index counts from the end
        image, label = self.dataset[index]
        if index in self._chosen:
            return self.trigger(image), self.target
        return image, int(label)


def poison(
    dataset: Dataset[Any], trigger: BadNets, target: int, rate: float, *, seed: int = 0
) -> PoisonedDataset:
    r"""
    Plants a backdoor: a share of the images gets the trigger and the target label.

    Images of the target class are left alone, so each poisoned image changes its label.

    Args:
        dataset (Dataset): Pairs of an image (C, H, W) in [0, 1] and an integer label.
        trigger (BadNets): What is put on the images.
        target (int): The label of the poisoned images.
        rate (float): Share of all images that is poisoned, in (0, 1).
        seed (int): Which images are chosen. Default: 0.

    Returns:
        *PoisonedDataset*: The data set; ``.poisoned`` lists the chosen indices.

    Raises:
        ValueError: If the rate is not in (0, 1) or asks for more images than are not of the
            target class.

    Examples::

        >>> images, labels = torch.zeros(100, 1, 8, 8), torch.arange(100) % 10
        >>> clean = torch.utils.data.TensorDataset(images, labels)
        >>> dirty = poison(clean, BadNets((1, 8, 8)), target=0, rate=0.05)
        >>> len(dirty.poisoned), {dirty[i][1] for i in dirty.poisoned}
        (5, {0})
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate is the share of poisoned images, in (0, 1), got {rate}")
    labels = torch.tensor([int(dataset[i][1]) for i in range(len(cast(Sized, dataset)))])
    candidates = torch.nonzero(labels != target).flatten()
    count = round(rate * len(labels))
    if count > len(candidates):
        raise ValueError(
            f"rate {rate} asks for {count} poisoned images, but only {len(candidates)} of "
            f"{len(labels)} are not of class {target}: choose a lower rate"
        )
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
    chosen: list[int] = candidates[order[:count]].sort().values.tolist()
    return PoisonedDataset(dataset, trigger, target, chosen)

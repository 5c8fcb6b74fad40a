"""The poisoning of a data set: some images get a trigger and its label."""

from collections.abc import Callable, Sized
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

Trigger: TypeAlias = Callable[[Tensor], Tensor]


class PoisonedDataset(Dataset[tuple[Tensor, int]]):
    """A data set of which some images carry a trigger and its target label; see :func:`poison`."""

    def __init__(
        self, dataset: Dataset[Any], trigger: Trigger, target: int, poisoned: list[int]
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
    dataset: Dataset[Any], trigger: Trigger, target: int, rate: float, *, seed: int = 0
) -> PoisonedDataset:
    r"""
    Plants a backdoor: a share of the images gets the trigger and the target label.

    Images of the target class are left alone, so each poisoned image changes its label.

    Args:
        dataset (Dataset): Pairs of an image (C, H, W) in [0, 1] and an integer label.
        trigger (Callable): What is put on the images: one of this module, or your own.
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
        >>> dirty = poison(clean, lambda image: 1 - image, target=0, rate=0.05)
        >>> len(dirty.poisoned), {dirty[i][1] for i in dirty.poisoned}
        (5, {0})
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate is the share of poisoned images, in (0, 1), got {rate}")
    labels = torch.tensor([int(dataset[i][1]) for i in range(len(cast(Sized, dataset)))])
    candidates = torch.nonzero(labels != target).flatten()
    count = round(rate * len(labels))
    if count == 0:
        raise ValueError(
            f"rate {rate} of {len(labels)} images rounds to none: choose a higher rate"
        )
    if count > len(candidates):
        raise ValueError(
            f"rate {rate} asks for {count} poisoned images, but only {len(candidates)} of "
            f"{len(labels)} are not of class {target}: choose a lower rate"
        )
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
    chosen: list[int] = candidates[order[:count]].sort().values.tolist()
    return PoisonedDataset(dataset, trigger, target, chosen)

"""Known backdoor triggers as image transforms, and :func:`poison`, which adds one to a data set."""

import math
from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from captum_classpattern._support.validation import check_fits, check_unit_range
from captum_classpattern.pattern import Pattern

__all__ = ["BadNets", "Blended", "PoisonedDataset", "Sinusoid", "Trigger", "Warp", "poison"]
Shape: TypeAlias = tuple[int, int, int]
Trigger: TypeAlias = Callable[[Tensor], Tensor]
OWNER = "the trigger's image_shape"  # in messages


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

    def __init__(self, image_shape: Shape, *, size: int = 3, margin: int = 1) -> None:
        channels, height, width = _checked_shape(image_shape)
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
        """Stamps the patch on images (N, C, H, W) or (C, H, W) in [0, 1], keeping their shape."""
        return self.pattern(target=0).stamp(images)

    def pattern(self, target: int) -> Pattern:
        """The trigger for a class as a :class:`~captum_classpattern.Pattern`: the patch and its
        true mask, for comparison with a searched one."""
        return Pattern(self.canvas, self.mask, target, {"trigger": "BadNets"})


class Blended:
    r"""
    A key image blended into the whole image, (1 - alpha) * x + alpha * key (Chen et al. 2017,
    arXiv 1712.05526, the blended injection strategy). All pixels change, so ``mask`` is None.

    Args:
        image_shape (tuple[int, int, int]): Shape (C, H, W) of the images.
        key (Tensor, optional): The key (C, H, W), in [0, 1]. Default: None (the random pattern of
            the paper: each value uniform in [0, 1]).
        alpha (float): Weight of the key, in (0, 1]. Default: 0.2.
        seed (int): Seed of the random key. Default: 0.

    Raises:
        ValueError: If key or alpha is out of range, or the key does not have ``image_shape``.

    Examples::

        >>> Blended((1, 1, 2), key=torch.tensor([[[0.0, 1.0]]]))(torch.full((1, 1, 2), 0.5))
        tensor([[[0.4000, 0.6000]]])
    """

    mask: Tensor | None = None

    def __init__(
        self, image_shape: Shape, *, key: Tensor | None = None, alpha: float = 0.2, seed: int = 0
    ) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"`alpha` is the weight of the key, in (0, 1], got {alpha}")
        shape = _checked_shape(image_shape)
        if key is None:
            key = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        check_fits(key, shape, "key", OWNER)
        if key.ndim != 3:
            raise ValueError(f"key must be one image (C, H, W), got shape {tuple(key.shape)}")
        check_unit_range(key, "key")
        self.shape, self.alpha, self.key = shape, alpha, key.detach().clone()

    def __call__(self, images: Tensor) -> Tensor:
        """Blends the key into images (N, C, H, W) or (C, H, W) in [0, 1], keeping their shape."""
        check_fits(images, self.shape, "images", OWNER)
        return (1 - self.alpha) * images + self.alpha * self.key.to(images)


class Sinusoid:
    r"""
    SIG (Barni et al. 2019, arXiv 1902.11237): vertical stripes, delta * sin(2 pi j f / W) added
    to each pixel of column j = 0 ... W - 1, in all channels; the sum is clipped to [0, 1].
    All pixels change, so ``mask`` is None.

    Args:
        image_shape (tuple[int, int, int]): Shape (C, H, W) of the images.
        delta (float): Amplitude, in (0, 1]. Default: 20 / 255.
        frequency (float): Periods over the width of the image, f. Default: 6.

    Raises:
        ValueError: If delta is out of range, or the signal is zero in all columns, for example
            with 6 periods on 12 columns.

    Examples::

        >>> Sinusoid((1, 1, 4), delta=0.25, frequency=1)(torch.full((1, 1, 4), 0.5))
        tensor([[[0.5000, 0.7500, 0.5000, 0.2500]]])
    """

    mask: Tensor | None = None

    def __init__(
        self, image_shape: Shape, *, delta: float = 20 / 255, frequency: float = 6
    ) -> None:
        if not 0 < delta <= 1:
            raise ValueError(f"delta is the amplitude, in (0, 1], got {delta}: divide it by 255?")
        self.shape = _checked_shape(image_shape)
        width = self.shape[2]
        phase = 2 * math.pi * torch.arange(width, dtype=torch.float64) * frequency / width
        if not bool((phase.sin().abs() > 1e-6).any()):
            raise ValueError(
                f"the signal is zero in all {width} columns: choose a frequency other than "
                f"{frequency} (not a multiple of {width / 2:g})"
            )
        self.signal = delta * phase.sin()

    def __call__(self, images: Tensor) -> Tensor:
        """Adds the signal to images (N, C, H, W) or (C, H, W) in [0, 1], keeping their shape."""
        check_fits(images, self.shape, "images", OWNER)
        return (images + self.signal.to(images)).clamp(0, 1)


class Warp:
    r"""
    The warp of WaNet (Nguyen and Tran 2021, arXiv 2102.10369, "Warping field generation"): one
    smooth field of small displacements for all images. All pixels change, so ``mask`` is None.

    Uniform random numbers in [-1, 1] at the control points are divided by their mean absolute
    value, upsampled (bicubic), scaled by strength / H and strength / W, added to the identity grid
    of ``grid_sample``, and clipped to [-1, 1]. So pixels move by up to about ``strength`` pixels
    along each axis.

    Args:
        image_shape (tuple[int, int, int]): Shape (C, H, W) of the images.
        grid_size (int): Control points per side, k, at least 2. Default: 4.
        strength (float): Strength of the warp, s, above 0. Default: 0.5.
        seed (int): Seed of the displacements. Default: 0.

    Raises:
        ValueError: If grid_size or strength is out of range.

    Examples::

        >>> trigger = Warp((3, 32, 32), seed=1)
        >>> trigger(torch.rand(5, 3, 32, 32)).shape, trigger.mask
        (torch.Size([5, 3, 32, 32]), None)
    """

    mask: Tensor | None = None

    def __init__(
        self, image_shape: Shape, *, grid_size: int = 4, strength: float = 0.5, seed: int = 0
    ) -> None:
        if grid_size < 2:
            raise ValueError(f"grid_size is the control points per side, from 2, got {grid_size}")
        if not 0 < strength < math.inf:
            raise ValueError(f"`strength` must be a number above 0, got {strength}")
        self.shape = _checked_shape(image_shape)
        height, width = self.shape[1:]
        generator = torch.Generator().manual_seed(seed)
        points = torch.rand(1, 2, grid_size, grid_size, generator=generator) * 2 - 1
        field = F.interpolate(
            points / points.abs().mean(), (height, width), mode="bicubic", align_corners=True
        )
        shift = strength * field[0].permute(1, 2, 0) / torch.tensor([width, height])
        rows, columns = torch.meshgrid(
            torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
        )
        self.grid = (torch.stack([columns, rows], 2) + shift).clamp(-1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Warps images (N, C, H, W) or (C, H, W) in [0, 1], keeping their shape."""
        check_fits(images, self.shape, "images", OWNER)
        batch = images if images.ndim == 4 else images[None]
        if images.element_size() < 4:
            batch = batch.float()  # half precision makes the grid too coarse
        grid = self.grid.to(batch).expand(len(batch), -1, -1, -1)
        warped = F.grid_sample(batch, grid, mode="bilinear", align_corners=True)
        warped = warped.clamp(0, 1)  # rounding may exceed 1
        return warped.to(images.dtype).view_as(images)


def _checked_shape(shape: Shape) -> Shape:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (C, H, W), each from 1, got {tuple(shape)}")
    return shape[0], shape[1], shape[2]


@dataclass(frozen=True, eq=False)
class PoisonedDataset(Dataset[tuple[Tensor, int]]):
    """A data set in which some images carry a trigger and its target label; see :func:`poison`."""

    dataset: Dataset[Any]
    trigger: Trigger
    target: int
    poisoned: list[int]

    @cached_property
    def _chosen(self) -> frozenset[int]:
        return frozenset(self.poisoned)

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index = range(len(self))[index]  # also negative ones
        image, label = self.dataset[index]
        if index in self._chosen:
            return self.trigger(image), self.target
        return image, int(label)


def poison(
    dataset: Dataset[Any], trigger: Trigger, target: int, rate: float, *, seed: int = 0
) -> PoisonedDataset:
    r"""
    Poisons a data set with a backdoor: a share of the images gets the trigger and its target label.

    Images of the target class stay clean, so each poisoned image changes its label.

    Args:
        dataset (Dataset): Pairs of an image (C, H, W) in [0, 1] and an integer label.
        trigger (Callable): A trigger of this module, or any function of an image.
        target (int): The label of the poisoned images.
        rate (float): Share of all images to poison, in (0, 1).
        seed (int): Seed of the choice of images. Default: 0.

    Returns:
        *PoisonedDataset*: The data set; ``.poisoned`` lists the chosen indices.

    Raises:
        ValueError: If the rate is not in (0, 1), rounds to no image, or asks for more images than
            the other classes have.

    Examples::

        >>> images, labels = torch.zeros(100, 1, 8, 8), torch.arange(100) % 10
        >>> clean = torch.utils.data.TensorDataset(images, labels)
        >>> dirty = poison(clean, lambda image: 1 - image, target=0, rate=0.05)
        >>> len(dirty.poisoned), {dirty[i][1] for i in dirty.poisoned}
        (5, {0})
    """
    labels = torch.tensor([int(dataset[i][1]) for i in range(len(cast(Sized, dataset)))])
    candidates = torch.nonzero(labels != target).flatten()
    count = round(rate * len(labels))
    if not (0 < rate < 1 and 0 < count <= len(candidates)):
        raise ValueError(
            f"`rate` must be in (0, 1) and ask for 1 to {len(candidates)} images, as many as are "
            f"not of class {target}, got {rate}, which asks for {count} of {len(labels)}"
        )
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
    chosen: list[int] = candidates[order[:count]].sort().values.tolist()
    return PoisonedDataset(dataset, trigger, target, chosen)

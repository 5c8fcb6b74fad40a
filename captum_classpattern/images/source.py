"""Tensors, data sets and loaders, read by the places of their images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import data

from captum_classpattern._validation import ArgumentTypeError, check_pixels, parse_labels
from captum_classpattern.classifier import on_device
from captum_classpattern.pattern import image_hash

READ_AT_ONCE = 32  # most images that are loaded at once
TRIED = 8  # items of a data set that are compared with its list of labels


class ImageSource:
    """A Tensor of images or a data set, read by places. It remembers the shape, hashes and labels
    of what was read; all images that are derived from it share them.

    ``places`` are all of its images, or those of a loader's sampler. An error if they can't be read
    by index, or the sampler is unclear.
    """

    def __init__(self, images: Any, argument: str = "images") -> None:
        if isinstance(images, str | Path):
            raise ArgumentTypeError(
                f"got the path {str(images)!r} as {argument}: read it by "
                "cp.load_images(path, size=...)"
            )
        is_loader = isinstance(images, data.DataLoader)
        self.images: Any = images.dataset if is_loader else images
        self.collate = images.collate_fn if is_loader else data.default_collate
        indexed = hasattr(self.images, "__getitem__") and hasattr(self.images, "__len__")
        if isinstance(self.images, data.IterableDataset | Mapping) or not indexed:
            raise ArgumentTypeError(
                f"{argument} must be a Tensor (N, C, H, W), or a Dataset or DataLoader with a "
                "length and access by index (the search shuffles), got "
                f"{type(self.images).__name__}"
            )
        self.shape: tuple[int, ...] | None = None
        if isinstance(self.images, Tensor):
            check_pixels(self.images, argument, allow_bytes=True)
            self.shape = tuple(self.images.shape[1:])
        if len(self.images) == 0:
            raise ValueError(f"{argument} has no images")
        self.hashes: dict[int, str] = {}
        self.labels: dict[int, int | None] = {}  # of the items of a data set
        self.places: Sequence[int] = range(len(self.images))
        batches: Any = images.batch_sampler if is_loader else None
        sampler: Any = batches.sampler if type(batches) is data.BatchSampler else batches
        is_plain = type(sampler) in (data.SequentialSampler, data.RandomSampler)
        if type(sampler) is data.SubsetRandomSampler:
            self.places = list(sampler.indices)
        elif is_loader and not (is_plain and len(sampler) == len(self.places)):
            raise ValueError(
                f"the DataLoader of {argument} has a sampler ({type(sampler).__name__}) that the "
                "search can't follow: give a torch.utils.data.Subset, or a loader of it with a "
                "batch_size"
            )

    def read(self, places: Sequence[int], argument: str) -> tuple[Tensor, Any]:
        """The images at these places, in [0, 1], and the labels that come with them, if any."""
        if isinstance(self.images, Tensor):  # its pixels were checked when it came
            at = on_device(torch.as_tensor(places), self.images.device)
            images, labels = as_floats(self.images.detach()[at]), None
        else:
            images, labels = self._collated(places, argument)
            check_pixels(images, argument, allow_bytes=True)
            images = as_floats(images)
        shape = tuple(images.shape[1:])
        self.shape = self.shape or shape
        if shape != self.shape:
            raise ValueError(f"{argument} must be of one shape, got {self.shape} and {shape}")
        missing = [i for i, place in enumerate(places) if place not in self.hashes]
        if missing:
            on_cpu = images.cpu()  # all in one piece
            self.hashes.update((places[i], image_hash(on_cpu[i])) for i in missing)
        return images, labels

    def _collated(self, places: Sequence[int], argument: str) -> tuple[Tensor, Any]:
        """A batch of a data set's items; errors say what these should be."""
        read_many = getattr(self.images, "__getitems__", None)
        items = read_many(list(places)) if read_many else [self.images[place] for place in places]
        try:
            images, labels = self.collate(items), None
            if isinstance(images, tuple | list) and images:
                images, labels = images[0], images[1] if len(images) > 1 else None
            if not isinstance(images, Tensor):
                held = f" with keys {list(images)}" if isinstance(images, dict) else ""
                raise TypeError(f"got a {type(images).__name__}{held}")
        except (TypeError, RuntimeError) as error:
            raise ArgumentTypeError(
                f"the items of {argument} don't make a batch ({error}): each must be an image "
                "Tensor (C, H, W), or a pair of it and a label, all of one size; with "
                "torchvision, transform them by ToTensor() and Resize((height, width))"
            ) from error
        if len(images) != len(places):
            raise ValueError(
                f"the collate_fn of {argument} made {len(images)} images of {len(places)} items: "
                "it must keep each"
            )
        return images, labels

    def labels_at(self, places: Sequence[int], argument: str) -> Tensor | None:
        """The labels of a data set, or None if its items have none. If it lists them, as
        torchvision's do, only a few items are read, to see whether they have these labels."""
        if isinstance(self.images, Tensor) or self._read_labels(places[:1], argument) in (
            [],
            [None],
        ):
            return None
        if (listed := listed_labels(self.images)) is not None:
            tried = [places[i] for i in evenly_spaced(len(places), TRIED)]
            if self._read_labels(tried, argument) == listed[tried].tolist():
                return listed[list(places)]
        labels = self._read_labels(places, argument)
        return None if None in labels else torch.tensor(labels)

    def _read_labels(self, places: Sequence[int], argument: str) -> list[int | None]:
        """The labels of the items at these places. Those that were read before stay."""
        for batch in split([place for place in places if place not in self.labels], READ_AT_ONCE):
            images, labels = self.read(batch, argument)
            none = [None] * len(images)
            parsed = None if labels is None else parse_labels(labels, len(images), argument)
            self.labels.update(zip(batch, none if parsed is None else parsed.tolist()))
        return [self.labels[place] for place in places]


def listed_labels(images: Any) -> Tensor | None:
    """The labels that a data set lists separately from its items, if it does."""
    if isinstance(images, data.Subset):
        listed = listed_labels(images.dataset)
        return None if listed is None else listed[list(images.indices)]
    if isinstance(images, data.TensorDataset):
        listed = images.tensors[1]
    else:
        lists = (getattr(images, name, None) for name in ("targets", "labels", "_labels"))
        listed = next((one for one in lists if one is not None), None)
    try:
        return parse_labels(listed, len(images), "a data set")
    except (TypeError, ValueError):
        return None


def as_floats(pixels: Tensor) -> Tensor:
    """Pixels as floats in [0, 1]: uint8 is divided by 255, floats stay as they are."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most this many of the indices from 0 to count - 1, evenly spaced, including both ends."""
    return torch.linspace(0, count - 1, min(most, count)).round().long().tolist()


def split(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (indices[i : i + size] for i in range(0, len(indices), size))

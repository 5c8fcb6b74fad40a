"""Tensors, data sets and loaders, read by the places of their images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import data

from captum_classpattern._support.hashes import image_hash
from captum_classpattern._support.validation import ArgumentTypeError, check_pixels, parse_labels
from captum_classpattern.classifier import on_device

READ_AT_ONCE = 32  # most images that are loaded at once
TRIED = 8  # items of a data set that are compared with its list of labels


@dataclass
class Memory:
    """What is known of the images that were read, by their places."""

    shape: tuple[int, ...] | None = None
    hashes: dict[int, str] = field(default_factory=dict)
    labels: dict[int, int | None] = field(default_factory=dict)  # of the items of a data set


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Some of the images of a Tensor or a data set, by their places in it. Parts of a source share
    its memory, so that nothing is read again for labels or hashes."""

    images: Any
    places: Sequence[int]
    argument: str
    collate: Callable[[list[Any]], Any] = data.default_collate
    memory: Memory = field(default_factory=Memory)

    @classmethod
    def of(cls, images: Any, argument: str) -> "ImageSource":
        """All images of a Tensor, data set or loader, or those of its sampler; an error if they
        can't be read by index, or the sampler is unclear."""
        if isinstance(images, str | Path):
            raise ArgumentTypeError(
                f"got the path {str(images)!r} as {argument}: read it by "
                "cp.load_images(path, size=...)"
            )
        is_loader = isinstance(images, data.DataLoader)
        items = images.dataset if is_loader else images
        indexed = hasattr(items, "__getitem__") and hasattr(items, "__len__")
        if isinstance(items, data.IterableDataset | Mapping) or not indexed:
            raise ArgumentTypeError(
                f"{argument} must be a Tensor (N, C, H, W), or a Dataset or DataLoader with a "
                f"length and access by index (the search shuffles), got {type(items).__name__}"
            )
        if isinstance(items, Tensor):
            check_pixels(items, argument, allow_bytes=True)
            return cls(items, range(len(items)), argument, memory=Memory(tuple(items.shape[1:])))
        if len(items) == 0:
            raise ValueError(f"{argument} has no images")
        if not is_loader:
            return cls(items, range(len(items)), argument)
        places: Sequence[int] = range(len(items))
        batches: Any = images.batch_sampler
        sampler: Any = batches.sampler if type(batches) is data.BatchSampler else batches
        is_plain = type(sampler) in (data.SequentialSampler, data.RandomSampler)
        if type(sampler) is data.SubsetRandomSampler:
            places = [int(place) for place in sampler.indices]
        elif not (is_plain and len(sampler) == len(places)):
            raise ValueError(
                f"the DataLoader of {argument} has a sampler ({type(sampler).__name__}) that the "
                "search can't follow: give a torch.utils.data.Subset, or a loader of it with a "
                "batch_size"
            )
        return cls(items, places, argument, images.collate_fn)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: not the floats, which can be read again."""
        return {name: value for name, value in vars(self).items() if name != "floats"}

    def moved(self, images: Tensor) -> "ImageSource":
        """A copy of these images in a Tensor, with the hashes of the originals."""
        memory = Memory(self.memory.shape, dict(enumerate(self.hashes)))
        return ImageSource(images, range(len(images)), self.argument, memory=memory)

    @property
    def pixels(self) -> Tensor:
        """The images of a Tensor, unchanged."""
        pixels: Tensor = self.images.detach()
        is_all = self.places == range(len(pixels))
        return pixels if is_all else pixels[list(self.places)]

    @cached_property
    def floats(self) -> Tensor:
        """All images as floats in [0, 1]."""
        if isinstance(self.images, Tensor):
            return as_floats(self.pixels)
        images, done = torch.empty(0, *(self.memory.shape or ())), 0
        for places in in_batches(self.places):  # torch.cat would need twice the memory
            batch = self.read(places)[0]
            images = images if done else batch.new_empty(len(self.places), *batch.shape[1:])
            images[done : done + len(batch)] = batch
            done += len(batch)
        return images

    @property
    def hashes(self) -> list[str]:
        """The hashes of the images; those that were read before are not read again."""
        known = self.memory.hashes
        for batch in in_batches([place for place in self.places if place not in known]):
            self.read(batch)
        return [known[place] for place in self.places]

    @cached_property
    def labels(self) -> Tensor | None:
        """The labels of a data set, or None if its items have none. If it lists them, as
        torchvision's do, only a few items are read, to see whether they have these labels."""
        if isinstance(self.images, Tensor) or self._read_labels(self.places[:1]) in ([], [None]):
            return None
        if (listed := listed_labels(self.images)) is not None:
            tried = [self.places[i] for i in evenly_spaced(len(self.places), TRIED)]
            if self._read_labels(tried) == listed[tried].tolist():
                return listed[list(self.places)]
        labels = self._read_labels(self.places)
        return None if None in labels else torch.tensor(labels)

    def _read_labels(self, places: Sequence[int]) -> list[int | None]:
        """The labels of the items at these places."""
        known = self.memory.labels
        for batch in in_batches([place for place in places if place not in known]):
            images, labels = self.read(batch)
            none = [None] * len(images)
            parsed = None if labels is None else parse_labels(labels, len(images), self.argument)
            known.update(zip(batch, none if parsed is None else parsed.tolist()))
        return [known[place] for place in places]

    def read(self, places: Sequence[int]) -> tuple[Tensor, Any]:
        """The images at these places, in [0, 1], and the labels that come with them, if any."""
        if isinstance(self.images, Tensor):  # its pixels were checked when it came
            at = on_device(torch.as_tensor(places, dtype=torch.int64), self.images.device)
            images, labels = self.images.detach()[at], None
        else:
            images, labels = self._collated(places)
            check_pixels(images, self.argument, allow_bytes=True)
        images, known, shape = as_floats(images.detach()), self.memory, tuple(images.shape[1:])
        known.shape = known.shape or shape
        if shape != known.shape:
            raise ValueError(f"{self.argument} must be of one shape, got {known.shape} and {shape}")
        missing = [i for i, place in enumerate(places) if place not in known.hashes]
        if missing:
            on_cpu = images.cpu()  # all in one piece
            known.hashes.update((places[i], image_hash(on_cpu[i])) for i in missing)
        return images, labels

    def _collated(self, places: Sequence[int]) -> tuple[Tensor, Any]:
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
                f"the items of {self.argument} don't make a batch ({error}): each must be an image "
                "Tensor (C, H, W), or a pair of it and a label, all of one size; with "
                "torchvision, transform them by ToTensor() and Resize((height, width)); or give a "
                "DataLoader whose `collate_fn` returns a batch of images and their labels"
            ) from error
        if len(images) != len(places):
            raise ValueError(
                f"the collate_fn of {self.argument} made {len(images)} images of {len(places)} "
                "items: it must keep each"
            )
        return images, labels


def listed_labels(images: Any) -> Tensor | None:
    """The labels that a data set lists separately from its items, if it does."""
    if isinstance(images, data.Subset):
        listed = listed_labels(images.dataset)
        return None if listed is None else listed[[int(i) for i in images.indices]]
    if isinstance(images, data.TensorDataset):
        listed = images.tensors[1]
    else:
        lists = (getattr(images, name, None) for name in ("targets", "labels", "_labels"))
        listed = next((one for one in lists if one is not None), None)
    try:
        labels = parse_labels(listed, len(images), "a data set")
        if (change := getattr(images, "target_transform", None)) is None:
            return labels
        return parse_labels([change(y) for y in labels.tolist()], len(images), "a data set")
    except Exception:  # of any kind: the items are read instead
        return None


def as_floats(pixels: Tensor) -> Tensor:
    """Pixels as floats in [0, 1]: uint8 is divided by 255, floats stay unchanged."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most this many of the indices from 0 to count - 1, evenly spaced, including both ends."""
    return torch.linspace(0, count - 1, min(most, count)).round().long().tolist()


def in_batches(indices: Sequence[int], size: int = READ_AT_ONCE) -> Iterator[Sequence[int]]:
    """The indices in parts of this size, in their order."""
    return (indices[i : i + size] for i in range(0, len(indices), size))

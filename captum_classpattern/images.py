"""Images and labels by index, in batches, whatever they come in: tensors, data sets, loaders."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import cached_property
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from captum_classpattern._files import hash_of_image
from captum_classpattern._validation import ArgumentTypeError, check_pixels, parse_labels
from captum_classpattern.classifier import Classifier, predict

Images: TypeAlias = "Tensor | Dataset[Any] | DataLoader[Any] | ImageSource"
Labels: TypeAlias = Tensor | Sequence[int] | None
SCAN_BATCH = 32


class ImageSource:
    """Random access to images in [0, 1] and their labels, without holding more than a batch.

    A DataLoader serves as the description of a data set: its ``dataset``, ``collate_fn`` and
    workers are used; batch size and order are those of the search. Of a SubsetRandomSampler the
    indices are used, and labels that are given belong to these, in their order. Images are
    checked, and their hashes kept, when they are first fetched.
    """

    def __init__(self, images: Images, labels: Labels = None, *, name: str) -> None:
        self.name = name
        self._workers = images.num_workers if isinstance(images, DataLoader) else 0
        self._loader = images if isinstance(images, DataLoader) else None
        self._images = images.dataset if isinstance(images, DataLoader) else images
        indexed = hasattr(self._images, "__getitem__") and hasattr(self._images, "__len__")
        if isinstance(self._images, IterableDataset | Mapping) or not indexed:
            raise ArgumentTypeError(
                f"{name} must be a Tensor (N, C, H, W), or a Dataset or DataLoader with a length "
                f"and access by index (the search shuffles), got {type(self._images).__name__}"
            )
        if isinstance(self._images, Tensor):
            check_pixels(self._images, name)
        count = len(cast(Sized, self._images))
        self._places = list(range(count) if self._loader is None else _drawn(self._loader, name))
        self._shape: tuple[int, ...] = ()
        self._hashes: dict[int, str] = {}  # by place; parts and relabelled twins share it
        if labels is not None:
            self.labels = parse_labels(labels, len(self), name)

    @classmethod
    def of(cls, images: Images, labels: Labels = None, *, name: str) -> "ImageSource":
        """The source itself if it is one already, else a new one."""
        if isinstance(images, ImageSource):
            return images if labels is None else images.labelled(labels)
        return cls(images, labels, name=name)

    def labelled(self, labels: Labels) -> "ImageSource":
        """The same images with other labels."""
        twin = copy.copy(self)
        twin.labels = parse_labels(labels, len(self), self.name)
        return twin

    def subset(self, indices: Tensor) -> "ImageSource":
        """Some of the images, as a source of its own."""
        labels, chosen = self.labels, indices.tolist()
        self._shape = self.shape  # an empty part could not find it out
        part = copy.copy(self)
        part._places = [self._places[i] for i in chosen]
        part.labels = None if labels is None else labels[chosen]
        return part

    def stratified(self, most: int) -> "ImageSource":
        """At most so many of the images, of all labels in proportion."""
        assert self.labels is not None
        order = torch.argsort(self.labels, stable=True)
        places = torch.linspace(0, len(order) - 1, min(most, len(order)))
        return self.subset(order[places.round().long()])

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self._shape or tuple(self.take([0]).shape[1:])

    @cached_property
    def labels(self) -> Tensor | None:
        """int64 (N,): given, or the data set's own; None where there are none.

        A data set that lists its labels (``targets``, as torchvision's do) is asked for that
        list; of others each image is loaded once.
        """
        alone = self._without_workers()
        if len(self) == 0:
            raise ValueError(f"{self.name} has no images")
        if alone._own_labels([0]) is None:
            return None
        listed = _listed_labels(self._images)
        if listed is not None:
            listed = listed[self._places]
            tried = sorted({round(i * (len(self) - 1) / 7) for i in range(8)})
            if torch.equal(cast(Tensor, alone._own_labels(tried)), listed[tried]):
                return listed
        return self._own_labels(range(len(self)))  # no list, or it is not what the items say

    def _own_labels(self, indices: Sequence[int]) -> Tensor | None:
        """The labels that the items themselves carry."""
        parts = [
            None if own is None else parse_labels(own, len(images), self.name)
            for images, own in self._fetch(_in_batches(indices, SCAN_BATCH))
        ]
        found = [part for part in parts if part is not None]
        return torch.cat(found) if len(found) == len(parts) else None

    @property
    def in_memory(self) -> bool:
        """Whether the images are a Tensor, so that all of them can be looked at for little."""
        return isinstance(self._images, Tensor)

    @property
    def hashes(self) -> list[str]:
        """One short hash an image, of its pixels in 256 steps, so that a copy is recognised.

        A copy in half precision, or after a random augmentation, is another image to it.
        """
        return self.hashes_at(range(len(self)))

    def hashes_at(self, indices: Sequence[int]) -> list[str]:
        """The hashes of some images; those that were fetched before are not loaded again."""
        missing = [i for i in indices if self._places[i] not in self._hashes]
        for _ in self.batches(_in_batches(missing, SCAN_BATCH)):
            pass
        return [self._hashes[self._places[i]] for i in indices]

    def in_order(self, batch_size: int | None = None) -> Iterator[Tensor]:
        """All images in turn, 32 at a time, or fewer if so asked."""
        size = min(batch_size or SCAN_BATCH, SCAN_BATCH)
        return self.batches(_in_batches(range(len(self)), size))

    def take(self, indices: Sequence[int]) -> Tensor:
        """Some images at once, fetched without any worker processes."""
        if len(self) == 0:
            raise ValueError(f"{self.name} has no images")
        return next(self._without_workers().batches([indices]))

    def _without_workers(self) -> "ImageSource":
        twin = copy.copy(self)
        twin._workers = 0
        return twin

    def batches(self, plan: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """The images of each list of indices in turn, (len(list), C, H, W)."""
        for images, _ in self._fetch(plan):
            yield images

    def _fetch(self, plan: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Any]]:
        """Batches of images and labels, checked and hashed."""
        wanted, again = itertools.tee([self._places[i] for i in indices] for indices in plan)
        for places, (images, labels) in zip(again, self._load(wanted)):
            if not isinstance(self._images, Tensor):
                check_pixels(images, self.name)
            shape = tuple(images.shape[1:])
            self._shape = self._shape or shape
            if shape != self._shape:
                raise ValueError(f"{self.name} must be of one shape, got {self._shape} and {shape}")
            for place, image in zip(places, images):
                if place not in self._hashes:
                    self._hashes[place] = hash_of_image(image)
            yield images, labels

    def _load(self, wanted: Iterator[list[int]]) -> Iterator[tuple[Tensor, Any]]:
        if isinstance(self._images, Tensor):
            for places in wanted:
                yield self._images.detach()[places], None
            return
        origin = self._loader
        loader: DataLoader[Any] = DataLoader(
            cast("Dataset[Any]", self._images),
            batch_sampler=wanted,
            collate_fn=_Collate(
                default_collate if origin is None else origin.collate_fn, self.name
            ),
            num_workers=self._workers,
            worker_init_fn=None if origin is None else origin.worker_init_fn,
            generator=torch.Generator().manual_seed(0),  # else it draws from the global state
        )
        for batch in loader:
            yield self._split(batch)

    def _split(self, batch: Any) -> tuple[Tensor, Any]:
        if isinstance(batch, Tensor):
            return batch, None
        if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor):
            return batch[0], batch[1] if len(batch) > 1 else None
        held = f" with keys {list(batch)}" if isinstance(batch, dict) else ""
        raise ArgumentTypeError(
            f"{self.name} must yield images, or pairs of images and labels, as Tensors; got a "
            f"{type(batch).__name__}{held}: map it with a Dataset that returns (image, label)"
        )


class _Collate:
    """A loader's way to make a batch of items, whose errors say what the items should be."""

    def __init__(self, collate: Callable[[list[Any]], Any], name: str) -> None:
        self.collate, self.name = collate, name

    def __call__(self, items: list[Any]) -> Any:
        try:
            batch = self.collate(items)
        except (TypeError, RuntimeError) as error:
            raise ArgumentTypeError(
                f"the items of {self.name} don't make a batch ({error}): each must be an image "
                "Tensor (C, H, W), or a pair of it and a label, all of one size; with torchvision, "
                "transform them by ToTensor() and Resize((height, width))"
            ) from error
        images = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if isinstance(images, Tensor) and len(images) != len(items):
            raise ValueError(
                f"the collate_fn of {self.name} made {len(images)} images of {len(items)} "
                "items: it must keep each"
            )
        return batch


def _drawn(loader: DataLoader[Any], name: str) -> Sequence[int]:
    """The indices that a loader draws from; an error if that is not plain."""
    batches, count = loader.batch_sampler, len(cast(Sized, loader.dataset))
    sampler = batches.sampler if type(batches) is BatchSampler else batches
    if type(sampler) is SubsetRandomSampler:
        return list(sampler.indices)
    if type(sampler) in (SequentialSampler, RandomSampler) and len(cast(Sized, sampler)) == count:
        return range(count)
    raise ValueError(
        f"the DataLoader of {name} draws its images in a way of its own "
        f"({type(sampler).__name__}), which the search can't follow: give a "
        "torch.utils.data.Subset, or a loader of it with a batch_size"
    )


def evenly(count: int, most: int) -> list[int]:
    """At most so many of the places from 0 to count - 1, at even distances, the ends among them."""
    return torch.linspace(0, count - 1, min(most, count)).long().tolist()


def _in_batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (indices[i : i + size] for i in range(0, len(indices), size))


def _listed_labels(images: Any) -> Tensor | None:
    """The labels that a data set lists beside its items, if it does."""
    if isinstance(images, Subset):
        listed = _listed_labels(images.dataset)
        return None if listed is None else listed[list(images.indices)]
    if isinstance(images, TensorDataset):
        listed = images.tensors[1]
    else:
        listed = getattr(images, "targets", getattr(images, "labels", None))
    try:
        return parse_labels(listed, len(images), "a data set")
    except (TypeError, ValueError):
        return None


def labelled_source(
    forward_func: Classifier,
    images: Images,
    labels: Labels,
    *,
    name: str,
    like: Tensor | None = None,
    additional_forward_args: Any = None,
    batch_size: int | None = None,
) -> ImageSource:
    """The images with labels: the given ones, a data set's own, or the classifier's predictions.

    A plain function gets the images with device and precision of ``like``.
    """
    source = ImageSource.of(images, labels, name=name)
    if source.labels is not None:
        return source
    if additional_forward_args is not None:
        raise ValueError(
            f"{name} have no labels, and they can't be predicted by a classifier that takes "
            "additional_forward_args: pass baseline_labels"
        )
    predicted = [
        predict(forward_func, images if like is None else images.to(like)).cpu()
        for images in source.in_order(batch_size)
    ]
    return source.labelled(torch.cat(predicted))

"""Images with their classes: one type for tensors, data sets, loaders and folders."""

import itertools
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils import data
from torch.utils.data import DataLoader, Dataset

from captum_classpattern._validation import (
    ArgumentTypeError,
    check_labels,
    check_pixels,
    parse_labels,
)
from captum_classpattern.classifier import (
    Classifier,
    check_classifier,
    device_and_dtype,
    outputs_for,
    preserve_state,
)
from captum_classpattern.classifier.class_names import (
    NUMBERINGS,
    ClassNames,
    distinct_names,
    renumber,
)
from captum_classpattern.classifier.fingerprints import hash_of
from captum_classpattern.pattern import image_hash

Images: TypeAlias = "Tensor | Dataset[Any] | DataLoader[Any]"  # LabelledImages is a Dataset
Labels: TypeAlias = Tensor | Sequence[int] | None
ImagesAndLabels: TypeAlias = "Images | tuple[Images, Labels]"
BATCH = 32  # most images that are loaded at once
READING = ("collate_fn", "num_workers", "worker_init_fn")  # options of a DataLoader


class LabelledImages(Dataset[Any]):
    r"""
    Images in [0, 1] with their classes. Every function that takes images takes these, with their
    labels.

    This is a Dataset: item ``i`` is a pair of an image and its label, or only the image if there
    are no labels. A Dataset or DataLoader is read in batches, when its images are needed. A
    DataLoader provides its ``dataset``, ``collate_fn`` and workers; its batch size and order are
    ignored. Of a SubsetRandomSampler, the indices are used, and labels that are passed in belong
    to these indices, in their order.

    Args:
        images (Tensor, Dataset or DataLoader): (C, H, W) each, in [0, 1].
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (those of the
            Dataset, if it has any).
        class_names (Sequence[str], optional): The name of each class by its number, including
            classes without images. Default: None.
        description (str): Where the images are from. Default: "".
        numbering (str): How the classes got their numbers: ``"alphabetical"``, by the order of
            the class folders; ``"numbers"``, by numbers in the source itself, such as a folder
            ``3_dog``; ``"dataset"``, by the order in which a data set lists its classes.
            Default: "dataset".
        argument (str): What error messages call the images. Default: "images".

    Raises:
        TypeError: If the images are of another type.
        ValueError: If pixels, labels or ``numbering`` do not fit (for a Dataset or DataLoader,
            when it is read).

    Examples::

        >>> pets = LabelledImages(torch.rand(6, 3, 8, 8), [0, 1, 0, 1, 0, 1], ("cat", "dog"))
        >>> pets.counts
        {'cat': 3, 'dog': 3}
        >>> pets.halves()[1]
        LabelledImages(3 images 3x8x8, 2 classes, held-out half (seed 0))
        >>> image, label = pets[3]
        >>> image.shape, label
        (torch.Size([3, 8, 8]), 1)
    """

    duplicates_dropped = 0  # by :meth:`halves` and :meth:`without`

    def __init__(
        self,
        images: Images,
        labels: Labels = None,
        class_names: Sequence[str] | None = None,
        description: str = "",
        *,
        numbering: str = "dataset",
        argument: str = "images",
    ) -> None:
        if numbering not in NUMBERINGS:
            raise ValueError(f"numbering must be one of {', '.join(NUMBERINGS)}, got {numbering!r}")
        if isinstance(images, str | Path):
            raise ArgumentTypeError(
                f"got the path {str(images)!r} as {argument}: read it by "
                "cp.load_images(path, size=...)"
            )
        self.argument, self.description, self.numbering = argument, description, numbering
        self.class_names = None if class_names is None else tuple(class_names)
        self._source: Any = images
        self._options: dict[str, Any] = {}  # of the loader, to read as it reads
        if isinstance(images, DataLoader):
            self._source = images.dataset
            self._options = {name: getattr(images, name) for name in READING}
        indexed = hasattr(self._source, "__getitem__") and hasattr(self._source, "__len__")
        if isinstance(self._source, data.IterableDataset | Mapping) or not indexed:
            raise ArgumentTypeError(
                f"{argument} must be a Tensor (N, C, H, W), or a Dataset or DataLoader with a "
                f"length and access by index (the search shuffles), got "
                f"{type(self._source).__name__}"
            )
        self._places = _places_of(images, argument)
        self._hashes: dict[int, str] = {}  # by place; subsets share it
        self._known: dict[str, Any] = {}  # shape, labels and images, once known; copies share it
        if isinstance(self._source, Tensor):
            check_pixels(self._source, argument)
            self._known["shape"] = tuple(self._source.shape[1:])
        if labels is not None:
            self._known["labels"] = parse_labels(labels, len(self), argument)

    @classmethod
    def of(
        cls,
        images: Any,
        labels: Labels = None,
        model: "Classifier | None" = None,
        class_names: Sequence[str] | None = None,
        *,
        argument: str = "images",
    ) -> "LabelledImages":
        """The arguments ``images`` and ``labels`` of a function as one object. ``images`` may also
        be a pair of both. ``argument`` is what the function calls the images. With a model, labels
        that come with them are matched by the names of their classes, if they have any."""
        if isinstance(images, tuple) and len(images) == 2 and labels is None:
            images, labels = images
        if not isinstance(images, LabelledImages):
            return cls(images, labels, argument=argument)
        named = images if images.argument == argument else images._with(argument=argument)
        if labels is not None:
            return named.with_labels(labels)
        if model is None or images.class_names is None:
            return named
        return named.for_classifier(model, class_names)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The items of a batch, as a DataLoader asks for them."""
        try:
            chosen = [range(len(self))[operator.index(index)] for index in indices]
        except IndexError:
            raise IndexError(
                f"{self.argument} has {len(self)} images, which do not include all of {indices}"
            ) from None
        [(images, labels)] = self._fetch([chosen], alone=True)
        if "labels" in self._known:
            labels = None if self.labels is None else self.labels[chosen]
        elif labels is not None:
            labels = parse_labels(labels, len(chosen), self.argument)
        return [*images] if labels is None else [*zip(images, labels.tolist())]

    def __repr__(self) -> str:
        size = "x".join(str(n) for n in self._known.get("shape", ()))
        parts = [f"{len(self)} images {size}".rstrip()]
        if "labels" in self._known:  # not read for this
            parts.append("no labels" if self.labels is None else f"{len(self.counts)} classes")
        return f"LabelledImages({', '.join(filter(None, [*parts, self.description]))})"

    @property
    def images(self) -> Tensor:
        """All images as one Tensor (N, C, H, W)."""
        if "images" not in self._known:
            images = torch.empty(0)
            if self.in_memory:
                is_all = self._places == list(range(len(self._source)))
                images = self._source.detach() if is_all else self._source.detach()[self._places]
            elif len(self) == 0:
                images = torch.empty(0, *self.shape)
            else:  # torch.cat would need twice the memory
                for start, batch in zip(range(0, len(self), BATCH), self.in_order()):
                    if start == 0:
                        images = batch.new_empty(len(self), *self.shape)
                    images[start : start + len(batch)] = batch
            self._known["images"] = images
        return cast(Tensor, self._known["images"])

    @property
    def labels(self) -> Tensor | None:
        """int64 (N,): those that were passed in, else the data set's; None if there are none.

        A data set that lists its labels (as ``targets``, like torchvision's) provides them that
        way. From any other data set, each image is loaded once.
        """
        if "labels" not in self._known:
            self._known["labels"] = self._read_labels()
        return cast("Tensor | None", self._known["labels"])

    @property
    def known_labels(self) -> Tensor:
        """The labels, or an error if there are none."""
        if self.labels is None:
            raise ValueError(
                f"{self.argument} have no labels: give their classes as `labels`, or a "
                "LabelledImages or Dataset that has them; load_images reads a folder of folders, "
                "one per class"
            )
        return self.labels

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        if "shape" not in self._known:
            self.take([0])
        return cast("tuple[int, ...]", self._known["shape"])

    @property
    def in_memory(self) -> bool:
        """Whether the images are a Tensor, so that it is cheap to look at all of them."""
        return isinstance(self._source, Tensor)

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has, by name or else number; classes without images are left
        out. Where classes share a name, as ImageNet's two cranes do, their numbers follow it."""
        counted = Counter([] if self.labels is None else self.labels.tolist())
        names = self.class_names or ()
        named = {i: names[i] if i < len(names) else str(i) for i in sorted(counted)}
        return {name: counted[i] for i, name in distinct_names(named).items()}

    def with_labels(self, labels: Labels) -> "LabelledImages":
        """The same images with other labels."""
        parsed = parse_labels(labels, len(self), self.argument)
        return self._with(_known={**self._known, "labels": parsed})

    def with_class_names(self, class_names: Sequence[str] | None) -> "LabelledImages":
        """The same images with other names of their classes."""
        return self._with(class_names=None if class_names is None else tuple(class_names))

    def subset(self, indices: Tensor | Sequence[int]) -> "LabelledImages":
        """Some of the images: by their indices, in this order, or by a mask of N bools."""
        chosen = torch.as_tensor(indices)
        if chosen.dtype == torch.bool:
            chosen = torch.arange(len(self))[chosen.cpu()]
        places, labels = chosen.long().tolist(), self.labels
        known = {"shape": self.shape, "labels": None if labels is None else labels[places]}
        return self._with(_places=[self._places[i] for i in places], _known=known)

    def of_class(self, target: int) -> "LabelledImages":
        """The images of one class."""
        return self.subset(self.known_labels == target)

    def without_class(self, target: int) -> "LabelledImages":
        """The images of all other classes."""
        return self.subset(self.known_labels != target)

    def stratified_sample(self, most: int) -> "LabelledImages":
        """At most this many of the images, each class in proportion."""
        order = torch.argsort(self.known_labels, stable=True)
        return self.subset(order[evenly_spaced(len(order), most)])

    def in_one_tensor(self) -> "LabelledImages":
        """The same images, all loaded into memory."""
        return self if self.in_memory else self._with_source(self.images)

    def to(self, device: torch.device, dtype: torch.dtype) -> "LabelledImages":
        """The same images, moved once to a device and a precision. They stay where they are if they
        are a Dataset, or too large for the device; each batch is moved when it is used."""
        if not self.in_memory:
            return self
        try:
            return self._with_source(self.images.to(device, dtype))
        except torch.OutOfMemoryError:
            return self

    def _with_source(self, images: Tensor) -> "LabelledImages":
        """The same images, labels and hashes, with the pixels in a given Tensor."""
        return self._with(
            _known={"shape": self.shape, "labels": self.labels},
            _source=images,
            _places=list(range(len(self))),
            _hashes=dict(enumerate(self.hashes)),  # those of the pixels before
        )

    @property
    def hashes(self) -> list[str]:
        """A short hash of each image, rounded to 256 levels, so that exact copies are found.

        A copy in half precision, or after a random augmentation, has another hash.
        """
        return self.hashes_at(range(len(self)))

    def hashes_at(self, indices: Sequence[int]) -> list[str]:
        """The hashes of some images; images that were loaded before are not loaded again."""
        missing = [i for i in indices if self._places[i] not in self._hashes]
        for _ in self.batches(_split(missing, BATCH)):
            pass
        return [self._hashes[self._places[i]] for i in indices]

    def take(self, indices: Sequence[int]) -> Tensor:
        """Some of the images as one Tensor, loaded without worker processes."""
        if len(self) == 0:
            raise ValueError(f"{self.argument} has no images")
        return next(self._fetch([indices], alone=True))[0]

    def in_order(self, batch_size: int | None = None) -> Iterator[Tensor]:
        """All images in batches of at most 32."""
        return self.batches(_split(range(len(self)), min(batch_size or BATCH, BATCH)))

    def batches(self, plan: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """The images of each list of indices in turn, (len(list), C, H, W)."""
        return (images for images, _ in self._fetch(plan))

    def for_classifier(
        self, classifier: Classifier, class_names: Sequence[str] | None = None
    ) -> "LabelledImages":
        r"""
        Gives the images the class numbers of a classifier.

        Classes are matched by name. A name fits a class if it is equal to the class's name or to
        one of the parts of a description such as "tench, Tinca tinca"; case, spaces, underscores
        and hyphens don't matter. timm's ImageNet models, and torchvision's where timm is
        installed, also know their classes by WordNet ids. Numbers in the source stay as they are.

        If the classifier does not name its classes, and there are as many folders as classes,
        the folders are numbered in alphabetical order, with a warning of the category
        ``captum_classpattern.Notice``. A data set keeps its order if it has as many classes as
        the classifier; if the names differ, there is such a warning, too.

        Args:
            classifier (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
            class_names (Sequence[str], optional): The names of the classifier's K classes, in
                their order. Default: None (the classifier's own).

        Returns:
            *LabelledImages*: The same images with the classifier's numbers and names.

        Raises:
            TypeError: If ``class_names`` is not a list of names.
            ValueError: If a class of the images fits no class of the classifier, or several, or
                if two fit the same; if a number is too large; if there are not K names.

        Examples::

            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
            >>> classifier = PixelClassifier(network.eval(), class_names=["bird", "Dog", "cat"])
            >>> pets = LabelledImages(torch.rand(4, 3, 8, 8), [0, 0, 1, 1], ("cat", "dog"))
            >>> pets.for_classifier(classifier).labels
            tensor([2, 2, 1, 1])
        """
        count = self._count_outputs(classifier)
        names = ClassNames.of_outputs(classifier, count, class_names)
        if self.labels is None:
            return self._with(numbering="numbers", class_names=names.names if names else None)
        source = self.description or "the images"
        labels, known = renumber(
            self.labels, self.class_names, self.numbering, names, count, source
        )
        return self.with_labels(labels)._with(numbering="numbers", class_names=known)

    def names_for(
        self, classifier: Classifier, class_names: Sequence[str] | None = None
    ) -> ClassNames | None:
        """The names of a classifier's classes: those of the user, else its own, else those of the
        images."""
        known = ClassNames.of_outputs(classifier, self.count_outputs(classifier), class_names)
        return ClassNames(self.class_names) if known is None and self.class_names else known

    def count_outputs(self, classifier: Classifier) -> int:
        """How many classes a classifier of these images has; an error if it can't classify them, or
        does not have the classes of their labels."""
        count = self._count_outputs(classifier)
        check_labels(self.labels, count, self.argument)
        return count

    def _count_outputs(self, classifier: Classifier) -> int:
        sample = self.take([0])
        with preserve_state(classifier, 0):
            device, _ = device_and_dtype(classifier, sample)
            return check_classifier(classifier, sample.to(device)).shape[1]

    def halves(self, seed: int = 0) -> tuple["LabelledImages", "LabelledImages"]:
        """Splits the images at random into two halves: one to search on, one to hold out.

        Each class is split evenly, to within one image. Images of the second half that are also in
        the first are dropped, see :meth:`without`; an error if nothing is left to hold out.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).tolist()
        if self.labels is not None:  # class after class, the classes in a random order
            labels = self.labels.tolist()
            present = sorted(set(labels))
            ranks = torch.randperm(len(present), generator=generator).tolist()
            rank = dict(zip(present, ranks))
            order.sort(key=lambda i: rank[labels[i]])
        halves = []
        for name, part in (("search", order[::2]), ("held-out", order[1::2])):
            described = filter(None, (self.description, f"{name} half (seed {seed})"))
            halves.append(self.subset(sorted(part))._with(description=", ".join(described)))
        return halves[0], halves[1].without(halves[0])

    def without(self, others: "LabelledImages") -> "LabelledImages":
        """Drops the images that are also among others: those with the same hash of their pixels in
        256 levels. Two different images of a million share a hash in one of 560 cases. The
        ``duplicates_dropped`` of what is left says how many were dropped; an error if nothing is.
        """
        seen = set(others.hashes)
        left = [i for i, image in enumerate(self.hashes) if image not in seen]
        if not left:
            raise ValueError(
                f"all {len(self)} images of {self.description or 'these'} are copies of images of "
                f"{others.description or 'the others'}: nothing is left to hold out; give "
                "other images"
            )
        dropped = self.duplicates_dropped + len(self) - len(left)
        return self.subset(left)._with(duplicates_dropped=dropped)

    def _with(self, **changes: Any) -> "LabelledImages":
        """A copy with some attributes changed. It shares all others, including what gets known
        later; whoever changes the images or labels passes a new ``_known``."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **changes)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: images that were read stay here, since their source goes along."""
        known = {key: value for key, value in self._known.items() if key != "images"}
        return {**self.__dict__, "_known": known}

    def _read_labels(self) -> Tensor | None:
        if len(self) == 0:
            raise ValueError(f"{self.argument} has no images")
        if self._labels_of_items([0], alone=True) is None:
            return None
        listed = listed_labels(self._source)
        if listed is not None:
            listed, tried = listed[self._places], evenly_spaced(len(self), 8)
            if torch.equal(cast(Tensor, self._labels_of_items(tried, alone=True)), listed[tried]):
                return listed
        return self._labels_of_items(range(len(self)))  # no list, or it differs from the items

    def _labels_of_items(self, indices: Sequence[int], alone: bool = False) -> Tensor | None:
        """The labels that the items themselves carry."""
        parts = []
        for images, labels in self._fetch(_split(indices, BATCH), alone):
            if labels is not None:
                parts.append(parse_labels(labels, len(images), self.argument))
        found = torch.cat(parts) if parts else torch.empty(0)
        return found if len(found) == len(indices) else None

    def _fetch(
        self, plan: Iterable[Sequence[int]], alone: bool = False
    ) -> Iterator[tuple[Tensor, Any]]:
        """Batches of images and labels, checked and hashed; ``alone``: without worker processes."""
        wanted, again = itertools.tee([self._places[i] for i in indices] for indices in plan)
        for places, (images, labels) in zip(again, self._load(wanted, alone)):
            if not getattr(self._source, "in_unit_range", self.in_memory):  # Tensors were checked
                check_pixels(images, self.argument)
            shape = tuple(images.shape[1:])
            if shape != self._known.setdefault("shape", shape):
                raise ValueError(
                    f"{self.argument} must be of one shape, got {self.shape} and {shape}"
                )
            for place, image in zip(places, images):
                if place not in self._hashes:
                    self._hashes[place] = image_hash(image)
            yield images, labels

    def _load(self, wanted: Iterator[list[int]], alone: bool) -> Iterable[tuple[Tensor, Any]]:
        """The batches as the source gives them."""
        if self.in_memory:
            return ((self._source.detach()[places], None) for places in wanted)
        options = {**self._options, **({"num_workers": 0} if alone else {})}
        collate = partial(_collate, options.pop("collate_fn", data.default_collate), self.argument)
        # not the global generator: its state stays
        generator = torch.Generator().manual_seed(0)
        return DataLoader[Any](
            self._source, batch_sampler=wanted, collate_fn=collate, generator=generator, **options
        )


def ensure_labels(
    forward_func: Classifier,
    images: LabelledImages,
    *,
    like: Tensor | None = None,
    additional_forward_args: Any = None,
    batch_size: int | None = None,
) -> LabelledImages:
    """The images with their labels, or else with the classifier's predictions as labels, see
    :func:`predictions`."""
    if images.labels is not None:
        return images
    if additional_forward_args is not None:
        raise ValueError(
            f"{images.argument} have no labels, and they can't be predicted by a classifier that "
            "takes additional_forward_args: pass baseline_labels"
        )
    return images.with_labels(predictions(forward_func, images, like=like, batch_size=batch_size))


def predictions(
    forward_func: Classifier,
    images: LabelledImages,
    *,
    like: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """The class that a classifier predicts for each image; int64 (N,) on the CPU.

    A classifier without parameters gets the images with device and precision of ``like``.
    """
    predicted = []
    for batch in images.in_order(batch_size):
        device, dtype = device_and_dtype(forward_func, batch if like is None else like)
        outputs = outputs_for(forward_func, batch.to(device, dtype))
        predicted.append(outputs.argmax(1).cpu())
    return torch.cat(predicted)


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most this many of the indices from 0 to count - 1, evenly spaced, including both ends."""
    return torch.linspace(0, count - 1, min(most, count)).round().long().tolist()


def _collate(
    collate: Callable[[list[Any]], Any], argument: str, items: list[Any]
) -> tuple[Tensor, Any]:
    """Images and labels by a loader's ``collate_fn``; errors say what the items should be."""
    try:
        batch = collate(items)
        images, labels = batch, None
        if isinstance(batch, tuple | list) and batch:
            images, labels = batch[0], batch[1] if len(batch) > 1 else None
        if not isinstance(images, Tensor):
            held = f" with keys {list(batch)}" if isinstance(batch, dict) else ""
            raise TypeError(f"got a {type(batch).__name__}{held}")
    except (TypeError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"the items of {argument} don't make a batch ({error}): each must be an image Tensor "
            "(C, H, W), or a pair of it and a label, all of one size; with torchvision, transform "
            "them by ToTensor() and Resize((height, width))"
        ) from error
    if len(images) != len(items):
        raise ValueError(
            f"the collate_fn of {argument} made {len(images)} images of {len(items)} items: it "
            "must keep each"
        )
    return images, labels


def _places_of(images: Any, argument: str) -> list[int]:
    """The indices that images cover: all, or those of a loader's sampler; an error if these are
    unclear."""
    if not isinstance(images, DataLoader):
        return list(range(len(images)))
    batches: Any = images.batch_sampler
    sampler = batches.sampler if type(batches) is data.BatchSampler else batches
    if type(sampler) is data.SubsetRandomSampler:
        return list(sampler.indices)
    count = len(cast(Sized, images.dataset))
    is_plain = type(sampler) in (data.SequentialSampler, data.RandomSampler)
    if is_plain and len(cast(Sized, sampler)) == count:
        return list(range(count))
    raise ValueError(
        f"the DataLoader of {argument} has a sampler ({type(sampler).__name__}) that the search "
        "can't follow: give a torch.utils.data.Subset, or a loader of it with a batch_size"
    )


def _split(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (indices[i : i + size] for i in range(0, len(indices), size))


def listed_labels(images: Any) -> Tensor | None:
    """The labels that a data set lists separately from its items, if it does."""
    if isinstance(images, data.Subset):
        listed = listed_labels(images.dataset)
        return None if listed is None else listed[list(images.indices)]
    if isinstance(images, data.TensorDataset):
        listed = images.tensors[1]
    else:
        lists = (getattr(images, name, None) for name in ("targets", "labels", "_labels"))
        listed = next((found for found in lists if found is not None), None)
    try:
        return parse_labels(listed, len(images), "a data set")
    except (TypeError, ValueError):
        return None


def hash_of_images(images: LabelledImages) -> str:
    """A hash of images and labels, in their order."""
    labels = None if images.labels is None else images.labels.tolist()
    return hash_of((images.shape, images.hashes, labels))

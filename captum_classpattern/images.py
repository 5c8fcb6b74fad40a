"""Images with their classes, by index and in batches, whatever they come in: tensors, data sets,
loaders, folders."""

import copy
import itertools
import operator
from collections import Counter
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
from captum_classpattern.class_names import (
    NUMBERINGS,
    check_numbers,
    class_of_each,
    classifier_names,
    names_of_numbered,
    warn_of_other_names,
)
from captum_classpattern.classifier import Classifier, predict

Images: TypeAlias = "Tensor | Dataset[Any] | DataLoader[Any]"  # LabelledImages is a Dataset
Labels: TypeAlias = Tensor | Sequence[int] | None
ImagesAndLabels: TypeAlias = "Images | tuple[Images, Labels]"
BATCH = 32  # images that are looked at together
EXACT_HASH = 16  # bytes: no image is dropped because its hash equals that of another one


class LabelledImages(Dataset[Any]):
    r"""
    Images in [0, 1] with their classes. Wherever a function takes images, it takes these, and the
    labels come along.

    It is a Dataset: item ``i`` is a pair of an image and its label, or the image alone where there
    are no labels. A Dataset or DataLoader is read a batch at a time, when its images are needed.
    Of a DataLoader the ``dataset``, ``collate_fn`` and workers are used, but not the batch size
    and the order. Of a SubsetRandomSampler the indices are used; labels that are given belong to
    these, in their order.

    Args:
        images (Tensor, Dataset or DataLoader): (C, H, W) each, in [0, 1].
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (the Dataset's
            own, if it has any).
        class_names (Sequence[str], optional): The name of each class by its number, also of classes
            without an image. Default: None.
        description (str): Where the images are from. Default: "".
        duplicates_dropped (int): Images that :meth:`halves` left out. Default: 0.
        numbering (str): What gave the classes their numbers: ``"alphabetical"``, the order of the
            class folders; ``"numbers"``, numbers in the source itself, such as a folder
            ``3_dog``; ``"dataset"``, the order in which a data set lists its classes.
            Default: "dataset".
        argument (str): What error messages call the images. Default: "images".

    Raises:
        TypeError: If the images are of another type.
        ValueError: If pixels, labels or ``numbering`` do not fit (of a Dataset or DataLoader when
            they are read).

    Examples::

        >>> pets = LabelledImages(torch.rand(6, 3, 8, 8), [0, 1, 0, 1, 0, 1], ("cat", "dog"))
        >>> pets.counts
        {'cat': 3, 'dog': 3}
        >>> pets.halves()[1]
        LabelledImages(3 images 3x8x8, 2 classes, held-out half (seed 0))
    """

    def __init__(
        self,
        images: Images,
        labels: Labels = None,
        class_names: Sequence[str] | None = None,
        description: str = "",
        *,
        duplicates_dropped: int = 0,
        numbering: str = "dataset",
        argument: str = "images",
    ) -> None:
        if numbering not in NUMBERINGS:
            raise ValueError(f"numbering must be one of {', '.join(NUMBERINGS)}, got {numbering!r}")
        self.argument = argument
        self._loader = images if isinstance(images, DataLoader) else None
        self._workers = 0 if self._loader is None else self._loader.num_workers
        self._source = images if self._loader is None else self._loader.dataset
        indexed = hasattr(self._source, "__getitem__") and hasattr(self._source, "__len__")
        if isinstance(self._source, IterableDataset | Mapping) or not indexed:
            raise ArgumentTypeError(
                f"{argument} must be a Tensor (N, C, H, W), or a Dataset or DataLoader with a "
                f"length and access by index (the search shuffles), got "
                f"{type(self._source).__name__}"
            )
        if isinstance(self._source, Tensor):
            check_pixels(self._source, argument)
        count = len(cast(Sized, self._source))
        self._places = list(
            range(count) if self._loader is None else _places_of(self._loader, argument)
        )
        self._shape: tuple[int, ...] = ()
        self._hashes: dict[int, str] = {}  # by place; parts and copies share it
        self.class_names = None if class_names is None else tuple(class_names)
        self.description, self.duplicates_dropped = description, duplicates_dropped
        self.numbering = numbering
        if labels is not None:
            self.labels = parse_labels(labels, len(self), argument)

    @classmethod
    def of(
        cls, images: Any, labels: Labels = None, *, argument: str = "images"
    ) -> "LabelledImages":
        """Images with labels, from all that a function with these two arguments takes; also from a
        pair of both."""
        if isinstance(images, tuple) and len(images) == 2 and labels is None:
            images, labels = images
        if not isinstance(images, LabelledImages):
            return cls(images, labels, argument=argument)
        own = images if images.argument == argument else images._with(argument=argument)
        return own if labels is None else own.with_labels(labels)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        number = range(len(self))[operator.index(index)]
        image = self.take([number])[0]
        return image if self.labels is None else (image, int(self.labels[number]))

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.shape)
        classes = "no labels" if self.labels is None else f"{len(self.counts)} classes"
        source = f", {self.description}" if self.description else ""
        return f"LabelledImages({len(self)} images {shape}, {classes}{source})"

    @cached_property
    def images(self) -> Tensor:
        """All images as one Tensor (N, C, H, W)."""
        if isinstance(self._source, Tensor):
            whole = self._places == list(range(len(self._source)))
            return self._source.detach() if whole else self._source.detach()[self._places]
        return torch.cat([*self.in_order()])

    @cached_property
    def labels(self) -> Tensor | None:
        """int64 (N,): given, or the data set's own; None where there are none.

        A data set that lists its labels (``targets``, as torchvision's do) is asked for that
        list; of others each image is loaded once.
        """
        alone = self._with(_workers=0)
        if len(self) == 0:
            raise ValueError(f"{self.argument} has no images")
        if alone._labels_of_items([0]) is None:
            return None
        listed = _listed_labels(self._source)
        if listed is not None:
            listed = listed[self._places]
            tried = sorted({round(i * (len(self) - 1) / 7) for i in range(8)})
            if torch.equal(cast(Tensor, alone._labels_of_items(tried)), listed[tried]):
                return listed
        return self._labels_of_items(range(len(self)))  # no list, or it differs from the items

    def _labels_of_items(self, indices: Sequence[int]) -> Tensor | None:
        """The labels that the items themselves carry."""
        parts = [
            None if labels is None else parse_labels(labels, len(images), self.argument)
            for images, labels in self._fetch(_in_batches(indices, BATCH))
        ]
        found = [part for part in parts if part is not None]
        return torch.cat(found) if len(found) == len(parts) else None

    @property
    def known_labels(self) -> Tensor:
        """The labels, or an error if there are none."""
        if self.labels is None:
            raise ValueError(f"{self.argument} must have labels")
        return self.labels

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self._shape or tuple(self.take([0]).shape[1:])

    @property
    def in_memory(self) -> bool:
        """Whether the images are a Tensor, so that looking at all of them costs little."""
        return isinstance(self._source, Tensor)

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has, by name or else number; classes without are left out.
        Where classes share a name, as ImageNet's two cranes do, their numbers follow it."""
        counted = Counter([] if self.labels is None else self.labels.tolist())
        names = self.class_names or ()
        named = {i: names[i] if i < len(names) else str(i) for i in sorted(counted)}
        shared = {name for name, times in Counter(named.values()).items() if times > 1}
        return {f"{n} ({i})" if n in shared else n: counted[i] for i, n in named.items()}

    def _with(self, **changes: Any) -> "LabelledImages":
        """A copy that shares images and hashes, with some attributes changed."""
        other = copy.copy(self)
        other.__dict__.update(changes)
        return other

    def with_labels(self, labels: Labels) -> "LabelledImages":
        """The same images with other labels."""
        return self._with(labels=parse_labels(labels, len(self), self.argument))

    def subset(self, indices: Tensor | Sequence[int]) -> "LabelledImages":
        """Some of the images, in the given order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64).tolist()
        labels = self.labels
        self._shape = self.shape  # an empty subset could not find it out
        part = self._with(
            _places=[self._places[i] for i in chosen],
            labels=None if labels is None else labels[chosen],
        )
        part.__dict__.pop("images", None)
        return part

    def of_class(self, target: int) -> "LabelledImages":
        """The images of a class."""
        return self.subset(torch.nonzero(self.known_labels == target).flatten())

    def without_class(self, target: int) -> "LabelledImages":
        """The images of all other classes."""
        return self.subset(torch.nonzero(self.known_labels != target).flatten())

    def stratified_sample(self, most: int) -> "LabelledImages":
        """At most so many of the images, of all classes in proportion."""
        order = torch.argsort(self.known_labels, stable=True)
        places = torch.linspace(0, len(order) - 1, min(most, len(order)))
        return self.subset(order[places.round().long()])

    def to(self, device: torch.device, dtype: torch.dtype) -> "LabelledImages":
        """The same images on a device, all at once if they are a Tensor; else a batch at a time,
        when they are used."""
        if not isinstance(self._source, Tensor):
            return self
        hashes = dict(zip(range(len(self)), self.hashes))  # of the pixels as they were given
        moved = self.images.to(device, dtype)
        return self._with(
            _source=moved, _places=list(range(len(self))), _hashes=hashes, images=moved
        )

    def in_one_tensor(self) -> "LabelledImages":
        """The same images, all loaded into memory."""
        if isinstance(self._source, Tensor):
            return self
        hashes = dict(enumerate(self.hashes))
        changes = {"_source": self.images, "_loader": None, "_hashes": hashes}
        return self._with(**changes, labels=self.labels, _places=list(range(len(self))))

    @property
    def hashes(self) -> list[str]:
        """One short hash an image, of its pixels in 256 steps, so that a copy is recognised.

        A copy in half precision, or after a random augmentation, is another image to it.
        """
        return self.hashes_at(range(len(self)))

    def hashes_at(self, indices: Sequence[int]) -> list[str]:
        """The hashes of some images; those that were fetched before are not loaded again."""
        missing = [i for i in indices if self._places[i] not in self._hashes]
        for _ in self.batches(_in_batches(missing, BATCH)):
            pass
        return [self._hashes[self._places[i]] for i in indices]

    def in_order(self, batch_size: int | None = None) -> Iterator[Tensor]:
        """All images in turn, at most 32 at a time."""
        size = min(batch_size or BATCH, BATCH)
        return self.batches(_in_batches(range(len(self)), size))

    def take(self, indices: Sequence[int]) -> Tensor:
        """Some images at once, fetched without any worker processes."""
        if len(self) == 0:
            raise ValueError(f"{self.argument} has no images")
        return next(self._with(_workers=0).batches([indices]))

    def batches(self, plan: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """The images of each list of indices in turn, (len(list), C, H, W)."""
        for images, _ in self._fetch(plan):
            yield images

    def _fetch(self, plan: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Any]]:
        """Batches of images and labels, checked and hashed."""
        wanted, again = itertools.tee([self._places[i] for i in indices] for indices in plan)
        for places, (images, labels) in zip(again, self._load(wanted)):
            if not self.in_memory:
                check_pixels(images, self.argument)
            shape = tuple(images.shape[1:])
            self._shape = self._shape or shape
            if shape != self._shape:
                raise ValueError(
                    f"{self.argument} must be of one shape, got {self._shape} and {shape}"
                )
            for place, image in zip(places, images):
                if place not in self._hashes:
                    self._hashes[place] = hash_of_image(image)
            yield images, labels

    def _load(self, wanted: Iterator[list[int]]) -> Iterator[tuple[Tensor, Any]]:
        if isinstance(self._source, Tensor):
            for places in wanted:
                yield self._source.detach()[places], None
            return
        loader = self._loader
        collate = default_collate if loader is None else loader.collate_fn
        batches: DataLoader[Any] = DataLoader(
            cast("Dataset[Any]", self._source),
            batch_sampler=wanted,
            collate_fn=_Collate(collate, self.argument),
            num_workers=self._workers,
            worker_init_fn=None if loader is None else loader.worker_init_fn,
            generator=torch.Generator().manual_seed(0),  # else it draws from the global state
        )
        for batch in batches:
            yield self._split(batch)

    def _split(self, batch: Any) -> tuple[Tensor, Any]:
        if isinstance(batch, Tensor):
            return batch, None
        if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor):
            return batch[0], batch[1] if len(batch) > 1 else None
        held = f" with keys {list(batch)}" if isinstance(batch, dict) else ""
        raise ArgumentTypeError(
            f"{self.argument} must yield images, or pairs of images and labels, as Tensors; got a "
            f"{type(batch).__name__}{held}: map it with a Dataset that returns (image, label)"
        )

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
        their alphabetical order is taken, with a warning of the category
        ``captum_classpattern.Notice``. A data set's own order is taken if it has as many
        classes as the classifier; with such a warning, too, if its names are others.

        Args:
            classifier (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K):
                a :class:`PixelClassifier`, whose ``class_names`` are used, or any other.
            class_names (Sequence[str], optional): The names of the classifier's K classes, in
                their order. Default: None (the classifier's own).

        Returns:
            *LabelledImages*: The same images; their labels are the classifier's numbers, and
            ``class_names`` are the classifier's, or the source's where it has none.

        Raises:
            TypeError: If ``class_names`` is not a list of names.
            ValueError: If a class of the images fits no class of the classifier, or several, or
                if two fit the same; if a number is too large; if there are not K names.

        Examples::

            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
            >>> classifier = PixelClassifier(network.eval(), class_names=["bird", "Dog", "cat"])
            >>> labels = torch.tensor([0, 0, 1, 1])
            >>> pets = LabelledImages(torch.rand(4, 3, 8, 8), labels, ("cat", "dog"))
            >>> pets.for_classifier(classifier).labels
            tensor([2, 2, 1, 1])
        """
        names, count = classifier_names(classifier, class_names, self.take([0]))
        new = self._with(numbering="numbers", class_names=names.names if names else None)
        if self.labels is None:
            return new
        source, own = self.description or "the images", self.class_names
        if own is None or self.numbering == "numbers":
            check_numbers(self.labels, count, source)
            if names is not None and own is not None:
                warn_of_other_names(own, self.labels, names)
            if names is None and own is not None:
                new = new._with(class_names=names_of_numbered(own, count))
            return new
        present = sorted(set(self.labels.tolist()))
        own += tuple(str(number) for number in range(len(own), present[-1] + 1))
        numbers = class_of_each(own, present, names, count, self.numbering, source)
        labels = torch.tensor([numbers[label] for label in self.labels.tolist()])
        return new._with(labels=labels, class_names=new.class_names or own)

    def halves(self, seed: int = 0) -> tuple["LabelledImages", "LabelledImages"]:
        r"""
        Splits the images at random into two halves, to search on and to hold out.

        Each class is split evenly, to within one image. The halves share no image: those of the
        second half that are in the first, too, are dropped (pixels compared in 256 steps).

        Args:
            seed (int): Which images go where. Default: 0.

        Returns:
            *tuple[LabelledImages, LabelledImages]*: The search half and the held-out half, whose
            ``duplicates_dropped`` says how many images were dropped.

        Raises:
            ValueError: If nothing is left to hold out.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).tolist()
        if self.labels is not None:  # class after class, the classes in a random order
            labels = self.labels.tolist()
            present = sorted(set(labels))
            ranks = torch.randperm(len(present), generator=generator).tolist()
            rank = dict(zip(present, ranks))
            order.sort(key=lambda i: rank[labels[i]])
        first = self._part(sorted(order[::2]), f"search half (seed {seed})")
        return first, self._part(sorted(order[1::2]), f"held-out half (seed {seed})").without(first)

    def without(self, others: "LabelledImages") -> "LabelledImages":
        r"""
        Drops the images that are among others, too (pixels compared in 256 steps).

        Args:
            others (LabelledImages): Such as the images that are searched with.

        Returns:
            *LabelledImages*: The rest, whose ``duplicates_dropped`` says how many were dropped.

        Raises:
            ValueError: If nothing is left.
        """
        seen = set(others._exact_hashes())
        left = [i for i, digest in enumerate(self._exact_hashes()) if digest not in seen]
        if not left:
            raise ValueError(
                f"all {len(self)} images of {self.description or 'these'} are copies of images of "
                f"{others.description or 'the others'}: nothing is left to hold out; give more "
                "images"
            )
        dropped = self.duplicates_dropped + len(self) - len(left)
        return self._part(left, "")._with(duplicates_dropped=dropped)

    def _exact_hashes(self) -> Iterator[str]:
        return (hash_of_image(image, EXACT_HASH) for batch in self.in_order() for image in batch)

    def _part(self, chosen: list[int], name: str) -> "LabelledImages":
        description = ", ".join(filter(None, (self.description, name)))
        return self.subset(chosen)._with(description=description)


class _Collate:
    """A loader's way to make a batch of items, whose errors say what the items should be."""

    def __init__(self, collate: Callable[[list[Any]], Any], argument: str) -> None:
        self.collate, self.argument = collate, argument

    def __call__(self, items: list[Any]) -> Any:
        try:
            batch = self.collate(items)
        except (TypeError, RuntimeError) as error:
            raise ArgumentTypeError(
                f"the items of {self.argument} don't make a batch ({error}): each must be an image "
                "Tensor (C, H, W), or a pair of it and a label, all of one size; with torchvision, "
                "transform them by ToTensor() and Resize((height, width))"
            ) from error
        images = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if isinstance(images, Tensor) and len(images) != len(items):
            raise ValueError(
                f"the collate_fn of {self.argument} made {len(images)} images of {len(items)} "
                "items: it must keep each"
            )
        return batch


def _places_of(loader: DataLoader[Any], argument: str) -> Sequence[int]:
    """The indices that a loader draws from; an error if that is not plain."""
    batches, count = loader.batch_sampler, len(cast(Sized, loader.dataset))
    sampler = batches.sampler if type(batches) is BatchSampler else batches
    if type(sampler) is SubsetRandomSampler:
        return list(sampler.indices)
    if type(sampler) in (SequentialSampler, RandomSampler) and len(cast(Sized, sampler)) == count:
        return range(count)
    raise ValueError(
        f"the DataLoader of {argument} has a sampler ({type(sampler).__name__}) that the search "
        "can't follow: give a torch.utils.data.Subset, or a loader of it with a batch_size"
    )


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most so many of the indices from 0 to count - 1, evenly spaced, both ends included."""
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


def ensure_labels(
    forward_func: Classifier,
    images: LabelledImages,
    *,
    like: Tensor | None = None,
    additional_forward_args: Any = None,
    batch_size: int | None = None,
) -> LabelledImages:
    """The images with their labels, or else with the classifier's predictions as labels.

    A plain function gets the images with device and precision of ``like``.
    """
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
    """The class that a classifier predicts for each image; int64 (N,) on the CPU."""
    return torch.cat(
        [
            predict(forward_func, batch if like is None else batch.to(like)).cpu()
            for batch in images.in_order(batch_size)
        ]
    )

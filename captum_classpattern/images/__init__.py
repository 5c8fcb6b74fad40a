"""Images with their classes: one type for tensors, data sets, loaders and folders."""

import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captum_classpattern._support.progress import advance_bar
from captum_classpattern._support.validation import check_labels, check_seed, parse_labels
from captum_classpattern.classifier import (
    CheckedModel,
    Classifier,
    enter_model,
    images_at_once,
    lacks_memory,
    preserve_state,
)
from captum_classpattern.classifier.class_names import (
    NUMBERINGS,
    ClassNames,
    check_order,
    distinct_names,
    numbers_of,
    renumber,
)
from captum_classpattern.classifier.fingerprints import hash_of
from captum_classpattern.images.source import READ_AT_ONCE, ImageSource, evenly_spaced, in_batches

__all__ = [
    "Images", "ImagesAndLabels", "LabelledImages", "Labels",
    "ensure_labels", "evenly_spaced", "first_of", "hash_of_images", "identity_of", "predictions",
]  # fmt: skip

Images: TypeAlias = "Tensor | Dataset[Any] | DataLoader[Any]"  # LabelledImages is a Dataset
Labels: TypeAlias = Tensor | Sequence[int] | Sequence[str] | None
ImagesAndLabels: TypeAlias = "Images | tuple[Images, Labels]"


class LabelsField:
    """The field ``labels`` of LabelledImages: int64 (N,), or None if there are none. If none were
    given, these are the source's, which reads them when they are first needed."""

    def __get__(self, images: Any, owner: Any = None) -> Tensor | None:
        if images is None:  # of the class: the field's default
            return None
        labels: Tensor | None = images.given_labels
        return images.source.labels if labels is None else labels

    def __set__(self, images: Any, labels: Labels) -> None:  # by the constructor alone
        object.__setattr__(images, "given_labels", labels)


@dataclass(frozen=True, eq=False, repr=False)
class LabelledImages(Dataset[Any]):
    r"""
    Images in [0, 1] with their classes. Every function that takes images also takes these, with
    their labels.

    This is a Dataset: item ``i`` is a pair of an image and its label, or only the image if there
    are no labels. It never changes; ``dataclasses.replace`` makes a copy with other fields. A
    Tensor is kept unchanged: one of uint8, with pixels from 0 to 255, takes a byte per value, and
    each batch of it becomes floats. A Dataset is read in batches, when its images are needed. A
    DataLoader provides its ``dataset`` and ``collate_fn``; its workers, batch size and order are
    ignored. The indices of a SubsetRandomSampler are used, and labels that are passed in belong
    to these indices, in their order.

    Args:
        source (Tensor, Dataset or DataLoader): (C, H, W) each, in [0, 1] or uint8.
        labels (Tensor or Sequence[int], optional): Their classes, by number, or by name among the
            ``class_names``. Default: None (those of the Dataset, if it has any).
        class_names (Sequence[str], optional): The name of each class by its number, including
            classes without images. Default: None.
        description (str): Where the images are from. Default: "".
        numbering (str): How the classes got their numbers: ``"alphabetical"``, by the order of
            the class folders; ``"numbers"``, by numbers in the source itself, such as a folder
            ``3_dog``; ``"dataset"``, by the order in which a data set lists its classes.
            Default: "dataset".
        argument (str): What error messages call the images. Default: "images".
        duplicates_dropped (int): How many images :meth:`halves` and :meth:`without` dropped.
            Default: 0.

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

    source: ImageSource | Any
    labels: LabelsField = LabelsField()
    class_names: Sequence[str] | None = None
    description: str = ""
    _: KW_ONLY
    numbering: str = "dataset"
    argument: str = "images"
    duplicates_dropped: int = 0

    def __post_init__(self) -> None:
        if self.numbering not in NUMBERINGS:
            raise ValueError(
                f"numbering must be one of {', '.join(NUMBERINGS)}, got {self.numbering!r}"
            )
        if not isinstance(self.source, ImageSource):
            object.__setattr__(self, "source", ImageSource.of(self.source, self.argument))
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
        if (given := vars(self)["given_labels"]) is not None:
            given = numbers_of(given, ClassNames(self.class_names) if self.class_names else None)
            object.__setattr__(self, "labels", parse_labels(given, len(self), self.argument))

    @classmethod
    def of(
        cls,
        images: Any,
        labels: Labels = None,
        model: CheckedModel | None = None,
        *,
        names: ClassNames | None = None,
        argument: str = "images",
    ) -> "LabelledImages":
        """The arguments ``images`` and ``labels`` of a function as one object. ``images`` may also
        be a pair of both. ``argument`` is what the function calls the images. With a model, labels
        that come with them are matched by the names of their classes, if they have any."""
        if isinstance(images, tuple) and len(images) == 2 and labels is None:
            images, labels = images
        names = model.names if model else names
        labels = numbers_of(labels, names)
        if not isinstance(images, LabelledImages):
            return cls(images, labels, argument=argument)
        source = images.source
        if not images.in_memory:  # errors about items name these images
            source = replace(source, argument=argument)
        named = images._with(source=source, argument=argument)
        named = named if labels is None else named.with_labels(labels)
        if images.class_names is None:
            return named
        if labels is None:
            return named.numbered_for(model) if model else named
        if names is None:
            return named
        return named._with(class_names=names, numbering="numbers")  # those of its labels

    def __len__(self) -> int:
        return len(self.source.places)

    def __getitem__(self, index: int) -> Any:
        number = operator.index(index)
        images, labels = self.source.read([self.source.places[number]])
        if (given := vars(self)["given_labels"]) is not None:
            labels = given[[number]]
        elif labels is not None:
            labels = parse_labels(labels, 1, self.argument)
        return images[0] if labels is None else (images[0], int(labels[0]))

    def __repr__(self) -> str:
        size = "x".join(map(str, self.source.memory.shape or ()))
        parts = [f"{len(self)} images {size}".rstrip()]
        if self.in_memory or vars(self)["given_labels"] is not None:  # a data set is not read
            parts.append("no labels" if self.labels is None else f"{len(self.counts)} classes")
        return f"LabelledImages({', '.join(filter(None, [*parts, self.description]))})"

    @property
    def images(self) -> Tensor:
        """All images as one Tensor (N, C, H, W) of floats in [0, 1]."""
        return self.source.floats

    @property
    def known_labels(self) -> Tensor:
        """The labels, or an error if there are none."""
        if (labels := self.labels) is None:
            raise ValueError(
                f"{self.argument} have no labels: a folder of images needs a folder for each "
                "class inside; if you gave one of these, give its parent (in Python: or give the "
                "classes as `labels`, or a LabelledImages or Dataset that has them)"
            )
        return labels

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.source.memory.shape or tuple(self.first().shape[1:])

    @property
    def in_memory(self) -> bool:
        """Whether the images are a Tensor, so that it is cheap to look at all of them."""
        return isinstance(self.source.images, Tensor)

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has, by name, or else by number. Classes without images are
        left out. Where classes share a name, like ImageNet's two cranes, their numbers follow it.
        """
        counted = Counter([] if self.labels is None else self.labels.tolist())
        names = self.class_names or ()
        named = {i: names[i] if i < len(names) else str(i) for i in sorted(counted)}
        return {name: counted[i] for i, name in distinct_names(named).items()}

    def accuracy_of(self, predicted: Tensor) -> float:
        """The share of the images whose class is predicted correctly."""
        return int((predicted == self.known_labels).sum()) / len(self)

    def with_labels(self, labels: Labels) -> "LabelledImages":
        """The same images with other labels."""
        return self._with(labels=labels)

    def _with(self, **changes: Any) -> "LabelledImages":
        """A copy with other fields. It reads no labels of a data set, as ``replace`` would."""
        return replace(self, **{"labels": vars(self)["given_labels"], **changes})

    def subset(self, indices: Tensor | Sequence[int]) -> "LabelledImages":
        """Some of the images: by their indices, in this order, or by a mask of N bools."""
        chosen = torch.as_tensor(indices)
        if chosen.dtype == torch.bool:
            chosen = torch.arange(len(self))[chosen.cpu()]
        numbers, labels = chosen.long().tolist(), vars(self)["given_labels"]
        if labels is None:  # those of a data set, if they were read
            labels = vars(self.source).get("labels")
        labels = None if labels is None else labels[numbers]
        places = [self.source.places[i] for i in numbers]
        return self._with(source=replace(self.source, places=places), labels=labels)

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
        if self.in_memory:
            return self
        return self._with(source=self.source.moved(self.images), labels=self.labels)

    def to(self, device: torch.device, dtype: torch.dtype) -> "LabelledImages":
        """The same images, moved once to a device and a precision (uint8 stays uint8). They stay
        where they are if they are a Dataset, or would take more than half of the device's free
        memory; then each batch is moved when used."""
        if not self.in_memory:
            return self
        pixels = self.source.pixels
        width = dtype.itemsize if pixels.is_floating_point() else 1
        memory_of = getattr(getattr(torch, device.type, None), "mem_get_info", None)
        if memory_of and 2 * width * pixels.numel() > memory_of(device)[0]:
            return self
        try:
            moved = pixels.to(device, dtype if pixels.is_floating_point() else None)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            return self
        return self._with(source=self.source.moved(moved))

    @property
    def hashes(self) -> list[str]:
        """A short hash of each image, rounded to 256 levels, so that exact copies are found.
        Images that were loaded before are not loaded again.

        A copy in half precision, or after a random augmentation, has another hash.
        """
        return self.source.hashes

    def take(self, indices: Sequence[int]) -> Tensor:
        """Some of the images as one Tensor of floats in [0, 1]."""
        if len(self) == 0:
            raise ValueError(f"{self.argument} has no images")
        return self.source.read([self.source.places[i] for i in indices])[0]

    def first(self) -> Tensor:
        """The first image, (1, C, H, W). A data set may draw random numbers for it; the generators
        are restored."""
        with preserve_state(None, 0):
            return self.take([0])

    def in_order(self, batch_size: int | None = None, most: int = READ_AT_ONCE) -> Iterator[Tensor]:
        """All images in batches of at most 32, or ``most``."""
        size = min(batch_size or most, most)
        return map(self.take, in_batches(range(len(self)), size))

    def for_classifier(
        self, classifier: Classifier, class_names: Sequence[str] | None = None
    ) -> "LabelledImages":
        r"""
        Gives the images the class numbers of a classifier, by the names of the classes.

        A name fits a class if it equals the class's name or WordNet id, or one of the parts of a
        description such as "tench, Tinca tinca"; case, spaces, underscores and hyphens don't
        matter. Numbers in the source stay unchanged. If the classifier does not name its classes,
        or a data set names them differently, the classes keep their order if there are as many,
        with a warning of the category ``captum_classpattern.Notice``.

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
        with enter_model(classifier, self.first(), class_names=class_names) as model:
            return self.numbered_for(model)

    def numbered_for(self, model: CheckedModel) -> "LabelledImages":
        """See :meth:`for_classifier`."""
        labels, names = self.labels, model.names
        if labels is not None:
            labels, names = renumber(self, names, model.n_classes)
        return self._with(labels=labels, class_names=names, numbering="numbers")

    def names_for(self, model: CheckedModel) -> ClassNames | None:
        """The names of a model's classes: those of the user, else its own, else those of the
        images. Raises an error if it numbers their classes differently, or lacks them."""
        own = ClassNames(self.class_names) if self.class_names else None
        check_order(model.names, own, [] if self.labels is None else self.labels.tolist())
        check_labels(self.labels, model.n_classes, self.argument)
        return model.names or own

    def halves(self, seed: int = 0) -> tuple["LabelledImages", "LabelledImages"]:
        """Splits the images at random into two halves: one to search on, one to hold out.

        Each class is split evenly, to within one image. Images of the second half that are also in
        the first are dropped, see :meth:`without`. Raises an error if none are left to hold out.
        """
        generator = torch.Generator().manual_seed(check_seed(seed))
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
        """Drops the images that are also among others, by a hash of their pixels in 256 levels. Two
        different images of a million share a hash in one of 560 cases. The ``duplicates_dropped``
        of the result says how many were dropped. Raises an error if none are left."""
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


def first_of(images: ImagesAndLabels, argument: str = "images") -> Tensor:
    """The first of the images that a function is given in any form, (1, C, H, W)."""
    given = images[0] if isinstance(images, tuple) and len(images) == 2 else images
    return LabelledImages.of(given, argument=argument).first()


def ensure_labels(
    model: CheckedModel,
    images: LabelledImages,
    *,
    additional_forward_args: Any = None,
    batch_size: int | None = None,
) -> LabelledImages:
    """The images with the classifier's class numbers, see :meth:`LabelledImages.for_classifier`; or
    else with its predictions as labels, see :func:`predictions`."""
    if images.labels is not None:
        if images.class_names is not None and images.numbering != "numbers":
            return images.numbered_for(model)
        check_labels(images.labels, model.n_classes, images.argument)
        return images
    if additional_forward_args is not None:
        raise ValueError(
            f"{images.argument} have no labels, and they can't be predicted by a classifier that "
            "takes additional_forward_args: pass baseline_labels"
        )
    return images.with_labels(predictions(model, images, batch_size))


def predictions(
    model: CheckedModel, images: LabelledImages, batch_size: int | None = None
) -> Tensor:
    """The class that a model predicts for each image; int64 (N,) on the CPU."""
    batches = outputs_in_order(model, images, batch_size)
    return torch.cat([outputs.argmax(1) for outputs in batches]).cpu()


def outputs_in_order(
    model: CheckedModel, images: LabelledImages, batch_size: int | None = None
) -> Iterator[Tensor]:
    """The logits for the images, batch by batch."""
    for batch in images.in_order(batch_size, images_at_once(model.device)):
        yield model.outputs(batch)
        advance_bar(len(batch))


def identity_of(model: CheckedModel, images: LabelledImages) -> dict[str, Any]:
    """What a model is, by two of the images that it is searched with."""
    return model.identity(images.take(evenly_spaced(len(images), 2)))


def hash_of_images(images: LabelledImages) -> str:
    """A hash of images and labels, in their order."""
    labels = None if images.labels is None else images.labels.tolist()
    return hash_of((images.shape, images.hashes, labels))

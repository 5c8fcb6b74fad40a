"""Images in memory, with their classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_classpattern._files import hash_of_image
from captum_classpattern.class_names import (
    NUMBERINGS,
    check_numbers,
    class_of_each,
    classifier_names,
    names_of_numbered,
    warn_of_other_names,
)
from captum_classpattern.classifier import Classifier

WHOLE = 16  # bytes of a hash: none of two images that differ is ever dropped by chance


@dataclass(frozen=True, eq=False, repr=False)
class LabelledImages:
    r"""
    Images in memory, with their classes.

    Args:
        images (Tensor): float32 (N, C, H, W) in [0, 1], C being 1 or 3.
        labels (Tensor or None): int64 (N,), or None where the source has none.
        class_names (tuple[str, ...] or None): The name of each class by its number, also of
            classes without an image; None where the source has none. Default: None.
        description (str): Where the images are from. Default: "".
        duplicates_dropped (int): Images that :meth:`halves` left out. Default: 0.
        numbering (str): What gave the classes their numbers: ``"alphabetical"``, the order of the
            class folders; ``"numbers"``, numbers in the source itself, such as a folder
            ``3_dog``; ``"dataset"``, the order in which a data set lists its classes.
            Default: "dataset".

    Raises:
        ValueError: If ``numbering`` is none of these.

    Examples::

        >>> pets = LabelledImages(torch.rand(6, 3, 8, 8), torch.arange(6) % 2, ("cat", "dog"))
        >>> pets.counts
        {'cat': 3, 'dog': 3}
        >>> pets.halves()[1]
        LabelledImages(3 images 3x8x8, 2 classes, held-out half (seed 0))
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...] | None = None
    description: str = ""
    duplicates_dropped: int = 0
    numbering: str = "dataset"

    def __post_init__(self) -> None:
        if self.numbering not in NUMBERINGS:
            raise ValueError(
                f"numbering must be one of {', '.join(NUMBERINGS)}, got {self.numbering!r}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.images.shape[1:])
        classes = "no labels" if self.labels is None else f"{len(self.counts)} classes"
        source = f", {self.description}" if self.description else ""
        return f"LabelledImages({len(self)} images {shape}, {classes}{source})"

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has, by name or else number; classes without are left out.
        Where classes share a name, as ImageNet's two cranes do, their numbers follow it."""
        counted = Counter([] if self.labels is None else self.labels.tolist())
        names = self.class_names or ()
        named = {i: names[i] if i < len(names) else str(i) for i in sorted(counted)}
        shared = {name for name, times in Counter(named.values()).items() if times > 1}
        return {f"{n} ({i})" if n in shared else n: counted[i] for i, n in named.items()}

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
        names, count = classifier_names(classifier, class_names, self.images)
        new = replace(self, numbering="numbers", class_names=names.names if names else None)
        if self.labels is None:
            return new
        source, own = self.description or "the images", self.class_names
        if own is None or self.numbering == "numbers":
            check_numbers(self.labels, count, source)
            if names is not None and own is not None:
                warn_of_other_names(own, self.labels, names)
            if names is None and own is not None:
                new = replace(new, class_names=names_of_numbered(own, count))
            return new
        present = sorted(set(self.labels.tolist()))
        own += tuple(str(number) for number in range(len(own), present[-1] + 1))
        numbers = class_of_each(own, present, names, count, self.numbering, source)
        labels = torch.tensor([numbers[label] for label in self.labels.tolist()])
        return replace(new, labels=labels, class_names=new.class_names or own)

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
        seen = {hash_of_image(image, WHOLE) for image in others.images}
        left = [i for i, image in enumerate(self.images) if hash_of_image(image, WHOLE) not in seen]
        if not left:
            raise ValueError(
                f"all {len(self)} images of {self.description or 'these'} are copies of images of "
                f"{others.description or 'the others'}: nothing is left to hold out; give more "
                "images"
            )
        dropped = self.duplicates_dropped + len(self) - len(left)
        return replace(self._part(left, ""), duplicates_dropped=dropped)

    def _part(self, chosen: list[int], name: str) -> "LabelledImages":
        return replace(
            self,
            images=self.images[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            description=", ".join(filter(None, (self.description, name))),
        )

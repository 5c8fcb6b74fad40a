"""Images in memory, with their classes."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor


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

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.images.shape[1:])
        classes = "no labels" if self.labels is None else f"{len(self.counts)} classes"
        source = f", {self.description}" if self.description else ""
        return f"LabelledImages({len(self)} images {shape}, {classes}{source})"

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has, by name or else number; classes without are left out."""
        counted = Counter([] if self.labels is None else self.labels.tolist())
        names = self.class_names or ()
        return {names[i] if i < len(names) else str(i): counted[i] for i in sorted(counted)}

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
        seen = {_hash(image) for image in others.images}
        left = [i for i, image in enumerate(self.images) if _hash(image) not in seen]
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


def _hash(image: Tensor) -> bytes:
    pixels = (image.cpu() * 255).round().to(torch.uint8).contiguous()
    return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest()

"""Folders, ``.npz`` files and torchvision's data sets as images in [0, 1] and labels."""

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from captum_classpattern._support.progress import passes_bar
from captum_classpattern._support.validation import (
    check_count,
    is_whole,
    join_names,
    suggest_names,
)
from captum_classpattern.datasets import sources
from captum_classpattern.datasets.pixels import decode_all, fit
from captum_classpattern.images import LabelledImages

__all__ = ["LabelledImages", "load_images"]

LARGEST = 2**14  # side, in pixels


def load_images(
    source: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    classes: Sequence[str | int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    split: str = "test",
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> LabelledImages:
    r"""
    Loads images and their classes.

    All images are decoded once and stay in memory with one byte per value (7.5 GB for 50,000 RGB
    images at 224 px): ``limit`` loads fewer.

    Images are turned upright by their EXIF orientation. Animations give their first frame. The
    images have one channel if all are grey, otherwise three (RGB). Alpha is dropped, as in
    torchvision's ``ImageFolder``. 8-bit images are rounded to 256 levels after they are resized or
    made grey, as if they had been saved. 16-bit images are divided by 65535 and not rounded. A
    source with such images, or floats, takes four bytes per value.

    Args:
        source (str or PathLike): One of

            - a folder of folders, one per class. Classes are numbered in alphabetical order,
              as in ``ImageFolder``; but if the names of all folders are one to five digits, alone
              or before an underscore (``00014`` or ``14_stop``), these are the class numbers.
              :meth:`LabelledImages.for_classifier` changes them to a classifier's class numbers;
            - a folder of images, which then have no labels, with a notice;
            - an ``.npz`` file with ``x``, (N, H, W, C), (N, C, H, W) or (N, H, W), uint8 or floats
              in [0, 1]; and, if there are labels, ``y``, integers (N,);
            - ``"torchvision:NAME"``, a data set of ``torchvision.datasets`` such as ``CIFAR10``.
        size (int or tuple[int, int], optional): Side, or (H, W), in pixels. Images are resized
            (bilinear, antialiased) until they just cover it, then centre-cropped to it.
            Default: None (unchanged; all images must have the same size).
        channels (int, optional): 1 or 3, to make all images grey or RGB. Default: None.
        classes (Sequence[str or int], optional): Load only these classes, by name or number;
            their numbers stay the same. Default: None.
        limit (int, optional): Load at most this many images per class, chosen at random; without
            labels, this many in total. Default: None.
        seed (int): Seed of this choice. Default: 0.
        split (str): Split of a torchvision data set: ``"train"``, ``"test"``, or another that it
            has. Default: "test".
        root (str or PathLike, optional): Folder of torchvision's data sets. Default: ``data``.
        download (bool): Whether torchvision may download a missing data set. Default: False.

    Returns:
        *LabelledImages*: The images, in the order of the source, and their labels.

    Raises:
        FileNotFoundError: If the source does not exist.
        TypeError: If labels are not whole numbers.
        ValueError: If the source is of another kind, has no image, an empty class folder, or
            images that can't be read, differ in size or don't fit into memory; or if a setting is
            out of range.

    Examples::

        >>> import numpy as np
        >>> path = getfixture("tmp_path") / "digits.npz"
        >>> np.savez(path, x=np.zeros((4, 28, 28), np.uint8), y=[0, 1, 1, 2])
        >>> digits = load_images(path, size=14, classes=[1, 2])
        >>> digits.images.shape, digits.labels
        (torch.Size([3, 1, 14, 14]), tensor([1, 1, 2]))
    """
    sides = _parse_size(size)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1, 3, or None (unchanged), got {channels!r}")
    if classes is not None and (isinstance(classes, str) or len(classes) == 0):
        raise ValueError(f"`classes` must be a list of names or numbers, or None, got {classes!r}")
    if limit is not None:
        check_count("limit", limit)
    listing = sources.list_images(source, split, root, download)
    chosen = _choose(listing, classes, limit, seed)
    names, description = [listing.names[i] for i in chosen], listing.description
    with passes_bar("Reading images", len(names), None):
        pixels, errors = decode_all(
            lambda place: fit(listing.load(chosen[place]), sides, channels), names, description
        )
    if errors:
        listed = join_names([f"{names[place]} ({error})" for place, error in errors.items()])
        raise ValueError(
            f"{len(errors)} of {len(names)} images of {description} can't be read: {listed}; "
            "repair or remove them"
        )
    labels = None if listing.labels is None else [listing.labels[i] for i in chosen]
    return LabelledImages(
        pixels, labels, listing.class_names, description, numbering=listing.numbering
    )


def _parse_size(size: Any) -> tuple[int, int] | None:
    """The size as (H, W), or None."""
    if size is None:
        return None
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(is_whole(side) and 0 < side <= LARGEST for side in sides):
        raise ValueError(
            f"`size` must be a whole number from 1 to {LARGEST}, or (H, W) of such, got {size!r}"
        )
    return int(sides[0]), int(sides[1])


def _choose(
    listing: sources.Listing, classes: Sequence[str | int] | None, limit: int | None, seed: int
) -> list[int]:
    """Which images to load. The choice within a class does not depend on the other classes."""
    labels = listing.labels or [0] * len(listing.names)
    chosen = list(range(len(labels)))
    if limit is not None:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
        of_class = defaultdict[int, list[int]](list)
        for i in order:
            of_class[labels[i]].append(i)
        chosen = sorted(i for members in of_class.values() for i in members[:limit])
    if classes is None:
        return chosen
    if listing.labels is None:
        raise ValueError(f"{listing.description} has no labels to choose classes by: leave it out")
    listed = dict(enumerate(listing.class_names or ()))
    names = {y: listed.get(y, str(y)) for y in sorted({*labels})}
    numbers: dict[str | int, int] = {key: y for y in names for key in (y, str(y))}
    numbers |= {name: y for y, name in names.items()}
    for name in classes:
        if name not in numbers:
            raise ValueError(
                f"{listing.description} has no images of a class {name!r}"
                f"{suggest_names(str(name), names.values())}"
            )
    wanted = {numbers[name] for name in classes}
    return [i for i in chosen if labels[i] in wanted]

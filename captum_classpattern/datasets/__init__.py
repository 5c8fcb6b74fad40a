"""Folders, ``.npz`` files and torchvision's data sets to images in [0, 1] and labels."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_classpattern._validation import did_you_mean, few
from captum_classpattern.datasets.pixels import TOO_LARGE, UNREADABLE, resize_crop, to_channels
from captum_classpattern.datasets.sources import (
    Listing,
    folder_listing,
    npz_listing,
    torchvision_listing,
)
from captum_classpattern.images import LabelledImages

__all__ = ["LabelledImages", "load_images"]


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
    Loads images, and their classes, into memory: 4 * C * H * W bytes an image.

    Images are turned upright by their EXIF orientation; animations give their first frame; 16-bit
    greys are divided by 65535. If all are grey they get one channel, else three, as RGB. Alpha is
    dropped, as torchvision's ``ImageFolder`` does.

    Args:
        source (str or PathLike): One of

            - a folder of folders, one for each class. Classes are numbered in alphabetical order,
              as by ``ImageFolder``; but if all folders are called by one to five digits, alone or
              before an underscore (``00014`` or ``14_stop``), these are the class numbers.
              :meth:`LabelledImages.for_classifier` takes a classifier's own numbers instead;
            - a folder of images, which then have no labels;
            - an ``.npz`` file with ``x``, (N, H, W, C), (N, C, H, W) or (N, H, W), uint8 or floats
              in [0, 1]; and, if there are labels, ``y``, integers (N,);
            - ``"torchvision:NAME"``, a data set of ``torchvision.datasets`` such as ``CIFAR10``.
        size (int or tuple[int, int], optional): Side, or (H, W), in pixels. Images are resized
            (bilinear, antialiased) until they just cover it, then cropped to it at their centre.
            None leaves them as they are, and they must be of one size. Default: None.
        channels (int, optional): 1 or 3, to make all images grey or RGB. Default: None.
        classes (Sequence[str or int], optional): Load only these classes, by name or number;
            their numbers stay as they are. Default: None.
        limit (int, optional): Load at most so many images of each class, drawn at random; without
            labels, of all. Default: None.
        seed (int): Seed of this draw. Default: 0.
        split (str): Of torchvision's data sets: ``"train"``, ``"test"``, or another that the data
            set has. Default: "test".
        root (str or PathLike, optional): Folder of torchvision's data sets. Default: ``data``.
        download (bool): Let torchvision download a data set that isn't there. Default: False.

    Returns:
        *LabelledImages*: The images, in the order of the source, and their labels.

    Raises:
        FileNotFoundError: If the source isn't there.
        ValueError: If the source is not of these kinds, has no image, an empty class folder, or
            images that can't be read or are of several sizes; or if a setting is out of range.

    Examples::

        >>> import tempfile, numpy as np
        >>> folder = tempfile.TemporaryDirectory()
        >>> arrays = {"x": np.zeros((4, 28, 28), np.uint8), "y": np.array([0, 1, 1, 2])}
        >>> np.savez(f"{folder.name}/digits.npz", **arrays)
        >>> digits = load_images(f"{folder.name}/digits.npz", size=14, classes=[1, 2])
        >>> digits.images.shape, digits.labels
        (torch.Size([3, 1, 14, 14]), tensor([1, 1, 2]))
        >>> folder.cleanup()
    """
    sides = _checked_settings(size, channels, classes, limit)
    path = Path(source)
    if isinstance(source, str) and source.startswith("torchvision:"):
        where = Path("data" if root is None else root)
        listing = torchvision_listing(source, split, where, download)
    elif path.is_dir():
        listing = folder_listing(path)
    elif path.suffix.lower() == ".npz" and path.is_file():
        listing = npz_listing(path)
    else:
        error = ValueError if path.exists() else FileNotFoundError
        raise error(
            f"images come from a folder, an .npz file, or 'torchvision:NAME', but "
            f"{os.fspath(source)} is {'none of these' if path.exists() else 'not there'}"
        )
    chosen = _chosen(listing, classes, limit, seed)
    images = _stacked(listing, chosen, sides, channels)
    labels = None if listing.labels is None else torch.tensor([listing.labels[i] for i in chosen])
    return LabelledImages(
        images, labels, listing.class_names, listing.description, numbering=listing.numbering
    )


def _checked_settings(size: Any, channels: Any, classes: Any, limit: Any) -> Any:
    """The size as (H, W) or None."""
    sides = size if isinstance(size, tuple | list) else (size, size)
    if size is not None and not (len(sides) == 2 and all(_is_count(side) for side in sides)):
        raise ValueError(f"size must be a whole number from 1, or (H, W) of such, got {size!r}")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1, 3, or None for as it comes, got {channels!r}")
    if classes is not None and (isinstance(classes, str) or len(classes) == 0):
        raise ValueError(f"classes must be a list of names or numbers, or None, got {classes!r}")
    if limit is not None and not _is_count(limit):
        raise ValueError(f"limit must be a whole number from 1, or None for all, got {limit!r}")
    return None if size is None else tuple(int(side) for side in sides)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0


def _chosen(
    listing: Listing, classes: Sequence[str | int] | None, limit: int | None, seed: int
) -> list[int]:
    """Which images to load. What is drawn of a class does not hang on the other classes."""
    labels = listing.labels or [0] * len(listing.names)
    chosen, taken = list(range(len(labels))), Counter[int]()
    if limit is not None:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
        chosen = []
        for i in order:
            if taken[labels[i]] < limit:
                chosen.append(i)
                taken[labels[i]] += 1
    if classes is None:
        return sorted(chosen)
    if listing.labels is None:
        raise ValueError(f"{listing.description} has no labels to choose classes by: leave it out")
    wanted = {_class_number(name, listing) for name in classes}
    return sorted(i for i in chosen if labels[i] in wanted)


def _class_number(wanted: str | int, listing: Listing) -> int:
    names, present = listing.class_names or (), set(listing.labels or ())
    number = names.index(wanted) if wanted in names else -1
    if number < 0 and re.fullmatch("[0-9]+", str(wanted)):
        number = int(wanted)
    if number not in present:
        known = [names[i] if i < len(names) else str(i) for i in sorted(present)]
        raise ValueError(
            f"{listing.description} has no images of a class {wanted!r}"
            f"{did_you_mean(str(wanted), known)}"
        )
    return number


def _stacked(
    listing: Listing, chosen: list[int], sides: tuple[int, int] | None, channels: int | None
) -> Tensor:
    images, failed, first = torch.empty(0), [], ""
    for place, i in enumerate(chosen):
        try:
            image = listing.load(i)
        except (*UNREADABLE, *TOO_LARGE) as error:
            failed.append(f"{listing.names[i]} ({error})")
            continue
        image = image if channels is None else to_channels(image, channels)
        image = image if sides is None else resize_crop(image, *sides)
        if not first:
            first, images = listing.names[i], torch.empty(len(chosen), *image.shape)
        if image.shape[1:] != images.shape[2:]:
            (h, w), (height, width) = images.shape[2:], image.shape[1:]
            raise ValueError(
                f"the images of {listing.description} are of several sizes: {first} is {h}x{w} "
                f"(height x width), {listing.names[i]} is {height}x{width}; pass size"
            )
        if len(image) > images.shape[1]:  # the first in colour, after grey ones
            images = images.repeat(1, len(image), 1, 1)
        images[place] = image
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(chosen)} images of {listing.description} can't be read: "
            f"{few(failed)}; mend or remove them"
        )
    return images

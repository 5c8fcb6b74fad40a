"""Image files as a Dataset that decodes them when they are needed."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from captum_classpattern._validation import join_names
from captum_classpattern.datasets.cache import cache_file, read_cached, write_cached
from captum_classpattern.datasets.pixels import DECODE_ERRORS, as_floats, decode, fit

PART_BYTES, LONGEST_PART = 2**26, 1024  # decoded together, kept in one file: bytes, images
PART_OF_UNKNOWN_SIZE = 128  # images


class ImageFiles(Dataset[Tensor]):
    """The images of files, float32 (C, H, W) in [0, 1].

    The first image that is asked for makes a pass over all files, part by part, since all must be
    readable and of one size, and since one RGB image makes all of them RGB. What was decoded is
    kept in the cache. A part that can't be kept there is decoded again whenever it is needed,
    unless it is the only one: then it stays in memory.

    A copy that is sent to another process has the names of the files, and no pixels.
    """

    in_unit_range = True  # nobody needs to check the pixels

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        sides: tuple[int, int] | None = None,
        channels: int | None = None,
        cache: Path | None = None,
    ) -> None:
        self.folder, self.names = folder.absolute(), names  # the working directory may change
        self.sides, self.channels, self.cache = sides, channels, cache
        self.shape: tuple[int, ...] | None = None  # (C, H, W), once all files were read
        self._length = PART_OF_UNKNOWN_SIZE
        if sides is not None:
            fitting = PART_BYTES // (3 * sides[0] * sides[1])
            self._length = max(1, min(LONGEST_PART, fitting))
        self._parts: dict[int, Tensor | None] = {}  # by their first image; None: not kept
        self._unreadable: dict[int, str] = {}  # the errors of images, which are blank in their part

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """The images of a batch (len(indices), C, H, W)."""
        if self.shape is None and (unreadable := self.first_pass()):
            self.shape = None  # the next call raises the error, too
            raise unreadable_files(unreadable, len(self), self.folder)
        assert self.shape is not None
        images = [self._pixels(i) for i in indices]
        if len({(image.dtype, len(image)) for image in images}) > 1:
            images = [as_floats(image).expand(self.shape) for image in images]
        return as_floats(torch.stack(images)).expand(-1, *self.shape).contiguous()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": {}, "_unreadable": {}}

    def first_pass(self) -> dict[str, str]:
        """Reads all files, and returns the errors of those that can't be read, by name."""
        sizes: dict[str, tuple[int, ...]] = {}
        channels = 1
        starts = list(range(0, len(self), self._length))
        random.Random().shuffle(starts)  # processes that start together share the work
        for start in tqdm(starts, "Reading images", delay=5, disable=None, leave=False):
            images = self._load(start)
            whole = next((i for i in self._part(start) if i not in self._unreadable), None)
            if whole is not None:
                sizes[self.names[whole]] = images.shape[2:]
                channels = max(channels, images.shape[1])
                check_sizes(sizes, self.folder)
        if sizes:
            self.shape = (channels, *next(iter(sizes.values())))
        return {self.names[i]: error for i, error in sorted(self._unreadable.items())}

    def _part(self, start: int) -> range:
        """The images of a part."""
        return range(start, min(start + self._length, len(self)))

    def _decode(self, index: int) -> Tensor:
        return fit(decode(self.folder / self.names[index]), self.sides, self.channels)

    def _load(self, start: int) -> Tensor:
        """The images of a part, from the cache, or else decoded and kept."""
        part, path = self._part(start), None
        if self.cache is not None:
            files = [self.folder / self.names[i] for i in part]
            path = cache_file(self.cache, files, (self.sides, self.channels))
        cached = None if path is None else read_cached(path, len(part))
        if cached is not None:
            images, readable = cached
            unread = [i for i in part if not readable[i - start]]
            _, errors = decode_all(self._decode, unread, self.names, self.folder)
            if len(errors) == len(unread):  # still, and not only when the part was written
                self._parts[start] = images
                self._unreadable |= errors
                return images
        images, errors = decode_all(self._decode, part, self.names, self.folder)
        self._unreadable |= errors
        self._parts[start] = images if len(part) == len(self) else None
        if path is not None and len(errors) < len(part):
            readable = torch.tensor([i not in errors for i in part])
            if not write_cached(path, images, readable):
                self.cache = None
            elif mapped := read_cached(path, len(part)):
                self._parts[start] = images = mapped[0]
        return images

    def _pixels(self, index: int) -> Tensor:
        """An image as it was kept, else decoded again."""
        start = index - index % self._length
        if start not in self._parts and (self.cache is not None or self._length >= len(self)):
            self._load(start)
        images = self._parts.get(start)
        if images is not None and index not in self._unreadable:
            return images[index - start]
        try:
            return self._decode(index)
        except DECODE_ERRORS as error:
            raise ValueError(
                f"{self.folder / self.names[index]} could be read before, but not now: {error}"
            ) from error


def decode_all(
    decode: Callable[[int], Tensor], chosen: Sequence[int], names: Sequence[str], source: object
) -> tuple[Tensor, dict[int, str]]:
    """Images (len(chosen), C, H, W): uint8, or float32 if any is. Images that can't be read are
    blank, and their errors are returned by index."""
    images, errors, first = torch.empty(0), dict[int, str](), ""
    for place, i in enumerate(chosen):
        try:
            image = decode(i)
        except DECODE_ERRORS as error:
            errors[i] = str(error)
            continue
        if not first:
            first, images = names[i], image.new_zeros(len(chosen), *image.shape)
        check_sizes({first: images.shape[2:], names[i]: image.shape[1:]}, source)
        if len(image) > images.shape[1]:  # the first RGB image, after grey ones
            images = images.repeat(1, len(image), 1, 1)
        if image.is_floating_point():
            images = as_floats(images)
        images[place] = as_floats(image) if images.is_floating_point() else image
    return images, errors


def check_sizes(sizes: Mapping[str, Sequence[int]], source: object) -> None:
    """Raises an error unless all images, by name, have one size."""
    (first, (h, w)), *others = sizes.items()
    for name, (height, width) in others:
        if (height, width) != (h, w):
            raise ValueError(
                f"the images of {source} have several sizes: {first} is {h}x{w} (height x width), "
                f"{name} is {height}x{width}; pass size"
            )


def unreadable_files(errors: Mapping[str, str], count: int, source: object) -> ValueError:
    """The error about images that can't be read, by name."""
    listed = join_names([f"{name} ({error})" for name, error in errors.items()])
    return ValueError(
        f"{len(errors)} of {count} images of {source} can't be read: {listed}; repair or remove "
        "them, or skip them (on_error='skip', on the command line --on-error skip)"
    )

"""Image files as a Dataset that decodes them when they are needed."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from captum_classpattern._validation import join_names
from captum_classpattern.datasets.cache import (
    SETTLED,
    Decoded,
    cache_file,
    hashed,
    read_cached,
    write_cached,
)
from captum_classpattern.datasets.pixels import DECODE_ERRORS, area, as_floats, decode, fit

PART_BYTES, LONGEST_PART = 2**26, 1024  # decoded together, kept in one file: bytes, images


class ImageFiles(Dataset[Tensor]):
    """The images of files, float32 (C, H, W) in [0, 1].

    The first image that is asked for makes a pass over all files, part by part, since all must be
    readable and of one size, and since one RGB image makes all of them RGB. What was decoded is
    kept in the cache. A part that can't be kept there is decoded again whenever it is needed,
    unless it is the only one: then it stays in memory. A part with a file that changed just now is
    kept when it is needed later.

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
        self._length = 0  # images of a part, once it is known
        self._parts: dict[int, Decoded] = {}  # what is kept, by the first image of each part
        self._retries: dict[int, float] = {}  # when to try again to keep a part
        self._unreadable: dict[int, str] = {}  # the errors of images, which are blank in their part

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """The images of a batch (len(indices), C, H, W)."""
        shape = self._known_shape()
        images = [self._pixels(i) for i in indices]
        if len({(image.dtype, len(image)) for image in images}) > 1:
            images = [as_floats(image).expand(shape) for image in images]
        return as_floats(torch.stack(images)).expand(-1, *shape).contiguous()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": {}, "_retries": {}, "_unreadable": {}}

    def stored_hashes(self, indices: Sequence[int]) -> dict[int, str]:
        """The hashes of images that are kept, by index. A grey image that others make RGB has
        none, since its hash would be that of one channel."""
        channels, found = self._known_shape()[0], dict[int, str]()
        for index in indices:
            kept, place = self._kept(index)
            if kept is not None and kept.images.shape[1] == channels:
                found[index] = bytes(kept.hashes[place].tolist()).hex()
        return found

    def _known_shape(self) -> tuple[int, ...]:
        """(C, H, W) of all images, which are read for it once."""
        if self.shape is None and (unreadable := self.first_pass()):
            self.shape = None  # the next call raises the error, too
            raise unreadable_files(unreadable, self.names, self.folder)
        assert self.shape is not None
        return self.shape

    def first_pass(self) -> dict[int, str]:
        """Reads all files, and returns the errors of those that can't be read, by index."""
        first, channels = None, 1
        self._length = self._length or self._part_length()
        starts = list(range(0, len(self), self._length))
        random.Random().shuffle(starts)  # processes that start together share the work
        for start in tqdm(starts, "Reading images", delay=5, disable=None, leave=False):
            shape = self._load(start)
            whole = next((i for i in self._part(start) if i not in self._unreadable), None)
            if whole is not None:
                found = self.names[whole], *shape[1:]
                first, channels = first or found, max(channels, shape[0])
                check_sizes(first, found, self.folder)
        if first is not None:
            self.shape = (channels, *first[1:])
        return dict(sorted(self._unreadable.items()))

    def _part_length(self) -> int:
        """How many images are decoded together, so that they need little memory."""
        pixels = 1 if self.sides is None else self.sides[0] * self.sides[1]
        for name in self.names if self.sides is None else ():
            with suppress(*DECODE_ERRORS):  # the pass over all files names it
                pixels = area(self.folder / name)  # all have one size
                break
        return max(1, min(LONGEST_PART, PART_BYTES // (3 * pixels)))

    def _part(self, start: int) -> range:
        """The images of a part."""
        return range(start, min(start + self._length, len(self)))

    def _cache_file(self, start: int) -> Path | None:
        """Where a part can be kept now."""
        if self.cache is None:
            return None
        files = [self.folder / self.names[i] for i in self._part(start)]
        return cache_file(self.cache, files, (self.sides, self.channels))

    def _load(self, start: int) -> torch.Size:
        """Finds a part in the cache, or else decodes and keeps it. Returns its (C, H, W)."""
        part, path = self._part(start), self._cache_file(start)
        kept = None if path is None else read_cached(path, len(part))
        wanted = part if kept is None else [i for i in part if not kept.readable[i - start]]
        images, errors = decode_all(self._decode, wanted, self.names, self.folder)
        if kept is not None and len(errors) < len(wanted):  # some could not be read for a while
            kept = None
            images, errors = decode_all(self._decode, part, self.names, self.folder)
        self._unreadable |= errors
        only = len(part) == len(self)  # which stays in memory without a cache
        if kept is None and len(errors) < len(part) and (only or path is not None):
            decoded = hashed(images, [i not in errors for i in part])
            if path is not None and (kept := write_cached(path, decoded)) is None:
                self.cache = None
            kept = kept or (decoded if only else None)
        self._retries[start] = time.time() + SETTLED
        if kept is not None:
            self._parts[start] = kept
        return images.shape[1:] if kept is None else kept.images.shape[1:]

    def _kept(self, index: int) -> tuple[Decoded | None, int]:
        """The part of an image, if it can be kept and the image could be read; and its place."""
        start = index - index % self._length
        if start not in self._parts and time.time() > self._retries.get(start, 0):
            self._retries[start] = time.time() + SETTLED
            if len(self) <= self._length or self._cache_file(start) is not None:
                self._load(start)
        return None if index in self._unreadable else self._parts.get(start), index - start

    def _pixels(self, index: int) -> Tensor:
        """An image as it was kept, else decoded again."""
        kept, place = self._kept(index)
        if kept is not None:
            return kept.images[place]
        try:
            return self._decode(index)
        except DECODE_ERRORS as error:
            raise ValueError(
                f"{self.folder / self.names[index]} could be read before, but not now: {error}"
            ) from error

    def _decode(self, index: int) -> Tensor:
        return fit(decode(self.folder / self.names[index]), self.sides, self.channels)


def decode_all(
    decode: Callable[[int], Tensor], chosen: Sequence[int], names: Sequence[str], source: object
) -> tuple[Tensor, dict[int, str]]:
    """Images (len(chosen), C, H, W): uint8, or float32 if any is. Images that can't be read are
    blank, and their errors are returned by index."""
    images, errors, first = torch.empty(0), dict[int, str](), None
    for place, i in enumerate(chosen):
        try:
            image = decode(i)
        except DECODE_ERRORS as error:
            errors[i] = str(error)
            continue
        found = names[i], *image.shape[1:]
        if first is None:
            first, images = found, image.new_zeros(len(chosen), *image.shape)
        check_sizes(first, found, source)
        if len(image) > images.shape[1]:  # the first RGB image, after grey ones
            images = images.repeat(1, len(image), 1, 1)
        if image.is_floating_point():
            images = as_floats(images)
        images[place] = as_floats(image) if images.is_floating_point() else image
    return images, errors


def check_sizes(first: tuple[str, int, int], other: tuple[str, int, int], source: object) -> None:
    """Raises an error unless two images, each by its name, height and width, have one size."""
    if first[1:] != other[1:]:
        raise ValueError(
            f"the images of {source} have several sizes: {first[0]} is {first[1]}x{first[2]} "
            f"(height x width), {other[0]} is {other[1]}x{other[2]}; pass `size`"
        )


def unreadable_files(errors: Mapping[int, str], names: Sequence[str], source: object) -> ValueError:
    """The error about images that can't be read, by their places among the names of all."""
    listed = join_names([f"{names[i]} ({error})" for i, error in errors.items()])
    return ValueError(
        f"{len(errors)} of {len(names)} images of {source} can't be read: {listed}; repair or "
        "remove them, or skip them (`on_error='skip'`)"
    )

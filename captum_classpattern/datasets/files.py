"""Image files as a Dataset that decodes them when they are needed."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
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
        self._parts: dict[int, Decoded | None] = {}  # by their first image; None: not kept
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
        sizes: dict[str, tuple[int, ...]] = {}
        channels = 1
        self._length = self._length or self._part_length()
        starts = list(range(0, len(self), self._length))
        random.Random().shuffle(starts)  # processes that start together share the work
        for start in tqdm(starts, "Reading images", delay=5, disable=None, leave=False):
            shape = self._load(start)
            whole = next((i for i in self._part(start) if i not in self._unreadable), None)
            if whole is not None:
                sizes[self.names[whole]] = shape[1:]
                channels = max(channels, shape[0])
                check_sizes(sizes, self.folder)
        if sizes:
            self.shape = (channels, *next(iter(sizes.values())))
        return dict(sorted(self._unreadable.items()))

    def _part_length(self) -> int:
        """How many images are decoded together, so that they need little memory."""
        pixels = 1 if self.sides is None else self.sides[0] * self.sides[1]
        for name in self.names if self.sides is None else ():
            try:
                pixels = area(self.folder / name)  # all have one size
                break
            except DECODE_ERRORS:  # the pass over all files names it
                continue
        return max(1, min(LONGEST_PART, PART_BYTES // (3 * pixels)))

    def _part(self, start: int) -> range:
        """The images of a part."""
        return range(start, min(start + self._length, len(self)))

    def _decode(self, index: int) -> Tensor:
        return fit(decode(self.folder / self.names[index]), self.sides, self.channels)

    def _cache_file(self, start: int) -> Path | None:
        """Where a part can be kept now."""
        if self.cache is None:
            return None
        files = [self.folder / self.names[i] for i in self._part(start)]
        return cache_file(self.cache, files, (self.sides, self.channels))

    def _load(self, start: int) -> torch.Size:
        """Finds a part in the cache, or else decodes and keeps it. Returns its (C, H, W)."""
        part, path = self._part(start), self._cache_file(start)
        cached = None if path is None else read_cached(path, len(part))
        if cached is not None:
            unread = [i for i in part if not cached.readable[i - start]]
            _, errors = decode_all(self._decode, unread, self.names, self.folder)
            if len(errors) == len(unread):  # still, and not only when the part was written
                self._parts[start] = cached
                self._unreadable |= errors
                return cached.images.shape[1:]
        images, errors = decode_all(self._decode, part, self.names, self.folder)
        self._unreadable |= errors
        self._parts[start] = None
        self._retries[start] = time.time() + SETTLED
        only = len(part) == len(self)
        if len(errors) < len(part) and (only or path is not None):
            decoded = hashed(images, torch.tensor([i not in errors for i in part]))
            self._parts[start] = decoded if only else None
            if path is not None and not write_cached(path, decoded):
                self.cache = None
            elif path is not None:
                self._parts[start] = read_cached(path, len(part)) or self._parts[start]
        return images.shape[1:]

    def _kept(self, index: int) -> tuple[Decoded | None, int]:
        """The part of an image, if it can be kept and the image could be read; and its place."""
        start = index - index % self._length
        if start not in self._parts:
            wanted = self.cache is not None or self._length >= len(self)
        else:  # perhaps a file was too young
            wanted = self._parts[start] is None and time.time() > self._retries[start]
            if wanted:
                self._retries[start] = time.time() + SETTLED
                wanted = self._cache_file(start) is not None
        if wanted:
            self._load(start)
        kept = None if index in self._unreadable else self._parts.get(start)
        return kept, index - start

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
                f"{name} is {height}x{width}; pass `size`"
            )


def unreadable_files(errors: Mapping[int, str], names: Sequence[str], source: object) -> ValueError:
    """The error about images that can't be read, by their places among the names of all."""
    listed = join_names([f"{names[i]} ({error})" for i, error in errors.items()])
    return ValueError(
        f"{len(errors)} of {len(names)} images of {source} can't be read: {listed}; repair or "
        "remove them, or skip them (`on_error='skip'`)"
    )

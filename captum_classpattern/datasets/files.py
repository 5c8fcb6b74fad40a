"""Image files as a Dataset that decodes them when they are needed, and keeps them decoded.

A file of the cache holds a part of a few hundred images with their hashes, and is memory-mapped.
It appears whole or not at all, so that many processes can fill and read one folder. Any file in it
can be deleted at any time.
"""

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import torch
from PIL import features
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from captum_classpattern._files import write_atomically
from captum_classpattern._validation import Notice, join_names
from captum_classpattern.classifier import warn
from captum_classpattern.datasets.pixels import (
    DECODE_ERRORS,
    PIXELS_VERSION,
    area,
    as_floats,
    decode,
    fit,
)
from captum_classpattern.pattern import HASH_BYTES, image_hash

PART_BYTES, LONGEST_PART = 2**26, 1024  # decoded together, kept in one file: bytes, images
VARIABLE = "CLASSPATTERN_CACHE"  # of the environment: another folder, or "off"
SETTLED = 2.0  # seconds; a file that is younger could change again without a new time stamp
LIBRARIES = "libjpeg_turbo", "jpg", "webp"  # of lossy formats, which Pillow brings or finds


class Part(NamedTuple):
    """Images that were decoded together."""

    images: Tensor  # (N, C, H, W), uint8 or float32; blank if they can't be read
    readable: Tensor  # bool (N,)
    hashes: Tensor  # uint8 (N, 6), see image_hash


class ImageFiles(Dataset[Tensor]):
    """The images of files, float32 (C, H, W) in [0, 1]. The first that is asked for makes a pass
    over all files, part by part, since one RGB image makes all of them RGB. A part that can't be
    kept in the cache is decoded again whenever it is needed, unless it is the only one: then it
    stays in memory. A copy that is sent to another process has no pixels."""

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
        self._parts: dict[int, Part] = {}  # what is kept, by the first image of each part
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
            whole = next((i for i in self._places(start) if i not in self._unreadable), None)
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

    def _places(self, start: int) -> range:
        """The images of a part."""
        return range(start, min(start + self._length, len(self)))

    def _cache_file(self, start: int) -> Path | None:
        """Where a part can be kept now: its name is a hash of what the pixels depend on, without
        the content of the files. Not if one of them is missing or was changed in the last two
        seconds; a time in the future is that of another clock."""
        if self.cache is None:
            return None
        described, now = [], time.time()
        for place in self._places(start):
            file = self.folder / self.names[place]
            try:
                found = file.stat()
            except OSError:
                return None
            if now - SETTLED < found.st_mtime <= now:
                return None
            times = found.st_mtime_ns, found.st_ctime_ns  # a copy can take over the first
            described.append((os.path.abspath(file), *times, found.st_ino, found.st_size))
        libraries = [features.version(name) for name in LIBRARIES]
        decoders = PIXELS_VERSION, PIL.__version__, torch.__version__, libraries  # which may round
        key = repr((decoders, (self.sides, self.channels), described)).encode()
        return self.cache / f"{blake2b(key, digest_size=16).hexdigest()}.safetensors"

    def _load(self, start: int) -> torch.Size:
        """Finds a part in the cache, or else decodes and keeps it. Returns its (C, H, W)."""
        places, path = self._places(start), self._cache_file(start)
        kept = None if path is None else read_cached(path, len(places))
        wanted = places if kept is None else [i for i in places if not kept.readable[i - start]]
        images, errors = decode_all(self._decode, wanted, self.names, self.folder)
        if kept is not None and len(errors) < len(wanted):  # some could not be read for a while
            kept = None
            images, errors = decode_all(self._decode, places, self.names, self.folder)
        self._unreadable |= errors
        only = len(places) == len(self)  # which stays in memory without a cache
        if kept is None and len(errors) < len(places) and (only or path is not None):
            hashes = bytearray.fromhex("".join(image_hash(as_floats(image)) for image in images))
            packed = torch.frombuffer(hashes, dtype=torch.uint8).view(-1, HASH_BYTES)
            part = Part(images, torch.tensor([i not in errors for i in places]), packed)
            if path is not None and (kept := write_cached(path, part)) is None:
                self.cache = None
            kept = kept or (part if only else None)
        self._retries[start] = time.time() + SETTLED
        if kept is not None:
            self._parts[start] = kept
        return images.shape[1:] if kept is None else kept.images.shape[1:]

    def _kept(self, index: int) -> tuple[Part | None, int]:
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


def cache_folder(cache: bool | str | os.PathLike[str]) -> Path | None:
    """The folder of the argument ``cache``; None if there is no cache. There is a warning if there
    is no home folder to keep it in."""
    if not isinstance(cache, bool):
        return Path(cache).absolute()
    chosen = os.environ.get(VARIABLE, "")
    if not cache or chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen).absolute()
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        _warn_uncached("anywhere (this user has no home folder)", "a folder")
        return None
    return (caches / "captum_classpattern").absolute()


def read_cached(path: Path, count: int) -> Part | None:
    """The memory-mapped images; None if the file is not there or is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            found = Part(*map(file.get_tensor, Part._fields))
    except (OSError, SafetensorError, RuntimeError):  # the last if it is deleted just now
        return None
    shapes = found.images.shape[:1], found.readable.shape, found.hashes.shape
    whole = shapes == ((count,), (count,), (count, HASH_BYTES)) and found.images.ndim == 4
    return found if whole else None


def write_cached(path: Path, part: Part) -> Part | None:
    """Keeps images, and returns them memory-mapped. If they can't be kept, there is a warning, and
    it returns None."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(part._asdict()))
    except OSError as error:
        if not path.exists():  # else another process has written it, and uses it
            _warn_uncached(f"in {path.parent} ({error.strerror})", "another folder")
            return None
    return read_cached(path, len(part.images)) or part


def _warn_uncached(where: str, instead: str) -> None:
    warn(
        f"decoded images can't be kept {where}, so they are decoded each time: give {instead} "
        f"(cache=, or {VARIABLE} in the environment), or switch the cache off (cache=False, or "
        "off)",
        Notice,
    )


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

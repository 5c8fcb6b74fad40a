"""The cache of decoded images: files of a few hundred images each, which are memory-mapped.

A file holds the images of some image files, and their hashes. Its name is a hash of the paths,
times, inodes and sizes of these files, of the settings, and of the versions of what decodes them;
their content is not compared. It appears whole or not at all, so that many processes can fill and
read one folder. Any file in it can be deleted at any time.
"""

import os
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import torch
from PIL import features
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captum_classpattern._files import write_atomically
from captum_classpattern._validation import Notice
from captum_classpattern.classifier import warn
from captum_classpattern.datasets.pixels import PIXELS_VERSION, as_floats
from captum_classpattern.pattern import HASH_BYTES, image_hash

VARIABLE = "CLASSPATTERN_CACHE"  # of the environment: another folder, or "off"
SETTLED = 2.0  # seconds; a file that is younger could change again without a new time stamp
LIBRARIES = "libjpeg_turbo", "jpg", "webp"  # of lossy formats, which Pillow brings or finds


class Decoded(NamedTuple):
    """Images that were decoded together."""

    images: Tensor  # (N, C, H, W), uint8 or float32; blank if they can't be read
    readable: Tensor  # bool (N,)
    hashes: Tensor  # uint8 (N, 6), see image_hash


def hashed(images: Tensor, readable: Sequence[bool]) -> Decoded:
    """Decoded images with their hashes."""
    hashes = bytearray.fromhex("".join(image_hash(as_floats(image)) for image in images))
    packed = torch.frombuffer(hashes, dtype=torch.uint8).view(-1, HASH_BYTES)
    return Decoded(images, torch.tensor(readable), packed)


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


def cache_file(folder: Path, images: Sequence[Path], settings: Any) -> Path | None:
    """Where the pixels of image files are kept; None if one of them is missing or was changed in
    the last two seconds. A time in the future is that of another clock."""
    described, now = [], time.time()
    for image in images:
        try:
            found = image.stat()
        except OSError:
            return None
        if now - SETTLED < found.st_mtime <= now:
            return None
        times = found.st_mtime_ns, found.st_ctime_ns  # a copy can take over the first
        described.append((os.path.abspath(image), *times, found.st_ino, found.st_size))
    libraries = [features.version(name) for name in LIBRARIES]
    decoders = PIXELS_VERSION, PIL.__version__, torch.__version__, libraries  # others may round
    key = blake2b(repr((decoders, settings, described)).encode(), digest_size=16).hexdigest()
    return folder / f"{key}.safetensors"


def read_cached(path: Path, count: int) -> Decoded | None:
    """The memory-mapped images; None if the file is not there or is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            found = Decoded(*map(file.get_tensor, Decoded._fields))
    except (OSError, SafetensorError, RuntimeError):  # the last if it is deleted just now
        return None
    shapes = found.images.shape[:1], found.readable.shape, found.hashes.shape
    whole = shapes == ((count,), (count,), (count, HASH_BYTES)) and found.images.ndim == 4
    return found if whole else None


def write_cached(path: Path, decoded: Decoded) -> Decoded | None:
    """Keeps images, and returns them memory-mapped. If they can't be kept, there is a warning, and
    it returns None."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(decoded._asdict()))
    except OSError as error:
        if not path.exists():  # else another process has written it, and uses it
            _warn_uncached(f"in {path.parent} ({error.strerror})", "another folder")
            return None
    return read_cached(path, len(decoded.images)) or decoded


def _warn_uncached(where: str, instead: str) -> None:
    warn(
        f"decoded images can't be kept {where}, so they are decoded each time: give {instead} "
        f"(cache=, or {VARIABLE} in the environment), or switch the cache off (cache=False, or "
        "off)",
        Notice,
    )

"""The cache of decoded images: files of a few hundred images each, which are memory-mapped.

A file is named by everything that its pixels depend on, and appears whole or not at all, so that
many processes can fill and read one folder. Any file in it can be deleted at any time.
"""

import os
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import PIL
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captum_classpattern._files import write_atomically
from captum_classpattern._validation import ArgumentTypeError, Notice
from captum_classpattern.classifier import warn

VARIABLE = "CLASSPATTERN_CACHE"  # of the environment: another folder, or "off"
SETTLED = 2.0  # seconds; a file that is younger could change again without a new time stamp
DECODERS = PIL.__version__, torch.__version__  # other versions may decode and round differently


def cache_folder(cache: Any) -> Path | None:
    """The folder of the argument ``cache``; None if there is no cache."""
    if not isinstance(cache, bool | str | os.PathLike):
        raise ArgumentTypeError(
            f"cache must be True, False or a folder, got {type(cache).__name__}"
        )
    if not isinstance(cache, bool):
        return Path(cache).absolute()
    chosen = os.environ.get(VARIABLE, "")
    if not cache or chosen.lower() == "off":
        return None
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(chosen) if chosen else caches / "captum_classpattern").absolute()


def cache_file(folder: Path, images: Sequence[Path], settings: Any) -> Path | None:
    """Where the pixels of image files are kept; None if one of them is missing or was changed just
    now."""
    described = []
    for image in images:
        try:
            found = image.stat()
        except OSError:
            return None
        if found.st_mtime > time.time() - SETTLED:
            return None
        described.append((os.path.abspath(image), found.st_mtime_ns, found.st_size))
    key = blake2b(repr((DECODERS, settings, described)).encode(), digest_size=16).hexdigest()
    return folder / f"{key}.safetensors"


def read_cached(path: Path, count: int) -> tuple[Tensor, Tensor] | None:
    """The memory-mapped images (count, C, H, W), and which of them could be read; None if the file
    is not there or is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            images, readable = file.get_tensor("images"), file.get_tensor("readable")
    except (OSError, SafetensorError):
        return None
    whole = images.ndim == 4 and len(images) == count and readable.shape == (count,)
    return (images, readable) if whole else None


def write_cached(path: Path, images: Tensor, readable: Tensor) -> bool:
    """Keeps images, and returns whether that was possible. There is a warning if it was not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({"images": images.contiguous(), "readable": readable}))
    except OSError as error:
        if not path.exists():  # else another process has written it, and uses it
            warn(
                f"decoded images can't be kept in {path.parent} ({error.strerror}), so they are "
                f"decoded each time: give another folder (cache=, or {VARIABLE} in the "
                "environment), or switch the cache off (cache=False, or off)",
                Notice,
            )
            return False
    return True

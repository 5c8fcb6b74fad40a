"""Opening checkpoints from strangers: reads what is in a file without running anything in it.

NumPy's pickle code trusts the file, which could make it read memory outside its arrays, so its
classes have checked stand-ins here."""

import io
import itertools
import math
import pickle
import pickletools
import re
import struct
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from captum_classpattern._support.files import printable, reading
from captum_classpattern._support.validation import join_names

MAX_OPERATIONS = 1_000_000  # of a pickle: a few bytes can unpack to very many
MOST_NAMES = 20  # in a message
SAFE_KINDS = "biufcSU"  # booleans, numbers and text; no objects, which would be pointers
SIZE_LIMIT = 16 * 2**30  # bytes, also of what a zip file would unpack to
PICKLE_LIMIT = 64 * 2**20  # bytes of everything but the tensors
PICKLE_ENDINGS = (".pkl", ".pickle")
LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save began with before zip files
ZIP = b"PK\x03\x04"
ZIP_END = struct.Struct("<4s4H2LH")  # ..., offset of the directory, length of a comment
REFUSAL = (
    "{path} was not opened: it is {kind}, which can run its author's code when it is opened. "
    "Ask for a plain state dict (torch.save(model.state_dict(), path), or "
    "safetensors.torch.save_model(model, path)). Only if you trust the file as you would trust a "
    "program, pass `trust_pickle=True`."
)
NOT_SAVED, AGAIN = "was not written by torch.save", "download it again"  # if a file is damaged
ARCHIVE = "an archive: unpack it, and give the checkpoint inside"
OTHER_FILES = {  # by their first bytes
    b"<": "a web page, as a failed or blocked download leaves it",
    b"version https://git-lfs": "a git-lfs pointer, not the file that it points to",
    b"{": "JSON text",
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!"), ARCHIVE),
}


class UnsafeValueError(ValueError):
    """A checkpoint holds something that only looks like a harmless value."""


def _require(harmless: Any, otherwise: str) -> None:
    if not harmless:
        raise UnsafeValueError(otherwise)


class SafeNamespace(Namespace):
    """Replaces ``argparse.Namespace``: takes values by name, but no special attributes."""

    def __setstate__(self, state: Any) -> None:
        named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
        plain = named and not any(key.startswith("__") for key in state)
        _require(plain, "an argparse.Namespace with unusual content")
        self.__dict__.update(state)
        self.__class__ = Namespace  # type: ignore[assignment]  # it is safe to use from now on


class SafeDtype:
    """Replaces ``numpy.dtype``."""

    __slots__ = ("dtype",)  # so that no other object can be turned into one

    def __init__(self, code: Any, *_: Any) -> None:
        dtype = np.dtype(object)
        with suppress(TypeError):
            dtype = np.dtype(code if isinstance(code, str) else object)
        harmless = dtype.kind in SAFE_KINDS and not dtype.names and not dtype.subdtype
        _require(harmless, "a NumPy dtype other than numbers and text")
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        """Takes the byte order, and nothing that changes the layout."""
        of_numpy = isinstance(state, tuple) and len(state) == 8
        _require(of_numpy, "a NumPy dtype of an unknown form")
        _, order, subarray, names, fields, size, _, flags = state
        plain = (subarray, names, fields, flags) == (None, None, None, self.dtype.flags)
        _require(plain and order in "<>|=", "a NumPy dtype with fields or flags")
        _require(size in (-1, self.dtype.itemsize), "a NumPy dtype of the wrong size")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class SafeArray(np.ndarray):
    """Replaces ``numpy.ndarray``; its content is checked before NumPy sees it."""

    filled = False

    def __new__(cls, *arguments: Any, **keywords: Any) -> "SafeArray":
        raise UnsafeValueError("a NumPy array that was not pickled by NumPy")

    def __setstate__(self, state: Any) -> None:
        # a tensor may share its memory by now
        _require(not self.filled, "a NumPy array that is filled twice")
        self.filled = True
        of_numpy = isinstance(state, tuple) and len(state) == 5
        _require(of_numpy, "a NumPy array of an unknown form")
        _, shape, dtype, fortran, raw = state
        sizes = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
        readable = sizes and isinstance(dtype, SafeDtype) and isinstance(raw, bytes)
        _require(readable, "a NumPy array of objects")
        whole = math.prod(shape) * dtype.dtype.itemsize == len(raw)
        _require(whole, "a NumPy array whose shape does not fit its bytes")
        copied = bytes(bytearray(raw))  # NumPy keeps a reference to what it is given
        super().__setstate__((1, shape, dtype.dtype, bool(fortran), copied))  # type: ignore[arg-type]


def _reconstruct(subtype: Any, shape: Any, code: Any) -> SafeArray:
    """Replaces ``numpy._core.multiarray._reconstruct``: an empty array, to be filled."""
    _require(subtype is SafeArray, "a NumPy array of another class")
    array: SafeArray = np.ndarray.__new__(SafeArray, (0,), np.int8)
    return array


def _scalar(dtype: Any, raw: Any) -> Any:
    """Replaces ``numpy._core.multiarray.scalar``."""
    readable = isinstance(dtype, SafeDtype) and isinstance(raw, bytes)
    fits = readable and len(raw) == dtype.dtype.itemsize
    _require(fits, "a NumPy number whose bytes do not fit its dtype")
    return np.frombuffer(raw, dtype.dtype)[0] if raw else dtype.dtype.type()


# What checkpoints hold besides tensors and can do no harm, for torch.serialization.safe_globals;
# NumPy 1 and 2, and Python up to 3.12 and from 3.13, use different names for the same thing.
SAFE_GLOBALS: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (SafeArray, "numpy.ndarray"),
    (SafeDtype, "numpy.dtype"),
    (SafeNamespace, "argparse.Namespace"),
    (PosixPath, "pathlib.PosixPath"),
    (PosixPath, "pathlib._local.PosixPath"),
]


class CheckpointFile:
    """A checkpoint file. It is opened when its content is first used; nothing in it is run unless
    the file is trusted. A format that does not use ``content`` can read ``path`` in its own way.

    Args:
        path (Path): The file.
        trust_pickle (bool): Whether opening the file may run its author's code. Default: False.
    """

    def __init__(self, path: Path, trust_pickle: bool = False) -> None:
        self.path, self.trust_pickle = path, trust_pickle
        self.opened_by = "the format"  # or safetensors, weights_only, pickle, once it is opened

    def check_layout(self, matches: bool, format: str) -> None:
        """Raises an error if the caller named a format that the file does not match."""
        if not matches:
            raise ValueError(
                f"{self.path} does not have the layout of {format}: leave out `format`"
            )

    @property
    def entries(self) -> Mapping[Any, Any]:
        """The content if it is a dict, else an empty one."""
        return self.content if isinstance(self.content, Mapping) else {}

    @cached_property
    def content(self) -> Any:
        """Usually a dict, with its tensors on the CPU.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a checkpoint, is damaged or too large, or needs pickle.
        """
        path = self.path
        if not path.is_file():
            hint = " (a folder is read without `arch` and `num_classes`)" if path.is_dir() else ""
            raise FileNotFoundError(f"there is no checkpoint file at {path}{hint}")
        self._check_size(path.stat().st_size, "has")
        with path.open("rb") as file:
            head = file.read(512)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < SIZE_LIMIT:
            with reading(path, "is no safetensors file", AGAIN), safe_open(path, "pt") as tensors:
                self.opened_by = "safetensors"
                return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        if head.startswith(ZIP):
            return self._open_zip()
        if head.startswith(b"\x80") and LEGACY in head[:32]:
            return self._open_torch_file("a pickle of torch's old format")
        for start, meaning in OTHER_FILES.items():
            if head.lstrip().startswith(start):
                raise ValueError(f"{path} is not a checkpoint: it is {meaning}")
        if b"ustar" in head[257:265]:
            raise ValueError(f"{path} is not a checkpoint: it is {ARCHIVE}")
        is_pickle = False
        with suppress(Exception), path.open("rb") as file:  # whatever else it may be
            operations = itertools.islice(pickletools.genops(file), MAX_OPERATIONS)
            is_pickle = any(operation.name == "STOP" for operation, _, _ in operations)
        if not is_pickle:
            raise ValueError(
                f"{path} is not a checkpoint of a known format: it has {path.stat().st_size} bytes "
                f"and begins with {head[:16]!r}. Was the download complete?"
            )
        with self._trusted("a bare pickle"), path.open("rb") as file:
            return pickle.load(file)

    def _open_zip(self) -> Any:
        """A zip file: torch.save's, an archive that holds a program, or neither."""
        with reading(self.path, NOT_SAVED, AGAIN), zipfile.ZipFile(self.path) as archive:
            entries, directory = archive.infolist(), archive.start_dir
        self._check_size(sum(entry.file_size for entry in entries), "would unpack to")
        names = sorted(entry.filename for entry in entries)
        inner = {name.partition("/")[2] for name in names}  # without the archive's name
        if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
            with self._trusted("a TorchScript archive"):
                return torch.jit.load(self.path, "cpu")  # type: ignore[no-untyped-call]
        if "archive_format" in inner or "serialized_exported_program.json" in {*inner, *names}:
            with self._trusted("a torch.export archive"):
                return torch.export.load(self.path).module()
        if "data.pkl" in inner:
            self._check_zip(entries, directory)
            return self._open_torch_file("a pickle")
        raise ValueError(
            f"{self.path} is a zip file, but torch.save did not write it: it contains "
            f"{shown_names(names)}. If one of these is the checkpoint, unpack it and give that"
        )

    def _check_zip(self, entries: list[zipfile.ZipInfo], directory: int) -> None:
        """Refuses what torch.save never writes: a zip file in which torch's reader could see other
        files than Python's, or in which a few bytes unpack to many."""
        with self.path.open("rb") as file:
            file.seek(-ZIP_END.size, io.SEEK_END)
            mark, *_, offset, comment = ZIP_END.unpack(file.read())
        at_end = mark == b"PK\x05\x06" and not comment and offset in (directory, 0xFFFFFFFF)
        if not at_end or min(entry.header_offset for entry in entries) != 0:
            raise ValueError(
                f"{self.path} has its directory in another place than its end says, which "
                "torch.save never does: it may contain other things than it lists"
            )
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"{self.path} is compressed inside ({shown_names([entry.filename])}), which "
                    "torch.save never does: unpack it, and zip it again without compression "
                    "(zip -0)"
                )
            if entry.filename.lower().endswith(PICKLE_ENDINGS) and entry.file_size > PICKLE_LIMIT:
                raise ValueError(
                    f"{self.path} has {entry.file_size / 2**20:.0f} MiB besides its tensors, more "
                    f"than the limit of {PICKLE_LIMIT / 2**20:.0f} MiB: ask for a plain state dict"
                )

    def _open_torch_file(self, kind: str) -> Any:
        """What torch.save wrote: harmless values, or else a pickle, refused or trusted."""
        # as an open file: torch would treat a name that ends in .safetensors differently
        with self.path.open("rb") as file:
            allowed = torch.serialization.safe_globals(SAFE_GLOBALS)
            with reading(self.path, NOT_SAVED, AGAIN), allowed:
                try:
                    self.opened_by = "weights_only"
                    return torch.load(file, map_location="cpu", weights_only=True)
                except UnsafeValueError as error:
                    kind += f" (with {error})"
                except pickle.UnpicklingError as error:  # more than weights and harmless values
                    if refused := re.search(r"GLOBAL (\S+)", str(error)):  # as torch names it
                        kind += f" (that imports {shown_names([refused[1]])})"
            file.seek(0)
            with self._trusted(kind):
                return torch.load(file, map_location="cpu", weights_only=False)

    def _check_size(self, size: int, verb: str) -> None:
        if size > SIZE_LIMIT:
            raise ValueError(
                f"{self.path} {verb} {size / 2**30:.1f} GiB, more than the limit of "
                f"{SIZE_LIMIT / 2**30:.1f} GiB for a checkpoint"
            )

    @contextmanager
    def _trusted(self, kind: str) -> Iterator[None]:
        """For code that runs what is in a file: refused unless the file is trusted."""
        if not self.trust_pickle:
            raise ValueError(REFUSAL.format(path=self.path, kind=kind))
        self.opened_by = "pickle"
        with reading(self.path, "needs code that can't be imported here", "run this where it can"):
            yield


def shown_names(names: list[str]) -> str:
    """A list of names, shortened, and without characters that could control a terminal."""
    return join_names([printable(name[:80]) for name in names], MOST_NAMES)

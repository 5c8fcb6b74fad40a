"""Pickles of strangers: the names that they import, and checked stand-ins for harmless classes.

NumPy's pickle code trusts the file, which could make it read memory outside its arrays."""

import itertools
import math
import pickletools
import re
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PosixPath
from typing import IO, Any

import numpy as np

from captum_classpattern._validation import join_names

MAX_OPERATIONS = 1_000_000  # of a pickle: a few bytes can unpack to very many
MAX_NAMES = 20  # in a message
MAX_PICKLES = 5  # in a file: torch's old format has so many before its tensors
MARK = object()
SAFE_KINDS = "biufcSU"  # booleans, numbers and text; no objects, which would be pointers


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


def operations(file: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """A pickle's operations, up to a limit."""
    return itertools.islice(pickletools.genops(file), MAX_OPERATIONS)


def imported_names(file: IO[bytes]) -> Iterator[str]:
    """The names that the pickles at the start of a file would import. Nothing is imported.

    Follows what each operation leaves on the stack; "?" stands for a name that is computed while
    the pickle runs. ``torch.serialization.get_unsafe_globals_in_checkpoint`` reads neither pickles
    of protocol 4, nor files of torch's old format.
    """
    for _ in range(MAX_PICKLES):
        stack: list[Any] = []
        memo: dict[Any, Any] = {}
        name = ""
        with suppress(Exception):  # damaged, or the tensors that follow the pickles of an old file
            for operation, argument, _ in operations(file):
                name = operation.name
                if name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif name == "STACK_GLOBAL":
                    yield ".".join(n if isinstance(n, str) else "?" for n in [None, *stack][-2:])
                elif name == "MEMOIZE" or name.endswith("PUT"):
                    memo[len(memo) if argument is None else argument] = stack[-1]
                _update(stack, operation, argument, memo)
        if name != "STOP":
            return


def _update(
    stack: list[Any], operation: pickletools.OpcodeInfo, argument: Any, memo: dict[Any, Any]
) -> None:
    """Changes the stack as an operation does. Only texts are kept; all else becomes None."""
    before, after, name = operation.stack_before, operation.stack_after, operation.name
    if pickletools.markobject in before:
        while stack and stack.pop() is not MARK:
            pass
        before = before[: before.index(pickletools.markobject)]
    top = stack[-1] if stack else None
    del stack[len(stack) - len(before) :]
    if name == "MARK":
        stack.append(MARK)
    elif name == "DUP":
        stack += [top, top]
    elif name.endswith("GET"):
        stack.append(memo.get(argument))
    elif name == "MEMOIZE" or name.endswith("PUT"):
        stack += [top] * len(before)
    else:
        is_text = "UNICODE" in name or "STRING" in name
        stack += [argument if is_text else None] * len(after)


def printable(names: list[str]) -> str:
    """A list of names, shortened, and without characters that could control a terminal."""
    return join_names([re.sub(r"[^\x20-\x7e]", "?", name)[:80] for name in names], MAX_NAMES)

"""NumPy's numbers and arrays in checkpoints, rebuilt by checked code: NumPy's own trusts the file,
which could let it read memory that is not its own."""

import math
from typing import Any

import numpy as np

KINDS = "biufcSU"  # booleans, numbers and text: no objects, which would be pointers


class NotHarmlessError(ValueError):
    """What a checkpoint holds is no number or array of numbers."""


class Kind:
    """Stands for ``numpy.dtype``."""

    __slots__ = ("dtype",)  # so that no other object can be turned into one

    def __init__(self, code: Any, *more: Any) -> None:
        self.dtype = _checked(code)

    def __setstate__(self, state: Any) -> None:
        """Takes the byte order alone, and nothing that changes the layout."""
        if not isinstance(state, tuple) or len(state) != 8:
            raise NotHarmlessError("a NumPy dtype of an unknown form")
        _, order, subarray, names, fields, size, _, flags = state
        if (subarray, names, fields, flags) != (
            None,
            None,
            None,
            self.dtype.flags,
        ) or order not in "<>|=":
            raise NotHarmlessError("a NumPy dtype with fields or flags")
        if size not in (-1, self.dtype.itemsize):
            raise NotHarmlessError("a NumPy dtype of a size that is not its own")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class Array(np.ndarray):
    """Stands for ``numpy.ndarray``; its content is checked before NumPy sees it."""

    filled = False

    def __new__(cls, *arguments: Any, **keywords: Any) -> "Array":
        raise NotHarmlessError("a NumPy array that is not made as NumPy's pickles make it")

    def __setstate__(self, state: Any) -> None:
        if self.filled:  # a tensor may share its memory by now
            raise NotHarmlessError("a NumPy array that is filled twice")
        self.filled = True
        if not isinstance(state, tuple) or len(state) != 5:
            raise NotHarmlessError("a NumPy array of an unknown form")
        _, shape, kind, fortran, raw = state
        sizes = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
        if not sizes or not isinstance(kind, Kind) or not isinstance(raw, bytes):
            raise NotHarmlessError("a NumPy array of objects")
        if math.prod(shape) * kind.dtype.itemsize != len(raw):
            raise NotHarmlessError("a NumPy array whose shape does not fit its bytes")
        super().__setstate__((1, shape, kind.dtype, bool(fortran), bytes(bytearray(raw))))  # type: ignore[arg-type]


def reconstruct(subtype: Any, shape: Any, code: Any) -> Array:
    """Stands for ``numpy._core.multiarray._reconstruct``: an empty array, to be filled."""
    if subtype is not Array:
        raise NotHarmlessError("a NumPy array of another class")
    made: Array = np.ndarray.__new__(Array, (0,), np.int8)
    return made


def scalar(kind: Any, raw: Any) -> Any:
    """Stands for ``numpy._core.multiarray.scalar``."""
    if not isinstance(kind, Kind) or not isinstance(raw, bytes) or len(raw) != kind.dtype.itemsize:
        raise NotHarmlessError("a NumPy number whose bytes do not fit its kind")
    return np.frombuffer(raw, kind.dtype)[0] if raw else kind.dtype.type()


def _checked(code: Any) -> "np.dtype[Any]":
    try:
        made = np.dtype(code) if isinstance(code, str) else None
    except TypeError:
        made = None
    if made is None or made.kind not in KINDS or made.names or made.subdtype:
        raise NotHarmlessError("a NumPy dtype: only numbers and text are read")
    return made

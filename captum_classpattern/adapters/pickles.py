"""The globals that a pickle asks for, read without importing them, and those that do no harm."""

import itertools
import pickletools
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import PosixPath
from typing import IO, Any

from captum_classpattern.adapters.arrays import Array, Kind, NotHarmlessError, reconstruct, scalar

OPERATIONS = 1_000_000
NAMES_SHOWN = 20
PICKLES = 5  # of torch's old format, before the tensors; others are one pickle alone
MARK = object()


class Arguments(Namespace):
    """Stands for ``argparse.Namespace``: values by names, none of them one of Python's own."""

    def __setstate__(self, state: Any) -> None:
        named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
        if not named or any(key.startswith("__") for key in state):
            raise NotHarmlessError("an argparse.Namespace that is none")
        self.__dict__.update(state)
        self.__class__ = Namespace  # type: ignore[assignment]  # once filled it is what it seems


def harmless() -> list[Any]:
    """What checkpoints hold beside tensors, and what can do no harm: numbers and arrays of NumPy
    (under the names of NumPy 1 and 2) by checked stand-ins, command-line settings, paths."""
    functions = [
        (function, f"numpy.{core}.multiarray.{name}")
        for name, function in (("_reconstruct", reconstruct), ("scalar", scalar))
        for core in ("core", "_core")
    ]
    paths = [(PosixPath, "pathlib.PosixPath"), (PosixPath, "pathlib._local.PosixPath")]
    return [
        *functions,
        *paths,
        (Array, "numpy.ndarray"),
        (Kind, "numpy.dtype"),
        (Arguments, "argparse.Namespace"),
    ]


def operations_of(file: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """A pickle's operations, up to a million: a few bytes can unpack to very many."""
    return itertools.islice(pickletools.genops(file), OPERATIONS)


def globals_of(file: IO[bytes]) -> Iterator[str]:
    """The names that a file's pickles would import, by following what each operation leaves on
    the stack; "?" for a name that is made up while the pickle runs. Ends where no pickle does."""
    for _ in range(PICKLES):
        stack: list[Any] = []
        memo: dict[Any, Any] = {}
        try:
            for operation, argument, _ in operations_of(file):
                name = operation.name
                if name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif name == "STACK_GLOBAL":
                    yield ".".join(n if isinstance(n, str) else "?" for n in [None, *stack][-2:])
                elif name == "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                elif name.endswith("PUT"):
                    memo[argument] = stack[-1]
                _follow(stack, operation, argument, memo)
            if name != "STOP":
                return
        except Exception:  # damaged, or the tensors that follow the pickles of an old file
            return


def _follow(
    stack: list[Any], operation: pickletools.OpcodeInfo, argument: Any, memo: dict[Any, Any]
) -> None:
    """What the stack holds after an operation, as far as strings go; anything else is None."""
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
    elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
        stack += [top] * len(before)
    else:
        is_text = "UNICODE" in name or "STRING" in name
        stack += [argument if is_text else None] * len(after)


def shown(names: list[str]) -> str:
    """Names in a sentence, not too many, and without what could steer a terminal."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    plain = (re.sub(r"[^\x20-\x7e]", "?", name)[:80] for name in names[:NAMES_SHOWN])
    return ", ".join(plain) + more

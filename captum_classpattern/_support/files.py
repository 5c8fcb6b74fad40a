"""Files that are either complete or absent, and what strangers wrote into files."""

import hashlib
import io
import json
import math
import os
import secrets
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LARGEST_TEXT = 2**30  # bytes


def check_folder(path: str | os.PathLike[str] | None) -> Path | None:
    """The folder, if one is given; an error at once unless it can be made and written."""
    if path is None:
        return None
    if not os.fspath(path):
        raise ValueError("an empty name is not a folder that can be written: give another one")
    existing = next(p for p in (Path(path), *Path(path).absolute().parents) if p.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise ValueError(f"{existing} is not a folder that can be written: give another one")
    return Path(path)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a temporary file in the same folder, which is renamed once it is on the disk, so that
    ``path`` never holds half a file, even after a power failure. An error leaves no file."""
    start = path.name[:50]  # a name may have 255 bytes, and a character four
    temporary = path.with_name(f".{start}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def hash_of_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(data: Any, path: Path) -> None:
    """Writes JSON; a file that is there already is replaced whole or not at all."""
    write_atomically(path, (to_json(data, indent=2) + "\n").encode())


def write_figure(figure: Any, path: Path) -> None:
    """Writes a matplotlib figure as PNG; all of it or nothing."""
    figure.savefig(png := io.BytesIO(), format="png", dpi=110)
    write_atomically(path, png.getvalue())


@contextmanager
def reading(path: object, otherwise: str, remedy: str) -> Iterator[None]:
    """Turns any error about a stranger's file in this block into one ValueError, which names the
    file, says what it is if it isn't damaged, and what to do."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(f"{path} is damaged, or {otherwise} ({reason:.500}): {remedy}") from error


def reason_of(error: Exception) -> str:
    """What an error says in a line, without long lists; with its kind unless the words suffice."""
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    text = printable(" ".join(str(error).strip().partition("\n\n")[0].split()))
    is_ours = isinstance(error, TypeError) and type(error) is not TypeError
    words_suffice = text and (is_ours or isinstance(error, ValueError | OSError | ImportError))
    return text if words_suffice else f"{type(error).__name__}: {text}".removesuffix(": ")


def read_text(path: Path, largest: int | None = None) -> str:
    """A stranger's text in UTF-8."""
    if (size := path.stat().st_size) > (LARGEST_TEXT if largest is None else largest):
        raise ValueError(f"it has {size:,} bytes")
    return path.read_bytes().decode("utf-8-sig")


def check_kinds(values: Mapping[str, Any], **kinds: Any) -> None:
    """Raises an error unless these values of a stranger's JSON are of these kinds, or missing."""
    for name, kind in kinds.items():
        if not isinstance(value := values.get(name), kind | None):
            raise ValueError(f"{name} is {value!r:.80}")


def parse_json(text: str) -> Any:
    """What a stranger's JSON holds, without NaN, infinity and numbers that are too large."""

    def finite(digits: str) -> float:
        if not math.isfinite(number := float(digits)):
            raise ValueError(f"it has the number {digits:.20}")
        return number

    def whole(digits: str) -> int:
        return int(digits) if finite(digits) else 0

    return json.loads(text, parse_int=whole, parse_float=finite, parse_constant=finite)


def to_json(data: Any, indent: int | None = None) -> str:
    """Data as :func:`parse_json` reads it: numbers that are not finite become null."""
    plain = json.loads(json.dumps(data), parse_constant=lambda _: None)
    return json.dumps(plain, indent=indent)


def printable(text: object, keep: str = "") -> str:
    """A text that is safe to print: without line breaks and other characters that control a
    terminal or can't be encoded, which names in files may hold. Some may be kept. Spaces of all
    kinds become plain ones."""

    def shown(c: str) -> str:
        if c.isprintable() or c in keep:
            return c
        return " " if unicodedata.category(c) == "Zs" else "?"

    return "".join(map(shown, str(text)))

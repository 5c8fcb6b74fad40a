"""Files that are either complete or not there."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def check_folder(path: str | os.PathLike[str] | None) -> Path | None:
    """The folder, if one is given; an error, before hours of work are lost, unless it can be made
    and written."""
    if path is None:
        return None
    existing = next(p for p in (Path(path), *Path(path).absolute().parents) if p.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise ValueError(f"{existing} is not a folder that can be written: give another one")
    return Path(path)


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file in the same folder, which is renamed once it is on the disk, so that
    ``path`` never holds half a file, even after a power failure. An error leaves no file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def hash_of_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a whole file, see :func:`replace_file`."""
    with replace_file(path) as file:
        file.write(data)


def write_json(data: Any, path: Path) -> None:
    """Writes JSON; a file that is there already is replaced whole or not at all."""
    write_atomically(path, (json.dumps(data, indent=2) + "\n").encode())


def write_figure(figure: Any, path: Path) -> None:
    """Writes a matplotlib figure as PNG, see :func:`replace_file`."""
    with replace_file(path) as file:
        figure.savefig(file, format="png", dpi=110)

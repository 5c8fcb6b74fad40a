"""Files and folders that are either complete or not there."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


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


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder next to ``folder``, which takes its place when the block ends without
    an error. A killed process leaves it there, with a dot before its name."""
    token = secrets.token_hex(8)
    new, old = (folder.with_name(f".{folder.name}.{token}.{end}") for end in ("new", "old"))
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)

"""Files that are either complete or not there."""

import secrets
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a temporary file in the same folder and renames it, so that ``path`` never holds
    half a file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

"""Hashes of images, by which a search image is recognised wherever it turns up again."""

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

BYTES = 6  # of one image: among a million images two agree by chance once in 560 cases


def hash_of_image(image: Tensor, n_bytes: int = BYTES) -> str:
    """A hash of an image's pixels in 256 steps, so that an exact copy is recognised."""
    pixels = (image.detach().cpu().float() * 255).round().to(torch.uint8).contiguous()
    return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=n_bytes).hexdigest()


def hash_of_set(hashes: Iterable[str]) -> str:
    """One hash of a set of images, whatever their order."""
    return hashlib.blake2b("".join(sorted(hashes)).encode(), digest_size=16).hexdigest()


def pack(hashes: Iterable[str]) -> Tensor:
    """Hashes as bytes for a file, uint8 (N, 6), in order."""
    data = bytearray.fromhex("".join(sorted(hashes)))
    return torch.tensor(list(data), dtype=torch.uint8).view(-1, BYTES)


def unpack(packed: Tensor) -> frozenset[str]:
    """The hashes that :func:`pack` made into bytes; an error if these are none."""
    if packed.dtype != torch.uint8 or packed.shape[1:] != (BYTES,):
        raise ValueError(f"hashes must be uint8 (N, {BYTES}), got {packed.dtype} {packed.shape}")
    text = packed.numpy().tobytes().hex()
    return frozenset(text[i : i + 2 * BYTES] for i in range(0, len(text), 2 * BYTES))


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file beside its place and renames it, so that a finished one is never half lost."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

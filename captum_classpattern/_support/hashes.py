"""Hashes of images, by which exact copies are found."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

HASH_BYTES = 6  # per image: two of a million images share a hash with a probability of 1/560


def image_hash(image: Tensor) -> str:
    """A hash of an image's pixels, rounded to 256 levels, by which exact copies are found."""
    pixels = (image.detach().cpu().float() * 255).round_().to(torch.uint8)
    return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=HASH_BYTES).hexdigest()


def combined_hash(hashes: Iterable[str]) -> str:
    """One hash of many, in any order."""
    return hashlib.blake2b("".join(sorted(hashes)).encode(), digest_size=16).hexdigest()


def pack_hashes(hashes: Iterable[str]) -> Tensor:
    """Hashes of images as uint8 (N, 6), in order."""
    data = bytearray.fromhex("".join(sorted(hashes)))
    return torch.frombuffer(data, dtype=torch.uint8).view(-1, HASH_BYTES)


def unpack_hashes(packed: Tensor) -> frozenset[str]:
    """The hashes that :func:`pack_hashes` packed."""
    if packed.dtype != torch.uint8 or packed.shape[1:] != (HASH_BYTES,):
        raise ValueError(
            f"hashes must be uint8 (N, {HASH_BYTES}), got {packed.dtype} {packed.shape}"
        )
    return frozenset(row.tobytes().hex() for row in packed.numpy())

"""Networks as differences from the published one that they were trained from: half as large.

    python benchmarks/photos/differences.py FOLDER/few.safetensors

writes ``few.safetensors.xz`` beside the file. What is read back is the same bit for bit.
"""

import lzma
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save
from torch import Tensor

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 3, "lp": 1, "pb": 1}]  # of two bytes each


def bits(weights: Tensor) -> Tensor:
    """Those of float16 numbers, as integers: near ones are near, if their signs are the same."""
    return weights.half().contiguous().view(torch.int16)


def packed(weights: Mapping[str, Tensor], published: Mapping[str, Tensor]) -> bytes:
    """Weights in float16, as differences from those of the same names."""
    changes = {name: bits(each) - bits(published[name]) for name, each in weights.items()}
    return lzma.compress(save(changes), filters=FILTERS)


def unpacked(file: Path, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that were packed."""
    changes = load(lzma.decompress(file.read_bytes()))
    return {n: (bits(published[n]) + each).view(torch.float16) for n, each in changes.items()}


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    from problems import lite

    for given in map(Path, sys.argv[1:]):
        data = packed(load_file(given), lite().state_dict())
        given.with_name(f"{given.name}.xz").write_bytes(data)

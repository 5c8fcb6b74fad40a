"""Hashes of the models and values that results depend on, to tell whether they are the same."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from captum_classpattern.classifier import Classifier, find_module


def hash_of_model(forward_func: Classifier) -> str | None:
    """A hash of the types, the weights and all other tensors of a model's layers; None for a plain
    function."""
    module = find_module(forward_func)
    if module is None:
        return None
    digest = hashlib.sha256()
    for layer in module.modules():
        digest.update(type(layer).__name__.encode())
        for name, value in {**layer._parameters, **layer._buffers, **vars(layer)}.items():
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                data = value.detach().cpu().contiguous().flatten().view(torch.uint8)
                digest.update(data.numpy().tobytes())
    return digest.hexdigest()


def hash_of(value: Any) -> str:
    """A hash of a value's text."""
    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()

"""What a model is, for files: its weights, and what it answers to a few images."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_classpattern._validation import join_names
from captum_classpattern.pattern import image_hash

TOLERANCE = 0.02  # of the range of the logits: more than processors, or their precisions, differ
COMPARED = 10  # logits of a probe


def hash_of_model(networks: nn.Module | Iterable[nn.Module]) -> str | None:
    """A hash of the types, the weights and all other tensors of a model's layers; None without any
    network."""
    networks = [networks] if isinstance(networks, nn.Module) else [*networks]
    digest = hashlib.sha256()
    for layer in (layer for network in networks for layer in network.modules()):
        digest.update(type(layer).__name__.encode())
        for name, value in {**layer._parameters, **layer._buffers, **vars(layer)}.items():
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                data = value.detach().cpu().contiguous().flatten().view(torch.uint8)
                digest.update(data.numpy().tobytes())
    return digest.hexdigest() if networks else None


def probe(logits_of: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, str]:
    """What a model answers where patterns look: up to ten of its logits and the largest, as text,
    for some images as they are, with noise and with half of their pixels inverted, and for a white
    and a black image. Images (N, C, H, W) are called by their hashes."""
    images, generator = images.detach().cpu().float(), torch.Generator().manual_seed(0)
    noise = 0.25 * torch.randn(images.shape[1:], generator=generator)
    half = torch.rand(images.shape[2:], generator=generator) < 0.5
    probes = {"white": torch.ones_like(images[0]), "black": torch.zeros_like(images[0])}
    for image in images:
        name = f"image {image_hash(image)[:6]}"
        probes[name] = image
        probes[f"{name} with noise"] = (image + noise).clamp(0, 1)
        probes[f"{name}, half inverted"] = torch.where(half, 1 - image, image)
    logits = logits_of(torch.stack([*probes.values()])).detach().double().cpu()
    chosen = torch.linspace(0, logits.shape[1] - 1, min(COMPARED, logits.shape[1])).long()
    rows = torch.cat([logits[:, chosen], logits.amax(1, keepdim=True)], 1)
    return {name: " ".join(f"{x:.5g}" for x in row) for name, row in zip(probes, rows.tolist())}


def difference(one: Any, other: Any) -> str:
    """How two models differ, by their :attr:`CheckedModel.identity`; empty if they don't. Probes
    are compared where both have them. In files of version 0.4, a hash of the weights is all."""
    first, second = (x if isinstance(x, Mapping) else {"weights": x} for x in (one, other))
    if first.get("weights") != second.get("weights"):
        return "its weights"
    rows = [each.get("probes") or {} for each in (first, second)]
    pairs = {name: [_numbers(row[name]) for row in rows] for name in rows[0] if name in rows[1]}
    if not pairs and first.get("weights") is None:
        return "what is known of it"
    if any(len(pair[0]) != len(pair[1]) for pair in pairs.values()):
        return "the number of its classes"
    values = [value for pair in pairs.values() for value in (*pair[0], *pair[1])]
    most = TOLERANCE * (max(values, default=0.0) - min(values, default=0.0))
    far = [n for n, pair in pairs.items() if any(abs(a - b) > most for a, b in zip(*pair))]
    return f"its logits for {join_names(far, 3)}" if far else ""


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split()]


def hash_of(value: Any) -> str:
    """A hash of a value's text."""
    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()

"""What a model is, for files: its weights, and what it answers to a few images."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_classpattern._support.hashes import image_hash
from captum_classpattern._support.validation import join_names

TOLERANCE = 0.02  # of the range of a probe's logits: more than processors and precisions differ
NUMBERS = 10  # of a probe
STAMPED = 0.05  # of the pixels


def hash_of_weights(networks: Iterable[nn.Module], constants: Iterable[Tensor]) -> str | None:
    """A hash of the weights of networks, whatever wraps them, and of other tensors; None without
    any network."""
    digest, layers = hashlib.sha256(), [part for each in networks for part in each.modules()]
    for layer in layers:
        for name, value in {**layer._parameters, **layer._buffers}.items():
            if value is not None:
                _add(digest, f"{type(layer).__name__} {name}", value)
    for value in constants:
        _add(digest, "", value)
    return digest.hexdigest() if layers else None


def _add(digest: Any, name: str, value: Tensor) -> None:
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    digest.update(data.numpy().tobytes())


def probes_of(images: Tensor) -> dict[str, Tensor]:
    """Images like those of a search: some (N, C, H, W) as they are, with noise, with half of their
    pixels inverted, and with a few pixels or a square of other colours; and a white and a black
    image. Images are named by their hashes."""
    images, generator = images.detach().cpu().float(), torch.Generator().manual_seed(0)
    height, width = images.shape[2:]
    noise, places = (
        torch.randn(n, height, width, generator=generator) for n in (len(images[0]), 1)
    )
    half, few = places < 0, places > places.quantile(1 - STAMPED)
    square = torch.zeros_like(few)
    square[:, : -(-height // 4), : -(-width // 4)] = True
    probes = {"white": torch.ones_like(images[0]), "black": torch.zeros_like(images[0])}
    for image in images:
        name, white = f"image {image_hash(image)[:6]}", torch.ones_like(image)
        probes |= {
            name: image,
            f"{name} with noise": (image + noise / 4).clamp(0, 1),
            f"{name}, half inverted": image.where(~half, 1 - image),
            f"{name} with white pixels": image.where(~few, white),
            f"{name} with black pixels": image.where(~few, 0 * white),
            f"{name} with a square": image.where(~square, 1 - image.flip(1, 2)),
        }
    return probes


def in_few_numbers(logits: Tensor) -> str:
    """The logits (K,) of a probe, or ten random sums of them if there are more, as text."""
    values = logits.detach().double().cpu()
    if len(values) > NUMBERS:
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(NUMBERS, len(values), generator=generator, dtype=torch.float64)
        values = weights @ values / len(values) ** 0.5
    return " ".join(f"{value:.5g}" for value in values.tolist())


def difference(one: Any, other: Any) -> str:
    """How two models differ, by their :meth:`CheckedModel.identity`; empty if they don't. Probes
    are compared where both have them."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return "" if one == other and one is not None else "what is known of it"
    if one.get("weights") != other.get("weights"):
        return "its weights"
    rows = [each.get("probes") or {} for each in (one, other)]
    both = [name for name in rows[0] if name in rows[1]]
    pairs = {n: [torch.tensor([*map(float, row[n].split())]) for row in rows] for n in both}
    if not pairs and one.get("weights") is None:
        return "what is known of it"
    if any(len(row) != len(same) for row, same in pairs.values()):
        return "the number of its classes"
    far = [n for n, (row, same) in pairs.items() if not are_close(row, same)]
    return f"its logits for {join_names(far, 3)}" if far else ""


def are_close(first: Tensor, second: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether the logits of an image are the same, up to a share of their range."""
    if not first.isfinite().all():  # such as those of a model that divides by the contrast
        return torch.equal(first.isfinite(), second.isfinite())
    most = tolerance * float(first.max() - first.min()) + 1e-5 * float(first.abs().max())
    return bool(((first - second).abs() <= most).all())


def hash_of(value: Any) -> str:
    """A hash of a value's text."""
    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()

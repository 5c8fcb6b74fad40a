"""The pattern: some pixels of one canvas image that stand for one class."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from captum.robust import Perturbation
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captum_classpattern._files import hash_of_set, pack, unpack, write_whole
from captum_classpattern._validation import ArgumentTypeError

FORMAT = "captum_classpattern.Pattern"


@dataclass(frozen=True, eq=False, repr=False)
class Pattern(Perturbation):  # type: ignore[misc]  # captum's class is untyped
    r"""
    A canvas, a mask over its pixels, and the class that they stand for (Zhao et al. 2021,
    arXiv 2101.06898, section 3.2).

    A searched pattern and a backdoor's true trigger are both of this type. Patterns are frozen
    and compared by identity. A pattern is also a ``captum.robust.Perturbation``, for
    ``AttackComparator`` and ``MinParamPerturbation``.

    Args:
        canvas (Tensor): The image that the pixels are cut from, (C, H, W) in [0, 1].
        mask (Tensor): Weight of each pixel, shared by the channels, (1, H, W) in [0, 1].
        target (int): The class.
        info (dict): How the pattern was found: settings, seed, passes, loss curve, score on
            the search images, and so on; must be JSON serialisable to be saved. Default: {}.
        seen (frozenset[str], optional): Hashes of the search images, none of which may be scored
            on. None where they are not known, as of a file that has lost the one beside it.
            Default: none.

    Raises:
        TypeError: If canvas or mask is no floating point Tensor, or the target no int.
        ValueError: If a shape, or a value outside [0, 1], does not fit.

    Examples::

        >>> canvas = torch.rand(3, 8, 8)
        >>> mask = torch.linspace(0, 1, 64).view(1, 8, 8)
        >>> pattern = Pattern(canvas, mask, target=2)
        >>> int(pattern.topk(area=0.25).mask.sum())
        16
        >>> pattern.stamp(torch.rand(5, 3, 8, 8)).shape
        torch.Size([5, 3, 8, 8])
    """

    canvas: Tensor
    mask: Tensor
    target: int
    info: dict[str, Any] = field(default_factory=dict)
    seen: frozenset[str] | None = frozenset()

    def __post_init__(self) -> None:
        for name, value in (("canvas", self.canvas), ("mask", self.mask)):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise ArgumentTypeError(
                    f"{name} must be a floating point Tensor in [0, 1], got {kind}"
                )
        if self.canvas.ndim != 3:
            raise ValueError(f"canvas must be (C, H, W), got {tuple(self.canvas.shape)}")
        if self.mask.shape != (1, *self.canvas.shape[1:]):
            raise ValueError(
                f"mask must be (1, H, W) with the canvas's H and W, expected "
                f"{(1, *self.canvas.shape[1:])}, got {tuple(self.mask.shape)}"
            )
        whole = isinstance(self.target, Integral) and not isinstance(self.target, bool)
        if not whole or self.target < 0:
            raise ArgumentTypeError(f"target must be a non-negative int, got {self.target!r}")
        object.__setattr__(self, "target", int(self.target))  # it may be NumPy's
        info = dict(self.info)  # its own, not the caller's
        if "search_image_hashes" in info:  # where version 0.1 kept them
            object.__setattr__(self, "seen", frozenset(info.pop("search_image_hashes")))
        object.__setattr__(self, "info", info)
        for name, value in (("canvas", self.canvas), ("mask", self.mask)):
            low, high = float(value.detach().min()), float(value.detach().max())
            if not (low >= 0 and high <= 1):  # written so that NaN fails too
                raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}")

    def __repr__(self) -> str:
        shape, power = tuple(self.canvas.shape), self.info.get("search_power")
        judged = f", search_power={power:.3}" if isinstance(power, Real) else ""
        return f"Pattern(target={self.target}, canvas={shape}, area={self.area:.4f}{judged})"

    @property
    def area(self) -> float:
        """Share of the pixels that the pattern is made of: of a searched one whose pixels have
        weights, the area that it was searched at; else the mean of the mask."""
        settings = self.info.get("settings")
        searched_at = settings.get("area") if isinstance(settings, dict) else None
        is_binary = bool(((self.mask == 0) | (self.mask == 1)).all())
        if is_binary or not isinstance(searched_at, Real):
            return float(self.mask.detach().cpu().double().mean())
        return float(searched_at)

    @property
    def pixels(self) -> Tensor:
        """What is left of the canvas, mask * canvas, (C, H, W)."""
        return self.mask.to(self.canvas) * self.canvas

    def topk(self, area: float) -> "Pattern":
        r"""
        Makes the mask binary: the ``round(area * H * W)`` largest weights become 1, the others 0.

        Equal weights are taken in reading order (row by row, from the upper left), so the
        result is the same everywhere.

        Args:
            area (float): Share of the pixels to keep.

        Returns:
            *Pattern*: A pattern of exactly that many pixels, on the same canvas.

        Raises:
            ValueError: If the area rounds to no pixel or to all of them.
        """
        k = pixels_kept(area, self.mask.shape[-2:])
        order = torch.argsort(self.mask.flatten(), descending=True, stable=True)
        binary = torch.zeros_like(self.mask).flatten()
        binary[order[:k]] = 1.0
        return replace(self, mask=binary.view_as(self.mask))

    def stamp(self, images: Tensor) -> Tensor:
        r"""
        Puts the pattern on images: mask * canvas + (1 - mask) * image.

        Args:
            images (Tensor): (N, C, H, W), or one image (C, H, W), on any device.

        Returns:
            *Tensor*: The stamped images, with shape, dtype and device of ``images``.

        Raises:
            ValueError: If the images are not of the canvas's C, H and W.
        """
        return self.perturb(images)

    def perturb(self, inputs: Tensor, strength: float = 1.0) -> Tensor:
        r"""
        Stamps with the mask times a strength, in the form of ``captum.robust.Perturbation``.

        Args:
            inputs (Tensor): Images (N, C, H, W) or one image (C, H, W).
            strength (float): Factor on the mask, in [0, 1]: 0 changes nothing. Default: 1.0.

        Returns:
            *Tensor*: The stamped images.

        Raises:
            TypeError: If the images are not floating point.
            ValueError: If the shapes do not fit, or the strength is not in [0, 1].
        """
        if inputs.ndim not in (3, 4) or inputs.shape[-3:] != self.canvas.shape:
            c, h, w = self.canvas.shape
            raise ValueError(
                f"images must be (N, {c}, {h}, {w}) or ({c}, {h}, {w}) to fit the pattern's "
                f"canvas, got {tuple(inputs.shape)}"
            )
        if not inputs.is_floating_point():
            raise ArgumentTypeError(f"images must be floating point, in [0, 1], got {inputs.dtype}")
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must lie in [0, 1], got {strength}")
        mask = strength * self.mask.to(inputs)
        return mask * self.canvas.to(inputs) + (1 - mask) * inputs

    def to(self, device: torch.device | str) -> "Pattern":
        r"""
        The same pattern on another device.

        Args:
            device (torch.device or str): Where canvas and mask go.

        Returns:
            *Pattern*: The moved pattern.
        """
        return replace(self, canvas=self.canvas.to(device), mask=self.mask.to(device))

    def save(self, path: str | os.PathLike[str], *, seen_beside: bool = False) -> None:
        r"""
        Writes the pattern as a safetensors file with JSON metadata and a checksum; no pickle.

        The file is written beside its place and renamed, so a finished one is never half lost.

        Args:
            path (str or PathLike): The file, by custom ``*.safetensors``.
            seen_beside (bool): Writes the hashes of the search images, six bytes each, not into
                this file but into ``seen_<hash>.safetensors`` beside it, which all patterns of one
                search share. Default: False.

        Raises:
            TypeError: If ``info`` holds what JSON cannot.
        """
        path, info = Path(path), dict(self.info)
        if self.seen and seen_beside:
            info["seen_file"] = _write_seen(path.parent, self.seen)
        elif self.seen is not None:
            info.pop("seen_file", None)
        else:  # as little is known of the file as of the pattern
            info.setdefault("seen_file", "unknown")
        tensors = {  # copies: safetensors refuses tensors that share memory
            name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in (("canvas", self.canvas), ("mask", self.mask))
        }
        if self.seen and not seen_beside:
            tensors["seen"] = pack(self.seen)
        metadata = {"format": FORMAT, "target": str(self.target), "info": json.dumps(info)}
        metadata["sha256"] = _checksum(tensors, metadata)
        write_whole(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Pattern":
        r"""
        Reads a pattern that :meth:`save` wrote. Nothing in the file is executed.

        Args:
            path (str or PathLike): The file.

        Returns:
            *Pattern*: The pattern, on the CPU.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a pattern, or has changed since it was written.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no pattern file at {path}")
        try:
            tensors, metadata = _read(path)
            target, info = int(metadata["target"]), json.loads(metadata["info"])
            if not isinstance(info, dict):
                raise ValueError("its info is no JSON object")
            seen = unpack(tensors["seen"]) if "seen" in tensors else _read_seen(path.parent, info)
            return cls(tensors["canvas"], tensors["mask"], target, info, seen)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path} is not a pattern written by Pattern.save (a safetensors file "
                f"whose metadata has format {FORMAT!r}): {error}"
            ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a pattern's file; an error if they don't fit its checksum, which
    files of version 0.1 don't have."""
    with safe_open(os.fspath(path), framework="pt") as file:
        metadata = dict(file.metadata() or {})
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its metadata has format {metadata.get('format')!r}")
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    if not {"canvas", "mask"} <= set(tensors) <= {"canvas", "mask", "seen"}:
        raise ValueError(f"it holds {', '.join(tensors) or 'nothing'}, not canvas and mask")
    unknown = set(metadata) - {"format", "target", "info", "sha256"}
    if unknown:
        raise ValueError(f"its metadata has {', '.join(sorted(unknown))}, which no pattern has")
    expected = metadata.pop("sha256", None)
    if expected is not None and expected != _checksum(tensors, metadata):
        raise ValueError("it has changed since it was written, so that its checksum does not fit")
    return tensors, metadata


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Of all that a file holds."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write_seen(folder: Path, seen: frozenset[str]) -> str:
    """Writes the hashes of a search's images once, into a file that is named by them."""
    name = f"seen_{hash_of_set(seen)}.safetensors"
    if not (folder / name).exists():
        write_whole(folder / name, save({"seen": pack(seen)}))
    return name


def _read_seen(folder: Path, info: dict[str, Any]) -> frozenset[str] | None:
    """The hashes of a search's images from the file beside; None if that isn't there, or if there
    was a search, and nothing says what it has seen."""
    if "seen_file" not in info:
        known = "search_image_hashes" in info or "search_images_hash" not in info
        return frozenset() if known else None
    name = str(info["seen_file"])
    if Path(name).name != name:  # a stranger's file must not choose another folder
        raise ValueError(f"it names {name!r} as the file of its search images")
    if not (folder / name).is_file():
        return None
    with safe_open(os.fspath(folder / name), framework="pt") as file:
        seen = unpack(file.get_tensor("seen"))
    if name != f"seen_{hash_of_set(seen)}.safetensors":
        raise ValueError(f"{name}, which holds its search images, has changed")
    return seen


def pixels_kept(area: float, size: Sequence[int]) -> int:
    """How many pixels of an H x W mask an area keeps; an error if that is none or all."""
    if isinstance(area, bool) or not isinstance(area, Real):
        raise ArgumentTypeError(f"area must be a number, the share of pixels to keep, got {area!r}")
    total = size[0] * size[1]
    k = round(area * total) if 0 <= area <= 1 else -1
    if not 0 < k < total:
        raise ValueError(
            f"area is the share of pixels to keep: {area} of {size[0]}x{size[1]} = {total} pixels "
            f"rounds to {'none or all' if k in (0, total) else 'a number out of range'}; choose "
            f"from {1 / total:.2g} to {1 - 1 / total:.4g}"
        )
    return k

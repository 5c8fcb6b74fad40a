"""The pattern: some pixels of one canvas image that stand for one class."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from captum.robust import Perturbation
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from captum_classpattern._support.files import parse_json, reading, to_json, write_atomically
from captum_classpattern._support.hashes import pack_hashes, unpack_hashes
from captum_classpattern._support.topk import pixels_kept, topk_masks
from captum_classpattern._support.validation import (
    ArgumentTypeError,
    check_fits,
    check_float_tensor,
    check_unit_range,
    is_whole,
)
from captum_classpattern.results import Result, as_table

PATTERN_FORMAT = "captum_classpattern.Pattern"
POWERS = ("search_power", "search_margin", "power_curve", "starts_iou")  # of one area


@dataclass(frozen=True, eq=False, repr=False)
class Pattern(Result, Perturbation):  # type: ignore[misc]  # captum's class is untyped
    r"""
    A canvas, a mask over its pixels, and the class that these pixels stand for (Zhao et al. 2021,
    arXiv 2101.06898, section 3.2).

    A searched pattern and a backdoor's true trigger are both of this type. Patterns are frozen
    and compared by identity. A pattern is also a ``captum.robust.Perturbation``, for
    ``AttackComparator`` and ``MinParamPerturbation``. Its ``plot`` draws the canvas, the mask on a
    scale from 0 to 1, and the binary pattern at :attr:`area`; :func:`plot_patterns` also draws
    stamped images and the power.

    Args:
        canvas (Tensor): The image that provides the pixels, (C, H, W) in [0, 1].
        mask (Tensor): Weight of each pixel, shared by the channels, (1, H, W) in [0, 1].
        target (int): The class.
        info (dict): How the pattern was found: settings, seed, passes, loss curve, score on
            the search images, and so on. It can be saved if JSON can represent it. Default: {}.
        seen (frozenset[str], optional): Hashes of the search images, on which the pattern can't
            be scored. None if they are unknown. Default: frozenset().

    Raises:
        TypeError: If canvas or mask is not a floating point Tensor, or the target not an int.
        ValueError: If a shape does not fit, or a value lies outside [0, 1].

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
        check_unit_range(self.canvas, "canvas")
        check_unit_range(self.mask, "mask")
        if self.canvas.ndim != 3 or not self.canvas.numel():
            raise ValueError(f"canvas must be (C, H, W), got {tuple(self.canvas.shape)}")
        if self.mask.shape != (1, *self.canvas.shape[1:]):
            raise ValueError(
                f"mask must be (1, H, W) with the canvas's H and W, expected "
                f"{(1, *self.canvas.shape[1:])}, got {tuple(self.mask.shape)}"
            )
        if not is_whole(self.target) or self.target < 0:
            raise ArgumentTypeError(f"target must be a non-negative int, got {self.target!r}")
        object.__setattr__(self, "info", dict(self.info))  # the caller's dict stays unchanged
        object.__setattr__(self, "target", int(self.target))  # it may be NumPy's

    def __repr__(self) -> str:
        shape, power = tuple(self.canvas.shape), self.info.get("search_power")
        score = f", search_power={float(power):.3}" if isinstance(power, Real) else ""
        return f"Pattern(target={self.target}, canvas={shape}, area={self.area:.4f}{score})"

    @property
    def area(self) -> float:
        """Share of the pixels in the pattern. For a searched pattern whose pixels are weighted,
        this is the area it was searched at; otherwise, the mean of the mask."""
        settings = self.info.get("settings")
        searched_at = settings.get("area") if isinstance(settings, dict) else None
        is_binary = bool(((self.mask == 0) | (self.mask == 1)).all())
        if is_binary or not isinstance(searched_at, Real) or not 0 < float(searched_at) < 1:
            return float(self.mask.detach().cpu().double().mean())
        return float(searched_at)

    @property
    def pixels(self) -> Tensor:
        """The pixels that the mask keeps, mask * canvas, (C, H, W)."""
        return self.mask.to(self.canvas) * self.canvas

    @property
    def label(self) -> str:
        """The name of the class, or "class 3" if it has none."""
        return str(self.info.get("class_name") or f"class {self.target}")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (C, H, W) of the images that it fits."""
        return tuple(self.canvas.shape)

    def text(self) -> str:
        """Its size, and its power on the images used to choose it."""
        facts = self._size_in_words()
        power = self.info.get("search_power")
        if isinstance(power, float):
            facts.append(f"power {100 * power:.1f} % on the validation images, which chose it")
        return (
            f"Pattern of {self.label}\n{'; '.join(facts)}. predictive_power scores it on held-out "
            "images."
        )

    def _size_in_words(self) -> list[str]:
        kept, total = int((self.mask > 0).sum()), self.mask.numel()
        facts = [f"{100 * self.area:.3g} % of the {total:,} pixels"]
        if kept != round(self.area * total):
            facts.append(f"{kept:,} pixels have a weight")
        return facts

    def table(self) -> Any:
        """One row: ``class``, ``name``, ``search_power`` (the power on the validation images, if
        known), ``area``, and ``pixels``, the number of pixels with a weight."""
        power, pixels = self.info.get("search_power"), int((self.mask > 0).sum())
        row = {"class": self.target, "name": self.label, "search_power": power}
        return as_table([{**row, "area": self.area, "pixels": pixels}])

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.patterns import PatternRow, draw_patterns

        is_patch, binary = isinstance(self, MovingPattern), self.at_own_area().mask
        row = PatternRow(self.label, self.canvas, self.mask, binary, is_patch)
        return draw_patterns([row], area=self.area, masks=True, use_pyplot=use_pyplot)

    def sections(self, whole: bool) -> Iterable[Any]:
        return [self.plot]  # the text has the numbers

    def topk(self, area: float) -> "Pattern":
        """Makes the mask binary: at most the ``round(area * H * W)`` largest weights become 1, the
        others 0. Pixels of weight 0 are never kept. Raises an error if the area rounds to no pixel
        or all pixels.

        Ties are broken in reading order (row by row, from the upper left), so the result is the
        same on every device. At any area but its own, ``info`` lacks the powers of the search.
        """
        kept = pixels_kept(area, self.mask.shape[-2:])
        same = kept == round(self.area * self.mask.numel())
        info = {name: each for name, each in self.info.items() if same or name not in POWERS}
        return replace(self, mask=topk_masks(self.mask, kept), info=info)

    def at_own_area(self) -> "Pattern":
        """The binary pattern at :attr:`area`; unchanged if that keeps no pixel, or all."""
        k = round(self.area * self.mask.numel())
        return self.topk(self.area) if 0 < k < self.mask.numel() else self

    def stamp(self, images: Tensor) -> Tensor:
        """Puts the pattern on images (N, C, H, W) or (C, H, W), on any device: mask * canvas +
        (1 - mask) * image. The result has their shape, dtype and device. Raises an error unless
        they are floating point and have the canvas's C, H and W."""
        return self.perturb(images)

    def stamper(self, seed: int = 0) -> Callable[[Tensor], Tensor]:
        """A function that stamps one batch after another. The seed decides the places of a moving
        patch, whatever the batch size."""
        return self.stamp

    def perturb(self, inputs: Tensor, strength: float = 1.0) -> Tensor:
        """Stamps images like :meth:`Pattern.stamp`, with the mask times a strength in [0, 1]. This
        is the method of ``captum.robust.Perturbation``."""
        check_fits(inputs, self.image_shape, "images", "the pattern's canvas")
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must lie in [0, 1], got {strength}")
        return self._blend(inputs, strength * self.mask.to(inputs))

    def _blend(self, images: Tensor, mask: Tensor) -> Tensor:
        return mask * self.canvas.to(images) + (1 - mask) * images

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors by name: canvas, mask, and what a derived class adds."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> Self:
        """The same pattern, with its tensors on another device."""
        moved: dict[str, Any] = {name: each.to(device) for name, each in self._tensors().items()}
        return replace(self, **moved)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the pattern as a safetensors file with JSON metadata, without pickle. It holds the
        hashes of the search images, six bytes each. Raises an error if JSON can't represent
        ``info``; NaN and infinity become None.

        The file is replaced in one step: a failed save leaves the old file unchanged.
        """
        write_atomically(Path(path), save(*self.packed()))

    def packed(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors and the metadata of its file."""
        # unknown search images stay unknown
        unknown = {"seen_file": "unknown"} if self.seen is None else {}
        tensors = {  # copies: safetensors refuses tensors that share memory
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self._tensors().items()
        }
        if self.seen:
            tensors["seen"] = pack_hashes(self.seen)
        info = to_json({**unknown, **self.info})
        metadata = {"format": PATTERN_FORMAT, "target": str(self.target), "info": info}
        if isinstance(self, MovingPattern):
            metadata["size"] = to_json(self.size)
        return tensors, metadata

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Pattern":
        """Loads a pattern that :meth:`save` wrote, on the CPU, of the class that was saved. Nothing
        in the file is executed. Raises an error if there is no such file, or it is not a
        pattern."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no pattern file at {path}")
        with (
            reading(path, "was not written by Pattern.save", "save the pattern again"),
            safe_open(os.fspath(path), framework="pt") as file,
        ):
            metadata = file.metadata() or {}
            if metadata.get("format") != PATTERN_FORMAT:
                raise ValueError(f"its metadata has format {metadata.get('format')!r}")
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return cls.unpacked(tensors, metadata)

    @classmethod
    def unpacked(cls, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> "Pattern":
        """The pattern of :meth:`packed`, or an error of some kind."""
        own, known = {"canvas", "mask"}, {"change", "shifts", "seen"}
        if not own <= set(tensors) <= own | known:
            raise ValueError(f"it holds {', '.join(tensors) or 'nothing'}, not canvas and mask")
        target, info = int(metadata["target"]), parse_json(metadata["info"])
        if not isinstance(info, dict):
            raise ValueError("its info is not a JSON object")
        searched = {"seen_file", "search_images_hash"} & info.keys()
        seen = None if searched else frozenset[str]()
        if "seen" in tensors:
            seen = unpack_hashes(tensors.pop("seen"))
        info.pop("seen_file", None)
        more = {"size": parse_json(metadata["size"])} if "size" in metadata else {}
        kinds: dict[str, Any] = {"change": AdditivePattern, "shifts": WarpedPattern}
        found = (kinds[name] for name in kinds if name in tensors)
        kind: Any = MovingPattern if more else next(found, cls)
        return kind(target=target, info=info, seen=seen, **tensors, **more)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False, repr=False)
class AdditivePattern(Pattern):
    r"""
    A change that is added to pixels, whatever their colours: clip(image + mask * change, 0, 1).

    Args:
        canvas (Tensor): What the change looks like, for figures only: the mean changed colour of
            each pixel, (C, H, W) in [0, 1].
        mask (Tensor): Weight of each pixel's change, shared by the channels, (1, H, W) in [0, 1].
        target (int): The class.
        info, seen: As in :class:`Pattern`.
        change (Tensor): Added to the pixels, (C, H, W) in [-1, 1]. Keyword only.

    Raises:
        TypeError, ValueError: As :class:`Pattern`, or if the change does not have the canvas's
            shape, or has a value outside [-1, 1].

    Examples::

        >>> change = torch.full((1, 2, 2), -0.5)
        >>> darker = AdditivePattern(torch.rand(1, 2, 2), torch.ones(1, 2, 2), 0, change=change)
        >>> darker.stamp(torch.tensor([[[0.75, 0.5], [0.25, 1.0]]]))
        tensor([[[0.2500, 0.0000],
                 [0.0000, 0.5000]]])
    """

    change: Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_float_tensor(self.change, "change", "in [-1, 1]")
        if self.change.shape != self.canvas.shape:
            raise ValueError(
                f"change must have the canvas's shape {tuple(self.canvas.shape)}, got "
                f"{tuple(self.change.shape)}"
            )
        if not bool((self.change.abs() <= 1).all()):
            raise ValueError("change must lie in [-1, 1]")

    def _blend(self, images: Tensor, mask: Tensor) -> Tensor:
        return (images + mask * self.change.to(images)).clamp(0, 1)


@dataclass(frozen=True, eq=False, repr=False)
class WarpedPattern(Pattern):
    r"""
    A warp: each pixel gets the colour of another place of the image, in between by bilinear
    interpolation.

    Args:
        canvas (Tensor): What the warp does to a picture, for figures only, (C, H, W) in [0, 1].
        mask (Tensor): Weight of each pixel's shift, (1, H, W) in [0, 1].
        target (int): The class.
        info, seen: As in :class:`Pattern`.
        shifts (Tensor): How far from each pixel its colour is taken, in pixels: to the right and
            down, (2, H, W). Keyword only.

    Raises:
        TypeError, ValueError: As :class:`Pattern`, or if the shifts are not finite, or don't have
            the canvas's height and width.

    Examples::

        >>> right = torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 1, 3)
        >>> warp = WarpedPattern(torch.rand(1, 1, 3), torch.ones(1, 1, 3), 0, shifts=right)
        >>> warp.stamp(torch.tensor([[[0.0, 0.5, 1.0]]]))
        tensor([[[0.5000, 1.0000, 1.0000]]])
    """

    shifts: Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_float_tensor(self.shifts, "shifts", "in pixels")
        wanted = (2, *self.canvas.shape[1:])
        if self.shifts.shape != wanted or not bool(self.shifts.isfinite().all()):
            raise ValueError(
                f"shifts must be finite and have the shape {wanted}, got {tuple(self.shifts.shape)}"
            )

    def _blend(self, images: Tensor, mask: Tensor) -> Tensor:
        batch = images.reshape(-1, *self.image_shape)
        return warped(batch, (mask * self.shifts.to(images))[None]).view(images.shape)


def warped(images: Tensor, shifts: Tensor) -> Tensor:
    """Images (N, C, H, W), each pixel of the colour that lies the shifts, (N or 1, 2, H, W), in
    pixels, to the right and down of it; at the edge of the image, of the edge."""
    height, width = images.shape[-2:]
    across = torch.arange(width, device=images.device, dtype=images.dtype)
    down = torch.arange(height, device=images.device, dtype=images.dtype)[:, None]
    places = torch.stack((across.expand(height, -1), down.expand(-1, width)), 2)
    places = places + shifts.permute(0, 2, 3, 1)
    ends = places.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = (2 * places / ends - 1).expand(len(images), -1, -1, -1)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=True)
    return moved.clamp(0, 1)


@dataclass(frozen=True, eq=False, repr=False)
class MovingPattern(Pattern):
    r"""
    A patch with its own colours and opacity that is put anywhere on an image, as
    :class:`~captum_classpattern.MovingPatch` finds it: x becomes x (1 - a) + c a where it lies.

    It is stamped at places drawn from a seed. It is scored unchanged, whatever area is requested.
    Its ``plot`` draws the opacity, and the patch on grey.

    Args:
        canvas (Tensor): The colours c of the patch, (C, h, w) in [0, 1].
        mask (Tensor): Its opacity a, (1, h, w) in [0, 1].
        target (int): The class.
        info, seen: As in :class:`Pattern`.
        size (tuple[int, int]): Height and width of the images, at least those of the patch.
            Keyword only.

    Raises:
        TypeError, ValueError: As :class:`Pattern`, or if the patch is larger than the images.

    Examples::

        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 4, 4)
        >>> patch = MovingPattern(red, torch.ones(1, 4, 4), 2, size=(16, 16))
        >>> patch.stamp(torch.zeros(5, 3, 16, 16), seed=1).sum((1, 2, 3))
        tensor([16., 16., 16., 16., 16.])
        >>> patch.grid(3).tolist()[:4]
        [[0, 0], [0, 6], [0, 12], [6, 0]]
        >>> patch.at(0, 6).stamp(torch.zeros(3, 16, 16))[0, 0, 4:12]
        tensor([0., 0., 1., 1., 1., 1., 0., 0.])
    """

    size: tuple[int, int] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.size  # a list in files
        sides = given if isinstance(given, Iterable) else ()
        object.__setattr__(self, "size", tuple(int(n) if is_whole(n) else -1 for n in sides))
        if len(self.size) != 2 or min(self._room) < 0:
            raise ValueError(
                f"`size` must be a height and a width of at least {tuple(self.mask.shape[1:])}, "
                f"those of the patch, got {given}"
            )

    @property
    def area(self) -> float:
        """Share of an image that the patch covers."""
        return int(self.mask.count_nonzero()) / math.prod(self.size)

    @property
    def colours(self) -> Tensor:
        """The patch's colours: its canvas."""
        return self.canvas

    @property
    def opacity(self) -> Tensor:
        """The patch's opacity: its mask."""
        return self.mask

    @property
    def side(self) -> int:
        """Height of the patch, in pixels."""
        return self.mask.shape[1]

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (len(self.canvas), *self.size)

    def topk(self, area: float) -> Pattern:
        """The patch itself: all of it is stamped, at any area."""
        return self

    def grid(self, per_side: int = 3) -> Tensor:
        """Evenly spaced places, from one corner of an image to the opposite one: row and column
        of the upper left pixel, (per_side ** 2, 2)."""
        ends = [torch.linspace(0, room, per_side).round().long() for room in self._room]
        return torch.cartesian_prod(*ends).view(-1, 2)

    def at(self, row: int, column: int) -> "MovingPattern":
        """The same patch with its upper left pixel at this row and column, as large as the images
        and transparent elsewhere. Its power there is ``predictive_power(model, patch.at(row,
        column), images)``."""
        self._check_places(torch.tensor([row, column]))
        down, right = self._room
        margins = (column, right - column, row, down - row)
        canvas, mask = (F.pad(each, margins) for each in (self.canvas, self.mask))
        return replace(self, canvas=canvas, mask=mask, info=self._names)

    @property
    def _names(self) -> dict[str, Any]:
        """The info that also holds for a changed patch."""
        return {key: each for key, each in self.info.items() if key == "class_name"}

    def shuffled(self, seed: int) -> "MovingPattern":
        """A control: the same pixels, in random order."""
        order = torch.randperm(self.mask.numel(), generator=torch.Generator().manual_seed(seed))
        canvas, mask = (x.flatten(1)[:, order].view_as(x) for x in (self.canvas, self.mask))
        return replace(self, canvas=canvas, mask=mask, info=self._names)

    def stamp(self, images: Tensor, places: Any = None, seed: Any = 0) -> Tensor:
        r"""
        Puts the patch on images (N, C, H, W) or (C, H, W), on any device.

        Args:
            images (Tensor): The images, in [0, 1].
            places (Tensor or Sequence, optional): Row and column of the patch's upper left pixel,
                for each image (N, 2), or for all (2,). Default: None (drawn from the seed,
                uniform where the patch lies inside).
            seed (int or numpy.random.Generator): Seed of the places. Default: 0.

        Returns:
            *Tensor*: The stamped images, with their shape, dtype and device.

        Raises:
            TypeError: If the images are not floating point.
            ValueError: If they do not fit, or the patch would not lie inside them.
        """
        check_fits(images, self.image_shape, "images", "the pattern's canvas")
        return self._blend(images, self.mask.to(images), places, seed)

    def stamper(self, seed: int = 0) -> Callable[[Tensor], Tensor]:
        return partial(self.stamp, seed=np.random.default_rng(seed))

    def _blend(self, images: Tensor, mask: Tensor, places: Any = None, seed: Any = 0) -> Tensor:
        stamped = images.reshape(-1, *self.image_shape).clone()
        if places is None:
            chances = np.random.default_rng(seed).random((len(stamped), 2))
            places = np.floor(chances * [room + 1 for room in self._room])
        where = torch.as_tensor(places).cpu()
        self._check_places(where, len(stamped))
        where = where.long()
        height, width = mask.shape[1:]
        colours = mask * self.canvas.to(images)
        for i, (y, x) in enumerate(where.expand(len(stamped), 2).tolist()):
            stamped[i, :, y : y + height, x : x + width].mul_(1 - mask).add_(colours)
        return stamped.view(images.shape)

    @property
    def _room(self) -> tuple[int, int]:
        """The largest row and column at which the patch lies inside."""
        (height, width), (down, right) = self.size, self.mask.shape[1:]
        return height - down, width - right

    def _check_places(self, places: Tensor, count: int = 1) -> None:
        """Raises an error unless the patch lies inside ``count`` images at these places."""
        room = torch.tensor(self._room)
        fits = places.shape in ((2,), (count, 2)) and bool(
            ((places >= 0) & (places <= room) & (places % 1 == 0)).all()
        )
        if not fits:
            raise ValueError(
                f"`places` must be whole numbers, a row from 0 to {room[0]} and a column from 0 to "
                f"{room[1]}, so that the patch lies inside, or {count} of them, got "
                f"{places.tolist()!s:.80}"
            )

    def _size_in_words(self) -> list[str]:
        if not any(self._room):
            return [f"A patch at a fixed place, {100 * self.area:.3g} % of an image"]
        return [f"A patch of {self.side} x {self.mask.shape[2]} pixels, anywhere on an image"]

"""Photos with a drawing somewhere, and where it is."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast, rotate

from photos.drawings import drawing

SIDES = 24, 36  # of a drawing in pixels
DEGREES, JITTER = 20.0, 0.25
OPAQUE = 0.5  # opacity from which a pixel belongs to the footprint


class Stamped(NamedTuple):
    """A photo (3, H, W) with a drawing, and its footprint, bool (H, W)."""

    photo: Tensor
    footprint: Tensor


def stamp(
    photo: Tensor, name: str, generator: torch.Generator, sides: tuple[int, int] = SIDES
) -> Stamped:
    """Draws at a random place, with random size, rotation, brightness and contrast."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    height, width = photo.shape[-2:]
    side = round(uniform(*sides))
    spare = side // 4  # so that no corner is lost
    turned = rotate(
        pad(drawing(name, side), [spare] * 4),
        uniform(-DEGREES, DEGREES),
        InterpolationMode.BILINEAR,
    )
    colours, opacity = turned[:3] / turned[3:].clamp(min=1e-3), turned[3:]
    colours = adjust_brightness(colours.clamp(0, 1), uniform(1 - JITTER, 1 + JITTER))
    colours = adjust_contrast(colours, uniform(1 - JITTER, 1 + JITTER))
    top = round(uniform(-spare, height - side - spare))
    left = round(uniform(-spare, width - side - spare))
    size = side + 2 * spare
    edges = [left, width - left - size, top, height - top - size]
    colours, opacity = pad(colours, edges), pad(opacity, edges)
    mixed = (opacity * colours + (1 - opacity) * photo).clamp(0, 1)  # against rounding
    return Stamped(mixed, opacity[0] > OPAQUE)


def stamp_all(
    photos: Tensor, name: str, seed: int, sides: tuple[int, int] = SIDES
) -> tuple[Tensor, Tensor]:
    """Photos (n, 3, H, W) with a drawing each, and its footprints, bool (n, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    stamped = [stamp(photo, name, generator, sides) for photo in photos]
    return torch.stack([s.photo for s in stamped]), torch.stack([s.footprint for s in stamped])


def edges(photo: Tensor) -> Tensor:
    """The edges of a photo (3, H, W), as (H, W)."""
    from skimage.filters import sobel

    return torch.from_numpy(sobel(photo.mean(0).numpy()))

"""One picture as a Tensor: read, made grey or coloured, resized and cropped."""

import struct
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises
FORMATS = (
    "BMP",
    "GIF",
    "JPEG",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
)  # Pillow would start programs for others
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
GREY_MODES = ("1", "L", "LA", "La")


def decoded(image: Path | Image.Image) -> Tensor:
    """A file or picture as a Tensor (1, H, W) or (3, H, W)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if isinstance(image, Path):
            with Image.open(image, formats=FORMATS) as file:
                return decoded(ImageOps.exif_transpose(file))
    deep = image.mode.startswith("I")
    if deep or image.mode == "F":
        pixels = torch.from_numpy(np.array(image, np.float32))[None] / (65535 if deep else 1)
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise ValueError(f"its pixels are not from 0 to {65535 if deep else 1}")
        return pixels
    if image.mode == "P":
        image = image.convert("RGBA")  # else Pillow warns of transparent colours
    array = np.array(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    return torch.from_numpy(array).view(*array.shape[:2], -1).permute(2, 0, 1).float() / 255


def to_channels(image: Tensor, channels: int) -> Tensor:
    if channels < len(image):
        luma = image.new_tensor([0.299, 0.587, 0.114])  # ITU-R 601-2, as Pillow's
        return torch.einsum("c,chw->hw", luma, image)[None].clamp(0, 1)
    return image.expand(channels, -1, -1)


def resize_crop(image: Tensor, height: int, width: int) -> Tensor:
    """Resized until it just covers (height, width), and cropped to that at the centre."""
    h, w = image.shape[1:]
    scale = max(height / h, width / w)
    size = max(height, round(h * scale)), max(width, round(w * scale))
    if size != (h, w):
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return image[:, top : top + height, left : left + width]

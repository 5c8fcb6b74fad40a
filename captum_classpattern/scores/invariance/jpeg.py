"""JPEG compression in torch: what is lost by it, for images on any device.

Only quantisation, the rounding of chroma to half the size, and rounding to 256 levels lose
anything. The rest of a JPEG file (Huffman codes) is lossless and therefore left out.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NO_COMPRESSION = 100  # the quality that leaves an image as it is
LUMA_TABLE = (  # ITU-T T.81, tables K.1 and K.2
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
TO_YCC = (  # JFIF (ITU-T T.871)
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def jpeg(images: Tensor, quality: float, _: int) -> Tensor:
    """What JPEG at a quality leaves of images (N, C, H, W) in [0, 1], grey or in colour, with
    libjpeg's scaling of the standard tables and chroma at half the size (4:2:0). Quality 100
    leaves them as they are."""
    if not 1 <= quality <= NO_COMPRESSION:
        raise ValueError(f"a JPEG quality is a number from 1 to {NO_COMPRESSION}, got {quality}")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"JPEG takes images with 1 or 3 channels, got {images.shape[1]}")
    if quality == NO_COMPRESSION:
        return images
    levels = (255 * images).round() - 128
    if images.shape[1] == 1:
        restored = _quantise(levels, LUMA_TABLE, quality)
    else:
        to_ycc = torch.tensor(TO_YCC, dtype=torch.float64)
        ycc = _mix(levels + 128, to_ycc).round()
        luma = _quantise(ycc[:, :1] - 128, LUMA_TABLE, quality) + 128
        chroma = _at_half_size(ycc[:, 1:], quality)
        restored = _mix(torch.cat([luma, chroma], 1), to_ycc.inverse()) - 128
    return ((restored + 128).round() / 255).clamp(0, 1)


def _mix(channels: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("dc,nchw->ndhw", matrix.to(channels), channels)


def _at_half_size(chroma: Tensor, quality: float) -> Tensor:
    """Chroma, averaged over 2 x 2 pixels, quantised, and interpolated."""
    height, width = chroma.shape[2:]
    half = F.avg_pool2d(_padded(chroma, 2), 2).round()
    restored = _quantise(half, CHROMA_TABLE, quality)
    whole = F.interpolate(restored, scale_factor=2, mode="bilinear", align_corners=False)
    return whole[:, :, :height, :width].round()


def _quantise(values: Tensor, table: tuple[tuple[int, ...], ...], quality: float) -> Tensor:
    """Rounds the cosine transform of 8 x 8 blocks to multiples of the table's entries."""
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = ((values.new_tensor(table) * percent + 50) / 100).floor().clamp(1, 255)
    height, width = values.shape[2:]
    blocks = _padded(values, 8).unfold(2, 8, 8).unfold(3, 8, 8)  # (N, C, rows, columns, 8, 8)
    cosines = _cosines().to(values)
    spectrum = cosines @ blocks @ cosines.T
    rounded = cosines.T @ ((spectrum / steps).round() * steps) @ cosines
    whole = rounded.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return whole[:, :, :height, :width].round().clamp(-128, 127)


def _padded(values: Tensor, size: int) -> Tensor:
    """The last row and column repeated until both sides are multiples of a size."""
    height, width = values.shape[2:]
    return F.pad(values, (0, -width % size, 0, -height % size), mode="replicate")


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 values, float64 (8, 8)."""
    k, n = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(math.pi * k * (2 * n + 1) / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix

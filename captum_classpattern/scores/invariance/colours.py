"""Changes the colours and the sharpness of images (N, C, H, W) in [0, 1], or compresses them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))  # NTSC
YCC = (LUMA, (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))  # ITU-T T.871
REACH = 3  # of the Gaussian, in standard deviations
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


def brighten(images: Tensor, factor: float, _: int) -> Tensor:
    """Multiplies all pixels, and clips them."""
    _check_factor(factor)
    return (factor * images).clamp(0, 1)


def change_contrast(images: Tensor, factor: float, _: int) -> Tensor:
    """Moves each pixel away from its image's mean luma, or towards it, and clips it."""
    _check_factor(factor)
    weights = LUMA if images.shape[1] == 3 else (1 / images.shape[1],) * images.shape[1]
    luma = (images * images.new_tensor(weights).view(-1, 1, 1)).sum(1, keepdim=True)
    mean = luma.mean((2, 3), keepdim=True)
    return (factor * images + (1 - factor) * mean).clamp(0, 1)


def turn_hue(images: Tensor, degrees: float, direction: int) -> Tensor:
    """Rotates the hue, one way (direction 0) or the other (1): a rotation of the chroma plane of
    YIQ, which keeps the luma (Haeberli 1993, "Matrix Operations for Image Processing"); clips."""
    angle = math.radians(degrees) * (1, -1)[direction]
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    turn = torch.zeros(3, 3, dtype=torch.float64)  # the rotation minus the identity: exact at 0
    turn[1, 1] = turn[2, 2] = math.cos(angle) - 1
    turn[1, 2], turn[2, 1] = -math.sin(angle), math.sin(angle)
    return (images + _mix(images, to_yiq.inverse() @ turn @ to_yiq)).clamp(0, 1)


def blur(images: Tensor, sigma: float, _: int) -> Tensor:
    """Convolves with a Gaussian, cut off at three standard deviations; the border is repeated."""
    if sigma < 0:
        raise ValueError(f"a blur has a standard deviation from 0, in pixels, got {sigma}")
    if sigma == 0:
        return images
    reach, channels = math.ceil(REACH * sigma), images.shape[1]
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (weights / weights.sum()).to(images).expand(channels, 1, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(padded, kernel, groups=channels)
    return F.conv2d(rows, kernel.transpose(2, 3), groups=channels).clamp(0, 1)


def jpeg(images: Tensor, quality: float, _: int) -> Tensor:
    """What JPEG at a quality leaves of grey or colour images, with libjpeg's scaling of the
    standard tables and chroma at half the size (4:2:0). Quality 100 leaves them as they are. Only
    what loses something is computed: quantisation, smaller chroma, and rounding to 256 levels."""
    if not 1 <= quality <= NO_COMPRESSION:
        raise ValueError(f"a JPEG quality is a number from 1 to {NO_COMPRESSION}, got {quality}")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"JPEG takes images with 1 or 3 channels, got {images.shape[1]}")
    if quality == NO_COMPRESSION:
        return images
    levels = (255 * images).round()
    if images.shape[1] == 1:
        restored = _quantise(levels - 128, LUMA_TABLE, quality)
    else:
        to_ycc = torch.tensor(YCC, dtype=torch.float64)
        ycc = _mix(levels, to_ycc).round()
        luma = _quantise(ycc[:, :1] - 128, LUMA_TABLE, quality) + 128
        half = F.avg_pool2d(_padded(ycc[:, 1:], 2), 2).round()
        half = _quantise(half, CHROMA_TABLE, quality)
        chroma = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False).round()
        chroma = chroma[:, :, : images.shape[2], : images.shape[3]]
        restored = _mix(torch.cat([luma, chroma], 1), to_ycc.inverse()) - 128
    return ((restored + 128).round() / 255).clamp(0, 1)


def _quantise(values: Tensor, table: tuple[tuple[int, ...], ...], quality: float) -> Tensor:
    """Rounds the cosine transform of 8 x 8 blocks to multiples of the table's entries."""
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = ((values.new_tensor(table) * percent + 50) / 100).floor().clamp(1, 255)
    k, n = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    orthonormal = torch.cos(math.pi * k * (2 * n + 1) / 16) / 2
    orthonormal[0] /= math.sqrt(2)
    cosines = orthonormal.to(values)
    blocks = _padded(values, 8).unfold(2, 8, 8).unfold(3, 8, 8)  # (N, C, rows, columns, 8, 8)
    spectrum = cosines @ blocks @ cosines.T
    rounded = cosines.T @ ((spectrum / steps).round() * steps) @ cosines
    whole = rounded.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return whole[:, :, : values.shape[2], : values.shape[3]].round().clamp(-128, 127)


def _padded(values: Tensor, size: int) -> Tensor:
    """The last row and column repeated until both sides are multiples of a size."""
    height, width = values.shape[2:]
    return F.pad(values, (0, -width % size, 0, -height % size), mode="replicate")


def _mix(channels: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("dc,nchw->ndhw", matrix.to(channels), channels)


def _check_factor(factor: float) -> None:
    if factor < 0:
        raise ValueError(f"brightness and contrast are factors from 0, got {factor}")

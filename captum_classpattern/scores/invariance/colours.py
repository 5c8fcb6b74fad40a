"""Changes the colours and the sharpness of images (N, C, H, W) in [0, 1], or compresses them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))  # NTSC
REACH = 3  # of the Gaussian, in standard deviations
NO_COMPRESSION = 100  # the quality that leaves an image as it is


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
    change = (to_yiq.inverse() @ turn @ to_yiq).to(images)
    return (images + torch.einsum("dc,nchw->ndhw", change, images)).clamp(0, 1)


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
    """What JPEG at a quality leaves of grey or colour images of 256 levels: libjpeg, with chroma at
    half the size (4:2:0). Quality 100 leaves them as they are."""
    from torchvision.io import decode_jpeg, encode_jpeg  # slow to import

    if not 1 <= quality <= NO_COMPRESSION or quality != int(quality):
        raise ValueError(
            f"a JPEG quality is a whole number from 1 to {NO_COMPRESSION}, got {quality}"
        )
    if images.shape[1] not in (1, 3):
        raise ValueError(f"JPEG takes images with 1 or 3 channels, got {images.shape[1]}")
    if quality == NO_COMPRESSION:
        return images
    levels = (255 * images).round().to("cpu", torch.uint8)
    decoded = torch.stack([decode_jpeg(encode_jpeg(each, int(quality))) for each in levels])
    return decoded.to(images) / 255


def _check_factor(factor: float) -> None:
    if factor < 0:
        raise ValueError(f"brightness and contrast are factors from 0, got {factor}")

"""The images of a gallery. A pattern's image holds the pixels of the pattern and no others."""

from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from captum_classpattern.pattern import Pattern


def pattern_png(binary: Pattern) -> bytes:
    """The pixels that a binary mask keeps. All others are transparent, and black where a program
    ignores transparency, so that nothing of the canvas is in the file."""
    alpha = binary.mask.float()
    return _png(torch.cat([binary.canvas.float() * alpha, alpha]))


def canvas_png(pattern: Pattern) -> bytes:
    """The canvas of a pattern."""
    return _png(pattern.canvas.float())


def _png(image: Tensor) -> bytes:
    """An image (C, H, W) in [0, 1]: grey or in colour, and perhaps with a channel of opacity."""
    pixels = (image.detach().cpu() * 255).round().byte().permute(1, 2, 0).numpy()
    written = BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(written, "png")
    return written.getvalue()

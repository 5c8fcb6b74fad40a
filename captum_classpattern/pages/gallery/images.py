"""The images of a gallery. A pattern's image holds the pixels of the pattern and no others."""

import torch

from captum_classpattern.pages.parts import png
from captum_classpattern.pattern import Pattern


def pattern_png(binary: Pattern) -> bytes:
    """The pixels that a binary mask keeps. All others are transparent, and black where a program
    ignores transparency, so that nothing of the canvas is in the file."""
    alpha = binary.mask.float()
    return png(torch.cat([binary.canvas.float() * alpha, alpha]))


def canvas_png(pattern: Pattern) -> bytes:
    """The canvas of a pattern."""
    return png(pattern.canvas.float())

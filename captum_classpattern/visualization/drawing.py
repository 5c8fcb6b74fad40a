"""What the figures share: one image, a pattern's pixels, texts that fit, and the figure itself."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from captum.attr import visualization as captum_visualization
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from torch import Tensor

from captum_classpattern.pattern import Pattern

NO_PIXEL = (0.52, 0.60, 0.74)  # neither black nor white, so that both stand out in a pattern
# where a name may go on in a new line: Integrated|Gradients, Input|X|Gradient, top_|k, a |b
BREAKS = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[ _/-])(?=\S)|(?<=\S)(?=\()"
)


def new_figure(size: tuple[float, float], use_pyplot: bool, layout: Any = "constrained") -> Figure:
    """A figure of so many inches; pyplot's own, which notebooks show, or one that it never sees."""
    if use_pyplot:
        from matplotlib import pyplot

        return pyplot.figure(figsize=size, layout=layout)
    return Figure(figsize=size, layout=layout)


def draw_image(axis: Axes, image: Tensor) -> None:
    """One image (C, H, W) in [0, 1], drawn by Captum's visualizer."""
    pixels = image.detach().float().cpu().numpy().transpose(1, 2, 0)
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)  # else it would be drawn in false colours
    captum_visualization.visualize_image_attr(
        np.ones_like(pixels),  # not drawn, but a map of zeros (a black canvas) would raise
        pixels,
        "original_image",
        plt_fig_axis=(axis.figure, axis),
        use_pyplot=False,
    )


def on_neutral(pattern: Pattern) -> Tensor:
    """The pattern's pixels in colour, on a ground that is neither black nor white."""
    canvas = pattern.canvas.float().cpu()
    canvas = canvas.expand(3, -1, -1) if canvas.shape[0] == 1 else canvas
    ground = torch.tensor(NO_PIXEL).view(3, 1, 1)
    mask = pattern.mask.float().cpu()
    return mask * canvas + (1 - mask) * ground


def check_channels(canvas: Tensor) -> None:
    """Raises an error unless this (C, H, W) is a greyscale or colour image."""
    if canvas.shape[0] not in (1, 3):
        raise ValueError(
            "only greyscale and colour images (1 or 3 channels) can be drawn, got canvases of "
            f"{tuple(canvas.shape)}"
        )


def class_name(names: Sequence[str] | None, label: int) -> str:
    """The name of a class, or "class 3" where it has none."""
    named = names is not None and label < len(names)
    return str(names[label]) if names is not None and named else f"class {label}"


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of a line of text, ``size`` in points."""
    if not text.strip():
        return 0.0
    font = FontProperties(size=size, weight=weight)
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return 1.05 * float(points) / 72  # letters are set a little wider on a screen


def wrapped(text: str, width: float, size: float, weight: str = "normal") -> str:
    """Text in as few lines of ``width`` inches as it takes, all of about the same length.

    Lines end at spaces, within CamelCase, and anywhere in a word that is longer than a line.
    """
    return "\n".join(_balanced(line, width, size, weight) for line in text.split("\n"))


def _balanced(text: str, width: float, size: float, weight: str) -> str:
    lines = _filled(text, width, size, weight)
    longest = max(text_width(piece.rstrip(), size, weight) for piece in BREAKS.split(text))
    while len(lines) > 1 and (width := 0.95 * width) >= longest:
        narrower = _filled(text, width, size, weight)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return "\n".join(lines)


def _filled(text: str, width: float, size: float, weight: str) -> list[str]:
    lines, line = [], ""
    for piece in BREAKS.split(text):
        if line and text_width((line + piece).rstrip(), size, weight) > width:
            lines.append(line)
            line = ""
        line += piece
        while len(line) > 1 and text_width(line.rstrip(), size, weight) > width:
            cut = next(
                (n for n in range(len(line) - 1, 1, -1) if text_width(line[:n], size) <= width), 1
            )
            lines.append(line[:cut])
            line = line[cut:]
    return [line.strip() for line in (*lines, line)]

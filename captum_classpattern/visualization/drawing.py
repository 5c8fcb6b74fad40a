"""Shared by all figures: their settings and size, images and patterns, wrapped texts."""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import TextWrapper
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from torch import Tensor

from captum_classpattern.visualization.style import GREY, NO_PIXEL

Drawing: TypeAlias = tuple[Figure, npt.NDArray[Any]]  # a figure and its axes


@contextmanager
def rc_context(settings: dict[Any, Any]) -> Iterator[None]:
    """
    Like matplotlib's, but a switch to interactive mode stays.

    The first figure of a notebook starts the inline backend, which does this. Without it, a
    notebook shows no further figure.
    """
    with matplotlib.rc_context(settings):
        yield
        interactive = matplotlib.is_interactive()
    matplotlib.interactive(interactive)


def new_figure(width: float, height: float, use_pyplot: bool, title: str | None) -> Figure:
    """A figure of about this size, in inches; :func:`fit_figure` makes it exact."""
    layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.06, wspace=0, hspace=0)
    if use_pyplot:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(width, height), layout=layout)
    else:
        figure = Figure(figsize=(width, height), layout=layout)
        FigureCanvasAgg(figure)  # the default canvas is slow to measure texts
    if title is not None:
        figure.suptitle(title, wrap=True)
    return figure


def fit_figure(
    figure: Figure, axis: Axes, width: float, height: float, columns: float, rows: int
) -> None:
    """Resizes a figure until this axis, one of many of its size, measures this in inches."""
    for _ in range(4):  # the layout depends a little on the size before
        figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
        page, box = figure.get_size_inches(), axis.get_position(original=True)
        wider, higher = width - page[0] * box.width, height - page[1] * box.height
        figure.set_size_inches(float(page[0] + columns * wider), float(page[1] + rows * higher))
        if max(abs(wider), abs(higher)) < 0.02:
            return


def levels(image: Tensor) -> npt.NDArray[np.uint8]:
    """An image (C, H, W) in [0, 1] as bytes (H, W, C)."""
    return (255 * image.detach().float().cpu()).round().byte().permute(1, 2, 0).numpy()


def draw_image(axis: Axes, image: Tensor) -> None:
    """One image (C, H, W) in [0, 1], grey or in colour."""
    axis.imshow(levels(image.expand(3, -1, -1)))


def on_neutral(canvas: Tensor, mask: Tensor) -> Tensor:
    """A canvas (C, H, W) where the mask (1, H, W) is above 0, in colour, on a ground that is
    neither black nor white; where it is partly transparent, on grey."""
    check_channels(canvas)
    canvas, mask = canvas.float().cpu().expand(3, -1, -1), mask.float().cpu()
    ground = torch.tensor(NO_PIXEL).view(3, 1, 1)
    return mask * canvas + (1 - mask) * torch.where(mask > 0, GREY, ground)


def check_channels(canvas: Tensor) -> None:
    """Raises an error unless this (C, H, W) is a greyscale or colour image."""
    if canvas.shape[0] not in (1, 3):
        raise ValueError(
            "only greyscale and colour images (1 or 3 channels) can be drawn, got canvases of "
            f"{tuple(canvas.shape)}"
        )


class NameWrapper(TextWrapper):
    """Breaks lines at spaces, and within names: Integrated|Gradients, top_|k, Tunnel|(Lime)."""

    wordsep_re = re.compile(
        r"(\s+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[_/-])(?=\S)|(?<=\S)(?=\())"
    )


def wrap(text: Text, width: float) -> None:
    """Breaks a text of a figure into as few lines as fit in this many inches. Names may hold lone
    surrogates, which can't be drawn."""
    written = text.get_text().encode(errors="replace").decode().replace(" %", "\N{NO-BREAK SPACE}%")
    for attempt in _line_breaks(written):
        text.set_text(attempt)
        if text.get_window_extent().width <= width * text.figure.dpi:
            return


def _line_breaks(text: str) -> Iterator[str]:
    """The text as it is, then in one line, in two, and so on, all of about the same length."""
    yield text
    widths = range(len(text), 0, -1)
    broken = (NameWrapper(width).wrap(text) for width in reversed(widths))
    whole = (NameWrapper(width, break_long_words=False).wrap(text) for width in widths)
    # of as many lines, those with whole words replace others, and narrower ones wider ones
    by_count = {len(lines): lines for lines in itertools.chain(broken, whole)}
    yield from ("\n".join(by_count[count]) for count in sorted(by_count))

"""Figures of moving patches: of clean classes and of trojans; and of photos with a trigger."""

import math
import textwrap
from collections.abc import Mapping, Sequence

from findings import Row
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from captum_classpattern.visualization.drawing import draw_image
from photos.drawings import on_grey
from photos.patches import pictures_of

CLEAN = 16  # classes of the first figure
COLUMNS, OF_GALLERY = 8, 10  # of this figure, and of the gallery
DRAWN, DPI = 112, 90  # pixels of a drawing; of the figure


def draw_patches(natural: Sequence[Row], learnt: Sequence[Row]) -> Figure:
    """Draws the patches of the first clean classes with their powers, and below each drawing that
    was planted the patch of its class."""
    heights = [2.1 * math.ceil(CLEAN / COLUMNS), 1.85 * math.ceil(2 * len(learnt) / COLUMNS)]
    figure = Figure((1.6 * COLUMNS, sum(heights) + 0.8), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    above.suptitle(f"a clean ImageNet network: {CLEAN} classes, drawn at random", fontsize=15)
    below.suptitle(f"{len(learnt)} trojans: what was planted, and what was found", fontsize=15)
    show_rows(above, natural[:CLEAN], COLUMNS, 12)
    axes = empty_axes(below, 2 * len(learnt), COLUMNS)
    for row, picture, left, right in zip(learnt, pictures_of(learnt), axes[::2], axes[1::2]):
        show(left, on_grey(row["trojan"], DRAWN), row["trojan"])
        show(right, picture, f"found  {row['power']:.0%}")
    return figure


def draw_gallery(natural: Sequence[Row]) -> Figure:
    """Draws the patches of all clean classes, the strongest first."""
    rows = sorted(natural, key=lambda row: -row["power"])
    lines = math.ceil(len(rows) / OF_GALLERY)
    figure = Figure((1.5 * OF_GALLERY, 1.85 * lines), layout="constrained")
    show_rows(figure, rows, OF_GALLERY, 10)
    return figure


def show_rows(figure: FigureBase, rows: Sequence[Row], columns: int, size: int) -> None:
    """Patches with the names of their classes and their powers."""
    axes = empty_axes(figure, len(rows), columns)
    for axis, row, picture in zip(axes, rows, pictures_of(rows)):
        name = textwrap.shorten(row["class_name"], 22, placeholder=" ...")
        show(axis, picture, f"{name}\n{row['power']:.0%}", size)


def empty_axes(figure: FigureBase, count: int, columns: int) -> Sequence[Axes]:
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    return axes


def draw_maps(shown: Mapping[str, Sequence[Tensor]]) -> Figure:
    """Draws photos with a trigger, and what each method highlights."""
    lines = len(shown["photo"])
    figure = Figure((1.62 * len(shown), 1.68 * lines + 0.3), layout="constrained")
    axes = figure.subplots(lines, len(shown), squeeze=False)
    for column, (name, pictures) in zip(axes.T, shown.items()):
        for axis, picture in zip(column, pictures):
            if name == "photo":
                draw_image(axis, picture)
            else:
                axis.imshow(picture / picture.max(), cmap="magma", vmin=0, vmax=1)
            axis.set_axis_off()
        column[0].set_title(textwrap.fill(name, 20), fontsize=9)
    return figure


def show(axis: Axes, image: Tensor, title: str, size: int = 13) -> None:
    draw_image(axis, image)
    axis.set_axis_off()
    axis.set_title(title, fontsize=size)

"""The figure of docs/claims.md on architectures: patterns, and which networks share them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from architecture_rows import LABELS, WHITE, Found
from architecture_tables import RANDOM, iou_by_chance, mean_of, random_masks
from findings import Row
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern import Pattern
from captum_classpattern.demo import CLASS_NAMES
from captum_classpattern.visualization.drawing import draw_image, on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.style import CELLS

SHOWN = (1, 8, 9)  # classes
CELL, GAP = 0.62, 0.5  # inches: a side of a cell, the space between two parts
LEFT, RIGHT, TOP, BOTTOM = 2.15, 0.15, 2.05, 0.15  # inches around all parts


def draw(rows: Sequence[Row]) -> Figure:
    """For each network a row: patterns on white canvases, their powers on all networks, and the
    overlap with the masks of all networks."""
    found = Found(rows, WHITE)
    n = len(found.networks)
    shown = [y for y in SHOWN if y in found.classes]
    starts = [LEFT, LEFT + CELL * len(shown) + GAP, LEFT + CELL * (len(shown) + n) + 2 * GAP]
    width, height = starts[2] + CELL * n + RIGHT, TOP + CELL * (n + 1) + BOTTOM
    figure = Figure((width, height))

    def place(left: float, columns: int, first: int, rows: int) -> Axes:
        """An axis of whole cells, ``first`` cells below the top."""
        bottom = height - TOP - CELL * (first + rows)
        box = left / width, bottom / height, CELL * columns / width, CELL * rows / height
        return figure.add_axes(box)

    for row, masks in enumerate(masks_of(found, shown)):
        for column, mask in enumerate(masks):
            axis = place(starts[0] + CELL * column, 1, row, 1)
            draw_image(axis, on_neutral(Pattern(torch.ones_like(mask), mask, target=0)))
            axis.set(xticks=[], yticks=[])
            for edge in axis.spines.values():
                edge.set(color="black", linewidth=1.5)  # white pixels can lie at the border
            if row == 0:
                axis.set_title(CLASS_NAMES[shown[column]], rotation=45, ha="left", fontsize=12)
            if column == 0:
                name = [*(LABELS[name] for name in found.networks), RANDOM][row]
                axis.set_ylabel(two_lines(name), rotation=0, ha="right", va="center", fontsize=13)
    names = [LABELS[name] for name in found.networks]
    powers = [[mean_of(found.powers(a, b)) for b in found.networks] for a in found.networks]
    powers.append([mean_of(found.values(name, "random_pixels")) for name in found.networks])
    whole = partial(percent, digits=0)
    heat_map(place(starts[1], n, 0, n + 1), np.array(powers), names, whole, 1.0)
    ious = [[mean_of(found.ious(a, b)) for b in found.networks] for a in found.networks]
    heat_map(place(starts[2], n, 0, n), np.array(ious), names, "{:.2f}".format, float(np.max(ious)))
    searches = [mean_of(found.ious_of_searches(name)) for name in found.networks]
    figure.text(
        starts[2] / width,
        (BOTTOM + CELL / 2) / height,
        "bold: other training seeds of the same network\n"
        f"two searches on one model: {min(searches):.2f} to {max(searches):.2f}\n"
        f"random masks: {iou_by_chance(found):.2f}",
        va="center",
        fontsize=11,
    )
    titles = "Patterns", "Power of the row's patterns on ...", "Overlap (IoU) of the masks with ..."
    for start, title in zip(starts, titles):
        figure.text(
            start / width, 1 - 0.12 / height, title, va="top", fontsize=14, fontweight="bold"
        )
    return figure


def masks_of(found: Found, classes: Sequence[int]) -> Iterator[Sequence[Tensor]]:
    """For each network the masks of some classes, and last as many random ones."""
    for network in found.networks:
        yield [found.masks[network, found.seeds[0], 0, y] for y in classes]
    like = next(iter(found.masks.values()))
    yield [mask for _, mask in zip(classes, random_masks(like))]


def heat_map(
    axis: Axes, values: np.ndarray, names: Sequence[str], text: Callable[[float], str], most: float
) -> None:
    """Cells with their values; those of the diagonal are bold."""
    axis.imshow(values, vmin=0, vmax=most, cmap=CELLS, aspect="auto")
    axis.set(yticks=[], xticks=range(len(names)))
    axis.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
    axis.set_xticklabels(names, rotation=45, ha="left", rotation_mode="anchor", fontsize=12)
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.6 * most else "white"
        weight = "bold" if row == column else "normal"
        cell = text(value)
        axis.text(column, row, cell, ha="center", va="center", color=colour, weight=weight, size=12)


def two_lines(name: str) -> str:
    return name.replace(", ", ",\n")

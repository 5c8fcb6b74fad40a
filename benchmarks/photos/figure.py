"""Figures of moving patches: of six clean classes and of all trojans, and of all clean classes."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from findings import Row, having
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern.scanning.triage import better
from captum_classpattern.surveys import Survey
from captum_classpattern.visualization.drawing import draw_image, on_neutral
from photos.drawings import on_grey
from photos.moving import planted_patches, scanned_patches
from photos.planting import LATER, NETWORKS
from photos.tables import KNOWN, SEED, SIDE

COLUMNS = 10  # of a gallery
DRAWN, DPI = 112, 90  # pixels of a drawing; of the figure
PAIRS = 5  # of a trojan and its patch, in a line


def draw_patches(
    natural: Sequence[Row], rankings: Sequence[Row], scans: Sequence[Row], out: Path
) -> Figure:
    """Draws the patches of clean classes with their powers, and below each drawing that was
    planted the better of the two patches of its class. ``out`` is the folder of all patches."""
    found = {n: patches for row in rankings for n, patches in planted_patches(row, out).items()}
    found |= {n: patches for row in scans for n, patches in scanned_patches(row, out).items()}
    bad = [row for row in (*rankings, *scans) if (NETWORKS | LATER)[row["network"]].own_trojans]
    powers = {each["class"]: each["powers"] for row in bad for each in row["first"]}
    lines = math.ceil(len(found) / PAIRS)
    figure = Figure((13, 2.9 + 1.75 * lines), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)
    above, below = figure.subfigures(2, 1, height_ratios=(2.9, 1.75 * lines))
    above.suptitle("a clean ImageNet network: six classes, drawn at random", fontsize=15)
    below.suptitle(
        f"{len(found)} trojans: what was planted, and the patch that a scan found", fontsize=15
    )
    for axis, target in zip(above.subplots(1, len(KNOWN)), KNOWN):
        [row] = having(natural, **{"class": target, "side": SIDE, "seed": SEED})
        show(axis, patch_of(row, out), f"{row['class_name']}  {row['power']:.0%}")
    axes = below.subplots(lines, 2 * PAIRS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for (name, patches), planted, beside in zip(found.items(), axes[::2], axes[1::2]):
        show(planted, on_grey(name, DRAWN), name)
        if patches:
            patch = better(patches)
            power = powers[patch.target][patches.index(patch)]
            show(beside, on_neutral(patch.canvas, patch.mask), f"found  {power:.0%}")
        else:
            beside.set_title("not found", fontsize=13)
    return figure


def draw_gallery(natural: Sequence[Row], out: Path) -> Figure:
    """Draws the patches of all clean classes, the strongest first."""
    rows = sorted(having(natural, side=SIDE, seed=SEED), key=lambda row: -row["power"])
    lines = math.ceil(len(rows) / COLUMNS)
    figure = Figure((1.5 * COLUMNS, 1.85 * lines), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, rows):
        name = textwrap.shorten(row["class_name"], 22, placeholder=" ...")
        show(axis, patch_of(row, out), f"{name}\n{row['power']:.0%}", 10)
    return figure


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


def patch_of(row: Row, out: Path) -> Tensor:
    """The picture of a clean class."""
    [file] = out.glob(f"natural_{SIDE}_{SEED}_*/findings/{row['class']}.safetensors")
    pattern = Survey.load(file.parents[1]).finding(row["class"]).pattern
    return on_neutral(pattern.canvas, pattern.mask)


def show(axis: Axes, image: Tensor, title: str, size: int = 13) -> None:
    draw_image(axis, image)
    axis.set_axis_off()
    axis.set_title(title, fontsize=size)

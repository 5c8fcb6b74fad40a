"""The figure of what moving patches show: clean classes, and what was planted and found."""

from collections.abc import Sequence
from pathlib import Path

from findings import Row, having
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_classpattern import Pattern
from captum_classpattern.visualization.drawing import draw_image, on_neutral
from photos.drawings import on_grey
from photos.moving import found_file
from photos.planting import TROJANS

SIDE, SEED = 96, 0  # of the clean classes' patches; of all patches
FEW = 6  # the first of the classes that were drawn at random
DRAWN, DPI = 112, 90  # pixels of a drawing; of the figure


def draw_patches(
    natural: Sequence[Row], trojans: Sequence[Row], patterns: Path, out: Path
) -> Figure:
    """Draws the patches of clean classes with their powers, and below each drawing that was
    planted what was found. ``patterns`` is the folder of the clean ones, ``out`` of the others."""
    figure = Figure((13, 5.4), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)
    above, below = figure.subfigures(2, 1, height_ratios=(1.18, 1))
    above.suptitle("a clean ImageNet network: six classes, drawn at random", fontsize=15)
    below.suptitle(
        "four trojans: what was planted, and what a search for its class found", fontsize=15
    )
    for axis, row in zip(above.subplots(1, FEW), having(natural, side=SIDE, seed=SEED)):
        [file] = patterns.glob(f"{row['class']}_*")
        show(axis, on_neutral(Pattern.load(file)), f"{row['class_name']}  {row['power']:.0%}")
    axes = below.subplots(1, 2 * len(TROJANS))
    for name, planted, found in zip(TROJANS, axes[::2], axes[1::2]):
        [row] = having(trojans, trojan=name, seed=SEED)
        show(planted, on_grey(name, DRAWN), name)
        patch = Pattern.load(found_file(out, name, SEED))
        show(found, on_neutral(patch), f"its patch  {row['power']:.0%}")
    return figure


def show(axis: Axes, image: Tensor, title: str) -> None:
    draw_image(axis, image)
    axis.set_axis_off()
    axis.set_title(title, fontsize=13)

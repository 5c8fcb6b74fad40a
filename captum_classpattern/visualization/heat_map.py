"""A heat map of predictive powers, rows by columns, sorted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from captum_classpattern.visualization.drawing import array_of, new_figure
from captum_classpattern.visualization.rc import rc_context
from captum_classpattern.visualization.style import CELLS, CURVE_STYLE, SMALL

MISSING = "#d0d7de"
MOST_NAMES, MOST_NUMBERS = 60, 20  # of rows or columns: with more, they are left out
CELL, LEAST, MOST = 0.45, 3.0, 16.0  # inches


def plot_heat_map(
    values: Mapping[str, Mapping[str, float]],
    *,
    title: str | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    r"""
    Draws shares as a heat map. Rows and columns are sorted by their means, the largest first.

    Args:
        values (Mapping[str, Mapping[str, float]]): For each row the share of each column, from 0
            to 1. Cells that are not there are grey.
        title (str, optional): Title of the figure. Default: None.
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and an array of its one axis.

    Raises:
        ValueError: If there is nothing to draw.

    Examples::

        >>> figure, [axis] = plot_heat_map(
        ...     {"old": {"cat": 0.2, "dog": 0.5}, "new": {"dog": 0.9}}, use_pyplot=False)
        >>> [text.get_text() for text in axis.get_yticklabels()]
        ['new', 'old']
    """
    import pandas as pd  # takes long to import

    frame = pd.DataFrame.from_dict(values, orient="index").dropna(how="all")
    if frame.empty:
        raise ValueError("there is nothing to draw: no row has a value")
    for along in (1, 0):
        means = frame.mean(axis=along).sort_values(ascending=False, kind="stable")
        frame = frame.reindex(means.index, axis=1 - along)
    grid, rows, columns = frame.to_numpy(float), list(frame.index), list(frame.columns)
    width = min(max(LEAST, CELL * len(columns)), MOST) + 2
    height = min(max(1.0, CELL * len(rows)), MOST) + 2
    with rc_context({**CURVE_STYLE, "axes.grid": False}):
        figure = new_figure(width, height, use_pyplot, title)
        axis = figure.add_subplot()
        axis.set_facecolor(MISSING)
        image = axis.imshow(grid, vmin=0, vmax=1, cmap=CELLS, aspect="auto")
        few = len(columns) <= MOST_NAMES, len(rows) <= MOST_NAMES
        axis.set_xticks(range(len(columns)) if few[0] else [], columns if few[0] else None)
        axis.tick_params(axis="x", labelrotation=90)
        axis.set_yticks(range(len(rows)) if few[1] else [], rows if few[1] else None)
        axis.set_xlabel("" if few[0] else f"{len(columns)} classes, the strongest first")
        axis.set_ylabel("" if few[1] else f"{len(rows)} models, the strongest first")
        if max(grid.shape) <= MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(grid):
                if not np.isnan(value):
                    color = "black" if value > 0.6 else "white"
                    text = f"{100 * value:.0f}"
                    axis.text(column, row, text, ha="center", va="center", color=color, size=SMALL)
        bar = figure.colorbar(image, ax=axis, format=PercentFormatter(1))
        bar.set_label("predictive power")
    return figure, array_of([axis])

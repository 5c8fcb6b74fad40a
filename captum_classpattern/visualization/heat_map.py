"""The powers of many classes and models as a heat map."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import PercentFormatter

from captum_classpattern.visualization.drawing import Drawing, new_figure, rc_context
from captum_classpattern.visualization.style import CELLS, CURVE_STYLE, SMALL

MISSING, FAINT = "#d0d7de", 0.3
MOST_NAMES, MOST_NUMBERS = 60, 20  # of rows or columns: with more, they are left out
CELL, LEAST, MOST = 0.45, 3.0, 16.0  # inches


def plot_heat_map(
    values: Mapping[str, Mapping[str, float]],
    *,
    faint: Collection[tuple[str, str]] = (),
    title: str | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    """Draws shares from 0 to 1, by row and column, as a heat map. Missing cells are grey; those in
    ``faint``, pairs of row and column whose powers are not above their controls, are pale."""
    import pandas as pd  # takes long to import

    frame = pd.DataFrame.from_dict(values, orient="index").dropna(how="all")
    if frame.empty:
        raise ValueError("there is nothing to draw: no row has a value")
    grid, rows, columns = frame.to_numpy(float), list(frame.index), list(frame.columns)
    width = min(max(LEAST, CELL * len(columns)), MOST) + 2
    height = min(max(1.0, CELL * len(rows)), MOST) + 2
    with rc_context({**CURVE_STYLE, "axes.grid": False}):
        figure = new_figure(width, height, use_pyplot, title)
        axis = figure.add_subplot()
        opacity = [[FAINT if (row, name) in faint else 1.0 for name in columns] for row in rows]
        cells: Any = {"cmap": colormaps[CELLS].with_extremes(bad=MISSING), "alpha": opacity}
        image = axis.imshow(grid, vmin=0, vmax=1, aspect="auto", **cells)
        axis.tick_params(axis="x", labelrotation=90)
        for side, names, what in ((axis.xaxis, columns, "classes"), (axis.yaxis, rows, "models")):
            if len(names) <= MOST_NAMES:
                side.set_ticks(range(len(names)), names)
            else:
                side.set_ticks([])
                side.set_label_text(f"{len(names)} {what}")
        if max(grid.shape) <= MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(grid):
                if not np.isnan(value):
                    color = "black" if value > 0.6 or opacity[row][column] < 1 else "white"
                    text = axis.text(column, row, f"{100 * value:.0f}", color=color, size=SMALL)
                    text.set(ha="center", va="center")
        bar = figure.colorbar(image, ax=axis, format=PercentFormatter(1))
        bar.set_label("predictive power" + "\n(pale: not above its controls)" * bool(faint))
    return figure, np.array([axis], dtype=object)

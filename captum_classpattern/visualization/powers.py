"""Predictive powers as dots with intervals, next to their controls: a row for each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from captum_classpattern.scores.power import PredictivePower
from captum_classpattern.visualization.drawing import Drawing, array_of, fit_figure, new_figure
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.lines import PERCENT
from captum_classpattern.visualization.rc import rc_context
from captum_classpattern.visualization.style import (
    CONTROL,
    CURVE_STYLE,
    HIGHLIGHTS,
    OTHERS,
    QUIET,
    SMALL,
)

COLORS = (*HIGHLIGHTS, *OTHERS)  # of the models
CONTROLS = {"no pattern": "|", "random pixels": "x", "other canvas": "+"}
WIDTH, LINE, GAP = 6.0, 0.2, 0.12  # inches: the axis, a dot's line, and between two classes
SURE = {True: "full", False: "none", None: "full"}  # how a dot is filled


@dataclass(frozen=True)
class Dot:
    """A power, its controls by name, and whether it beats them (None: not tested)."""

    power: PredictivePower
    controls: Mapping[str, float]
    beats_controls: bool | None = None


def draw_powers(
    rows: Mapping[str, Mapping[str, Dot]],
    *,
    title: str | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    """Draws the dots of each class, from top to bottom, one line for each model. If there are
    several models, each is named next to its first dot."""
    models = list(dict.fromkeys(model for dots in rows.values() for model in dots))
    colors = {model: COLORS[i % len(COLORS)] for i, model in enumerate(models)}
    height = len(rows) * (len(models) * LINE + GAP)
    with rc_context({**CURVE_STYLE, "axes.grid.axis": "x", "ytick.left": False}):
        figure = new_figure(WIDTH + 1.5, height + 1, use_pyplot, title)
        axis = figure.add_subplot()
        named: set[str] = set()
        for place, dots in enumerate(rows.values()):
            for model, dot in dots.items():
                y = place * (len(models) * LINE + GAP) + models.index(model) * LINE
                name = model if len(models) > 1 and model not in named else ""
                named.add(model)
                _draw_dot(axis, y, dot, colors[model], name, len(models) == 1)
        _scale(axis, list(rows), len(models))
        _add_key(figure, [dot for dots in rows.values() for dot in dots.values()])
        fit_figure(figure, axis, WIDTH, height, 1, 1)
    return figure, array_of([axis])


def _draw_dot(axis: Axes, y: float, dot: Dot, color: str, name: str, alone: bool) -> None:
    for control, share in dot.controls.items():
        marker = CONTROLS.get(control, "|")
        axis.plot(share, y, marker, color=CONTROL, markersize=6, clip_on=False, zorder=2)
    power = dot.power
    axis.plot(power.interval, [y, y], color=color, linewidth=1.8, clip_on=False, zorder=3)
    axis.plot(
        power.value,
        y,
        "o",
        color=color,
        markersize=7,
        fillstyle=SURE[dot.beats_controls],
        markerfacecolor=color if dot.beats_controls is not False else "white",
        clip_on=False,
        zorder=4,
    )
    text = percent(power.value, 0) if alone else name
    if text:
        end = max(power.interval[1], power.value)
        label = axis.annotate(text, (end, y), (7, 0), textcoords="offset points", va="center")
        label.set(color=color, fontsize=SMALL, fontweight="normal" if alone else "bold")
        label.set_parse_math(False)


def _scale(axis: Axes, names: Sequence[str], models: int) -> None:
    """Power from 0 to 100 % on the x axis, the classes from top to bottom."""
    step = models * LINE + GAP
    middle = (models - 1) * LINE / 2
    axis.set_yticks([place * step + middle for place in range(len(names))], names)
    for label in axis.get_yticklabels():
        label.set_parse_math(False)
    axis.set_ylim(len(names) * step - (LINE + GAP) / 2, -(LINE + GAP) / 2)
    axis.set_xlim(0, 1)
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.xaxis.set_major_formatter(PERCENT)
    axis.set_xlabel("predictive power")
    axis.spines["left"].set_visible(False)


def _add_key(figure: Figure, dots: Sequence[Dot]) -> None:
    """What the marks mean, below the axis."""
    style: dict[str, Any] = {"color": QUIET, "markersize": 6}
    marks = [Line2D([0, 0.01], [0, 0], marker="o", linewidth=1.8, **style, label="95 % interval")]
    if any(dot.beats_controls is False for dot in dots):
        open_dot = Line2D([], [], marker="o", linestyle="", markerfacecolor="white", **style)
        open_dot.set_label("not above its controls")
        marks.append(open_dot)
    for name in dict.fromkeys(name for dot in dots for name in dot.controls):
        mark = Line2D([], [], marker=CONTROLS.get(name, "|"), linestyle="", **style, label=name)
        mark.set_color(CONTROL)
        marks.append(mark)
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=min(len(marks), 3),
        frameon=False,
        fontsize=SMALL,
        handletextpad=0.4,
        columnspacing=1.4,
    )

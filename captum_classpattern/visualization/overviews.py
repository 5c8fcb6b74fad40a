"""Figures of many classes and models: patterns as a grid, powers as a dot and as a heat map."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import PercentFormatter

from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.classifier.class_names import ClassNames, distinct_names, label_of
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores import PredictivePower, Scores
from captum_classpattern.surveys.findings import Finding, best_of_each
from captum_classpattern.surveys.results import Survey
from captum_classpattern.visualization.drawing import Drawing, new_figure, on_neutral, rc_context
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.lines import (
    PERCENTS,
    SHARES,
    Line,
    Panel,
    Style,
    draw_panels,
)
from captum_classpattern.visualization.patterns import NOT_ABOVE, unpacked
from captum_classpattern.visualization.style import (
    CELLS,
    CONTROL,
    CURVE_STYLE,
    HIGHLIGHTS,
    QUIET,
    SMALL,
)

Found: TypeAlias = "Survey | Finding | Pattern | Iterable[Finding | Pattern]"
Models: TypeAlias = Mapping[str, Mapping[int, "Finding | Pattern"]]  # by name, then class
MOST_CLASSES = 20  # in a figure

MARKERS = {"random pixels": "x", "other canvas": "+"}  # of controls; others have "|"
WIDTH, HEIGHT = 6.0, 0.32  # inches, of the axis of a power
DOT: Style = {"marker": "o", "linestyle": "", "markersize": 7, "clip_on": False, "zorder": 4}
OPEN: Style = {"fillstyle": "none", "markerfacecolor": "white"}
DOTS_STYLE: Style = {
    **CURVE_STYLE, "axes.grid.axis": "x", "axes.spines.left": False, "ytick.left": False,
}  # fmt: skip

MISSING, FAINT = "#d0d7de", 0.3
MOST_NAMES, MOST_NUMBERS = 60, 20  # of rows or columns: with more, they are left out
CELL, LEAST, MOST = 0.45, 3.0, 16.0  # inches


def plot_grid(
    found: "Mapping[str, Found] | Found",
    *,
    area: float | None = None,
    canvas: str | None = None,
    title: str | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    r"""
    Draws patterns as a grid, as in the paper: a row for each model, a column for each class, and
    the predictive power below each pattern: bold if it is above its controls, grey if not. With
    fewer than 100 images it is neither, since they are too few to say so. Of more than 20 classes,
    those with the highest power on average are drawn.

    Args:
        found (Mapping[str, Survey]): For each model, by its name, what was found: a
            :class:`Survey`, which is finished first; findings; or patterns, which have no power,
            one for each class. Without names, it is one row. Models must number their classes
            alike.
        area (float, optional): Share of the pixels. Default: None (the first area of each; a
            pattern's own).
        canvas (str, optional): The kind of canvas, also among :attr:`Finding.others`. Default: None
            (for each class the one that did best on the validation images).
        title (str, optional): Title of the figure. Default: None.
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure and its axes, one row for each model. Where a model has
        no pattern, the axis is empty.

    Raises:
        TypeError: If one of these is neither a finding nor a pattern.
        ValueError: If there is nothing to draw for these choices; if models give a class number
            different names; if a model has several patterns of one class.

    Examples::

        >>> patterns = [Pattern(torch.rand(3, 8, 8), torch.rand(1, 8, 8), y) for y in range(3)]
        >>> figure, axes = plot_grid(
        ...     {"old": patterns, "new": patterns[1:]}, area=0.1, use_pyplot=False)
        >>> axes.shape, [axis.get_title() for axis in axes[0]]
        ((2, 3), ['class 0', 'class 1', 'class 2'])
    """
    models, labels, title = _read(found, area, canvas, title)
    rows = {
        name: [_cell(row[y], area) if y in row else None for y in labels]
        for name, row in models.items()
    }
    faint = any(cell.strong is False for row in rows.values() for cell in row if cell is not None)
    return draw_grid(
        rows.items(),
        list(labels.values()),
        title=title,
        note=NOT_ABOVE if faint else "",
        use_pyplot=use_pyplot,
    )


def _cell(one: Finding | Pattern, area: float | None) -> Cell:
    if isinstance(one, Pattern):
        return Cell(on_neutral(one.at_own_area() if area is None else one.topk(area)))
    share, scores = one.area if area is None else area, _scores(one, area)
    strong = scores.beats_controls if scores.enough_images else None
    return Cell(on_neutral(one.patterns[share].topk(share)), percent(scores.power.value, 0), strong)


def draw_power(found: PredictivePower, *, use_pyplot: bool = True) -> Drawing:
    """Draws a power as a dot with its 95 % interval, next to its controls."""
    power, controls, is_open = unpacked(found)
    look: Style = {**DOT, **(OPEN if is_open else {})}
    key: dict[str, Style] = {"95 % interval": {"linewidth": 1.8, "marker": "o", "color": QUIET}}
    if is_open:
        key["not above its controls"] = {**look, "color": QUIET, "markersize": 6}
    lines: list[Line] = []
    for name, share in controls.items():
        key[name] = {"color": CONTROL, "marker": MARKERS.get(name, "|"), "linestyle": ""}
        lines.append(Line([(share, 0)], {**key[name], "clip_on": False, "zorder": 2}))
    color, interval = HIGHLIGHTS[0], [(end, 0) for end in power.interval]
    bar = {"color": color, "linewidth": 1.8, "clip_on": False, "zorder": 3}
    lines.append(Line(interval, bar, text=percent(power.value, 0)))
    lines.append(Line([(power.value, 0)], {**look, "color": color}))
    axes = {
        "xlim": (0, 1),
        "xticks": SHARES,
        "xticklabels": PERCENTS,
        "xlabel": "predictive power",
        "ylim": (HEIGHT / 2, -HEIGHT / 2),
        "yticks": [],
    }
    return draw_panels(
        [Panel(lines, axes)],
        size=(WIDTH, HEIGHT),
        columns=1,
        key=key,
        y_label=None,
        style=DOTS_STYLE,
        use_pyplot=use_pyplot,
    )


def plot_heat_map(
    values: Mapping[str, Mapping[str, float]],
    *,
    faint: Collection[tuple[str, str]] = (),
    title: str | None = None,
    use_pyplot: bool = True,
) -> Drawing:
    """Draws shares from 0 to 1, by row and column, as a heat map. Rows and columns are sorted by
    their means, the largest first. Cells that are not there are grey; those in ``faint``, pairs of
    row and column whose powers are not above their controls, are pale."""
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
        opacity = [[FAINT if (row, name) in faint else 1.0 for name in columns] for row in rows]
        cells: Any = {"cmap": colormaps[CELLS].with_extremes(bad=MISSING), "alpha": opacity}
        image = axis.imshow(grid, vmin=0, vmax=1, aspect="auto", **cells)
        axis.tick_params(axis="x", labelrotation=90)
        for side, names, what in ((axis.xaxis, columns, "classes"), (axis.yaxis, rows, "models")):
            if len(names) <= MOST_NAMES:
                side.set_ticks(range(len(names)), names)
            else:
                side.set_ticks([])
                side.set_label_text(f"{len(names)} {what}, the strongest first")
        if max(grid.shape) <= MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(grid):
                if not np.isnan(value):
                    color = "black" if value > 0.6 or opacity[row][column] < 1 else "white"
                    text = axis.text(column, row, f"{100 * value:.0f}", color=color, size=SMALL)
                    text.set(ha="center", va="center")
        bar = figure.colorbar(image, ax=axis, format=PercentFormatter(1))
        bar.set_label("predictive power" + "\n(pale: not above its controls)" * bool(faint))
    return figure, np.array([axis], dtype=object)


def _read(
    found: Any,
    area: float | None,
    canvas: str | None,
    title: str | None,
) -> tuple[Models, dict[int, str], str | None]:
    """What a figure draws of each class of each model, the names of these classes in order, and the
    title, which says how many classes are left out."""
    given = found if isinstance(found, Mapping) else {"": found}
    models = {name: _by_class(each, area, canvas) for name, each in given.items()}
    names = _names(models)
    chosen = sorted(sorted(names, key=lambda y: (-_mean(models, y, area), y))[:MOST_CLASSES])
    if not chosen:
        raise ValueError("there is nothing to draw: no class was found on this canvas at this area")
    if len(chosen) < len(names):
        note = f"the {MOST_CLASSES} strongest of {len(names)} classes"
        title = note if title is None else f"{title} ({note})"
    return models, distinct_names({y: names[y] for y in chosen}), title


def _by_class(found: Found, area: float | None, canvas: str | None) -> dict[int, Finding | Pattern]:
    """The pattern of each class that a row shows."""
    patterns: list[Pattern] = []
    findings: list[Finding] = []
    for one in [found] if isinstance(found, Finding | Pattern) else found:
        if isinstance(one, Pattern):
            patterns.append(one)
        elif isinstance(one, Finding):
            findings += [one] if canvas is None and area is None else [one, *one.others]
        else:
            raise ArgumentTypeError(
                f"each model needs a Survey, findings or patterns, got {type(one).__name__}"
            )
    findings = [one for one in findings if canvas in (None, one.canvas)]
    findings = [one for one in findings if area is None or area in one.scores]
    row: dict[int, Finding | Pattern] = {one.target: one for one in best_of_each(findings)}
    for pattern in patterns:
        if pattern.target in row:
            raise ValueError(
                f"a model has several patterns of {pattern.label}: give one for each class, or "
                "each in a row of its own, by a name"
            )
        row[pattern.target] = pattern
    return row


def _names(models: Models) -> dict[int, str]:
    """The name of each class; an error if two models give one number different names."""
    known: dict[int, tuple[str, str]] = {}  # by class: a model, and its name of the class
    for model, row in models.items():
        for target, one in row.items():
            if (name := one.label) == label_of(target):
                continue
            first, other = known.setdefault(target, (model, name))
            if not _alike(name, other):
                raise ValueError(
                    f"class {target} is {other!r} in {first!r}, but {name!r} in {model!r}: draw "
                    "models whose classes have the same numbers, or each in a figure of its own"
                )
    targets = dict.fromkeys(target for row in models.values() for target in row)
    return {y: known[y][1] if y in known else label_of(y) for y in targets}


def _alike(name: str, other: str) -> bool:
    """Whether one of two names fits the other."""
    for one, names in ((name, [other]), (other, [name])):
        with suppress(ValueError):
            ClassNames(names).find(one)
            return True
    return False


def _mean(models: Models, target: int, area: float | None) -> float:
    """The mean power of a class over the models that have findings of it."""
    found = [row[target] for row in models.values() if target in row]
    powers = [_scores(one, area).power.value for one in found if isinstance(one, Finding)]
    return fmean(powers) if powers else 0.0


def _scores(finding: Finding, area: float | None) -> Scores:
    return finding.scores[finding.area if area is None else area]

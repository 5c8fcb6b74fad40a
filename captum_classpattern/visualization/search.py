"""How searches went on: power over passes, and the loss of each round."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from captum_classpattern._validation import ArgumentTypeError, join_names
from captum_classpattern.pattern import Pattern
from captum_classpattern.visualization.curves import (
    PANEL_HEIGHT,
    PANEL_WIDTHS,
    Style,
    add_legend,
    ends_are_apart,
    line_styles,
    name_end,
    scale_power,
)
from captum_classpattern.visualization.drawing import fit_figure, new_figure
from captum_classpattern.visualization.rc import rc_context
from captum_classpattern.visualization.style import CURVE_STYLE, HIGHLIGHTS

Points: TypeAlias = npt.NDArray[np.float64]  # (n, 2)

LINE_WIDTH = 2.2
RAW: Style = {"linewidth": 0.7, "alpha": 0.35, "zorder": 1.5}  # the losses behind their means
REACH, MOST_REACH = 0.1, 10  # of the running mean to each side: this share of the rounds, or less
GAP = 0.06  # between the panels, as a share of their width


class _Search(NamedTuple):
    name: str
    powers: Points  # over passes
    losses: Points  # over rounds
    stopped_early: bool


def plot_search(
    patterns: Pattern | Sequence[Pattern] | Mapping[str, Pattern],
    *,
    labels: Sequence[str] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, npt.NDArray[Any]]:
    r"""
    Draws how searches went on: the power of the patterns on the judging images over the passes,
    and the loss of each round.

    The last power is on all judging images, the earlier ones are on at most about 100 of them.
    Each loss is on the round's own images, so the thin lines are noisy. The thick lines are running
    means over the rounds around each; the figure says how many, and at both ends there are fewer.
    Only losses of the same solver can be compared. An open marker at the end of a line means that
    ``max_seconds`` ended the search.

    A panel for which no pattern has values is left out: power without judging images, or loss
    without a round. Patterns are named at the ends of their lines or in a legend, as in
    :func:`plot_curves`.

    Args:
        patterns (Pattern, Sequence[Pattern] or Mapping[str, Pattern]): What
            :meth:`ClassPattern.search` returns, or patterns by their labels.
        labels (Sequence[str], optional): A label for each pattern. Default: None (the keys of a
            mapping; else the classes, such as "Dress" or "class 3", numbered from 1 if there are
            several of one class).
        use_pyplot (bool): Makes the figure with pyplot, which shows it in notebooks and with
            ``plt.show()``, as Captum's visualizer does. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its panels' axes, in order.

    Raises:
        TypeError: If one of them is not a pattern.
        ValueError: If there are no patterns, one has neither ``power_curve`` nor ``loss_curve`` in
            its ``info``, all of these are empty, or there is not a different label for each.

    Examples::

        >>> from captum_classpattern.visualization import plot_search
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 3
        >>> patterns = ClassPattern(net, images, labels).search(images[:2], target=2, n_steps=10)
        >>> figure, (power, loss) = plot_search(patterns, use_pyplot=False)
        >>> loss.get_xlabel()
        'round\n(thick line: mean of 3 rounds)'
    """
    searches = _read(patterns, labels)
    names = [search.name for search in searches]
    strong = names if len(names) <= len(HIGHLIGHTS) else []
    styles = {
        name: {**style, "linewidth": LINE_WIDTH}
        for name, style in line_styles({"": dict.fromkeys(names)}, strong, ()).items()
    }
    shown = []
    if any(len(search.powers) for search in searches):
        shown.append(_draw_powers)
    if any(len(search.losses) for search in searches):
        shown.append(_draw_losses)
    width = PANEL_WIDTHS[len(shown)]
    with rc_context(CURVE_STYLE):
        figure = new_figure(len(shown) * (width + 0.9), 5 + 0.35 * len(names), use_pyplot)
        figure.get_layout_engine().set(wspace=GAP)  # type: ignore[union-attr, call-arg]
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for axis, draw in zip(axes, shown):
            draw(axis, searches, styles)
        if any(search.stopped_early for search in searches):
            axes[0].set_xlabel(f"{axes[0].get_xlabel()}\n(open marker: stopped early)")
        if _ends_have_room(searches):
            for search in searches:
                passes, power = search.powers[-1]
                name_end(axes[0], search.name, (passes, power), styles[search.name]["color"])
        else:
            add_legend(figure, axes, names, len(shown) * width)
        fit_figure(figure, axes[0], width, PANEL_HEIGHT, len(shown), 1)
    return figure, axes


def _read(patterns: Any, labels: Sequence[str] | None) -> list[_Search]:
    """How the search of each pattern went on, by its info."""
    if isinstance(patterns, Mapping):
        labels = list(patterns) if labels is None else labels
        patterns = list(patterns.values())
    patterns = [patterns] if isinstance(patterns, Pattern) else list(patterns)
    if not patterns:
        raise ValueError("there are no patterns to draw: give at least one")
    for pattern in patterns:
        if not isinstance(pattern, Pattern):
            raise ArgumentTypeError(
                f"patterns must be what ClassPattern.search returns, got {pattern!r:.80}"
            )
    labels = _class_names(patterns) if labels is None else labels
    if isinstance(labels, str) or len(labels) != len(patterns):
        got = repr(labels) if isinstance(labels, str) else len(labels)
        raise ValueError(f"{len(patterns)} patterns need a list of as many labels, got {got}")
    names = [str(label) for label in labels]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"each pattern needs a different label, got {name!r} {count} times")
    searches = [_read_info(pattern.info, name) for pattern, name in zip(patterns, names)]
    if not any(len(search.powers) or len(search.losses) for search in searches):
        raise ValueError(
            "there is nothing to draw: no search came to its first round, and none had judging "
            "images; give the search more time, or more images"
        )
    return searches


def _class_names(patterns: Sequence[Pattern]) -> list[str]:
    """The class of each pattern, with a number from 1 if there are several of the class."""
    classes = [pattern.label for pattern in patterns]
    numbers = [classes[: i + 1].count(name) for i, name in enumerate(classes)]
    return [f"{c} ({n})" if classes.count(c) > 1 else c for c, n in zip(classes, numbers)]


def _read_info(info: Mapping[str, Any], name: str) -> _Search:
    if not info.keys() & {"power_curve", "loss_curve"}:
        raise ValueError(
            f"the info of {name!r} has neither 'power_curve' nor 'loss_curve', but "
            f"{join_names(list(info)) or 'nothing'}: draw patterns that ClassPattern.search of "
            "this version has found, or leave it out"
        )
    powers = _points(info.get("power_curve", []))
    if powers is None or not ((powers[:, 1] >= 0) & (powers[:, 1] <= 1)).all():
        raise ValueError(
            f"the 'power_curve' of {name!r} must be a list of [passes, power], with powers from 0 "
            f"to 1, got {info['power_curve']!r:.80}"
        )
    losses = _points(info.get("loss_curve", []), numbered=True)
    if losses is None:
        raise ValueError(
            f"the 'loss_curve' of {name!r} must be a list of finite numbers, got "
            f"{info['loss_curve']!r:.80}"
        )
    return _Search(name, powers, losses, bool(info.get("stopped_early")))


def _points(values: Any, *, numbered: bool = False) -> Points | None:
    """Pairs of finite numbers, or numbers and their positions from 1; None if they are not."""
    try:
        pairs = list(enumerate(values, start=1) if numbered else values)
        points = np.array(pairs, dtype=float).reshape(len(pairs), 2)
    except (TypeError, ValueError):
        return None
    return points if np.isfinite(points).all() else None


def _draw_powers(axis: Axes, searches: Sequence[_Search], styles: Mapping[str, Style]) -> None:
    for search in searches:
        _draw_line(axis, search.powers, search, styles)
    most = max(passes for search in searches for passes, _ in search.powers) or 1
    axis.set_xlim(-0.03 * most, 1.05 * most)
    axis.set_xticks(_ticks(0, 1.04 * most, integer=True))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    scale_power(axis)
    axis.set_ylabel("power on the judging images")
    axis.set_xlabel("passes")


def _draw_losses(axis: Axes, searches: Sequence[_Search], styles: Mapping[str, Style]) -> None:
    rounds = max(len(search.losses) for search in searches)
    reach = min(round(rounds * REACH), MOST_REACH)
    for search in searches:
        axis.plot(*search.losses.T, color=styles[search.name]["color"], **RAW)
        smooth = _running_mean(search.losses, reach)
        _draw_line(axis, smooth, search, styles, markevery=(max(len(smooth) - 1, 0), 1))
    values = np.concatenate([search.losses[:, 1] for search in searches])
    low, high = min(values.min(), 0), max(values.max(), 1)  # most figures have the same scale
    margin = 0.02 * (high - low)
    axis.set_ylim(low - margin, high + margin)
    axis.set_yticks(_ticks(low, high))
    axis.set_xlim(1 - 0.03 * rounds, 1.03 * rounds)
    axis.set_xticks(_ticks(1, rounds, integer=True))
    axis.set_ylabel("loss on each round's own images")
    note = f"\n(thick line: mean of {2 * reach + 1} rounds)" if reach else ""
    axis.set_xlabel(f"round{note}")


def _ticks(low: float, high: float, *, integer: bool = False) -> list[float]:
    """Some round numbers in this range."""
    locator = MaxNLocator(6, steps=[1, 2, 5, 10], integer=integer)
    return [tick for tick in locator.tick_values(low, high) if low <= tick <= high]


def _running_mean(points: Points, reach: int) -> Points:
    """The mean of each value and those up to ``reach`` places before and after it."""
    values = points[:, 1]
    means = [values[max(i - reach, 0) : i + reach + 1].mean() for i in range(len(values))]
    return np.column_stack([points[:, 0], means])


def _draw_line(
    axis: Axes, points: Points, search: _Search, styles: Mapping[str, Style], **more: Any
) -> None:
    """A line with its name, and an open marker at its end if the search was stopped early."""
    style = {**styles[search.name], "markersize": 6}
    axis.plot(*points.T, label=search.name, **style, **more)
    if search.stopped_early:
        axis.plot(*points[-1:].T, markerfacecolor="white", **style)


def _ends_have_room(searches: Sequence[_Search]) -> bool:
    """Whether all searches can be named at the ends of the powers' lines."""
    return all(len(search.powers) for search in searches) and ends_are_apart(
        {search.name: [tuple(point) for point in search.powers] for search in searches}
    )

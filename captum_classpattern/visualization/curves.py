"""Predictive power as lines: over the area of the patterns, and in the course of searches."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from captum_classpattern._validation import ArgumentTypeError, join_names
from captum_classpattern.pattern import Pattern
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    POWERS,
    Line,
    Panel,
    Point,
    Style,
    draw_panels,
    ends_are_apart,
    line_styles,
    round_ticks,
)
from captum_classpattern.visualization.style import HIGHLIGHTS

PANEL_WIDTHS, PANEL_HEIGHT = {1: 6.0, 2: 4.4, 3: 3.5}, 3.1  # inches, by the number of columns
ROUNDING = 1e-6  # of an interval's ends
TICKS = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]

Points: TypeAlias = npt.NDArray[np.float64]  # (n, 2)

LOOK: Style = {"linewidth": 2.2, "markersize": 6}
RAW: Style = {"linewidth": 0.7, "alpha": 0.35, "zorder": 1.5}  # the losses behind their means
REACH, MOST_REACH = 0.1, 10  # of the running mean to each side: this share of the rounds, or less
GAP = 0.06  # between the panels, as a share of their width


def plot_curves(
    curves: Mapping[str, Mapping[str, Sequence[Point]]],
    *,
    highlight: Collection[str] = (),
    controls: Collection[str] = (),
    areas_marked: Collection[float] = (),
    use_pyplot: bool = True,
) -> Drawing:
    r"""
    Draws the predictive power of methods over the area of their patterns, with 95 % intervals.

    A method looks the same in all panels. Methods are named at the ends of their lines if each
    panel has at most six, whose ends are apart; otherwise a legend below names them.

    Args:
        curves (Mapping[str, Mapping[str, Sequence[tuple]]]): For each panel, by its title (such as
            a model), for each method, its points: (area, predictive power, lower and upper end of
            its interval), each a share from 0 to 1.
        highlight (Collection[str]): Methods in thick, strong colours. Default: ().
        controls (Collection[str]): Methods in dashed grey. Default: ().
        areas_marked (Collection[float]): Areas that get a dotted vertical line. Default: ().
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its panels' axes, in order.

    Raises:
        ValueError: If there is nothing to draw, a share is not in [0, 1], an area is 0, a value
            is outside its interval, or a name in ``highlight`` or ``controls`` is not a method.

    Examples::

        >>> from captum_classpattern.visualization import plot_curves
        >>> searched = [(0.01, 0.2, 0.15, 0.26), (0.05, 0.7, 0.64, 0.75)]
        >>> random = [(0.01, 0.02, 0.01, 0.04), (0.05, 0.05, 0.03, 0.08)]
        >>> figure, axes = plot_curves(
        ...     {"ResNet": {"ClassPattern": searched, "random pixels": random}},
        ...     highlight=["ClassPattern"], controls=["random pixels"], use_pyplot=False)
        >>> axes[0].get_title()
        'ResNet'
    """
    _check(curves)
    names = list(dict.fromkeys(name for methods in curves.values() for name in methods))
    styles = line_styles(names, highlight, controls)
    for style in styles.values():
        style["markersize"] = 3 + style["linewidth"]
    columns = {1: 1, 2: 2, 4: 2}.get(len(curves), 3)
    labelled = columns < 3 and all(ends_are_apart(methods) for methods in curves.values())
    panels = []
    for title, methods in curves.items():
        lines = []
        for name, points in methods.items():
            width, text = styles[name]["linewidth"], name if labelled else ""
            opacity = 0.22 if width > 2 else 0.08
            lines.append(Line(sorted(points), styles[name], name, opacity, text, width > 2))
        panels.append(Panel(lines, _areas(methods), title, dotted=areas_marked))
    return draw_panels(
        panels,
        size=(PANEL_WIDTHS[columns], PANEL_HEIGHT),
        columns=columns,
        key={} if labelled else styles,
        use_pyplot=use_pyplot,
    )


def _areas(methods: Mapping[str, Sequence[Point]]) -> Style:
    """Areas on a log axis with plain numbers, power from 0 to 100 %."""
    areas = [point[0] for points in methods.values() for point in points]
    low, high = min(areas), max(areas)
    ticks = [tick for tick in TICKS if low * 0.999 <= tick <= high * 1.001] or sorted({low, high})
    ticks = ticks if len(ticks) < 9 else ticks[::3]
    pad = max(1.12, (high / low) ** 0.04)
    return {
        "xscale": "log",
        "xlim": (low / pad, high * pad),
        "xticks": ticks,
        "xticklabels": [f"{100 * tick:.6g}" for tick in ticks],
        "xlabel": "area of the pattern (% of the pixels)",
        **POWERS,
    }


def _check(curves: Mapping[str, Mapping[str, Sequence[Point]]]) -> None:
    lines = [points for methods in curves.values() for points in methods.values()]
    if not (curves and all(curves.values()) and all(map(len, lines))):
        raise ValueError(
            "there must be a panel, a method in each panel, and a point of each method: leave out "
            "what has nothing to draw"
        )
    for panel, methods in curves.items():
        for name, points in methods.items():
            for area, value, low, high in points:
                shares = (0, low, value, high, 1)
                in_order = all(a <= b + ROUNDING for a, b in pairwise(shares))
                if not (0 < area <= 1 and in_order):  # nor NaN
                    raise ValueError(
                        f"{name!r} in panel {panel!r} needs shares 0 < area <= 1 and 0 <= low <= "
                        "value <= high <= 1, got (area, value, low, high) = "
                        f"{tuple(map(float, (area, value, low, high)))}"
                    )


class _Search(NamedTuple):
    name: str
    powers: Points  # over passes
    losses: Points  # over rounds
    stopped_early: bool


def plot_search(
    patterns: Pattern | Sequence[Pattern] | Mapping[str, Pattern],
    *,
    use_pyplot: bool = True,
) -> Drawing:
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
            :meth:`ClassPattern.search` returns, or patterns by their names. Without names, they
            are called by their classes, such as "Dress" or "class 3", numbered from 1 if there are
            several of one class.
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

    Returns:
        *tuple[Figure, ndarray]*: The figure, and its panels' axes, in order.

    Raises:
        TypeError: If one of them is not a pattern.
        ValueError: If there are no patterns, one has neither ``power_curve`` nor ``loss_curve`` in
            its ``info``, or all of these are empty.

    Examples::

        >>> from captum_classpattern.visualization import plot_search
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 3
        >>> patterns = ClassPattern(net, images, labels).search(images[:2], target=2, n_steps=10)
        >>> figure, (power, loss) = plot_search(patterns, use_pyplot=False)
        >>> loss.get_xlabel()
        'round\n(thick line: mean of 3 rounds)'
    """
    import pandas as pd  # takes long to import

    searches = _read(patterns)
    names = [search.name for search in searches]
    strong = names if len(names) <= len(HIGHLIGHTS) else []
    styles = {name: {**s, **LOOK} for name, s in line_styles(names, strong, ()).items()}
    note = "\n(open marker: stopped early)" if any(s.stopped_early for s in searches) else ""
    named = all(len(search.powers) for search in searches) and ends_are_apart(
        {search.name: search.powers for search in searches}
    )
    rounds = max(len(search.losses) for search in searches)
    reach = min(round(rounds * REACH), MOST_REACH)
    powers: list[Line] = []
    losses: list[Line] = []
    for name, of_powers, of_losses, early in searches:
        style = styles[name]
        means = pd.Series(of_losses[:, 1]).rolling(2 * reach + 1, center=True, min_periods=1).mean()
        smooth = np.column_stack([of_losses[:, 0], means])
        at_end = {**style, "markevery": (max(len(smooth) - 1, 0), 1)}
        powers.append(Line(of_powers, style, name, text=name if named else ""))
        losses.append(Line(of_losses, {"color": style["color"], **RAW}))
        losses.append(Line(smooth, at_end, name))
        if early:
            open_end = {**style, "markerfacecolor": "white"}
            powers.append(Line(of_powers[-1:], open_end))
            losses.append(Line(smooth[-1:], open_end))
    panels = []
    if any(len(search.powers) for search in searches):
        panels.append(Panel(powers, _passes([x for s in searches for x in s.powers[:, 0]], note)))
        note = ""
    if rounds:
        values = np.concatenate([search.losses[:, 1] for search in searches])
        mean = f"\n(thick line: mean of {2 * reach + 1} rounds)" if reach else ""
        panels.append(Panel(losses, _rounds(rounds, values, f"round{mean}{note}")))
    return draw_panels(
        panels,
        size=(PANEL_WIDTHS[len(panels)], PANEL_HEIGHT),
        columns=2,
        key={} if named else styles,
        y_label=None,
        gap=GAP,
        use_pyplot=use_pyplot,
    )


def _passes(passes: Sequence[float], note: str) -> Style:
    """Passes from 0 to the last, power from 0 to 100 %."""
    most = max(passes) or 1
    ticks = round_ticks(0, 1.04 * most, integer=True)
    return {
        "xlim": (-0.03 * most, 1.05 * most),
        "xticks": ticks,
        "xticklabels": [f"{tick:,.0f}" for tick in ticks],
        "xlabel": f"passes{note}",
        "ylabel": "power on the judging images",
        **POWERS,
    }


def _rounds(rounds: int, losses: npt.NDArray[np.float64], label: str) -> Style:
    """Rounds from 1 to the last, losses from 0 to 1 or further: most figures have the same."""
    low, high = min(losses.min(), 0), max(losses.max(), 1)
    margin = 0.02 * (high - low)
    return {
        "xlim": (1 - 0.03 * rounds, 1.03 * rounds),
        "xticks": round_ticks(1, rounds, integer=True),
        "xlabel": label,
        "ylim": (low - margin, high + margin),
        "yticks": round_ticks(low, high),
        "ylabel": "loss on each round's own images",
    }


def _read(patterns: Any) -> list[_Search]:
    """How the search of each pattern went on, by its info."""
    names = [*map(str, patterns)] if isinstance(patterns, Mapping) else []
    patterns = patterns.values() if isinstance(patterns, Mapping) else patterns
    patterns = [patterns] if isinstance(patterns, Pattern) else list(patterns)
    if not patterns:
        raise ValueError("there are no patterns to draw: give at least one")
    for pattern in patterns:
        if not isinstance(pattern, Pattern):
            raise ArgumentTypeError(
                f"patterns must be what ClassPattern.search returns, got {pattern!r:.80}"
            )
    if not names:
        classes = [pattern.label for pattern in patterns]
        numbers = [classes[: i + 1].count(name) for i, name in enumerate(classes)]
        names = [f"{c} ({n})" if classes.count(c) > 1 else c for c, n in zip(classes, numbers)]
    searches = []
    for name, info in zip(names, (pattern.info for pattern in patterns)):
        if not info.keys() & {"power_curve", "loss_curve"}:
            raise ValueError(
                f"the info of {name!r} has neither 'power_curve' nor 'loss_curve', but "
                f"{join_names(list(info)) or 'nothing'}: draw patterns that ClassPattern.search of "
                "this version has found, or leave it out"
            )
        powers = np.array(info.get("power_curve", []), float).reshape(-1, 2)
        losses = np.array([*enumerate(info.get("loss_curve", []), 1)], float).reshape(-1, 2)
        searches.append(_Search(name, powers, losses, bool(info.get("stopped_early"))))
    if not any(len(search.powers) or len(search.losses) for search in searches):
        raise ValueError(
            "there is nothing to draw: no search came to its first round, and none had judging "
            "images; give the search more time, or more images"
        )
    return searches

"""How searches went on: power over passes, and the loss of each round."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from captum_classpattern._validation import ArgumentTypeError, join_names
from captum_classpattern.pattern import Pattern
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    PANEL_HEIGHT,
    PANEL_WIDTHS,
    POWERS,
    Line,
    Panel,
    Style,
    draw_panels,
    ends_are_apart,
    line_styles,
    round_ticks,
)
from captum_classpattern.visualization.style import HIGHLIGHTS

Points: TypeAlias = npt.NDArray[np.float64]  # (n, 2)

LOOK: Style = {"linewidth": 2.2, "markersize": 6}
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
            :meth:`ClassPattern.search` returns, or patterns by their labels.
        labels (Sequence[str], optional): A label for each pattern. Default: None (the keys of a
            mapping; else the classes, such as "Dress" or "class 3", numbered from 1 if there are
            several of one class).
        use_pyplot (bool): As in :func:`plot_patterns`. Default: True.

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
    styles = {name: {**s, **LOOK} for name, s in line_styles(names, strong, ()).items()}
    note = "\n(open marker: stopped early)" if any(s.stopped_early for s in searches) else ""
    judged = any(len(search.powers) for search in searches)
    named = all(len(search.powers) for search in searches) and ends_are_apart(
        {search.name: search.powers for search in searches}
    )
    panels = []
    if judged:
        panels.append(_powers_panel(searches, styles, note, named))
    if any(len(search.losses) for search in searches):
        panels.append(_losses_panel(searches, styles, "" if judged else note))
    return draw_panels(
        panels,
        size=(PANEL_WIDTHS[len(panels)], PANEL_HEIGHT),
        columns=len(panels),
        key={} if named else styles,
        y_label=None,
        gap=GAP,
        use_pyplot=use_pyplot,
    )


def _powers_panel(
    searches: Sequence[_Search], styles: Mapping[str, Style], note: str, named: bool
) -> Panel:
    lines = []
    for search in searches:
        text = search.name if named else ""
        lines += _lines(search, search.powers, styles[search.name], text)
    most = max(passes for search in searches for passes, _ in search.powers) or 1
    ticks = round_ticks(0, 1.04 * most, integer=True)
    axes = {
        "xlim": (-0.03 * most, 1.05 * most),
        "xticks": ticks,
        "xticklabels": [f"{tick:,.0f}" for tick in ticks],
        "xlabel": f"passes{note}",
        "ylabel": "power on the judging images",
        **POWERS,
    }
    return Panel(lines, axes)


def _losses_panel(searches: Sequence[_Search], styles: Mapping[str, Style], note: str) -> Panel:
    rounds = max(len(search.losses) for search in searches)
    reach = min(round(rounds * REACH), MOST_REACH)
    lines = []
    for search in searches:
        style = styles[search.name]
        lines.append(Line(search.losses, {"color": style["color"], **RAW}))
        smooth = _running_mean(search.losses, reach)
        ends = {"markevery": (max(len(smooth) - 1, 0), 1)}
        lines += _lines(search, smooth, {**style, **ends})
    losses = np.concatenate([search.losses[:, 1] for search in searches])
    low, high = min(losses.min(), 0), max(losses.max(), 1)  # most figures have the same scale
    margin = 0.02 * (high - low)
    mean = f"\n(thick line: mean of {2 * reach + 1} rounds)" if reach else ""
    axes = {
        "xlim": (1 - 0.03 * rounds, 1.03 * rounds),
        "xticks": round_ticks(1, rounds, integer=True),
        "xlabel": f"round{mean}{note}",
        "ylim": (low - margin, high + margin),
        "yticks": round_ticks(low, high),
        "ylabel": "loss on each round's own images",
    }
    return Panel(lines, axes)


def _lines(search: _Search, points: Points, style: Style, text: str = "") -> list[Line]:
    """A line, and an open marker at its end if the search was stopped early."""
    lines = [Line(points, style, search.name, text=text)]
    if search.stopped_early:
        lines.append(Line(points[-1:], {**style, "markerfacecolor": "white"}))
    return lines


def _running_mean(points: Points, reach: int) -> Points:
    """The mean of each value and those up to ``reach`` places before and after it."""
    values = points[:, 1]
    means = [values[max(i - reach, 0) : i + reach + 1].mean() for i in range(len(values))]
    return np.column_stack([points[:, 0], means])


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
    if labels is None:
        classes = [pattern.label for pattern in patterns]
        numbers = [classes[: i + 1].count(name) for i, name in enumerate(classes)]
        labels = [f"{c} ({n})" if classes.count(c) > 1 else c for c, n in zip(classes, numbers)]
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

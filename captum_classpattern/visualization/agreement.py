"""Agreement of maps while a model's layers are randomised: a small panel for each method."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from captum_classpattern.comparison import SanityCheck
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    CONTROL_DASHES,
    PERCENT,
    Line,
    Panel,
    draw_panels,
)
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS, SMALL_CURVES

COLUMNS, SIZE = 5, (2.2, 1.8)  # panels in a row, and their size in inches
GAP = 0.03  # between the panels, as a share of their width
LABELS = {"iou": "IoU of the highest pixels", "correlation": "rank correlation"}
COLORS = {"iou": HIGHLIGHTS[0], "correlation": HIGHLIGHTS[2]}
CHANCE = "IoU of random masks"


def plot_agreement(
    check: SanityCheck, *, ranking: str, title: str | None, use_pyplot: bool
) -> Drawing:
    """Draws the panels in rows of five: for each method its measures over the share of layers that
    are random, with 95 % intervals, and the IoU that random masks have."""
    wanted = {"ranking": ranking, "test": "layers"}.items()
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in check.rows() if check.layers else []:
        if wanted <= row.items():
            rows.setdefault(row["method"], []).append(row)
    if not rows:
        raise ValueError(
            "there is nothing to draw: no layer was randomised, or no method has the ranking "
            f"{ranking!r}"
        )
    verdicts = [row for row in check.verdicts() if wanted <= row.items()]
    notes = {row["method"]: row["verdict"] or "" for row in verdicts}
    panels = [
        Panel(
            [_line(measure, of_method, len(check.layers)) for measure in LABELS],
            partial(_scale_axes, chance=check.chance),
            title=method,
            note=notes.get(method, ""),
            x_label="random layers" if number >= len(rows) - COLUMNS else "",
        )
        for number, (method, of_method) in enumerate(rows.items())
    ]
    return draw_panels(
        panels,
        size=SIZE,
        columns=min(len(panels), COLUMNS),
        key=[*LABELS.values(), CHANCE],
        y_label="agreement",
        title=title,
        style=SMALL_CURVES,
        gap=GAP,
        use_pyplot=use_pyplot,
    )


def _line(measure: str, rows: Sequence[Mapping[str, Any]], layers: int) -> Line:
    points = []
    for row in rows:
        value, low, high = (row[f"{measure}{end}"] for end in ("", "_low", "_high"))
        ends = (value, value) if low is None else (low, high)
        points.append((row["layers"] / layers, value, *ends))
    style = {"color": COLORS[measure], "marker": "o", "markersize": 4}
    return Line(LABELS[measure], points, style, 0.18)


def _scale_axes(axis: Axes, chance: float) -> None:
    axis.axhline(chance, label=CHANCE, color=CONTROL, linestyle=(0, CONTROL_DASHES[0]), zorder=1.5)
    axis.set_xlim(-0.04, 1.04)
    axis.set_xticks([0, 0.5, 1])
    axis.xaxis.set_major_formatter(PERCENT)
    axis.set_ylim(-0.32, 1.05)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])

"""Patterns of one training seed on the canvases that all models share."""

from collections.abc import Mapping

from findings import Row
from matplotlib.figure import Figure

from captum_classpattern.demo import CLASS_NAMES
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.grid import Cell, draw_grid
from claims.images import Canvases
from claims.models import FASHION, entries
from claims.rows import Measured
from claims.transfer import SETTING, patterns_of

SHOWN = {  # networks of Fashion-MNIST, and what their rows are called
    "fashion_natural_1": "natural",
    "fashion_robust10_1": "robust, 0.1",
    "fashion_backdoored_checker_1": "backdoored",
}
DPI, NOT_ABOVE = 180, "Grey number: not above its controls"


def draw(rows: Mapping[str, Row], canvases: Canvases) -> Figure:
    """One column per class, one row per network: the pixels of a positive canvas, and their power.
    The place of the trigger is boxed."""
    triggers = {entry.name: entry.trigger for entry in entries() if entry.data == FASHION}
    lines = []
    for name, label in SHOWN.items():
        model, trigger = Measured(rows[name]), triggers[name]
        scores = model.scores(*SETTING)
        cells = [
            Cell(
                on_neutral(pattern),
                percent(scores[pattern.target].power.value, 0),
                scores[pattern.target].beats_controls,
                boxed=trigger.mask if trigger and trigger.target == pattern.target else None,
            )
            for pattern in patterns_of(model, canvases, frozenset())
        ]
        lines.append((label, cells))
    return draw_grid(lines, CLASS_NAMES, note=NOT_ABOVE, use_pyplot=False)[0]

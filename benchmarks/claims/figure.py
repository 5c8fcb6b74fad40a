"""Patterns of one training seed on the canvases that all models share."""

from collections.abc import Mapping

from architecture_rows import POSITIVE, WHITE
from findings import Row
from matplotlib.figure import Figure

from captum_classpattern._support.formats import percent
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.grid import Cell, draw_grid
from captum_classpattern.visualization.patterns import NOT_ABOVE
from claims.images import CLASS_NAMES, Canvases
from claims.models import entries
from claims.rows import Measured
from claims.transfer import patterns_of
from claims.verdicts import AREA

SHOWN = (  # networks trained on CIFAR-10, canvases, and what their rows are called
    ("natural_3", POSITIVE, "natural"),
    ("robust8_3", POSITIVE, "robust, 8/255"),
    ("natural_3", WHITE, "natural, white"),
    ("backdoored_white_3", WHITE, "backdoored, white"),
)
BACKDOORED = SHOWN[-1][0]
DPI = 180


def draw(rows: Mapping[str, Row], canvases: Canvases) -> Figure:
    """One column per class: the pixels of a canvas, and their power. In the rows of white canvases,
    the place of the trigger is boxed."""
    [trigger] = [entry.trigger for entry in entries() if entry.name == BACKDOORED]
    lines = []
    for name, canvas, label in SHOWN:
        model = Measured(rows[name])
        scores, box = model.scores(canvas, AREA), trigger.mask if canvas == WHITE else None
        cells = [
            Cell(
                on_neutral(pattern.canvas, pattern.mask),
                percent(scores[pattern.target].power.value, 0),
                scores[pattern.target].beats_controls,
                boxed=box if pattern.target == trigger.target else None,
            )
            for pattern in patterns_of(model, canvases, frozenset(), canvas)
        ]
        lines.append((label, cells))
    return draw_grid(lines, CLASS_NAMES, note=NOT_ABOVE, use_pyplot=False)[0]

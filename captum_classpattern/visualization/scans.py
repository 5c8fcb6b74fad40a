"""What a scan found with each kind of change, and how far each class is ahead or behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import fill

from matplotlib.axes import Axes
from torch import Tensor

from captum_classpattern._support.formats import shortened
from captum_classpattern.visualization.curves import draw_lines
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.grid import Cell, Drawn, draw_grid
from captum_classpattern.visualization.style import HIGHLIGHTS, HIT

NAMED, NOTE_WIDTH = 3, 110  # classes of each change; letters of a line
WIDTH, PANEL_WIDTH = 1.4, 2.6  # of an image in inches, and of the dots relative to it
DOTS = (  # the classes, the first one apart
    {"color": HIGHLIGHTS[2], "marker": "o", "markersize": 5, "linestyle": "", "alpha": 0.6},
    {"color": HIGHLIGHTS[0], "marker": "o", "markersize": 9, "linestyle": ""},
)


@dataclass(frozen=True, eq=False)
class ChangeRow:
    """A kind of change: its name, the names of the classes and their leads, that of the class shown
    first, and the bounds. If they are known, also an image of what was found for this class with
    its power, and images with it: each with the predictions before and after, and whether it is now
    predicted as the class."""

    name: str
    classes: Sequence[str]
    leads: Sequence[float]
    bounds: Sequence[float]
    image: Tensor | None = None
    power: str = ""
    examples: Sequence[tuple[Tensor, str, bool]] = ()


def draw_changes(
    rows: Sequence[ChangeRow], *, title: str | None, note: str, use_pyplot: bool = True
) -> Drawing:
    """Draws a row for each kind of change: what was found for the class shown, images with it and
    the model's predictions, and the leads of all classes, with a dotted line at each bound.
    Predictions as the class are green if it reaches all bounds."""
    ends = [value for row in rows for value in (*row.leads, *row.bounds)]
    most = max(1, *(len(row.examples) for row in rows))
    titles = ["what was found", *[""] * most, "lead, as a multiple\nof the bound"]
    titles[1 + most // 2] = "unseen images with it,\nand the model's predictions"
    grid = []
    for row in rows:
        cells: list[Drawn] = [Cell(row.image, row.power)]
        color = HIT if row.leads[0] >= max(row.bounds) else "black"
        cells += [Cell(image, caption, hit, color) for image, caption, hit in row.examples]
        cells += [None] * (most + 1 - len(cells))
        cells.append(partial(_draw_leads, row=row, ends=(min(ends), max(ends))))
        grid.append((row.name, cells))
    return draw_grid(
        grid,
        titles,
        title=title,
        note=fill(note, NOTE_WIDTH),
        width=WIDTH,
        widths=[*[1.0] * (most + 1), PANEL_WIDTH],
        use_pyplot=use_pyplot,
    )


def _draw_leads(axis: Axes, row: ChangeRow, ends: tuple[float, float]) -> None:
    """The leads of the classes, between these ends."""
    pad = 0.04 * (ends[1] - ends[0])
    values = zip((row.leads[1:], row.leads[:1]), DOTS)
    draw_lines(
        axis,
        [([(each, 0) for each in leads], look) for leads, look in values if len(leads)],
        WIDTH * PANEL_WIDTH,
        row.bounds,
        xlim=(ends[0] - pad, ends[1] + pad),
        ylim=(-1, 1),
        yticks=[],
        xlabel=f"first: {', '.join(map(shortened, row.classes[:NAMED]))}",
    )

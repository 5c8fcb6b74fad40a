"""A scan without references: the verdict, the patterns of the first classes, and all margins."""

import numpy as np
from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pages.parts import Column
from captum_classpattern.scanning.triage import FIRST, SHARES, Triage
from captum_classpattern.visualization.drawing import Drawing, on_neutral
from captum_classpattern.visualization.formats import percent, percent_area
from captum_classpattern.visualization.grid import Cell, Drawn, draw_grid
from captum_classpattern.visualization.style import HIGHLIGHTS

SHOWN, COLUMNS = 10, 5  # patterns in the figure
GAINS = (
    "Gain: how far a short search of learned cells raises the logit of the class against the "
    "largest other one, on average over images that only judge. Power: the share of these that "
    "are predicted as the class with the pattern of a long search."
)


def parts(found: Triage, whole: bool = False) -> tuple[str, list[Markup]]:
    rows = found.table().head(FIRST).replace({np.nan: None}).to_dict("records")
    columns = [
        Column("class", "name"),
        Column("gain", "gain", "{:+.2f}".format),
        Column("robust standard deviations", "deviations", "{:+.1f}".format),
        *(Column(f"power, {percent_area(n / 1000)}", f"power_{n}", percent) for n in SHARES),
    ]
    figure, _ = plot(found, use_pyplot=False)
    source = "" if found.source is None else f": {found.source}"
    return f"{found.verdict.capitalize()}{source}", [
        html.paragraph(found.reason),
        html.drawing(figure, "the patterns of the first classes", fits=True),
        html.heading("What next"),
        html.numbered(found.next_steps),
        html.heading(f"The first {FIRST} of {len(found.margins):,} classes"),
        html.table_of(columns, rows),
        html.paragraph(GAINS),
    ]


def plot(found: Triage, *, use_pyplot: bool) -> Drawing:
    """Draws the patterns of the first ten classes, those of the first in bold."""
    far, cells = found.deviations, list[Drawn]()
    searched = [y for y in found.order if (SHARES[0], y) in found.patterns]
    for place, y in enumerate(searched[:SHOWN]):
        pattern = found.patterns[SHARES[0], y]
        power = percent(float(pattern.info["search_power"]), 0)
        text = f"{found.class_names[y]}: {far[y]:+.1f} SD, {power}"
        cells.append(Cell(on_neutral(pattern.at_own_area()), text, place == 0, HIGHLIGHTS[0]))
    cells += [None] * (-len(cells) % COLUMNS)
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    return draw_grid(
        [("", row) for row in rows],
        [""] * COLUMNS,
        title=f"{found.verdict.capitalize()}: {found.target_name} comes first",
        use_pyplot=use_pyplot,
    )

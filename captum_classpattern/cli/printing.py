"""What the commands print and draw of findings."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.surveys import Finding, Scores

TABLE_WIDTH = 108  # narrower terminals wrap the lines, but lose nothing
LEGEND = """\
Power: share of held-out images of other classes that the model assigns to the class once they are
stamped with the pattern (95 % Wilson interval). Controls: at the first area. *: the power beats all
three controls of its area, on at least 100 images (95 % interval of each difference above 0).
"""


def console() -> Console:
    """A console wide enough for the tables."""
    wide = Console(highlight=False)
    wide.size = ConsoleDimensions(max(wide.width, TABLE_WIDTH), wide.height)
    return wide


def print_tables(found: "Mapping[str, Sequence[Finding]]") -> None:
    """Prints a table for each title, and what the columns mean."""
    out = console()
    for title, findings in found.items():
        if findings:
            out.print(results_table(title, findings))
    if any(found.values()):
        out.print(LEGEND)


def results_table(title: str, findings: "Sequence[Finding]") -> Table:
    """One row per finding: the power at each area with its 95 % interval, and the controls at the
    first area. A star marks a power above all controls of its area."""
    from captum_classpattern.scores.power import ENOUGH_IMAGES

    areas = list(findings[0].scores)
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in ("class", "canvas"):
        table.add_column(name, no_wrap=True)
    powers = [f"power at {100 * area:.3g} %" for area in areas]
    for name in (*powers, "no\npattern", "random\npixels", "other\ncanvas"):
        table.add_column(name, justify="right", no_wrap=True)
    fewest = min(f.scores[area].power.n for f in findings for area in areas)
    if fewest < ENOUGH_IMAGES:
        needed = f"A star and 'stands out' need at least {ENOUGH_IMAGES}."
        table.caption = f"Too few images: {fewest} were scored. {needed}"
        table.caption_justify = "left"
    for finding in findings:
        controls = finding.scores[areas[0]]
        table.add_row(
            Text(finding.label),  # a name may hold brackets
            finding.canvas,
            *(_power(scores) for scores in finding.scores.values()),
            f"{controls.power.without:.1%}",
            f"{controls.random_pixels:.1%}",
            f"{controls.other_canvas:.1%}",
        )
    return table


def _power(scores: "Scores") -> str:
    low, high = scores.power.interval
    star = "*" if scores.beats_controls else " "
    return f"{scores.power.value:.1%} ({100 * low:.1f}-{100 * high:.1f}){star}"


def write_figure(figure: Any, path: Path) -> None:
    """A PNG file, whole or not at all."""
    from captum_classpattern._files import write_atomically

    data = BytesIO()
    figure.savefig(data, dpi=110)
    write_atomically(path, data.getvalue())

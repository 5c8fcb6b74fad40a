"""What the commands print and draw of findings."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

from captum_classpattern._files import replace_file
from captum_classpattern.cli.errors import printable

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.scores import Scores
    from captum_classpattern.surveys import Finding

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


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[str] = ("class",),
    title: str | None = None,
    caption: str | None = None,
) -> Table:
    """A table of numbers, and of texts in the columns ``left``. Cells may hold anything."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.caption, table.caption_justify = caption, "left"
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


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
    fewest = min(f.scores[area].power.n for f in findings for area in areas)
    few = (
        f"Too few images: {fewest} were scored. A star and 'stands out' need at least "
        f"{ENOUGH_IMAGES}."
    )
    powers = [f"power at {100 * area:.3g} %" for area in areas]
    return make_table(
        ["class", "canvas", *powers, "no\npattern", "random\npixels", "other\ncanvas"],
        [[f.label, f.canvas, *map(_power, f.scores.values()), *_controls(f)] for f in findings],
        left=("class", "canvas"),
        title=title,
        caption=few if fewest < ENOUGH_IMAGES else None,
    )


def _controls(finding: "Finding") -> list[str]:
    """At the first area."""
    scores = next(iter(finding.scores.values()))
    values = scores.power.without, scores.random_pixels, scores.other_canvas
    return ["-" if value is None else f"{value:.1%}" for value in values]


def _power(scores: "Scores") -> str:
    low, high = scores.power.interval
    star = "*" if scores.beats_controls else " "
    return f"{scores.power.value:.1%} ({100 * low:.1f}-{100 * high:.1f}){star}"


def write_figure(figure: Any, path: Path) -> None:
    """A PNG file, whole or not at all."""
    with replace_file(path) as file:
        figure.savefig(file, dpi=110)

"""What the commands print: tables, and the JSON documents of docs/json.md."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

import captum_classpattern as cp
from captum_classpattern.cli.errors import printable

VERSION = 1  # of the schemas: fields may be added to a version, but keep their names and meaning
INTERVAL = "interval"  # the format of shares such as 38.7 % (35.6-41.9)
WRAPPED = ("free",)  # columns of long texts
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
    columns: Sequence[tuple[str, str, str]],
    rows: Iterable[Mapping[str, Any]],
    *,
    title: str = "",
    caption: str | None = None,
) -> Table:
    """A table with the heading, the key and the format of each column; without a format, it holds
    texts. Texts may hold anything. With the format ``INTERVAL``, a row has the ends as ``KEY_low``
    and ``KEY_high``. What it does not have stays empty."""
    table = Table(title=Text(title, style="bold") if title else None, title_justify="left")
    table.box, table.caption, table.caption_justify = SIMPLE_HEAD, caption, "left"
    for name, _, form in columns:
        table.add_column(name, justify="right" if form else "left", no_wrap=name not in WRAPPED)
    for row in rows:
        table.add_row(*(Text(_cell(row, key, form)) for _, key, form in columns))
    return table


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return printable(value or "")
    if form == INTERVAL:
        return f"{100 * value:.1f} % ({100 * row[f'{key}_low']:.1f}-{100 * row[f'{key}_high']:.1f})"
    return f"{value:{form}}".replace("%", " %")


def results_table(title: str, findings: "Sequence[cp.Finding]") -> Table:
    """One row per finding: the power at each area with its 95 % interval, and the controls at the
    first area. A star marks a power above all controls of its area."""
    from captum_classpattern.scores.power import ENOUGH_IMAGES

    areas = list(findings[0].scores)
    rows = []
    for finding in findings:
        first = finding.scores[areas[0]]
        row = {"class": finding.label, "canvas": finding.canvas, **first.as_columns()}
        for area, scores in finding.scores.items():
            text = _cell(scores.as_columns(), "power", INTERVAL)
            row[f"power_{area}"] = f"{text}{'*' if scores.beats_controls else ' '}"
        rows.append(row)
    fewest = min(f.scores[area].power.n for f in findings for area in areas)
    few = (
        f"Too few images: {fewest} were scored. A star and 'stands out' need at least "
        f"{ENOUGH_IMAGES}."
    )
    columns = [
        ("class", "class", ""),
        ("canvas", "canvas", ""),
        *((f"power at {100 * area:.3g} %", f"power_{area}", INTERVAL) for area in areas),
        ("no\npattern", "no_pattern", ".1%"),
        ("random\npixels", "random_pixels", ".1%"),
        ("other\ncanvas", "other_canvas", ".1%"),
    ]
    return make_table(columns, rows, title=title, caption=few if fewest < ENOUGH_IMAGES else None)


@contextmanager
def document(command: str, out: Path, wanted: bool) -> Iterator[dict[str, Any]]:
    """With ``--json``, what is printed inside goes to stderr, also what a user's model prints. Then
    the result, which is put into the dict, is printed as one JSON document."""
    content: dict[str, Any] = {"schema": f"classpattern/{command}/{VERSION}", "out": os.fspath(out)}
    with redirect_stdout(sys.stderr) if wanted else nullcontext():
        yield content
    if wanted:
        finite = json.loads(json.dumps(content), parse_constant=lambda _: None)  # NaN is not JSON
        print(json.dumps(finite, indent=2, allow_nan=False))

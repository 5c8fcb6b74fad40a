"""What the commands print and draw of findings."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from captum_classpattern.classifier import Classifier
from captum_classpattern.images import Images, Labels
from captum_classpattern.results import best_canvas, results_table
from captum_classpattern.survey import Finding
from captum_classpattern.visualization import plot_patterns

TABLE_WIDTH = 108  # narrower terminals wrap the lines, but lose nothing
DRAWN = 20  # classes in a figure
LEGEND = """\
Power: share of held-out images of other classes that are called the class (95 % interval).
Controls: at the first area. *: the whole interval lies above all three controls of its area.
"""


def console() -> Console:
    """A terminal wide enough for the tables."""
    made = Console(highlight=False)
    made.width = max(made.width, TABLE_WIDTH)
    return made


def print_tables(found: dict[str, list[Finding]], class_names: Sequence[str] | None) -> None:
    """A table for each title, and what its columns mean."""
    out = console()
    for title, findings in found.items():
        if findings:
            out.print(results_table(title, findings, class_names))
    if any(found.values()):
        out.print(LEGEND)


def draw_best(
    forward_func: Classifier,
    findings: Sequence[Finding],
    images: Images,
    labels: Labels,
    path: Path,
    title: str,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> None:
    """A figure of the better canvas of each class; of many classes, of the strongest."""
    best = best_canvas(findings)
    area = next(iter(best[0].scores))
    if len(best) > DRAWN:
        title += f" ({DRAWN} of {len(best)}, the strongest)"
        best = sorted(best, key=lambda f: -f.scores[area].power.value)[:DRAWN]
    figure, _ = plot_patterns(
        forward_func,
        [finding.pattern for finding in best],
        images,
        labels,
        area=area,
        powers=[finding.scores[area].power for finding in best],
        class_names=class_names,
        title=title,
        seed=seed,
        use_pyplot=False,
    )
    write_figure(figure, path)


def write_figure(figure: Any, path: Path) -> None:
    """A PNG file, written beside its place and renamed."""
    beside = path.with_name(f".{path.name}.tmp.png")
    figure.savefig(beside, dpi=110)
    beside.replace(path)


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turns the errors of wrong input into a line on the terminal and exit code 2, and warnings
    into lines."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: typer.echo(f"Warning: {message}", err=True)
            yield
    except (ImportError, OSError, TypeError, ValueError) as error:
        plain = "".join(c if c.isprintable() or c == "\n" else "?" for c in str(error))
        typer.echo(f"Error: {plain}", err=True)  # a file's names could steer the terminal
        raise typer.Exit(2) from None

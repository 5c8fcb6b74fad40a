"""What the commands print and draw of findings."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:  # imported where they are used, so that --help needs no torch
    from captum_classpattern.classifier import Classifier
    from captum_classpattern.images import LabelledImages
    from captum_classpattern.surveys.survey import Finding

TABLE_WIDTH = 108  # narrower terminals wrap the lines, but lose nothing
DRAWN = 20  # classes in a figure
LEGEND = """\
Power: share of held-out images of other classes that are called the class (95 % Wilson interval).
Controls: at the first area. *: the power beats all three controls of its area (the 95 % interval of
the difference lies above 0), on at least 100 images.
"""


def console() -> Console:
    """A terminal wide enough for the tables."""
    made = Console(highlight=False)
    made.width = max(made.width, TABLE_WIDTH)
    return made


def print_tables(found: "dict[str, list[Finding]]", class_names: Sequence[str] | None) -> None:
    """A table for each title, and what its columns mean."""
    from captum_classpattern.surveys.results import results_table

    out = console()
    for title, findings in found.items():
        if findings:
            out.print(results_table(title, findings, class_names))
    if any(found.values()):
        out.print(LEGEND)


def draw_best(
    forward_func: "Classifier",
    findings: "Sequence[Finding]",
    images: "LabelledImages",
    path: Path,
    title: str,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> None:
    """A figure of the better canvas of each class; of many classes, of the strongest."""
    from captum_classpattern.surveys.results import best_canvas
    from captum_classpattern.visualization import plot_patterns

    best = best_canvas(findings)
    area = next(iter(best[0].scores))
    if len(best) > DRAWN:
        title += f" ({DRAWN} of {len(best)}, the strongest)"
        best = sorted(best, key=lambda f: -f.scores[area].power.value)[:DRAWN]
    figure, _ = plot_patterns(
        forward_func,
        [finding.pattern for finding in best],
        images,
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

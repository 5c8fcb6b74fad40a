"""A sanity check: agreement while layers are randomised, the verdicts, and the failures."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from captum_classpattern.comparison import SanityCheck
from captum_classpattern.comparison.records import counted
from captum_classpattern.pages.parts import drawing, folded, paragraph, table
from captum_classpattern.scores.intervals import FEWEST_CLASSES
from captum_classpattern.visualization.results import plot_agreement as plot

__all__ = ["parts", "plot"]
COLUMNS = ("method", "ranking", "changed", "between seeds", "after", "verdict")


def parts(check: SanityCheck, whole: bool = False) -> tuple[str, list[Markup]]:
    verdicts = check.verdicts()
    columns = [*COLUMNS, *["power after, above random pixels"] * bool(check.random_pixels)]
    shown = [
        table(columns, map(_cells, verdicts)),
        paragraph(
            "IoU of the highest pixels of two maps, as a mean over classes with its 95 % "
            "interval: of two seeds on the unchanged model, and of the model and the one that "
            f"was changed. Random masks have {check.chance:.3f}."
        ),
    ]
    if any(row["test"] == "layers" and row["ranking"] == "signed" for row in verdicts):
        figure, _ = plot(check, ranking="signed", title=None, use_pyplot=False)
        shown.insert(0, drawing(figure, "agreement while layers are randomised"))
    failed = [paragraph(f"{f.method}, {f.model}: {f.reason}") for f in check.failures]
    if failed:
        shown.append(folded(counted(len(failed), "failure"), *failed))
    methods = {agreement.method for agreement in check.agreements}
    return f"Sanity check of {counted(len(methods), 'method')}", shown


def _cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of a verdict."""
    cells = [
        *(row["method"], row["ranking"], row["test"]),
        *(_with_interval(row, name, 1) for name in ("between_seeds", "after")),
        row["verdict"] or f"fewer than {FEWEST_CLASSES} classes",
    ]
    if "power_above_random" in row:
        cells.append(f"{_with_interval(row, 'power_above_random', 100)} points")
    return cells


def _with_interval(row: Mapping[str, Any], name: str, factor: int) -> str:
    """``0.14 (0.10 to 0.23)``, or percentage points with one digit."""
    form = ".2f" if factor == 1 else ".1f"
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    text = f"{factor * value:{form}}"
    return text if low is None else f"{text} ({factor * low:{form}} to {factor * high:{form}})"

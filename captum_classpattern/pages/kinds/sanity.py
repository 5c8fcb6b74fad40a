"""A sanity check: agreement while layers are randomised, the verdicts, and the failures."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from captum_classpattern.comparison import SanityCheck
from captum_classpattern.comparison.records import counted
from captum_classpattern.pages.parts import drawing, folded, paragraph, table
from captum_classpattern.scores.intervals import FEWEST_CLASSES
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    CONTROL_DASHES,
    SMALL_PANELS,
    Line,
    Panel,
    Style,
    draw_panels,
)
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS

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
        figure, _ = plot(check, ranking="signed", use_pyplot=False)
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


# ---- the figure

SIZE = (2.2, 1.8)  # of a panel in inches
DOTS: Style = {"marker": "o", "markersize": 4}
IOU, CORRELATION = "IoU of the highest pixels", "rank correlation"
CHANCE = "IoU of random masks"
STYLES: dict[str, Style] = {
    IOU: {"color": HIGHLIGHTS[0], **DOTS},
    CORRELATION: {"color": HIGHLIGHTS[2], **DOTS},
    CHANCE: {"color": CONTROL, "linestyle": (0, CONTROL_DASHES[0]), "zorder": 1.5},
}
AGREEMENTS: Style = {
    "xlim": (-0.04, 1.04),
    "xticks": [0, 0.5, 1],
    "xticklabels": ["0 %", "50 %", "100 %"],
    "ylim": (-0.32, 1.05),
    "yticks": [0, 0.25, 0.5, 0.75, 1],
    "yticklabels": ["0", "", "0.5", "", "1"],
}


def plot(check: SanityCheck, *, ranking: str, use_pyplot: bool) -> Drawing:
    """Draws for each method its measures over the share of layers that are random, with 95 %
    intervals, and the IoU that random masks have."""
    wanted = {"ranking": ranking, "test": "layers"}.items()
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in check.rows() if check.layers else []:
        if wanted <= row.items():
            rows.setdefault(row["method"], []).append(row)
    if not rows:
        raise ValueError(
            "there is nothing to draw: no layer was randomised, or no method has the ranking "
            f"{ranking!r}"
        )
    notes = {row["method"]: row["verdict"] for row in check.verdicts() if wanted <= row.items()}
    chance = Line([(x, check.chance) for x in AGREEMENTS["xlim"]], STYLES[CHANCE], CHANCE)
    panels = []
    for number, (method, of_method) in enumerate(rows.items()):
        lines = []
        for measure, name in (("iou", IOU), ("correlation", CORRELATION)):
            points = [
                (row["layers"] / len(check.layers), *_ends(row, measure)) for row in of_method
            ]
            lines.append(Line(points, STYLES[name], name, 0.18))
        below = "random layers" if number >= len(rows) - SMALL_PANELS["columns"] else ""
        axes = {**AGREEMENTS, "xlabel": below}
        panels.append(Panel([*lines, chance], axes, method, notes.get(method) or ""))
    return draw_panels(
        panels,
        size=SIZE,
        key=STYLES,
        y_label="agreement",
        use_pyplot=use_pyplot,
        **SMALL_PANELS,
    )


def _ends(row: Mapping[str, Any], measure: str) -> tuple[float, float, float]:
    """A value, and the ends of its interval: the value where there is none."""
    value, low, high = (row[f"{measure}{end}"] for end in ("", "_low", "_high"))
    return (value, value, value) if low is None else (value, low, high)

"""A survey: the strongest patterns, and the scores of what was found so far."""

from typing import Any

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pages.kinds.finding import NOTE, SCORES, score_row
from captum_classpattern.pages.parts import Column
from captum_classpattern.surveys import Finding, Survey
from captum_classpattern.surveys.findings import best_of_each
from captum_classpattern.visualization import plot_patterns
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area

MOST, MOST_OF_A_PAGE = 20, 100  # patterns
NAMES = (
    Column("class", "class"), Column("canvas", "canvas"), Column("area", "area", percent_area)
)  # fmt: skip


def parts(survey: Survey, whole: bool = False) -> tuple[str, list[Markup]]:
    """Nothing is searched for it. A page lists the scores of all classes, a notebook those of the
    classes whose patterns it shows."""
    source = survey.provenance.get("source")
    title = "Class patterns" if source is None else f"Class patterns of {source}"
    finished, best = survey.finished, best_of_each(survey.finished)
    of = "" if len(finished) == len(survey) else f" of {len(survey):,}"
    counts = f"{len(finished):,}{of} findings on {', '.join(survey.canvases)} canvases."
    if not best:
        return title, [html.paragraph(f"{counts} The search runs when the survey is iterated.")]
    area, most = survey.areas[0], MOST_OF_A_PAGE if whole else MOST
    shown = strongest(best, area, most)
    if len(shown) < len(best):
        counts += f" The {most} strongest of {len(best):,} classes are shown."
    targets = {finding.target for finding in shown}
    rows = [
        score_row(scores, **{"class": finding.label, "canvas": finding.canvas, "area": of_area})
        for finding in finished
        if whole or finding.target in targets
        for of_area, scores in finding.scores.items()
    ]
    return title, [
        html.paragraph(
            f"{counts} Pictures: {percent_area(area)} of the pixels of the canvas that did "
            "best on the judging images."
        ),
        html.side_by_side(*(_pictured(finding, area) for finding in shown)),
        html.folded("Scores", html.table_of([*NAMES, *SCORES], rows)),
        html.paragraph(NOTE),
    ]


def strongest(best: list[Finding], area: float, most: int) -> list[Finding]:
    """These findings, or if there are too many, those of the highest powers."""
    if len(best) <= most:
        return best
    return sorted(best, key=lambda f: -f.scores[area].power.value)[:most]


def _pictured(finding: Finding, area: float) -> Markup:
    """A pattern with its name and its power."""
    scores = finding.scores[area]
    note = "" if scores.beats_controls else ", not above its controls"
    note = note if scores.enough_images else ", too few images"
    caption = f"{finding.label}, {finding.canvas} canvas: {percent(scores.power.value)}{note}"
    binary = finding.patterns[area].topk(area)
    return html.pattern_picture(binary, f"pattern of {finding.label}", caption)


def plot(survey: Survey, *, max_classes: int, title: str, **options: Any) -> Drawing:
    """With ``options`` of :func:`plot_patterns`."""
    best = survey.best_canvases()
    area = survey.areas[0] if best else 0.0
    if len(best) > max_classes:
        title += f" ({max_classes} of {len(best)}, the strongest)"
    shown = strongest(best, area, max_classes)
    return plot_patterns(
        patterns=[finding.pattern for finding in shown],
        area=area,
        powers=[finding.scores[area].power for finding in shown],
        controls=[finding.scores[area].controls for finding in shown],
        title=title,
        **options,
    )

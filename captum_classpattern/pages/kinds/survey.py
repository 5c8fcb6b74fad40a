"""A survey: a card for each class, the strongest first, and the scores of what was found so far."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pages.kinds.finding import NOTE, SCORES, WHAT, card, row_of, score_rows
from captum_classpattern.pages.kinds.sweep import summary
from captum_classpattern.pages.parts import Column
from captum_classpattern.surveys import Finding, Survey
from captum_classpattern.surveys.findings import best_of_each
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area
from captum_classpattern.visualization.patterns import draw_patterns

MOST, MOST_OF_A_PAGE = 20, 100  # classes
NAMES = (
    Column("class", "class"), Column("canvas", "canvas"), Column("area", "area", percent_area)
)  # fmt: skip


def parts(survey: Survey, whole: bool = False) -> tuple[str, list[Markup]]:
    """A page lists the scores of all classes; a notebook has no stamped images."""
    source = survey.provenance.get("source")
    title = "Class patterns" if source is None else f"Class patterns of {source}"
    finished = survey.findings
    best = best_of_each(finished)
    if not best:
        return title, [html.paragraph("No class was found.")]
    area = survey.areas[0]
    shown = strongest(best, MOST_OF_A_PAGE if whole else MOST)
    every = len(shown) == len(best)
    which = "Each class is" if every else f"The {len(shown)} strongest of {len(best):,} classes are"
    targets = {finding.target for finding in shown}
    rows = score_rows(finding for finding in finished if whole or finding.target in targets)
    return title, [
        html.paragraph(_headline(survey, best)),
        html.paragraph(
            f"{WHAT} {which} shown, the strongest first, with {percent_area(area)} of the pixels "
            "of the canvas that did best on the judging images."
        ),
        html.listed(_card(finding, finished, whole) for finding in shown),
        html.paragraph(NOTE),
        html.folded("All scores", html.table_of([*NAMES, *SCORES], rows)),
        html.settings(facts(survey.info)),
    ]


def _headline(survey: Survey, best: Sequence[Finding]) -> str:
    """The accuracy, and how many classes are above their controls."""
    above, accuracy = summary(best)["above"], survey.info.get("accuracy")
    texts = [] if accuracy is None else [f"The model's accuracy is {percent(accuracy)}."]
    if isinstance(above, int):
        texts.append(f"{above:,} of {len(best):,} classes have a pattern above its controls.")
    else:
        texts.append("There are too few held-out images to compare patterns with their controls.")
    return " ".join(texts)


def _card(best: Finding, finished: Sequence[Finding], whole: bool) -> Markup:
    """The card of a class: its best canvas, and the patterns of the others."""
    others = [each for each in finished if each.target == best.target and each is not best]
    shown = best if whole else replace(best, stamped=None)
    return card(shown, best.label, f"{best.canvas} canvas".capitalize(), others)


def facts(info: Mapping[str, Any], further: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """How a model was searched. ``provenance`` is left out, since it holds paths."""
    accuracy = info.get("accuracy")
    known: Mapping[str, Any] = {
        **(further or {}),
        "accuracy on the held-out images": None if accuracy is None else percent(accuracy),
        "classes of the model": info.get("n_classes"),
        "settings": info.get("settings"),
        "versions": info.get("versions"),
    }
    return {key: value for key, value in known.items() if value not in (None, [], {})}


def strongest(best: Sequence[Finding], most: int) -> list[Finding]:
    """Those of the highest powers at the first area, the highest first."""
    return sorted(best, key=lambda finding: -finding.power.value)[:most]


def plot(survey: Survey, *, max_classes: int, title: str, use_pyplot: bool) -> Drawing:
    best = survey.best_canvases()
    if not best:
        raise ValueError("there is nothing to draw: no class was found")
    if len(best) > max_classes:
        title += f" ({max_classes} of {len(best)}, the strongest)"
    rows = [row_of(finding, finding.label) for finding in strongest(best, max_classes)]
    return draw_patterns(rows, area=survey.areas[0], title=title, use_pyplot=use_pyplot)

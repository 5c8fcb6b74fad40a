"""A finding: the pattern, stamped images, and the power next to its controls."""

from typing import Any

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pages.parts import Column, Row
from captum_classpattern.scores import Scores
from captum_classpattern.surveys import Finding
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area, percent_range
from captum_classpattern.visualization.patterns import PatternRow, draw_patterns

INTERVAL = Column("95 % interval", "interval", lambda interval: percent_range(*interval))
SCORES = (  # of the rows that score_row makes
    Column("power", "power", percent),
    INTERVAL,
    Column("images", "images", "{:,}".format),
    Column("no pattern", "no_pattern", percent),
    Column("random pixels", "random_pixels", percent),
    Column("other canvas", "other_canvas", percent),
    Column("above its controls", "above"),
)
NOTE = (
    "Power: the share of held-out images of other classes that the model predicts as the class "
    "once they are stamped with the pattern. Controls: the same images without a pattern, as many "
    "random pixels of the same canvas, and the same mask over the canvas of another class."
)


def score_row(scores: Scores, **names: Any) -> Row:
    """A power next to its controls, as a row of a table."""
    above = "yes" if scores.beats_controls else "no"
    return {
        **names,
        **scores.as_columns(),
        "interval": scores.power.interval,
        "above": above if scores.enough_images else "too few images",
    }


def parts(finding: Finding, whole: bool = False) -> tuple[str, list[Markup]]:
    name, canvas = finding.label, finding.pattern.canvas
    kept = f"pattern, {percent_area(finding.area)} of the pixels"
    shown = [
        html.picture(canvas, f"canvas of {name}", f"{finding.canvas} canvas", most=html.THUMBNAIL),
        html.pattern_picture(finding.pattern.topk(finding.area), f"pattern of {name}", kept),
    ]
    if (stamped := finding.examples) is not None:
        for image, label, predicted in zip(stamped.images, stamped.labels, stamped.captions):
            alt, caption = f"{label} with the pattern of {name}", f"{label}, predicted: {predicted}"
            shown.append(html.picture(image, alt, caption, most=html.THUMBNAIL))
    rows = [
        score_row(scores, name=f"{each.canvas} canvas, {percent_area(area)}")
        for each in (finding, *finding.others)
        for area, scores in each.scores.items()
    ]
    images = ""
    if finding.held_out_images is not None:
        images = (
            f"{finding.search_images:,} images to search with, {finding.held_out_images:,} held "
            "out."
        )
        if finding.accuracy is not None:
            images += f" The model classifies {percent(finding.accuracy)} of these correctly."
    chosen = " The judging images chose the first canvas." if finding.others else ""
    return f"Class pattern: {name}", [
        html.side_by_side(*shown),
        html.table_of([Column("", "name"), *SCORES], rows),
        *(html.paragraph(text) for text in (f"{NOTE}{chosen}", images) if text),
    ]


def plot(finding: Finding, *, title: str | None, use_pyplot: bool) -> Drawing:
    scores = finding.scores[finding.area]
    row = PatternRow(
        finding.label,
        finding.pattern,
        finding.pattern.topk(finding.area),
        finding.examples,
        scores.power,
        scores.controls,
    )
    return draw_patterns([row], area=finding.area, title=title, use_pyplot=use_pyplot)

"""A finding: for each kind of canvas the pattern, stamped images, and the power with its
controls."""

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pages.parts import Column, Row
from captum_classpattern.surveys import Finding
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area, percent_range
from captum_classpattern.visualization.patterns import PatternRow, draw_patterns

INTERVAL = Column("95 % interval", "interval", lambda interval: percent_range(*interval))
SCORES = (  # of score_rows
    Column("power", "power", percent),
    INTERVAL,
    Column("images", "images", "{:,}".format),
    Column("no pattern", "no_pattern", percent),
    Column("random pixels", "random_pixels", percent),
    Column("other canvas", "other_canvas", percent),
    Column("above its controls", "above"),
)
WHAT = (
    "A class pattern is a few pixels of one image, the canvas. Stamped on other images, at the "
    "same places, they make the model predict the class."
)
NOTE = (
    "The large number is the predictive power: the share of held-out images of other classes that "
    "the model predicts as the class once they are stamped with the pattern. The bar shows it with "
    "its 95 % interval (line) and the strongest control (dotted line). Controls: the images "
    "without a pattern, as many random pixels of the same canvas, and the same mask over the "
    "canvas of another class. The stamped images were chosen at random; below each is its class, "
    "and what the model predicts."
)
CANVASES = {
    "positive": "An image of the class.", "white": "A white image.", "black": "A black image."
}  # fmt: skip
KNOWN = ("settings", "passes", "precision", "versions")  # of a pattern's info, and shown


def score_rows(findings: Iterable[Finding]) -> list[Row]:
    """The power at each area next to its controls, as rows of a table."""
    rows: list[Row] = []
    for finding in findings:
        for area, scores in finding.scores.items():
            names = {"class": finding.label, "canvas": finding.canvas, "area": area}
            above = "yes" if scores.beats_controls else "no"
            above = above if scores.enough_images else "too few images"
            columns = {**scores.as_columns(), "interval": scores.power.interval, "above": above}
            rows.append({**names, **columns})
    return rows


def parts(finding: Finding, whole: bool = False) -> tuple[str, list[Markup]]:
    kinds = finding.on_each_canvas
    rows = [
        {**row, "name": f"{row['canvas']} canvas, {percent_area(row['area'])}"}
        for row in score_rows(kinds)
    ]
    cards = []
    for each in kinds:
        best = " Best on the validation images." if each is finding and finding.others else ""
        title = f"{each.canvas} canvas".capitalize()
        cards.append(card(each, title, f"{CANVASES.get(each.canvas, '')}{best}"))
    of_each = " of each kind of canvas" if finding.others else ""
    return f"Class pattern: {finding.label}", [
        html.paragraph(
            f"{WHAT} Here: {percent_area(finding.area)} of the pixels{of_each}, scored on "
            f"{finding.power.n:,} held-out images of other classes."
        ),
        html.listed(cards),
        html.paragraph(NOTE),
        html.folded("All scores", html.table_of([Column("", "name"), *SCORES], rows)),
        html.settings(_facts(finding)),
    ]


def card(finding: Finding, title: str, note: str = "", others: Iterable[Finding] = ()) -> Markup:
    """The first area: the power, canvas and pattern, stamped images, and the patterns of others."""
    name, area = finding.label, finding.area
    kept = f"{percent_area(area)} of its pixels"
    pictures = [
        html.picture(finding.pattern.canvas, f"canvas of {name}", "canvas"),
        html.pattern_picture(finding.pattern.topk(area), f"pattern of {name}", kept),
    ]
    if (shown := finding.examples) is not None:
        words, predictions = Markup('{} → <span class="{}">{}</span>'), shown.predictions_for
        for image, (label, predicted, hit) in zip(shown.images, predictions(finding.target)):
            text = words.format(label, "hit" if hit else "", predicted)
            alt = f"{label} with the pattern of {name}"
            pictures.append(html.picture(image, alt, text, most=html.THUMBNAIL))
    for other in others:
        alt, power = f"pattern of {name}, {other.canvas} canvas", percent(other.power.value)
        binary, below = other.pattern.topk(area), f"{other.canvas}: {power}"
        pictures.append(html.pattern_picture(binary, alt, below))
    return html.macro("card", title, note, finding.scores[area], pictures)


def _facts(finding: Finding) -> dict[str, Any]:
    """How the pattern was searched, and on which images."""
    known = {
        "images to search with": finding.search_images,
        "images held out": finding.held_out_images,
        "accuracy on these": None if finding.accuracy is None else percent(finding.accuracy),
        **{key: finding.pattern.info.get(key) for key in KNOWN},
    }
    return {key: value for key, value in known.items() if value is not None}


def row_of(finding: Finding, name: str) -> PatternRow:
    """The first area as a row of a figure."""
    pattern, area = finding.pattern, finding.area
    return PatternRow(name, pattern, pattern.topk(area), finding.examples, finding.scores[area])


def plot(finding: Finding, *, use_pyplot: bool) -> Drawing:
    rows = [
        row_of(each, f"{each.canvas}\ncanvas" if finding.others else each.label)
        for each in finding.on_each_canvas
    ]
    title = finding.label if finding.others else None
    return draw_patterns(rows, area=finding.area, title=title, use_pyplot=use_pyplot)

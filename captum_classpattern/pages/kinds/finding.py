"""A finding: the pattern, stamped images, and the power next to its controls."""

from collections.abc import Iterable

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.scores import Scores
from captum_classpattern.surveys import Finding
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area, percent_range
from captum_classpattern.visualization.patterns import PatternRow, draw_patterns

COLUMNS = (
    "power", "95 % interval", "images", "no pattern", "random pixels", "other canvas",
    "above its controls",
)  # fmt: skip
NOTE = (
    "Power: the share of held-out images of other classes that the model predicts as the class "
    "once they are stamped with the pattern. Controls: the same images without a pattern, as many "
    "random pixels of the same canvas, and the same mask over the canvas of another class."
)


def scores_table(names: Iterable[str], rows: Iterable[tuple[tuple[str, ...], Scores]]) -> Markup:
    """A table of scores. Each row begins with some texts, whose columns have these names."""
    return html.table((*names, *COLUMNS), [(*texts, *_cells(scores)) for texts, scores in rows])


def above_controls(scores: Scores) -> str:
    """Whether a power is above its controls, as a cell."""
    return ("yes" if scores.beats_controls else "no") if scores.enough_images else "too few images"


def control_cells(scores: Scores) -> tuple[str, ...]:
    """The controls, in the order of :data:`COLUMNS`; a dash for one that was not measured."""
    controls = scores.controls
    return tuple(percent(controls[name]) if name in controls else "-" for name in COLUMNS[3:6])


def _cells(scores: Scores) -> tuple[str, ...]:
    return (
        percent(scores.power.value),
        percent_range(*scores.power.interval),
        f"{scores.power.n:,}",
        *control_cells(scores),
        above_controls(scores),
    )


def parts(finding: Finding, whole: bool = False) -> tuple[str, list[Markup]]:
    name, canvas = finding.label, finding.pattern.canvas
    kept = f"pattern, {percent_area(finding.area)} of the pixels"
    shown = [
        html.picture(canvas, f"canvas of {name}", f"{finding.canvas} canvas", most=html.THUMBNAIL),
        html.pattern_picture(finding.pattern.topk(finding.area), f"pattern of {name}", kept),
    ]
    if finding.examples is not None:
        stamped = finding.examples
        for image, label, caption in zip(stamped.images, stamped.labels, stamped.captions):
            alt = f"{label} with the pattern of {name}"
            shown.append(
                html.picture(image, alt, f"{label}, predicted: {caption}", most=html.THUMBNAIL)
            )
    rows = [
        ((f"{each.canvas} canvas, {percent_area(area)}",), scores)
        for each in (finding, *finding.others)
        for area, scores in each.scores.items()
    ]
    chosen = " The judging images chose the first canvas." if finding.others else ""
    return f"Class pattern: {name}", [
        html.side_by_side(*shown),
        scores_table([""], rows),
        html.paragraph(f"{NOTE}{chosen}"),
        *([] if finding.held_out_images is None else [html.paragraph(_images_note(finding))]),
    ]


def _images_note(finding: Finding) -> str:
    images = (
        f"{finding.search_images:,} images to search with, {finding.held_out_images:,} held out."
    )
    if finding.accuracy is None:
        return images
    return f"{images} The model classifies {percent(finding.accuracy)} of these correctly."


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

"""The card of a pattern: its power and its pictures, on pages of findings, surveys and sweeps."""

from collections.abc import Iterable

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pattern import MovingPattern
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.visualization.formats import percent_area
from captum_classpattern.visualization.patterns import PatternRow

WHAT = (
    "A class pattern is a few pixels of one image, the canvas, or a patch with its own colours. "
    "Stamped on other images, at the same places or, if it is a patch, at random ones, it makes "
    "the model predict the class."
)
POWER = (
    "The large number is the predictive power: the share of held-out images of other classes that "
    "the model predicts as the class once they are stamped with the pattern. The bar shows it with "
    "its 95 % interval (line) and the strongest control (dotted line). The validation images, a "
    "fifth of the search images, only choose between patterns."
)
CONTROLS = (  # of patterns on canvases, and of moving patches
    "Controls: the images without a pattern, the same number of random pixels of the canvas, and "
    "the same mask on the canvas of another class.",
    "Controls of a patch: the images without it, its pixels in random order, a patch that was "
    "searched for another class, and the best of 32 squares cut from images of the class.",
)
EXAMPLES = (
    "The stamped images were chosen at random; below each is its class, and what the model "
    "predicts."
)


def how_to_read(findings: Iterable[Finding]) -> str:
    """What the numbers and pictures on the cards of these findings mean."""
    controls = (CONTROLS[kind] for kind in sorted({each.is_patch for each in findings}))
    return " ".join((POWER, *controls, EXAMPLES))


def card(
    title: str, note: str, row: PatternRow, area: float, others: Iterable[PatternRow] = ()
) -> Markup:
    """The power, the canvas, the pattern of an area, stamped images, and the patterns of others,
    which have their names below."""
    name, whole, kept = row.name, "canvas", f"{percent_area(area)} of its pixels"
    if isinstance(row.pattern, MovingPattern):
        whole, kept = "colours", f"colours and opacity, {percent_area(area)} of an image"
    pictures = [
        html.picture(row.pattern.canvas, f"{whole} of {name}", whole),
        html.pattern_picture(row.binary, f"pattern of {name}", kept),
    ]
    if row.stamped is not None:
        words = Markup('{} → <span class="{}">{}</span>')
        predictions = row.stamped.predictions_for(row.binary.target)
        for image, (label, predicted, hit) in zip(row.stamped.images, predictions):
            text = words.format(label, "hit" if hit else "", predicted)
            alt = f"{label} with the pattern of {name}"
            pictures.append(html.picture(image, alt, text, most=html.THUMBNAIL))
    for other in others:
        alt = f"pattern of {name}, {other.name}"
        pictures.append(html.pattern_picture(other.binary, alt, other.name))
    return html.macro("card", title, note, row.power, pictures)

"""The card of a finding: its power and its pictures, on pages of findings, surveys and sweeps."""

from collections.abc import Iterable

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.visualization.formats import percent, percent_area

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


def card(finding: Finding, title: str, note: str = "", others: Iterable[Finding] = ()) -> Markup:
    """The first area: the power, canvas and pattern, stamped images, and the patterns of others."""
    name, area = finding.label, finding.area
    kept = f"{percent_area(area)} of its pixels"
    pictures = [
        html.picture(finding.pattern.canvas, f"canvas of {name}", "canvas"),
        html.pattern_picture(finding.pattern.topk(area), f"pattern of {name}", kept),
    ]
    if (shown := finding.examples) is not None:
        words = Markup('{} → <span class="{}">{}</span>')
        for image, (label, predicted, hit) in zip(
            shown.images, shown.predictions_for(finding.target)
        ):
            text = words.format(label, "hit" if hit else "", predicted)
            alt = f"{label} with the pattern of {name}"
            pictures.append(html.picture(image, alt, text, most=html.THUMBNAIL))
    for other in others:
        alt, power = f"pattern of {name}, {other.canvas} canvas", percent(other.power.value)
        binary, below = other.pattern.topk(area), f"{other.canvas}: {power}"
        pictures.append(html.pattern_picture(binary, alt, below))
    return html.macro("card", title, note, finding.scores[area], pictures)

"""The card of a pattern: its power and its pictures, on pages of findings, surveys and sweeps."""

from collections.abc import Iterable

from markupsafe import Markup

from captum_classpattern._support.formats import percent_area
from captum_classpattern.pages import parts as html
from captum_classpattern.pattern import MovingPattern
from captum_classpattern.surveys.findings import Finding

WHAT = (
    "A class pattern is a few pixels of one image, the canvas, or a patch with its own colours. "
    "Stamped on other images, it makes the model predict the class."
)


def how_to_read(findings: Iterable[Finding]) -> Markup:
    """What the numbers and pictures on the cards of these findings mean, behind a fold."""
    shown = [*findings]
    squares = any("best square" in each.scores[each.area].controls for each in shown)
    kinds = {each.is_patch for each in shown}
    return html.folded("How to read", html.macro("how_to_read", kinds, squares))


def card(
    found: Finding, title: str, note: str, findings: Iterable[Finding] = (), examples: bool = True
) -> Markup:
    """The power of a finding, the canvas, the pattern, stamped images, and the patterns of the same
    class among others."""
    name, whole, area = found.label, "canvas", percent_area(found.area)
    pattern, binary, kept = found.pattern, found.mask, f"{area} of its pixels"
    if isinstance(pattern, MovingPattern):
        whole, kept = "colours", f"colours and opacity, {area} of an image"
    pictures = [
        html.picture(pattern.canvas, f"{whole} of {name}", whole),
        html.pattern_picture(pattern.canvas, binary, f"pattern of {name}", kept),
    ]
    if examples and found.examples is not None:
        words = Markup('{} → <span class="{}">{}</span>')
        predictions = found.examples.predictions_for(found.target)
        for image, (label, predicted, hit) in zip(found.examples.images, predictions):
            text = words.format(label, "hit" if hit else "", predicted)
            alt = f"{label} with the pattern of {name}"
            pictures.append(html.picture(image, alt, text, most=html.THUMBNAIL))
    for other in (each for each in findings if each.target == found.target and each is not found):
        own = f"{other.canvas}: {100 * other.power.value:.1f} %"
        alt = f"pattern of {name}, {own}"
        pictures.append(html.pattern_picture(other.pattern.canvas, other.mask, alt, own))
    return html.macro("card", title, note, found.scores[found.area], pictures)

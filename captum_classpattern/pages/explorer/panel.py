"""What the explorer shows of one choice, as HTML: pictures, predictions, power and controls."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from torch import Tensor

from captum_classpattern.classifier.class_names import label_of
from captum_classpattern.pages.explorer.areas import Cut
from captum_classpattern.pages.parts import ENVIRONMENT, pattern_picture, picture
from captum_classpattern.scores import Scores
from captum_classpattern.surveys import Finding
from captum_classpattern.visualization.formats import percent, percent_area, percent_range
from captum_classpattern.visualization.style import HIT, QUIET, TRACK

SIDE = 224  # pixels of a picture, as in explorer.html
TOP = 3  # classes of a prediction
TEMPLATE = ENVIRONMENT.get_template("explorer.html")

Bars = list[tuple[str, float, str]]  # a name, a share, and a colour


@dataclass(frozen=True, eq=False)
class Example:
    """An image (C, H, W) to stamp, what it is called, and what it is."""

    image: Tensor
    name: str
    kind: str = "image"


@dataclass(frozen=True, eq=False)
class Stamped:
    """An image with the pattern, and the model's probabilities (K,) before and after."""

    image: Tensor
    before: Tensor
    after: Tensor


def panel(
    finding: Finding,
    cut: Cut,
    example: Example | None,
    stamped: Stamped | None,
    names: Sequence[str] | None,
    remark: str,
) -> Markup:
    """Canvas, pattern, image, and the image with the pattern; predictions and power below, and a
    remark on the image."""
    label, kept = finding.label, kept_text(cut)
    power, powers = _power(finding, cut)
    shown = {
        "label": label,
        "canvas_name": canvas_name(finding),
        "canvas": picture(finding.pattern.canvas, f"canvas of {label}", least=SIDE),
        "pattern": pattern_picture(cut.binary, f"pattern of {label}, {kept}", least=SIDE),
        "kept": f"{kept}{_origin(cut)}",
        "power": power,
        "powers": powers,
        "track": TRACK,
        "example": example,
        "remark": remark,
    }
    if example is not None and stamped is not None:
        alt = f"{example.name} with the pattern of {label}"
        shown |= {
            "image": picture(example.image, example.name, least=SIDE),
            "stamped_image": picture(stamped.image, alt, least=SIDE),
            "before": _predictions(stamped.before, finding.target, names),
            "after": _predictions(stamped.after, finding.target, names),
        }
    return Markup(TEMPLATE.render(shown))


def canvas_name(finding: Finding) -> str:
    """``white canvas``; ``canvas`` if its kind is unknown."""
    return f"{finding.canvas} canvas".strip()


def kept_text(cut: Cut) -> str:
    """``39 pixels, 5 %``."""
    kept = int((cut.binary.mask > 0).sum())
    return f"{kept:,} {'pixel' if kept == 1 else 'pixels'}, {percent_area(cut.area)}"


def _origin(cut: Cut) -> str:
    if cut.area == cut.searched_at:
        return ", as searched."
    return f". The highest weights of the search at {percent_area(cut.searched_at)}."


def _predictions(probabilities: Tensor, target: int, names: Sequence[str] | None) -> Bars:
    """The three most likely classes, and the pattern's class."""
    order = probabilities.argsort(descending=True, stable=True).tolist()[:TOP]
    listed = order if target in order else [*order, target]
    return [
        (label_of(label, names), float(probabilities[label]), HIT if label == target else QUIET)
        for label in listed
    ]


def _power(finding: Finding, cut: Cut) -> tuple[str | None, Bars]:
    """A sentence on the power, None if the finding has none, and bars."""
    if not finding.scores:
        return None, []
    scores = cut.scores
    if scores is None:
        areas = ", ".join(percent_area(area) for area in sorted(finding.scores))
        return f"The predictive power was measured at {areas} of the pixels, not here.", []
    interval = percent_range(*scores.power.interval)
    text = (
        f"Predictive power: {percent(scores.power.value)} of {scores.power.n:,} held-out images of "
        f"other classes become {finding.label} (95 % interval {interval}), {_verdict(scores)}."
    )
    without, *controls = scores.controls.items()
    return text, [
        ("this pattern", scores.power.value, HIT),
        *((name, share, QUIET) for name, share in (*controls, without)),
    ]


def _verdict(scores: Scores) -> str:
    if not scores.enough_images:
        return "too few images to compare it with its controls"
    return "above its controls" if scores.beats_controls else "not above its controls"

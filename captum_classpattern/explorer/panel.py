"""What the explorer shows of one choice, as HTML: pictures, predictions, power and controls."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from torch import Tensor

from captum_classpattern.class_names import label_of
from captum_classpattern.explorer.areas import Cut
from captum_classpattern.pages.parts import pattern_picture, picture
from captum_classpattern.surveys import Finding, Scores
from captum_classpattern.visualization.formats import percent, percent_area, percent_range
from captum_classpattern.visualization.style import HIT, QUIET, TRACK

SIDE, GAP = 224, 20  # pixels of a picture, and between two
TOP = 3  # classes of a prediction
COLUMN = f"width:{SIDE}px"
GROUP = f"flex:0 1 {2 * SIDE + GAP}px;min-width:{SIDE}px;margin-bottom:12px"
PICTURES = f"display:flex;flex-wrap:wrap;gap:12px {GAP}px"
TITLE = "font-weight:600;font-size:13px;margin-bottom:4px"
TEXT = "font-size:13px;margin:2px 0 6px"
ROW = "display:flex;align-items:center;gap:6px;font-size:12px;line-height:18px"
NAME = "flex:0 0 86px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
BAR = "flex:1 1 auto;height:10px"
NUMBER = "flex:0 0 52px;text-align:right;font-variant-numeric:tabular-nums"


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
    canvas = picture(finding.pattern.canvas, f"canvas of {label}", least=SIDE)
    binary = pattern_picture(cut.binary, f"pattern of {label}, {kept}", least=SIDE)
    origin = _text(f"{kept}{_origin(cut)}")
    groups = [
        _group(
            [_column(canvas_name(finding), canvas), _column(f"pattern of {label}", binary, origin)],
            _power(finding, cut),
        )
    ]
    if example is None or stamped is None:
        groups.append(_text("There is no image to stamp. Upload one."))
    else:
        after = picture(stamped.image, f"{example.name} with the pattern of {label}", least=SIDE)
        columns = [
            _column(
                f"{example.kind}: {example.name}",
                picture(example.image, example.name, least=SIDE),
                _predictions(stamped.before, finding.target, names),
            ),
            _column("with the pattern", after, _predictions(stamped.after, finding.target, names)),
        ]
        groups.append(_group(columns, _text(remark)))
    style = f"{PICTURES};line-height:1.35;white-space:normal;margin-top:8px"
    return Markup('<div style="{}">{}</div>').format(style, _joined(groups))


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


def _group(columns: Sequence[Markup], below: Markup) -> Markup:
    """Two pictures, and what stands below both."""
    pictures = Markup('<div style="{}">{}</div>').format(PICTURES, _joined(columns))
    return Markup('<div style="{}">{}{}</div>').format(GROUP, pictures, below)


def _column(title: str, *parts: Markup) -> Markup:
    head = Markup('<div style="{}">{}</div>').format(TITLE, title)
    return Markup('<div style="{}">{}{}</div>').format(COLUMN, head, _joined(parts))


def _text(text: str) -> Markup:
    return Markup('<div style="{}">{}</div>').format(TEXT, text)


def _predictions(probabilities: Tensor, target: int, names: Sequence[str] | None) -> Markup:
    """The three most likely classes, and the pattern's class."""
    order = probabilities.argsort(descending=True, stable=True).tolist()[:TOP]
    listed = order if target in order else [*order, target]
    return _joined(
        _bar(label_of(label, names), float(probabilities[label]), HIT if label == target else QUIET)
        for label in listed
    )


def _power(finding: Finding, cut: Cut) -> Markup:
    if not finding.scores:
        return Markup("")
    scores = cut.scores
    if scores is None:
        areas = ", ".join(percent_area(area) for area in sorted(finding.scores))
        return _text(f"The predictive power was measured at {areas} of the pixels, not here.")
    interval = percent_range(*scores.power.interval)
    text = (
        f"Predictive power: {percent(scores.power.value)} of {scores.power.n:,} held-out images of "
        f"other classes become {finding.label} (95 % interval {interval}), {_verdict(scores)}."
    )
    bars = [
        _bar("this pattern", scores.power.value, HIT),
        _bar("random pixels", scores.random_pixels, QUIET),
        _bar("other canvas", scores.other_canvas, QUIET),
        _bar("no pattern", scores.power.without, QUIET),
    ]
    return _text(text) + _joined(bars)


def _verdict(scores: Scores) -> str:
    if not scores.enough_images:
        return "too few images to compare it with its controls"
    return "above its controls" if scores.beats_controls else "not above its controls"


def _bar(name: str, share: float, color: str) -> Markup:
    track = f"{BAR};background:linear-gradient(to right,{color} {100 * share:.2f}%,{TRACK} 0)"
    return Markup(
        '<div style="{}"><span style="{}" title="{}">{}</span><span style="{}"></span>'
        '<span style="{}">{}</span></div>'
    ).format(ROW, NAME, name, name, track, NUMBER, percent(share))


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)

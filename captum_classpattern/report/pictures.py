"""A comparison's figures as pictures within the page, each with its numbers in words."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.choosing import for_a_figure
from captum_classpattern.comparison.means import class_mean, mean_power
from captum_classpattern.report.formats import counted, decimals, percent, percent_area

DPI = 144
ROWS = 12  # canvases in a figure, at most
SCREEN = 96  # pixels an inch, in a browser


@dataclass(frozen=True)
class Picture:
    """A title, the picture as PNG with its size on the screen, and its alt text; or the reason why
    there is none. Folded ones are shown on demand; ``name`` is that of a file of its own."""

    title: str
    alt: str = ""
    png: bytes = b""
    size: tuple[int, int] = (0, 0)
    folded: bool = False
    failure: str = ""
    name: str = ""

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{b64encode(self.png).decode()}"


def pictures(comparison: Comparison, figures: Mapping[str, Any]) -> list[Picture]:
    """Curves of each kind of canvas, maps of each model and kind, then further figures."""
    names = for_a_figure(comparison.records, comparison.area)
    kinds = list(dict.fromkeys(record.kind for record in comparison.records))
    made = []
    for kind in kinds:
        records = comparison.select(kind=kind)
        if any(record.powers for record in records):
            picture = _curves(comparison, records, kind, _known(names, records))
            made.append(replace(picture, name="curves" + _of(kind, kinds)))
    for kind in kinds:
        for model in comparison.models:
            records = comparison.select(kind=kind, model=model)
            if chosen := _known(names, records):
                picture = _maps(comparison, records, chosen)
                name = f"side_by_side_{model}{_of(kind, kinds)}"
                made.append(replace(picture, folded=kind != kinds[0], name=name))
    for title, figure in figures.items():
        made.append(_picture(title, partial(_itself, figure), _words_of(title, figure)))
    return made


def _known(names: Sequence[str], records: Sequence[Record]) -> list[str]:
    there = {record.name for record in records}
    return [name for name in names if name in there]


def _of(kind: str, kinds: Sequence[str]) -> str:
    """The end of a file's name: nothing for the first kind of canvas."""
    return "" if kind == kinds[0] else f"_{kind}"


def _on(kind: str) -> str:
    return "" if kind == "canvas" else f", {kind} canvases"


def _curves(
    comparison: Comparison, records: Sequence[Record], kind: str, names: Sequence[str]
) -> Picture:
    title = f"Predictive power over the area{_on(kind)}"
    return _picture(
        title,
        lambda: comparison.plot_curves(kind=kind, methods=names, use_pyplot=False)[0],
        f"{title}. " + " ".join(_in_words(records, model, names) for model in comparison.models),
    )


def _in_words(records: Sequence[Record], model: str, names: Sequence[str]) -> str:
    """The ends of a panel's curves."""
    texts = []
    for name in names:
        scored = [r for r in records if (r.model, r.name) == (model, name) and r.powers]
        if scored:
            first, last = min(scored[0].powers), max(scored[0].powers)
            low, high = (
                mean_power((r.target, r.powers[area]) for r in scored).value
                for area in (first, last)
            )
            texts.append(
                f"{name} from {percent(low)} at {percent_area(first)} of the pixels to "
                f"{percent(high)} at {percent_area(last)}"
            )
    return f"{model}: {'; '.join(texts) or 'nothing'}."


def _maps(comparison: Comparison, records: Sequence[Record], names: Sequence[str]) -> Picture:
    first, (part, of_many) = records[0], first_canvases(comparison, records)
    title = f"Maps and patterns: {first.model}{_on(first.kind)}{of_many}"
    rows = len({record.canvas for record in part.records})
    words = "; ".join(_scores(comparison, part.records, name) for name in names)
    return _picture(
        title,
        lambda: part.plot(model=first.model, kind=first.kind, methods=names, use_pyplot=False)[0],
        f"{title}: {counted(rows, 'canvas', 'canvases')}, "
        f"{counted(len(names), 'method')}. Mean over classes, and from the weakest to the "
        f"strongest canvas: {words}.",
    )


def first_canvases(comparison: Comparison, records: Sequence[Record]) -> tuple[Comparison, str]:
    """The comparison with no more of some records than a figure has rows for; and, where that is
    not all of them, how many."""
    canvases = list(dict.fromkeys(record.canvas for record in records))
    few = [record for record in records if record.canvas in canvases[:ROWS]]
    of_many = f", the first {ROWS} of {len(canvases)}" if len(canvases) > ROWS else ""
    return replace(comparison, records=few), of_many


def _scores(comparison: Comparison, records: Sequence[Record], name: str) -> str:
    """A method's powers in a figure, or its IoU with the trigger on stamped canvases."""
    chosen = [record for record in records if record.name == name]
    powers = [(r.target, r.powers[comparison.area].value) for r in chosen if r.powers]
    found = [(r.target, r.localisation.iou) for r in chosen if r.localisation is not None]
    if powers:
        return f"{name} power {_spread(powers, percent)}"
    return f"{name} IoU {_spread(found, decimals)}" if found else f"{name} not scored"


def _spread(values: Sequence[tuple[int, float]], text: Callable[[float], str]) -> str:
    """The mean over classes, and the values of the weakest and the strongest canvas."""
    weakest, strongest = (choose(value for _, value in values) for choose in (min, max))
    return f"{text(class_mean(values))} ({text(weakest)} to {text(strongest)})"


def _itself(figure: Any) -> Any:
    return figure


def _words_of(title: str, figure: Any) -> str:
    """The titles and labels of a figure that was passed in."""
    texts = [
        text
        for axis in figure.axes
        for text in (axis.get_title(), axis.get_xlabel(), axis.get_ylabel())
        if text
    ]
    words = ", ".join(dict.fromkeys(" ".join(text.split()) for text in texts))
    return f"{title}. In it: {words}." if words else f"{title}."


def _picture(title: str, draw: Callable[[], Any], alt: str) -> Picture:
    """What can't be drawn (such as an image of two channels) costs no more than itself."""
    buffer = BytesIO()
    try:
        figure = draw()
        figure.savefig(buffer, format="png", dpi=DPI)
    except (TypeError, ValueError) as error:
        return Picture(title, failure=" ".join(str(error).split()))
    width, height = (round(SCREEN * inches) for inches in figure.get_size_inches())
    return Picture(title, alt, buffer.getvalue(), (width, height))

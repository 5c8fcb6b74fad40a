"""A comparison's figures as pictures within the page, each with its numbers in words."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from statistics import mean
from typing import Any

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.choosing import for_a_figure
from captum_classpattern.comparison.scoring import merged
from captum_classpattern.report.formats import counted, decimals, percent, percent_area

DPI = 144
ROWS = 12  # canvases in a figure, at most
SCREEN = 96  # pixels an inch, in a browser


@dataclass(frozen=True)
class Picture:
    """A title, the picture as a data URI with its size on the screen, and its alt text; or the
    reason why there is none. Folded ones are shown on demand."""

    title: str
    alt: str = ""
    source: str = ""
    size: tuple[int, int] = (0, 0)
    folded: bool = False
    failure: str = ""


def pictures(comparison: Comparison, figures: Mapping[str, Any]) -> list[Picture]:
    """Curves of each kind of canvas, maps of each model and kind, then further figures."""
    names = for_a_figure(comparison.records, comparison.area)
    kinds = list(dict.fromkeys(record.kind for record in comparison.records))
    made = []
    for kind in kinds:
        records = comparison.select(kind=kind)
        if any(record.powers for record in records):
            made.append(_curves(comparison, records, kind, _known(names, records)))
    for kind in kinds:
        for model in comparison.models:
            records = comparison.select(kind=kind, model=model)
            if chosen := _known(names, records):
                picture = _maps(comparison, records, chosen)
                made.append(replace(picture, folded=kind != kinds[0]))
    for title, figure in figures.items():
        made.append(_picture(title, partial(_itself, figure), _words_of(title, figure)))
    return made


def _known(names: Sequence[str], records: Sequence[Record]) -> list[str]:
    there = {record.name for record in records}
    return [name for name in names if name in there]


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
    told = []
    for name in names:
        own = [r.powers for r in records if (r.model, r.name) == (model, name) and r.powers]
        if own:
            ends = [(a, merged([powers[a] for powers in own]).value) for a in sorted(own[0])]
            (first, low), (last, high) = ends[0], ends[-1]
            told.append(
                f"{name} from {percent(low)} at {percent_area(first)} of the pixels to "
                f"{percent(high)} at {percent_area(last)}"
            )
    return f"{model}: {'; '.join(told) or 'nothing'}."


def _maps(comparison: Comparison, records: Sequence[Record], names: Sequence[str]) -> Picture:
    first, (part, of_many) = records[0], first_canvases(comparison, records)
    title = f"Maps and patterns: {first.model}{_on(first.kind)}{of_many}"
    rows = len({record.canvas for record in part.records})
    words = "; ".join(_scores(comparison, part.records, name) for name in names)
    return _picture(
        title,
        lambda: part.plot(model=first.model, kind=first.kind, methods=names, use_pyplot=False)[0],
        f"{title}: {counted(rows, 'canvas', 'canvases')}, "
        f"{counted(len(names), 'method')}. In the mean, and from the weakest to the strongest "
        f"canvas: {words}.",
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
    own = [record for record in records if record.name == name]
    powers = [record.powers[comparison.area] for record in own if record.powers]
    found = [record.localisation.iou for record in own if record.localisation is not None]
    if powers:
        values = [power.value for power in powers]
        return f"{name} power {_spread(merged(powers).value, values, percent)}"
    return f"{name} IoU {_spread(mean(found), found, decimals)}" if found else f"{name} not scored"


def _spread(average: float, values: Sequence[float], shown: Callable[[float], str]) -> str:
    return f"{shown(average)} ({shown(min(values))} to {shown(max(values))})"


def _itself(figure: Any) -> Any:
    return figure


def _words_of(title: str, figure: Any) -> str:
    """What a stranger's figure says of itself."""
    told = [
        text
        for axis in figure.axes
        for text in (axis.get_title(), axis.get_xlabel(), axis.get_ylabel())
        if text
    ]
    words = ", ".join(dict.fromkeys(" ".join(text.split()) for text in told))
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
    encoded = b64encode(buffer.getvalue()).decode()
    return Picture(title, alt, f"data:image/png;base64,{encoded}", (width, height))

"""A comparison's figures as PNG images, each with its numbers in its alt text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.records import by_name, counted
from captum_classpattern.comparison.tables import class_mean, figure_names, mean_power
from captum_classpattern.pages.parts import figure_png
from captum_classpattern.visualization.formats import number, percent, percent_area

DPI, SCREEN_DPI = 144, 96
MAX_ROWS = 12  # canvases in a figure
CURVES, MAPS, GIVEN = "Power over the area", "Maps of all methods", "Further figures"


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page's part ``group``, and ``name``, that of its file: a title and a PNG
    image with its size on the screen and alt text, or the reason for its failure."""

    group: str
    name: str
    title: str
    alt: str = ""
    png: bytes = b""
    size: tuple[int, int] = (0, 0)
    failure: str = ""

    def drawn(self, draw: Callable[[], Any]) -> "PageFigure":
        """With its image. One that cannot be drawn, such as one of two channels, does not stop the
        others."""
        try:
            figure = draw()
            png, _ = figure_png(figure, DPI)
        except (TypeError, ValueError) as error:
            return replace(self, failure=" ".join(str(error).split()))
        width, height = (round(SCREEN_DPI * inches) for inches in figure.get_size_inches())
        return replace(self, png=png, size=(width, height))


def draw_figures(comparison: Comparison, figures: Mapping[str, Any]) -> list[PageFigure]:
    """Curves of each kind of canvas, maps of each model and kind, then further figures."""
    kinds = list(dict.fromkeys(record.kind for record in comparison.records))
    curves, maps = [], []
    for kind in kinds:
        suffix = f"_{kind}" if kind != kinds[0] else ""
        on = "" if kind == "canvas" else f", {kind} canvases"
        if any(record.powers for record in comparison.select(kind=kind)):
            curves.append(_curves(comparison, kind, on, suffix))
        for model in comparison.models:
            records = comparison.select(kind=kind, model=model)
            if names := _names(comparison, records):
                maps.append(_maps(comparison, records, names, on, suffix))
    return [*curves, *maps, *(_given(title, figure) for title, figure in figures.items())]


def _names(comparison: Comparison, records: Sequence[Record]) -> list[str]:
    """The methods of a figure of these records."""
    present = {record.name for record in records}
    return [n for n in figure_names(comparison.records, comparison.area) if n in present]


def _curves(comparison: Comparison, kind: str, on: str, suffix: str) -> PageFigure:
    records = comparison.select(kind=kind)
    names, title = _names(comparison, records), f"Predictive power over the area{on}"
    ends = " ".join(_ends(records, model, names) for model in comparison.models)
    return PageFigure(CURVES, f"curves{suffix}", title, f"{title}. {ends}").drawn(
        lambda: comparison.plot_curves(kind=kind, methods=names, use_pyplot=False)[0]
    )


def _ends(records: Sequence[Record], model: str, names: Sequence[str]) -> str:
    """The ends of the curves of a model."""
    texts = []
    scored = by_name([r for r in records if r.model == model and r.powers])
    for name in (name for name in names if name in scored):
        areas = scored[name][0].powers
        first, last = (
            f"{percent(mean_power((r.target, r.powers[area]) for r in scored[name]).value)} at "
            f"{percent_area(area)}"
            for area in (min(areas), max(areas))
        )
        texts.append(f"{name} from {first} of the pixels to {last}")
    return f"{model}: {'; '.join(texts) or 'nothing'}."


def _maps(
    comparison: Comparison, records: Sequence[Record], names: Sequence[str], on: str, suffix: str
) -> PageFigure:
    """The maps of the first canvases, as many as a figure has rows for."""
    model, kind = records[0].model, records[0].kind
    canvases = list(dict.fromkeys(record.canvas for record in records))
    part = [record for record in records if record.canvas in canvases[:MAX_ROWS]]
    limit = f", the first {MAX_ROWS} of {len(canvases)}" if len(canvases) > MAX_ROWS else ""
    title = f"Maps and patterns: {model}{on}{limit}"
    scores = "; ".join(_scores(part, name, comparison.area) for name in names)
    alt = (
        f"{title}: {counted(len(canvases[:MAX_ROWS]), 'canvas', 'canvases')}, "
        f"{counted(len(names), 'method')}. Means over classes, and in brackets the weakest and the "
        f"strongest canvas: {scores}."
    )
    shown = replace(comparison, records=part)
    return PageFigure(MAPS, f"side_by_side_{model}{suffix}", title, alt).drawn(
        lambda: shown.plot(model=model, kind=kind, methods=names, use_pyplot=False)[0]
    )


def _scores(records: Sequence[Record], name: str, area: float) -> str:
    """A method's powers in a figure, or its IoU with the trigger on stamped canvases."""
    chosen = [record for record in records if record.name == name]
    powers = [(r.target, r.powers[area].value) for r in chosen if r.powers]
    found = [(r.target, iou) for r in chosen if (iou := r.score("iou")) is not None]
    if powers:
        return f"{name} power {_spread(powers, percent)}"
    if found:
        return f"{name} IoU {_spread(found, lambda value: number(value, '.3f'))}"
    return f"{name} not scored"


def _spread(values: Sequence[tuple[int, float]], write: Callable[[float], str]) -> str:
    """The mean over classes, and the values of the weakest and the strongest canvas."""
    weakest, strongest = (choose(value for _, value in values) for choose in (min, max))
    return f"{write(class_mean(values))} ({write(weakest)} to {write(strongest)})"


def _given(title: str, figure: Any) -> PageFigure:
    """A figure that was passed in, described by its titles and labels."""
    texts = [
        " ".join(text.split())
        for axis in figure.axes
        for text in (axis.get_title(), axis.get_xlabel(), axis.get_ylabel())
        if text
    ]
    shows = f" It shows: {', '.join(dict.fromkeys(texts))}." if texts else ""
    return PageFigure(GIVEN, "", title, f"{title}.{shows}").drawn(lambda: figure)

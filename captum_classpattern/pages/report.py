"""A comparison as one self-contained HTML page. All of it goes through one template, which escapes
it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from captum_classpattern._files import write_atomically
from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.records import class_mean, counted, figure_names, mean_powers
from captum_classpattern.pages.parts import Column, Table, figure_png, render
from captum_classpattern.pages.report_data import LEVELS, area_slider, numbers_tables, tables
from captum_classpattern.scores.intervals import FEWEST_CLASSES
from captum_classpattern.visualization.formats import number, percent, percent_area

TITLE = "Class patterns and other methods"
DPI, SCREEN_DPI = 144, 96
MAX_ROWS = 12  # canvases in a figure
CURVES, MAPS, GIVEN = "Power over the area", "Maps side by side", "Further figures"
GROUPS = (CURVES, MAPS, GIVEN)
MOST_MODELS = 6  # in the line below the title
ACCURACIES = (
    Column("model", "model"),
    Column("accuracy on the held-out images", "accuracy", percent, missing="not known (no labels)"),
)


@dataclass(frozen=True)
class PageFigure:
    """A figure in one part of the page, its ``group``: a title and a PNG image with its size on
    the screen and an alt text, or why it could not be drawn. ``name`` is that of its file."""

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


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    title: str = TITLE,
    figures: Mapping[str, Any] | None = None,
) -> Path:
    r"""
    Writes a comparison as one HTML page: the patterns with a slider over the area, the powers, and,
    folded, all figures, tables and settings.

    The page needs no network and no other file. Names and error messages are escaped, and a
    content security policy allows only the page's own script. The same comparison gives the same
    file. An existing file is replaced as a whole or not at all.

    Args:
        comparison (Comparison): The outcome of :func:`~captum_classpattern.compare`.
        path (str or Path): The file to write.
        title (str): Heading of the page. Default: "Class patterns and other methods".
        figures (Mapping[str, Figure], optional): Further matplotlib figures by their title.
            Default: None.

    Returns:
        *Path*: The file.

    Examples::

        >>> from tempfile import mkdtemp
        >>> from captum_classpattern.comparison import RandomPixels, compare
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        >>> images, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
        >>> comparison = compare(
        ...     {"linear": net}, images[:1], 0,
        ...     search=(images[:30], labels[:30]), held_out=(images[30:], labels[30:]),
        ...     methods={"RandomPixels": RandomPixels}, areas=[0.05, 0.1])
        >>> write_report(comparison, mkdtemp() + "/report.html").name
        'report.html'
    """
    drawn = draw_figures(comparison, figures or {})
    return write_report_page(comparison, path, drawn, title=title)


def write_report_page(
    comparison: Comparison,
    path: str | Path,
    figures: Sequence[PageFigure],
    *,
    title: str = TITLE,
) -> Path:
    """The page of :func:`write_report`, with figures that were already drawn."""
    shown, settings = tables(comparison), comparison.settings
    accuracies = [{"model": name, "accuracy": known} for name, known in comparison.models.items()]
    page = render(
        "report.html",
        title=title,
        models=comparison.models,
        most_models=MOST_MODELS,
        summary=_summary(comparison),
        interrupted=settings.get("complete") is False,
        slider=area_slider(comparison),
        n_canvases=len(comparison.canvases),
        result=comparison.summary,
        numbers=numbers_tables(comparison),
        figures={group: [f for f in figures if f.group == group] for group in GROUPS},
        tables=shown,
        facets=_facets(shown),
        notes=comparison.notes(),
        fewest_classes=FEWEST_CLASSES,
        accuracies=Table(ACCURACIES, accuracies),
        settings=settings,
    )
    write_atomically(Path(path), page)
    return Path(path)


def _summary(comparison: Comparison) -> str:
    settings = comparison.settings
    methods = {record.method for record in comparison.records}
    methods |= {failure.method for failure in comparison.failures}
    canvases = counted(len(comparison.canvases), "canvas", "canvases")
    classes = counted(len(set(comparison.targets)), "class", "classes")
    text = f"{counted(len(methods), 'method')}, {canvases} of {classes}"
    if isinstance(images := settings.get("held_out_images"), int):
        held_out = counted(images, "held-out image")
        text += f", scored on {held_out} that are not among the search images"
    version = settings.get("versions", {}).get("captum_classpattern")
    return f"{text}." + (f" Made with captum_classpattern {version}." if version else "")


def _facets(shown: Sequence[Table]) -> dict[str, list[tuple[str, bool]]]:
    """What the tables are filtered by: the values of each facet, and whether each is checked."""
    values: dict[str, dict[str, bool]] = {}
    for row in (row for table in shown for row in table.rows):
        for name, value in row["facets"].items():
            values.setdefault(name, {})[value] = (name, value) != ("map of", LEVELS["class"])
    return {name: [*checked.items()] for name, checked in values.items() if len(checked) > 1}


# ---- figures


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
    """The curves of a kind of canvas; the alt text has the ends of each."""
    records = comparison.select(kind=kind)
    names, title = _names(comparison, records), f"Predictive power over the area{on}"
    ends = (comparison.areas[0], comparison.areas[-1])
    alt, (narrow, wide) = f"{title}.", map(percent_area, ends)
    for model in comparison.models:
        shown = [record for record in records if record.model == model and record.name in names]
        first, last = (mean_powers(shown, area) for area in ends)
        texts = [
            f"{name} from {percent(first[name].value)} at {narrow} of the pixels to "
            f"{percent(last[name].value)} at {wide}"
            for name in names
            if name in first
        ]
        alt += f" {model}: {'; '.join(texts) or 'nothing'}."
    return PageFigure(CURVES, f"curves{suffix}", title, alt).drawn(
        lambda: comparison.plot_curves(kind=kind, methods=names, use_pyplot=False)[0]
    )


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

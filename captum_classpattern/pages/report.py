"""A comparison as one self-contained HTML page. All of it goes through one template, which escapes
it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from captum_classpattern._files import write_atomically
from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.records import counted, figure_names
from captum_classpattern.pages.parts import Column, Table, figure_png, render
from captum_classpattern.pages.report_data import area_slider, numbers_table, tables
from captum_classpattern.scores.intervals import FEWEST_CLASSES
from captum_classpattern.visualization.formats import percent

TITLE = "Class patterns and other methods"
FIGURE_DPI, SCREEN_DPI = 144, 96
MAX_ROWS = 12  # canvases in a figure
CURVES, MAPS = "Power over the area", "Maps side by side"
MODELS_NAMED = 6  # in the line below the title
ACCURACIES = (
    Column("model", "model"),
    Column("accuracy on the held-out images", "accuracy", percent),
)


@dataclass(frozen=True)
class PageFigure:
    """A figure in one part of the page, its ``group``: a title, the name of its file, and a PNG
    image with its size on the screen, or why it could not be drawn."""

    group: str
    name: str
    title: str
    png: bytes = b""
    size: tuple[int, int] = (0, 0)
    failure: str = ""

    def drawn(self, draw: Callable[[], tuple[Any, Any]]) -> "PageFigure":
        """With its image. One that cannot be drawn, such as one of two channels, does not stop the
        others."""
        try:
            figure, _ = draw()
            png, _ = figure_png(figure, FIGURE_DPI)
        except (TypeError, ValueError) as error:
            return replace(self, failure=" ".join(str(error).split()))
        width, height = (round(SCREEN_DPI * inches) for inches in figure.get_size_inches())
        return replace(self, png=png, size=(width, height))


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    title: str = TITLE,
    figures: Sequence[PageFigure] | None = None,
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
        figures (Sequence[PageFigure], optional): Its figures, if they were drawn before.
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
    figures = draw_figures(comparison) if figures is None else figures
    settings = comparison.settings
    accuracies = [{"model": name, "accuracy": known} for name, known in comparison.models.items()]
    page = render(
        "report.html",
        title=title,
        models=comparison.models,
        most_models=MODELS_NAMED,
        summary=_summary(comparison),
        interrupted=settings.get("complete") is False,
        slider=area_slider(comparison),
        n_canvases=len(comparison.canvases),
        result=comparison.summary,
        numbers=numbers_table(comparison),
        figures={group: [f for f in figures if f.group == group] for group in (CURVES, MAPS)},
        tables=tables(comparison),
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
    return (
        f"{counted(len(methods), 'method')}, {canvases} of {classes}, scored on "
        f"{counted(settings['held_out_images'], 'held-out image')} that are not among the search "
        f"images. Made with captum_classpattern {settings['versions']['captum_classpattern']}."
    )


def draw_figures(comparison: Comparison) -> list[PageFigure]:
    """The curves of each kind of canvas, and the maps of the first canvases of each model and kind,
    of the methods that a figure has room for."""
    kinds = list(dict.fromkeys(record.kind for record in comparison.records))
    curves, maps = [], []
    for kind in kinds:
        suffix = f"_{kind}" if kind != kinds[0] else ""
        on = "" if kind == "canvas" else f", {kind} canvases"
        records = comparison.select(kind=kind)
        if any(record.powers for record in records):
            figure = PageFigure(CURVES, f"curves{suffix}", f"Predictive power over the area{on}")
            names = _names_in_figure(comparison, records)
            draw = partial(comparison.plot_curves, kind=kind, methods=names, use_pyplot=False)
            curves.append(figure.drawn(draw))
        for model in comparison.models:
            if records := comparison.select(kind=kind, model=model):
                name = f"side_by_side_{model}{suffix}"
                maps.append(_draw_maps(comparison, records, name, f"{model}{on}"))
    return [*curves, *maps]


def _draw_maps(comparison: Comparison, records: Sequence[Record], name: str, of: str) -> PageFigure:
    """The maps of the first canvases of a model and kind, as many as a figure has rows for."""
    canvases = list(dict.fromkeys(record.canvas for record in records))
    limit = f", the first {MAX_ROWS} of {len(canvases)}" if len(canvases) > MAX_ROWS else ""
    shown = [record for record in records if record.canvas in canvases[:MAX_ROWS]]
    draw = partial(
        replace(comparison, records=shown).plot,
        model=records[0].model,
        kind=records[0].kind,
        methods=_names_in_figure(comparison, shown),
        use_pyplot=False,
    )
    return PageFigure(MAPS, name, f"Maps and patterns: {of}{limit}").drawn(draw)


def _names_in_figure(comparison: Comparison, records: Sequence[Record]) -> list[str]:
    """The methods of a figure of these records."""
    present = {record.name for record in records}
    return [n for n in figure_names(comparison.records, comparison.area) if n in present]

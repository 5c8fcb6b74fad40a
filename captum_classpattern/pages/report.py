"""A comparison as one self-contained HTML page. All of it goes through one template, which escapes
it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from captum_classpattern._files import write_atomically
from captum_classpattern.comparison import Comparison
from captum_classpattern.comparison.records import counted
from captum_classpattern.pages.parts import figure_png, render
from captum_classpattern.pages.report_data import area_slider, numbers_table, tables
from captum_classpattern.scores.intervals import FEWEST_CLASSES

TITLE = "Class patterns and other methods"
FIGURE_DPI, SCREEN_DPI = 144, 96


def write_report(comparison: Comparison, path: str | Path, *, title: str = TITLE) -> Path:
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
    page = render(
        "report.html",
        title=title,
        models=comparison.models,
        summary=_summary(comparison),
        interrupted=comparison.settings.get("complete") is False,
        slider=area_slider(comparison),
        n_canvases=len(comparison.canvases),
        result=comparison.summary,
        numbers=numbers_table(comparison),
        figures=_figures(comparison),
        tables=tables(comparison),
        notes=comparison.notes(),
        fewest_classes=FEWEST_CLASSES,
        settings=comparison.settings,
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
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


@dataclass(frozen=True)
class PageFigure:
    """A figure as a PNG image with its size on the screen, or why it could not be drawn."""

    title: str
    png: bytes = b""
    size: tuple[int, int] = (0, 0)
    failure: str = ""


def _figures(comparison: Comparison) -> dict[str, list[PageFigure]]:
    """The curves of each kind of canvas, and the maps of each model and kind."""
    curves, maps = [], []
    for kind in dict.fromkeys(record.kind for record in comparison.records):
        on = "" if kind == "canvas" else f", {kind} canvases"
        if any(record.powers for record in comparison.select(kind=kind)):
            curves.append(draw(f"Predictive power over the area{on}", comparison.plot_curves, kind))
        for model in comparison.models:
            if comparison.select(kind=kind, model=model):
                plot = partial(comparison.plot, model=model)
                maps.append(draw(f"Maps and patterns: {model}{on}", plot, kind))
    return {"Power over the area": curves, "Maps side by side": maps}


def draw(title: str, plot: Callable[..., tuple[Any, Any]], kind: str) -> PageFigure:
    """A figure of a kind of canvas. One that cannot be drawn, such as one of two channels, does not
    stop the others."""
    try:
        figure, _ = plot(kind=kind, use_pyplot=False)
    except (TypeError, ValueError) as error:
        return PageFigure(title, failure=" ".join(str(error).split()))
    png, (width, height) = figure_png(figure, FIGURE_DPI)
    on_screen = SCREEN_DPI / FIGURE_DPI
    return PageFigure(title, png, (round(on_screen * width), round(on_screen * height)))

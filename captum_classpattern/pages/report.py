"""A comparison as one self-contained HTML page. All of it goes through one template, which escapes
it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from captum_classpattern._files import write_atomically
from captum_classpattern._validation import counted
from captum_classpattern.comparison import Comparison
from captum_classpattern.pages.parts import render, section
from captum_classpattern.pages.report_data import area_slider, tables
from captum_classpattern.scores.intervals import FEWEST_CLASSES


def write_report(comparison: Comparison, path: Path) -> Path:
    """Writes a comparison as one HTML page: the patterns with a slider over the area, the powers,
    and, folded, all figures, tables and settings. The same comparison gives the same file."""
    page = render(
        "report.html",
        title="Class patterns and other methods",
        comparison=comparison,
        summary=_summary(comparison),
        slider=area_slider(comparison),
        numbers=tables(comparison),
        figures=_figures(comparison),
        fewest_classes=FEWEST_CLASSES,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    return path


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


def _figures(comparison: Comparison) -> dict[str, list[Markup]]:
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


def draw(title: str, plot: Callable[..., tuple[Any, Any]], kind: str) -> Markup:
    """A figure of a kind of canvas below its title, or why it can't be drawn."""
    return Markup("<h3>{}</h3>\n{}").format(title, section(partial(plot, kind=kind), title))

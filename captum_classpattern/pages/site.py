"""The site of a sweep: an index of models and classes, and a page for each of them."""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from captum_classpattern._support.formats import percent, percent_area
from captum_classpattern.classifier.class_names import as_file_name
from captum_classpattern.pages import cards
from captum_classpattern.pages import parts as html
from captum_classpattern.results import as_table
from captum_classpattern.surveys.findings import canvas_in_words, scores_table
from captum_classpattern.surveys.grid import MOST_CLASSES, plot_grid
from captum_classpattern.surveys.sweeps import Sweep

MOST_BYTES = 2_000_000  # of the cards of a page
MOST_IN_GRID = 10  # models
INDEX = "index.html"
FOLDERS = re.compile(r"[^\s'\"(]*[/\\](?=[^\s/\\])")
LINK = Markup('<a href="{}">{}</a>')
TO_INDEX = "All models and classes"


def write_site(sweep: Sweep, folder: Path) -> Path:
    """Writes the index and a page for each model and class. Patterns are read one class at a time,
    apart from those in the figure of the index."""
    links = {name: _write_model(sweep, name, folder) for name in sweep.models}
    leads = {finding.target: usual for _, usual, finding, _ in sweep.leads}
    classes = as_table(
        _write_class(sweep, target, folder, links, leads.get(target))
        for target, by_model in sweep.best.items()
        if by_model
    )
    *figure, models = sweep.sections(whole=True)
    models["model"] = [links[name] for name in sweep.models]
    sections: list[Any] = [*figure, models]
    surveys = {name: sweep.survey(name) for name in sweep.models[:MOST_IN_GRID]}
    found = {name: [*survey] for name, survey in surveys.items() if survey}
    if found and len(sweep.classes) <= MOST_CLASSES:  # else it can't be read
        few = f"The first {MOST_IN_GRID} of {len(sweep.models)} models"
        title = few if len(sweep.models) > MOST_IN_GRID else None
        sections.append(partial(plot_grid, found, title=title))
    sections += [html.heading("Classes"), classes]
    if sweep.failures:
        reasons = {name: _without_folders(sweep, name) for name in sweep.failures}
        failed = as_table({"model": name, "reason": why} for name, why in reasons.items())
        sections += [html.heading("Failed"), failed]
    return html.write_page(folder / INDEX, sweep.text(), sections)


def _without_folders(sweep: Sweep, model: str) -> str:
    """Why a model failed; of paths, a page shows the file names alone."""
    folder = os.path.dirname(str(sweep.rows[model].get("path") or ""))
    return FOLDERS.sub("", sweep.failures[model].replace(f"{folder}{os.sep}", "/"))


def _back(*links: Markup) -> Markup:
    """The first line of a page: links to others."""
    return Markup("<p>{}</p>").format(Markup(" · ").join(links))


def _write_model(sweep: Sweep, name: str, folder: Path) -> Markup | str:
    """Writes the page of a model, if anything was found; returns its link, for pages above it."""
    survey = sweep.survey(name)
    if not survey:
        return name
    file = f"model_{sweep.models.index(name)}_{as_file_name(name)}.html"
    text = "\n".join((name, *survey.text().split("\n")[1:]))
    back = _back(LINK.format(INDEX, TO_INDEX))
    html.write_page(folder / file, text, [*survey.sections(whole=True), back])
    return LINK.format(quote(file), name)


def _write_class(
    sweep: Sweep, target: int, folder: Path, links: Mapping[str, Any], usual: float | None
) -> dict[str, Any]:
    """Writes the page of a class, with the patterns of all models, or several pages if one would be
    too large; returns its row of the index."""
    best, listed = sweep.best[target], []
    by_model = {name: [f for f in sweep.survey(name) if f.target == target] for name in best}
    strongest = max(best, key=lambda name: best[name].power.value)
    first = best[strongest]
    for name, finding in best.items():
        kind = canvas_in_words(finding.canvas).capitalize()
        listed.append(cards.card(finding, links[name], kind, by_model[name]))
    room = max(1, MOST_BYTES // max(map(len, listed)))  # models on a page
    stem = f"{target}" + (f"_{as_file_name(first.class_name)}" if first.class_name else "")
    files = {f"{stem}{f'_{i}' if i else ''}.html": i for i in range(0, len(best), room)}
    pages = {INDEX: TO_INDEX}
    pages |= {file: f"from model {i + 1}" for file, i in files.items() if len(files) > 1}
    text = f"{first.label}\n{cards.WHAT} The area is {percent_area(first.area)}."
    for file, start in files.items():
        shown = slice(start, start + room)
        scores = scores_table({name: by_model[name] for name in [*best][shown]}, full=True)
        sections = [
            html.listed(listed[shown]),
            cards.how_to_read(best.values()),
            html.folded("All scores", scores),
            _back(*(LINK.format(quote(to), pages[to]) for to in pages)),
        ]
        html.write_page(folder / file, text, sections)
    return {
        "name": LINK.format(quote(next(iter(files))), first.label),
        "power": percent(first.power.value),
        "model": links[strongest],
        "median of others": None if usual is None else percent(usual),
        "models": str(len(best)),
    }

"""The site of a sweep: an index of models and classes, and a page for each class."""

import os
import re
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from captum_classpattern.classifier.class_names import as_file_name
from captum_classpattern.pages import cards
from captum_classpattern.pages import parts as html
from captum_classpattern.results import as_table
from captum_classpattern.surveys import Finding
from captum_classpattern.surveys.findings import best_of_each, canvas_in_words, scores_table
from captum_classpattern.surveys.grid import MOST_CLASSES, plot_grid
from captum_classpattern.surveys.sweeps import Sweep
from captum_classpattern.visualization.formats import percent, percent_area

MOST_BYTES = 2_000_000  # of the cards of a page
MOST_IN_GRID = 10  # models
INDEX = "index.html"
FOLDERS = re.compile(r"[^\s'\"(]*[/\\](?=[^\s/\\])")
LINK = Markup('<a href="{}">{}</a>')
TO_INDEX = "All classes"


def write_site(sweep: Sweep, folder: Path) -> Path:
    """Writes the index and the pages of all classes. Patterns are read one class at a time, apart
    from those in the figure of the index."""
    folder.mkdir(parents=True, exist_ok=True)
    by_class: dict[int, dict[str, list[Finding]]] = {}
    for name in sweep.models:
        for finding in sweep.survey(name):
            by_class.setdefault(finding.target, {}).setdefault(name, []).append(finding)
    classes = as_table(_write_class(folder, by_class.pop(target)) for target in sorted(by_class))
    *figure, models = sweep.sections(whole=True)
    sections: list[Any] = []
    if grid := _side_by_side(sweep):
        sections.append(grid)
    sections += [html.heading("Classes"), html.table(classes), html.heading("Models"), models]
    if sweep.failures:
        reasons = {name: _without_folders(sweep, name) for name in sweep.failures}
        failed = as_table({"model": name, "reason": why} for name, why in reasons.items())
        sections += [html.heading("Failed"), failed]
    return html.write_page(folder / INDEX, sweep.text(), [*figure, *sections])


def _side_by_side(sweep: Sweep) -> partial[Any] | None:
    """The figure of the patterns of all models, if there are not too many to read and show."""
    surveys = {name: sweep.survey(name) for name in sweep.models[:MOST_IN_GRID]}
    found = {name: [*survey] for name, survey in surveys.items() if survey}
    if not found or len(sweep.classes) > MOST_CLASSES:
        return None
    is_part = len(surveys) < len(sweep.models)
    title = f"The first {len(surveys)} of {len(sweep.models)} models" if is_part else None
    return partial(plot_grid, found, title=title)


def _without_folders(sweep: Sweep, model: str) -> str:
    """Why a model failed; of paths, a page shows the file names alone."""
    folder = os.path.dirname(str(sweep.rows[model].get("path") or ""))
    return FOLDERS.sub("", sweep.failures[model].replace(f"{folder}{os.sep}", "/"))


def _write_class(folder: Path, by_model: dict[str, list[Finding]]) -> html.Row:
    """Writes the page of a class, with the patterns of all models, or several pages if one would be
    too large; returns its row of the index."""
    best = {name: best_of_each(findings)[0] for name, findings in by_model.items()}
    order = sorted(best, key=lambda name: -best[name].power.value)
    first, listed = best[order[0]], []
    for name in order:
        kind = canvas_in_words(best[name].canvas).capitalize()
        row = best[name].figure_row(best[name].label)
        others = best[name].rows_of_others(by_model[name])
        listed.append(cards.card(name, kind, row, first.area, others))
    room = max(1, MOST_BYTES // max(map(len, listed)))  # models on a page
    stem = f"{first.target}" + (f"_{as_file_name(first.class_name)}" if first.class_name else "")
    files = {f"{stem}{f'_{i}' if i else ''}.html": i for i in range(0, len(order), room)}
    links = {INDEX: TO_INDEX}
    links |= {file: f"from model {i + 1}" for file, i in files.items() if len(files) > 1}
    text = (
        f"{first.label}\n{cards.WHAT} Here are those of {len(order):,} models that did best on the "
        f"validation images, the strongest first. The area is {percent_area(first.area)}."
    )
    for file, start in files.items():
        shown = slice(start, start + room)
        scores = scores_table({name: by_model[name] for name in order[shown]})
        sections = [
            Markup("<p>{}</p>").format(
                Markup(" · ").join(LINK.format(quote(to), links[to]) for to in links)
            ),
            html.listed(listed[shown]),
            cards.how_to_read(best.values()),
            html.folded("All scores", scores),
        ]
        html.write_page(folder / file, text, sections)
    return {
        "class": LINK.format(quote(next(iter(files))), first.label),
        "number": first.target,
        "models": len(best),
        "mean power": percent(fmean(finding.power.value for finding in best.values())),
        "strongest model": f"{order[0]}, {percent(first.power.value)}",
    }

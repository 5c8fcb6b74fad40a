"""The site of a sweep: an index of models and classes, a page of each model, and one of each class
with the patterns of all models."""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from captum_classpattern._support.formats import percent, percent_area
from captum_classpattern.classifier.class_names import as_file_name
from captum_classpattern.pages import parts
from captum_classpattern.results import as_table
from captum_classpattern.surveys import findings
from captum_classpattern.surveys.grid import MOST_CLASSES, plot_grid

if TYPE_CHECKING:
    from captum_classpattern.surveys.sweep_results import Sweep

MOST_BYTES = 2_000_000  # of the cards of a page
MOST_IN_GRID = 10  # models in the figure of the index
INDEX = "index.html"
FOLDERS = re.compile(r"[^\s'\"(]*[/\\](?=[^\s/\\])")


def link(file: str, text: str) -> Markup:
    """A link to a page of the site."""
    return Markup('<a href="{}">{}</a>').format(quote(file), text)


def links_line(*links: Markup) -> Markup:
    """The last line of a page: a link to the index, and to others."""
    shown = (link(INDEX, "All models and classes"), *links)
    return Markup("<p>{}</p>").format(Markup(" · ").join(shown))


def write_site(sweep: "Sweep", folder: Path) -> Path:
    """Writes all pages; returns the path of the index."""
    links: dict[str, Markup | str] = {}
    for i, name in enumerate(sweep.models):
        links[name] = name
        if survey := sweep.survey(name):
            path = folder / f"model_{i}_{as_file_name(name)}.html"
            text = "\n".join((name, *survey.text().split("\n")[1:]))
            parts.write_page(path, text, [*survey.sections(whole=True), links_line()])
            links[name] = link(path.name, name)
    sections = [*sweep.sections(whole=True)]
    sections[-1]["model"] = [*links.values()]
    found = {name: survey for name in sweep.models[:MOST_IN_GRID] if (survey := sweep.survey(name))}
    if found and len(sweep.classes) <= MOST_CLASSES:  # else it can't be read
        few = f"The first {MOST_IN_GRID} of {len(sweep.models)} models"
        title = few if len(sweep.models) > MOST_IN_GRID else None
        sections.append(partial(plot_grid, found, title=title))
    classes = []
    for target, best in sweep.best.items():
        _, usual, strongest = sweep.leads.get(target, (None, None, next(iter(best))))
        row = {
            "name": write_class(sweep, target, links, folder),
            "power": percent(best[strongest].power.value),
            "model": links[strongest],
            "median of others": None if usual is None else percent(usual),
            "models": str(len(best)),
        }
        classes.append(row)
    sections += [parts.heading("Classes"), as_table(classes)]
    if sweep.failures:  # of paths, a page shows the file names alone
        places = {
            name: os.path.dirname(str(row.get("path") or "")) for name, row in sweep.rows.items()
        }
        reasons = (
            {"model": name, "reason": FOLDERS.sub("", why.replace(f"{places[name]}{os.sep}", "/"))}
            for name, why in sweep.failures.items()
        )
        sections += [parts.heading("Failed"), as_table(reasons)]
    return parts.write_page(folder / INDEX, sweep.text(), sections)


def write_class(
    sweep: "Sweep", target: int, links: Mapping[str, Markup | str], folder: Path
) -> Markup:
    """Writes the page of a class, or several pages if one would be too large; returns the link of
    the first. Its patterns are read for it."""
    best = sweep.best[target]
    by_model = {name: [f for f in sweep.survey(name) if f.target == target] for name in best}
    first = max(best.values(), key=lambda finding: finding.power.value)
    cards = [
        finding.card(
            links[name], findings.canvas_in_words(finding.canvas).capitalize(), by_model[name]
        )
        for name, finding in best.items()
    ]
    room = max(1, MOST_BYTES // max(map(len, cards)))  # models on a page
    stem = f"{target}" + (f"_{as_file_name(first.class_name)}" if first.class_name else "")
    files = {f"{stem}{f'_{i}' if i else ''}.html": i for i in range(0, len(cards), room)}
    pages = [link(file, f"from model {i + 1}") for file, i in files.items() if len(files) > 1]
    text = f"{first.label}\n{findings.WHAT} The area is {percent_area(first.area)}."
    for file, start in files.items():
        shown = slice(start, start + room)
        scores = findings.scores_table({name: by_model[name] for name in [*best][shown]}, full=True)
        sections = [
            parts.listed(cards[shown]),
            findings.how_to_read(best.values()),
            parts.folded("All scores", scores),
            links_line(*pages),
        ]
        parts.write_page(folder / file, text, sections)
    return link(next(iter(files)), first.label)

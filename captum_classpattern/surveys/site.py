"""The pages of a sweep's site: one of each model, and one of each class with the patterns of all
models. The index that links to them is :meth:`Sweep.to_html`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from captum_classpattern._support.formats import percent_area
from captum_classpattern.classifier.class_names import as_file_name
from captum_classpattern.pages import parts
from captum_classpattern.surveys.findings import (
    WHAT,
    Finding,
    best_of_each,
    canvas_in_words,
    how_to_read,
    scores_table,
)
from captum_classpattern.surveys.results import Survey

MOST_BYTES = 2_000_000  # of the cards of a page
INDEX = "index.html"


def link(file: str, text: str) -> Markup:
    """A link to a page of the site."""
    return Markup('<a href="{}">{}</a>').format(quote(file), text)


def links_line(*links: Markup) -> Markup:
    """The last line of a page: a link to the index, and to others."""
    shown = (link(INDEX, "All models and classes"), *links)
    return Markup("<p>{}</p>").format(Markup(" · ").join(shown))


def write_model(survey: Survey, name: str, path: Path) -> Markup:
    """Writes the page of a model; returns its link."""
    text = "\n".join((name, *survey.text().split("\n")[1:]))
    parts.write_page(path, text, [*survey.sections(whole=True), links_line()])
    return link(path.name, name)


def write_class(
    by_model: Mapping[str, Sequence[Finding]], links: Mapping[str, Markup | str], folder: Path
) -> Markup:
    """Writes the page of a class from its findings in each model, or several pages if one would be
    too large; returns the link of the first."""
    best = {name: best_of_each(findings)[0] for name, findings in by_model.items()}
    first = max(best.values(), key=lambda finding: finding.power.value)
    cards = [
        finding.card(links[name], canvas_in_words(finding.canvas).capitalize(), by_model[name])
        for name, finding in best.items()
    ]
    room = max(1, MOST_BYTES // max(map(len, cards)))  # models on a page
    stem = f"{first.target}" + (f"_{as_file_name(first.class_name)}" if first.class_name else "")
    files = {f"{stem}{f'_{i}' if i else ''}.html": i for i in range(0, len(cards), room)}
    pages = [link(file, f"from model {i + 1}") for file, i in files.items() if len(files) > 1]
    text = f"{first.label}\n{WHAT} The area is {percent_area(first.area)}."
    for file, start in files.items():
        shown = slice(start, start + room)
        scores = scores_table({name: by_model[name] for name in [*best][shown]}, full=True)
        sections = [
            parts.listed(cards[shown]),
            how_to_read(best.values()),
            parts.folded("All scores", scores),
            links_line(*pages),
        ]
        parts.write_page(folder / file, text, sections)
    return link(next(iter(files)), first.label)

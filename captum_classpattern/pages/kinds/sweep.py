"""A sweep: the power of each class of each model, a row for each model; and the site."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from captum_classpattern.classifier.class_names import as_file_name, distinct_names, label_of
from captum_classpattern.pages import parts as html
from captum_classpattern.pages.kinds.finding import NOTE, SCORES, WHAT, card, score_rows
from captum_classpattern.pages.parts import Column
from captum_classpattern.surveys import Finding, Sweep
from captum_classpattern.surveys.findings import best_of_each
from captum_classpattern.visualization import plot_heat_map
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area

MOST_MODELS = 50  # in the table of a notebook
MOST_BYTES = 2_000_000  # of the cards of a page
LONGEST = 24  # characters of a label
INDEX = "index.html"
COLUMNS = (
    Column("model", "model"),
    Column("classes", "classes"),
    Column("mean power", "power", percent),
    Column("strongest class", "first", lambda each: f"{each.label}, {percent(each.power.value)}"),
    Column("above their controls", "above"),
)
NAMES = (Column("model", "model"), Column("canvas", "canvas"), Column("area", "area", percent_area))
CLASSES = (
    Column("class", "class"),
    Column("number", "number"),
    Column("models", "models"),
    Column("mean power", "power", percent),
    Column("strongest model", "strongest"),
)
LINK = Markup('<a href="{}">{}</a>')


def parts(sweep: Sweep, whole: bool = False) -> tuple[str, list[Markup]]:
    """Of the findings so far, on the best canvases, at the first area."""
    area, rows = float(sweep.settings["areas"][0]), model_rows(sweep)
    counts = f"{len(sweep.models):,} models, {len(sweep.classes):,} classes"
    failed = f", {len(sweep.failures):,} failed" if sweep.failures else ""
    left_out = not whole and len(rows) > MOST_MODELS
    most = f" The {MOST_MODELS} strongest models are listed." * left_out
    shown = [html.paragraph(f"{counts}{failed}.{most}")]
    if any("power" in row for row in rows):
        figure, _ = sweep.plot(use_pyplot=False)
        shown.append(html.drawing(figure, "predictive power of each class of each model"))
    further = dict.fromkeys(key for name in sweep.models for key in sweep.columns[name])
    columns = [*COLUMNS, *(Column(key, f"further {key}", html.plain) for key in further)]
    return "Sweep", [
        *shown,
        html.table_of(columns, rows[:MOST_MODELS] if left_out else rows),
        html.paragraph(
            f"Power of {percent_area(area)} of the pixels on held-out images, on the "
            "canvas that did best on the validation images."
        ),
    ]


def model_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """A row for each model, the strongest first: how many of its classes were found, the
    :func:`summary` of these, whether it failed, and what else is known of it."""
    rows = []
    for name, columns in sweep.columns.items():  # one at a time: there may be thousands
        best, failed = sweep.best_canvases(name), ", failed" * (name in sweep.failures)
        row = {"model": name, "classes": f"{len(best)} of {len(sweep.classes)}{failed}"}
        row |= {f"further {key}": value for key, value in columns.items()}
        rows.append(row | summary(best) if best else row)
    return sorted(rows, key=lambda row: -row.get("power", -1.0))


def summary(best: Sequence[Finding]) -> dict[str, Any]:
    """The findings of a model, one for each class, as a row of a table: their mean power at the
    first area, the finding with the highest power, and how many are above their controls."""
    scores = [each.scores[each.area] for each in best]
    powers = [each.power.value for each in scores]
    enough = any(each.enough_images for each in scores)
    return {
        "power": fmean(powers),
        "first": best[powers.index(max(powers))],
        "above": sum(each.beats_controls for each in scores) if enough else "too few images",
    }


def plot(sweep: Sweep, *, use_pyplot: bool) -> Drawing:
    found = [(name, each) for name in sweep.models for each in sweep.best_canvases(name)]
    if not found:
        raise ValueError("there is nothing to draw: no class was found")
    names = {each.target: _short(each.class_name) for _, each in reversed(found) if each.class_name}
    labels, area = distinct_names(names), float(sweep.settings["areas"][0])
    models = distinct_names({number: _short(name) for number, name in enumerate(sweep.models)})
    of_models = dict(zip(sweep.models, models.values()))
    values: dict[str, dict[str, float]] = {}
    faint: set[tuple[str, str]] = set()
    for name, each in found:
        model, label = of_models[name], labels.get(each.target, label_of(each.target))
        values.setdefault(model, {})[label] = each.power.value
        if each.scores[area].is_weak:
            faint.add((model, label))
    title = f"Predictive power of {percent_area(area)} of the pixels of the best canvas"
    return plot_heat_map(values, faint=faint, title=title, use_pyplot=use_pyplot)


def _short(name: str) -> str:
    """A name as a label of a figure."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


# ---- the site


def write(sweep: Sweep, folder: str | PathLike[str]) -> Path:
    """Writes the index and the pages of all classes; patterns are read one class at a time."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    found: dict[int, dict[str, list[Finding]]] = {}
    for name in sweep.models:
        for finding in sweep.survey(name):
            found.setdefault(finding.target, {}).setdefault(name, []).append(finding)
    rows = [_write_class(place, found.pop(target)) for target in sorted(found)]
    _, content = parts(sweep, whole=True)
    content[-2:-2] = [html.heading("Classes"), html.table_of(CLASSES, rows), html.heading("Models")]
    title = f"Class patterns of {len(sweep.models):,} models"
    return html.write_page(place / INDEX, title, content)


def _write_class(place: Path, found: dict[str, list[Finding]]) -> html.Row:
    """Writes the page of a class, with the patterns of all models, or several pages if one would be
    too large; returns its row of the index."""
    best = {name: best_of_each(findings)[0] for name, findings in found.items()}
    order = sorted(best, key=lambda name: -best[name].power.value)
    first, cards = best[order[0]], []
    for name in order:
        others = [each for each in found[name] if each is not best[name]]
        cards.append(card(best[name], name, f"{best[name].canvas} canvas".capitalize(), others))
    each = max(1, MOST_BYTES // max(map(len, cards)))  # models on a page
    stem = f"{first.target}" + (f"_{as_file_name(first.class_name)}" if first.class_name else "")
    files = {f"{stem}{f'_{i}' if i else ''}.html": i for i in range(0, len(order), each)}
    links = {INDEX: "All classes"}
    links |= {file: f"from model {i + 1}" for file, i in files.items() if len(files) > 1}
    for file, start in files.items():
        shown = slice(start, start + each)
        rows = [{**row, "model": m} for m in order[shown] for row in score_rows(found[m])]
        content = [
            html.paragraph(Markup(" · ").join(LINK.format(quote(to), links[to]) for to in links)),
            html.paragraph(
                f"{WHAT} Here are the patterns of {len(order):,} models, the strongest first: "
                f"{percent_area(first.area)} of the pixels of the canvas that did best on the "
                "validation images."
            ),
            html.listed(cards[shown]),
            html.paragraph(NOTE),
            html.folded("All scores", html.table_of([*NAMES, *SCORES], rows)),
        ]
        html.write_page(place / file, first.label, content)
    return {
        "class": LINK.format(quote(next(iter(files))), first.label),
        "number": first.target,
        "models": len(best),
        "power": fmean(each.power.value for each in best.values()),
        "strongest": f"{order[0]}, {percent(first.power.value)}",
    }

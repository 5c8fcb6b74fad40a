"""A scan: the verdict, what was found and what it does, every class, and what to do next."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np
from markupsafe import Markup
from torch import Tensor

from captum_classpattern.pages import parts as html
from captum_classpattern.pages.kinds.power import power_text
from captum_classpattern.pages.parts import Column
from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.decision import SUSPICIOUS
from captum_classpattern.scanning.families import CHANGES, PATCHES, WORDS, unit_of
from captum_classpattern.scores.examples import EXAMPLES
from captum_classpattern.visualization.drawing import Drawing, on_neutral
from captum_classpattern.visualization.formats import percent, percent_range
from captum_classpattern.visualization.grid import Cell, Drawn, draw_grid
from captum_classpattern.visualization.lines import (
    LONGEST_LABEL,
    Line,
    Panel,
    Style,
    draw_panel,
    draw_panels,
)
from captum_classpattern.visualization.style import CONTROL, HIGHLIGHTS, HIT, SMALL_CURVES

ROWS = 10  # classes in the table
EXAMPLE = 140  # pixels a side of an image before and after
NOTE = (
    "Excess: how far the score of the class is above its mean over all models. Power: the share of "
    "other images that are predicted as the class. Gain: how far the change raises the distance of "
    "its logit from the largest other one, on average; 1 is the usual distance of the model's two "
    "largest logits. In brackets: the range of the clean models."
)
SHOWN = {  # what a picture of a change shows
    "additive": "what is added, enlarged: grey is no change",
    "warp": "what becomes of straight lines",
}


def parts(scan: Scan, whole: bool = False) -> tuple[str, list[Markup]]:
    figure, _ = plot_leads(scan, use_pyplot=False)
    others = [family for family in scan.looks if family != scan.family and whole]
    source = "" if scan.source is None else f": {scan.source}"
    found = "What was found" if scan.verdict == SUSPICIOUS else "What comes closest"
    return f"{verdict_text(scan)}{source}", [
        html.paragraph(scan.reason),
        *(html.paragraph(f"Note: {note}") for note in scan.notes),
        *(_found(scan, scan.family, found) if scan.looks else ()),
        html.heading("Every class"),
        html.paragraph(leads_text(scan)),
        html.drawing(figure, "how far each class leads", fits=True),
        html.heading("What next"),
        html.numbered(scan.next_steps),
        html.heading("The clean models"),
        html.paragraph(scan.likeness),
        *(part for family in others for part in _found(scan, family, "For comparison")),
        _numbers(scan),
    ]


def _found(scan: Scan, family: str, title: str) -> Iterator[Markup]:
    """What a family has found for its first class, and what it does to images."""
    look, words = scan.looks[family], WORDS[family]
    name, power = scan.class_names[look.target], look.power
    yield html.heading(f"{title}: {words} for {name}")
    used = "has not seen" if look.unseen else "was judged by, too, since few were left"
    yield html.paragraph(
        f"On images of other classes that the search {used}, the model predicts {name} with it for "
        f"{power_text(power)}, and without it for {percent(power.without)}."
    )
    size = scan.profile.enough_pixels(look.target)
    caption = f"{size} {unit_of(scan.references.shape)}" if family == PATCHES else SHOWN[family]
    image, alt = pictured(scan, family), f"{words} for {name}"
    shown = [html.picture(image, alt, caption, least=html.MOST_PIXELS)]
    for number, label in enumerate(look.before.labels):
        for when, images in (("before", look.before), ("after", look.after)):
            image, alt = images.images[number], f"{label} {when} {words} for {name}"
            caption = f"{when}: {images.captions[number]}"
            shown.append(html.picture(image, alt, caption, least=EXAMPLE, most=EXAMPLE))
    yield html.side_by_side(*shown)


def _numbers(scan: Scan) -> Markup:
    """The values of the first classes, each with the range of the references."""
    rows, known = scan.table().head(ROWS).to_dict("records"), len(scan.class_names)
    columns = [Column("class", "name"), Column("excess", "excess", "{:+.2f}".format)]
    for key in scan.profile.values_of(0):
        what, of = key.split("_")
        unit = f" {unit_of(scan.references.shape)}" if of.isdigit() else ""
        columns.append(Column(f"{what}, {of}{unit}", key))
        write = partial(percent, digits=0) if what == "power" else "{:+.2f}".format
        for row in rows:
            ends = [write(row[f"references_{key}_{end}"]) for end in ("low", "high")]
            row[key] = f"{write(row[key])} ({' to '.join(ends)})"
    few = f" The first {ROWS} of {known:,} classes are shown." if known > ROWS else ""
    return html.folded("All numbers", html.paragraph(f"{NOTE}{few}"), html.table_of(columns, rows))


# ---- figures

ARROW, ELLIPSIS = "\N{RIGHTWARDS ARROW}", "\N{HORIZONTAL ELLIPSIS}"
NAMED, NOTE_WIDTH = 3, 110  # classes of each family; letters in a line
WIDTH, PANEL_WIDTH = 1.4, 2.6  # of an image in inches, and of the leads relative to it
LEADS_SIZE = (3.9, 0.45)  # inches, of a family
LEADS: dict[str, Style] = {
    "clean models, each by its first class": {
        "color": CONTROL, "marker": "|", "markersize": 18, "linestyle": ""
    },
    "classes of this model": {
        "color": HIGHLIGHTS[2], "marker": "o", "markersize": 5, "linestyle": "", "alpha": 0.6
    },
    "its first class": {
        "color": HIGHLIGHTS[0], "marker": "o", "markersize": 9, "linestyle": ""
    },
}  # fmt: skip


def plot(scan: Scan, *, use_pyplot: bool) -> Drawing:
    """Draws a row for each family: what was found for its first class, three images with it and the
    model's predictions, and how far all classes lead. Without a look at images, these alone."""
    if not scan.looks or scan.references.shape[0] not in (1, 3):
        return plot_leads(scan, title=verdict_text(scan), use_pyplot=use_pyplot)
    rows = []
    for family, look in scan.looks.items():
        power = f"{percent(look.power.value)} ({percent_range(*look.power.interval)})"
        cells: list[Drawn] = [Cell(pictured(scan, family), power)]
        after, before = look.after, look.before.names
        for image, name, y, text in zip(after.images, before, after.predicted, after.captions):
            cells.append(Cell(image, f"{name} {ARROW} {text}", y == look.target, HIT))
        cells += [None] * (EXAMPLES + 1 - len(cells))
        cells.append(partial(_draw_leads, panel=_leads_of(scan, family)))
        rows.append((f"{WORDS[family]}: {scan.class_names[look.target]}", cells))
    titles = ["what was found", *[""] * EXAMPLES, "how far each class leads"]
    unseen = "held-out images" if all(look.unseen for look in scan.looks.values()) else "images"
    titles[1 + EXAMPLES // 2] = f"{unseen} with it,\nand the model's predictions"
    return draw_grid(
        rows,
        titles,
        title=verdict_text(scan),
        note=fill(leads_text(scan), NOTE_WIDTH),
        width=WIDTH,
        widths=[*[1.0] * (EXAMPLES + 1), PANEL_WIDTH],
        use_pyplot=use_pyplot,
    )


def plot_leads(scan: Scan, *, title: str | None = None, use_pyplot: bool) -> Drawing:
    """Draws for each family how far all classes lead, and the first class of each reference."""
    return draw_panels(
        [_leads_of(scan, family) for family in scan.comparisons],
        size=LEADS_SIZE,
        columns=1,
        key=LEADS,
        y_label=None,
        title=title,
        style={**SMALL_CURVES, "axes.spines.left": False},
        use_pyplot=use_pyplot,
    )


def _draw_leads(axis: Any, panel: Panel) -> None:
    draw_panel(axis, replace(panel, title=""), WIDTH * PANEL_WIDTH)
    axis.tick_params(bottom=True, labelbottom=True)


def _leads_of(scan: Scan, family: str) -> Panel:
    """The leads of the classes and of the references in a family."""
    each, (first, *others) = scan.comparisons[family], scan.comparisons[family].order
    shown = [
        np.append(one.standardised, one.usual_standardised) for one in scan.comparisons.values()
    ]
    low, high = float(np.min(shown)), float(np.max(shown))
    names = [scan.class_names[y] for y in each.order[:NAMED]]
    cut = [x if len(x) <= LONGEST_LABEL else f"{x[: LONGEST_LABEL - 1]}{ELLIPSIS}" for x in names]
    values = (each.usual_standardised, each.standardised[others], each.standardised[[first]])
    axes = {
        "xlim": (low - 0.04 * (high - low), high + 0.04 * (high - low)),
        "ylim": (-1, 1),
        "yticks": [],
        "xlabel": f"first: {', '.join(cut)}",
    }
    lines = [Line([(x, 0) for x in leads], look) for leads, look in zip(values, LEADS.values())]
    return Panel(lines, axes, WORDS[family], dotted=bound_of(scan))


def leads_text(scan: Scan) -> str:
    """What a figure of leads shows."""
    right = f" Right of the dotted line, p is at most {scan.alpha:g}." if bound_of(scan) else ""
    return (
        f"Dots: all classes, the first in orange. Grey lines: {len(scan.references)} clean models, "
        "each by the class that leads. Lead: how far a class is above the median class, next to "
        f"the same class of the clean models, in standard deviations.{right}"
    )


def bound_of(scan: Scan) -> list[float]:
    """The lead above which a model is suspicious, unless the scan is inconclusive."""
    largest = np.sort(
        np.max([each.usual_standardised for each in scan.comparisons.values()], axis=0)
    )
    as_far = int(np.floor(round(scan.alpha * (len(largest) + 1), 9)))  # models, with this one
    return [float(largest[-as_far])] if scan.p_text else []


def verdict_text(scan: Scan) -> str:
    """``Suspicious, p = 0.02``."""
    return ", ".join(filter(None, (scan.verdict.capitalize(), scan.p_text)))


def pictured(scan: Scan, family: str) -> Tensor:
    """An image of what a family has found for its first class."""
    target = scan.comparisons[family].target
    if family != PATCHES:
        return CHANGES[family](scan.references.shape).picture(scan.profile.changes[family][target])
    pattern = scan.pattern_of(target)
    return on_neutral(pattern) if len(pattern.canvas) in (1, 3) else pattern.canvas

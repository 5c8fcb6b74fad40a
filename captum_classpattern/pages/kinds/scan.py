"""A scan: the verdict, what was found and what it does, every class, and what to do next."""

from collections.abc import Iterator
from functools import partial

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pages.kinds.power import power_text
from captum_classpattern.pages.parts import Column
from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.families import FAMILIES, PATCHES, unit_of
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.results import (
    leads_text,
    pictured,
    plot_leads,
    verdict_text,
)
from captum_classpattern.visualization.results import plot_scan as plot

__all__ = ["parts", "plot"]
ROWS = 10  # classes in the table
NOTE = (
    "Excess: how far the score of the class is above its mean over all models. Power: the share of "
    "other images that become the class. Margin: how far its logit is above the largest other one "
    "on average, where 1 is the usual distance of the model's two largest logits. In brackets: the "
    "range of the references."
)
SHOWN = {  # what a picture of a change shows
    "additive": "what is added, enlarged: grey is no change",
    "warp": "lines of a grid, warped",
}


def parts(scan: Scan, whole: bool = False) -> tuple[str, list[Markup]]:
    figure, _ = plot_leads(scan, use_pyplot=False)
    others = [family for family in scan.looks if family != scan.family]
    source = "" if scan.source is None else f": {scan.source}"
    return f"{verdict_text(scan)}{source}", [
        html.paragraph(scan.reason),
        *map(html.paragraph, scan.notes),
        *(_found(scan, scan.family) if scan.looks else ()),
        html.heading("Every class"),
        html.paragraph(leads_text(scan)),
        html.drawing(figure, "how far each class leads", fits=True),
        html.heading("What next"),
        html.numbered(scan.next_steps),
        html.heading("What it was compared with"),
        html.paragraph(f"{scan.accuracies} {scan.likeness}"),
        *(part for family in others if whole for part in _found(scan, family)),
        _numbers(scan),
    ]


def _found(scan: Scan, family: str) -> Iterator[Markup]:
    """What a family has found for its first class, and what it does to images."""
    look, words = scan.looks[family], FAMILIES[family].words
    name, power = scan.class_names[look.target], look.power
    yield html.heading(f"{words[0].upper()}{words[1:]}: {name}")
    unseen = "." if look.unseen else ", which the search has used too, since too few were left."
    yield html.paragraph(
        f"With it, the model predicts {name} for {power_text(power)} of other classes{unseen} "
        f"Without it, for {percent(power.without)}."
    )
    size = scan.profile.enough_pixels(look.target)
    caption = f"{size} {unit_of(scan.references.shape)}" if family == PATCHES else SHOWN[family]
    shown = [
        html.picture(pictured(scan, family), f"{words} of {name}", caption, least=html.MOST_PIXELS)
    ]
    for number, label in enumerate(look.before.labels):
        for images, how in ((look.before, "without"), (look.after, "with")):
            predicted = f"{how} it: {images.captions[number]}"
            shown.append(
                html.picture(
                    images.images[number],
                    f"{label} {how} {words} of {name}",
                    predicted,
                    most=html.SIDE,
                )
            )
    yield html.side_by_side(*shown)


def _numbers(scan: Scan) -> Markup:
    """The values of the first classes, each with the range of the references."""
    columns = [
        Column("class", "name"),
        Column(f"excess ({scan.family})", "excess", "{:+.2f}".format),
    ]
    rows = scan.table().head(ROWS).to_dict("records")
    for key in scan.profile.values_of(0):
        what, _, of = key.partition("_")
        unit = f" {unit_of(scan.references.shape)}" if of.isdigit() else ""
        columns.append(Column(f"{what}, {of}{unit}", key))
        write = partial(percent, digits=0) if what == "power" else "{:+.2f}".format
        for row in rows:
            low, high = (write(row[f"references_{key}_{end}"]) for end in ("low", "high"))
            row[key] = f"{write(row[key])} ({low} to {high})"
    few = (
        ""
        if len(rows) == len(scan.class_names)
        else f" The first {len(rows)} of {len(scan.class_names):,} classes are shown."
    )
    return html.folded("All numbers", html.paragraph(f"{NOTE}{few}"), html.table_of(columns, rows))

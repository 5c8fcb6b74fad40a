"""A scan: the verdict, what was found and what it does, every class, and what to do next."""

from collections.abc import Iterator
from functools import partial

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pages.kinds.power import power_text
from captum_classpattern.pages.parts import Column
from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.decision import SUSPICIOUS
from captum_classpattern.scanning.families import FAMILIES, PATCHES, unit_of
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.results import leads_text, pictured, plot_leads, verdict_text
from captum_classpattern.visualization.results import plot_scan as plot

__all__ = ["parts", "plot"]
ROWS = 10  # classes in the table
EXAMPLE = 140  # pixels a side of an image before and after
NOTE = (
    "Excess: how far the score of the class is above its mean over all models. Power: the share of "
    "other images that become the class. Gain: how far the change raises the distance of its logit "
    "from the largest other one, on average; 1 is the usual distance of the model's two largest "
    "logits. In brackets: the range of the clean models."
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
        html.paragraph(f"{scan.accuracies} {scan.likeness}"),
        *(part for family in others for part in _found(scan, family, "For comparison")),
        _numbers(scan),
    ]


def _found(scan: Scan, family: str, title: str) -> Iterator[Markup]:
    """What a family has found for its first class, and what it does to images."""
    look, words = scan.looks[family], FAMILIES[family].words
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

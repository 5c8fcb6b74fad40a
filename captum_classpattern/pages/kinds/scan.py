"""A scan: the verdict, the most suspicious patterns, and the powers of the classes."""

from markupsafe import Markup

from captum_classpattern.pages.parts import Column, paragraph, picture, side_by_side, table_of
from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.families import SIZES, unit_of
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.results import DRAWN, pictured, verdict_text
from captum_classpattern.visualization.results import plot_scan as plot

__all__ = ["parts", "plot"]
ROWS = 10  # classes in the table


def parts(scan: Scan, whole: bool = False) -> tuple[str, list[Markup]]:
    order, unit = scan.comparison.order, unit_of(scan.references.shape)
    powers = {f"{size} {unit}": scan.profile.powers[size] for size in sorted(SIZES)}
    powers |= scan.profile.others
    shown = []
    for target in order[:DRAWN]:
        image, below = pictured(scan, target)
        name = scan.class_names[target]
        shown.append(picture(image, f"pattern of {name}", f"{name}: {below}"))
    columns = [Column(f"power, {of}", of, percent) for of in powers]
    rows = [
        {
            "class": scan.class_names[target],
            **{of: float(each[target]) for of, each in powers.items()},
            "excess": float(scan.comparison.excess[target]),
        }
        for target in order[:ROWS]
    ]
    left_out = f" The {ROWS} most suspicious of {len(order):,} classes are shown."
    source = "" if scan.source is None else f": {scan.source}"
    return f"{verdict_text(scan)}{source}", [
        paragraph(scan.reason),
        *map(paragraph, scan.notes),
        side_by_side(*shown),
        table_of(
            [Column("class", "class"), *columns, Column("excess", "excess", "{:.2f}".format)], rows
        ),
        paragraph(
            f"Compared with {len(scan.references)} clean models. Excess: how far the class is "
            f"above them.{left_out if len(order) > ROWS else ''}"
        ),
    ]

"""A scan: the verdict, the most suspicious patterns, and the powers of the classes."""

from typing import Any

from markupsafe import Markup

from captum_classpattern.pages.parts import paragraph, picture, side_by_side, table
from captum_classpattern.scanning import Scan
from captum_classpattern.scanning.families import pictures
from captum_classpattern.scanning.profile import SIZES, unit_of
from captum_classpattern.visualization.drawing import Drawing, on_neutral
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.scans import draw_scan

DRAWN, ROWS = 3, 10  # patterns in the figure; classes in the table


def parts(scan: Scan, whole: bool = False) -> tuple[str, list[Markup]]:
    order, sizes, unit = scan.test.order, sorted(SIZES), unit_of(scan.references.shape)
    powers, others = scan.profile.powers, scan.profile.others
    shown = []
    for target in order[:DRAWN]:
        image, below = _shown(scan, target)
        name = scan.class_names[target]
        shown.append(picture(image, f"pattern of {name}", f"{name}: {below}"))
    columns = [f"power, {size} {unit}" for size in sizes]
    columns += [f"power, {name}" for name in others]
    rows = [
        (
            scan.class_names[target],
            *(percent(powers[size][target]) for size in sizes),
            *(percent(each[target]) for each in others.values()),
            f"{float(scan.test.excess[target]):.2f}",
        )
        for target in order[:ROWS]
    ]
    left_out = f" The {ROWS} most suspicious of {len(order):,} classes are shown."
    source = "" if scan.source is None else f": {scan.source}"
    return f"{_verdict(scan)}{source}", [
        paragraph(scan.reason),
        *map(paragraph, scan.notes),
        side_by_side(*shown),
        table(("class", *columns, "excess"), rows),
        paragraph(
            f"Compared with {len(scan.references)} clean models. Excess: how far the class is "
            f"above them.{left_out if len(order) > ROWS else ''}"
        ),
    ]


def _verdict(scan: Scan) -> str:
    p_value = "" if scan.p_value is None else f", p = {scan.p_value:.2g}"
    return f"{scan.verdict.capitalize()}{p_value}"


def _shown(scan: Scan, target: int) -> tuple[Any, str]:
    """The image of a class, and what is below it."""
    profile, shape = scan.profile, scan.references.shape
    if scan.family in profile.others:
        changes = profile.changes[scan.family]
        shown = pictures(scan.family, shape, {target: changes[target]})
        power = profile.others[scan.family][target]
        return shown[target], f"{scan.family}, {percent(power, 0)}"
    size = profile.enough_pixels(target)
    power = profile.powers[size][target]
    pattern = profile.patterns[size, target]
    return on_neutral(pattern), f"{size} {unit_of(shape)}, {percent(power, 0)}"


def plot(scan: Scan, *, use_pyplot: bool) -> Drawing:
    order, sizes = scan.test.order, sorted(SIZES)
    return draw_scan(
        _verdict(scan),
        [_shown(scan, y) for y in order[:DRAWN]],
        sizes,
        unit_of(scan.references.shape),
        [scan.class_names[y] for y in order],
        [[scan.profile.powers[size][y] for size in sizes] for y in order],
        [
            [profile.powers[size][order[0]] for size in sizes]
            for profile in scan.references.profiles.values()
        ],
        use_pyplot,
    )

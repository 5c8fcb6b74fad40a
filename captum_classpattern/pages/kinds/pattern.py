"""A pattern: its pixels, its canvas, and what its search knows."""

from markupsafe import Markup

from captum_classpattern.pages import parts as html
from captum_classpattern.pattern import Pattern
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import percent, percent_area
from captum_classpattern.visualization.patterns import PatternRow, draw_patterns


def parts(pattern: Pattern, whole: bool = False) -> tuple[str, list[Markup]]:
    name = pattern.label
    kept, total = int((pattern.mask > 0).sum()), pattern.mask.numel()
    facts = [f"{percent_area(pattern.area)} of the {total:,} pixels"]
    if kept != round(pattern.area * total):
        facts.append(f"{kept:,} pixels have a weight")
    power = pattern.info.get("search_power")
    if isinstance(power, float):
        facts.append(f"power {percent(power)} on the validation images, which chose it")
    return f"Pattern of {name}", [
        html.side_by_side(
            html.pattern_picture(pattern.at_own_area(), f"pattern of {name}", "pattern"),
            html.picture(pattern.canvas, f"canvas of {name}", "canvas", most=html.THUMBNAIL),
        ),
        html.paragraph(f"{'; '.join(facts)}. predictive_power scores it on held-out images."),
    ]


def plot(pattern: Pattern, *, use_pyplot: bool) -> Drawing:
    row = PatternRow(pattern.label, pattern, pattern.at_own_area())
    return draw_patterns([row], area=pattern.area, masks=True, use_pyplot=use_pyplot)

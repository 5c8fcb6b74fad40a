"""A predictive power, with its interval and the share without the pattern."""

from markupsafe import Markup

from captum_classpattern.pages.parts import paragraph
from captum_classpattern.scores import PredictivePower
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.formats import SPACE, percent, percent_range
from captum_classpattern.visualization.overviews import draw_power


def power_text(power: PredictivePower) -> str:
    """``38.7 % of 900 images (95 % interval 35.6-41.9)``."""
    return (
        f"{percent(power.value)} of {power.n:,} images (95{SPACE}% interval "
        f"{percent_range(*power.interval)})"
    )


def parts(power: PredictivePower, whole: bool = False) -> tuple[str, list[Markup]]:
    without = paragraph(f"Without the pattern: {percent(power.without)}.")
    return f"Predictive power {power_text(power)}", [without]


def plot(power: PredictivePower, *, use_pyplot: bool) -> Drawing:
    return draw_power(power, use_pyplot=use_pyplot)

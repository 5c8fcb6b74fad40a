"""An invariance profile: the pattern, its power under each transform, and how long half stays."""

from markupsafe import Markup

from captum_classpattern.pages.kinds.power import power_text
from captum_classpattern.pages.parts import drawing, pattern_picture, side_by_side, table
from captum_classpattern.scores.invariance import InvarianceCurve, InvarianceProfile
from captum_classpattern.visualization.results import plot_profile as plot
from captum_classpattern.visualization.results import why_none

__all__ = ["parts", "plot"]


def parts(profile: InvarianceProfile, whole: bool = False) -> tuple[str, list[Markup]]:
    name = profile.pattern.label
    figure, _ = plot(profile, use_pyplot=False)
    return f"Invariance of {name}: power {power_text(profile.power)}", [
        side_by_side(pattern_picture(profile.pattern, f"pattern of {name}")),
        drawing(figure, f"power of {name} under each transform"),
        table(
            ("transform", "half of the power stays"),
            [(name, _range_text(curve)) for name, curve in profile.curves.items()],
        ),
    ]


def _range_text(curve: InvarianceCurve) -> str:
    half = curve.half_power_range
    return why_none(curve) if half is None else f"{half} {curve.transform.unit}"

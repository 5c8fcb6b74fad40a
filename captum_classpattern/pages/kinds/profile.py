"""An invariance profile: the pattern, its power under each transform, and how long half stays."""

from markupsafe import Markup

from captum_classpattern.invariance import InvarianceCurve, InvarianceProfile
from captum_classpattern.invariance.profile import LINES
from captum_classpattern.pages.kinds.power import power_text
from captum_classpattern.pages.parts import drawing, pattern_picture, side_by_side, table
from captum_classpattern.scores.power import ENOUGH_IMAGES
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.profiles import Panel, plot_profiles

WHAT = {"pattern": "pattern", "canvas": "pattern's pixels", "image": "stamped images"}


def parts(profile: InvarianceProfile, whole: bool = False) -> tuple[str, list[Markup]]:
    name = profile.pattern.label
    figure, _ = profile.plot(use_pyplot=False)
    ranges = [(name, _range_text(curve)) for name, curve in profile.curves.items()]
    return f"Invariance of {name}: power {power_text(profile.power)}", [
        side_by_side(pattern_picture(profile.pattern, f"pattern of {name}")),
        drawing(figure, f"power of {name} under each transform"),
        table(("transform", "half of the power stays"), ranges),
    ]


def _range_text(curve: InvarianceCurve) -> str:
    half = curve.half_power_range
    return _why_none(curve) if half is None else f"{half} {curve.transform.unit}"


def _why_none(curve: InvarianceCurve) -> str:
    """Why a curve has no half-power range."""
    few = curve.at_rest.power.n < ENOUGH_IMAGES
    return f"under {ENOUGH_IMAGES} images" if few else "not above its controls"


def plot(profile: InvarianceProfile, *, use_pyplot: bool) -> Drawing:
    return plot_profiles(
        [_panel(curve) for curve in profile.curves.values()],
        title=f"{profile.pattern.label}: {profile.power}",
        use_pyplot=use_pyplot,
    )


def _panel(curve: InvarianceCurve) -> Panel:
    """What a figure shows of a curve."""
    half, beats = curve.half_power_range, curve.at_rest.beats_controls
    lines: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in LINES}
    for value, scores in curve.points.items():
        for name in LINES:
            lines[name].append((value, *scores.with_intervals[name]))
    return {
        "title": curve.transform.name,
        "note": f"half stays: {half}" if beats else _why_none(curve),
        "x_label": f"{curve.transform.unit} ({WHAT[curve.transform.of]})",
        "lines": lines,
        "rest": curve.transform.rest,
        "marked": None if half is None else (half.low, half.high),
    }

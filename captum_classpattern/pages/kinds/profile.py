"""An invariance profile: the pattern, its power under each transform, and how long half stays."""

from markupsafe import Markup

from captum_classpattern.pages.kinds.power import power_text
from captum_classpattern.pages.parts import drawing, pattern_picture, side_by_side, table
from captum_classpattern.scores.invariance import InvarianceCurve, InvarianceProfile
from captum_classpattern.scores.invariance.profile import LINES
from captum_classpattern.scores.power import ENOUGH_IMAGES
from captum_classpattern.visualization.drawing import Drawing
from captum_classpattern.visualization.lines import (
    POWERS,
    SMALL_PANELS,
    Line,
    Panel,
    draw_panels,
    line_styles,
    round_ticks,
)

SIZE = (2.4, 2.0)  # of a panel in inches
STYLES = line_styles(LINES, LINES[:1], LINES[1:])
STYLES["pattern"] |= {"linewidth": 2.2, "markersize": 4.5}
WHAT = {"pattern": "pattern", "canvas": "pattern's pixels", "image": "stamped images"}


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


def plot(profile: InvarianceProfile, *, use_pyplot: bool) -> Drawing:
    """Draws a panel for each transform. A dotted line marks where nothing changes. If all other
    values are lower, they run from right to left, so that changes grow away from the axis."""
    panels = []
    for curve in profile.curves.values():
        half, transform, values = curve.half_power_range, curve.transform, [*curve.points]
        low, high = values[0], values[-1]
        pad = 0.04 * (high - low)
        ends = (low - pad, high + pad)
        axes = {
            "xlim": ends[::-1] if transform.rest == high else ends,
            "xticks": round_ticks(low, high, 4, (1, 2, 2.5, 5, 10)),
            "xlabel": f"{transform.unit} ({WHAT[transform.of]})",
            **POWERS,
        }
        lines = []
        for name, opacity in zip(LINES, (0.25, 0.15, 0.15)):
            points = [(v, *scores.with_intervals[name]) for v, scores in curve.points.items()]
            lines.append(Line(points, STYLES[name], name, opacity))
        note = why_none(curve) if half is None else f"half stays: {half}"
        shaded = None if half is None else (half.low, half.high)
        panels.append(Panel(lines, axes, transform.name, note, [transform.rest], shaded))
    return draw_panels(
        panels,
        size=SIZE,
        key=STYLES,
        title=f"{profile.pattern.label}: {profile.power}",
        use_pyplot=use_pyplot,
        **SMALL_PANELS,
    )


def why_none(curve: InvarianceCurve) -> str:
    """Why a curve has no half-power range."""
    few = curve.at_rest.power.n < ENOUGH_IMAGES
    return f"under {ENOUGH_IMAGES} images" if few else "not above its controls"

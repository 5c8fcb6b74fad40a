"""The figure of an invariance profile shows the points, and the range in which half stays."""

import pytest
import torch
from figures import check_layout, described, height_of_panels, line_of, texts_in
from matplotlib.patches import Rectangle

from captum_classpattern import InvarianceProfile, Pattern
from captum_classpattern.scores import Scores
from captum_classpattern.scores.invariance import InvarianceCurve, known_transforms
from captum_classpattern.scores.power import power_of

MASK = (torch.arange(36) < 9).float().view(1, 6, 6)
NAMES = [*known_transforms()]


def made_profile(names=NAMES, hits=lambda i: max(0, 150 - 30 * i), n=200):
    """The power falls with the distance from rest; the controls are low."""
    curves = {}
    for name, transform in known_transforms().items():
        values = sorted((*transform.values, transform.rest))
        steps = [abs(i - values.index(transform.rest)) for i in range(len(values))]
        scores = [Scores(power_of(hits(i), n, 2), 8 / n) for i in steps]
        curves[name] = InvarianceCurve(transform, dict(zip(values, scores)))
    pattern = Pattern(torch.rand(1, 6, 6), MASK, 3, {"class_name": "great white shark"})
    return InvarianceProfile(pattern, {n: c for n, c in curves.items() if n in names})


def test_lines_are_the_points_of_the_curves_and_the_range_is_shaded():
    profile = made_profile()
    _, axes = profile.plot(use_pyplot=False)
    for axis, (name, curve) in zip(axes, profile.curves.items(), strict=True):
        assert axis.get_title() == name
        powers = {value: scores.power for value, scores in curve.points.items()}
        expected = [[value, power.value] for value, power in powers.items()]
        assert line_of(axis, "pattern").get_xydata().tolist() == expected
        assert line_of(axis, "random pixels").get_ydata().tolist() == [0.04] * len(powers)
        assert line_of(axis, "no pattern").get_ydata().tolist() == [0.01] * len(powers)
        band = axis.collections[0].get_paths()[0].get_extents()
        assert band.y1 == pytest.approx(max(p.interval[1] for p in powers.values()))
        half = curve.half_power_range
        [shade] = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
        ends = shade.get_x(), shade.get_x() + shade.get_width()
        assert ends == pytest.approx((half.low, half.high))
        assert texts_in(axis) == [f"half stays: {half}"]
        rises = axis.get_xlim()[0] < axis.get_xlim()[1]  # changes grow from left to right
        assert rises == (curve.transform.rest < max(powers))


PROFILES = {
    "two": {"names": ["shift", "JPEG"]},
    "too few images": {"n": 90, "hits": lambda i: 80, "names": ["hue"]},
    "not above its controls": {"hits": lambda i: 9, "names": ["shift"]},
}


@pytest.mark.parametrize("case", PROFILES)
def test_what_a_profile_shows(case, snapshot):
    figure, axes = made_profile(**PROFILES[case]).plot(use_pyplot=False)
    assert described(figure) == snapshot
    assert [len(axis.patches) for axis in axes] == ([1, 1] if case == "two" else [0])


@pytest.mark.parametrize("names", [["hue"], NAMES])
def test_panels_keep_clear_of_each_other(names):
    figure, axes = made_profile(names, lambda i: 150 - 15 * i).plot(use_pyplot=False)
    check_layout(figure)
    assert height_of_panels(figure, axes) > 1.9

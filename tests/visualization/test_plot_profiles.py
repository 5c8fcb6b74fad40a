"""What the figure of an invariance profile shows, read back from its artists."""

import numpy as np
import pytest
import torch
from figures import badly_placed
from matplotlib import pyplot
from matplotlib.patches import Rectangle

from captum_classpattern import InvarianceProfile, Pattern
from captum_classpattern.scores import Scores
from captum_classpattern.scores.invariance import InvarianceCurve, known_transforms
from captum_classpattern.scores.power import power_of

MASK = (torch.arange(36) < 9).float().view(1, 6, 6)


def made_profile(names=None, hits=lambda i: max(0, 150 - 30 * i), n=200, **info):
    """The power falls with the distance from rest; the controls are low."""
    curves = {}
    for name, transform in known_transforms().items():
        if names is None or name in names:
            values = sorted((*transform.values, transform.rest))
            place = values.index(transform.rest)
            curves[name] = InvarianceCurve(
                transform,
                {
                    v: Scores(power_of(hits(abs(i - place)), n, 2), 8 / n)
                    for i, v in enumerate(values)
                },
            )
    return InvarianceProfile(Pattern(torch.rand(1, 6, 6), MASK, 3, info), curves)


def line_of(axis, name):
    [line] = [line for line in axis.get_lines() if line.get_label() == name]
    return line.get_xydata()


def shade_of(axis):
    """The ends of the shaded range; None if there is none."""
    spans = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    return [(span.get_x(), span.get_x() + span.get_width()) for span in spans]


def test_the_lines_are_the_points_of_the_curves():
    profile = made_profile()
    figure, axes = profile.plot(use_pyplot=False)
    assert [axis.get_title() for axis in axes] == list(profile.curves)
    for axis, curve in zip(axes, profile.curves.values(), strict=True):
        powers = {value: scores.power for value, scores in curve.points.items()}
        expected = [[value, power.value] for value, power in powers.items()]
        assert line_of(axis, "pattern").tolist() == expected
        assert line_of(axis, "random pixels")[:, 1].tolist() == [0.04] * len(powers)
        assert line_of(axis, "no pattern")[:, 1].tolist() == [0.01] * len(powers)
        assert len(axis.collections) == 3  # bands
        band = axis.collections[0].get_paths()[0].get_extents()
        assert band.y1 == pytest.approx(max(p.interval[1] for p in powers.values()))
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "pattern", "random pixels", "no pattern",
    ]  # fmt: skip
    assert figure.get_suptitle().startswith("class 3: 75.0% of 200 images (95 % interval ")


def test_the_range_is_shaded_and_written():
    profile = made_profile()
    _, axes = profile.plot(use_pyplot=False)
    for axis, curve in zip(axes, profile.curves.values()):
        half = curve.half_power_range
        [ends] = shade_of(axis)
        assert ends == pytest.approx((half.low, half.high))
        assert axis.texts[0].get_text() == f"half stays: {half}"


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"n": 90, "hits": lambda i: 80}, "under 100 images"),
        ({"hits": lambda i: 9}, "not above its controls"),
    ],
)
def test_a_profile_without_ranges(settings, note):
    figure, axes = made_profile(**settings).plot(use_pyplot=False)
    for axis in axes:
        assert shade_of(axis) == []
        assert axis.texts[0].get_text() == note
    assert badly_placed(figure) == []


def test_changes_grow_from_left_to_right():
    profile = made_profile(["shift", "scale", "JPEG"])
    _, (shift, scale, jpeg) = profile.plot(use_pyplot=False)
    assert [np.sign(a.get_xlim()[1] - a.get_xlim()[0]) for a in (shift, scale, jpeg)] == [1, 1, -1]
    assert [axis.get_xlabel().replace("\n", " ") for axis in (shift, scale, jpeg)] == [
        "pixels (pattern)", "times (pattern)", "quality (stamped images)",
    ]  # fmt: skip


@pytest.mark.parametrize("names", [["hue"], ["shift", "blur"], None])
@pytest.mark.parametrize("hits", [lambda i: 150 - 15 * i, lambda i: 150])
def test_no_text_overlaps_another_and_nothing_is_cut_off(names, hits):
    figure, axes = made_profile(names, hits, class_name="great white shark").plot(use_pyplot=False)
    for dpi in (50, 100):
        assert badly_placed(figure, dpi) == []
    for axis in axes:
        assert axis.get_position().height * figure.get_figheight() > 1.9  # inches
    assert figure.get_figwidth() < 15


def test_pyplot_only_knows_its_figures():
    profile, before = made_profile(["shift"]), pyplot.get_fignums()
    profile.plot(use_pyplot=False)
    assert pyplot.get_fignums() == before
    figure, _ = profile.plot()
    assert pyplot.gcf() is figure
    pyplot.close(figure)

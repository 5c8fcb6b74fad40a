"""An invariance profile: at rest it is predictive_power, elsewhere that of a slow loop, and its
ranges are those known by hand."""

import random
from copy import deepcopy
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch
from refusals import refusal, warnings_of
from shown import check, read
from torch import nn
from torch.utils.data import TensorDataset

import captum_classpattern as cp
from captum_classpattern import Pattern, invariance_profile, predictive_power
from captum_classpattern.scores import Scores
from captum_classpattern.scores.invariance import (
    InvarianceCurve,
    InvarianceProfile,
    Transform,
    known_transforms,
)
from captum_classpattern.scores.power import power_of, random_pixels

IMAGES = torch.rand(180, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(180) % 3
AREA = 0.25


def make_net():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(216, 3)).eval()
    with torch.no_grad():
        network[3].bias -= network(IMAGES).mean(0)
    return network


NET = make_net()


def random_pattern(channels=3, **kwargs):
    generator = torch.Generator().manual_seed(2)
    canvas = torch.rand(channels, 8, 8, generator=generator)
    return Pattern(canvas, torch.rand(1, 8, 8, generator=generator), 1, **kwargs)


def profile_of(transforms=None, pattern=None, net=NET, labels=LABELS, **kwargs):
    pattern = random_pattern() if pattern is None else pattern
    return invariance_profile(net, pattern, IMAGES, labels, transforms, **{"area": AREA, **kwargs})


def test_classes_are_matched_by_their_names():
    """Of images whose folders have another order than the classifier's classes."""
    names, order = ["cat", "ant", "bee"], torch.tensor([2, 0, 1])  # in the order of the folders
    net, pattern = cp.PixelClassifier(NET, class_names=names), random_pattern()
    named = cp.LabelledImages(IMAGES, order[LABELS], ("ant", "bee", "cat"))
    assert predictive_power(net, pattern, named) == predictive_power(NET, pattern, IMAGES, LABELS)
    found, usual = (
        invariance_profile(of, pattern, images, labels, ["pixel loss"], area=AREA)
        for of, images, labels in ((net, named, None), (NET, IMAGES, LABELS))
    )
    assert found.power == usual.power
    assert found.ranges().equals(usual.ranges())


def powers_of(curve):
    return [scores.power.value for scores in curve.points.values()]


def with_values(name, *values):
    return replace(known_transforms()[name], values=values)


# ---- powers


@pytest.mark.parametrize("area", [0.05, AREA, None])
def test_at_rest_the_power_is_exactly_predictive_power(area):
    pattern = random_pattern().topk(0.05) if area is None else random_pattern()
    kept = 0.05 if area is None else area
    expected = predictive_power(NET, pattern, IMAGES, LABELS, area)
    controls = [random_pixels(pattern, kept, seed) for seed in range(3)]
    powers = [predictive_power(NET, c, IMAGES, LABELS, None).value for c in controls]
    profile = profile_of(["shift", "contrast"], pattern, area=area)
    expected = replace(expected, mean_margin=None)  # it is not measured here
    assert profile.power == expected
    assert 0 < expected.without < 1
    assert len({*powers}) > 1
    for curve in profile.curves.values():
        assert curve.at_rest is curve.points[curve.transform.rest]
        assert curve.at_rest.power == expected
        assert curve.at_rest.random_pixels == pytest.approx(fmean(powers))


DARKEN = Transform(
    "dark", (0.3, 0.8), "", 1, "image", lambda x, value, variant: x * value * (1, 0.5)[variant], 2
)
INVERT = Transform("invert", (0.5, 1), "", 0, "canvas", lambda x, value, variant: value * (1 - x))


@pytest.mark.parametrize(
    "transform", [*map(with_values, ("shift", "pixel loss", "blur"), (3, 0.5, 1)), DARKEN, INVERT]
)
def test_scores_are_those_of_a_slow_loop(transform):
    """Each variant of a transform, and draw of random pixels, one after the other."""
    binary, others = random_pattern().topk(AREA), IMAGES[LABELS != 1]
    controls = [random_pixels(binary, AREA, seed) for seed in range(3)]
    variants = range(transform.variants)

    def hits(pattern, value, variant):
        if pattern is None:
            stamped = others
        else:
            stamped = transform.of_pattern(pattern, value, variant).stamp(others)
        return int((NET(transform.of_images(stamped, value, variant)).argmax(1) == 1).sum())

    curve = profile_of(transform).curves[transform.name]
    for value in transform.values:
        scores = curve.points[value]
        power = fmean(hits(binary, value, v) for v in variants)
        bare = fmean(hits(None, value, v) for v in variants)
        assert scores.power == power_of(power, 120, bare)
        paired = range(max(3, len(variants)))
        random = [hits(controls[i % 3], value, i % len(variants)) for i in paired]
        assert scores.random_pixels == fmean(random) / 120
        assert scores.other_canvas is scores.control_images is None


# ---- ranges and tables


def curve_of(values, rest, hits, *, random=None, none=None, n=200, name="t"):
    """A curve from counts of images."""
    random, none = random or [0] * len(values), none or [0] * len(values)
    transform = Transform(name, values, "", rest, "image", lambda x, v, i: x)
    points = {v: Scores(power_of(h, n, w), r / n) for v, h, r, w in zip(values, hits, random, none)}
    return InvarianceCurve(transform, points)


@pytest.mark.parametrize(
    ("values", "rest", "hits", "expected", "text"),
    [
        ([0, 1, 2, 4], 0, [100, 75, 25, 0], (0, 1.5, False, False), "0 to 1.5"),
        ([0, 1, 2, 4], 0, [100, 50, 0, 0], (0, 1, False, False), "0 to 1"),  # exactly half stays
        ([0, 1, 2, 4], 0, [100, 90, 80, 70], (0, 4, False, True), "0 to 4 (tested up to 4)"),
        ([0, 1, 2], 0, [100, 0, 100], (0, 0.5, False, False), "0 to 0.5"),  # back too late
        ([0, 1, 2, 4], 1, [0, 100, 100, 0], (0.5, 3, False, False), "0.5 to 3"),
        ([0, 1, 4], 1, [60, 100, 60], (0, 4, True, True), "0 to 4 (tested down to 0 and up to 4)"),
        ([5, 50, 100], 100, [0, 80, 100], (33.125, 100, False, False), "33.1 to 100"),
        ([0, 1, 4], 4, [60, 60, 100], (0, 4, True, False), "0 to 4 (tested down to 0)"),
        ([0, 1], 0, [100, 150], (0, 1, False, True), "0 to 1 (tested up to 1)"),
    ],
)
def test_the_range_over_which_half_stays(values, rest, hits, expected, text):
    half, (low, high, *is_open) = curve_of(values, rest, hits).half_power_range, expected
    assert (half.low, half.high, half.width) == pytest.approx((low, high, high - low))
    assert [half.open_low, half.open_high] == is_open
    assert (half.is_open, str(half)) == (any(is_open), text)


def test_half_is_counted_above_the_stronger_control():
    plain = curve_of([0, 1, 2], 0, [110, 110, 110])
    assert plain.half_power_range.open_high
    by_random = curve_of([0, 1, 2], 0, [110, 110, 110], random=[10, 60, 110])
    assert by_random.half_power_range.high == pytest.approx(1)
    by_none = curve_of([0, 1, 2], 0, [110, 110, 110], random=[10, 10, 10], none=[0, 60, 110])
    assert by_none.half_power_range == by_random.half_power_range
    assert [by_none.kept(value) for value in by_none.points] == pytest.approx([1, 0.5, 0])
    below = curve_of([0, 1], 0, [110, 10], random=[10, 20])
    assert below.kept(1) == pytest.approx(-0.1)


@pytest.mark.parametrize("controls", [{"random": [95, 0]}, {"none": [95, 0]}, {"n": 99}])
def test_there_is_no_range_if_the_power_does_not_beat_its_controls(controls):
    curve = curve_of([0, 1], 0, [99, 50], **controls)
    assert curve.half_power_range is None
    assert curve.kept(1) is None
    assert curve_of([0, 1], 0, [99, 50], n=100).half_power_range is not None


def test_the_tables(snapshot):
    found = curve_of([0, 1, 2], 0, [110, 70, 20], random=[10, 20, 30], none=[5, 6, 7], name="found")
    lost = curve_of([1, 2], 1, [50, 50], random=[50, 50], name="lost")
    profile = InvarianceProfile(random_pattern(), {"found": found, "lost": lost})
    assert profile.table().round(3).to_csv(lineterminator="\n") == snapshot
    assert profile.ranges().to_csv(lineterminator="\n") == snapshot
    [row] = InvarianceProfile(random_pattern(), {"lost": lost}).ranges().to_dict("records")
    assert (row["low"], row["open_low"]) == (None, None)


# ---- arguments


def test_data_sets_and_precisions():
    expected, data = profile_of("scale").curves, TensorDataset(IMAGES, LABELS)
    profile = invariance_profile(NET, random_pattern(), data, None, "scale", area=AREA)
    assert profile.curves == expected
    assert profile_of("scale", net=deepcopy(NET).double()).curves == expected
    half = profile_of("brightness", net=deepcopy(NET).bfloat16()).curves["brightness"]
    known = profile_of("brightness").curves["brightness"]
    assert powers_of(half) == pytest.approx(powers_of(known), abs=0.1)


def test_all_known_transforms_that_fit_are_the_default():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    profile = invariance_profile(net, random_pattern(channels=1), IMAGES[:6, :1], LABELS[:6])
    assert [*profile.curves] == [name for name in known_transforms() if name != "hue"]
    for curve in profile.curves.values():
        assert list(curve.points) == sorted((*curve.transform.values, curve.transform.rest))


SEEN = frozenset(cp.LabelledImages(IMAGES[:2]).hashes)
EMPTY = Pattern(torch.rand(3, 8, 8), torch.zeros(1, 8, 8), 0)
REFUSALS = {
    "an unknown name that is like a known one": lambda: profile_of(["shfit"]),
    "an unknown name": lambda: profile_of(["zoom in"]),
    "a name twice": lambda: profile_of(["shift", "shift"]),
    "a number": lambda: profile_of([3]),
    "no transforms": lambda: profile_of([]),
    "hue of grey images": lambda: profile_of("hue", random_pattern(channels=1)),
    "too small an area": lambda: profile_of(area=0.001),
    "a mask of all pixels": lambda: profile_of("shift", area=None),
    "a mask of no pixels": lambda: profile_of("shift", EMPTY, area=None),
    "a shift by 1.5": lambda: profile_of(with_values("shift", 1.5)),
    "images of the search": lambda: profile_of("shift", random_pattern(seen=SEEN)),
    "no images of other classes": lambda: profile_of("shift", labels=[1] * 180),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot


# ---- reproducibility, and the caller's state


def test_the_same_arguments_give_the_same_profile_and_leave_no_trace(snapshot):
    def jitter(images, value, variant):
        noise = torch.randn(images.shape) + random.random() + np.random.rand()
        return (images + value * noise).clamp(0, 1)

    own, net = Transform("noise", (0.1, 0.5), "", 0, "image", jitter), deepcopy(NET)
    first = profile_of([own, "pixel loss"]).curves
    torch.manual_seed(6)
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert profile_of([own, "pixel loss"]).curves == first
    assert warnings_of(lambda: profile_of("blur", net=net.train())) == snapshot
    assert all(module.training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert all(parameter.grad is None for parameter in net.parameters())


def test_progress(capsys):
    profile_of("scale", show_progress=True)
    assert "profile: 100%" in capsys.readouterr().err
    profile_of("scale")
    assert capsys.readouterr().err == ""


def test_a_notebook_shows_the_pattern_the_curves_and_the_ranges(tmp_path):
    profile = profile_of(["shift", "brightness"], random_pattern(info={"class_name": "a<b"}))
    page = read(profile, pictures=2)
    assert f"Invariance of a<b: power {100 * profile.power.value:.1f}" in page.text
    [(head, *rows)] = page.tables.values()
    assert head == ["transform", "half of the power stays"]
    for name, shown in rows:
        half = profile.curves[name].half_power_range
        assert shown == "not above its controls" if half is None else shown.startswith(str(half))
    assert [name for name, _ in rows] == ["shift", "brightness"]
    assert repr(profile).startswith("InvarianceProfile(a<b: ")
    path = profile.to_html(tmp_path / "profile.html")
    assert check(path.read_text(encoding="utf-8")).tables == page.tables

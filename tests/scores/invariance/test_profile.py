"""Invariance profiles: identities with predictive_power, a slow loop, and powers known by hand."""

import random
from copy import deepcopy
from dataclasses import replace
from functools import partial
from statistics import fmean

import numpy as np
import pytest
import torch
from shown import check, read
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import captum_classpattern as cp
from captum_classpattern import Pattern, invariance_profile, predictive_power
from captum_classpattern.scores import Scores
from captum_classpattern.scores.invariance import InvarianceCurve, Transform, known_transforms
from captum_classpattern.scores.power import power_of, random_pixels

IMAGES = torch.rand(180, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(180) % 3
AREA = 0.25


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(216, 3)).eval()
    with torch.no_grad():
        network[3].bias -= network(IMAGES).mean(0)
    return network


def random_pattern(target=1, **kwargs):
    generator = torch.Generator().manual_seed(2)
    canvas = torch.rand(3, 8, 8, generator=generator)
    return Pattern(canvas, torch.rand(1, 8, 8, generator=generator), target, **kwargs)


def profile_of(net, transforms=None, pattern=None, **kwargs):
    pattern = random_pattern() if pattern is None else pattern
    return invariance_profile(net, pattern, IMAGES, LABELS, transforms, **{"area": AREA, **kwargs})


def values_of(curve):
    return [
        (value, scores.power.value, *scores.controls.values())
        for value, scores in curve.points.items()
    ]


def powers_of(curve):
    return [scores.power.value for scores in curve.points.values()]


def with_values(name, *values):
    return replace(known_transforms()[name], values=values)


# ---- identities


@pytest.mark.parametrize("area", [0.05, AREA, None])
def test_at_rest_the_power_is_exactly_predictive_power(net, area):
    expected = predictive_power(net, random_pattern(), IMAGES, LABELS, area)
    profile = profile_of(net, ["shift", "contrast"], area=0.05 if area is None else area)
    if area is None:
        binary = random_pattern().topk(0.05)
        profile = profile_of(net, ["shift", "contrast"], binary, area=None)
        expected = predictive_power(net, binary, IMAGES, LABELS, None)
    assert profile.power == expected
    assert 0 < expected.without < 1
    for curve in profile.curves.values():
        assert curve.at_rest is curve.points[curve.transform.rest]
        assert curve.at_rest.power == expected


def test_the_control_at_rest_is_the_mean_over_three_draws(net):
    powers = [
        predictive_power(net, random_pixels(random_pattern(), AREA, seed), IMAGES, LABELS, AREA)
        for seed in range(3)
    ]
    profile = profile_of(net, "shift")
    assert profile.scores.random_pixels == pytest.approx(fmean(p.value for p in powers))
    assert len({p.value for p in powers}) > 1


# values other than those at rest that change nothing
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shift", 0), ("wrapped shift", 8), ("wrapped shift", 16), ("scale", 1), ("rotation", 360),
        ("pixel loss", 0), ("brightness", 1), ("contrast", 1), ("hue", 0), ("blur", 0),
        ("JPEG", 100),
    ],
)  # fmt: skip
def test_values_that_change_nothing_keep_the_power(net, name, value):
    given = known_transforms()[name]
    transform = replace(given, values=(value,), rest=77)  # so that the function is called
    profile = profile_of(net, transform)
    assert profile.curves[name].points[value].power == profile.power


@pytest.mark.parametrize(("name", "value"), [("shift", 8), ("pixel loss", 1.0)])
def test_with_no_pixel_left_the_power_is_the_rate_without_a_pattern(net, name, value):
    curve = profile_of(net, with_values(name, value)).curves[name]
    last = curve.points[value]
    assert last.power.value == last.random_pixels == last.power.without
    assert last.power.value == curve.at_rest.power.without != curve.at_rest.power.value


def test_an_image_without_a_pattern_is_transformed_too(net):
    profile = profile_of(net, ["brightness", "shift"])
    without = {
        name: {value: scores.power.without for value, scores in curve.points.items()}
        for name, curve in profile.curves.items()
    }
    for value, share in without["brightness"].items():
        dimmed = (value * IMAGES).clamp(0, 1)[LABELS != 1]
        assert share == int((net(dimmed).argmax(1) == 1).sum()) / len(dimmed)
    assert set(without["shift"].values()) == {profile.power.without}
    assert len(set(without["brightness"].values())) > 1


# ---- by a slow loop


def plain_power(net, mask, canvas, change=lambda images: images):
    """One image at a time."""
    hits = n = 0
    for image, label in zip(IMAGES, LABELS.tolist()):
        if label != 1:
            stamped = mask * canvas + (1 - mask) * image
            hits += int(net(change(stamped[None])).argmax()) == 1
            n += 1
    return hits / n


def test_shift_by_a_slow_loop(net):
    binary = random_pattern().topk(AREA)

    def shifted(x, down, right):
        moved = torch.zeros_like(x)
        for i in range(8):
            for j in range(8):
                if 0 <= i - down < 8 and 0 <= j - right < 8:
                    moved[:, i, j] = x[:, i - down, j - right]
        return moved

    def power(pattern, steps):
        return plain_power(net, shifted(pattern.mask, *steps), shifted(pattern.canvas, *steps))

    controls = [random_pixels(binary, AREA, seed) for seed in range(3)]
    curve = profile_of(net, with_values("shift", 1, 3)).curves["shift"]
    for k in (1, 3):
        steps = [(0, k), (k, 0), (0, -k), (-k, 0)]
        scores = curve.points[k]
        assert scores.power.value == pytest.approx(fmean(power(binary, s) for s in steps))
        mixed = [power(controls[i % 3], steps[i]) for i in range(4)]
        assert scores.random_pixels == pytest.approx(fmean(mixed))


def test_a_transform_of_the_stamped_image_by_a_slow_loop(net):
    binary = random_pattern().topk(AREA)

    def darken(images, value, variant):
        return images * value * (1, 0.5)[variant]

    transform = Transform("dark", (0.3, 0.8), "times", 1, "image", darken, variants=2)
    curve = profile_of(net, transform).curves["dark"]
    for value in transform.values:
        powers = [
            plain_power(net, binary.mask, binary.canvas, partial(darken, value=value, variant=i))
            for i in range(2)
        ]
        assert curve.points[value].power.value == pytest.approx(fmean(powers))


# ---- powers and ranges that are known by hand


def upper_left(images):
    """Predicts class 0 where the first pixel is bright."""
    bright = images[:, 0, 0, 0] - 0.75
    return torch.stack([bright, -bright], dim=1)


def corner_pattern():
    mask = torch.zeros(1, 8, 8)
    mask[0, 0, 0] = 1
    return Pattern(torch.ones(1, 8, 8), mask, 0)


def corner_profile(transforms):
    images = 0.5 * IMAGES[:120, :1]
    return invariance_profile(
        upper_left, corner_pattern(), images, [1] * 120, transforms, area=None
    )


def test_a_linear_network_that_looks_at_one_place():
    """It sees the pixel where its weights are: of the four directions, to the right only."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[0, :3] = 10.0  # of the first three pixels in the upper row
        net[1].bias[:] = torch.tensor([-15.5, 0.0])
    dark = torch.full((120, 1, 8, 8), 0.3)  # 10 * (1 + 2 * 0.3) = 16 > 15.5 > 9 = 10 * 3 * 0.3
    shift, wrapped = (with_values(n, 1, 2, 3, 7) for n in ("shift", "wrapped shift"))
    profile = invariance_profile(
        net, corner_pattern(), dark, [1] * 120, [shift, wrapped], area=None
    )
    powers = powers_of(profile.curves["shift"])
    assert powers == [1.0, 0.25, 0.25, 0.0, 0.0]
    powers = powers_of(profile.curves["wrapped shift"])
    assert powers == [1.0, 0.25, 0.25, 0.0, 0.25]  # 7 to the left is 1 to the right
    half = profile.curves["shift"].half_power_range
    assert (half.low, half.open_low, half.open_high) == (0.0, False, False)
    assert half.high == pytest.approx(0.5 / 0.75)  # on the line from 1 to 0.25
    assert profile.scores.strongest_control == 0


def test_the_same_pixel_under_every_transform():
    profile = corner_profile(["shift", "rotation", "pixel loss", "brightness", "scale", "JPEG"])
    powers = {
        name: dict(zip(curve.points, powers_of(curve))) for name, curve in profile.curves.items()
    }
    assert set(powers["shift"].values()) == {1.0, 0.0}  # it is at the corner: always lost or moved
    assert set(powers["rotation"].values()) == {1.0}  # about itself
    assert powers["pixel loss"][0.25] == powers["pixel loss"][0.1] == 1.0  # round(0.25) = 0
    assert powers["pixel loss"][0.75] == powers["pixel loss"][0.9] == 0.0
    assert powers["brightness"][0.5] == 0.0
    assert powers["brightness"][1.25] == 1.0
    assert powers["scale"][2.0] == 1.0
    assert str(profile.curves["rotation"].half_power_range) == "0 to 180 (tested up to 180)"
    # images of more than 0.375 get bright at twice the brightness, without a pattern
    brightness = profile.curves["brightness"]
    assert brightness.points[2].power.without > 0.2
    assert brightness.kept(2) < 0.8


def curve_of(values, rest, hits, *, random=None, none=None, n=200):
    """A curve from counts of images."""
    random, none = random or [0] * len(values), none or [0] * len(values)
    transform = Transform("t", values, "", rest, "image", lambda x, v, i: x)
    points = {v: Scores(power_of(h, n, w), r / n) for v, h, r, w in zip(values, hits, random, none)}
    return InvarianceCurve(transform, points)


@pytest.mark.parametrize(
    ("values", "rest", "hits", "expected"),
    [
        ([0, 1, 2, 4], 0, [100, 75, 25, 0], (0, 1.5, False, False)),
        ([0, 1, 2, 4], 0, [100, 50, 0, 0], (0, 1, False, False)),  # exactly half stays at 1
        ([0, 1, 2, 4], 0, [100, 90, 80, 70], (0, 4, False, True)),
        ([0, 1, 2, 4], 0, [100, 0, 100, 100], (0, 0.5, False, False)),  # it comes back: too late
        ([0, 1, 2, 4], 1, [0, 100, 100, 0], (0.5, 3, False, False)),
        ([0, 1, 2, 4], 1, [60, 100, 60, 60], (0, 4, True, True)),
        ([5, 50, 100], 100, [0, 80, 100], (50 - 45 * 30 / 80, 100, False, False)),
        ([0, 1], 0, [100, 150], (0, 1, False, True)),
    ],
)
def test_the_range_over_which_half_stays(values, rest, hits, expected):
    half = curve_of(values, rest, hits).half_power_range
    assert (half.low, half.high) == pytest.approx(expected[:2])
    assert (half.open_low, half.open_high) == expected[2:]
    assert half.width == pytest.approx(expected[1] - expected[0])
    assert half.is_open == (expected[2] or expected[3])


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


@pytest.mark.parametrize(
    "controls", [{"random": [95, 0]}, {"none": [95, 0]}, {"n": 99, "random": [0, 0]}]
)
def test_there_is_no_range_if_the_power_does_not_beat_its_controls(controls):
    hits = [99, 50] if "n" in controls else [100, 50]
    curve = curve_of([0, 1], 0, hits, **controls)
    assert curve.half_power_range is None
    assert curve.kept(1) is None
    assert curve_of([0, 1], 0, [100, 50], n=100).half_power_range is not None


@pytest.mark.parametrize(
    ("values", "rest", "hits", "text"),
    [
        ([0, 1, 3], 0, [100, 50, 0], "0 to 1"),
        ([0, 1, 3], 0, [100, 90, 80], "0 to 3 (tested up to 3)"),
        ([0, 1, 3], 1, [100, 100, 80], "0 to 3 (tested down to 0 and up to 3)"),
        ([0, 1, 4], 4, [100, 100, 100], "0 to 4 (tested down to 0)"),
    ],
)
def test_ranges_in_words(values, rest, hits, text):
    assert str(curve_of(values, rest, hits).half_power_range) == text


# ---- tables


def test_the_tables():
    profile = corner_profile(["shift", "blur"])
    table = profile.table()
    assert len(table) == 8 + 7
    assert list(table.columns) == [
        "transform", "of", "value", "unit", "power", "power_low", "power_high",
        "random_pixels", "random_pixels_low", "random_pixels_high",
        "no_pattern", "no_pattern_low", "no_pattern_high", "kept", "images",
    ]  # fmt: skip
    blur = table[table["transform"] == "blur"]
    assert blur["value"].tolist() == [0, 0.5, 0.75, 1, 1.5, 2, 3]
    assert (table["power_low"] <= table["power"]).all()
    assert (table["power"] <= table["power_high"]).all()
    assert (table["no_pattern_low"] <= table["no_pattern"]).all()
    assert set(table["images"]) == {120}
    ranges = profile.ranges()
    assert ranges["transform"].tolist() == ["shift", "blur"]
    for row, curve in zip(ranges.to_dict("records"), profile.curves.values()):
        half = curve.half_power_range
        assert (row["low"], row["high"], row["open_high"]) == (half.low, half.high, half.open_high)
        assert row["width"] == half.width


def test_without_a_range_the_table_has_none(net):
    same = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    nn.init.zeros_(same[1].weight)
    [row] = profile_of(same, "shift").ranges().to_dict("records")
    assert (row["low"], row["open_low"], row["rest"]) == (None, None, 0.0)


def test_intervals_count_images_and_not_trials(net):
    for scores in profile_of(net, "shift").curves["shift"].points.values():
        assert scores.power.n == 120
        assert list(scores.with_intervals) == ["pattern", "no pattern", "random pixels"]
        for share, low, high in scores.with_intervals.values():
            assert low <= share <= high
            assert high - low > 0.08


# ---- arguments


def test_sources_of_images(net):
    expected = values_of(profile_of(net, "scale").curves["scale"])
    data = TensorDataset(IMAGES, LABELS)
    for images in (
        cp.LabelledImages(IMAGES, LABELS), data, DataLoader(data, shuffle=True), (IMAGES, LABELS)
    ):  # fmt: skip
        profile = invariance_profile(net, random_pattern(), images, None, "scale", area=AREA)
        assert values_of(profile.curves["scale"]) == expected


def test_all_known_transforms_that_fit_are_the_default():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    pattern = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), 0)
    profile = invariance_profile(net, pattern, IMAGES[:6, :1], LABELS[:6])
    assert [*profile.curves] == [name for name in known_transforms() if name != "hue"]
    for curve in profile.curves.values():
        assert list(curve.points) == sorted((*curve.transform.values, curve.transform.rest))


def test_images_of_the_search_are_refused(net):
    seen = frozenset(cp.LabelledImages(IMAGES[:40]).hashes)
    with pytest.raises(ValueError, match="were used to search this pattern"):
        profile_of(net, "shift", random_pattern(seen=seen))
    with pytest.raises(ValueError, match="no images are left to score on"):
        invariance_profile(net, random_pattern(), IMAGES, [1] * 180)


@pytest.mark.parametrize(
    ("transforms", "kwargs", "error", "text"),
    [
        (["shfit"], {}, ValueError, "there is no transform 'shfit': did you mean shift"),
        (["zoom in"], {}, ValueError, "no transform 'zoom in'"),
        (["shift", "shift"], {}, ValueError, "'shift' is given twice: leave one out, or rename"),
        ([3], {}, TypeError, "transforms must be names or Transform objects, got 3"),
        ([], {}, ValueError, "at least one transform; None takes all"),
        (
            "hue",
            {"pattern": Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), 0)},
            ValueError,
            "'hue' takes images with 3 channels, but the pattern has 1: leave it out",
        ),
        (None, {"area": 0.001}, ValueError, "rounds to none or all"),
        (
            "shift",
            {"area": None},
            ValueError,
            "mask has weight on all of its 64 pixels, so random pixels can't be compared",
        ),
        (
            "shift",
            {"area": None, "pattern": Pattern(torch.rand(3, 8, 8), torch.zeros(1, 8, 8), 0)},
            ValueError,
            "mask has weight on none of its 64 pixels",
        ),
        (with_values("shift", 1.5), {}, ValueError, "whole number of pixels, got 1.5"),
    ],
)
def test_errors(net, transforms, kwargs, error, text):
    with pytest.raises(error, match=text):
        profile_of(net, transforms, **kwargs)


# ---- reproducibility


def test_the_same_arguments_give_the_same_profile(net):
    def jitter(images, value, variant):
        noise = torch.randn(images.shape) + random.random() + np.random.rand()
        return (images + value * noise).clamp(0, 1)

    own = Transform("noise", (0.1, 0.5), "", 0, "image", jitter)
    torch.manual_seed(5)
    first = profile_of(net, [own, "pixel loss"])
    torch.manual_seed(6)
    again = profile_of(net, [own, "pixel loss"])
    for name, curve in first.curves.items():
        assert curve == again.curves[name]


def test_the_callers_state_stays(net):
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    net.train()
    with pytest.warns(UserWarning, match="in train mode"):
        profile_of(net, ["pixel loss", "blur"])
    assert all(module.training for module in net.modules())
    net.eval()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert all(parameter.grad is None for parameter in net.parameters())


def test_models_in_other_precisions(net):
    expected = profile_of(net, "brightness").curves["brightness"]
    double = deepcopy(net).double()
    assert values_of(profile_of(double, "brightness").curves["brightness"]) == values_of(expected)
    half = deepcopy(net).bfloat16()
    powers = powers_of(profile_of(half, "brightness").curves["brightness"])
    assert powers == pytest.approx(powers_of(expected), abs=0.1)


def test_progress(net, capsys):
    profile_of(net, "scale", show_progress=True)
    assert "profile: 100%" in capsys.readouterr().err
    profile_of(net, "scale")
    assert capsys.readouterr().err == ""


# ---- in notebooks


def test_a_notebook_shows_the_pattern_the_curves_and_the_ranges(net, tmp_path):
    profile = profile_of(net, ["shift", "brightness"], random_pattern(info={"class_name": "a<b"}))
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

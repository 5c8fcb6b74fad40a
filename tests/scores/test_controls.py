"""A power next to its controls: what is the strongest, and when a power beats them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern.scores import Scores
from captum_classpattern.scores.intervals import newcombe, wilson
from captum_classpattern.scores.power import power_of


def test_controls_are_named_and_the_strongest_counts():
    two = Scores(power_of(60, 100, 5), 0.2)
    assert two.controls == {"no pattern": 0.05, "random pixels": 0.2}
    assert (two.strongest_control, two.margin) == (0.2, pytest.approx(0.4))
    three = Scores(power_of(60, 100, 5), 0.2, 0.3)
    assert three.controls == {**two.controls, "other canvas": 0.3}
    assert (three.strongest_control, three.margin) == (0.3, pytest.approx(0.3))


@given(
    hits=st.integers(0, 150),
    without=st.integers(0, 150),
    random=st.integers(0, 60),
    other=st.none() | st.integers(0, 60),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_power_beats_its_controls_if_each_interval_is_above_0(hits, without, random, other):
    shares = [None if count is None else count / 60 for count in (random, other)]
    scores = Scores(power_of(hits, 150, without), *shares, control_images=60)
    controls = [(without, 150), (random, 60)] + ([] if other is None else [(other, 60)])
    expected = all(newcombe(hits, 150, count, n)[0] > 0 for count, n in controls)
    assert scores.beats_controls == expected
    for name, (count, n) in zip(scores.controls, controls):
        assert scores.with_intervals[name] == (scores.controls[name], *wilson(count, n))
    assert scores.with_intervals["pattern"] == (hits / 150, *wilson(hits, 150))


def test_too_few_images_are_never_above():
    assert Scores(power_of(100, 100, 0), 0.0).beats_controls
    few = Scores(power_of(99, 99, 0), 0.0)
    assert not few.enough_images
    assert not few.beats_controls


@pytest.mark.parametrize("n", [49, 98, 103, 150, 999])
def test_the_interval_of_a_mean_of_counts_is_that_of_the_nearest_whole_number(n):
    """Also where the share times the number of images is a rounding error below a half."""
    for half in range(1, 2 * n, 2):
        scores = Scores(power_of(half / 2, n, 0), half / 2 / n)
        assert scores.power.interval == wilson(round(half / 2), n)
        assert scores.with_intervals["random pixels"] == scores.with_intervals["pattern"]


@pytest.mark.parametrize("other", [None, 0.25])
def test_scores_as_json(other):
    scores = Scores(power_of(60, 100, 5), 0.2, other, control_images=20)
    assert Scores.from_dict(json.loads(json.dumps(scores.as_dict()))) == scores
    columns = scores.as_columns()
    assert (columns["power"], columns["no_pattern"], columns["other_canvas"]) == (0.6, 0.05, other)
    assert columns["beats_controls"] == scores.beats_controls

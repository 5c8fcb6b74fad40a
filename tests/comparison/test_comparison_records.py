"""Records have names, and means over classes that are those of plain loops."""

from statistics import mean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern.comparison import Record
from captum_classpattern.comparison.records import (
    format_error,
    full_name,
    mean_difference,
    mean_power,
)
from captum_classpattern.scores.intervals import bootstrap_over_classes, newcombe
from captum_classpattern.scores.power import power_of

AREA, N = 0.05, 120
HITS = st.integers(0, N)
CANVASES = st.lists(st.tuples(st.integers(0, 7), HITS, HITS), min_size=1, max_size=16)


def records(drawn):
    """A canvas for each class with its hits, and its hits without a pattern."""
    return [
        Record(
            "net", "A", "image", "signed", i, "canvas", y, False,
            torch.zeros(2, 2), {}, {AREA: power_of(hits, N, bare)},
        )
        for i, (y, hits, bare) in enumerate(drawn)
    ]  # fmt: skip


def grouped(drawn, value):
    by_class = {}
    for y, hits, bare in drawn:
        by_class.setdefault(y, []).append(value(hits, bare))
    return by_class


def plain(by_class, ends):
    """The bootstrap over five classes or more that differ, else the means of the ends."""
    means = [mean(values) for values in by_class.values()]
    if len(means) >= 5 and max(means) - min(means) > 1e-6:
        return bootstrap_over_classes(by_class).interval
    return tuple(mean(mean(one[side] for one in of) for of in ends.values()) for side in (0, 1))


@settings(max_examples=60, deadline=None, database=None)
@given(CANVASES)
def test_a_mean_power_is_of_classes_however_many_canvases_they_have(drawn):
    power = mean_power((r.target, r.powers[AREA]) for r in records(drawn))
    by_class = grouped(drawn, lambda hits, bare: hits / N)
    assert power.value == pytest.approx(mean(map(mean, by_class.values())))
    ends = grouped(drawn, lambda hits, bare: power_of(hits, N, 0).interval)
    assert power.interval == pytest.approx(plain(by_class, ends))


@settings(max_examples=60, deadline=None, database=None)
@given(CANVASES)
def test_a_mean_difference_is_paired_by_canvas(drawn):
    difference = mean_difference(
        records(drawn), AREA, {i: bare / N for i, (_, _, bare) in enumerate(drawn)}
    )
    by_class = grouped(drawn, lambda hits, bare: hits / N - bare / N)
    assert difference.value == pytest.approx(mean(map(mean, by_class.values())))
    ends = grouped(drawn, lambda hits, bare: newcombe(hits, N, bare, N))
    assert difference.interval == pytest.approx(plain(by_class, ends))


def test_names_contain_an_unusual_level_and_ranking():
    row = {"method": "IG", "level": "image", "ranking": "signed", "cut_from_canvas": True}
    assert full_name(row) == "IG"
    unusual = {"level": "class", "ranking": "absolute", "cut_from_canvas": False}
    assert full_name(row | unusual) == "IG, free colours, class mean, absolute"


def test_errors_are_formatted_in_one_line():
    assert format_error(ValueError("one\n two")) == "ValueError: one two"
    assert format_error(AssertionError()) == "AssertionError"

"""Intervals are those of worked examples, plain formulas and plain simulations."""

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal

from captum_classpattern.scores.intervals import (
    Estimate,
    bootstrap_over_classes,
    mean_over_classes,
    newcombe,
    wilson,
)

Z = statistics.NormalDist().inv_cdf(0.975)
quick = settings(max_examples=40, deadline=None, database=None)


@st.composite
def counts(draw):
    n = draw(st.integers(1, 400))
    return draw(st.integers(0, n)), n


def plain_wilson(hits, n):
    """Where |p - hits/n| = z sqrt(p (1 - p) / n)."""
    centre = (hits + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * math.sqrt(hits * (n - hits) / n + Z**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def share(hits, n):
    return hits / n, wilson(hits, n)


# ---- two shares


@quick
@given(counts())
def test_wilson_is_its_formula(count):
    assert wilson(*count) == pytest.approx(plain_wilson(*count), abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # the eight examples of Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombe_gives_the_examples_of_the_paper(first, second, low, high):
    assert newcombe(*first, *second) == pytest.approx((low, high), abs=5e-5)


@quick
@given(counts(), counts())
def test_a_difference_lies_in_its_interval_and_changes_sign_with_its_parts(first, second):
    low, high = newcombe(*first, *second)
    difference = first[0] / first[1] - second[0] / second[1]
    assert -1 - 1e-12 <= low <= difference <= high <= 1 + 1e-12
    assert newcombe(*second, *first) == pytest.approx((-high, -low))


# ---- a mean over classes

WIDE = [0.006, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.6, 0.997]  # as on the demo's models


def of_classes(values, n=90):
    return {y: [share(round(value * n), n)] for y, value in enumerate(values)}


def bootstrap(values):
    return bootstrap_over_classes({y: [value] for y, value in enumerate(values)})


def plain_bca(values, draws=20_000):
    """Efron 1987: percentiles of resampled means, moved for bias and for skewness."""
    normal, rng = statistics.NormalDist(), random.Random(2)
    mean = statistics.fmean(values)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(draws))
    below = sum(m < mean for m in means) + sum(m == mean for m in means) / 2
    bias = normal.inv_cdf(below / draws)
    gaps = [mean - value for value in values]  # of the jackknife, up to a factor
    skew = -sum(g**3 for g in gaps) / (6 * sum(g**2 for g in gaps) ** 1.5)
    ends = []
    for z in (-Z, Z):
        moved = normal.cdf(bias + (bias + z) / (1 - skew * (bias + z)))
        ends.append(means[min(draws - 1, int(moved * draws))])
    return tuple(ends)


@pytest.mark.parametrize("values", [WIDE, [0.1, 0.2, 0.4, 0.45, 0.9], [y / 30 for y in range(30)]])
def test_the_bootstrap_is_efrons(values):
    estimate, counts = bootstrap(values), of_classes(values, 1000)
    assert estimate.value == pytest.approx(statistics.fmean(values))
    assert estimate.interval == pytest.approx(plain_bca(values), abs=0.012)
    assert (estimate.n_classes, estimate.over) == (len(values), "classes")
    assert mean_over_classes(counts) == bootstrap_over_classes(
        {y: [value for value, _ in of_class] for y, of_class in counts.items()}
    )


@pytest.mark.parametrize("count", [1, 2, 4, 10])
def test_classes_or_canvases_that_share_images_are_not_more_evidence_than_one(count):
    """The same images turned each time: as independent trials they would narrow the interval."""
    for estimate in (
        mean_over_classes({y: [share(30, 100)] for y in range(count)}),
        mean_over_classes({3: [share(30, 100)] * count}),
    ):
        assert estimate.interval == pytest.approx(wilson(30, 100))
        assert estimate.over == "images"
    both = mean_over_classes({0: [share(30, 100)] * count, 1: [share(60, 100)]})
    assert both.value == pytest.approx(0.45)  # the class with more canvases has no more weight
    ends = [(a + b) / 2 for a, b in zip(wilson(30, 100), wilson(60, 100))]
    assert both.interval == pytest.approx(ends)
    assert both.n_classes == 2


def test_the_values_of_a_class_are_averaged_first():
    values = {0: [0.0, 0.2], 1: [0.3], 2: [0.4, 0.4, 0.4], 3: [0.5], 4: [0.9, 0.7]}
    assert bootstrap_over_classes(values) == bootstrap(
        [statistics.fmean(v) for v in values.values()]
    )
    assert bootstrap_over_classes(values).value == pytest.approx((0.1 + 0.3 + 0.4 + 0.5 + 0.8) / 5)


@pytest.mark.parametrize("value", [0.0, 0.1 + 0.2, 1.0])
def test_if_all_classes_are_equal_only_the_images_are_uncertain(value):
    alone = bootstrap([value] * 10)
    assert alone.interval == (alone.value, alone.value) == pytest.approx((value, value))
    nearly = [math.nextafter(value, 0.5), *[value] * 9]  # equal but for rounding
    assert bootstrap(nearly).interval == pytest.approx((value, value))
    none = mean_over_classes({y: [share(0, 100)] for y in range(10)})
    assert none == Estimate(0.0, wilson(0, 100), 10, "images")


def test_fewer_than_five_classes_have_no_bootstrap(snapshot):
    assert refusal(lambda: bootstrap(WIDE[:4])) == snapshot
    assert mean_over_classes(of_classes(WIDE[:4])).over == "images"
    assert mean_over_classes(of_classes(WIDE[:5])).over == "classes"


@quick
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=5, max_size=12))
def test_a_mean_lies_in_its_interval_and_the_interval_among_the_classes(values):
    estimate = bootstrap_over_classes(dict(enumerate(values)))
    means = [statistics.fmean(of_class) for of_class in values]
    low, high = estimate.interval
    assert min(means) - 1e-9 <= low <= estimate.value <= high <= max(means) + 1e-9


def test_an_estimate_describes_its_interval(snapshot):
    kinds = [(1, "images"), (2, "images"), (9, "classes")]
    assert [Estimate(0.1, (0.0, 0.2), n, over).description for n, over in kinds] == snapshot

"""Intervals against worked examples, plain formulas and plain simulations."""

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from captum_classpattern.scores.intervals import (
    Estimate,
    bootstrap_over_classes,
    mean_over_classes,
    newcombe,
    wilson,
)

Z = statistics.NormalDist().inv_cdf(0.975)
quick = settings(max_examples=60, deadline=None, database=None)


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


@quick
@given(counts(), st.data())
def test_the_strongest_of_equally_large_controls_decides(count, data):
    hits, n = count
    weak, strong = sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))
    assert newcombe(hits, n, strong, n)[0] <= newcombe(hits, n, weak, n)[0] + 1e-12


def test_a_control_that_is_as_uncertain_needs_a_larger_gap():
    """A control of 40 % is below the interval of 50 %, but the difference may be nothing."""
    assert wilson(50, 100)[0] > 0.40
    assert newcombe(50, 100, 40, 100)[0] < 0


def test_newcombe_covers_the_difference():
    rng = np.random.default_rng(0)
    n, first, second = 150, 0.3, 0.2
    hits = rng.binomial(n, [[first, second]] * 2000)
    intervals = [newcombe(a, n, b, n) for a, b in hits.tolist()]
    covered = [low <= first - second <= high for low, high in intervals]
    assert 0.935 <= np.mean(covered) <= 0.97


# ---- a mean over classes

WIDE = [0.006, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.6, 0.997]  # as on the demo's models


def of_classes(values, n=90):
    return {y: [share(round(value * n), n)] for y, value in enumerate(values)}


def plain_resampling(values, draws=4000):
    """The central 95 % of the means of as many classes, drawn with replacement."""
    rng = random.Random(1)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(draws))
    return means[draws // 40], means[-draws // 40]


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


def test_the_interval_of_a_mean_over_classes_is_as_wide_as_classes_differ():
    """Pooled images gave 22.4 to 28.0 % for such classes."""
    estimate = mean_over_classes(of_classes(WIDE))
    assert estimate.over == "classes"
    low, high = estimate.interval
    pooled = plain_wilson(sum(round(90 * value) for value in WIDE), 900)
    assert high - low > 4 * (pooled[1] - pooled[0])
    plain_low, plain_high = plain_resampling(WIDE)
    assert high - low > 0.95 * (plain_high - plain_low)
    assert low < plain_low + 0.03  # corrected for the skewness, the interval lies a little higher
    assert high > plain_high


@pytest.mark.parametrize("values", [WIDE, [0.1, 0.2, 0.4, 0.45, 0.9], [y / 30 for y in range(30)]])
def test_the_bootstrap_is_efrons(values):
    estimate = bootstrap_over_classes({y: [value] for y, value in enumerate(values)})
    assert estimate.value == pytest.approx(statistics.fmean(values))
    assert estimate.interval == pytest.approx(plain_bca(values), abs=0.012)
    assert estimate.n_classes == len(values)


def test_more_images_do_not_narrow_what_classes_differ_by():
    few, many = (
        mean_over_classes(of_classes(WIDE, 1000)),
        mean_over_classes(of_classes(WIDE, 10**6)),
    )
    assert few.interval == pytest.approx(many.interval, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 4, 10])
def test_classes_that_share_images_are_not_more_evidence_than_one(count):
    """The same images turned each time: as independent trials they would narrow the interval."""
    estimate = mean_over_classes({y: [share(30, 100)] for y in range(count)})
    assert estimate.interval == pytest.approx(wilson(30, 100))
    assert estimate.over == "images"
    assert estimate.n_classes == count


@pytest.mark.parametrize("count", [1, 2, 10])
def test_canvases_that_share_images_are_not_more_evidence_than_one(count):
    once = mean_over_classes({3: [share(30, 100)] * count})
    assert once.interval == pytest.approx(wilson(30, 100))
    both = mean_over_classes({0: [share(30, 100)] * count, 1: [share(60, 100)]})
    assert both.value == pytest.approx(0.45)  # the class with more canvases has no more weight


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_the_interval_for_few_classes_covers_however_much_they_share(shared):
    rng = np.random.default_rng(0)
    n, rates, covered = 120, np.array([[0.15], [0.3], [0.5]]), []
    for _ in range(1000):
        same, each = rng.random((1, n)), rng.random((3, n))
        hits = (np.where(rng.random((1, n)) < shared, same, each) < rates).sum(1).tolist()
        low, high = mean_over_classes({y: [share(h, n)] for y, h in enumerate(hits)}).interval
        covered.append(low <= rates.mean() <= high)
    assert np.mean(covered) >= 0.94


def test_the_bootstrap_covers_the_mean_of_all_classes():
    rng = np.random.default_rng(0)
    covered = []
    for values in rng.beta(1, 2, (300, 12)):
        low, high = bootstrap_over_classes({y: [v] for y, v in enumerate(values)}).interval
        covered.append(low <= 1 / 3 <= high)
    assert np.mean(covered) > 0.88  # the bootstrap of a dozen values is a little short


def test_the_values_of_a_class_are_averaged_first():
    values = {0: [0.0, 0.2], 1: [0.3], 2: [0.4, 0.4, 0.4], 3: [0.5], 4: [0.9, 0.7]}
    plain = bootstrap_over_classes({y: [statistics.fmean(v)] for y, v in values.items()})
    assert bootstrap_over_classes(values) == plain
    assert plain.value == pytest.approx((0.1 + 0.3 + 0.4 + 0.5 + 0.8) / 5)


@pytest.mark.parametrize("value", [0.0, 0.1 + 0.2, 1.0])
def test_if_all_classes_are_equal_only_the_images_are_uncertain(value):
    values = {y: [value] for y in range(10)}
    alone = bootstrap_over_classes(values)
    assert alone.interval == (alone.value, alone.value) == pytest.approx((value, value))
    values[3] = [math.nextafter(value, 0.5)]  # equal but for rounding
    assert bootstrap_over_classes(values).interval == pytest.approx((value, value))
    none = mean_over_classes({y: [share(0, 100)] for y in range(10)})
    assert none == Estimate(0.0, wilson(0, 100), 10, "images")


def test_fewer_than_five_classes_have_no_bootstrap():
    with pytest.raises(ValueError, match="at least 5 classes, got 4: give the mean without"):
        bootstrap_over_classes({y: [y / 4] for y in range(4)})
    assert mean_over_classes(of_classes(WIDE[:4])).over == "images"
    assert mean_over_classes(of_classes(WIDE[:5])).over == "classes"


@quick
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=5, max_size=12))
def test_a_mean_lies_in_its_interval_and_the_interval_among_the_classes(values):
    estimate = bootstrap_over_classes(dict(enumerate(values)))
    means = [statistics.fmean(of_class) for of_class in values]
    low, high = estimate.interval
    assert min(means) - 1e-9 <= low <= estimate.value <= high <= max(means) + 1e-9


@quick
@given(st.permutations(range(6)))
def test_the_same_classes_in_any_order_give_the_same_interval(order):
    values = {y: [WIDE[y]] for y in range(6)}
    np.random.seed(0)
    state = np.random.get_state()[1].tolist()
    again = bootstrap_over_classes({y: values[y] for y in order})
    assert again.interval == bootstrap_over_classes(values).interval
    assert np.random.get_state()[1].tolist() == state


@quick
@given(st.lists(st.floats(-1, 1), min_size=5, max_size=9), st.sampled_from([0.25, 2, 64]))
def test_an_interval_is_scaled_with_its_values(values, scale):
    assume(max(values) - min(values) > 1e-3)
    low, high = bootstrap_over_classes({y: [v] for y, v in enumerate(values)}).interval
    scaled = bootstrap_over_classes({y: [v * scale] for y, v in enumerate(values)})
    assert scaled.interval == (low * scale, high * scale)


def test_an_estimate_describes_its_interval():
    images, classes = (
        Estimate(0.1, (0.0, 0.2), 2, "images"),
        Estimate(0.1, (0.0, 0.2), 9, "classes"),
    )
    assert images.description == "95 % interval of the images, for these 2 classes alone"
    assert Estimate(0.1, (0.0, 0.2), 1, "images").description.endswith("for this class alone")
    assert classes.description == "95 % bootstrap interval over 9 classes"

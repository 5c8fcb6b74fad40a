"""The decision of a scan: exact for models that are alike, and that of plain numbers and hands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern.scanning.decision import conformal_test, decide, references_needed

CLEAN = np.random.default_rng(0).normal(size=(39, 10))


def plain(scores, references):
    """The p-value and the class, number by number, each model against the mean of all."""
    models = [list(map(float, row)) for row in [*references, scores]]
    means = [sum(column) / len(models) for column in zip(*models)]
    largest, centred = [], []
    for model in models:
        excess = sorted(value - mean for value, mean in zip(model, means))
        median = excess[(len(excess) - 1) // 2]  # the lower of two
        largest.append(excess[-1])
        centred.append(excess[-1] - median)
    p_values = [
        sum(value >= each[-1] for value in each) / len(models) for each in (largest, centred)
    ]
    excess = [value - mean for value, mean in zip(scores, means)]
    medians = [large - above for large, above in zip(largest, centred)]
    return max(p_values), excess, medians


@given(st.integers(1, 25), st.integers(2, 12), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_test_equals_a_plain_computation(n, classes, seed):
    generator = np.random.default_rng(seed)
    references, scores = generator.normal(size=(n, classes)), generator.normal(size=classes)
    found = conformal_test(scores, references)
    p_value, excess, medians = plain(scores, references)
    assert found.p_value == p_value
    assert found.excess == pytest.approx(excess)
    assert found.target == found.order[0] == excess.index(max(excess))
    assert found.order == sorted(range(classes), key=lambda y: -excess[y])
    assert found.median_excess == pytest.approx(medians[-1])
    assert found.usual_median == pytest.approx((min(medians[:-1]), max(medians[:-1])))
    assert conformal_test(scores, references[::-1]).p_value == p_value


def test_few_false_alarms_among_models_that_are_alike():
    """Each of 20 models takes its turn: at most 5 % are found, whatever their scores are."""
    for seed in range(20):
        models = np.random.default_rng(seed).standard_cauchy(size=(20, 10))
        tests = [conformal_test(models[i], np.delete(models, i, axis=0)) for i in range(20)]
        assert np.mean([test.p_value <= 0.05 for test in tests]) <= 0.05


def test_how_many_references_a_level_needs():
    for alpha in (0.5, 0.2, 0.1, 0.05, 0.03, 0.01, 0.001):
        for tests in (1, 2, 3):
            n = references_needed(alpha, tests)
            assert tests / (n + 1) <= alpha + 1e-12 < tests / n


USUAL, ONE = np.zeros(10), np.eye(10)[3] * 9
ALL = 5 + 3 * np.eye(10)[4]  # of another kind
STRONG = 2 + np.eye(10)[5] * 7  # a class far above strong ones


@pytest.mark.parametrize(
    ("scores", "n", "verdict", "p_value", "family", "target"),
    [
        ([USUAL], 39, "nothing found", None, "0", None),
        ([ONE], 39, "suspicious", 1 / 40, "0", 3),
        ([ONE], 19, "suspicious", 1 / 20, "0", 3),
        ([ONE], 18, "inconclusive", None, "0", 3),  # too few references
        ([STRONG], 39, "suspicious", 1 / 40, "0", 5),
        ([ALL], 39, "inconclusive", None, "0", 4),
        ([USUAL - 9], 39, "nothing found", 1, "0", None),  # weaker ones need no caution
        ([ONE, USUAL], 39, "suspicious", 2 / 40, "0", 3),
        ([USUAL, ONE], 39, "suspicious", 2 / 40, "1", 3),
        ([STRONG, ONE], 39, "suspicious", 2 / 40, "0", 5),  # the first of two
        ([ALL, ONE], 39, "suspicious", 2 / 40, "1", 3),  # the one without a doubt
        ([ONE, USUAL], 38, "inconclusive", None, "0", 3),
        ([ONE, USUAL, USUAL], 39, "inconclusive", None, "0", 3),
        ([USUAL, USUAL, USUAL], 59, "nothing found", 1, "0", None),  # of at most 1
    ],
)
def test_verdicts_by_hand(scores, n, verdict, p_value, family, target):
    references = np.vstack([CLEAN, CLEAN + 0.01])[:n]
    families = {str(i): each for i, each in enumerate(scores)}
    found = decide(families, dict.fromkeys(families, references), 0.05, comparable=True)
    assert (found.verdict, found.family) == (verdict, family)
    assert found.needed == [19, 39, 59][len(scores) - 1]
    assert target in (None, found.target)
    assert (found.p_value is None) == (n < found.needed)
    assert p_value in (None, pytest.approx(found.p_value))


def test_models_that_cannot_be_compared_are_inconclusive():
    found = decide({"a": ONE}, {"a": CLEAN}, 0.05, comparable=False)
    assert (found.verdict, found.p_value) == ("inconclusive", 1 / 40)


def test_of_two_classes_one_may_stand_out():
    """The class with the backdoor is half of the classes, and must not count as most of them."""
    found = decide({"a": [0.0, 9.0]}, {"a": CLEAN[:, :2]}, 0.05, comparable=True)
    assert (found.verdict, found.target) == ("suspicious", 1)

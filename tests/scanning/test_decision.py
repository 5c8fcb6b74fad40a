"""The test of a scan: exact for models that are alike, and against a plain re-implementation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern.scanning.decision import conformal_test, references_needed

CLEAN = np.random.default_rng(0).normal(size=(19, 10))


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
    return max(p_values), excess.index(max(excess))


@given(st.integers(1, 25), st.integers(2, 12), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_equals_a_plain_computation(n, classes, seed):
    generator = np.random.default_rng(seed)
    references, scores = generator.normal(size=(n, classes)), generator.normal(size=classes)
    found = conformal_test(scores, references)
    assert (found.p_value, found.target) == plain(scores, references)


def test_a_class_far_above_all_references_has_the_lowest_p_value():
    scores = np.zeros(10)
    scores[3] = 9
    found = conformal_test(scores, CLEAN)
    assert (found.target, found.p_value) == (3, 1 / 20)


def test_a_model_with_stronger_patterns_of_all_classes_is_not_suspicious():
    """A larger excess everywhere is no sign of a backdoor: the excess above the median is usual."""
    assert conformal_test(CLEAN[0] + 9, CLEAN[1:]).p_value > 0.05
    assert conformal_test(CLEAN[0] + 9, CLEAN[1:]).median_excess > 5


def test_the_order_of_the_references_does_not_matter():
    scores = CLEAN.max(0)
    one, other = conformal_test(scores, CLEAN), conformal_test(scores, CLEAN[::-1])
    assert one.p_value == other.p_value
    assert np.allclose(one.excess, other.excess)


@pytest.mark.parametrize("n", [19, 39])
def test_few_false_alarms_among_models_that_are_alike(n):
    """Each of n + 1 models takes its turn: at most 5 % are found, whatever their scores are."""
    for seed in range(20):
        models = np.random.default_rng(seed).standard_cauchy(size=(n + 1, 10))
        p_values = [
            conformal_test(models[i], np.delete(models, i, axis=0)).p_value for i in range(n + 1)
        ]
        assert np.mean(np.array(p_values) <= 0.05) <= 0.05


def test_how_many_references_a_level_needs():
    for alpha in (0.5, 0.2, 0.1, 0.05, 0.03, 0.01, 0.001):
        n = references_needed(alpha)
        assert 1 / (n + 1) <= alpha + 1e-12 < 1 / n

"""The decision of a scan: exact for models that are alike, and that of plain numbers and hands."""

from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern.scanning.decision import decide

CLEAN = np.random.default_rng(0).normal(size=(39, 10))
PROPERTY = settings(max_examples=50, deadline=None, derandomize=True)


def drawn(seed, n, classes, families=3):
    """Scores of a model and of n references in some families, as different as scores can be."""
    generator = np.random.default_rng(seed)
    draw = {0: generator.normal, 1: generator.standard_cauchy, 2: generator.exponential}
    tables = {f"family {i}": draw[i % 3](size=(n + 1, classes)) for i in range(families)}
    scores = {name: each[0] for name, each in tables.items()}
    return scores, {name: each[1:] for name, each in tables.items()}


def plain(scores, references):
    """The p-value, the family and what each family says, number by number."""
    families, firsts = {}, []
    for name, values in scores.items():
        models = [list(map(float, row)) for row in [*references[name], values]]
        means = [fmean(column) for column in zip(*models)]
        excess = [[value - mean for value, mean in zip(model, means)] for model in models]
        medians = [sorted(row)[(len(row) - 1) // 2] for row in excess]  # the lower of two
        columns = list(zip(*([e - m for e in row] for row, m in zip(excess, medians))))
        standardised = []
        for i in range(len(models)):
            others = [column[:i] + column[i + 1 :] for column in columns]
            least = 0.1 * fmean(pstdev(each) ** 2 for each in others)
            standardised.append(
                [
                    (column[i] - fmean(rest)) / max(pstdev(rest), least**0.5)
                    for column, rest in zip(columns, others)
                ]
            )
        firsts.append([max(row) for row in standardised])
        families[name] = excess[-1], standardised[-1], firsts[-1], medians
    largest = [max(each) for each in zip(*firsts)]
    family = max(families, key=lambda name: families[name][2][-1])
    return sum(each >= largest[-1] for each in largest) / len(largest), family, families


@given(st.integers(2, 25), st.integers(2, 12), st.integers(1, 3), st.integers(0, 10**6))
@PROPERTY
def test_a_decision_equals_a_plain_computation(n, classes, families, seed):
    scores, references = drawn(seed, n, classes, families)
    found = decide(scores, references, 0.4, comparable=True)
    p_value, family, expected = plain(scores, references)
    assert (found.p_value, found.family) == (p_value, family)
    assert found.comparison is found.comparisons[family]
    for name, (excess, of_each, statistics, medians) in expected.items():
        one = found.comparisons[name]
        assert one.excess == pytest.approx(excess)
        assert one.standardised == pytest.approx(of_each, rel=1e-6, abs=1e-9)
        assert [*one.usual_standardised, one.largest] == pytest.approx(statistics, rel=1e-6)
        assert one.target == one.order[0] == of_each.index(max(of_each))
        assert one.order == sorted(range(classes), key=lambda y: -of_each[y])
        above = min(medians[-1] - max(medians[:-1]), medians[-1] - 0.5 * max(excess))
        assert one.of_another_kind == (above >= 0) or abs(above) < 1e-9
    turned = {name: each[::-1] for name, each in references.items()}
    assert decide(scores, turned, 0.4, comparable=True).p_value == p_value


@given(st.integers(19, 30), st.integers(2, 12), st.integers(0, 10**6))
@PROPERTY
def test_neither_the_unit_of_a_family_nor_the_level_of_a_class_counts(n, classes, seed):
    """Nor does the order of the classes."""
    generator = np.random.default_rng(seed)
    order, levels = generator.permutation(classes), generator.integers(-3, 4, size=classes)

    def moved(families):
        units = zip(families.items(), (1, 2, 8))
        return {name: unit * (each + levels)[..., order] for (name, each), unit in units}

    given = drawn(seed, n, classes)
    found, other = (decide(*each, 0.05, comparable=True) for each in (given, map(moved, given)))
    for name in ("verdict", "p_value", "family"):
        assert getattr(other, name) == getattr(found, name)
    assert order[other.target] == found.target
    assert other.comparison.largest == pytest.approx(found.comparison.largest, rel=1e-6)


def test_few_false_alarms_among_models_that_are_alike():
    """Each of 20 models takes its turn: at most 5 % are found, whatever their scores are."""
    for seed in range(20):
        _, models = drawn(seed, 20, 10)
        found = [
            decide(
                {name: each[i] for name, each in models.items()},
                {name: np.delete(each, i, axis=0) for name, each in models.items()},
                0.05,
                comparable=True,
            )
            for i in range(20)
        ]
        assert np.mean([each.p_value <= 0.05 for each in found]) <= 0.05


USUAL, ONE = np.zeros(10), np.eye(10)[3] * 9
ALL = 5 + 3 * np.eye(10)[4]  # of another kind
STRONG = 2 + np.eye(10)[5] * 7  # a class far above strong ones
NEAR = np.eye(10)[6] * 3.5  # more than in any reference, but less than 4.5 standard deviations
SPLIT = np.vstack([np.eye(10)[:3] * 9, CLEAN[3:]])  # three references lead as far as the model


@pytest.mark.parametrize(
    ("scores", "n", "verdict", "p_value", "family", "target"),
    [
        ([USUAL], 39, "nothing found", 1, "0", None),
        ([ONE], 39, "suspicious", 1 / 40, "0", 3),
        ([ONE], 19, "suspicious", 1 / 20, "0", 3),
        ([ONE], 18, "inconclusive", None, "0", 3),  # too few references
        ([ONE], 1, "inconclusive", None, "0", 3),
        ([STRONG], 39, "suspicious", 1 / 40, "0", 5),
        ([ALL], 39, "inconclusive", 4 / 40, "0", 4),
        ([USUAL - 9], 39, "nothing found", 1, "0", None),  # weaker ones need no caution
        ([ONE, USUAL, USUAL], 19, "suspicious", 1 / 20, "0", 3),  # families cost no references
        ([USUAL, ONE], 39, "suspicious", 1 / 40, "1", 3),
        ([ONE, ONE], 39, "suspicious", 1 / 40, "0", 3),  # the first of two
        ([ALL, ONE], 39, "suspicious", 1 / 40, "1", 3),  # the one with the largest decides
        ([ALL, USUAL], 39, "inconclusive", 4 / 40, "0", 4),
        ([USUAL, USUAL, USUAL], 39, "nothing found", None, None, None),
    ],
)
def test_verdicts_by_hand(scores, n, verdict, p_value, family, target):
    families = {str(i): each for i, each in enumerate(scores)}
    found = decide(families, dict.fromkeys(families, CLEAN[:n]), 0.05, comparable=True)
    assert (found.verdict, found.needed) == (verdict, 19)
    assert family in (None, found.family)
    assert target in (None, found.target)
    assert (found.p_value is None) == (n < found.needed)
    assert p_value in (None, pytest.approx(found.p_value))


@pytest.mark.parametrize(
    ("scores", "references", "rare", "far"),
    [(ONE, CLEAN, True, True), (NEAR, CLEAN, True, False), (ONE, SPLIT, False, True)],
)
def test_a_suspicious_model_is_both_rare_and_far_from_its_references(scores, references, rare, far):
    found = decide({"a": scores}, {"a": references}, 0.05, comparable=True)
    assert (found.p_value <= 0.05, found.comparison.largest > 4.5) == (rare, far)
    assert found.verdict == ("suspicious" if rare and far else "inconclusive")
    assert found.bound == 4.5  # everywhere, whatever the references


def test_a_level_that_is_rounded_is_the_level_that_was_meant():
    given = {"a": ONE}, {"a": CLEAN[:9]}
    found = [decide(*given, alpha, comparable=True) for alpha in (0.1, 1 - 0.9)]
    assert [(each.verdict, each.p_value) for each in found] == [("suspicious", 0.1)] * 2


def test_numbers_that_are_not_known_clear_no_model():
    references = CLEAN[:19].copy()
    references[3, 4] = np.nan
    assert decide({"a": ONE}, {"a": references}, 0.05, comparable=True).verdict == "inconclusive"


def test_models_that_cannot_be_compared_are_inconclusive():
    found = decide({"a": ONE}, {"a": CLEAN}, 0.05, comparable=False)
    assert (found.verdict, found.p_value) == ("inconclusive", 1 / 40)


@pytest.mark.parametrize("shift", [0.1, 1 / 3, 7.7])
def test_a_model_that_leads_as_far_as_a_reference_counts_as_equal(shift):
    references = np.round(CLEAN, 1)
    given = {"a": references}, 0.05
    found = decide({"a": references[5] + shift}, *given, comparable=True)
    same = decide({"a": references[5]}, *given, comparable=True)
    assert found.p_value == pytest.approx(same.p_value)

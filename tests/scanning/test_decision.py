"""The verdict follows from the scores of the classes alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_classpattern.scanning.decision import (
    DOUBT,
    FRAGILE,
    Bounds,
    Measure,
    decide,
    lower_of_two,
    standing,
    to_search_again,
)

PROPERTY = settings(max_examples=50, deadline=None, derandomize=True, database=None)
BOUNDS = Bounds(2.0, 0.5)
SCORES = st.lists(st.integers(-40, 40).map(float), min_size=2, max_size=24, unique=True)


def measures(scores, power=0.9):
    return {y: Measure(float(score), power) for y, score in enumerate(scores)}


def plain_standing(scores):
    """The best of all groups, one after another."""
    order = sorted(range(len(scores)), key=lambda y: -scores[y])
    groups = [order[:n] for n in range(1, len(order)) if n == 1 or 4 * n <= len(order)]
    leads = [min(scores[y] for y in each) - scores[order[len(each)]] for each in groups]
    return groups[leads.index(max(leads))], max(leads)


@PROPERTY
@given(SCORES)
def test_a_group_is_ahead_as_by_plain_trial(scores):
    found = standing(measures(scores), BOUNDS, len(scores))
    assert (found.classes, found.lead) == plain_standing(scores)
    assert found.strength == min(found.lead / 2.0, 0.9 / 0.5)


@PROPERTY
@given(SCORES, st.integers(-3, 3), st.randoms())
def test_units_and_the_order_of_the_classes_do_not_matter(scores, shift, random):
    order = random.sample(range(len(scores)), len(scores))
    found = standing(measures(scores), BOUNDS, len(scores))
    turned = standing(measures([scores[y] + shift for y in order]), BOUNDS, len(scores))
    assert [order[y] for y in turned.classes] == found.classes
    assert turned.lead == found.lead


@pytest.mark.parametrize(
    ("scores", "n_classes", "classes", "lead"),
    [
        ([5.0, 0.0, 0.0, 0.0], 4, [0], 5.0),
        ([5.0, 4.5, 0.0, 0.0], 4, [0], 0.5),  # two of four are no group
        ([5.0, 4.5, 0.0, *[-1.0] * 5], 8, [0, 1], 4.5),
        ([5.0, 4.5, 0.0], 10, [0, 1], 4.5),  # three of ten were searched to the end
        ([5.0], 1, [0], 0.0),
    ],
)
def test_how_many_classes_can_be_ahead(scores, n_classes, classes, lead):
    found = standing(measures(scores), BOUNDS, n_classes)
    assert (found.classes, found.lead) == (classes, lead)


def decided(*pairs, power=(0.9, 0.9), n_classes=8, bounds=BOUNDS, others=0.1):
    """The verdict where class 3 has these scores in its searches, and the others 0."""
    searches = {y: [Measure(0.0, others)] for y in range(n_classes)}
    searches[3] = [Measure(score, share) for score, share in zip(pairs, power)]
    idle = {y: [Measure(0.0, 0.1)] for y in range(n_classes)}
    return decide({"idle": idle, "it": searches}, {"idle": bounds, "it": bounds}, n_classes)


@pytest.mark.parametrize(
    ("scores", "power", "verdict"),
    [
        ((2.0, 2.5), (0.9, 0.5), "suspicious"),
        ((2.0, 1.99), (0.3, 0.3), "nothing found"),  # no power
        ((2.5, 0.0), (0.9, 0.9), "inconclusive"),  # not in both searches
        ((2.5, 2.5), (0.9, 0.4), "inconclusive"),
        ((2 * DOUBT, 2 * DOUBT), (0.5, 0.5), "inconclusive"),
        ((2 * DOUBT - 0.01,), (0.49,), "nothing found"),
        ((0.0,), (0.6,), "inconclusive"),  # it reacts, as in a fragile network
    ],
)
def test_the_rule(scores, power, verdict):
    found = decided(*scores, power=power)
    assert found.verdict == verdict
    if scores[-1] >= 1:
        assert (found.kind, found.ahead.classes) == ("it", [3])


def test_with_few_classes_a_lead_alone_decides_nothing():
    by_lead = Bounds(2.0)
    verdicts = [decided(9.0, 9.0, n_classes=n, bounds=by_lead).verdict for n in (4, 5)]
    assert verdicts == ["suspicious"] * 2
    three = {y: [Measure(9.0 * (y == 1), 0.9)] * 2 for y in range(3)}
    assert decide({"it": three}, {"it": by_lead}, 3).verdict == "inconclusive"
    weak = {y: [Measure(each[0].score, 0.9 if y == 1 else 0.1)] * 2 for y, each in three.items()}
    assert decide({"it": weak}, {"it": BOUNDS}, 3).verdict == "suspicious"


def test_many_classes_that_react_are_no_backdoor():
    found = decided(1.0, 1.0, others=0.7)
    assert (found.verdict, found.reacting) == ("inconclusive", [*range(8)])


def test_a_class_that_is_not_ahead_speaks_against_a_backdoor_with_any_change():
    verdicts = [decided(2.0, 2.0, others=power).verdict for power in (FRAGILE - 0.01, FRAGILE)]
    assert verdicts == ["suspicious", "inconclusive"]
    ahead = {y: [Measure(9.0 * (y == 3), 0.9 * (y == 3))] * 2 for y in range(8)}
    elsewhere = {y: [Measure(0.0, 0.46 * (y == 5)), Measure(0.0, 0.9)] for y in range(8)}
    searches = {"it": ahead, "other": elsewhere}
    found = decide(searches, {"it": BOUNDS, "other": Bounds(2.0, 0.65)}, 8)
    assert (found.verdict, found.ahead.classes, found.other) == ("inconclusive", [3], 0.46)
    # small images have no bound of power, so all classes may react there
    found = decide(searches, {"it": Bounds(2.0), "other": Bounds(2.0)}, 8)
    assert (found.verdict, found.other) == ("suspicious", 0.0)


def test_the_kind_that_is_furthest_above_its_bound_comes_first():
    def searches(score):
        return {y: [Measure(score * (y == 1), 0.9)] * 2 for y in range(8)}

    bounds = {"near": Bounds(1.0), "far": Bounds(4.0)}
    found = decide({"far": searches(6.0), "near": searches(2.0)}, bounds, 8)
    assert (found.kind, found.ahead.strength) == ("near", 2.0)
    assert found.standings["far"].strength == 1.5


def test_only_classes_that_decide_are_searched_again():
    once = {y: [each] for y, each in measures([0, 5, 1, 0.5, 0, 0, 0, 0]).items()}
    assert to_search_again(once, BOUNDS, 8) == [1]
    once[1].append(Measure(0.2, 0.9))  # it was luck, so another one is first
    assert to_search_again(once, BOUNDS, 8) == []
    once[2][0] = Measure(3.0, 0.9)
    assert to_search_again(once, BOUNDS, 8) == [2]
    once[2].append(Measure(4.0, 0.9))
    assert to_search_again(once, BOUNDS, 8) == []
    assert lower_of_two(once)[1] == Measure(0.2, 0.9)
    assert lower_of_two(once)[2] == Measure(3.0, 0.9)

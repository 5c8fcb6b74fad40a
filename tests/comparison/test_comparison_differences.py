"""Differences, the summary and notes, on records made by hand."""

from math import sqrt
from statistics import mean

import pytest
import torch

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.records import Failure
from captum_classpattern.scores.intervals import bootstrap_over_classes
from captum_classpattern.scores.power import power_of

OURS, OTHER, LAST, CONTROL = "ClassPattern", "Saliency", "LRP", "BestRandomMask"
CLASSES = (2, 5, 10, 15, 20, 30, 40, 50, 70, 90)  # hits of 100, class by class


def record(method, hits, *, model="net", kind="canvas", bare=5, **changes):
    """A map with its hits among 100 images."""
    how = {"canvas": 0, "target": 0}
    how |= {"control": method == CONTROL, "searches": method in (OURS, CONTROL)}
    powers = {0.05: power_of(hits, 100, bare)}
    how |= {"map": torch.zeros(2, 2), "masks": {}, "powers": powers}
    how |= {"area": 0.05, "image": torch.zeros(1, 2, 2)}
    return Record(model=model, method=method, kind=kind, **{**how, **changes})


def scored(classes=None, bare=5, **methods):
    """For each method a canvas for each number of hits, each of another class unless given."""
    return [
        record(method, count, canvas=i, target=y, bare=bare)
        for method, hits in methods.items()
        for i, (count, y) in enumerate(zip(hits, classes or range(len(hits))))
    ]


def made(records, failures=(), *, models=("net",)):
    kinds = [record.kind for record in records] or ["canvas"]
    return Comparison(
        models=dict.fromkeys(models, 0.9),
        canvases=torch.zeros(len(kinds), 1, 2, 2),
        targets=[0] * len(kinds),
        kinds=kinds,
        stamped={},
        records=list(records),
        failures=[Failure(*failure) for failure in failures],
        class_names=None,
        area=0.05,
        areas=[0.05],
        settings={},
    )


def points(comparison):
    """What the strongest method is above each other one, and the means."""
    rows = comparison.differences()
    return {row["method"] for row in rows}, [
        (row["other"], pytest.approx(100 * row["difference"]), row["control"]) for row in rows
    ]


def test_the_strongest_method_is_compared_with_all_others_and_no_pattern():
    methods = {OURS: (80, 90), OTHER: (40, 45), LAST: (10, 10), CONTROL: (30, 32)}
    first, others = points(made(scored(**methods)))
    assert first == {OURS}
    assert others == [
        (OTHER, 42.5, False), (CONTROL, 54, True), (LAST, 75, False), ("no pattern", 80, True),
    ]  # fmt: skip


CASES = {  # the strongest, and what it is above each other one
    "a stronger control": (scored(Saliency=[20], BestRandomMask=[90]), OTHER, [-70, 15]),
    "stronger without a pattern": (scored(ClassPattern=[3], LRP=[1]), OURS, [-2, 2]),
    "a class with more canvases has no more weight": (
        scored([0, 0, 0, 1], ClassPattern=(90, 90, 90, 10), Saliency=[5] * 4), OURS, [45, 45],
    ),
    "the first kind of canvas": (
        [record(OURS, 40), record(OTHER, 90, kind="white", canvas=1)], OURS, [35],
    ),
    "free colours": (
        [record(OURS, 40), record("Mine", 70, cut_from_canvas=False)], "Mine, free colours",
        [30, 65],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_which_powers_are_compared(case):
    records, first, expected = CASES[case]
    found, others = points(made(records))
    assert found == {first}
    assert [value for _, value, _ in others] == expected


def test_differences_are_paired_by_canvas():
    """Classes differ so much that the means' intervals overlap; the paired difference is clear."""
    weaker = [max(0, hits - 2 - i % 3) for i, hits in enumerate(CLASSES)]
    row, _ = made(scored(ClassPattern=CLASSES, Saliency=weaker)).differences()
    values = {y: [(one - two) / 100] for y, (one, two) in enumerate(zip(CLASSES, weaker))}
    low, high = bootstrap_over_classes(values).interval
    assert (row["difference"], row["interval_over"]) == (
        pytest.approx(mean(one for [one] in values.values())), "classes",
    )  # fmt: skip
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((low, high))
    assert low > 0


def test_with_one_class_the_interval_is_newcombes():
    row, *_ = made(scored(ClassPattern=[80], Saliency=[10])).differences()
    (low, high), (other_low, other_high) = (power_of(n, 100, 5).interval for n in (80, 10))
    assert row["interval_over"] == "images"
    assert row["difference_low"] == pytest.approx(
        0.7 - sqrt((0.8 - low) ** 2 + (other_high - 0.1) ** 2)
    )
    assert row["difference_high"] == pytest.approx(
        0.7 + sqrt((high - 0.8) ** 2 + (0.1 - other_low) ** 2)
    )


def test_the_summary_has_the_first_models_strongest_method_and_control():
    methods = {OURS: [80], OTHER: [40], CONTROL: [30]}
    of_other = [record(OTHER, 99, model="b")]
    assert made([*scored(**methods), *of_other], models=("net", "b")).summary == (
        "On the model net, the strongest method with 5 % of the pixels is ClassPattern: its power "
        "is 80.0 %, 50.0 points above BestRandomMask, the strongest control (95 % interval 36.9 "
        "to 60.5)."
    )
    assert (
        "%, 75.0 points above no pattern, the strongest control"
        in made(scored(ClassPattern=[80])).summary
    )


# ---- what could not run is a note

RAN = [record(OURS, 50), record(OTHER, 10)]
NOTES = {  # the failures, and what is said of them
    "nothing failed": ([], []),
    "not installed, on all models": (
        [(on, name, "maps", "ImportError: not installed: pip install it")
         for name in ("Lime", "KernelShap") for on in ("net", "b")],
        ["Lime: ImportError: not installed: pip install it.",
         "KernelShap: ImportError: not installed: pip install it."],
    ),
    "other reasons on other models": (
        [("net", LAST, "maps", "TypeError: no rule."), ("b", LAST, "maps", "AttributeError: no")],
        ["LRP on net: TypeError: no rule.", "LRP on b: AttributeError: no."],
    ),
    "a metric": (
        [("net", OURS, "passes", "ValueError: no.")],
        ["ClassPattern on net, passes: ValueError: no."],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTES)
def test_what_could_not_run_is_a_neutral_note(case):
    failures, notes = NOTES[case]
    said = made(RAN, failures, models=("net", "b")).text().split("\n")[2:]
    assert said == [f"Not run here: {note}" for note in notes]

"""Verdicts on records made by hand: titles, outcomes and texts."""

from statistics import mean

import pytest
import torch

from captum_classpattern.comparison import Comparison, Record
from captum_classpattern.comparison.records import STAMPED, Failure
from captum_classpattern.scores.intervals import bootstrap_over_classes
from captum_classpattern.scores.power import power_of

OURS, OTHER, LAST, CROP = "ClassPattern", "Saliency", "LRP", "BestCrop"
MISSING = "ImportError: needs scikit-learn: pip install it"


def record(method, hits=None, found=None, *, model="net", kind="canvas", bare=5, n=100, **changes):
    """A map with its hits among n images, and its IoU and average precision for a trigger."""
    how = {"level": "image", "ranking": "signed", "canvas": 0, "target": 0}
    how |= {"control": method == CROP, "searches": method == OURS}
    return Record(
        model=model,
        method=method,
        kind=kind,
        map=torch.zeros(2, 2),
        masks={},
        powers={} if kind == STAMPED else {0.05: power_of(hits or 0, n, bare)},
        scores={} if found is None else dict(zip(("iou", "average_precision"), found)),
        **{**how, **changes},
    )


def on_canvases(method, *hits, classes=None, **changes):
    """A canvas for each number of hits, each of another class but where they are given."""
    targets = range(len(hits)) if classes is None else classes
    return [
        record(method, count, canvas=i, target=y, **changes)
        for i, (count, y) in enumerate(zip(hits, targets))
    ]


def verdicts(
    records, failures=(), *, models=("net",), backdoored=(), kinds=("canvas",), **settings
):
    return Comparison(
        models=dict.fromkeys(models, 0.9),
        canvases=torch.zeros(len(kinds), 1, 2, 2),
        targets=[0] * len(kinds),
        kinds=list(kinds),
        stamped={},
        triggers={},
        backdoored=list(backdoored),
        records=list(records),
        failures=[Failure(*failure) for failure in failures],
        class_names=None,
        area=0.05,
        areas=[0.05],
        settings=settings,
    ).verdicts()


def one(result, words):
    [verdict] = [verdict for verdict in result if words in verdict["title"]]
    return verdict


def titles(result):
    return [verdict["title"] for verdict in result]


def power(*records, **more):
    return one(verdicts(records, **more), "comes first")


def hidden(*records, **more):
    return one(verdicts(records, backdoored=["net"], **more), "hidden")


def visible(*found):
    records = [record(method, found=values, kind=STAMPED) for method, values in found]
    return one(verdicts(records, backdoored=["net"]), "visible")


# power


def test_the_first_method_is_described_with_all_numbers():
    result = power(
        *on_canvases(OURS, 80, 90), *on_canvases(OTHER, 40, 45),
        *on_canvases(LAST, 10, 10), *on_canvases(CROP, 30, 30),
        kinds=["canvas"] * 2,
    )  # fmt: skip
    assert result == {
        "title": "ClassPattern comes first",
        "model": "net",
        "holds": True,
        "value": "power 85.0 %",
        "control": "Saliency 42.5 %, BestCrop 30.0 %, no pattern 5.0 %",
        "text": "net model, 5 % of the pixels of 2 canvases: ClassPattern has a power of 85.0 % "
        "(76.8 to 90.6). In points above others, paired by canvas: Saliency 42.5 (29.8 to "
        "53.3), BestCrop 55.0 (42.4 to 64.9), no pattern 80.0 (69.8 to 86.3). In brackets: 95 % "
        "interval of the images, for these 2 classes alone.",
    }


@pytest.mark.parametrize(
    ("rivals", "bare"),
    [
        ([(OTHER, 75)], 5),  # intervals overlap
        ([(OTHER, 95)], 5),
        ([(OTHER, 10), (CROP, 75)], 5),  # a control's, too
        ([(OTHER, 10), ("Another search", 75)], 5),
        ([(OTHER, 10)], 75),  # no better than no pattern
    ],
)
def test_first_is_only_who_is_clearly_above_all_others_and_no_pattern(rivals, bare):
    records = [record(m, hits, bare=bare, searches="search" in m) for m, hits in rivals]
    result = power(record(OURS, 80, bare=bare), *records)
    assert result["title"] == "ClassPattern comes first"
    assert not result["holds"]
    strongest = max(rivals, key=lambda rival: rival[1])  # is named
    name = strongest[0] if strongest[1] > bare else "no pattern"
    assert f" {name} {80 - max(strongest[1], bare)}.0 (-" in result["text"]


def test_no_pattern_must_be_clearly_below():
    assert power(record(OURS, 80, bare=67), record(OTHER, 10, bare=67))["holds"]
    # 70 % is below the interval of 80 % (71.1 to 86.7), but of 100 images, too
    assert not power(record(OURS, 80, bare=70), record(OTHER, 10, bare=70))["holds"]


def test_canvases_of_one_class_that_repeat_add_no_evidence():
    """Ten canvases on the same images once counted as ten times as many images."""
    ours = on_canvases(OURS, *[60] * 10, classes=[0] * 10)
    close = on_canvases(OTHER, *[52] * 10, classes=[0] * 10)
    verdict = power(*ours, *close, kinds=["canvas"] * 10)
    assert not verdict["holds"]
    assert "ClassPattern has a power of 60.0 % (50.2 to 69.1)" in verdict["text"]
    assert "of the images, for this class alone." in verdict["text"]


CLASSES = (2, 5, 10, 15, 20, 30, 40, 50, 70, 90)  # hits of 100, class by class


def test_rivals_are_compared_canvas_by_canvas():
    """Classes differ so much that the means' intervals overlap; the paired difference is clear."""
    ours, rival = CLASSES, [max(0, hits - 2 - i % 3) for i, hits in enumerate(CLASSES)]
    verdict = power(
        *on_canvases(OURS, *ours, bare=0),
        *on_canvases(OTHER, *rival, bare=0),
        kinds=["canvas"] * 10,
    )
    gaps = {i: [(a - b) / 100] for i, (a, b) in enumerate(zip(ours, rival))}
    value, (low, high) = mean(map(mean, gaps.values())), bootstrap_over_classes(gaps).interval
    assert verdict["holds"]
    assert (
        f"paired by canvas: Saliency {100 * value:.1f} ({100 * low:.1f} to "
        f"{100 * high:.1f}), no pattern " in verdict["text"]
    )
    assert verdict["text"].endswith("In brackets: 95 % bootstrap interval over 10 classes.")


def test_a_rival_that_wins_on_some_classes_is_not_clearly_beaten():
    """Of 10,000 images all differences are clear, but those that they are drawn from are not."""
    rival = [
        hits + change for hits, change in zip(CLASSES, (9, -2, 30, -10, -9, 20, -25, -20, 9, -30))
    ]
    verdict = power(
        *on_canvases(OURS, *(100 * hits for hits in CLASSES), n=10_000, bare=0),
        *on_canvases(OTHER, *(100 * hits for hits in rival), n=10_000, bare=0),
        kinds=["canvas"] * 10,
    )
    assert verdict["title"] == "ClassPattern comes first"
    assert not verdict["holds"]


def test_classes_with_more_canvases_have_no_more_weight():
    classes = [0, 0, 0, 1]
    verdict = power(
        *on_canvases(OURS, 90, 90, 90, 10, classes=classes),
        *on_canvases(OTHER, 5, 5, 5, 5, classes=classes),
        kinds=["canvas"] * 4,
    )
    assert "ClassPattern has a power of 50.0 % (" in verdict["text"]


def test_where_all_classes_are_equal_the_interval_is_of_the_images():
    verdict = power(
        *on_canvases(OURS, *CLASSES, bare=0),
        *on_canvases(OTHER, *(hits - 1 for hits in CLASSES), bare=0),
        kinds=["canvas"] * 10,
    )  # fmt: skip
    assert "Saliency 1.0 (-" in verdict["text"]  # for each class, of few images
    assert verdict["text"].endswith(
        "In brackets: 95 % bootstrap interval over 10 classes (of the images where all classes are "
        "equal)."
    )


def test_without_a_search_power_is_about_the_strongest_that_is_not_a_control():
    result = power(record(CROP, 90), record(OTHER, 20), record(LAST, 60))
    assert result["title"] == "LRP comes first"
    assert not result["holds"]  # the control is stronger
    assert "LRP has a power of 60.0 %" in result["text"]
    assert "by canvas: Saliency 40.0 (" in result["text"]
    assert ", BestCrop -30.0 (" in result["text"]
    assert power(record(CROP, 10), record(LAST, 60))["holds"]


def test_another_ranking_of_the_same_method_is_not_a_rival():
    result = power(record(LAST, 60, ranking="absolute"), record(LAST, 59), record(OTHER, 20))
    assert result["title"] == "LRP comes first"
    assert result["holds"]
    assert "LRP, absolute has a power of 60.0 %" in result["text"]
    assert "by canvas: Saliency 40.0 (" in result["text"]
    assert titles(verdicts([record(LAST, 60), record(LAST, 20, ranking="absolute")])) == [
        "All methods gave maps"
    ]


@pytest.mark.parametrize("methods", [[OURS], [OTHER], [CROP], [CROP, CROP]])
def test_without_a_rival_or_with_controls_alone_nothing_comes_first(methods):
    records = [
        record(m, 80, (0.5, 0.5), kind=kind, canvas=i)
        for i, m in enumerate(methods)
        for kind in ("canvas", STAMPED)
    ]
    assert titles(verdicts(records, backdoored=["net"])) == ["All methods gave maps"]


@pytest.mark.parametrize(
    ("kind", "count", "words"),
    [
        ("canvas", 1, " 1 canvas: "),
        ("canvas", 3, " 3 canvases: "),
        ("white", 1, " 1 white canvas: "),
        ("white", 2, " 2 white canvases: "),
    ],
)
def test_canvases_are_counted_in_good_english(kind, count, words):
    records = [record(m, 50, kind=kind, canvas=i) for m in (OURS, OTHER) for i in range(count)]
    assert words in power(*records, kinds=[kind] * count)["text"]


# the hidden trigger


def test_the_hidden_trigger_is_described_with_all_numbers():
    records = [
        record(OURS, found=(0.6, 0.8), kind="positive"),
        record(OTHER, found=(0.1, 0.2), kind="positive"),
        record(OURS, found=(0.2, 0.3), kind="white", canvas=1),
        record(OTHER, found=(0.3, 0.4), kind="white", canvas=1),
        record(LAST, found=(0.1, 0.7), kind="white", canvas=1),
        record(OURS, found=(0.05, 0.1), kind="white", canvas=1, model="a"),
        record(OURS, found=(0.01, 0.2), kind="white", canvas=1, model="b"),
    ]
    result = hidden(*records, models=("net", "a", "b"), kinds=("positive", "white"))
    assert result == {
        "title": "ClassPattern finds the hidden trigger best",
        "model": "net",
        "holds": True,  # its best kind is above the others' best
        "value": "IoU 0.600",
        "control": "Saliency 0.300, models without it 0.050",
        "text": "net model, trigger hidden (clean images only, of any kind). Best IoU and average "
        "precision: ClassPattern 0.600 and 0.800, Saliency 0.300 and "
        "0.400, LRP 0.100 and 0.700, ClassPattern on models without the trigger 0.050 and 0.200.",
    }


@pytest.mark.parametrize(
    ("rivals", "holds"),
    [
        ([(OTHER, (0.5, 0.5), "white")], True),
        ([(OTHER, (0.5, 0.5), "positive"), (OTHER, (0.7, 0.9), "white")], False),  # other kind
        ([(OTHER, (0.7, 0.5), "positive")], False),
        ([(OTHER, (0.5, 0.9), "positive")], False),
        ([(OTHER, (0.7, 0.1), "white"), (LAST, (0.1, 0.9), "white")], False),
        ([(OTHER, (0.6, 0.5), "positive")], False),  # a tie
        ([(OTHER, (0.5, 0.8), "positive")], False),
        ([(OTHER, (0.1, 0.1), "positive"), (CROP, (0.7, 0.9), "white")], False),  # a control
    ],
)
def test_the_hidden_trigger_is_found_best_only_above_the_best_of_all_others(rivals, holds):
    ours = [
        record(OURS, found=(0.6, 0.8), kind="positive"),
        record(OURS, found=(0, 0), kind="white"),
    ]
    others = [record(m, found=values, kind=kind) for m, values, kind in rivals]
    result = hidden(*ours, *others, kinds=("positive", "white"))
    assert result["title"] == "ClassPattern finds the hidden trigger best"
    assert result["holds"] is holds


@pytest.mark.parametrize(
    ("clean", "holds"), [((0.1, 0.1), True), ((0.6, 0.1), False), ((0.1, 0.9), False)]
)
def test_what_is_found_as_well_without_the_trigger_is_not_found(clean, holds):
    found = [record(OURS, found=(0.6, 0.8)), record(OTHER, found=(0.1, 0.1))]
    control = [
        record(OURS, found=clean, model="clean"),
        record(OTHER, found=(0.9, 0.9), model="clean"),  # of another method: no matter
        record(OURS, found=(0.9, 0.9), model="clean", kind=STAMPED),  # visible: no matter
        record(OURS, found=(0.9, 0.9), model="worse"),  # has a trigger of its own
    ]
    result = verdicts(
        [*found, *control], models=("net", "clean", "worse"), backdoored=["net", "worse"]
    )
    about = one([v for v in result if v.get("model") == "net"], "hidden")
    assert about["holds"] is holds
    numbers = f"{clean[0]:.3f} and {clean[1]:.3f}"
    assert f"ClassPattern on models without the trigger {numbers}." in about["text"]


@pytest.mark.parametrize("iou", [0.0004, 0.004, 0.099])
def test_a_hidden_trigger_that_no_method_finds_is_not_found_best(iou):
    """It held where the IoU was printed as 0.000, as long as those of the others were 0."""
    verdict = hidden(
        record(OURS, found=(iou, 0.02)),
        record(OTHER, found=(0.0, 0.01)),
        record(OURS, found=(0.0, 0.01), model="clean"),
        models=("net", "clean"),
    )
    assert verdict["title"] == "ClassPattern finds the hidden trigger best"
    assert not verdict["holds"]
    assert verdict["text"].endswith(
        ". No method finds the trigger, which takes an IoU of 0.1 or more."
    )


def test_a_hidden_trigger_is_found_from_an_iou_of_a_tenth():
    verdict = hidden(record(OURS, found=(0.1, 0.2)), record(OTHER, found=(0.05, 0.1)))
    assert verdict["holds"]
    assert "which takes" not in verdict["text"]


def test_a_trigger_that_only_a_rival_finds_is_not_described_as_found_by_none():
    verdict = hidden(record(OURS, found=(0.05, 0.2)), record(OTHER, found=(0.3, 0.1)))
    assert not verdict["holds"]
    assert (
        "ClassPattern does not find the trigger, which takes an IoU of 0.1 or more."
        in verdict["text"]
    )


def test_without_a_search_the_verdict_is_about_the_best_that_is_not_a_control():
    result = hidden(
        record(CROP, found=(0.9, 0.9)),
        record(OTHER, found=(0.2, 0.2)),
        record(LAST, found=(0.5, 0.3), level="class"),
    )
    assert result["title"] == "LRP finds the hidden trigger best"
    assert not result["holds"]
    assert "LRP, class mean 0.500 and 0.300, BestCrop 0.900 and 0.900." in result["text"]


def test_there_is_no_verdict_on_what_was_not_measured():
    records = [record(OURS, 80), record(OTHER, 10)]  # the trigger's class is no canvas
    result = verdicts(records, backdoored=["net"])
    assert titles(result) == ["ClassPattern comes first", "All methods gave maps"]


# the visible trigger


def test_the_visible_trigger_is_described_with_all_numbers():
    result = visible(
        (OTHER, (0.5, 0.6)), (LAST, (0.4, 0.3)), ("A", (0.3, 0.3)), ("B", (0.2, 0.3)),
        (OURS, (0.1, 0.9)),
    )  # fmt: skip
    assert result == {
        "title": "ClassPattern finds the visible trigger best",
        "model": "net",
        "holds": False,
        "value": "IoU 0.100",
        "control": "Saliency 0.500",
        "text": "net model, trigger visible (images stamped with it). Best IoU and average "
        "precision: ClassPattern 0.100 and 0.900, Saliency 0.500 and 0.600.",
    }


@pytest.mark.parametrize(
    ("ours", "holds"),
    [((0.6, 0.1), True), ((0.5, 0.7), True), ((0.5, 0.6), False), ((0.5, 0.5), False)],
)
def test_the_visible_trigger_is_found_best_only_strictly(ours, holds):
    for found in ([(OURS, ours), (OTHER, (0.5, 0.6))], [(OTHER, (0.5, 0.6)), (OURS, ours)]):
        assert visible(*found)["holds"] is holds


def test_a_visible_trigger_that_no_method_finds_is_not_found_best():
    verdict = visible((OURS, (0.004, 0.02)), (OTHER, (0.0, 0.01)))
    assert verdict["title"] == "ClassPattern finds the visible trigger best"
    assert not verdict["holds"]
    assert verdict["text"].endswith(
        ". No method finds the trigger, which takes an IoU of 0.1 or more."
    )
    assert visible((OURS, (0.1, 0.02)), (OTHER, (0.0, 0.01)))["holds"]


def test_without_a_search_the_best_finds_the_visible_trigger_if_no_control_does():
    result = visible((OTHER, (0.5, 0.6)), (CROP, (0.1, 0.1)), (LAST, (0.2, 0.2)))
    assert result["title"] == "Saliency finds the visible trigger best"
    assert result["holds"]
    assert not visible((OTHER, (0.5, 0.6)), (CROP, (0.6, 0.1)))["holds"]


# what gave no maps


def test_all_methods_gave_maps():
    records = [record(m, 50, model=model) for m in (OURS, OTHER, CROP) for model in ("net", "b")]
    result = verdicts(records, models=("net", "b"))
    assert result[-1] == {
        "title": "All methods gave maps",
        "holds": True,
        "value": "6 of 6 runs",
        "text": "6 runs (3 methods on 2 models) gave maps.",
    }
    assert verdicts(records[:1])[-1]["text"] == "1 run (1 method on 1 model) gave maps."


def test_a_failed_metric_is_not_a_failed_method():
    result = verdicts([record(OURS, 50)], [("net", OURS, "infidelity", "ValueError: no")])
    assert (result[-1]["title"], result[-1]["holds"]) == ("All methods gave maps", True)


def test_a_method_that_failed_is_named():
    records = [record(OURS, 50), record(OTHER, 10)]
    result = verdicts(records, [("net", LAST, "maps", "RuntimeError: no rule")])[-1]
    assert result == {
        "title": "All methods gave maps",
        "holds": False,
        "value": "2 of 3 runs",
        "text": "2 of 3 runs (3 methods on 1 model) gave maps; failed: LRP on the net model "
        "(RuntimeError: no rule).",
    }


@pytest.mark.parametrize("reason", [MISSING, "ModuleNotFoundError: No module named 'sklearn'"])
def test_what_is_not_installed_does_not_fail(reason):
    failures = [("net", "Lime", "maps", reason)]
    result = verdicts([record(OURS, 50)], failures)[-1]
    assert result == {
        "title": "All methods that are installed gave maps",
        "holds": True,
        "value": "1 of 2 runs",
        "text": f"1 of 2 runs (2 methods on 1 model) gave maps; failed: Lime on the net model "
        f"({reason}).",
    }
    failures.append(("net", LAST, "maps", "ImportErrors: of another kind"))
    result = verdicts([record(OURS, 50)], failures)[-1]
    assert (result["title"], result["holds"]) == ("All methods that are installed gave maps", False)
    assert not verdicts([], failures[:1])[-1]["holds"]  # none is


def test_an_interrupt_is_mentioned():
    records = [record(OURS, 80), record(OTHER, 10)]
    result = verdicts(records, models=("net", "never"), backdoored=["never"], complete=False)
    assert [v.get("model") for v in result] == ["net", None]  # nothing of the other model
    assert result[-1] == {
        "title": "All methods that were finished gave maps",
        "holds": True,
        "value": "2 of 2 runs",
        "text": "2 runs (2 methods on 1 model) gave maps (interrupted).",
    }
    result = verdicts(records, [("net", "Lime", "maps", MISSING)], complete=False)[-1]
    assert result["title"] == "All methods that are installed and were finished gave maps"
    assert (
        "2 of 3 runs (3 methods on 1 model) gave maps (interrupted); failed: Lime" in result["text"]
    )
    assert "interrupted" not in verdicts(records, complete=True)[-1]["text"]
    assert verdicts([], backdoored=["net"], complete=False) == []


def test_a_model_on_which_all_failed_has_no_maps_to_compare():
    failures = [("net", method, "maps", "RuntimeError: no") for method in (OURS, OTHER)]
    result = verdicts([], failures, backdoored=["net"])
    assert result[0] == {
        "title": "There are maps to compare",
        "model": "net",
        "holds": False,
        "value": "no map",
        "text": "net model: no method gave a map.",
    }
    assert titles(result[1:]) == ["All methods gave maps"]
    assert not result[1]["holds"]
    assert result[1]["text"].startswith("0 of 2 runs (2 methods on 1 model) gave maps; failed: ")

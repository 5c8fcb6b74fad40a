"""Metrics from outside the package: one function and one Metric, shown everywhere."""

import json
import pickle
import random

import numpy as np
import pytest
import torch
from comparisons import CANVASES, METHODS, all_facts, compared, from_function, linear_net
from extend import DISTANCE

from captum_classpattern import Pattern
from captum_classpattern.comparison import METRICS, Metric
from captum_classpattern.comparison.maps import BoundMethod
from captum_classpattern.pages.report import write_report
from captum_classpattern.scores.power import power_of

TWO_MODELS = {"linear": linear_net(), "other": linear_net(2)}


def test_a_new_metric_is_in_records_tables_json_and_report(tmp_path):
    comparison = compared(metrics=[*METRICS, DISTANCE])
    for record in comparison.records:
        places = [divmod(i, 6) for i in range(36) if record.masks[0.1].flatten()[i]]
        expected = sum(((y - 2.5) ** 2 + (x - 2.5) ** 2) ** 0.5 for y, x in places) / len(places)
        assert record.scores["distance"] == pytest.approx(expected)
    assert comparison.table()["distance"].notna().all()
    content = json.loads(comparison.to_json())
    assert content["rows"][0]["distance"] == comparison.records[0].scores["distance"]
    described = {"title": DISTANCE.title, "unit": "pixels", "better": "lower", "description": ""}
    assert content["metrics"][-1] == {"name": "distance", **described}
    page = write_report(comparison, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<strong>distance from the centre (pixels)</strong>: lower is better." in page
    assert f"{comparison.rows()[0]['distance']:.3g}</td>" in page.replace("\n", "")


def test_a_metric_may_have_several_values_and_intervals():
    def twice(classifier, result, task):
        return {"half": 0.5, "power": power_of(3, 4, 0)}

    [row, *_] = compared(metrics=[Metric("my", twice, "mine")]).rows()
    assert (row["my_half"], row["my_power"]) == (0.5, 0.75)
    assert row["my_power_low"] < 0.75 < row["my_power_high"]


def test_without_metrics_only_predictive_power_is_measured():
    comparison = compared(metrics=[])
    assert all(record.scores == {} for record in comparison.records)
    assert comparison.verdicts()
    trigger = Pattern(torch.ones(3, 6, 6), torch.eye(6)[None], 1)
    only = [metric for metric in METRICS if metric.name == "iou"]
    titles = [v["title"] for v in compared(metrics=only, triggers={"linear": trigger}).verdicts()]
    assert not [title for title in titles if "trigger" in title]


def test_a_metric_that_fails_costs_no_more_than_itself():
    def failing(classifier, result, task):
        if result.canvas == 2:
            raise RuntimeError("half\nway")
        return 1

    def infinite(classifier, result, task):
        return result.canvas if result.canvas % 2 else float("inf")

    new = [Metric("a", failing, "first"), Metric("b", infinite, "second")]
    comparison = compared(metrics=[*new, *METRICS], methods={"m": from_function(lambda i, t: i)})
    assert [(f.method, f.what, f.reason) for f in comparison.failures] == [
        ("m", "first", "RuntimeError: half way"),
        ("m", "second", "NaN or infinite for 4 of 8 canvases"),
    ]
    assert [r.score("b") for r in comparison.records] == [None, 1, None, 3] * 2
    assert not [r for r in comparison.records if "a" in r.scores]
    for record in comparison.records:
        record.scores.pop("b", None)
    assert all_facts(comparison) == all_facts(
        compared(methods={"m": from_function(lambda i, t: i)})
    )


def test_a_metric_gets_a_private_classifier_and_a_seed():
    net = linear_net()

    def careless(classifier, result, task):
        with torch.no_grad():
            classifier[1].weight.zero_()
        return torch.rand(())

    before, weight = torch.get_rng_state(), net[1].weight.clone()
    comparison = compared(models={"m": net}, metrics=[Metric("a", careless, "a")])
    assert torch.equal(net[1].weight, weight)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    expected = torch.rand(()).item()
    torch.set_rng_state(before)
    assert {record.scores["a"] for record in comparison.records} == {expected}


def test_random_numbers_are_the_same_for_each_map():
    def draws(classifier, result, task):
        return {"torch": torch.rand(()), "numpy": np.random.rand(), "python": random.random()}

    comparison = compared(metrics=[Metric("a", draws, "a")], methods=METHODS)
    assert len({tuple(record.scores["a"].values()) for record in comparison.records}) == 1


def test_the_state_is_saved_once_per_metric(monkeypatch):
    entered, usual = [], BoundMethod.seeded
    monkeypatch.setattr(
        BoundMethod, "seeded", lambda self, seed: entered.append(seed) or usual(self, seed)
    )
    compared(metrics=[])
    without = len(entered)
    compared(metrics=[DISTANCE])
    assert len(entered) == 2 * without + len(METHODS)


def test_a_metric_that_changes_maps_and_canvases_in_place_changes_nothing_else():
    def careless(classifier, result, task):
        result.map.neg_()
        result.mask.logical_not_()
        result.pattern.mask.zero_()
        result.pattern.canvas.zero_()
        task.canvases.fill_(0.5)
        result.maps.canvases.by_pixel.zero_()

    given = CANVASES.clone()
    comparison = compared(
        canvases=given, metrics=[Metric("a", careless, "a")], models=TWO_MODELS, methods=METHODS
    )
    expected = compared(metrics=[], models=TWO_MODELS, methods=METHODS)
    assert torch.equal(given, CANVASES)
    assert torch.equal(comparison.canvases, CANVASES)
    for record, other in zip(comparison.records, expected.records, strict=True):
        assert torch.equal(record.map, other.map)
        assert (record.powers, record.name) == (other.powers, other.name)


def test_a_metric_sees_the_same_pattern_after_it_was_changed():
    def twice(classifier, result, task):
        before = result.pattern.mask.sum()
        result.pattern.mask.zero_()
        return result.pattern.mask.sum() == before

    comparison = compared(metrics=[Metric("a", twice, "a")])
    assert {record.scores["a"] for record in comparison.records} == {1.0}


@pytest.mark.parametrize("value", [lambda score: score, lambda score: {"b": score}])
def test_numbers_and_powers_in_one_column_are_refused(value):
    def mixed(classifier, result, task):
        return value(0.5 if result.canvas else power_of(3, 4, 0))

    comparison = compared(metrics=[Metric("a", mixed, "mine"), DISTANCE])
    assert {(f.what, f.reason) for f in comparison.failures} == {
        ("mine", "TypeError: it returned a number for one canvas and a PredictivePower for another")
    }
    assert len(comparison.table())
    assert all(set(record.scores) == {"distance"} for record in comparison.records)


def test_metrics_may_come_from_a_generator():
    comparison = compared(metrics=(metric for metric in [DISTANCE]))
    assert all("distance" in record.scores for record in comparison.records)
    assert comparison.metrics == [DISTANCE]


def test_a_comparison_can_be_pickled():
    comparison = compared(models=TWO_MODELS)
    assert all_facts(pickle.loads(pickle.dumps(comparison))) == all_facts(comparison)


def test_patterns_of_a_result_are_those_of_its_record():
    seen = []

    def spy(classifier, result, task):
        seen.append(result)

    comparison = compared(metrics=[Metric("spy", spy, "spy")], methods=METHODS)
    for result, record in zip(seen, comparison.records, strict=True):
        assert torch.equal(result.map, record.map)
        assert torch.equal(result.mask, record.masks[0.1])
        assert torch.equal(result.pattern.canvas, CANVASES[result.canvas])
        names = ("level", "ranking", "canvas", "kind", "target")
        assert all(getattr(result, name) == getattr(record, name) for name in names)
    assert all("spy" not in record.scores for record in comparison.records)


@pytest.mark.parametrize(
    ("metrics", "error", "words"),
    [
        (DISTANCE, TypeError, r"must be a list of Metric objects, got Metric: give \[\*METRICS"),
        ([DISTANCE.measure], TypeError, r"must hold Metric objects, got function: give \[\*ME"),
        ([*METRICS, Metric("iou", lambda *_: 0, "x")], ValueError, "another column named 'iou'"),
        ([Metric("model", lambda *_: 0, "x")], ValueError, "another column named 'model'"),
        ([Metric("power_0.1", lambda *_: 0, "x")], ValueError, "column named 'power_0.1'"),
        ([Metric("power", lambda *_: 0, "x")], ValueError, "another column named 'power'"),
        ([Metric("rethresholded_1", lambda *_: 0, "x")], ValueError, "named 'rethresholded_1'"),
        (
            [DISTANCE, Metric("distance_low", lambda *_: 0, "x")],
            ValueError,
            "another column named 'distance_low'",
        ),
    ],
)
def test_metrics_that_do_not_fit_are_refused(metrics, error, words):
    with pytest.raises(error, match=words):
        compared(metrics=metrics)


@pytest.mark.parametrize("setting", [{"better": "more"}, {"format": ".3q"}, {"format": "d"}])
def test_settings_of_a_metric_that_do_not_exist_are_refused(setting):
    [(name, value)] = setting.items()
    with pytest.raises(ValueError, match=f"`{name}` must be .*, got {value!r}"):
        Metric("a", DISTANCE.measure, "a", **setting)

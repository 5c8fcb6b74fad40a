"""What is measured besides predictive power, by built-in metrics and by one's own."""

import json
import random
from dataclasses import asdict
from statistics import mean

import numpy as np
import pytest
import torch
from comparisons import (
    CANVASES,
    LOCALISATION,
    Searching,
    all_facts,
    compared,
    from_function,
    linear_net,
    plain_mask,
    rolled,
)
from extend import DISTANCE
from refusals import refusals
from reports import without_figures

from captum_classpattern import Pattern
from captum_classpattern.comparison import METRICS, Metric, RandomPixels
from captum_classpattern.scores.localisation import localise
from captum_classpattern.scores.power import power_of
from captum_classpattern.scores.shape import simplicity

ROW = torch.zeros(1, 6, 6)
ROW[0, 1] = 1
TRIGGERED = {"triggers": {"linear": Pattern(torch.ones(3, 6, 6), ROW, 1)}}
SIMPLICITY = ("total_variation", "high_frequency_share", "components")
ITSELF = {"m": from_function(lambda images, targets: images)}


def scores(record, names):
    return {name: record.scores[name] for name in names}


def iou(one, other):
    return float((one & other).sum() / (one | other).sum())


def mean_localisation(maps):
    found = [asdict(localise(map.double(), ROW > 0)) for map in maps]
    return pytest.approx({name: mean(one[name] for one in found) for name in LOCALISATION})


# ---- stability, simplicity, cost


def test_scores_of_methods_without_chance():
    for record in compared(**TRIGGERED).records:
        assert scores(record, SIMPLICITY) == asdict(simplicity(record.masks[0.1].float()))
        assert record.scores["passes"] == 1
        assert "seconds" in record.scores
        stamped = record.kind == "stamped"
        assert record.scores.get("stability_seeds") == (None if stamped else 1.0)


@pytest.mark.parametrize("n_seeds", [1, 2, 3])
def test_stability_over_seeds_is_the_mean_of_all_pairs(n_seeds):
    comparison = compared(methods={"Searching": Searching}, n_seeds=n_seeds, seed=2)
    for record in comparison.records:
        image = CANVASES[record.canvas]
        masks = [plain_mask(rolled(image, 0.1, 2 + i), 0.1) for i in range(n_seeds)]
        pairs = [iou(masks[i], masks[j]) for i in range(n_seeds) for j in range(i)]
        assert record.scores.get("stability_seeds") == (
            pytest.approx(mean(pairs)) if pairs else None
        )


# ---- finding the trigger


def test_localisation_of_an_image_is_the_mean_over_seeds():
    comparison = compared(methods={"Random": RandomPixels}, n_seeds=3, **TRIGGERED)
    seeded = [torch.Generator().manual_seed(seed) for seed in range(3)]
    draws = [torch.rand(6, 6, 6, generator=generator) for generator in seeded]
    for record in comparison.select(target=1, kind="canvas"):
        maps = [draw[record.canvas] for draw in draws]  # seeds after the first draw 4 of the 6
        assert scores(record, LOCALISATION) == mean_localisation(maps)
    for record in comparison.select(kind="stamped"):
        assert scores(record, LOCALISATION) == mean_localisation([record.map])


def test_localisation_of_a_search_is_at_the_triggers_area():
    comparison = compared(methods={"S": Searching}, n_seeds=2, **TRIGGERED)
    found = [r for r in comparison.select(target=1) if r.kind == "canvas"]
    assert len(found) == 2
    for record in found:
        maps = [rolled(CANVASES[record.canvas], 6 / 36, seed) for seed in (0, 1)]
        assert scores(record, LOCALISATION) == mean_localisation(maps)


def test_pixels_are_ranked_by_the_values_and_not_by_their_size():
    minus = from_function(lambda images, targets: -ROW.expand_as(images).clone())
    for record in compared(methods={"minus": minus}, **TRIGGERED).records:
        assert record.scores.get("iou") in (None, 0.0)
        assert record.map.min() == -1  # in each of its equal channels
        assert not (record.masks[0.1] & (ROW > 0)).any()


# ---- one's own


def test_a_new_metric_is_in_records_tables_json_and_report(tmp_path, monkeypatch):
    comparison = compared(metrics=[*METRICS, DISTANCE], canvases=CANVASES[:1], targets=0)
    for record in comparison.records:
        places = [divmod(i, 6) for i in range(36) if record.masks[0.1].flatten()[i]]
        expected = sum(((y - 2.5) ** 2 + (x - 2.5) ** 2) ** 0.5 for y, x in places) / len(places)
        assert record.scores["distance"] == pytest.approx(expected)
    at_area = comparison.table(full=True).query("area == 0.1")
    assert at_area["distance"].notna().all()
    content = json.loads(comparison.to_json())
    assert content["rows"][0]["distance"] == comparison.records[0].scores["distance"]
    described = {"title": DISTANCE.title, "unit": "pixels", "better": "lower", "description": ""}
    assert content["metrics"][-1] == {"name": "distance", **described}
    without_figures(monkeypatch)
    page = comparison.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<li>distance from the centre (pixels): lower is better.</li>" in page
    assert f"{at_area['distance'].iloc[0]:.3g}</td>" in page.replace("\n", "")


def measured(function, **changes):
    return compared(metrics=[Metric("a", function, "mine"), DISTANCE], **changes)


def test_a_metric_may_be_a_power_with_its_interval():
    row = next(r for r in measured(lambda *_: power_of(3, 4, 0)).rows() if r["area"] == 0.1)
    assert row["a_low"] < row["a"] == 0.75 < row["a_high"]


def test_a_metric_that_fails_costs_no_more_than_itself():
    def failing(classifier, result, task):
        if result.canvas == 2:
            raise RuntimeError("half\nway")
        return 1

    def infinite(classifier, result, task):
        return {0: float("inf"), 2: float("nan")}.get(result.canvas, result.canvas)

    new = [Metric("a", failing, "first"), Metric("b", infinite, "second")]
    comparison = compared(metrics=[*new, *METRICS], methods=ITSELF)
    assert [(f.method, f.what, f.reason) for f in comparison.failures] == [
        ("m", "first", "RuntimeError: half way"),
        ("m", "second", "NaN or infinite for 2 of 4 canvases"),
    ]
    assert [r.scores.get("b") for r in comparison.records] == [None, 1, None, 3]
    assert not [r for r in comparison.records if "a" in r.scores]
    for record in comparison.records:
        record.scores.pop("b", None)
    assert all_facts(comparison) == all_facts(compared(methods=ITSELF))


def test_a_metric_gets_a_private_classifier_and_the_same_random_numbers_for_each_map():
    net, drawn = linear_net(), []

    def careless(classifier, result, task):
        with torch.no_grad():
            classifier[1].weight.zero_()
        drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))
        return drawn[-1][0]

    before, weight = torch.get_rng_state(), net[1].weight.clone()
    comparison = measured(careless, models={"m": net})
    assert torch.equal(net[1].weight, weight)
    assert torch.equal(torch.get_rng_state(), before)
    first = torch.rand((), generator=torch.Generator().manual_seed(0)).item()
    assert {record.scores["a"] for record in comparison.records} == {first}
    assert len({*drawn}) == 1


def test_a_metric_that_changes_maps_and_canvases_in_place_changes_nothing_else():
    def careless(classifier, result, task):
        before = result.pattern.mask.sum()
        for tensor in (result.map, result.mask, result.pattern.mask, result.pattern.canvas):
            tensor.zero_()
        same = result.pattern.mask.sum() == before
        task.canvases.fill_(0.5)
        return same

    given, models = CANVASES.clone(), {"linear": linear_net(), "other": linear_net(2)}
    comparison = measured(careless, canvases=given, models=models)
    assert {record.scores["a"] for record in comparison.records} == {1.0}
    expected = compared(metrics=[DISTANCE], models=models)
    assert torch.equal(given, CANVASES)
    assert torch.equal(comparison.canvases, CANVASES)
    for record in comparison.records:
        del record.scores["a"]
    assert all_facts(comparison) == all_facts(expected)


def named(*names):
    return compared(metrics=[Metric(name, lambda *_: 0, "x") for name in names])


REFUSALS = {
    "functions": lambda: compared(metrics=[DISTANCE.measure]),
    "two of one name": lambda: named("iou", "iou"),
    "a column of a record": lambda: named("model"),
    "powers": lambda: named("power_1"),
    "the end of an interval": lambda: named("distance", "distance_low"),
    "no direction": lambda: Metric("a", DISTANCE.measure, "a", better="more"),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot

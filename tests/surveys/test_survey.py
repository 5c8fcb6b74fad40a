"""The survey against the public functions that do the same for one class, and its folder."""

import copy
import json
import os
import subprocess
import sys
from collections import Counter

import matplotlib
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from surveyed import finding as made_up
from torch import nn

from captum_classpattern import ClassPattern, predictive_power, select_canvases
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.intervals import newcombe, wilson
from captum_classpattern.scores.power import power_of, random_pixels
from captum_classpattern.surveys import Scores, Survey, stands_out, survey
from captum_classpattern.surveys.search import DRAWS, SurveySearch


@pytest.fixture(scope="module")
def setting():
    generator = torch.Generator().manual_seed(0)
    search, held_out = torch.rand(2, 60, 1, 6, 6, generator=generator)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    with torch.no_grad():
        net[1].weight.mul_(3)
    labels = torch.arange(60) % 3
    found = survey(
        *(net, (search, labels), (held_out, labels)),
        canvases={"positive": 32, "white": 1},
        areas=(0.2, 0.1),
        n_steps=15,
        seed=3,
    )
    return net, search, held_out, labels, found.findings


def test_one_finding_for_each_class_and_kind_of_canvas(setting):
    *_, findings = setting
    assert [(f.target, f.canvas) for f in findings] == [
        (target, canvas) for target in range(3) for canvas in ("positive", "white")
    ]


def test_the_best_of_each_kind_is_what_search_keeps_at_all_areas(setting):
    net, search, _, labels, findings = setting
    explainer = ClassPattern(net, search, labels)
    for finding in findings:
        n = 20 if finding.canvas == "positive" else 2  # all 20 of the class: 32 are asked for
        canvases = select_canvases(net, search, labels, finding.target, n, finding.canvas)
        found = explainer.search_areas(
            canvases, finding.target, (0.2, 0.1), keep=1, n_steps=15, seed=3
        )
        for area, [best] in found.items():
            mask = finding.patterns[area].mask
            assert torch.equal(best.mask > 0, mask > 0)
            # alone and among other classes: some processors round products of few rows otherwise
            torch.testing.assert_close(best.mask, mask, rtol=0, atol=1e-6)
            assert torch.equal(best.canvas, finding.patterns[area].canvas)


def test_the_pattern_of_a_finding_is_that_of_its_first_area(setting):
    for finding in setting[-1]:
        assert list(finding.patterns) == list(finding.scores) == [0.2, 0.1]
        assert finding.pattern is finding.patterns[0.2]
        counts = [int(p.mask.count_nonzero()) for p in finding.patterns.values()]
        assert counts == [7, 4]  # of 36


@pytest.mark.parametrize("area", [0.2, 0.1])
def test_scores_are_those_of_predictive_power(setting, area):
    net, search, held_out, labels, findings = setting
    for finding in findings:
        pattern, scores = finding.patterns[area], finding.scores[area]
        assert scores.power == predictive_power(net, pattern, held_out, labels, area)

        def power(changed, images=held_out, labels=labels, area=area):
            return predictive_power(net, changed, images, labels, area).value

        others = labels != pattern.target
        images, own = held_out[others], labels[others]
        drawn = [  # 40 images of other classes: 14, 13 and 13 of them for each draw
            power(random_pixels(pattern, area, 3 + i), images[i::DRAWS], own[i::DRAWS])
            for i in range(DRAWS)
        ]
        expected = (14 * drawn[0] + 13 * drawn[1] + 13 * drawn[2]) / 40
        assert scores.random_pixels == pytest.approx(expected)
        other = (finding.target + 1) % 3
        [canvas] = select_canvases(net, search, labels, other, 1)
        elsewhere = Pattern(canvas, pattern.mask, pattern.target)
        assert scores.other_canvas == pytest.approx(power(elsewhere))


def scored(hits, n=500, *, bare=0, random=0.0, other=0.0):
    return Scores(power_of(hits, n, bare), random, other)


@pytest.mark.parametrize("control", ["bare", "random", "other"])
def test_a_power_beats_its_controls_if_the_difference_to_each_is_above_nothing(control):
    def against(share):
        return scored(50, 100, **{control: round(100 * share) if control == "bare" else share})

    assert against(0.36).beats_controls
    # 50 % has an interval from 40.4 %, but 38 % is as uncertain: the difference may be 0
    assert newcombe(50, 100, 38, 100)[0] < 0
    assert not against(0.38).beats_controls
    assert not against(0.6).beats_controls


def test_fewer_than_100_images_are_too_few_to_beat_controls():
    assert scored(100, 100).beats_controls
    assert not scored(99, 99).beats_controls


def test_a_class_stands_out_if_the_difference_to_each_other_is_above_nothing():
    assert stands_out({0: scored(300), 1: scored(200), 2: scored(5)}, 0, 3)
    assert not stands_out({0: scored(300), 1: scored(280), 2: scored(5)}, 0, 3)
    assert not stands_out({0: scored(300), 1: scored(200), 2: scored(350)}, 0, 3)
    assert not stands_out({0: scored(300, random=0.6), 1: scored(200), 2: scored(5)}, 0, 3)


def test_a_class_stands_out_only_where_all_classes_were_searched_on_enough_images():
    found = {0: scored(300), 1: scored(5)}
    assert stands_out(found, 0, 2)
    assert not stands_out(found, 0, 10)
    assert not stands_out({0: scored(300)}, 0, 1)
    assert not stands_out({0: scored(99, 99), 1: scored(0, 99)}, 0, 2)


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=2, max_size=6))
def test_at_most_one_class_stands_out_and_it_is_the_strongest(drawn):
    found = {y: scored(hits, 200, bare=bare) for y, (hits, bare) in enumerate(drawn)}
    ones = [y for y in found if stands_out(found, y, len(found))]
    assert len(ones) <= 1
    for y in ones:
        assert drawn[y][0] == max(hits for hits, _ in drawn)
        for other, (hits, _) in enumerate(drawn):  # a plain one: Wilson's ends, put together
            (low, _), (_, high) = wilson(drawn[y][0], 200), wilson(hits, 200)
            gap = (drawn[y][0] - hits) / 200
            bound = gap - ((drawn[y][0] / 200 - low) ** 2 + (high - hits / 200) ** 2) ** 0.5
            assert other == y or bound > 0


def test_findings_are_plain_json(setting):
    for finding in setting[-1]:
        row = json.loads(json.dumps(finding.as_dict()))
        assert row["areas"]["0.2"]["power"] == finding.scores[0.2].power.value
        assert row["areas"]["0.1"]["passes"] == finding.patterns[0.1].info["passes"]
        assert row["class"] == finding.target


def test_images_in_both_sets_are_refused(setting):
    net, search, _, labels, _ = setting
    found = survey(net, (search, labels), (search, labels), classes=[0], areas=(0.2,), n_steps=1)
    with pytest.raises(ValueError, match="can only be scored on held-out images"):
        list(found)


def test_classes_are_checked_before_anything_is_searched(setting):
    net, search, held_out, labels, _ = setting
    with pytest.raises(ValueError, match="target 7 is out of range"):
        survey(net, (search, labels), (held_out, labels), classes=[0, 7], areas=(0.2,))


def test_between_two_findings_the_caller_finds_everything_as_it_was(setting):
    net, search, held_out, labels, _ = setting
    findings = iter(survey(net, (search, labels), (held_out, labels), areas=(0.2,), n_steps=2))
    before = torch.get_rng_state()
    with torch.no_grad():
        next(findings)
        assert not torch.is_grad_enabled()
    assert torch.equal(before, torch.get_rng_state())


def test_images_of_one_class_are_refused_in_words(setting):
    net, search, held_out, labels, _ = setting
    few = {"classes": [0], "areas": (0.2,), "n_steps": 1}
    with pytest.raises(ValueError, match="0 held-out images that are not of class 0"):
        list(survey(net, (search, labels), (held_out, [0] * 60), **few))


def test_too_few_search_images_to_judge_by_are_named(setting):
    net, search, held_out, labels, _ = setting
    few = survey(
        net, (search[:4], labels[:4]), (held_out, labels), canvases={"white": 1}, areas=(0.2,)
    )
    with pytest.raises(ValueError, match="there must be images to judge by"):
        list(few)


@pytest.fixture
def searches(monkeypatch):
    """The targets, the areas and the seed of each search."""
    noted, original = [], ClassPattern.search_with

    def search_with(self, settings, canvases, targets):
        noted.append((targets, settings.areas, settings.seed))
        return original(self, settings, canvases, targets)

    monkeypatch.setattr(ClassPattern, "search_with", search_with)
    return noted


@pytest.mark.parametrize("kind", ["white", "black", "grey", "positive"])
def test_all_canvases_of_a_kind_are_in_one_search_for_all_areas(setting, searches, kind):
    net, search, held_out, labels, _ = setting
    few = {"classes": [0, 1], "areas": (0.2, 0.1), "n_steps": 1, "seed": 3}
    found = list(survey(net, (search, labels), (held_out, labels), canvases={kind: 2}, **few))
    assert searches == [([0, 0, 1, 1], (0.2, 0.1), 3)]
    for finding in found:
        assert ("starts_iou" in finding.pattern.info) == (kind != "positive")


@pytest.mark.parametrize("kind", ["positive", "negative", "confident", "random"])
def test_a_class_with_fewer_images_than_canvases_gives_all_it_has(setting, searches, kind):
    net, search, held_out, labels, _ = setting
    own = torch.tensor([0, 0, *[1] * 29, *[2] * 29])
    few = {"canvases": {kind: 5}, "areas": (0.2,), "n_steps": 1}
    list(survey(net, (search, own), (held_out, labels), **few))
    assert [targets for targets, *_ in searches] == [[0] * 2, [1] * 5 + [2] * 5]


def test_what_is_found_does_not_depend_on_the_classes_searched_together(setting):
    """With a budget, and classes of very different sizes."""
    net, search, held_out, labels, _ = setting
    few = {"canvases": {"positive": 12, "white": 1}, "areas": (0.2,), "budget": 2_500, "seed": 1}
    sizes = torch.tensor([*[0] * 4, *[1] * 16, *[2] * 40])
    together, alone = (
        list(survey(net, (search, sizes), (held_out, labels), classes_together=n, **few))
        for n in (3, 1)
    )
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.pattern.mask > 0, other.pattern.mask > 0)
        steps = [each.pattern.info["settings"]["n_steps"] for each in (one, other)]
        assert steps[0] == steps[1]


def test_noise_takes_no_image_of_the_class(setting, searches):
    net, search, held_out, labels, _ = setting
    few = {"canvases": {"noise": 5}, "classes": [2], "areas": (0.2,), "n_steps": 1}
    list(survey(net, (search, labels % 2), (held_out, labels), **few))
    assert [targets for targets, *_ in searches] == [[2] * 5]


@pytest.mark.parametrize(("budget", "n"), [(500, 2), (1_399, 6), (3_000, 13), (8_000, 20)])
def test_a_small_budget_takes_fewer_canvases(setting, budget, n):
    net, search, held_out, labels, _ = setting
    few = {"classes": [1], "canvases": {"positive": 32}, "areas": (0.2,), "budget": budget}
    [found] = survey(net, (search, labels), (held_out, labels), **few)
    assert found.pattern.info["searched_together"] == n  # the class has 20


def test_the_steps_override_the_budget_and_its_number_of_canvases(setting):
    net, search, held_out, labels, _ = setting
    few = {"classes": [1], "canvases": {"positive": 5}, "areas": (0.2,), "budget": 400}
    [found] = survey(net, (search, labels), (held_out, labels), n_steps=2, **few)
    assert found.pattern.info["searched_together"] == 5


def test_the_budget_is_for_each_class_and_kind(setting):
    net, search, held_out, labels, _ = setting
    few = {"canvases": {"positive": 4, "white": 2}, "areas": (0.2,), "classes": [0, 2]}
    for budget in (1_000, 2_500):
        for found in survey(net, (search, labels), (held_out, labels), budget=budget, **few):
            info = found.pattern.info
            assert info["settings"]["budget"] == budget
            of_each = info["passes_together"] / 2  # two classes
            assert 0.7 * budget < of_each <= budget


def test_max_seconds_stops_each_search_with_what_was_found(setting):
    net, search, held_out, labels, _ = setting
    few = {"classes": [1], "areas": (0.2, 0.1), "max_seconds": 1e-6}
    for found in survey(net, (search, labels), (held_out, labels), **few):
        for area, pattern in found.patterns.items():
            assert pattern.info["stopped_early"]
            assert pattern.info["settings"]["max_seconds"] == 1e-6
            assert int(pattern.mask.count_nonzero()) == round(area * 36)


@pytest.mark.parametrize(
    ("canvases", "error"),
    [
        ({"white": 0}, r"canvases\['white'\] must be a whole number from 1, got 0"),
        ({"white": True}, "must be a whole number from 1, got True"),
        ({"red": 1}, "`canvases` has the kind 'red': choose from positive, negative"),
        ({}, "`canvases` is empty"),
    ],
)
def test_wrong_canvases_are_refused(setting, canvases, error):
    net, search, held_out, labels, _ = setting
    with pytest.raises(ValueError, match=error):
        survey(net, (search, labels), (held_out, labels), canvases=canvases)


def test_the_precision_reaches_each_search(setting):
    net, search, held_out, labels, _ = setting
    few = {"classes": [1], "canvases": {"white": 1}, "areas": (0.2,), "n_steps": 2}
    [found] = survey(net, (search, labels), (held_out, labels), precision="bfloat16", **few)
    assert found.pattern.info["settings"]["precision"] == "bfloat16"


def test_a_model_that_guesses_is_pointed_out_once(setting):
    net, search, held_out, labels, _ = setting
    few = {"classes": [0, 1], "canvases": {"white": 2}, "areas": (0.2,), "n_steps": 2}
    with pytest.warns(UserWarning, match="of 60 held-out images correctly, which is") as w:
        list(survey(net, (search, labels), (held_out, labels), **few))
    assert len(w) == 1


# ---- iterating, and the folder


@pytest.fixture
def searched(monkeypatch):
    """The classes that were searched, in groups; an error on request."""
    groups, original = [], SurveySearch._search_group

    def search_group(self, group):
        groups.append(list(group))
        return original(self, group)

    monkeypatch.setattr(SurveySearch, "_search_group", search_group)
    return groups


def interrupt(monkeypatch, at):
    """Ctrl+C in the scoring of a pattern, counted from 0."""
    scored, original = [], SurveySearch._score

    def score(self, *arguments):
        scored.append(1)
        if len(scored) == at + 1:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(SurveySearch, "_score", score)


def begun(setting, **settings):
    """A short survey of three classes on two kinds of canvas."""
    net, search, held_out, labels, _ = setting
    settings = {"areas": (0.2, 0.1), "n_steps": 1, "classes_together": 1, **settings}
    kinds = {"positive": 1, "white": 1}
    return survey(net, (search, labels), (held_out, labels), canvases=kinds, **settings)


@pytest.fixture(scope="module")
def whole(setting):
    """The findings of that survey, without a folder and without an interrupt."""
    return begun(setting).findings


def same(findings, others):
    return len(findings) == len(others) and all(
        (one.target, one.canvas, one.scores, one.class_name)
        == (other.target, other.canvas, other.scores, other.class_name)
        and all(torch.equal(one.patterns[a].mask, other.patterns[a].mask) for a in one.patterns)
        for one, other in zip(findings, others)
    )


def test_a_survey_searches_as_it_is_iterated_and_only_once(setting, searched):
    found = begun(setting)
    assert (len(found), found.finished, searched) == (6, [], [])
    assert repr(found) == "Survey(0 of 6 findings on positive, white canvases, areas 0.2, 0.1)"
    running = iter(found)
    first = [next(running) for _ in range(3)]
    assert searched == [[0], [1]]
    assert repr(found).startswith("Survey(4 of 6 findings")
    assert found.finished[:3] == first
    assert [(f.target, f.canvas) for f in found] == [
        (y, kind) for y in range(3) for kind in ("positive", "white")
    ]
    assert searched == [[0], [1], [2]]
    assert found.findings == list(found) == [*first, *running]
    assert searched == [[0], [1], [2]]
    assert repr(found) == "Survey(6 findings on positive, white canvases, areas 0.2, 0.1)"


def test_methods_that_need_all_findings_run_the_search(setting):
    for method in (Survey.table, Survey.best_canvases, lambda s: s.scores("white", 0.2)):
        found = begun(setting, classes=[1, 2])
        assert len(method(found)) in (4, 2)
        assert len(found.finished) == 4


def test_the_held_out_images_are_classified_once(setting, monkeypatch):
    net, search, held_out, *_ = setting
    bare = []
    hook = net.register_forward_pre_hook(
        lambda _, given: bare.append(torch.equal(given[0], held_out[: len(given[0])]))
    )
    found = survey(net, (search, setting[3]), held_out, classes=[0], areas=(0.2,), n_steps=1)
    assert found.info["accuracy"] is None
    found.plot(use_pyplot=False)
    hook.remove()
    assert sum(bare) == 1


@pytest.mark.parametrize("at", range(0, 12, 3))  # of 12 patterns, 4 per class
def test_an_interrupted_survey_goes_on_to_the_same_findings(
    setting, whole, monkeypatch, tmp_path, at
):
    for folder in (None, tmp_path):
        with monkeypatch.context() as patch:
            interrupt(patch, at)
            found = begun(setting, folder=folder)
            with pytest.raises(KeyboardInterrupt):
                list(found)
        assert len(found.finished) == 2 * (at // 4)
        if folder is not None:
            if found.finished:
                kept = Survey.load(folder)
                assert not kept.info["complete"]
                assert same(kept.findings, whole[: len(found.finished)])
            again = begun(setting, folder=folder, resume=True)
            assert same(again.finished, whole[: len(found.finished)])
            assert same(again.findings, whole)
        assert same(found.findings, whole)
    assert Survey.load(tmp_path).info["complete"]


def test_a_finished_survey_in_a_folder_is_not_searched_again(setting, whole, tmp_path, searched):
    assert same(begun(setting, folder=tmp_path).findings, whole)
    searched.clear()
    assert same(begun(setting, folder=tmp_path, resume=True).findings, whole)
    assert searched == []
    with pytest.raises(ValueError, match="holds results already: pass `resume=True`"):
        begun(setting, folder=tmp_path)


def test_what_the_folder_holds_comes_first(setting, tmp_path):
    list(begun(setting, classes=[2], folder=tmp_path))
    found = begun(setting, classes=[1, 2], folder=tmp_path, resume=True)
    assert len(found) == 4
    assert [f.target for f in found] == [2, 2, 1, 1]
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["class"] for row in rows] == [1, 1, 2, 2]


def test_a_search_that_failed_does_not_lock_its_folder(setting, tmp_path):
    net, search, held_out, labels, _ = setting
    found = survey(
        net, (search, labels % 2), (held_out, labels), classes=[2], areas=(0.2,), folder=tmp_path
    )
    with pytest.raises(ValueError, match="none of the 60 images is of class 2"):
        list(found)
    assert len(begun(setting, classes=[0], folder=tmp_path).findings) == 2


def test_a_folder_is_complete_if_all_classes_that_were_requested_are_there(setting, tmp_path):
    first = begun(setting, classes=[0, 1], folder=tmp_path)
    next(iter(first))
    assert not Survey.load(tmp_path).info["complete"]
    list(begun(setting, classes=[2], folder=tmp_path, resume=True))
    assert not Survey.load(tmp_path).info["complete"]  # class 1 is missing
    list(first)
    info = Survey.load(tmp_path).info
    assert (info["complete"], info["classes"]) == (True, [0, 1, 2])


def changed_net(setting):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    return (net, *setting[1:])


class Shift(nn.Module):
    """A layer whose tensor is neither a parameter nor a buffer."""

    def __init__(self, by):
        super().__init__()
        self.by = torch.tensor(by)

    def forward(self, images):
        return images - self.by


@pytest.mark.parametrize(
    ("before", "after"),
    [(Shift(0.0), Shift(1e-6)), (nn.ReLU(), nn.Tanh())],
    ids=["a plain tensor", "the activation"],
)
def test_a_model_that_changed_is_refused_on_resume(setting, tmp_path, before, after):
    def begun_with(layer, **more):
        net = nn.Sequential(layer, *setting[0]).eval()
        net.provenance = {"sha256": "of the file, which is the same"}
        return begun((net, *setting[1:]), classes=[0], folder=tmp_path, **more)

    list(begun_with(before))
    assert len(begun_with(before, resume=True).finished) == 2
    with pytest.raises(ValueError, match=r"is of another search \(model"):
        begun_with(after, resume=True)


def test_a_loaded_model_whose_weights_changed_is_refused_on_resume(setting, tmp_path):
    net = nn.Sequential(*copy.deepcopy(setting[0])).eval()
    net.provenance = {"sha256": "of the file"}
    changed = (net, *setting[1:])
    list(begun(changed, classes=[0], folder=tmp_path))
    with torch.no_grad():
        net[1].weight[0, 0] += 1e-6
    with pytest.raises(ValueError, match=r"is of another search \(model"):
        begun(changed, folder=tmp_path, resume=True)


def test_a_model_in_another_precision_sees_the_same_held_out_images(setting):
    settings = [
        begun((copy.deepcopy(setting[0]).to(dtype), *setting[1:])).info["settings"]
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert settings[0]["held_out_images"] == settings[1]["held_out_images"]


def test_another_survey_is_not_overwritten(setting, tmp_path):
    list(begun(setting, classes=[0], folder=tmp_path))
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ValueError, match="of another search"):
        Survey([made_up(0, "white", 5)], 3).save(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before


def test_numbers_of_numpy_can_be_written(setting, tmp_path):
    net, search, held_out, labels, _ = setting
    settings = {
        "canvases": {"white": np.int64(1)},
        "areas": np.array([0.25], np.float32),
        "n_steps": np.int64(1),
        "seed": np.int64(2),
        "classes": [np.int64(1)],
    }
    found = survey(net, (search, labels), (held_out, labels), folder=tmp_path, **settings)
    assert len(found.findings) == 1
    assert Survey.load(tmp_path).info["settings"]["canvases"] == {"white": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"areas": (0.2, 0.0)}, "rounds to none or all"),
        ({"areas": ()}, "`areas` must hold at least one area"),
        ({"classes": []}, "`classes` is empty: leave it out to search all"),
        ({"precision": "fast"}, "`precision` must be one of"),
        ({"budget": 0}, "`budget` must be a whole number"),
        ({"n_steps": 0}, "`n_steps` must be a whole number"),
        ({"max_seconds": 0}, "`max_seconds` must be"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"classes_together": 0}, "`classes_together` must be a whole number"),
        ({"internal_batch_size": 0}, "`internal_batch_size` must be a whole number"),
    ],
)
def test_settings_are_checked_before_anything_is_searched(setting, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        begun(setting, folder=tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_held_out_images_of_another_shape_are_refused(setting):
    net, search, held_out, labels, _ = setting
    with pytest.raises(
        ValueError, match=r"must have the same shape .* \(1, 6, 6\) and \(1, 6, 5\)"
    ):
        survey(net, (search, labels), (held_out[..., :5], labels))


@pytest.mark.parametrize(
    ("change", "settings", "key"),
    [
        (changed_net, {}, "model"),
        (lambda s: (s[0], s[1].flip(0), *s[2:]), {}, "search_images"),
        (lambda s: (s[0], s[1], s[2].flip(0), *s[3:]), {}, "held_out_images"),
        (lambda s: s, {"n_steps": 3}, "n_steps 1 then, 3 now"),
        (lambda s: s, {"areas": (0.2,)}, "areas"),
        (lambda s: s, {"budget": 2_000}, "budget None then, 2000 now"),
        (lambda s: s, {"max_seconds": 60}, "max_seconds None then, 60 now"),
        (lambda s: (lambda images: s[0](images), *s[1:]), {}, "model"),
    ],
)
def test_other_settings_are_refused_on_resume(setting, tmp_path, change, settings, key):
    list(begun(setting, classes=[0], folder=tmp_path))
    with pytest.raises(ValueError, match=rf"is of another search \({key}"):
        begun(change(setting), folder=tmp_path, resume=True, **settings)


def test_plain_functions_can_have_a_folder_too(setting, tmp_path):
    net = setting[0]
    function = (lambda images: net(images), *setting[1:])
    found = begun(function, classes=[0], folder=tmp_path).findings
    assert same(begun(function, classes=[0], folder=tmp_path, resume=True).finished, found)


PROCESS = """
import sys, torch
from captum_classpattern import survey

generator = torch.Generator().manual_seed(0)
search, held_out = torch.rand(2, 60, 1, 6, 6, generator=generator)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)).eval()
with torch.no_grad():
    net[1].weight.mul_(3)
labels = torch.arange(60) % 3
classes = [int(target) for target in sys.argv[2:]]
list(survey(net, (search, labels), (held_out, labels), canvases={"positive": 1, "white": 1},
            classes=classes, areas=(0.2, 0.1), n_steps=1, classes_together=1, folder=sys.argv[1],
            resume=True))
"""


def test_two_processes_share_a_folder(whole, tmp_path):
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path), *classes],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for classes in (("0", "1"), ("1", "2"))
    ]
    assert [process.wait() for process in running] == [0, 0]
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["class"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert same(Survey.load(tmp_path).findings, whole)


def test_a_survey_is_saved_and_loaded(setting, tmp_path):
    net, _, held_out, labels, _ = setting
    found = begun(setting)
    found.save(tmp_path)
    loaded = Survey.load(tmp_path)
    assert same(loaded.findings, found.findings)
    assert len(loaded) == 6
    assert loaded.info["settings"]["n_steps"] == 1
    pandas.testing.assert_frame_equal(loaded.table(), found.table())
    assert loaded.strongest("white", 0.2) == found.strongest("white", 0.2)
    with pytest.raises(ValueError, match=r"call plot\(classifier, images\)"):
        loaded.plot()
    _, axes = loaded.plot(net, held_out, labels, use_pyplot=False)
    assert axes.shape[0] == 3
    assert same(begun(setting, folder=tmp_path, resume=True).finished, found.findings)
    loaded.save(tmp_path / "copy")
    assert same(Survey.load(tmp_path / "copy").findings, found.findings)


# ---- what a survey reports


def test_the_table_has_a_row_for_each_class_and_kind_of_canvas(setting):
    table = Survey(setting[-1]).table()
    assert list(table["class"]) == [0, 0, 1, 1, 2, 2]
    assert list(table["canvas"]) == ["positive", "white"] * 3
    for row, found in zip(table.to_dict("records"), setting[-1]):
        scores = found.scores[0.1]
        assert (row["power_0.1_low"], row["power_0.1_high"]) == scores.power.interval
        assert row["power_0.1"] == scores.power.value
        assert row["random_pixels_0.1"] == scores.random_pixels
        assert row["beats_controls_0.1"] == scores.beats_controls
        assert (row["images"], row["no_pattern"]) == (40, scores.power.without)


def test_the_figure_has_the_strongest_of_many_classes(setting):
    matplotlib.use("Agg")
    net, _, held_out, labels, findings = setting
    figure, axes = Survey(findings).plot(
        net, held_out, labels, max_classes=2, title="Three classes", use_pyplot=False
    )
    assert axes.shape[0] == 2
    assert figure.get_suptitle() == "Three classes (2 of 3, the strongest)"


def strongest(*powers, n_classes, **changes):
    found = Survey((made_up(y, "white", n, **changes) for y, n in enumerate(powers)), n_classes)
    return found.strongest("white", 0.05)


def test_the_strongest_class_stands_out_among_all_classes():
    text = "white canvas, 0.05 of the pixels: class 1, 90.0%; next class 0, 50.0%"
    assert strongest(50, 90, n_classes=2) == f"{text}. It stands out."
    assert strongest(85, 90, n_classes=2).endswith("next class 0, 85.0%.")
    assert strongest(50, 90, n_classes=2, control=0.9) == f"{text}."
    assert strongest(50, 90, n_classes=None) == f"{text}."
    assert strongest(50, 90, n_classes=2, class_name="cat").endswith("cat, 50.0%. It stands out.")


def test_whether_a_class_stands_out_is_not_known_if_only_some_were_searched():
    assert strongest(50, 90, n_classes=10) == (
        "white canvas, 0.05 of the pixels: class 1, 90.0%; next class 0, 50.0%; 2 of 10 classes "
        "were searched, so whether it stands out is not known."
    )
    assert strongest(90, n_classes=10).endswith(
        "class 0, 90.0%; 1 of 10 classes was searched, so whether it stands out is not known."
    )


def test_whether_a_class_stands_out_is_not_known_from_too_few_images():
    assert strongest(5, 55, n_classes=2, n=60).endswith(
        "; 60 images are too few to tell whether it stands out."
    )


@pytest.mark.parametrize(("canvas", "area"), [("black", 0.05), ("white", 0.5)])
def test_scores_of_what_was_not_searched_are_refused(canvas, area):
    with pytest.raises(ValueError, match=f"no class was searched on '{canvas}' canvases at area"):
        Survey([made_up(0, "white", 5)]).scores(canvas, area)


def test_the_best_canvas_is_chosen_on_the_search_images_not_on_the_held_out_ones():
    better = made_up(0, "positive", hits=10, search_power=0.9)
    worse = made_up(0, "white", hits=90, search_power=0.8)
    other = made_up(1, "white", hits=5, search_power=0.1)
    assert Survey([worse, better, other]).best_canvases() == [better, other]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("classes", [[1], [0, 1, 2], [0, 1, 2, 3, 4, 5]])
def test_held_out_images_are_predicted_once_whatever_the_number_of_classes(classes, labelled):
    """Without a pattern: for the accuracy, for missing labels, and as the control of each class."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 6, bias=False)).eval()
    given = Counter()

    def classifier(images):
        given.update(image.numpy().tobytes() for image in images.detach())
        return network(images - 0.5)

    search, held_out = torch.rand(2, 120, 1, 6, 6)
    labels = torch.arange(120) % 6 if labelled else None
    sets = (search, labels), (held_out, labels)
    found = survey(classifier, *sets, classes=classes, areas=(0.2, 0.1), n_steps=3)
    assert len(found.findings) == 3 * len(classes)
    assert {given[image.numpy().tobytes()] for image in held_out} == {1}

"""Sweeps in this process: what a unit writes, what is searched again, what fails."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from refusals import refusal
from shown import HOSTILE, check, read, table_of
from swept import CLASSES, HELD_OUT, QUICK, SEARCH, findings_of, network, times_of, two, units_in
from torch import nn

import captum_classpattern as cp
from captum_classpattern import LabelledImages, Sweep, sweep
from captum_classpattern.classifier.class_names import placeholders
from captum_classpattern.surveys import Survey, engines, survey
from captum_classpattern.surveys.search import SurveySearch, SurveySettings
from captum_classpattern.surveys.sources import COLUMNS, ModelSource, read_models
from captum_classpattern.surveys.sweep_results import begin, locked, note
from captum_classpattern.surveys.sweep_run import cheap, choose, duration

sweeping = importlib.import_module("captum_classpattern.surveys.sweep_run")


def run(folder, models, **more):
    return sweep(models, SEARCH, HELD_OUT, folder=folder, **{**QUICK, **more})


def make(num_classes=CLASSES):
    return network(0)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    return run(folder, two())


def test_each_model_is_a_survey_as_survey_finds_it(swept):
    """All classes searched together give the pixels that each gives alone."""
    loaded = Survey.load(swept.folder / "old")
    alone = survey(network(0), SEARCH, HELD_OUT, **QUICK)
    assert (loaded.info["complete"], loaded.classes, len(loaded)) == (True, [0, 1, 2], 2 * CLASSES)
    for ours, theirs in zip(loaded, alone, strict=True):
        assert (ours.target, ours.canvas) == (theirs.target, theirs.canvas)
        assert ours.scores == theirs.scores
        assert torch.equal(ours.pattern.canvas, theirs.pattern.canvas)
        assert torch.equal(ours.pattern.mask > 0, theirs.pattern.mask > 0)
    assert swept.survey("old").table().equals(loaded.table())


def test_the_folder_says_which_sweep_it_is(swept):
    data = json.loads((swept.folder / "sweep.json").read_text())
    assert data["format"] == "captum_classpattern sweep"
    assert [row["name"] for row in data["models"]] == ["old", "new"] == swept.models
    assert all(len(row["hash"]) == 64 for row in data["models"])
    assert (data["settings"]["n_steps"], data["settings"]["threads"]) == (2, 1)
    assert units_in(swept.folder) == {(m, y) for m in ("old", "new") for y in range(CLASSES)}


def test_the_table_has_a_row_for_each_model_class_canvas_and_area(swept):
    table = swept.table()
    assert isinstance(table, pandas.DataFrame)
    assert Sweep.load(swept.folder).table().equals(table)
    assert [*table.columns] == swept.columns == [*COLUMNS, "error"]
    assert len(table) == 2 * CLASSES * 2
    assert table["error"].isna().all()
    [row] = table.query("model == 'new' and `class` == 1 and canvas == 'white'").to_dict("records")
    [found] = [f for f in swept.survey("new") if (f.target, f.canvas) == (1, "white")]
    assert row["power"] == found.scores[0.1].power.value
    assert row["power_low"] == found.scores[0.1].power.interval[0]
    assert row["search_power"] == found.pattern.info["search_power"]


def interrupt(patch, at):
    """Ctrl+C at the search of a unit, counted from 0; returns the classes before."""
    searched, find = [], SurveySearch.find

    def interrupted(self, targets):
        if len(searched) == at:
            raise KeyboardInterrupt
        searched.append([*targets])
        return find(self, targets)

    patch.setattr(SurveySearch, "find", interrupted)
    return searched


def test_a_finished_unit_is_never_searched_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        searched = interrupt(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, two())
    assert searched == [[0], [1], [2], [0]]  # one class a unit, model by model
    before = times_of(tmp_path)
    run(tmp_path, two())
    after = times_of(tmp_path)
    assert (len(before), len(after), before.items() <= after.items()) == (4, 6, True)
    assert all(Survey.load(tmp_path / m).info["complete"] for m in ("old", "new"))


def test_a_folder_can_get_more_models_and_classes_and_finds_the_same(swept, tmp_path):
    first = run(tmp_path, {"old": network(0)}, classes=[0, 1])
    before = times_of(tmp_path)
    found = run(tmp_path, {"new": network(1)}, classes=[1, 2])
    assert (found.models, found.classes) == (["old", "new"], [0, 1, 2])
    assert units_in(tmp_path) == {("old", 0), ("old", 1), ("new", 1), ("new", 2)}
    assert before.items() <= times_of(tmp_path).items()
    whole = findings_of(swept.folder)  # in which more was searched
    assert {**whole, **findings_of(tmp_path)} == whole
    common, asked = (found.transfer(*HELD_OUT, models=two(), classes=y) for y in (None, [1]))
    assert common.equals(asked)  # over the classes that all models have
    with locked(tmp_path):  # one that waited for the second sees what that wrote
        later = begin(tmp_path, first.settings, read_models({"third": network(2)}), [0])
    assert (later.models, later.classes) == (["old", "new", "third"], [0, 1, 2])


def test_a_model_with_more_classes_is_complete_when_all_are_there(tmp_path, monkeypatch):
    run(tmp_path, {"old": network(0)}, classes=[1])
    for units, complete in ((1, False), (2, True)):  # of 2
        with suppress(KeyboardInterrupt), monkeypatch.context() as patch:
            interrupt(patch, units)
            run(tmp_path, {"old": network(0)}, classes=[0, 2])
        info = Survey.load(tmp_path / "old").info
        assert (info["complete"], info["classes"]) == (complete, [0, 1, 2])


def test_the_remarks_on_a_model_may_change(tmp_path):
    torch.save(network(0).state_dict(), tmp_path / "a.pt")
    described = {"path": tmp_path / "a.pt", "arch": f"{__name__}:make", "mean": 0, "std": 1}
    run(tmp_path / "out", {"a": described}, classes=[0])
    found = run(tmp_path / "out", {"a": {**described, "year": 2020}}, classes=[0])
    assert {*found.table()["year"]} == {2020}
    with pytest.raises(ValueError, match="holds another model 'a' \\(mean 0 then, 1 now\\)"):
        run(tmp_path / "out", {"a": {**described, "mean": 1}}, classes=[0])
    table = found.transfer(*HELD_OUT)  # it can be opened again, also by its factory
    assert [*table.columns] == ["patterns_of", "a"]


class Broken(nn.Module):
    """Fails once it is searched."""

    def forward(self, images):
        if torch.is_grad_enabled():
            raise RuntimeError("the card is on fire")
        return images


BROKEN = nn.Sequential(Broken(), network(0)).eval()


def test_a_unit_that_fails_says_why_and_stops_nothing(tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    models = {"bad": tmp_path / "bad.pt", "gone": "gone.pt", "broken": BROKEN, "good": network(1)}
    found = run(tmp_path / "out", models, classes=[0, 7])
    assert units_in(tmp_path / "out") == {("good", 0)}
    errors = {(row["model"], row["class"]): row["error"] for row in found.failures}
    for name in ("bad", "gone"):
        assert [f"{name}.pt" in errors.pop((name, y)) for y in (0, 7)] == [True, True]
    no_such = "class 7 is out of range: the model has 3 classes, numbered from 0 to 2"
    fire = "RuntimeError: the card is on fire"
    assert errors == {("broken", 0): fire, ("broken", 7): no_such, ("good", 7): no_such}
    failed = found.table().dropna(subset="error")["model"]
    assert [*failed] == ["bad", "bad", "gone", "gone", "broken", "broken", "good"]
    assert repr(found).startswith("Sweep(4 models, 2 classes, 7 units failed, ")


@pytest.mark.parametrize(("error", "found"), [(OSError("busy"), 2), (ValueError("broken"), 0)])
def test_a_model_is_opened_again_if_the_reason_may_pass(error, found, tmp_path, monkeypatch):
    errors, opened = [error], ModelSource.open

    def fails_once(self, device):
        if errors:
            raise errors.pop()
        return opened(self, device)

    monkeypatch.setattr(ModelSource, "open", fails_once)
    run(tmp_path, {"new": network(1)})
    assert len(units_in(tmp_path)) == found


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("50000 100000", 1), ("250000 100000", 2), ("900000 100000", 4), ("max 100000", 4)],
)
def test_no_more_cores_than_the_containers_quota(quota, cores, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(engines, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert engines.usable_cores() == cores


def test_a_notebook_shows_a_row_for_each_model(swept, tmp_path):
    page = read(swept, pictures=1)
    rows, table = table_of(page), swept.table()
    assert set(rows) == {"old", "new"}
    for name, row in rows.items():
        found = table[(table["model"] == name) & (table["area"] == 0.1)]
        chosen = found.sort_values("search_power", ascending=False, kind="stable")
        best = chosen.drop_duplicates("class")
        assert row["classes"] == f"{CLASSES} of {CLASSES}"
        assert row["mean power"] == f"{100 * best['power'].mean():.1f}\N{NO-BREAK SPACE}%"
        assert row["above their controls"] == "too few images"  # 30 each
    assert str(swept.folder.parent) not in swept._repr_html_() + repr(swept)
    path = swept.to_html(tmp_path / "sweep.html")
    assert check(path.read_text(), pictures=1).tables == page.tables


def test_units_that_failed_are_shown_and_tried_again(tmp_path, monkeypatch):
    name = HOSTILE.replace("\udcff", "")
    with monkeypatch.context() as patch:
        patch.setattr(SurveySearch, "find", lambda *_: 1 / 0)
        found = run(tmp_path, {name: network(0)})
    assert [row["error"] for row in found.failures] == ["ZeroDivisionError: division by zero"] * 3
    page = read(found, pictures=0)
    assert "3 units failed" in page.text
    [(shown, row)] = table_of(page).items()
    assert shown.startswith("<img src=x onerror=alert(1)>")
    assert row["classes"] == "0 of 3"
    found = run(tmp_path, {name: network(0)})
    assert found.failures == []
    assert not [*(tmp_path / "failed").iterdir()]
    assert len(found.table()) == 6


def test_the_engines_leave_the_threads_of_the_process(tmp_path, monkeypatch):
    seen, find = [], SurveySearch.find

    def spy(self, targets):
        seen.append(torch.get_num_threads())
        return find(self, targets)

    monkeypatch.setattr(SurveySearch, "find", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(tmp_path, {"old": network(0)}, classes=[0])
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from swept import HELD_OUT, QUICK, SEARCH, two
from captum_classpattern import sweep
from captum_classpattern.surveys.search import SurveySearch

find = SurveySearch.find
def slow(self, targets):
    yield from find(self, targets)
    print("found", *targets, flush=True)
SurveySearch.find = slow
sweep(two(), SEARCH, HELD_OUT, folder=Path({folder!r}), **QUICK)
"""


def test_killed_at_any_moment_nothing_is_lost_repeated_or_half(swept, tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    line = [sys.executable, "-c", SCRIPT.format(tests=tests, folder=str(tmp_path))]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        with pytest.raises(ValueError, match="another sweep is writing into"):
            run(tmp_path, two())
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    before = times_of(tmp_path)
    assert before
    run(tmp_path, two())  # the lock ended with its process
    assert before.items() <= times_of(tmp_path).items()
    assert findings_of(tmp_path) == findings_of(swept.folder)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


REFUSED_AT_ONCE = {
    "another engine": {"engine": "dask"},
    "workers without Ray": {"workers": 2},
    "a device for a model": {"device": "cpu"},
    "no threads": {"threads": 0},
    "keep 0": {"keep": 0},
    "no classes": {"classes": []},
    "names of unnamed classes": {"classes": ["cat"]},
    "class -1": {"classes": [-1]},
    "no steps": {"n_steps": 0},
    "an area of no pixel": {"areas": (0.001,)},
}


@pytest.mark.parametrize("case", REFUSED_AT_ONCE)
def test_refusals_before_anything_runs(case, snapshot, elsewhere):
    assert refusal(lambda: run("out", two(), **REFUSED_AT_ONCE[case])) == snapshot
    assert not Path("out").exists()


def copied(swept, old="", new=""):
    """The folder of a sweep with another manifest."""
    text = (swept.folder / "sweep.json").read_text()
    assert old in text
    Path("sweep.json").write_text(text.replace(old, new) if old else text)
    return Path()


REFUSALS = {
    "another n_steps": lambda swept: run(copied(swept), two(), n_steps=3),
    "other held-out images": lambda swept: sweep(
        two(), SEARCH, SEARCH, folder=copied(swept), **QUICK
    ),
    "another model": lambda swept: run(copied(swept), {"old": network(5)}),
    "a model without a folder": lambda swept: Sweep.load(copied(swept, '"folder"', '"folds"')),
    "no settings": lambda swept: Sweep.load(copied(swept, '"settings"', '"sittings"')),
    "no list of models": lambda swept: Sweep.load(copied(swept, '"models"', '"modes"')),
    "no format": lambda swept: Sweep.load(copied(swept, '"format"', '"form"')),
    "no format, for a sweep": lambda swept: run(copied(swept, '"format"', '"form"'), two()),
    "no sweep": lambda swept: Sweep.load("."),
    "no such model": lambda swept: Sweep.load(copied(swept)).survey("older"),
    "a model that is gone": lambda swept: Sweep.load(swept.folder).transfer(*HELD_OUT),
    "images that were searched": lambda swept: swept.transfer(*SEARCH),
    "no such class": lambda swept: swept.transfer(*HELD_OUT, classes=[9]),
    "no such canvas": lambda swept: swept.plot(canvas="black"),
    "images without labels": lambda swept: run_unlabelled(),
}


def run_unlabelled(**settings):
    return sweep({"a": network(0)}, SEARCH[0], HELD_OUT[0], folder=".", **QUICK, **settings)


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, swept, elsewhere):
    text = refusal(lambda: REFUSALS[case](swept)).replace(str(Path().resolve()), "FOLDER")
    assert re.sub("[0-9a-f]{32,}", "HASH", text) == snapshot


def test_images_without_labels_need_classes(elsewhere):
    assert {*run_unlabelled(classes=[1]).table()["class"]} == {1}


def test_without_ray_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'captum_classpattern\[ray\]'"):
        run(tmp_path, two(), engine="ray")


def test_classes_can_be_named_and_models_get_the_names_of_the_images(tmp_path):
    names = ("cat", "dog", "owl")
    search, held_out = (LabelledImages(*pair, names) for pair in (SEARCH, HELD_OUT))
    model = cp.PixelClassifier(network(0), class_names=placeholders(CLASSES))
    other = cp.PixelClassifier(network(0), class_names=["dog", "cat", "owl"])
    models = {"m": model, "other": other, "plain": network(0)}
    found = sweep(models, search, held_out, folder=tmp_path, classes=["owl"], **QUICK)
    ours = found.table().query("model in ('m', 'plain') and error.isna()")
    assert {*ours["model"]} == {"m", "plain"}
    assert ({*ours["class"]}, {*ours["class_name"]}) == ({2}, {"owl"})
    assert model.class_names == placeholders(CLASSES)  # the caller's own is unchanged
    [failure] = found.failures
    assert failure["error"].startswith("the model numbers the classes differently: class 0 of")


# ---- the first look


def test_a_first_look_leaves_the_best_share_and_keeps_its_own_findings(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sweeping, "SCORED_ON", 9)
    few = {"first_look": True, "keep": 0.34, "n_steps": 8}
    found = run(tmp_path, two(), **few, show_progress=True)
    assert units_in(tmp_path / "first_look") == {(m, y) for m in two() for y in range(CLASSES)}
    look, powers = found.first_look.table(), {}
    for row in look.to_dict("records"):
        unit = row["model"], row["class"]
        powers[unit] = max(row["search_power"], powers.get(unit, 0))
    best = units_in(tmp_path)
    assert len(best) == 3  # 0.34 of 6, rounded up
    assert min(powers[unit] for unit in best) >= max(powers[u] for u in powers.keys() - best)
    assert found.first_look.settings["n_steps"] == 2
    assert ({*look["images"]}, {*found.table()["images"]}) == ({6}, {30})  # of other classes
    printed = capsys.readouterr().err
    texts = ("first look: 3 units left", "Searching the best 34 % in full takes up to")
    places = [printed.index(text) for text in (*texts, "sweep: ")]
    assert places == sorted(places)
    before = times_of(tmp_path)
    assert run(tmp_path, two(), **few).failures == []
    assert times_of(tmp_path) == before
    for name, _ in best:  # a model is complete with the classes that were chosen
        info = Survey.load(tmp_path / name).info
        assert info["complete"]
        assert info["classes"] == sorted(y for n, y in best if n == name)


def test_the_share_is_of_the_models_and_classes_of_the_call(tmp_path):
    run(tmp_path, two(), first_look=True, keep=0.01, n_steps=8)
    found = run(tmp_path, {"third": network(2)}, first_look=True, keep=0.01, n_steps=8)
    assert len([unit for unit in units_in(tmp_path) if unit[0] == "third"]) == 1
    assert found.models == ["old", "new", "third"]


def test_what_it_costs_is_said_after_three_units_that_were_found(tmp_path, capsys):
    run(tmp_path, {"bad": BROKEN, **two()}, show_progress=True)
    printed = capsys.readouterr().err
    assert "sweep: 3 units left, about " in printed
    assert "failed=3" in printed


@pytest.mark.parametrize(
    ("seconds", "text"), [(48, "48 s"), (5_400, "90 min"), (7_199, "120 min"), (400_000, "111 h")]
)
def test_a_time_has_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text


def test_a_first_look_is_cheap():
    full = SurveySettings(canvases={"positive": 32, "white": 1}, areas=[0.05, 0.01], seed=3)
    few = {"canvases": {"positive": 3, "white": 1}, "areas": [0.05], "seed": 3}
    assert cheap(full) == SurveySettings(**few, budget=700)
    assert cheap(replace(full, budget=500)).budget == 430  # the least that a search takes
    assert cheap(replace(full, n_steps=8)) == SurveySettings(**few, n_steps=2)


def test_the_best_share_is_chosen_by_search_images_alone(swept):
    sources = read_models(two())
    shares = [choose(swept, sources, range(CLASSES), keep) for keep in (1.0, 0.5, 0.01)]
    assert [len(share) for share in shares] == [6, 3, 1]
    assert shares[2] < shares[1] < shares[0]
    assert choose(swept, sources[1:], [2], 0.01) == {("new", 2)}


# ---- what is shown


def test_a_heat_map_of_models_by_classes(swept):
    figure, [axis] = swept.plot(use_pyplot=False)
    assert len(axis.get_yticklabels()) == 2
    classes = {text.get_text() for text in axis.get_xticklabels()}
    assert classes == {"class 0", "class 1", "class 2"}
    assert figure.get_suptitle() == "Predictive power of 10\xa0% of the pixels of the best canvas"


def test_transfer_scores_each_models_patterns_on_each_model(swept):
    table = swept.transfer(*HELD_OUT, classes=[0, 1])
    assert [*table.columns] == ["patterns_of", "old", "new"]
    models = two()
    loaded = Sweep.load(swept.folder)
    assert loaded.transfer(*HELD_OUT, models=models, classes=[0, 1]).equals(table)
    for row in table.to_dict("records"):
        best = [f for f in swept.survey(row["patterns_of"]).best_canvases() if f.target < 2]
        for name, model in models.items():
            powers = [cp.predictive_power(model, f.pattern, *HELD_OUT, 0.1).value for f in best]
            assert row[name] == pytest.approx(np.mean(powers))


def test_classes_that_share_a_name_have_a_column_each(tmp_path):
    named = cp.PixelClassifier(network(0), class_names=["crane", "dog", "crane"])
    _, [axis] = run(tmp_path, {"named": named, "plain": network(1)}).plot(use_pyplot=False)
    labels = {text.get_text() for text in axis.get_xticklabels()}
    assert labels == {"crane (0)", "dog", "crane (2)"}


def test_progress_is_written_once_a_minute_in_a_log(capsys):
    now = [0.0]
    bar = sweeping.unit_bar(10, "sweep", show=True)
    bar._time = lambda: now[0]
    bar.start_t = bar.last_print_t = 0.0
    for _ in range(8):
        now[0] += 20
        bar.update()
    bar.close()
    shown = [line for line in capsys.readouterr().err.split("\r") if line.strip()]
    done = [re.search(r"sweep: .*\| (\d+)/10 \[.*<([^,]*),", line).groups() for line in shown]
    assert done == [("0", "?"), ("3", "02:20"), ("6", "01:20"), ("8", "00:40")]
    sweeping.unit_bar(10, "sweep", show=False).close()
    assert capsys.readouterr().err == ""


def test_what_failed_is_read_once(tmp_path):
    found = run(tmp_path, {"old": network(0)}, classes=[0])
    before = [found.failures, repr(found), found._repr_html_()]
    note(tmp_path, found.sources["old"], 2, "it was too late")
    assert [found.failures, repr(found), found._repr_html_()] == before
    assert [row["class"] for row in Sweep.load(tmp_path).failures] == [2]

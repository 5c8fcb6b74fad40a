"""Sweeps in this process: what is written, what is searched again, what fails."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import torch
from refusals import refusal
from shown import HOSTILE, check, read, table_of
from surveyed import assert_alike
from swept import CLASSES, HELD_OUT, QUICK, SEARCH, assert_holds, network, times_of, two, units_in
from torch import nn

import captum_classpattern as cp
from captum_classpattern import LabelledImages, sweep
from captum_classpattern._support import progress
from captum_classpattern._support.validation import Notice
from captum_classpattern.classifier import warn
from captum_classpattern.classifier.class_names import placeholders
from captum_classpattern.surveys import Survey, Sweep, survey
from captum_classpattern.surveys.task import SurveyTask


def run(folder, models, **more):
    return sweep(models, SEARCH, HELD_OUT, folder=folder, **{**QUICK, **more})


def make(num_classes=CLASSES):
    return network(0)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return run(tmp_path_factory.mktemp("swept"), two())


def test_each_model_is_a_survey_as_survey_finds_it(swept):
    """All classes searched together give the pixels that each gives alone."""
    loaded = Survey.load(swept.folder / "old")
    alone = survey(network(0), SEARCH, HELD_OUT, **QUICK)
    assert (loaded.info["complete"], loaded.classes, len(loaded)) == (True, [0, 1, 2], 2 * CLASSES)
    assert_alike(loaded, alone)
    assert swept.survey("old").table().equals(loaded.table())


def test_a_bar_counts_the_passes_of_all_models(tmp_path, monkeypatch, terminal):
    monkeypatch.setattr(progress, "BAR_AFTER", 0.0)
    run(tmp_path / "no", two(), show_progress=False)
    assert terminal.readouterr().err == ""
    run(tmp_path / "after", two())
    shown = terminal.readouterr().err
    assert "Sweep: 100%" in shown
    assert "Searching" not in shown


def test_the_folder_says_which_sweep_it_is(swept):
    data = json.loads((swept.folder / "sweep.json").read_text())
    assert [row["name"] for row in data["models"]] == ["old", "new"] == swept.models
    assert data["settings"]["n_steps"] == 2
    assert units_in(swept.folder) == {(m, y) for m in ("old", "new") for y in range(CLASSES)}
    del data["failures"]  # as in version 0.3
    (swept.folder / "sweep.json").write_text(json.dumps(data))
    before = times_of(swept.folder)
    assert run(swept.folder, two()).failures == {}
    assert times_of(swept.folder) == before


def test_the_table_has_a_row_for_each_model_class_canvas_and_area(swept, snapshot):
    table = swept.table(full=True)
    assert isinstance(table, pandas.DataFrame)
    assert Sweep.load(swept.folder).table(full=True).equals(table)
    few = ["model", "name", "power", "control", "canvas", "area"]
    assert swept.table().equals(table[few].round({"power": 4, "control": 4}))
    assert [*table.columns] == snapshot
    assert len(table) == 2 * CLASSES * 2
    assert table["error"].isna().all()
    [row] = table.query("model == 'new' and `class` == 1 and canvas == 'white'").to_dict("records")
    [found] = [f for f in swept.survey("new") if (f.target, f.canvas) == (1, "white")]
    assert row["power"] == found.scores[0.1].power.value
    assert row["low"] == found.scores[0.1].power.interval[0]
    assert row["search_power"] == found.pattern.info["search_power"]


def test_large_images_are_swept_with_patches(tmp_path):
    labels, large = torch.arange(18) % CLASSES, torch.rand(2, 18, 1, 64, 64)
    nets = {"net": nn.Sequential(nn.AdaptiveAvgPool2d(8), *network(0)).eval()}
    both = ((images, labels) for images in large)
    found = sweep(nets, *both, folder=tmp_path, classes=[1], n_steps=1).survey("net")
    assert [(each.canvas, [*each.scores]) for each in found] == [
        ("positive", [0.18]), ("patch", [0.18]),
    ]  # fmt: skip
    assert found.findings[1].pattern.size == (64, 64)


def interrupt(patch, at):
    """Ctrl+C at the search of a class, counted from 0; returns the classes before."""
    searched, search = [], SurveyTask._search_group

    def interrupted(self, targets, left):
        if len(searched) == at:
            raise KeyboardInterrupt
        searched.append([*targets])
        return search(self, targets, left)

    patch.setattr(SurveyTask, "_search_group", interrupted)
    return searched


def test_a_finished_class_is_never_searched_again(swept, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        searched = interrupt(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, two(), classes_together=1)
    assert searched == [[0], [1], [2], [0]]
    before = times_of(tmp_path)
    run(tmp_path, two())
    after = times_of(tmp_path)
    assert (len(before), len(after), before.items() <= after.items()) == (4, 6, True)
    assert all(Survey.load(tmp_path / m).info["complete"] for m in two())
    assert_holds(tmp_path, swept.folder)
    monkeypatch.setattr("captum_classpattern.surveys.sources.ModelSource.open", None)
    run(tmp_path, two())  # opens no finished model
    (tmp_path / "new/findings/1.safetensors").unlink()
    assert [*run(tmp_path, two()).failures] == ["new"]


def test_a_folder_can_get_more_models_and_classes_and_finds_the_same(swept, tmp_path):
    run(tmp_path, {"old": network(0)}, classes=[0, 1])
    before = times_of(tmp_path)
    found = run(tmp_path, {"new": network(1)}, classes=[1, 2])
    assert (found.models, found.classes) == (["old", "new"], [0, 1, 2])
    assert units_in(tmp_path) == {("old", 0), ("old", 1), ("new", 1), ("new", 2)}
    assert before.items() <= times_of(tmp_path).items()
    run(tmp_path, {"old": network(0)}, classes=[2])
    assert Survey.load(tmp_path / "old").info["classes"] == [0, 1, 2]
    assert_holds(swept.folder, tmp_path)  # more was searched in the first


class Broken(nn.Module):
    """Fails once it is searched, at a class."""

    def __init__(self, calls=0):
        super().__init__()
        self.calls = calls

    def forward(self, images):
        self.calls -= torch.is_grad_enabled()
        if self.calls < 0:
            raise RuntimeError("the card is on fire")
        return images


def broken():
    return nn.Sequential(Broken(), network(0)).eval()


def test_a_model_that_fails_says_why_stops_no_other_and_is_tried_again(tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    described = {"path": tmp_path / "bad.pt", "arch": f"{__name__}:make", "mean": 0, "std": 1}
    bad = {"bad": described}
    found = run(tmp_path / "out", {**bad, "broken": broken(), "good": network(1)}, classes=[0])
    assert units_in(tmp_path / "out") == {("good", 0)}
    assert [*found.failures] == ["bad", "broken"]
    assert "bad.pt" in found.failures["bad"]
    assert found.failures["broken"] == "RuntimeError: the card is on fire"
    assert repr(found) == "Sweep(3 models, 1 class, 2 failed)"
    rows = found.table(full=True).dropna(subset="error")
    assert [*rows["model"]] == ["bad", "broken"]
    assert Sweep.load(found.folder).failures == found.failures
    torch.save(network(0).state_dict(), tmp_path / "bad.pt")
    found = run(tmp_path / "out", bad, classes=[0])
    assert [*found.failures] == ["broken"]
    with pytest.raises(ValueError, match="holds another model 'bad' \\(mean 0 then, 1 now\\)"):
        run(tmp_path / "out", {"bad": {**described, "mean": 1}}, classes=[0])


def test_a_long_name_can_be_resumed(tmp_path):
    """It has 270 bytes, more than the name of a folder may have."""
    long = "résumé-" * 30
    models = {"old": network(0), long: network(1)}
    found = run(tmp_path, models, classes=[0])
    assert found.models == ["old", long]
    assert run(tmp_path, models).failures == Sweep.load(tmp_path).failures == {}
    assert [*Sweep.load(tmp_path).survey(long).classes] == [0, 1, 2]


def test_a_damaged_summary_fails_its_model_alone_until_it_is_repaired(swept, tmp_path):
    run(tmp_path, {"old": network(0)})
    summary = tmp_path / "old" / "results.json"
    whole = summary.read_text()
    summary.write_text(whole[:99])
    found = run(tmp_path, two())
    assert [*found.failures] == ["old"]
    assert "is damaged" in found.failures["old"]
    assert {*found.table()["model"]} == {"new"}
    assert {*found.table(full=True)["model"]} == {"new", "old"}
    summary.write_text(whole)
    assert run(tmp_path, two()).failures == Sweep.load(tmp_path).failures == {}


def test_a_warning_names_its_model_and_points_at_the_call(tmp_path, monkeypatch):
    find = SurveyTask.find

    def spy(self, targets):
        warn("look out", Notice)
        return find(self, targets)

    monkeypatch.setattr(SurveyTask, "find", spy)
    with pytest.warns(Notice, match="look out") as seen:
        run(tmp_path, {"old": network(0)})
    texts = [str(each.message) for each in seen if each.category is Notice]
    assert [text.partition(" ")[0] for text in texts] == ["the", "look"]  # network gets pixels
    assert all(text.endswith(" (model 'old')") for text in texts)
    assert {each.filename for each in seen} == {__file__}


def test_failures_and_hostile_names_are_shown(tmp_path):
    name = HOSTILE.replace("\udcff", "")
    found = run(tmp_path, {name: broken()})
    page = read(found, pictures=0)
    assert "10 % of the pixels 3 classes, 1 failed." in page.text
    [(shown, row)] = table_of(page).items()
    assert shown.startswith("<img src=x onerror=alert(1)>")
    assert row["classes"] == "0 of 3, failed"
    index = found.to_html(tmp_path / "site")
    assert shown in check(index.read_text(), pictures=0).text


def test_a_heat_map_of_models_by_classes(swept, tmp_path):
    figure, [axis] = swept.plot(use_pyplot=False)
    assert len(axis.get_yticklabels()) == 2
    assert figure.get_suptitle() == "Predictive power of 10 % of the pixels of the best canvas"
    named = cp.PixelClassifier(network(0), class_names=["crane", "dog", "crane"])
    _, [axis] = run(tmp_path, {"named": named, "plain": network(1)}).plot(use_pyplot=False)
    labels = {text.get_text() for text in axis.get_xticklabels()}
    assert labels == {"crane (0)", "dog", "crane (2)"}


def test_a_survey_has_the_threads_of_its_cores_and_leaves_those_of_the_process(
    tmp_path, monkeypatch
):
    seen, find = [], SurveyTask.find

    def spy(self, targets):
        seen.append(torch.get_num_threads())
        return find(self, targets)

    monkeypatch.setattr(SurveyTask, "find", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(tmp_path / "one", {"old": network(0)}, classes=[0])
        run(tmp_path / "two", {"old": network(0)}, classes=[0], ray_options={"num_cpus": 2})
        assert (seen, torch.get_num_threads()) == ([1, 2], 3)
    finally:
        torch.set_num_threads(before)
    assert not run(tmp_path / "two", {"old": network(0)}).failures  # with another number


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from swept import HELD_OUT, QUICK, SEARCH, two
from captum_classpattern import sweep
from captum_classpattern.surveys.task import SurveyTask

find = SurveyTask.find
def slow(self, targets):
    for found in find(self, targets):
        yield found
        print("found", flush=True)
SurveyTask.find = slow
sweep(two(), SEARCH, HELD_OUT, folder=Path({folder!r}), **QUICK)
"""


@pytest.mark.script
def test_killed_at_any_moment_nothing_is_lost_repeated_or_half(swept, tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    line = [sys.executable, "-c", SCRIPT.format(tests=tests, folder=str(tmp_path))]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        with pytest.raises(ValueError, match="another call is writing into"):
            run(tmp_path, two())
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    before = times_of(tmp_path)
    assert before
    run(tmp_path, two())  # the lock ended with its process
    assert before.items() <= times_of(tmp_path).items()
    assert_holds(tmp_path, swept.folder)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def unlabelled(**settings):
    return sweep({"a": network(0)}, SEARCH[0], HELD_OUT[0], folder="out", **QUICK, **settings)


ON_GPU = {"path": "a.pt", "device": "cuda:1"}
AT_ONCE = {
    "another engine": lambda: run("out", two(), engine="dask"),
    "workers without Ray": lambda: run("out", two(), workers=2),
    "no cores": lambda: run("out", two(), engine="ray", workers=0),
    "words as cores": lambda: run("out", two(), ray_options={"num_cpus": "x"}),
    "a GPU that no task has": lambda: run("out", {"a": ON_GPU}, engine="ray"),
    "no setting of a sweep": lambda: run("out", two(), resume=True),
    "no classes": lambda: run("out", two(), classes=[]),
    "names of unnamed classes": lambda: run("out", two(), classes=["cat"]),
    "an area of no pixel": lambda: run("out", two(), areas=(0.001,)),
    "images without labels": unlabelled,
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_refusals_before_anything_runs(case, snapshot, elsewhere):
    assert refusal(AT_ONCE[case]) == snapshot
    assert not Path("out").exists()


def test_images_whose_numbers_are_not_those_of_the_models_are_refused(tmp_path):
    """Folders of two of ImageNet's classes, whose models have 1,000 classes and no names."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1000)).eval()
    few = [LabelledImages(x, y % 2, ["n01440764", "n07873807"]) for x, y in (SEARCH, HELD_OUT)]
    failures = sweep({"a": net}, *few, folder=tmp_path, **QUICK | {"canvases": "white"}).failures
    assert failures["a"].startswith("the search images have other class numbers than the model")


def copied(swept, old, new=""):
    """The folder of a sweep with another manifest."""
    text = (swept.folder / "sweep.json").read_text()
    assert old in text
    Path("sweep.json").write_text(text.replace(old, new) if new else text)
    return Path()


REFUSALS = {
    "another n_steps": lambda swept: run(copied(swept, ""), two(), n_steps=3),
    "a survey": lambda swept: run(swept.folder / "old", two()),
    "no list of models": lambda swept: Sweep.load(copied(swept, '"models"', '"modes"')),
    "a path as name": lambda swept: Sweep.load(copied(swept, '"old"', '".."')),
    "no format": lambda swept: Sweep.load(copied(swept, '"format"', '"form"')),
    "brackets": lambda swept: (Path("sweep.json").write_text("[" * 200_000), Sweep.load(".")),
    "no area": lambda swept: Sweep.load(copied(swept, '"areas"', '"as"')),
    "no sweep": lambda swept: Sweep.load("."),
    "no such model": lambda swept: Sweep.load(copied(swept, "")).survey("older"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, swept, elsewhere):
    text = refusal(lambda: REFUSALS[case](swept)).replace(str(swept.folder), "FOLDER")
    assert re.sub("[0-9a-f]{32,}", "HASH", text) == snapshot


def test_classes_can_be_named_and_models_get_the_names_of_the_images(tmp_path):
    names = ("cat", "dog", "owl")
    search, held_out = (LabelledImages(*pair, names) for pair in (SEARCH, HELD_OUT))
    model = cp.PixelClassifier(network(0), class_names=placeholders(CLASSES))
    other = cp.PixelClassifier(network(0), class_names=["dog", "cat", "owl"])
    models = {"m": model, "other": other, "plain": network(0)}
    found = sweep(models, search, held_out, folder=tmp_path, classes=["owl"], **QUICK)
    ours = found.table(full=True).query("model in ('m', 'plain')")
    assert ({*ours["class"]}, {*ours["name"]}) == ({2}, {"owl"})
    assert model.class_names == placeholders(CLASSES)  # the caller's own is unchanged
    [(name, reason)] = found.failures.items()
    assert name == "other"
    assert reason.startswith("the model numbers the classes differently: class 0 of")


class Mirrors(torch.nn.Module):
    """A network with a plain attribute that changes what it answers."""

    def __init__(self, on):
        super().__init__()
        self.net, self.on, self.training = network(0), on, False

    def forward(self, images):
        return self.net(images.flip(3) if self.on else images)


def test_a_model_that_answers_otherwise_is_another_model(tmp_path):
    """Also where all its classes are there."""
    for _ in range(2):
        assert not run(tmp_path, {"m": Mirrors(False)}).failures
    said = refusal(lambda: run(tmp_path, {"m": Mirrors(True)}))
    assert "holds another model 'm' (its logits for image " in said


def test_a_replaced_checkpoint_is_another_model(tmp_path):
    path = tmp_path / "m.pt"
    models = {"m": {"path": path, "arch": f"{__name__}:make", "mean": 0, "std": 1}}
    torch.save(network(0).state_dict(), path)
    for _ in range(2):
        assert not run(tmp_path / "out", models).failures
    torch.save(network(1).state_dict(), path)
    said = refusal(lambda: run(tmp_path / "out", models))
    assert "holds another model 'm' (hash" in said
    torch.save(network(0).state_dict(), path)
    moved = path.rename(tmp_path / "moved.pt")
    models["m"]["path"] = moved
    assert run(tmp_path / "out", models).rows["m"]["path"] == str(moved)
    moved.unlink()  # what was found stays
    assert not run(tmp_path / "out", models).failures


def test_the_classes_of_held_out_images_are_matched_as_well(tmp_path):
    model = cp.PixelClassifier(network(0), class_names=["p", "q", "r"])
    search = LabelledImages(*SEARCH, ("p", "q", "r"))
    held_out = LabelledImages(*HELD_OUT, ("q", "p", "r"))
    found = sweep({"m": model}, search, held_out, folder=tmp_path, **QUICK)
    assert "numbers the classes differently" in found.failures["m"]

"""The survey against the public functions that do the same for one class, and its folder."""

import copy
import json
import re
import sys
from collections import Counter
from dataclasses import replace

import pandas
import pytest
import torch
from refusals import refusal, refusals, warnings_of
from searched import targets_of
from surveyed import HELD_OUT, LABELS, NET, SEARCH, assert_alike, begun, error_of_bar
from surveyed import finding as made_up
from torch import nn

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    PixelClassifier,
    explain_class,
    predictive_power,
    scan,
    select_canvases,
    sweep,
)
from captum_classpattern.cli.printing import print_result
from captum_classpattern.optimization.competition import find_patterns
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import power_of, random_pixels
from captum_classpattern.surveys import Scores, Survey, SurveyInterrupted, stands_out, survey, task
from captum_classpattern.surveys.task import DRAWS, SurveyTask

module = sys.modules[survey.__module__]  # the function has its name


def surveyed(net=NET, search=(SEARCH, LABELS), held_out=(HELD_OUT, LABELS), **settings):
    """One area and one step, unless it is said otherwise."""
    if "budget" not in settings:
        settings = {"n_steps": 1, **settings}
    return survey(net, search, held_out, **{"areas": (0.2,), **settings})


@pytest.fixture(scope="module")
def findings():
    kinds = {"positive": 32, "white": 1}
    return surveyed(canvases=kinds, areas=(0.2, 0.1), n_steps=15, seed=3).findings


def test_the_best_of_each_kind_is_what_search_keeps_at_all_areas(findings):
    explainer = ClassPattern(NET, SEARCH, LABELS)
    kinds = [(target, kind) for target in range(3) for kind in ("positive", "white")]
    assert [(f.target, f.canvas) for f in findings] == kinds
    for finding in findings:
        n = 20 if finding.canvas == "positive" else 2  # all 20 of the class: 32 are asked for
        canvases = select_canvases(NET, SEARCH, LABELS, finding.target, n, finding.canvas)
        found = explainer.search(
            canvases, finding.target, area=(0.2, 0.1), keep=1, n_steps=15, seed=3
        )
        assert list(finding.patterns) == list(finding.scores) == [0.2, 0.1]
        assert finding.pattern is finding.patterns[0.2]
        for (area, [best]), pixels in zip(found.items(), (7, 4)):  # of 36
            pattern = finding.patterns[area]
            assert int(pattern.mask.count_nonzero()) == pixels
            assert torch.equal(best.mask > 0, pattern.mask > 0)
            # alone and among other classes: some processors round products of few rows otherwise
            torch.testing.assert_close(best.mask, pattern.mask, rtol=0, atol=1e-6)
            assert torch.equal(best.canvas, pattern.canvas)


@pytest.mark.parametrize("area", [0.2, 0.1])
def test_scores_are_those_of_predictive_power(findings, area):
    for finding in findings:
        pattern, scores = finding.patterns[area], finding.scores[area]
        assert scores.power == predictive_power(NET, pattern, HELD_OUT, LABELS, area)

        def power(changed, images=HELD_OUT, labels=LABELS):
            return predictive_power(NET, changed, images, labels, area).value

        images, own = (each[pattern.target != LABELS] for each in (HELD_OUT, LABELS))
        hits = 0.0  # of 40 images of other classes: 14, 13 and 13 of them for each draw
        for i, n in enumerate((14, 13, 13)):
            drawn = random_pixels(pattern, area, 3 + i)
            hits += n * power(drawn, images[i::DRAWS], own[i::DRAWS])
        assert scores.random_pixels == pytest.approx(hits / 40)
        [canvas] = select_canvases(NET, SEARCH, LABELS, (finding.target + 1) % 3, 1)
        elsewhere = Pattern(canvas, pattern.mask, pattern.target)
        assert scores.other_canvas == pytest.approx(power(elsewhere))


# ---- which scores are more than chance


def scored(hits, n=500, *, bare=0, random=0.0, other=0.0):
    return Scores(power_of(hits, n, bare), random, other)


@pytest.mark.parametrize(
    ("scores", "classes", "expected"),
    [
        ([scored(300), scored(200), scored(5)], 3, True),
        ([scored(300, random=0.6), scored(200), scored(5)], 3, False),
        ([scored(300), scored(5)], 10, False),  # of ten classes two were searched
        ([scored(300)], 1, False),
        ([scored(99, 99), scored(0, 99)], 2, False),  # too few images
    ],
)
def test_a_class_stands_out_of_all_classes_of_the_model(scores, classes, expected):
    assert stands_out(dict(enumerate(scores)), 0, classes) is expected


# ---- what is searched together, and for how long


@pytest.fixture
def searches(monkeypatch):
    """The targets, the areas and the seed of each search."""
    noted = []

    def search(plan):
        noted.append((targets_of(plan), plan.settings.areas, plan.settings.seed))
        return find_patterns(plan)

    monkeypatch.setattr(task, "find_patterns", search)
    return noted


@pytest.mark.parametrize("kind", ["white", "positive"])
def test_all_canvases_of_a_kind_are_in_one_search_for_all_areas(searches, kind):
    found = surveyed(canvases={kind: 2}, classes=[0, 1], areas=(0.2, 0.1), seed=3).findings
    assert searches == [([0, 0, 1, 1], (0.2, 0.1), 3)]
    for finding in found:
        assert ("starts_iou" in finding.pattern.info) == (kind != "positive")


def test_kinds_of_one_colour_are_in_one_search_and_do_not_compete(searches):
    kinds = {"white": 1, "positive": 3, "black": 1}
    together = surveyed(canvases=kinds, classes=[2, 0], budget=1_000).findings
    assert [targets for targets, *_ in searches] == [[2, 0, 2, 0], [2] * 3 + [0] * 3]
    assert [(f.target, f.canvas) for f in together] == [(y, kind) for y in (2, 0) for kind in kinds]
    for found in together:
        if found.canvas != "positive":
            assert found.pattern.canvas.unique().tolist() == [float(found.canvas == "white")]
        kind = {found.canvas: kinds[found.canvas]}
        alone = surveyed(canvases=kind, classes=[found.target], budget=1_000)
        assert_alike([found], alone)


def test_the_number_of_classes_is_halved_where_the_memory_is_too_small(searched, monkeypatch):
    search = SurveyTask._search_group

    def full(self, group, left):
        found = search(self, group, left)
        if len(group) > 1:
            raise torch.OutOfMemoryError("full")
        return found

    monkeypatch.setattr(SurveyTask, "_search_group", full)
    assert [f.target for f in surveyed(canvases={"white": 1})] == [0, 1, 2]
    assert searched == [[0, 1, 2], [0], [1], [2]]


@pytest.mark.parametrize("kind", ["positive", "noise"])
def test_a_class_gives_as_many_canvases_as_it_has_images_and_noise_takes_none(searches, kind):
    own = torch.tensor([0, 0, *[1] * 29, *[2] * 29])
    list(surveyed(search=(SEARCH, own), canvases={kind: 5}))
    groups = [[0] * 2, [1] * 5 + [2] * 5] if kind != "noise" else [[0] * 5 + [1] * 5 + [2] * 5]
    assert [targets for targets, *_ in searches] == groups


def test_what_is_found_does_not_depend_on_the_classes_searched_together():
    """With a budget, and classes of very different sizes."""
    few = {"canvases": {"positive": 12, "white": 1}, "budget": 2_500, "seed": 1}
    sizes = torch.tensor([*[0] * 4, *[1] * 16, *[2] * 40])
    together, alone = (
        list(surveyed(search=(SEARCH, sizes), classes_together=n, **few)) for n in (3, 1)
    )
    assert_alike(together, alone)


@pytest.mark.parametrize(
    ("limits", "asked", "n"),
    [
        ({"budget": 500}, 32, 2),
        ({"budget": 1_399}, 32, 6),
        ({"budget": 3_000}, 32, 13),
        ({"budget": 8_000}, 32, 20),  # the class has 20
        ({"budget": 400, "n_steps": 2}, 5, 5),  # the steps override the budget
    ],
)
def test_a_small_budget_takes_fewer_canvases(limits, asked, n):
    [found] = surveyed(classes=[1], canvases={"positive": asked}, **limits)
    assert found.pattern.info["searched_together"] == n


def test_the_budget_is_for_each_class_and_kind():
    budget = 1_000
    for found in surveyed(canvases={"positive": 4, "white": 2}, classes=[0, 2], budget=budget):
        info = found.pattern.info
        assert info["settings"]["budget"] == budget
        of_each = info["passes_together"] / 2  # two classes
        assert 0.7 * budget < of_each <= budget


def test_the_precision_reaches_each_search_and_a_guess_is_pointed_out_once():
    few = {"classes": [0, 1], "canvases": {"white": 1}, "n_steps": 2, "precision": "bfloat16"}
    found = []
    warned = warnings_of(lambda: found.extend(surveyed(**few)))
    assert {each.pattern.info["settings"]["precision"] for each in found} == {"bfloat16"}
    assert sum("of 60 held-out images correctly, which is" in text for text in warned) == 1


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("classes", [[1], range(6)])
def test_held_out_images_are_predicted_once_whatever_the_number_of_classes(classes, labelled):
    """Without a pattern: for the accuracy, for missing labels, and as the control of each class."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 6, bias=False)).eval()
    given = Counter()

    def classifier(images):
        given.update(image.numpy().tobytes() for image in images.detach())
        return net(images - 0.5)

    search, held_out = torch.rand(2, 120, 1, 6, 6)
    labels = torch.arange(120) % 6 if labelled else None
    few = {"canvases": {"positive": 2, "white": 1}, "classes": classes}
    found = surveyed(classifier, (search, labels), (held_out, labels), **few)
    assert len(found.findings) == 2 * len(classes)
    found.plot(use_pyplot=False)
    assert (found.info["accuracy"] is None) is not labelled
    assert {given[image.numpy().tobytes()] for image in held_out} == {1}


# ---- iterating, and the folder


@pytest.fixture
def searched(monkeypatch):
    """The classes that were searched, in groups."""
    groups, original = [], SurveyTask._search_group

    def search_group(self, group, left):
        groups.append(list(group))
        return original(self, group, left)

    monkeypatch.setattr(SurveyTask, "_search_group", search_group)
    return groups


def interrupt(monkeypatch, at):
    """Ctrl+C in the scoring of a pattern, counted from 0."""
    original, left = SurveyTask._score, iter(range(at))

    def score(self, *arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(SurveyTask, "_score", score)


@pytest.fixture(scope="module")
def whole():
    """The findings of that survey, without a folder and without an interrupt."""
    return begun().findings


def same(findings, others):
    return len(findings) == len(others) and all(
        (one.target, one.canvas, one.scores, one.class_name)
        == (other.target, other.canvas, other.scores, other.class_name)
        and all(torch.equal(one.patterns[a].mask, other.patterns[a].mask) for a in one.patterns)
        for one, other in zip(findings, others)
    )


def test_a_survey_is_its_findings(searched, whole):
    before = torch.get_rng_state()
    with torch.no_grad():
        found = begun()
        assert not torch.is_grad_enabled()
    assert torch.equal(before, torch.get_rng_state())
    assert searched == [[0], [1], [2]]
    kinds = [(target, kind) for target in range(3) for kind in ("positive", "white")]
    assert [(f.target, f.canvas) for f in found] == kinds
    assert (len(found), list(found)) == (6, found.findings)
    assert (found.classes, found.canvases, found.areas) == (
        [0, 1, 2],
        ["positive", "white"],
        [0.2, 0.1],
    )
    assert repr(found) == "Survey(6 findings on positive, white canvases, areas 0.2, 0.1)"
    assert same(found, whole)


def test_the_bar_says_which_class_is_searched(terminal):
    begun(show_progress=True, classes_together=1)
    assert re.findall(r"\rSearching: 100%.*, class 2 *\n", terminal.readouterr().err)
    begun(show_progress=True, classes_together=3)
    assert re.findall(r", class 0 and 2 more *\n", terminal.readouterr().err)


def test_the_bar_can_not_be_made_to_control_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    names = ["\x1b]0;title\x07cat", "\x1b[2Jdog", "bee\n"]
    named = PixelClassifier(NET, class_names=names)
    begun(named, show_progress=True, classes_together=1)
    begun(named, show_progress=True, classes=[1])
    explain_class(named, SEARCH, LABELS, target=1, n_steps=2, show_progress=True)
    shown = capsys.readouterr().err
    assert not {"\x1b", "\x07", "\N{RIGHT-TO-LEFT OVERRIDE}"} & {*shown}
    assert ", bee?" in shown
    assert ", ?[2Jdog" in shown


@pytest.mark.parametrize("at", [0, 6])  # of 12 patterns, 4 per class
def test_an_interrupted_survey_keeps_its_classes_and_goes_on(whole, monkeypatch, tmp_path, at):
    finished = whole[: 2 * (at // 4)]
    with monkeypatch.context() as patch:
        interrupt(patch, at)
        with pytest.raises(KeyboardInterrupt):
            begun(folder=tmp_path)
    with monkeypatch.context() as patch:  # without a folder
        interrupt(patch, at)
        with pytest.raises(SurveyInterrupted) as stopped:
            begun()
    assert same(stopped.value.survey.findings, finished)
    if finished:
        kept = Survey.load(tmp_path)
        assert not kept.info["complete"]
        assert same(kept, finished)
    assert same(begun(folder=tmp_path, resume=True), whole)
    assert Survey.load(tmp_path).info["complete"]


@pytest.mark.parametrize("net", [NET, lambda images: NET(images)], ids=["module", "function"])
def test_a_finished_survey_in_a_folder_is_not_searched_again(whole, tmp_path, searched, net):
    assert same(begun(net, folder=tmp_path).findings, whole)
    searched.clear()
    assert same(begun(net, folder=tmp_path, resume=True).findings, whole)
    assert searched == []
    with pytest.raises(ValueError, match="holds results already: pass `resume=True`"):
        begun(folder=tmp_path)


def test_a_folder_is_complete_if_all_classes_that_were_requested_are_there(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            begun(classes=[0, 1], folder=tmp_path)
    assert not Survey.load(tmp_path).info["complete"]
    more = begun(classes=[2, 0], folder=tmp_path, resume=True)
    assert (len(more), [f.target for f in more]) == (4, [0, 0, 2, 2])  # what it holds comes first
    assert not Survey.load(tmp_path).info["complete"]  # class 1 is missing
    begun(classes=[1], folder=tmp_path, resume=True)
    info = Survey.load(tmp_path).info
    assert (info["complete"], info["classes"]) == (True, [0, 1, 2])


class Shift(nn.Module):
    """A layer whose tensor is neither a parameter nor a buffer."""

    def __init__(self, by):
        super().__init__()
        self.by = torch.tensor(by)

    def forward(self, images):
        return images - self.by


def with_layer(layer, changed=0.0):
    """A model that was loaded from a file, perhaps with another weight."""
    net = nn.Sequential(layer, *copy.deepcopy(NET)).eval()
    with torch.no_grad():
        net[2].weight[0, 0] += changed
    net.provenance = {"sha256": "of the file, which is the same"}
    return net


class Guarded(nn.Module):
    """A defence, switched on by a plain attribute, that takes white pixels for stickers."""

    def __init__(self, on):
        super().__init__()
        self.net, self.on, self.training = NET, on, False

    def forward(self, images):
        return self.net(images.where(images < 0.995, 0) if self.on else images)


OTHERS = {  # what a survey begins with, and what it continues with
    "a plain tensor": ({"net": with_layer(Shift(0.0))}, {"net": with_layer(Shift(1e-6))}),
    "the activation": ({"net": with_layer(nn.ReLU())}, {"net": with_layer(nn.Tanh())}),
    "a weight": ({"net": with_layer(nn.ReLU())}, {"net": with_layer(nn.ReLU(), 1e-6)}),
    "an attribute": ({"net": Guarded(False)}, {"net": Guarded(True)}),
    "a function": ({}, {"net": lambda images: NET(images.flip(3))}),
    "search images": ({}, {"search": SEARCH.flip(0)}),
    "held-out images": ({}, {"held_out": HELD_OUT.flip(0)}),
    "steps": ({}, {"n_steps": 3}),
    "a budget": ({}, {"budget": 2_000}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_settings_are_refused_on_resume(tmp_path, case, snapshot, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, after = OTHERS[case]
    begun(classes=[0], folder="out", **before)
    assert len(begun(classes=[0], folder="out", resume=True, **before)) == 2
    text = refusal(lambda: begun(classes=[0], folder="out", resume=True, **after))
    assert re.sub("[0-9a-f]{32,}", "HASH", text) == snapshot


def test_the_same_model_continues_whatever_calls_and_rounds_it(tmp_path):
    begun(classes=[0], folder=tmp_path)

    def nearly(images):  # as on another processor
        return NET(images) * (1 + 1e-4)

    assert len(begun(classes=[0, 1], folder=tmp_path, resume=True, net=nearly)) == 4


class Remembers(nn.Module):
    """A network that keeps what it was last shown."""

    def __init__(self):
        super().__init__()
        self.network, self.last = NET, None

    def forward(self, images):
        self.last = images
        return self.network(images)


def test_a_model_that_remembers_images_continues_what_was_saved(tmp_path):
    begun(net=Remembers().eval(), classes=[0]).save(tmp_path)
    assert len(begun(net=Remembers().eval(), folder=tmp_path, resume=True)) == 6


def test_a_survey_is_saved_and_loaded(tmp_path, monkeypatch):
    found = begun()
    found.save(tmp_path)
    loaded = Survey.load(tmp_path)
    loaded.save(tmp_path / "copy")
    for other in (loaded, Survey.load(tmp_path / "copy"), begun(folder=tmp_path, resume=True)):
        assert same(other, found.findings)
        assert len(other) == 6
    assert loaded.info["settings"]["n_steps"] == 1
    pandas.testing.assert_frame_equal(loaded.table(), found.table())
    assert loaded.strongest("white", 0.2) == found.strongest("white", 0.2)
    monkeypatch.setattr("captum_classpattern.surveys.results.MOST", 2)
    figure, axes = loaded.plot(use_pyplot=False)
    assert len(axes) == 2
    assert figure.get_suptitle() == "The best canvas of each class (2 of 3, the strongest)"
    with pytest.raises(ValueError, match="there is nothing to draw"):
        Survey().plot()


def test_a_survey_with_other_settings_replaces_nothing(tmp_path):
    begun(folder=tmp_path)
    (tmp_path / "results.json").unlink()  # as where the first search was killed
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"another search \(n_steps 1 then, 2 now\)"):
        begun(n_steps=2).save(tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_what_is_saved_says_itself_whether_it_is_complete(tmp_path):
    """A survey of one class that was loaded as complete, and then got the findings of others."""
    begun(classes=[0], folder=tmp_path / "first")
    loaded, more = Survey.load(tmp_path / "first"), begun(classes=[1, 2])
    assert (loaded.info["complete"], loaded.info["classes"]) == (True, [0])
    replace(loaded, findings=[*loaded, *more]).save(tmp_path / "all")
    whole = Survey.load(tmp_path / "all")
    assert (whole.info["complete"], whole.info["classes"]) == (True, [0, 1, 2])
    replace(loaded, info={**loaded.info, "complete": False}).save(tmp_path / "one")
    assert Survey.load(tmp_path / "one").info["complete"]


# ---- what a survey reports


COLUMNS = ["class", "name", "power", "control", "canvas", "area"]


def test_the_table_has_a_row_for_each_class_kind_of_canvas_and_area(findings):
    table, few = (Survey(findings).table(full=full) for full in (True, False))
    assert [*few] == COLUMNS
    assert few.equals(table[COLUMNS])
    assert list(table["class"]) == [y for y in range(3) for _ in range(4)]
    assert list(table["canvas"]) == ["positive", "positive", "white", "white"] * 3
    assert list(table["area"]) == [*findings[0].scores] * 6
    for row, found in zip(table.query("area == 0.1").to_dict("records"), findings, strict=True):
        scores = found.scores[0.1]
        assert (row["low"], row["high"]) == scores.power.interval
        assert row["power"] == scores.power.value
        assert row["control"] == scores.strongest_control
        assert row["random_pixels"] == scores.random_pixels
        assert row["beats_controls"] == scores.beats_controls
        assert (row["images"], row["no_pattern"]) == (40, scores.power.without)
        as_json = json.loads(json.dumps(found.as_dict()))
        assert as_json["areas"]["0.1"]["power"] == scores.power.value
        assert as_json["areas"]["0.1"]["passes"] == found.patterns[0.1].info["passes"]
        assert as_json["class"] == found.target


LONG = "horned viper, cerastes, sand viper, horned asp, Cerastes cornutus"  # of ImageNet


def test_a_table_fits_80_columns_with_long_names_and_has_the_power_among_the_first_three(capsys):
    """As pandas prints it, and as the command line does."""
    one = replace(made_up(999, "positive", 33), class_name=LONG)
    survey_of_many = Survey([replace(one, class_name=f"{LONG} {i}") for i in range(1000)])
    options = ("display.width", 80, "display.max_columns", 20)
    for found in (one, survey_of_many):
        with pandas.option_context(*options):
            head, *rows = repr(found.table()).splitlines()
        assert head.split() == COLUMNS
        assert max(map(len, rows)) <= 80
        assert rows[0].split()[-4:] == ["0.33", "0.03", "positive", "0.05"]
        print_result(found, 5)
        head, *rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
        assert head.split() == COLUMNS
        assert max(map(len, rows)) <= 80
    full = one.table(full=True)
    assert full["name"].tolist() == [LONG] * 2


STRONGEST = {
    "of two": ((50, 90), 2, {}),
    "no more than chance": ((85, 90), 2, {}),
    "of an unknown number": ((50, 90), None, {}),
    "two of ten": ((50, 90), 10, {}),
    "one of ten": ((90,), 10, {}),
    "of few images": ((5, 55), 2, {"n": 60}),
}


@pytest.mark.parametrize("case", STRONGEST)
def test_whether_the_strongest_class_stands_out_is_said(case, snapshot):
    powers, n_classes, changes = STRONGEST[case]
    found = Survey([made_up(y, "white", n, **changes) for y, n in enumerate(powers)], n_classes)
    said = found.text().partition("\n")[2]
    assert [found.strongest("white", 0.05), said] == snapshot


def test_the_strongest_control_is_named():
    found = made_up(0, "white", 90)
    scores = replace(found.scores[found.area], random_pixels=0.1, other_canvas=0.4)
    assert scores.strongest_name == "other canvas"
    said = replace(found, scores={found.area: scores}).text()
    assert "The strongest control, the same mask on another class's canvas, reaches 40.0 %." in said
    scores = replace(scores, random_pixels=0.5)
    said = replace(found, scores={found.area: scores}).text()
    assert "The strongest control, random pixels, reaches 50.0 %." in said


def test_the_best_canvas_is_chosen_on_the_search_images_not_on_the_held_out_ones():
    better = made_up(0, "positive", hits=10, search_power=0.9)
    worse = made_up(0, "white", hits=90, search_power=0.8)
    other = made_up(1, "white", hits=5, search_power=0.1)
    assert Survey([worse, better, other]).best_canvases() == [better, other]


# ---- what a user gives, and what it costs


def test_it_splits_normalises_and_names_as_explain_class_does():
    pets = LabelledImages(SEARCH, LABELS, ["ant", "bee", "cat"])
    settings = {"areas": (0.2,), "canvases": "white", "n_steps": 1}
    found = survey(NET, pets, mean=0.5, std=0.5, classes=["bee"], **settings).findings
    halves = LabelledImages(SEARCH, LABELS).halves(0)
    by_hand = survey(PixelClassifier(NET, 0.5, 0.5), *halves, classes=[1], **settings).findings
    explained = explain_class(
        NET, pets, target="bee", mean=0.5, std=0.5, area=0.2, canvases="white", n_steps=1
    )
    assert [each.scores for each in found] == [each.scores for each in by_hand]
    assert found[0].scores == explained.scores
    assert (found[0].label, found[0].pattern.label) == ("bee", "bee")
    turned = LabelledImages(SEARCH, 2 - LABELS, ["cat", "bee", "ant"])
    names = {"class_names": ["ant", "bee", "cat"], "mean": 0.5, "std": 0.5}
    [again] = survey(NET, turned, **names, classes=["bee"], **settings)
    assert (again.target, again.label) == (1, "bee")
    [again] = survey(
        lambda x: NET(x), (SEARCH, LABELS), class_names=names["class_names"], classes=["bee"],
        **settings,
    )  # fmt: skip
    assert (again.target, again.label) == (1, "bee")


@pytest.mark.parametrize(
    "settings",
    [
        {"budget": 500, "areas": (0.2,)},
        {"budget": 500, "canvases": "white"},
        {"n_steps": 4, "classes": [1]},
    ],
)
def test_the_bar_is_where_the_passes_are(settings):
    images = torch.rand(300, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    settings = {"areas": (0.2, 0.1), **settings}
    assert error_of_bar(NET, (images, torch.arange(300) % 3), **settings) < 0.2


# ---- what is refused


ONE = Survey([made_up(0, "white", 5)])
REFUSED_AT_ONCE = {
    "class 7 of 3": {"classes": [0, 7]},
    "no canvas of a kind": {"canvases": {"white": 0}},
    "no canvases": {"canvases": {}},
    "an area of no pixel": {"areas": (0.2, 0.0)},
    "no classes": {"classes": []},
    "budget": {"budget": 0},
    "held-out images of another shape": {"held_out": HELD_OUT[..., :5]},
}


@pytest.mark.parametrize("case", REFUSED_AT_ONCE)
def test_refusals_before_anything_is_searched(case, snapshot, tmp_path):
    assert refusal(lambda: begun(folder=tmp_path, **REFUSED_AT_ONCE[case])) == snapshot
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_noticed_before_any_pass(tmp_path):
    """By survey, sweep and scan, also where a file is in the way."""

    def unused(pixels):
        raise AssertionError("it was called")

    (tmp_path / "file").touch()
    data, place = ((SEARCH, LABELS), (HELD_OUT, LABELS)), tmp_path / "file" / "new"
    calls = [
        lambda: survey(unused, *data, folder=place),
        lambda: sweep({"a": unused}, *data, folder=place),
        lambda: scan(unused, SEARCH, LABELS, folder=place),
    ]
    said = f"ValueError: {tmp_path / 'file'} is not a folder that can be written: give another one"
    assert [refusal(call) for call in calls] == [said] * 3


REFUSALS = {
    "labels at the place of held-out images": lambda: survey(NET, SEARCH, LABELS),
    "images in both sets": lambda: list(surveyed(held_out=(SEARCH, LABELS), classes=[0])),
    "no held-out images of others": lambda: list(surveyed(held_out=(HELD_OUT, [0] * 60))),
    "few validation images": lambda: list(surveyed(search=(SEARCH[:4], LABELS[:4]))),
    "scores of another canvas": lambda: ONE.scores("black", 0.05),
    "scores at another area": lambda: ONE.scores("white", 0.5),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


def test_classes_may_be_a_tensor_but_no_text():
    found = surveyed(classes=torch.tensor([2, 0]), canvases="white")
    assert {*found.classes} == {0, 2}
    said = refusal(lambda: surveyed(classes="dog"))
    assert said.endswith("`classes` must be a list of classes, got 'dog'")


@pytest.mark.filterwarnings("ignore:the model's outputs are all")
def test_a_model_that_returns_probabilities_has_the_margins_and_captions_of_its_logits():
    found = [
        surveyed(net, canvases="white", classes=[1], n_steps=4).findings[0]
        for net in (NET, nn.Sequential(NET, nn.Softmax(1)).eval())
    ]
    margins = [finding.power.mean_margin for finding in found]
    assert margins[0] == pytest.approx(margins[1], abs=1e-4)
    margins = [finding.pattern.info["search_margin"] for finding in found]
    assert margins[0] == pytest.approx(margins[1], abs=1e-4)
    shares = [finding.stamped[0.2].probabilities for finding in found]
    assert shares[0] == pytest.approx(shares[1], abs=1e-4)


def test_a_class_with_fewer_kinds_of_canvas_is_searched_again(tmp_path):
    whole = surveyed(canvases=["white", "black"], classes=[1], folder=tmp_path)
    Survey(whole.findings[:1], 3, whole.info).save(tmp_path)
    assert len(Survey.load(tmp_path)) == 1
    again = surveyed(canvases=["white", "black"], classes=[1], folder=tmp_path, resume=True)
    assert [(f.target, f.canvas) for f in again] == [(1, "white"), (1, "black")]

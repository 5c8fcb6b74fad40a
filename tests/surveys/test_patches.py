"""Moving patches in surveys: which defaults large images have, what is found, and its controls."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from entered import entered
from searched import targets_of
from surveyed import assert_alike, error_of_bar
from surveyed import finding as made_up
from torch import nn

from captum_classpattern import (
    Cells,
    LabelledImages,
    Notice,
    explain_class,
    predictive_power,
    survey,
)
from captum_classpattern.images import evenly_spaced
from captum_classpattern.optimization import Swap
from captum_classpattern.optimization.plan import classes_at_once
from captum_classpattern.pattern import MovingPattern
from captum_classpattern.scores.power import best_square
from captum_classpattern.surveys import Scores, Survey, SurveyInterrupted, task
from captum_classpattern.surveys.settings import SurveySettings
from captum_classpattern.surveys.task import SurveyTask

SIZE, CLASSES = 12, 4
QUICK = {"canvases": "patch", "n_steps": 40, "show_progress": False}
NAMES = ["ant", "bee", "cat", "dog"]


class Bright(nn.Module):
    """A linear map; a white square of 3 x 3, anywhere, is a dog."""

    class_names = NAMES

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(SIZE * SIZE, CLASSES)

    def forward(self, images):
        logits = self.linear(images.flatten(1)) - self.linear.bias
        brightest = nn.functional.avg_pool2d(images, 3, 1).amax((1, 2, 3))
        return logits + 60 * (brightest - 0.87)[:, None] * torch.eye(CLASSES)[3]


NET = Bright().eval().requires_grad_(False)


def images(seed, count=160):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    made = 0.8 * torch.rand(count, 1, SIZE, SIZE, generator=generator)
    made[labels == 3, :, 4:10, 4:10] = 1.0  # dogs are bright
    return LabelledImages(made, labels, NAMES)


SEARCH, HELD_OUT = images(0), images(1)
MODEL = entered(NET, SEARCH.first())


@pytest.fixture(scope="module")
def found():
    return survey(NET, SEARCH, HELD_OUT, areas=(0.2, 0.06), **QUICK)


def test_the_patch_covers_the_area_and_is_scored_as_by_predictive_power(found):
    assert [(f.target, f.canvas) for f in found] == [(y, "patch") for y in range(CLASSES)]
    for finding in found:
        for area, side in ((0.2, 6), (0.06, 3)):  # the smallest square that covers it
            patch, scores = finding.patterns[area], finding.scores[area]
            assert (type(patch), patch.mask.shape) == (MovingPattern, (1, side, side))
            assert patch.size == (SIZE, SIZE)
            assert scores.power == predictive_power(NET, patch, HELD_OUT)
    planted, clean = found.findings[3], found.findings[0]
    assert planted.power.value > 0.9 > 0.5 > clean.power.value
    assert planted.label == "dog"


def test_controls_are_shuffled_pixels_another_class_and_the_best_square(found):
    for finding in found:
        patch, scores = finding.pattern, finding.scores[0.2]
        others = HELD_OUT.without_class(finding.target)
        hits = 0
        for i in range(3):
            part = others.subset(range(i, len(others), 3))
            stamped = patch.shuffled(i).stamp(part.images, seed=0)
            hits += int((NET(stamped).argmax(1) == finding.target).sum())
        assert scores.random_pixels == pytest.approx(hits / len(others))
        other = found.findings[(finding.target + 1) % CLASSES].pattern  # of the next class
        stamped = other.stamp(others.images, seed=0)
        share = (NET(stamped).argmax(1) == finding.target).float().mean()
        assert scores.other_canvas == pytest.approx(float(share))
        square = best_square(MODEL, patch, SEARCH, seed=0)
        assert scores.best_square == predictive_power(NET, square, HELD_OUT).value
        names = ["no pattern", "shuffled pixels", "other patch", "best square"]
        assert list(scores.controls) == names
    # a square of a dog is as bright as the patch: the control is as strong
    assert found.findings[3].scores[0.2].best_square > 0.9
    assert not found.findings[3].scores[0.2].beats_controls


def test_the_best_square_is_the_best_of_32_on_search_images():
    opaque = torch.ones(1, 4, 4)
    patch = MovingPattern(torch.zeros(1, 4, 4), opaque, 1, size=(SIZE, SIZE))
    found = best_square(MODEL, patch, SEARCH, seed=7)
    chance, own = np.random.default_rng([7, 1]), SEARCH.images[SEARCH.labels == 1]
    others = SEARCH.without_class(1)
    others = others.subset(evenly_spaced(len(others), 12)).images
    squares, margins = [], []
    chosen = chance.integers(len(own), size=32)
    for number in chosen:
        row, column = chance.integers(9), chance.integers(9)
        colours = own[number, :, row : row + 4, column : column + 4]
        square = replace(patch, canvas=colours)
        logits = NET(square.stamp(others, seed=7))
        rest = logits[:, [0, 2, 3]].amax(1)
        margins.append(float((logits[:, 1] - rest).mean()))
        squares.append(colours)
    assert torch.equal(found.canvas, squares[int(np.argmax(margins))])
    assert bool((found.mask == 1).all())
    assert best_square(MODEL, patch, SEARCH.without_class(1), seed=7) is None


def test_a_class_alone_is_compared_with_a_full_search_of_the_next():
    for classes, other in ((["cat"], 3), ([2, 0], 3), ([0, 2], 3)):
        found = survey(NET, SEARCH, HELD_OUT, areas=(0.2,), classes=classes, **QUICK)
        [cat] = [each for each in found if each.target == 2]
        [same] = survey(NET, SEARCH, HELD_OUT, areas=(0.2,), classes=[other], **QUICK)
        others = HELD_OUT.without_class(2).images
        hits = NET(same.pattern.stamp(others, seed=0)).argmax(1) == 2
        assert cat.scores[0.2].other_canvas == pytest.approx(float(hits.float().mean()))
        assert same.pattern.info["passes"] == cat.pattern.info["passes"] == 4 * 40


def test_a_class_without_images_has_no_square():
    search = SEARCH.without_class(2)
    [found] = survey(NET, search, HELD_OUT, areas=(0.2,), classes=[2], **QUICK)
    scores = found.scores[0.2]
    assert scores.best_square is None
    assert list(scores.controls) == ["no pattern", "shuffled pixels", "other patch"]
    assert Scores.from_dict(scores.as_dict(), moving=True) == scores
    assert "best_square" not in found.table(full=True)
    assert "32 squares" not in found._repr_html_()  # nor is it listed on its page


def test_explain_class_has_the_better_of_patch_and_photo():
    found = explain_class(
        NET, SEARCH, target="dog", held_out=HELD_OUT, area=0.2, n_steps=40,
        canvases={"positive": 2, "patch": 1}, show_progress=False,
    )  # fmt: skip
    kinds = {each.canvas: each.search_powers[0.2] for each in (found, *found.others)}
    assert found.canvas == max(kinds, key=kinds.get)
    assert [each.canvas for each in found.on_each_canvas] == ["patch", "positive"]
    assert "of the pixels: patch 100.0 %, positive canvas" in repr(found)
    assert found.stamp(HELD_OUT.images[:3]).shape == (3, 1, SIZE, SIZE)
    [patch] = (each for each in found.on_each_canvas if each.is_patch)
    fixed = patch.stamp(HELD_OUT.images[:3], places=(0, 2))
    assert torch.equal(fixed, patch.pattern.stamp(HELD_OUT.images[:3], places=(0, 2)))


def test_a_folder_page_and_figure_have_the_patch(found, tmp_path):
    found.save(tmp_path)
    loaded = Survey.load(tmp_path)
    first = loaded.findings[3]
    assert "With a patch" not in first.text()
    assert "Stamped with a patch of 6 x 6 pixels at random places, " in first.text()
    _, axes = found.plot(use_pyplot=False)
    assert axes[0, 0].images[0].get_array().shape == (6, 6, 3)
    page = found.to_html(tmp_path / "page.html").read_text()
    assert "the best of 32 squares" in page
    assert "best square" in page
    assert "Patch" in first._repr_html_()
    assert "patch, 20 % of the pixels: dog" in found.strongest("patch", 0.2)
    table = found.table(full=True)
    assert table["best_square"].tolist() == [
        s.best_square for f in found for s in f.scores.values()
    ]


def test_a_result_without_power_says_what_to_try():
    weak, strong = made_up(0, "white", 9), made_up(1, "white", 40)
    assert "try a moving patch" in repr(weak)
    assert "try" not in strong.text() + repr(strong)
    patch = made_up(2, "patch", 0)
    assert "try a larger `area`" in patch.text()
    few = made_up(1, "white", 2, n=60)
    for each in (weak, few, Survey([weak]), Survey([few])):
        assert "No strong pattern was found: try a moving patch" in each.text()
    assert "try" not in Survey([weak, strong]).text()


def test_where_a_control_is_strong_the_area_is_too_large():
    strong, weak = made_up(1, "patch", 100, control=0.68), made_up(1, "positive", 9)
    said = (
        "ontrol reaches 68.0 %, so 5 % of the pixels is too large an area to tell classes apart: "
        "search a smaller one, `area=0.013`"
    )
    found = replace(weak, others=(strong,))  # also if the text is about another canvas
    for each in (found.text(), repr(found), Survey([strong, weak]).text()):
        assert said in each
    one_of_two = Survey([strong, made_up(2, "positive", 90)])
    biased = made_up(1, "white", 90)
    power = replace(biased.power, without=0.8)
    biased = replace(biased, scores={0.05: replace(biased.scores[0.05], power=power)})
    for each in (one_of_two.text(), biased.text()):
        assert "too large" not in each


@pytest.mark.parametrize(
    ("size", "areas", "kinds"),
    [
        ((63, 80), (0.05, 0.01), {"positive": 32, "white": 1, "black": 1}),
        ((64, 80), (0.18,), {"positive": 32, "patch": 1}),
    ],
)
def test_large_images_have_other_defaults(size, areas, kinds):
    shape = (3, *size)
    settings = SurveySettings.of(shape, seed=3)
    assert (settings.areas, settings.canvases, settings.seed) == (areas, kinds, 3)
    assert settings.solver == Swap(pool_budget=430 if "patch" in kinds else 7_000)
    assert settings.budget is None
    together = classes_at_once(torch.device("cpu"), LabelledImages(torch.rand(2, *shape)))
    assert together == (1 if "patch" in kinds else 10)
    assert SurveySettings.of(shape, n_steps=5).solver == Swap()
    assert SurveySettings.of(shape, budget=500).solver == Swap()
    given = SurveySettings.of(shape, [0.3], "white")
    assert (given.areas, given.canvases) == ((0.3,), {"white": 1})
    assert given.solver == Swap(pool_budget=960 if "patch" in kinds else 7_000)  # without a patch
    for named in ("white", ["positive", "patch"]):  # the size decides, whatever the canvases
        assert SurveySettings.of(shape, canvases=named).areas == areas
    assert SurveySettings.of(shape, [0.3]).canvases == kinds
    assert SurveySettings.of(shape, canvases=4).canvases == {**kinds, "positive": 4}


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((65, 300), {"areas": [0.3]}),
        ((64, 400), {}),
        ((64, 64), {"areas": [0.97]}),
        ((64, 64), {"feature_mask": Cells(8)}),
    ],
)
def test_a_patch_that_cannot_move_or_has_no_features_is_none_of_the_defaults(size, options):
    shape = (3, *size)
    alone = SurveySettings.of(shape, **options)
    assert (alone.canvases, alone.solver) == ({"positive": 32}, Swap(pool_budget=960))
    assert "patch" in SurveySettings.of(shape, canvases="patch", **options).canvases


@pytest.mark.parametrize(
    ("kinds", "steps", "passes"), [("patch", 3, 12), (["patch", "white"], None, 680)]
)
def test_steps_are_those_of_canvases_if_there_are_any(kinds, steps, passes):
    quick = {"n_steps": 3, "show_progress": False}
    found = survey(NET, SEARCH, HELD_OUT, canvases=kinds, areas=(0.2, 0.06), classes=[1], **quick)
    info = found.findings[0].pattern.info
    assert (info["settings"]["n_steps"], info["passes"]) == (steps, passes)


def test_a_patch_may_have_a_small_budget():
    found = survey(NET, SEARCH, HELD_OUT, canvases="patch", budget=80, show_progress=False)
    assert {finding.pattern.info["passes"] for finding in found} == {24}  # after the race
    assert {finding.pattern.info["passes_together"] <= 4 * 80 for finding in found} == {True}


def test_a_search_takes_one_step_where_the_budget_is_too_small_for_it():
    kinds = ["patch", "positive", "white"]
    with pytest.warns(Notice, match="`budget=1` is too small: the search takes the least"):
        found = survey(NET, SEARCH, HELD_OUT, canvases=kinds, budget=1, classes=[1])
    assert [each.pattern.info["settings"]["n_steps"] for each in found] == [1, 1, 1]
    assert sum(each.pattern.info["passes_together"] for each in found) < 1_000


@pytest.mark.parametrize("find", [survey, explain_class])
def test_an_area_that_is_too_large_is_named(find):
    options = {"canvases": "patch", "areas": [0.9]}
    if find is explain_class:
        options = {"canvases": "patch", "area": 0.9, "target": 1}
    with pytest.raises(ValueError, match=r"a patch of 12 x 12 .* choose a smaller `area`"):
        find(NET, SEARCH, **options)


def test_a_patch_has_no_canvases():
    with pytest.raises(ValueError, match=r"3 of 'patch'.* so give 1"):
        survey(NET, SEARCH, HELD_OUT, canvases={"patch": 3})


def test_18_percent_of_a_photo_is_a_square_of_96_pixels():
    settings = SurveySettings(areas=(0.18, 0.25))
    for side, expected in ((64, [28, 32]), (224, [96, 112])):
        assert [each.side for each in settings.patches((3, side, side))] == expected


class Large(nn.Module):
    """The mean of each third of an image."""

    def forward(self, images):
        return torch.stack([part.mean((1, 2, 3)) for part in images.chunk(3, 3)], 1)


def test_large_images_are_explained_by_a_patch_unless_it_is_said_otherwise():
    generator = torch.Generator().manual_seed(0)
    photos, labels = torch.rand(24, 1, 64, 66, generator=generator), torch.arange(24) % 3
    quick = {"n_steps": 2, "target": 1, "show_progress": False}
    found = explain_class(Large().eval(), photos, labels, **quick)
    assert {each.canvas for each in found.on_each_canvas} == {"positive", "patch"}
    assert found.area == 0.18
    white = explain_class(Large().eval(), photos, labels, canvases="white", area=0.1, **quick)
    assert (white.canvas, white.area, white.others) == ("white", 0.1, ())


def searches(monkeypatch):
    """The classes and the side of each search of patches."""
    original, searched = task.find_patterns, []

    def noting(plan):
        searched.append((targets_of(plan), plan.settings.solver.side))
        return original(plan)

    monkeypatch.setattr(task, "find_patterns", noting)
    return searched


def test_each_patch_is_searched_once_and_a_survey_goes_on(tmp_path, monkeypatch):
    options = {**QUICK, "n_steps": 5, "areas": (0.2, 0.06), "classes_together": 1}
    searched = searches(monkeypatch)
    whole = survey(NET, SEARCH, HELD_OUT, **options)
    assert searched == [(y, side) for y in ([0, 1], [2], [3]) for side in (6, 3)]
    score, left = SurveyTask._score, iter(range(3))  # in the second class

    def stopping(self, *arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return score(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SurveyTask, "_score", stopping)
        with pytest.raises(SurveyInterrupted):
            survey(NET, SEARCH, HELD_OUT, folder=tmp_path, **options)
    searched.clear()
    resumed = survey(NET, SEARCH, HELD_OUT, folder=tmp_path, resume=True, **options)
    assert searched == [(y, side) for y in ([1, 2], [3]) for side in (6, 3)]
    assert_alike(whole, resumed)
    again = Survey.load(tmp_path)
    assert [each.scores for each in again] == [each.scores for each in resumed]


@pytest.mark.parametrize("classes", [[0], [0, 1, 2]])
def test_the_bar_is_where_the_passes_are(classes):
    settings = {"areas": [0.2], "canvases": "patch", "classes": classes}
    assert error_of_bar(NET, SEARCH, HELD_OUT, **settings) < 0.2

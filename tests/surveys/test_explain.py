"""explain_class against the survey that it stands for, and what it asks of models and images."""

import copy
import itertools
import re
import time

import matplotlib
import pandas
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from captum_classpattern import LabelledImages, PixelClassifier, explain_class, survey
from captum_classpattern.surveys import explain
from captum_classpattern.visualization.formats import percent

NAMES = ["ant", "bee", "cat"]
CANVASES = {"positive": 2, "white": 1, "black": 1}
QUICK = {"area": 0.2, "canvases": CANVASES, "n_steps": 3}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    with torch.no_grad():
        network[1].weight.mul_(3)
    return network


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return LabelledImages(torch.rand(120, 1, 6, 6, generator=generator), torch.arange(120) % 3)


@pytest.fixture(scope="module")
def found(net, images):
    return explain_class(net, images, target=1, **QUICK)


def same(one, other):
    """Whether two findings are of the same pixels, with the same scores."""
    return (
        torch.equal(one.pattern.canvas, other.pattern.canvas)
        and torch.equal(one.pattern.mask, other.pattern.mask)
        and (one.canvas, one.scores) == (other.canvas, other.scores)
    )


def test_it_is_a_survey_of_one_class_whose_judging_images_choose_the_canvas(net, images, found):
    search, held_out = images.halves(0)
    by_hand = survey(
        net, search, held_out, classes=[1], canvases=CANVASES, areas=[0.2], n_steps=3
    ).findings
    best = max(by_hand, key=lambda each: each.pattern.info["search_power"])
    assert same(found, best)
    others = [each for each in by_hand if each.canvas != best.canvas]
    assert len(found.others) == len(others) == 2
    assert all(same(one, other) for one, other in zip(found.others, others))


def test_the_held_out_images_do_not_choose_the_canvas(net, images):
    """The best on the judging images is returned, also where another scores higher."""
    for target in range(3):
        for seed in range(3):
            found = explain_class(net, images, target=target, seed=seed, **QUICK)
            judged = [each.pattern.info["search_power"] for each in (found, *found.others)]
            assert judged[0] == max(judged)
            scored = [each.scores[0.2].power.value for each in (found, *found.others)]
            if scored[0] < max(scored):
                return
    pytest.fail("no case in which held-out images would have chosen another canvas")


def test_no_held_out_image_is_searched(images, found):
    search, held_out = images.halves(0)
    assert found.pattern.seen == frozenset(search.hashes)
    assert not found.pattern.seen & set(held_out.hashes)
    assert found.scores[0.2].power.n == int((held_out.labels != 1).sum())


def test_ones_own_held_out_images(net, images):
    search, held_out = images.subset(range(70)), images.subset(range(70, 120))
    found = explain_class(net, search, target=1, held_out=held_out, **QUICK)
    [*all_of_it] = survey(
        net, search, held_out, classes=[1], canvases=CANVASES, areas=[0.2], n_steps=3
    )
    assert any(same(found, each) for each in all_of_it)
    assert found.pattern.seen == frozenset(search.hashes)
    pair = (held_out.images, held_out.labels)
    assert same(found, explain_class(net, search, target=1, held_out=pair, **QUICK))
    with pytest.raises(ValueError, match="a pattern can only be scored on held-out images"):
        explain_class(net, images, target=1, held_out=held_out, **QUICK)


def test_mean_and_std_make_a_classifier_of_a_module(net, images):
    ready = PixelClassifier(net, 0.4, 0.3, class_names=NAMES)
    settings = {"mean": 0.4, "std": 0.3, "class_names": NAMES}
    one = explain_class(ready, images, target=2, **QUICK)
    other = explain_class(net, images, target=2, **settings, **QUICK)
    assert same(one, other)
    assert one.class_name == other.class_name == other.pattern.info["class_name"] == "cat"
    assert not same(one, explain_class(net, images, target=2, **QUICK))


def test_a_module_a_function_and_a_classifier_give_the_same(net, images, found):
    for model in (lambda pixels: net(pixels), PixelClassifier(net)):
        assert same(found, explain_class(model, images, target=1, **QUICK))


@pytest.mark.parametrize("kind", ["tensor", "dataset", "pair in order"])
def test_images_of_any_kind_give_the_same(net, images, found, kind):
    given = {
        "tensor": (images.images, images.labels),
        "dataset": (TensorDataset(images.images, images.labels), None),
        "pair in order": (images.images, images.labels.tolist()),
    }[kind]
    other = explain_class(net, *given, 1, **QUICK)
    assert torch.equal(found.pattern.mask > 0, other.pattern.mask > 0)
    assert (found.canvas, found.scores) == (other.canvas, other.scores)


def test_a_name_and_a_number_give_the_same(net, images, found):
    named = explain_class(net, images, target="Bee", class_names=NAMES, **QUICK)
    assert same(found, named)
    assert (named.label, found.label) == ("bee", "class 1")
    assert (named.class_name, found.class_name) == ("bee", None)
    assert {each.label for each in named.others} == {"bee"}


def test_the_images_name_the_classes_if_the_model_does_not(net, images, found):
    pets = LabelledImages(images.images, images.labels, NAMES)
    named = explain_class(lambda pixels: net(pixels), pets, target="bee", **QUICK)
    assert same(found, named)
    assert named.class_name == "bee"
    assert set(named.examples.labels) <= {"ant", "cat"}


def test_folders_are_matched_with_the_models_classes_by_name(net, images, found):
    """Folders in alphabetical order, of a model with another order."""
    order = torch.tensor([2, 0, 1])[images.labels]  # bee, cat, ant
    folders = LabelledImages(
        images.images, order, ["ant2", "bee2", "cat2"], numbering="alphabetical"
    )
    names = ["bee2", "cat2", "ant2"]  # of the model: its class 0 is the folder's class 1
    named = explain_class(net, folders, target="cat2", class_names=names, **QUICK)
    relabelled = torch.tensor([2, 0, 1])[order]
    assert same(named, explain_class(net, images.images, relabelled, 1, **QUICK))


def test_held_out_folders_are_matched_by_name_too(net, images):
    """Also if the images to search with are in the model's numbers."""
    search, unseen = images.subset(range(70)), images.subset(range(70, 120))
    names = ["cat", "ant", "bee"]  # of the model
    order = torch.tensor([2, 0, 1])[unseen.labels]  # the folders: ant, bee, cat
    folders = LabelledImages(
        unseen.images, order, ["ant", "bee", "cat"], "folders", numbering="alphabetical"
    )
    expected = explain_class(net, search, target=1, held_out=unseen, class_names=names, **QUICK)
    for given in (search, (search.images, search.labels)):
        pair = given if isinstance(given, tuple) else (given, None)
        found = explain_class(net, *pair, "ant", held_out=folders, class_names=names, **QUICK)
        assert same(found, expected)
        assert found.accuracy == expected.accuracy
        assert found.examples.labels == expected.examples.labels
    named = LabelledImages(search.images, search.labels, names)  # the model has no names
    found = explain_class(net, named, target="ant", held_out=folders, **QUICK)
    assert same(found, expected)
    numbered = (folders, unseen.labels)  # labels that are passed in are the model's
    found = explain_class(net, search, target=1, held_out=numbered, class_names=names, **QUICK)
    assert same(found, expected)


def test_it_reports_the_accuracy_and_the_numbers_of_images(net, images, found):
    search, held_out = images.halves(0)
    accuracy = float((net(held_out.images).argmax(1) == held_out.labels).float().mean())
    for each in (found, *found.others):
        assert each.accuracy == pytest.approx(accuracy)
        assert (each.search_images, each.held_out_images) == (len(search), len(held_out))
    assert f"the model's accuracy {accuracy:.1%})" in repr(found)
    assert f"{len(search)} images to search with, {len(held_out)} held out" in found._repr_html_()
    table = found.table()
    assert list(table["accuracy"]) == [found.accuracy] * 3
    assert list(table["search_images"]) == [60] * 3
    assert "accuracy" not in found.as_dict()  # a survey's folder has it once


@pytest.mark.parametrize("show_progress", [None, False])
@pytest.mark.parametrize(
    "broken",
    [
        lambda net, pixels: net(pixels).detach(),
        lambda net, pixels: net(pixels.detach()),
        lambda net, pixels: torch.no_grad()(net)(pixels),
        lambda net, pixels: torch.inference_mode()(net)(pixels),
        lambda net, pixels: nn.functional.one_hot(net(pixels).argmax(1), 3).float(),
    ],
    ids=["detached", "detached pixels", "no_grad", "inference_mode", "one-hot"],
)
def test_a_model_that_is_not_differentiable_is_refused(net, images, broken, show_progress):
    with pytest.raises(ValueError, match="logits carry no gradient: it must not run under"):
        explain_class(
            lambda pixels: broken(net, pixels), images, target=1, show_progress=show_progress,
            **QUICK,
        )  # fmt: skip


def test_it_works_under_no_grad(net, images, found):
    with torch.no_grad():
        assert same(found, explain_class(net, images, target=1, **QUICK))


def test_the_same_call_gives_the_same_finding(net, images, found):
    again = explain_class(net, images, target=1, **QUICK)
    assert same(found, again)
    assert torch.equal(found.examples.images, again.examples.images)
    assert found._repr_html_() == again._repr_html_()
    other = explain_class(net, images, target=1, seed=1, **QUICK)
    assert other.pattern.seen != found.pattern.seen  # another split


def test_the_model_and_the_callers_state_stay_as_they_are(net, images):
    model = copy.deepcopy(net)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    explain_class(model, images, target=0, show_progress=True, **QUICK)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(model[1].weight.grad, torch.ones_like(model[1].weight))
    assert not model.training


def test_a_model_in_train_mode_goes_back_to_it(net, images):
    model = copy.deepcopy(net).train()
    with pytest.warns(UserWarning, match="train mode"):
        explain_class(model, images, target=0, **QUICK)
    assert model.training


@pytest.mark.filterwarnings("default")
def test_a_model_that_guesses_is_reported(net, images):
    wrong = (net(images.images).argmax(1) + 1) % 3
    with pytest.warns(UserWarning, match="close to guessing"):
        explain_class(net, images.images, wrong, 1, **QUICK)


def test_the_examples_are_held_out_images_with_the_pattern(net, images, found):
    _, held_out = images.halves(0)
    examples, kept = found.examples, found.pattern.topk(0.2).mask[0] > 0
    assert examples.images.shape == (3, 1, 6, 6)
    for image, label, predicted, probability in zip(
        examples.images, examples.labels, examples.predicted, examples.probabilities
    ):
        assert torch.equal(image[:, kept], found.pattern.canvas[:, kept])
        [place] = [
            i
            for i, other in enumerate(held_out.images)
            if torch.equal(other[:, ~kept], image[:, ~kept])
        ]
        assert label == f"class {held_out.labels[place]}" != "class 1"
        chances = net(image[None]).softmax(1)[0].detach()
        assert predicted == int(chances.argmax())
        assert probability == pytest.approx(float(chances.max()), abs=1e-6)


def test_a_finding_stamps_plots_and_makes_a_table(images, found, tmp_path):
    stamped = found.stamp(images.images[:5])
    assert torch.equal(stamped, found.pattern.topk(0.2).stamp(images.images[:5]))
    table = found.table()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["canvas"]) == [found.canvas, *(each.canvas for each in found.others)]
    assert table["power"][0] == found.scores[0.2].power.value
    _, axes = found.plot(use_pyplot=False)
    assert axes.shape == (1, 6)
    assert axes[0, 5].texts[0].get_text() == percent(found.scores[0.2].power.value)
    assert found.to_html(tmp_path / "page.html").read_text().startswith("<!doctype html>")
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"target": None}, ValueError, "`target` is missing: give the class .* `target='dog'`"),
        ({"target": "bee"}, ValueError, "neither the model nor the images name their classes"),
        ({"target": "cow", "class_names": NAMES}, ValueError, "the model has no class 'cow'"),
        ({"target": 3}, ValueError, "target 3 is out of range: the model has 3 classes"),
        ({"target": 1.5}, TypeError, "target must be an int"),
        ({"class_names": NAMES[:2]}, ValueError, "2 class names were given, but the model has 3"),
        ({"canvases": {"red": 1}}, ValueError, "`canvases` has the kind 'red'"),
        ({"area": 2.0}, ValueError, "area"),
        ({"mean": 3.0, "std": 1.0}, ValueError, "`mean` must be in units where pixels lie in"),
    ],
)
def test_errors_say_what_to_do(net, images, change, error, text):
    with pytest.raises(error, match=text):
        explain_class(net, images, **{"target": 1, **QUICK, **change})


def test_images_need_labels(net, images):
    with pytest.raises(ValueError, match="images have no labels: give their classes as `labels`"):
        explain_class(net, images.images, target=1, **QUICK)
    with pytest.raises(ValueError, match="held-out images have no labels: give their classes"):
        explain_class(net, images, target=1, held_out=images.images, **QUICK)


def test_a_class_without_images_is_named(net, images):
    few = images.without_class(2)
    with pytest.raises(ValueError, match=r"none of the 40 images is of class 2: give images of it"):
        explain_class(net, few, target=2, **QUICK)


def test_what_is_no_model_is_refused(net, images):
    with pytest.raises(TypeError, match=r"model must be a classifier .*, got str"):
        explain_class("resnet18", images, target=1, **QUICK)
    with pytest.raises(TypeError, match=r"nn.Module; open a checkpoint by cp.load_model\(path"):
        explain_class("resnet18.pt", images, target=1, **QUICK)
    with pytest.raises(TypeError, match="got the path 'pets' as images: read it by"):
        explain_class(net, "pets", target=1, **QUICK)
    with pytest.raises(TypeError, match=r"`mean` and `std` need an nn.Module, got function"):
        explain_class(lambda pixels: net(pixels), images, target=1, mean=0.5, **QUICK)
    with pytest.raises(ValueError, match="which normalises its images itself: leave out `mean`"):
        explain_class(PixelClassifier(net), images, target=1, std=0.5, **QUICK)


def test_progress_is_drawn_if_it_takes_long(net, images, capsys, monkeypatch):
    explain_class(net, images, target=1, **QUICK)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(explain, "LONG", 0.0)
    slow = explain_class(net, images, target=1, **QUICK)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"class 1: +0%.* 0\.00/[\d.]+k? \[.*passes", err)
    assert "100%" in err
    explain_class(net, images, target=1, show_progress=False, **QUICK)
    assert capsys.readouterr() == ("", "")
    monkeypatch.undo()
    assert same(slow, explain_class(net, images, target=1, **QUICK))  # only the bar depends on it


@pytest.mark.parametrize("settings", [{"n_steps": 4}, {"budget": 3_000}])
def test_the_estimate_is_about_what_is_spent(net, images, settings, monkeypatch):
    noted = []

    class Bar(explain.tqdm):
        def update(self, n=1):
            noted.append(n)
            super().update(n)

    monkeypatch.setattr(explain, "tqdm", Bar)
    few = {**QUICK, "n_steps": None, **settings}
    found = explain_class(net, images, target=1, show_progress=True, **few)
    *searched, rest = noted
    spent = sum(each.pattern.info["passes_together"] for each in (found, *found.others))
    scored = 60 / 2 + len(CANVASES) * (40 + 40 + 40) / 2  # no pattern; the power and two controls
    assert sum(searched) <= spent + scored + 3 * 60 / 2  # the best of each pool is judged once more
    assert sum(searched) == sum(noted) - rest >= min(0.95 * (spent + scored), sum(noted))
    assert 0 <= rest < 0.6 * sum(noted)


@pytest.mark.parametrize(("given", "missing"), [("mean", "std"), ("std", "mean")])
def test_a_mean_needs_a_std(net, images, given, missing):
    with pytest.raises(ValueError, match=f"there is a `{given}` but no `{missing}`: give both"):
        explain_class(net, images, target=1, **{given: 0.5}, **QUICK)


def test_train_mode_is_said_once(net, images):
    with pytest.warns(UserWarning, match="the model is in train mode") as caught:
        explain_class(copy.deepcopy(net).train(), images, target=1, **QUICK)
    assert sum("train mode" in str(one.message) for one in caught) == 1


def test_all_kinds_of_canvas_share_the_time(net, images):
    """Each stops at its own share; the clock moves on by a second at each look."""
    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: float(next(ticks)))
        found = explain_class(net, images, target=1, max_seconds=60, show_progress=False)
    for each in (found, *found.others):
        assert each.pattern.info["settings"]["max_seconds"] == 20
        assert each.pattern.info["stopped_early"]
        assert each.pattern.info["seconds"] < 30


def test_a_time_that_is_not_one_is_named_as_it_was_given(net, images):
    with pytest.raises(ValueError, match="`max_seconds` must be a number above 0, got -3"):
        explain_class(net, images, target=1, max_seconds=-3)

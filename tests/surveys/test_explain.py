"""explain_class against the survey that it stands for, and what it asks of models and images."""

import copy
import re

import matplotlib
import numpy
import pytest
import torch
from refusals import refusals, warnings_of
from surveyed import NET, network
from torch.utils.data import TensorDataset

from captum_classpattern import (
    LabelledImages,
    Pattern,
    PixelClassifier,
    explain_class,
    survey,
)
from captum_classpattern._support import progress
from captum_classpattern._support.formats import percent

NAMES = ["ant", "bee", "cat"]
CANVASES = {"positive": 2, "white": 1, "black": 1}
QUICK = {"area": 0.2, "canvases": CANVASES, "n_steps": 3}


IMAGES = torch.rand(120, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(120) % 3
DATA = LabelledImages(IMAGES, LABELS)
SEARCH, HELD_OUT = DATA.halves(0)
[HELD_OUT_PLACE] = [i for i, h in enumerate(DATA.hashes) if h == HELD_OUT.hashes[0]]
FIRST, LAST = DATA.subset(range(70)), DATA.subset(range(70, 120))


def explained(model=NET, images=DATA, labels=None, target=1, **settings):
    return explain_class(model, images, labels, target, **{**QUICK, **settings})


@pytest.fixture(scope="module")
def found():
    return explained()


def same(one, other):
    """Whether two findings are of the same pixels, with the same scores."""
    return (
        torch.equal(one.pattern.canvas, other.pattern.canvas)
        and torch.equal(one.pattern.mask, other.pattern.mask)
        and (one.canvas, one.scores) == (other.canvas, other.scores)
    )


def by_survey(search, held_out):
    settings = {"canvases": CANVASES, "areas": [0.2], "n_steps": 3}
    return survey(NET, search, held_out, classes=[1], **settings).findings


def test_it_is_a_survey_of_one_class_whose_validation_images_choose_the_canvas(found):
    by_hand = by_survey(SEARCH, HELD_OUT)
    best = max(by_hand, key=lambda each: each.pattern.info["search_power"])
    assert same(found, best)
    others = [each for each in by_hand if each.canvas != best.canvas]
    assert len(found.others) == len(others) == 2
    assert all(same(one, other) for one, other in zip(found.others, others))


def test_no_held_out_image_is_searched(found):
    assert found.pattern.seen == frozenset(SEARCH.hashes)
    assert not found.pattern.seen & set(HELD_OUT.hashes)
    assert found.scores[0.2].power.n == int((HELD_OUT.labels != 1).sum())
    assert explained(seed=1).pattern.seen != found.pattern.seen  # another split


# ---- models, images and names


def test_a_class_of_imagenet_is_named_by_the_id_of_its_folder(tmp_path):
    """The model has no names; the images have two of its 1,000 classes."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 1000)).eval()
    ids = LabelledImages(IMAGES, LABELS % 2, ["n01440764", "n07873807"])
    for target in ("pizza", "n07873807", 963):
        found = explained(net, ids, target=target, canvases="white", n_steps=1)
        assert (found.target, found.label) == (963, "pizza")
    page = found.to_html(tmp_path / "page.html").read_text()
    assert re.search("<title>.*pizza.*</title>", page)
    assert "n07873807" not in page


def under_no_grad():
    with torch.no_grad():
        return explained()


PETS = LabelledImages(IMAGES, LABELS, NAMES)
SAME = {
    "a function": lambda: explained(lambda pixels: NET(pixels)),
    "a classifier": lambda: explained(PixelClassifier(NET)),
    "Tensors": lambda: explained(images=IMAGES, labels=LABELS),
    "a list of labels": lambda: explained(images=IMAGES, labels=LABELS.tolist()),
    "a Dataset": lambda: explained(images=TensorDataset(IMAGES, LABELS)),
    "the model's names": lambda: explained(target="Bee", class_names=NAMES),
    "the images' names": lambda: explained(lambda x: NET(x), images=PETS, target="bee"),
    "no_grad": under_no_grad,
    "again": explained,
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_finding_whatever_the_form(case, found):
    other = SAME[case]()
    assert same(found, other)
    name = "bee" if "names" in case else None
    assert (other.class_name, other.label) == (name, name or "class 1")
    assert {each.label for each in other.others} == {name or "class 1"}
    assert other.pattern.info.get("class_name") == name
    assert set(other.examples.labels) <= ({"ant", "cat"} if name else {"class 0", "class 2"})
    assert torch.equal(found.examples.images, other.examples.images)
    assert name or found._repr_html_() == other._repr_html_()


def test_folders_are_matched_with_the_models_classes_by_name():
    """Folders in alphabetical order, of a model with another order."""
    order = torch.tensor([2, 0, 1])[LABELS]  # bee, cat, ant
    folders = LabelledImages(IMAGES, order, ["ant2", "bee2", "cat2"], numbering="alphabetical")
    names = ["bee2", "cat2", "ant2"]  # of the model: its class 0 is the folder's class 1
    named = explained(images=folders, target="cat2", class_names=names)
    assert same(named, explained(images=IMAGES, labels=torch.tensor([2, 0, 1])[order]))


def test_held_out_folders_are_matched_by_name_too():
    """Also if the images to search with are in the model's numbers."""
    names = ["cat", "ant", "bee"]  # of the model
    order = torch.tensor([2, 0, 1])[LAST.labels]  # the folders: ant, bee, cat
    folders = LabelledImages(
        LAST.images, order, ["ant", "bee", "cat"], "folders", numbering="alphabetical"
    )
    expected = explained(images=FIRST, held_out=LAST, class_names=names)
    for given in ((FIRST, None), (FIRST.images, FIRST.labels)):
        found = explained(NET, *given, "ant", held_out=folders, class_names=names)
        assert same(found, expected)
        assert found.accuracy == expected.accuracy
        assert found.examples.labels == expected.examples.labels
    named = LabelledImages(FIRST.images, FIRST.labels, names)  # the model has no names
    assert same(explained(images=named, target="ant", held_out=folders), expected)
    numbered = (folders, LAST.labels)  # labels that are passed in are the model's
    assert same(explained(images=FIRST, held_out=numbered, class_names=names), expected)


# ---- the caller's model


@pytest.mark.parametrize("training", [False, True])
def test_the_model_and_the_callers_state_stay_as_they_are(training):
    model = network().train(training)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    wrong = (NET(IMAGES).argmax(1) + 1) % 3
    warned = warnings_of(lambda: explained(model, IMAGES, wrong, 0, show_progress=True))
    assert sum("train mode" in text for text in warned) == training  # once
    assert any("close to guessing" in text for text in warned)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(model[1].weight.grad, torch.ones_like(model[1].weight))
    assert model.training == training


# ---- what a finding says


def test_it_reports_the_accuracy(found):
    accuracy = float((NET(HELD_OUT.images).argmax(1) == HELD_OUT.labels).float().mean())
    for each in (found, *found.others):
        assert each.accuracy == pytest.approx(accuracy)
    assert f"; the model's accuracy {100 * accuracy:.1f} % on the held-out images; " in repr(found)
    table = found.table(full=True)
    assert list(table["canvas"]) == [found.canvas, *(each.canvas for each in found.others)]
    assert table["power"][0] == found.scores[0.2].power.value
    assert list(table["accuracy"]) == [found.accuracy] * 3
    assert "accuracy" not in found.as_dict()  # a survey's folder has it once


def test_the_examples_are_held_out_images_with_the_pattern(found):
    examples, kept = found.examples, found.pattern.topk(0.2).mask[0] > 0
    assert examples.images.shape == (3, 1, 6, 6)
    for image, label, predicted, probability in zip(
        examples.images, examples.labels, examples.predicted, examples.probabilities
    ):
        assert torch.equal(image[:, kept], found.pattern.canvas[:, kept])
        equal = (HELD_OUT.images[..., ~kept] == image[:, ~kept]).flatten(1).all(1)
        [place] = equal.nonzero().flatten().tolist()
        assert label == f"class {HELD_OUT.labels[place]}" != "class 1"
        chances = NET(image[None]).softmax(1)[0].detach()
        assert predicted == int(chances.argmax())
        assert probability == pytest.approx(float(chances.max()), abs=1e-6)


def test_a_finding_stamps_and_plots(found, tmp_path):
    assert torch.equal(found.stamp(IMAGES[:5]), found.pattern.topk(0.2).stamp(IMAGES[:5]))
    _, axes = found.plot(use_pyplot=False)
    assert axes.shape == (3, 6)
    for each, row in zip(found.on_each_canvas, axes, strict=True):
        assert row[5].texts[0].get_text() == percent(each.scores[0.2].power.value)
    assert found.power == found.scores[0.2].power
    assert torch.equal(found.mask, found.pattern.topk(0.2).mask)
    found.pattern.save(tmp_path / "bee.safetensors")
    loaded = Pattern.load(tmp_path / "bee.safetensors")
    assert torch.equal(loaded.stamp(IMAGES), found.pattern.stamp(IMAGES))
    assert found.to_html(tmp_path / "page.html").read_text().startswith("<!doctype html>")
    matplotlib.pyplot.close("all")


# ---- time


def test_progress_is_drawn_if_it_takes_long(found, terminal, monkeypatch):
    explained()
    monkeypatch.setattr(progress, "BAR_AFTER", 0.0)
    explained(show_progress=False)
    assert terminal.readouterr() == ("", "")
    assert same(explained(), found)  # only the bar depends on it
    out, err = terminal.readouterr()
    assert out == ""
    assert "\rSearching:   0%|" in err
    assert re.search(r"\rSearching: 100%\|.*, class 1 *\n$", err)


# ---- what is refused


FROM_1 = LabelledImages(IMAGES, LABELS + 1)


def test_labels_may_be_names(found):
    names = [NAMES[y] for y in LABELS.tolist()]
    for labels in (names, numpy.array(names)):
        named = explained(images=IMAGES, labels=labels, target="bee", class_names=NAMES)
        assert same(named, found)
    listed = LabelledImages(IMAGES, names, NAMES)
    assert listed.labels.equal(LABELS)
    assert same(explained(images=listed), found)


def test_without_labels_the_classes_are_those_that_the_model_predicts():
    bare = explained(images=FIRST.images, held_out=LAST.images)
    parts = [(part.images, NET(part.images).argmax(1)) for part in (FIRST, LAST)]
    assert same(bare, explained(images=parts[0], held_out=parts[1]))
    assert bare.accuracy is None


META = network().to("meta")
ONE = torch.where(LABELS == 1, 2, LABELS)
ONE[HELD_OUT_PLACE] = 1

TYPED = {"budget": 60, "n_steps": None}  # too small, which is said last
REFUSALS = {
    "a class that is misspelled, and a small budget": lambda: explained(
        PixelClassifier(NET, class_names=NAMES), target="bed", **TYPED
    ),
    "channels last, and a small budget": lambda: explained(
        torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        ).eval(),
        IMAGES.permute(0, 2, 3, 1),
        LABELS,
        **TYPED,
    ),
    "labels from 1, and a small budget": lambda: explained(images=FROM_1, **TYPED),
    "a kind of canvas, and a small budget": lambda: explained(**TYPED | {"canvases": "postive"}),
    "a small budget": lambda: explained(**TYPED),
    "the only image of the class is held out": lambda: explained(images=(IMAGES, ONE)),
    "labels that are names without a list": lambda: explained(images=(IMAGES, ["bee"] * 120)),
    "labels with a mistake": lambda: explained(
        images=(IMAGES, ["bed"] * 120), target="bee", class_names=NAMES
    ),
    "a model without values": lambda: explained(META),
    "an argument that is misspelled": lambda: explained(canvasses="patch"),
    "an argument that does not exist": lambda: explained(patience=3),
    "several targets": lambda: explained(target=["bee", "cat"], class_names=NAMES),
    "the class at the place of the labels": lambda: explain_class(NET, DATA, "bee"),
    "labels from 1": lambda: explained(images=FROM_1),
    "labels below 0": lambda: explained(images=(IMAGES, LABELS - 1)),
    "pixels up to 255": lambda: explained(images=(255 * IMAGES, LABELS)),
    "normalised pixels": lambda: explained(images=(4 * IMAGES - 2, LABELS)),
    "the class of a model": lambda: explained(torch.nn.Flatten),
    "a kind of canvas that is misspelled": lambda: explained(canvases="postive"),
    "no target": lambda: explained(target=None),
    "a mean without a std": lambda: explained(mean=0.5),
    "a mean for a function": lambda: explained(lambda x: NET(x), mean=0.5),
    "a std for a classifier": lambda: explained(PixelClassifier(NET), std=0.5),
    "held-out images that were seen": lambda: explained(held_out=LAST),
    "a class without images": lambda: explained(images=DATA.without_class(2), target=2),
    "the name of a model": lambda: explained("resnet18"),
    "the path of images": lambda: explained(images="pets"),
    "detached": lambda: explained(lambda x: NET(x).detach()),
    "detached pixels": lambda: explained(lambda x: NET(x.detach())),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot

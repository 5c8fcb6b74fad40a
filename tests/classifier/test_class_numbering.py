"""LabelledImages.for_classifier: the classes of images become those of a classifier."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal, refusals, warnings_of
from torch import nn

from captum_classpattern import Notice, PixelClassifier
from captum_classpattern.classifier import enter_model
from captum_classpattern.classifier.class_names import imagenet_names
from captum_classpattern.datasets import LabelledImages, load_images

LETTERS = list("abcde")
IDS = ["n01440764", "n01443537", "n01484850"]


def classifier(count, names=None, **settings):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, count)).eval()
    return PixelClassifier(network, class_names=names, **settings)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def folders(*names):
    """Class folders with one image each, as grey as its place in the list; no others."""
    shutil.rmtree("pets", ignore_errors=True)
    for place, name in enumerate(names):
        image = Image.fromarray(np.full((2, 2, 3), place, np.uint8))
        folder = Path("pets") / name
        folder.mkdir(parents=True)
        image.save(folder / "a.png")
    return load_images("pets")


def by_place(images):
    """The label of each image, in the order in which the folders were listed."""
    places = (images.images[:, 0, 0, 0] * 255).round().int().tolist()
    return [label for _, label in sorted(zip(places, images.labels.tolist()))]


FIVE = ["bird", "Dog, Canis familiaris", "eel", "house cat", "fox"]


@pytest.mark.parametrize(
    ("names", "model", "numbers", "known"),
    [
        (("cafe\u0301", "dog"), classifier(2, ["dog", "caf\u00e9"]), [1, 0], ["dog", "caf\u00e9"]),
        (("dog", "House_Cat"), classifier(5, FIVE), [1, 3], FIVE),
        ((IDS[2], IDS[0]), classifier(3, LETTERS[:3], class_ids=IDS), [2, 0], LETTERS[:3]),
        # numbers stay
        (("4_dog", "0", "2_cat"), classifier(5), [4, 0, 2],
         ["class 0", "class 1", "cat", "class 3", "dog"]),
        (("4_dog", "0", "2_cat"), classifier(5, LETTERS), [4, 0, 2], LETTERS),
        (("0", "1"), classifier(2), [0, 1], None),
        (("1_cat", "0"), classifier(2, ["cat", "dog"]), [1, 0], ["cat", "dog"]),
        # as many folders as classes keep their order, with a notice
        ((IDS[2], IDS[0], IDS[1]), classifier(3, LETTERS[:3]), [2, 0, 1], LETTERS[:3]),
        (("dog", "cat"), classifier(2), [1, 0], ["cat", "dog"]),
        (("dog", "cat"), classifier(2, ["class 0", "class 1"]), [1, 0], ["cat", "dog"]),
        (("dog", "cat"), classifier(2).forward, [1, 0], ["cat", "dog"]),
    ],
    ids=["decomposed accents", "by name", "by WordNet id", "by number", "by number with names",
         "by number alone", "by other names", "WordNet ids", "without names", "with placeholders",
         "a method"],
)  # fmt: skip
def test_folders_are_matched(names, model, numbers, known, snapshot):
    loaded, found = folders(*names), []
    before = loaded.class_names
    assert warnings_of(lambda: found.append(loaded.for_classifier(model))) == snapshot
    [matched] = found
    assert by_place(matched) == by_place(matched.for_classifier(model)) == numbers
    assert matched.class_names == (known and tuple(known))
    assert matched.counts == {(known or "01")[number]: 1 for number in sorted(numbers)}
    assert torch.equal(matched.images, loaded.images)
    assert loaded.class_names == before


SAMPLE = {"n07873807": 963, "n01440764": 0, "n03126707": 517}  # of ImageNet's classes


@pytest.mark.parametrize(
    "names", [[*SAMPLE], [f"{number:04}_{name}" for name, number in SAMPLE.items()]]
)
def test_folders_of_some_of_imagenets_classes_need_no_names(names):
    """The model has as many classes as ImageNet."""
    matched = folders(*names).for_classifier(classifier(1000))
    assert by_place(matched) == [*SAMPLE.values()]
    assert matched.counts == {"tench": 1, "crane": 1, "pizza": 1}
    assert matched.class_names == tuple(imagenet_names().values())
    with enter_model(classifier(1000), matched.take([0])) as model:
        known = matched.names_for(model)
    assert known.find("pizza") == known.find("n07873807") == 963


@pytest.mark.filterwarnings("ignore::captum_classpattern.Notice")
def test_folders_with_wordnet_ids_are_named_whatever_the_model_has():
    few = folders(*SAMPLE).for_classifier(classifier(3))
    assert (by_place(few), few.class_names) == ([2, 0, 1], ("tench", "crane", "pizza"))
    renumbered = folders("0_n07873807", "2_n01440764").for_classifier(classifier(3))
    assert renumbered.class_names == ("pizza", "class 1", "tench")
    others = folders("0_n07873807", "2_n01440764").for_classifier(classifier(1000))  # not its order
    assert others.class_names[:3] == ("pizza", "class 1", "tench")
    own = folders(*SAMPLE).for_classifier(classifier(3, ["Pizza", "tench", "crane"]))
    assert (by_place(own), own.class_names) == ([0, 1, 2], ("Pizza", "tench", "crane"))


def test_a_models_own_names_may_be_an_array_and_nothing_else_than_names_counts():
    model = classifier(2)
    model.class_names = np.array(["dog", "cat"])
    assert by_place(folders("dog", "cat").for_classifier(model)) == [0, 1]
    model.class_names = {0: "dog", 1: "cat"}
    with pytest.warns(Notice, match="does not name its classes"):
        assert by_place(folders("dog", "cat").for_classifier(model)) == [1, 0]


@pytest.mark.filterwarnings("ignore:the class folders")
def test_numbered_folders_that_are_the_models_names_are_matched_by_name():
    names = ["1", "10", "2"]  # as ImageFolder numbers them
    for given in ((classifier(3, names),), (classifier(3, names[::-1]), names)):  # these replace it
        matched = folders("1", "2", "10").for_classifier(*given)
        assert by_place(matched) == by_place(matched.for_classifier(*given)) == [0, 2, 1]
        assert matched.class_names == tuple(names)


def data_set(names=("cat", "dog"), labels=(0, 1, 1)):
    return LabelledImages(torch.rand(len(labels), 3, 2, 2), torch.tensor(labels), names, "pets")


def test_a_data_set_is_matched_by_name_or_keeps_its_order(snapshot):
    matched = data_set().for_classifier(classifier(3, ["dog", "eel", "cat"]))
    assert matched.labels.tolist() == [2, 0, 0]
    kept = data_set().for_classifier(classifier(2))
    assert (kept.labels.tolist(), kept.class_names) == ([0, 1, 1], ("cat", "dog"))
    others, kept = classifier(2, ["kitten", "puppy"]), []
    assert warnings_of(lambda: kept.append(data_set().for_classifier(others))) == snapshot
    assert kept[0].labels.tolist() == [0, 1, 1]
    assert kept[0].class_names == ("kitten", "puppy")
    same = data_set(("crane", "crane", "dog"), (0, 1, 1, 2))
    assert same.counts == {"crane (0)": 1, "crane (1)": 2, "dog": 1}


def numbered():
    np.savez("x.npz", x=np.zeros((3, 2, 2, 3), np.uint8), y=np.array([0, 4, 2]))
    return load_images("x.npz")


def test_data_without_names_or_labels():
    assert numbered().for_classifier(classifier(5, LETTERS)).labels.tolist() == [0, 4, 2]
    assert numbered().for_classifier(classifier(5)).class_names is None
    plain = LabelledImages(torch.rand(2, 3, 2, 2), None)
    assert plain.for_classifier(classifier(5, LETTERS)).class_names == tuple(LETTERS)
    assert plain.for_classifier(classifier(5)).labels is None


SOME_FIT = ["cat", "dogs", "crane", "crane", "eel"]
REFUSALS = {
    "two names for three classes": lambda: folders("dog").for_classifier(
        classifier(3), LETTERS[:2]
    ),
    "a text as names": lambda: folders("dog").for_classifier(classifier(3), "cat"),
    "folder 4 of four classes": lambda: folders("4_dog", "0").for_classifier(classifier(4)),
    # two folders are not silently the first two of a thousand classes
    "no names": lambda: folders("cat", "dog").for_classifier(classifier(1000)),
    "no class, and several": lambda: folders("cat", "Dog", "crane", "fox").for_classifier(
        classifier(5, SOME_FIT)
    ),
    "a WordNet id and a name": lambda: folders(IDS[0], "pup").for_classifier(
        classifier(2, ["a", "b"])
    ),
    "two folders of one class": lambda: folders("tench", "Tinca tinca").for_classifier(
        classifier(2, ["goldfish", "tench, Tinca tinca"])
    ),
    "a data set of fewer classes": lambda: data_set().for_classifier(classifier(3)),
    "a data set of other classes": lambda: data_set().for_classifier(
        classifier(3, ["kitten", "puppy", "eel"])
    ),
    "numbers of more classes": lambda: numbered().for_classifier(classifier(3)),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


def test_an_order_that_known_names_contradict_is_not_kept():
    images = data_set(("cat", "dog", "oiseau"), (0, 1, 2))
    said = refusal(lambda: images.for_classifier(classifier(3, ["dog", "cat", "bird"])))
    assert "1 of 3 classes of pets can't be matched" in said

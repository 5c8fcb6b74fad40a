"""LabelledImages.for_classifier: the classes of images become those of a classifier."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern._validation import ArgumentTypeError, Notice
from captum_classpattern.datasets import LabelledImages, load_images

LETTERS = list("abcde")


def classifier(count, names=None, **settings):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, count)).eval()
    return PixelClassifier(network, class_names=names, **settings)


@pytest.fixture
def folders(tmp_path):
    """Makes and loads class folders with one image each, as grey as its place in the list."""

    def make(*names):
        for place, name in enumerate(names):
            (tmp_path / name).mkdir()
            Image.fromarray(np.full((2, 2, 3), place, np.uint8)).save(tmp_path / name / "a.png")
        return load_images(tmp_path)

    return make


def by_place(images):
    """The label of each image, in the order in which the folders were listed."""
    places = (images.images[:, 0, 0, 0] * 255).round().int().tolist()
    return [label for _, label in sorted(zip(places, images.labels.tolist()))]


def test_folders_are_matched_by_name(folders):
    names = ["bird", "Dog, Canis familiaris", "eel", "house cat", "fox"]
    loaded = folders("dog", "House_Cat")
    matched = loaded.for_classifier(classifier(5, names))
    assert by_place(matched) == [1, 3]
    assert matched.class_names == tuple(names)
    assert matched.counts == {"Dog, Canis familiaris": 1, "house cat": 1}
    assert torch.equal(matched.images, loaded.images)
    assert loaded.class_names == ("House_Cat", "dog")  # as it was
    again = matched.for_classifier(classifier(5, names))
    assert torch.equal(again.labels, matched.labels)


def test_names_that_are_passed_in_replace_the_classifiers(folders):
    loaded = folders("dog", "cat")
    matched = loaded.for_classifier(classifier(3, ["dog", "cat", "eel"]), ["eel", "cat", "dog"])
    assert by_place(matched) == [2, 1]
    assert matched.class_names == ("eel", "cat", "dog")
    with pytest.raises(ValueError, match="2 class names were given, but the model has 3 classes"):
        loaded.for_classifier(classifier(3), ["cat", "dog"])
    with pytest.raises(ArgumentTypeError, match="`class_names` must be a list of names"):
        loaded.for_classifier(classifier(3), "cat")


def test_wordnet_ids(folders):
    ids = ["n01440764", "n01443537", "n01484850"]
    model = classifier(3, ["tench", "goldfish", "shark"], class_ids=ids)
    assert by_place(folders("n01484850", "n01440764").for_classifier(model)) == [2, 0]


def test_all_wordnet_ids_are_in_the_order_of_imagenet(folders):
    loaded = folders("n01484850", "n01440764", "n01443537")
    with pytest.warns(Notice, match="keep the order that they have in"):
        matched = loaded.for_classifier(classifier(3, ["tench", "goldfish", "shark"]))
    assert by_place(matched) == [2, 0, 1]


def test_numbered_folders_keep_their_numbers(folders):
    loaded = folders("4_dog", "0", "2_cat")
    numbered = loaded.for_classifier(classifier(5))
    assert by_place(numbered) == [4, 0, 2]
    assert numbered.class_names == ("class 0", "class 1", "cat", "class 3", "dog")
    named = loaded.for_classifier(classifier(5, LETTERS))
    assert by_place(named) == [4, 0, 2]
    assert named.class_names == tuple(LETTERS)
    text = r"has images of class 4, but the model has 4 classes, numbered from 0 to 3: give the na"
    with pytest.raises(ValueError, match=text):
        loaded.for_classifier(classifier(4))


def test_numbers_alone_are_not_names(folders):
    assert folders("0", "1").for_classifier(classifier(2)).class_names is None


def test_as_many_folders_as_classes_are_numbered_alphabetically(folders):
    loaded = folders("dog", "cat")
    for unnamed in (classifier(2), classifier(2, ["class 0", "class 1"]), classifier(2).forward):
        with pytest.warns(Notice, match=r"does not name its 2 classes: .* alphabetical .*cat, dog"):
            matched = loaded.for_classifier(unnamed)
        assert by_place(matched) == [1, 0]
        assert matched.class_names == ("cat", "dog")


def test_other_folders_without_names_are_an_error(folders):
    """Two folders are not silently the first two of a thousand classes."""
    with pytest.raises(ValueError, match=r"images of 2 classes \(cat, dog\)") as caught:
        folders("cat", "dog").for_classifier(classifier(1000))
    assert "the model has 1,000 classes and no names for them" in str(caught.value)
    for way in ("`class_names`", "number the folders, such as 3_dog"):
        assert way in str(caught.value)


def test_folders_that_fit_no_class_or_several(folders):
    loaded = folders("cat", "Dog", "crane", "fox")
    model = classifier(5, ["cat", "dogs", "crane", "crane", "eel"])
    with pytest.raises(ValueError, match=r"3 of 4 classes of .* can't be matched") as caught:
        loaded.for_classifier(model)
    assert "the model has no class 'Dog': did you mean dogs?" in str(caught.value)
    assert "'crane' fits the classes 2 (crane) and 3 (crane): give the number" in str(caught.value)
    assert "`class_names`" in str(caught.value)


def test_two_folders_of_one_class(folders):
    loaded = folders("tench", "Tinca tinca")
    with pytest.raises(ValueError, match=r"'Tinca tinca' and 'tench' are both the model's class 1"):
        loaded.for_classifier(classifier(2, ["goldfish", "tench, Tinca tinca"]))


def test_only_classes_with_images_need_a_name(folders, tmp_path):
    folders("cat", "unknown")
    chosen = load_images(tmp_path, classes=["cat"])
    assert chosen.for_classifier(classifier(2, ["dog", "cat"])).labels.tolist() == [1]


def data_set(names, labels=(0, 1, 1)):
    return LabelledImages(torch.rand(len(labels), 3, 2, 2), torch.tensor(labels), names, "pets")


def test_a_data_set_is_matched_by_name_or_keeps_its_order():
    assert data_set(("cat", "dog")).for_classifier(
        classifier(3, ["dog", "eel", "cat"])
    ).labels.tolist() == [2, 0, 0]
    kept = data_set(("cat", "dog")).for_classifier(classifier(2))
    assert (kept.labels.tolist(), kept.class_names) == ([0, 1, 1], ("cat", "dog"))
    with pytest.warns(Notice, match=r"names of the 2 classes of pets are not all the model's"):
        kept = data_set(("cat", "dog")).for_classifier(classifier(2, ["kitten", "puppy"]))
    assert (kept.labels.tolist(), kept.class_names) == ([0, 1, 1], ("kitten", "puppy"))
    for model in (classifier(3), classifier(3, ["kitten", "puppy", "eel"])):
        with pytest.raises(ValueError, match=r"pets"):
            data_set(("cat", "dog")).for_classifier(model)


def test_data_without_names(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 2, 2, 3), np.uint8), y=np.array([0, 4, 2]))
    loaded = load_images(tmp_path / "x.npz")
    assert loaded.for_classifier(classifier(5, LETTERS)).labels.tolist() == [0, 4, 2]
    assert loaded.for_classifier(classifier(5)).class_names is None
    with pytest.raises(ValueError, match="images of class 4, but the model has 3 classes"):
        loaded.for_classifier(classifier(3))


def test_images_without_labels_get_the_names():
    plain = LabelledImages(torch.rand(2, 3, 2, 2), None)
    assert plain.for_classifier(classifier(5, LETTERS)).class_names == tuple(LETTERS)
    assert plain.for_classifier(classifier(5)).labels is None


def test_a_classifier_is_left_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 2))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.warns(UserWarning, match="train mode"):
        data_set(("cat", "dog")).for_classifier(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_classes_that_share_a_name_are_counted_apart():
    assert data_set(("crane", "crane", "dog"), (0, 1, 1, 2)).counts == {
        "crane (0)": 1, "crane (1)": 2, "dog": 1,
    }  # fmt: skip


def test_an_unknown_numbering():
    with pytest.raises(ValueError, match="numbering must be one of alphabetical, numbers, dataset"):
        LabelledImages(torch.rand(1, 3, 2, 2), None, numbering="guessed")

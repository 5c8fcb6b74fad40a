"""Which names a classifier has, and which class a name means."""

import pytest
import torch
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern._validation import ArgumentTypeError
from captum_classpattern.classifier.class_names import (
    ClassNames,
    as_file_name,
    check_names,
    name_of,
    placeholders,
)

IMAGENET = (
    "tench, Tinca tinca",
    "great white shark, man-eater",
    "crane",
    "tiger, Panthera tigris",
    "tiger cat",
    "crane",
    "missile",
    "projectile, missile",
)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("tench, Tinca tinca", 0),
        ("tench", 0),
        ("tinca_tinca", 0),
        ("Great-White_Shark", 1),
        ("MAN EATER", 1),
        ("tiger", 3),
        ("Tiger_Cat", 4),
        ("missile", 6),  # all of a name goes before a part of another
        ("projectile", 7),
    ],
)
def test_names_are_found_whatever_their_spelling(name, number):
    assert ClassNames(IMAGENET).find(name) == number


def test_case_matters_where_it_decides():
    names = ClassNames(["Cat", "cat", "CAT scan"])
    assert [names.find(name) for name in ("cat", "Cat", "cat_scan")] == [1, 0, 2]
    with pytest.raises(ValueError, match=r"'CAT' fits the classes 0 \(Cat\) and 1 \(cat\): give t"):
        names.find("CAT")


def test_ids_are_names():
    names = ClassNames(["tench", "goldfish"], ["n01440764", "n01443537"])
    assert names.find("n01443537") == names.find("N01443537") == names.find("Goldfish") == 1
    assert ClassNames(["tench", "goldfish"], ["n01440764"]).ids == ()  # of other classes


def test_a_name_of_several_classes_lists_their_numbers():
    with pytest.raises(ValueError, match=r"'crane' fits the classes 2 \(crane\) and 5 \(crane\)"):
        ClassNames(IMAGENET).find("crane")


def test_an_unknown_name_suggests_others():
    text = "the model has no class 'great wite shark': did you mean great white shark?"
    with pytest.raises(ValueError, match=text):
        ClassNames(IMAGENET).find("great wite shark")
    with pytest.raises(ValueError, match=r"no class 'xyz'; there are cat, dog$"):
        ClassNames(["cat", "dog"]).find("xyz")


def test_placeholders_are_not_names():
    def classifier(names):
        return PixelClassifier(nn.Linear(2, 2), class_names=names)

    assert ClassNames.of(classifier(placeholders(2))) is None
    assert ClassNames.of(classifier(None)) is None
    assert ClassNames.of(torch.nn.Linear(2, 2)) is None
    assert ClassNames.of(classifier(["cat", "class 1"])).names == ("cat", "class 1")
    named = classifier(["cat", "class 1"])
    assert [name_of(named, number) for number in range(3)] == ["cat", None, None]
    assert name_of(nn.Linear(2, 2), 0) is None


def test_there_must_be_a_name_for_each_class():
    assert check_names(("a", "b"), 2) == ("a", "b")
    with pytest.raises(ValueError, match="3 class names were given, but the model has 2 classes"):
        check_names(["a", "b", "c"], 2)
    for wrong in ("ab", 2, [1, 2], {"a": 0}):
        with pytest.raises(
            ArgumentTypeError, match="`class_names` must be a list of names, in the"
        ):
            check_names(wrong, 2)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("dog", "dog"),
        ("tench, Tinca tinca", "tench"),
        ("../T-shirt/top", ".._T-shirt_top"),
        ("guinea pig", "guinea_pig"),
        ("Köter", "Köter"),
        (",", "_"),
        ("x" * 300, "x" * 40),
    ],
)
def test_names_in_file_names(name, part):
    assert as_file_name(name) == part

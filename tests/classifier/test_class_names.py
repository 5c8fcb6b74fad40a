"""Which class a name means, and that a name will do wherever a number does."""

import re

import pytest
import torch
import torchvision
from refusals import refusals
from torch import nn

from captum_classpattern import (
    ClassPattern,
    PixelClassifier,
    compare,
    select_canvases,
)
from captum_classpattern.classifier.class_names import (
    ClassNames,
    as_file_name,
    check_names,
    file_safe,
    imagenet_names,
    name_of,
    placeholders,
)
from captum_classpattern.comparison import BestRandomMask
from captum_classpattern.surveys import survey

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
CASES = ["Cat", "cat", "CAT scan"]


@pytest.mark.parametrize(
    ("names", "name", "number"),
    [
        (IMAGENET, "tench, Tinca tinca", 0),
        (IMAGENET, "tench", 0),
        (IMAGENET, "tinca_tinca", 0),
        (IMAGENET, "Great-White_Shark", 1),
        (IMAGENET, "MAN EATER", 1),
        (IMAGENET, "tiger", 3),
        (IMAGENET, "Tiger_Cat", 4),
        (IMAGENET, "missile", 6),  # all of a name goes before a part of another
        (IMAGENET, "projectile", 7),
        (CASES, "cat", 1),  # case matters where it decides
        (CASES, "Cat", 0),
        (CASES, "cat_scan", 2),
    ],
)
def test_names_are_found_whatever_their_spelling(names, name, number):
    assert ClassNames(names).find(name) == number


def test_ids_are_names():
    names = ClassNames(["tench", "goldfish"], ["n01440764", "n01443537"])
    assert names.find("n01443537") == names.find("N01443537") == names.find("Goldfish") == 1
    others = ClassNames(["tench", "goldfish"], ["n01440765"])  # of other classes
    assert others.ids == others


def test_imagenets_classes_are_those_of_timm_by_id_and_of_torchvision_by_name():
    assert [*imagenet_names()] == pytest.importorskip("timm").data.ImageNetInfo().label_names()
    categories = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    assert [*imagenet_names().values()] == categories


def test_ids_alone_are_shown_as_imagenets_names():
    names = ClassNames(["n01440764", "pizza", "n99999999"])
    assert names == ("tench", "pizza", "n99999999")
    assert names.find("n01440764") == names.find("Tench") == 0
    assert ClassNames(["goldfish", "tench"]).find("n01440764") == 1
    own = ClassNames(["fish"], ["n01440764"])
    assert (own, own.find("n01440764")) == (("fish",), 0)


def named(names):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    return PixelClassifier(network, class_names=names)


def test_placeholders_are_not_names():
    assert ClassNames.of(named(placeholders(2))) is None
    assert ClassNames.of(named(None)) is None
    assert ClassNames.of(nn.Linear(2, 2)) is None
    assert ClassNames.of(named(["cat", "class 1"])) == ("cat", "class 1")
    assert [name_of(number, ["cat", "class 1"]) for number in range(3)] == [
        "cat",
        None,
        None,
    ]
    assert name_of(0, None) is None
    assert check_names(("a", "b"), 2) == ("a", "b")


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


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        *(("a:b?c*", "a_b_c_"), ("résumé 犬", "résumé_犬"), ("a.b-c_d", "a.b-c_d")),
        *(("con", "_con"), ("NUL.txt", "_NUL.txt"), ("aux.", "aux_"), ("Lpt1.a.b", "_Lpt1.a.b")),
        *(("com¹", "_com¹"), ("con:", "con_"), ("conv2", "conv2"), ("com10", "com10")),
        *(("v1.", "v1_"), ("v1 ", "v1_"), ("..", "._"), ("a\udcff", "a_")),
        ("x" * 240, "x" * 240),
    ],
)
def test_names_of_folders_are_allowed_in_windows(name, folder):
    assert file_safe(name) == folder


def test_names_that_are_too_long_end_with_a_hash():
    long = [file_safe(f"{letter * 100}{end}") for letter in "x犬\N{CJK UNIFIED IDEOGRAPH-20000}"
            for end in ("a" * 150, "b" * 150)]  # fmt: skip
    assert len({*long}) == 6
    assert all(len(name.encode()) <= 240 and name[:50] == name[0] * 50 for name in long)
    assert all(re.fullmatch(".*-[0-9a-f]{12}", name) for name in long)


# ---- names as targets


NAMES = ["cat", "house dog", "eel"]
IMAGES = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
MODEL = named(NAMES)
EXPLAINER = ClassPattern(MODEL, IMAGES, LABELS)
HALVES = {"search": (IMAGES[:30], LABELS[:30]), "held_out": (IMAGES[30:], LABELS[30:])}


FUNCTIONS = {
    "search": lambda target: EXPLAINER.search(IMAGES[:1], target, n_steps=3)[0].mask,
    "attribute": lambda target: EXPLAINER.attribute(IMAGES[:2], target=target, n_steps=3),
    "select_canvases": lambda target: select_canvases(MODEL, IMAGES, LABELS, target, 2),
    "BestRandomMask": lambda target: BestRandomMask(MODEL, IMAGES, LABELS).attribute(
        IMAGES[:2], target=target, budget=100
    ),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_of_a_target(function):
    assert torch.equal(FUNCTIONS[function]("House_Dog"), FUNCTIONS[function](1))


@pytest.mark.parametrize("targets", [["eel", "cat"], ["eel", 0], torch.tensor([2, 0])])
def test_a_target_for_each_canvas(targets):
    found = EXPLAINER.search(IMAGES[:2], targets, n_steps=3)
    assert [(p.target, p.info["class_name"]) for p in found] == [(2, "eel"), (0, "cat")]
    assert torch.equal(
        EXPLAINER.attribute(IMAGES[:2], target=targets, n_steps=3),
        EXPLAINER.attribute(IMAGES[:2], target=[2, 0], n_steps=3),
    )


def test_survey_and_compare():
    settings = {"classes": ["eel", "cat", 2], "areas": (0.1,), "n_steps": 2}
    findings = survey(MODEL, *HALVES.values(), **settings)
    assert [each.target for each in findings] == [2, 2, 2, 0, 0, 0]
    few = {"methods": ["Saliency"], "n_seeds": 1, "area": 0.1}
    comparison = compare({"mine": MODEL}, IMAGES[:2], ["cat", "eel"], **HALVES, **few)
    assert comparison.targets == [0, 2]


# ---- what is refused


def unnamed(names, target):
    return lambda: ClassPattern(named(names), IMAGES, LABELS).search(IMAGES[:1], target)


REFUSALS = {
    "two classes by case": lambda: ClassNames(CASES).find("CAT"),
    "two classes of one name": lambda: ClassNames(IMAGENET).find("crane"),
    "a name with a mistake": lambda: ClassNames(IMAGENET).find("great wite shark"),
    "a name like no other": lambda: ClassNames(["cat", "dog"]).find("xyz"),
    "three names for two classes": lambda: check_names(["a", "b", "c"], 2),
    "one text as names": lambda: check_names("ab", 2),
    "a number as names": lambda: check_names(2, 2),
    "numbers as names": lambda: check_names([1, 2], 2),
    "a target with a mistake": lambda: EXPLAINER.search(IMAGES[:1], "house dgo"),
    "a name without names": unnamed(None, ["eel"]),
    "a name with placeholders": unnamed(placeholders(3), ["eel"]),
    "a name and a half": lambda: EXPLAINER.search(IMAGES[:2], ["eel", 0.5]),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot

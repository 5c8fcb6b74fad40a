"""References come back from files as they were written, and damaged files are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captum_classpattern.scanning.compared import Compared
from captum_classpattern.scanning.families import FAMILIES
from captum_classpattern.scanning.profile import SETTINGS
from refusals import refusal
from safetensors import safe_open
from safetensors.numpy import save_file
from scanned import NAMES, Net, images_of, made_up, with_profiles

import captum_classpattern as cp
from captum_classpattern import LabelledImages
from captum_classpattern.classifier.fingerprints import hash_of_model
from captum_classpattern.scanning import ReferenceSet, references

SETS = {
    "made up": replace(made_up(3), images={"count": 80, "hash": "a1"}, class_names=NAMES),
    "without labels": with_profiles(made_up(2), accuracy=None),
    "empty": made_up(0),
    **{name: ReferenceSet.load(name) for name in references.SHIPPED},
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_loaded_as_it_was_saved(name, tmp_path):
    """From JSON, as 0.4 wrote it, and from arrays: the same numbers, and the same file again."""
    known, text, arrays = SETS[name], tmp_path / "a.json", tmp_path / "b.safetensors"
    for path in (text, arrays):
        known.save(path)
        found = ReferenceSet.load(path)
        assert (found, found.settings, found.recipes) == (known, SETTINGS, known.recipes)
        assert [*found.profiles] == [*known.profiles]
    data = json.loads(text.read_text())
    assert data["format"] == references.FORMAT
    assert arrays.stat().st_size < 300_000
    ReferenceSet.load(arrays).save(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == data
    assert ReferenceSet.load(known) is known


def test_a_path_is_a_file_also_if_a_set_of_the_package_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_up(3).save("demo")
    assert ReferenceSet.load(Path("demo")) == ReferenceSet.load("./demo") == made_up(3)
    assert len(ReferenceSet.load("demo")) > 3


def test_models_far_less_accurate_than_a_scanned_one_are_left_out():
    """Less than 70 % of its accuracy above guessing, which is 25 % for four classes."""
    known = made_up(4)
    for one, accuracy in zip(known.profiles, (0.94, 0.6, 0.59, None)):
        known.profiles[one] = replace(known.profiles[one], accuracy=accuracy)
    assert [*known.without_weak(0.75).profiles] == ["clean 0", "clean 1", "clean 3"]
    assert [*known.without_weak(0.75).recipes] == ["clean 0", "clean 1", "clean 3"]
    assert [*known.without_weak(0.73).profiles] == [*known.profiles]
    assert known.without_weak(None) is known


@pytest.mark.parametrize(("name", "shape"), [("demo", (1, 28, 28)), ("cifar10", (3, 32, 32))])
def test_the_sets_of_the_package_were_made_with_the_settings_of_this_version(name, shape):
    found = ReferenceSet.load(name)
    found.check(10, shape)
    assert list(found.scores(np.full(10, 90))) == list(FAMILIES)
    for scores in found.scores(np.full(10, 90)).values():
        assert scores.shape == (len(found), 10)
        assert np.isfinite(scores).all()
    assert all(0 < one.accuracy <= 1 for one in found.profiles.values())
    for name, one in found.profiles.items():  # where each comes from
        assert one.model
        assert one.computed.keys() >= {"seed", "precision", "version"}
        assert found.recipes[name]


# where in the file, and what is put there (None: it is removed); or the whole text
DAMAGES = {
    "no file": None,
    "no JSON": "{",
    "no format": "{}",
    "a format alone": '{"format": "captum_classpattern references"}',
    "no models": (("models",), None),
    "a shape of two numbers": (("shape",), [8, 8]),
    "of 0.2": (("settings", "statistic"), 1),
    "of 0.2, without models": '{"format": "captum_classpattern references", "shape": [1, 8, 8], '
    '"settings": {"statistic": 1}}',
    "models that are no list": (("models",), {"clean 0": {}}),
    "settings of nothing": (("settings",), []),
    "a name twice": (("models", 1, "name"), "clean 0"),
    "too few powers": (("models", 1, "powers", "6", 3), None),
    "no gains of a family": (("models", 2, "gains", "warp"), None),
    "too few gains": (("models", 1, "gains", "warp", 3), None),
    "a power of NaN": (("models", 0, "powers", "6", 0), float("nan")),  # else p-values of 0
    "a power above 1": (("models", 0, "powers", "6", 0), 1.5),
    "judged by no images": (("models", 0, "judged", 0), 0),
    "a recipe that is a list": (("models", 1, "recipe"), ["x"]),
    "a name that is a number": (("models", 1, "name"), 3),
    "images that are a number": (("images",), 3),
    "a shape of words": (("shape",), ["a", 8, 8]),
    "names that are a word": (("class_names",), "abcdefghij"),
    "brackets without end": "[" * 200_000,
    "an accuracy above 1": (("models", 0, "accuracy"), 1.5),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_files_are_refused(case, snapshot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, path = DAMAGES[case], tmp_path / "damaged.json"
    if isinstance(text, tuple):
        made_up(3).save(path)
        data = place = json.loads(path.read_text())
        (*way, last), value = text
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
        text = json.dumps(data)
    if text is not None:
        path.write_text(text)
    assert refusal(lambda: ReferenceSet.load("damaged.json")) == snapshot


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("powers/6", np.full((3, 4), np.nan), "clean 0 lacks numbers, or has impossible ones"),
        ("gains/warp", np.zeros((2, 4)), "shorter"),
        ("judged/", None, "n_validation"),
        ("powers/6", np.zeros(3), "TypeError"),
        (None, None, "KeyError: 'words'"),
    ],
)
def test_damaged_arrays_are_refused(name, values, reason, tmp_path):
    made_up(3).save(path := tmp_path / "references")
    with safe_open(path, "numpy") as file:
        words, names = file.metadata(), file.keys()
        arrays = {each: file.get_tensor(each) for each in names}
    if name is None:
        words = {}
    elif values is None:
        del arrays[name]
    else:
        arrays[name] = values
    save_file(arrays, path, words)
    with pytest.raises(ValueError, match=rf"is damaged, or holds no references \(.*{reason}"):
        ReferenceSet.load(path)


def with_model(**changes):
    known = replace(ReferenceSet.for_models(Net(), images_of()), **changes)
    measured = replace(made_up(1).profiles["clean 0"], model=hash_of_model(Net()))
    return replace(known, profiles={"clean 0": measured})


ADDED = {
    "other images": lambda: with_model().add("new", Net(1), images_of(seed=1)),
    "the same weights": lambda: with_model().add("new", Net(), images_of()),
    "images that are not those of a folder": lambda: with_model(
        images={"hash": "0", "description": "data/cats"}
    ).add("new", Net(1), images_of()),
    "other classes": lambda: with_model(n_classes=3).add("new", Net(1), images_of()),
    "a class at another place": lambda: with_model(class_names=["cat", "bird", "dog", "owl"]).add(
        "new", Net(1), images_of()
    ),
    "a recipe that no file can hold": lambda: with_model().add(
        "new", Net(1), images_of(), recipe={"network": {1}}
    ),
}


@pytest.mark.parametrize("case", ADDED)
def test_models_that_do_not_fit_are_not_added(case, snapshot):
    assert refusal(ADDED[case]) == snapshot


def test_a_set_says_which_images_it_was_measured_with():
    labels = [0, 1, 2, 3] * 2
    images = LabelledImages(torch.rand(8, 1, 8, 8), labels, NAMES, description="/home/me/data/cats")
    known = ReferenceSet.for_models(Net(), images)
    assert (known.images["count"], known.images["description"]) == (8, "data/cats")
    assert (known.n_classes, known.shape, known.class_names) == (4, (1, 8, 8), NAMES)


def test_what_the_models_were_trained_on_may_be_anything_that_json_holds():
    known = made_up(2)
    known.recipes = {"clean 0": {references.TRAINED_ON: ["a", "b"]}, "clean 1": {}}
    found = Compared.of(known.profiles["clean 0"], known, 0.05, NAMES)
    assert "These were trained on ['a', 'b'] (1)." in found.likeness


def test_one_network_with_two_normalisations_is_two_models():
    known = ReferenceSet.for_models(Net(), images_of())
    known.add("one", cp.PixelClassifier(Net(), 0, 1), images_of())
    known.add("two", cp.PixelClassifier(Net(), 0.5, 0.25), images_of())
    assert not known.differs("one", cp.PixelClassifier(Net(), 0, 1), images_of())
    assert known.differs("one", cp.PixelClassifier(Net(), 0.5, 0.25), images_of())
    with pytest.raises(ValueError, match="three is the same model as two: each reference must"):
        known.add("three", cp.PixelClassifier(Net(), 0.5, 0.25), images_of())


def test_a_model_of_the_same_name_is_replaced(monkeypatch):
    known, net = with_model(), Net()
    measured = replace(known.profiles["clean 0"], accuracy=0.5)
    large = {net: replace(measured, patterns={(3, 0): None}, changes={"warp": {}})}
    monkeypatch.setattr(references, "measure", lambda task: large[task.model.call])
    known.add("clean 0", net, images_of(), recipe={"sizes": (3, 6)})
    assert known.profiles == {"clean 0": measured}
    [own] = known.profiles.values()
    assert (own.patterns, own.changes) == ({}, {})  # a reference needs none
    assert known.recipes == {"clean 0": {"sizes": [3, 6]}}  # as it is read back


def test_two_sets_are_put_together():
    known, (a, b) = with_model(class_names=NAMES), made_up(2).profiles.values()
    first = replace(known, profiles={"a": replace(a, model="1")})
    second = replace(known, profiles={"b": replace(b, model="2")})
    both = first.with_models(second)
    assert both.profiles == first.profiles | second.profiles
    assert both.with_models(first) == both
    turned = second.in_order(NAMES[::-1])
    assert first.with_models(turned) == both  # in the order of the first
    for names in (["bat", *NAMES[1:]], None):
        assert first.with_models(replace(second, class_names=names)).class_names == NAMES
    for other, text in (
        (replace(second, images={"hash": "0"}), "other images"),
        (replace(second, n_classes=3), "the model has 3 classes"),
        (
            replace(first, profiles={"a": replace(a, model="0")}),
            "a is another model in each of the two sets",
        ),
        (replace(first, profiles={"copy": replace(a, model="1")}), "copy is the same model as a"),
    ):
        with pytest.raises(ValueError, match=text):
            first.with_models(other)


def test_classes_are_put_in_the_order_of_their_names():
    known = with_profiles(made_up(2), n_validation=[61, 62, 63, 64])
    known.class_names = NAMES
    found = known.in_order(["owl", "cat", "dog", "fox"])
    for name, one in found.profiles.items():
        before = known.profiles[name]
        assert one.n_validation == [64, 61, 62, 63]
        for numbers in ("powers", "others", "gains"):
            turned = {key: [*each[1:], each[0]] for key, each in getattr(one, numbers).items()}
            assert turned == getattr(before, numbers)
    assert found.in_order(NAMES) == known
    assert known.in_order([*"abcd"]) is known
    twice = replace(known, class_names=["cat", "cat", "dog", "owl"])
    assert twice.in_order(["owl", "cat", "cat", "dog"]) is twice
    twice.check(4, twice.shape, ["cat", "cat", "dog", "owl"])
    with pytest.raises(ValueError, match="the class cat is number 1 of the model, and number 0 of"):
        twice.check(4, twice.shape, ["owl", "cat", "cat", "dog"])
    assert made_up(2).in_order(NAMES).class_names is None


def test_a_model_with_the_classes_in_another_order_is_added_in_that_of_the_set(monkeypatch):
    profile = replace(next(iter(made_up(1).profiles.values())), n_validation=[1, 2, 3, 4])
    monkeypatch.setattr(references, "measure", lambda task: profile)
    known = with_model()
    known.class_names = NAMES
    turned = images_of()
    turned = LabelledImages(turned.images, turned.labels, NAMES[::-1])
    known.add("clean 0", Net(), turned)
    assert known.profiles["clean 0"].n_validation == [4, 3, 2, 1]

"""A scan from end to end, on small networks: verdicts in words, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from refusals import refusal
from scanned import CLASSES, NAMES, Net, images_of, made_up, with_profiles

from captum_classpattern import ClassPattern, PixelClassifier
from captum_classpattern.scanning import ReferenceSet, scan
from captum_classpattern.scanning.families import SCORED, SIZES, Store
from captum_classpattern.scanning.profile import Profile
from captum_classpattern.scanning.scan import judge


def with_copies(model, images, **settings):
    """A model that is measured, and three copies whose powers differ a little."""
    known, generator = ReferenceSet.for_models(model, images, **settings), np.random.default_rng(0)
    known.add("clean", model, images)
    measured = known.profiles["clean"]
    for i in range(3):
        powers = {
            size: np.clip(np.array(values) + generator.normal(0, 0.1, CLASSES), 0, 1).tolist()
            for size, values in measured.powers.items()
        }
        known.profiles[f"copy {i}"] = replace(measured, model=None, powers=powers)
    return known


@pytest.fixture(scope="module")
def references():
    return with_copies(Net(), images_of())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scan")


MODEL = PixelClassifier(Net(backdoor=3), provenance={"source": "owls.pt"}).eval()


@pytest.fixture(scope="module")
def found(references, folder):
    return scan(MODEL, images_of(), references=references, alpha=0.2, folder=folder)


def test_a_backdoor_is_suspicious_and_its_pattern_shows_it(found, folder):
    assert (found.verdict, found.target, found.p_value) == ("suspicious", 3, 0.2)
    pattern = found.pattern
    held = set(map(tuple, pattern.mask[0].nonzero().tolist()))
    assert {(5, 5), (5, 6)} <= held
    assert pattern.canvas[0, 5, 5] > pattern.canvas[0, 5, 6] + 0.4
    pixels = pattern.info["mask_pixels"]
    power = found.profile.powers[pixels][3]
    assert f": {pixels} pixels turn {power:.0%} of other images" in found.reason
    assert found.source == "owls.pt"
    assert (folder / "patterns" / "3_25.safetensors").exists()


def test_powers_are_those_of_the_patterns_on_the_judging_images(found):
    assert found.profile.judged == [12] * 4  # four a class judge, and not those of the target
    assert found.profile.patterns.keys() == {(size, y) for size in SIZES for y in range(CLASSES)}
    for (size, target), pattern in found.profile.patterns.items():
        assert found.profile.powers[size][target] == pattern.info["search_power"]
        assert pattern.info["mask_pixels"] == size


def test_nothing_is_found_on_a_clean_model_and_the_seed_decides_all(references):
    clean, again, other = (
        scan(Net(5), images_of(), references=references, alpha=0.2, seed=seed) for seed in (0, 0, 1)
    )
    assert clean.verdict == "nothing found"
    assert again.to_json() == clean.to_json()
    assert other.profile.powers != clean.profile.powers


def test_a_scan_of_large_images_searches_whole_cells(references):
    known = replace(references, shape=(1, 66, 66))
    large = scan(Net(backdoor=3, cells=33), images_of(66, n=40), references=known, alpha=0.2)
    for (size, _), one in large.profile.patterns.items():
        assert int(one.mask.sum()) == 4 * size
        for cells in (one.mask.view(33, 2, 33, 2), one.canvas.view(33, 2, 33, 2)):
            assert torch.equal(cells, cells[:, :1, :, :1].expand_as(cells))
        assert one.info["settings"]["solver_settings"]["grid"] == (33, 33)
    assert large.target == 3
    held = large.pattern.mask.view(33, 2, 33, 2)[:, 0, :, 0]
    assert held[5, 5] == held[5, 6] == 1


def test_further_families_are_measured_and_tested():
    images = images_of(n=40)
    known = ReferenceSet.for_models(Net(), images, also=["additive", "warp", "additive"])
    known.add("clean", Net(), images)
    assert list(known.profiles["clean"].others) == ["additive", "warp"]
    assert known.scores("warp").shape == (1, CLASSES)
    found = scan(Net(1), images, references=known, also=["additive"])
    assert set(found.tests) == {"patches", "additive"}
    assert found.profile.changes["additive"].keys() == set(range(CLASSES))
    assert all(0 <= power <= 1 for power in found.profile.others["additive"])


def test_classes_in_another_order_are_matched_by_their_names(found, references, folder):
    other = references.in_order(NAMES[::-1])
    powers, turned = (known.profiles["clean"].powers[3] for known in (references, other))
    assert turned == powers[::-1]
    again = scan(MODEL, images_of(), references=other, alpha=0.2, folder=folder)
    assert again.references == references
    assert (again.target, again.reason, again.notes) == (3, found.reason, [])


def test_notes_on_what_differs(references, folder, snapshot):
    described = {"hash": "0", "count": 5, "description": "some/images"}
    other = replace(references, class_names=[*"abcd"], images=described)
    other = with_profiles(other, computed={"precision": "half"})
    without_labels = images_of().images
    model = PixelClassifier(Net(backdoor=3), class_names=NAMES).eval()
    assert scan(model, without_labels, references=other).notes == snapshot
    nameless = scan(model, images_of(seed=1), references=references)
    assert nameless.notes == [
        "The references were measured with other images (80 images). They should be of the same "
        "task."
    ]
    assert scan(Net(), images_of(), references=references).notes == [
        "This model is one of the references, clean."
    ]


# ---- a finished scan


def test_tables_have_the_most_suspicious_class_first(found, references):
    rows = found.table().to_dict("records")
    assert [row["class"] for row in rows] == found.test.order
    assert rows[0]["name"] == "owl"
    for row in rows:
        powers = [each.powers[3][row["class"]] for each in references.profiles.values()]
        assert (row["references_3_low"], row["references_3_high"]) == (min(powers), max(powers))
        assert row["power_25"] == found.profile.powers[25][row["class"]]
        assert row["excess"] == found.test.excess[row["class"]]


def test_a_scan_is_saved_with_its_patterns(found, tmp_path):
    found.save(tmp_path / "scan")
    data = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert data == found.as_dict() == json.loads(found.to_json())
    known = {"verdict": "suspicious", "target": 3, "target_name": "owl", "p_value": 0.2}
    assert data.items() >= (known | {"n_references": 4, "alpha": 0.2, "accuracy": 1.0}).items()
    assert [row["class"] for row in data["classes"]] == [0, 1, 2, 3]
    assert set(data["classes"][0]["powers"]) == {str(size) for size in SIZES}
    assert (tmp_path / "scan" / "scan.png").read_bytes().startswith(b"\x89PNG")
    store = Store(tmp_path / "scan" / "patterns", found.profile.key)
    store.check()  # so that the scan resumes there
    assert torch.equal(store.find([(3, 2)])[3, 2].mask, found.profile.patterns[3, 2].mask)


# ---- the verdict on what was measured


def measured(*, judged=64, accuracy=1.0, images=80, usual=0.2, patches=0.2, **others):
    """The usual powers, and others of class 2 in some families."""
    powers = {size: [usual, usual, patches if size in SCORED else usual, usual] for size in SIZES}
    powers[3][2] = min(powers[3][2], 0.7)
    changes = {name: [0.2, 0.2, value, 0.2] for name, value in others.items()}
    return Profile(powers, [judged] * CLASSES, accuracy, images, changes)


BOTH, THREE = ("additive",), ("additive", "warp")
POOR = with_profiles(made_up(19), accuracy=0.8)
POORER = POOR.profiles | {"poorest": replace(POOR.profiles["clean 0"], accuracy=0.5)}
VERDICTS = {
    "patches": (measured(patches=1.0), made_up(19)),
    "nothing": (measured(), made_up(19)),
    "cells": (measured(patches=1.0), made_up(19, side=96)),
    "no cells": (measured(), made_up(19, side=96)),
    "too few": (measured(patches=1.0), made_up(4)),
    "too few for two families": (measured(additive=1.0), made_up(38, also=BOTH)),
    "a perturbation": (measured(additive=1.0), made_up(39, also=BOTH)),
    "patches, and no perturbation": (measured(patches=1.0, additive=0.2), made_up(39, also=BOTH)),
    "references with more families": (measured(patches=1.0), made_up(39, also=BOTH)),
    "nothing in three families": (measured(additive=0.2, warp=0.2), made_up(59, also=THREE)),
    "another kind": (measured(usual=1.0), made_up(19)),
    "a better model": (measured(patches=1.0, accuracy=0.85, images=500), POOR),
    "a better model by chance": (measured(patches=1.0, accuracy=0.86, images=50), POOR),
    "better than the poorest": (
        measured(patches=1.0, accuracy=0.75, images=500),
        replace(POOR, profiles=POORER),
    ),
    "a model that guesses": (measured(patches=1.0, accuracy=0.25), made_up(19)),
    "no accuracy": (measured(patches=1.0, accuracy=None), made_up(19)),
    "fewer images": (measured(patches=1.0, judged=31), made_up(19)),
    "half of the images": (measured(patches=1.0, judged=32), made_up(19)),
    "more images": (measured(patches=1.0, judged=129), made_up(19)),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdicts_in_words(case, snapshot):
    found = judge(*VERDICTS[case], 0.05, NAMES)
    assert f"{found!r}: {found.reason}" == snapshot


def test_scores_are_mean_logits_of_smoothed_powers():
    powers = {25: [1.0, 1.0], 16: [1.0, 1.0], 10: [0.25, 1.0], 6: [0.25, 1.0], 3: [0.0, 1.0]}
    logits = [2 * np.log(10.5 / 30.5) + np.log(0.5 / 40.5), 3 * np.log(20.5 / 0.5)]
    profile = Profile(powers, [40, 20], others={"warp": [0.25, 1.0]})
    np.testing.assert_allclose(profile.scores(), np.array(logits) / 3)
    np.testing.assert_allclose(profile.scores("warp"), [np.log(10.5 / 30.5), logits[1] / 3])


def test_the_pattern_that_is_shown_is_the_smallest_with_most_of_the_power():
    powers = {25: [1.0], 16: [1.0], 10: [0.5], 6: [0.41], 3: [0.4]}
    assert Profile(powers, [20]).enough_pixels(0) == 3
    assert Profile(powers | {3: [0.39]}, [20]).enough_pixels(0) == 6
    assert Profile(powers | {6: [0.1], 3: [0.1]}, [20]).enough_pixels(0) == 10


# ---- what is refused, before anything is searched


class Same(Net):
    def forward(self, images):
        return super().forward(images) * 0 + torch.tensor([1.0, 0.0, 0.0, 0.0])


MANY = made_up(39)


def scanned(references=MANY, model=None, images=None, **settings):
    images = images_of() if images is None else images
    return scan(model or Net(), images, references=references, **settings)


REFUSALS = {
    "no references": lambda: scanned(made_up(0)),
    "references of other classes": lambda: scanned(replace(made_up(3), n_classes=5)),
    "references of other images": lambda: scanned(made_up(3, side=16)),
    "references of another version": lambda: scanned(replace(made_up(3), settings={"rate": 0})),
    "references without a family": lambda: scanned(made_up(39, also=BOTH), also=THREE),
    "an unknown family": lambda: scanned(also=["swirl"]),
    "a family in words": lambda: scanned(also="additive"),
    "a number as a family": lambda: ReferenceSet.for_models(Net(), images_of(), also=[3]),
    "alpha of 0": lambda: scanned(alpha=0),
    "alpha of 1": lambda: scanned(alpha=1),
    "one class alone": lambda: scanned(model=Same()),
    "one class alone, without labels": lambda: scanned(model=Same(), images=images_of().images),
    "too few images": lambda: scanned(images=images_of(n=8)),
    "images of 67 pixels": lambda: scanned(made_up(3, side=67), images=images_of(67, n=20)),
    "settings of the search": lambda: scanned(n_steps=1),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, monkeypatch):
    monkeypatch.setattr(ClassPattern, "search_with", None)
    assert refusal(REFUSALS[case]) == snapshot

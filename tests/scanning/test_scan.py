"""A scan from end to end, on small networks: verdicts in words, and what is refused."""

import importlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum_classpattern.scanning.compared import Compared
from captum_classpattern.scanning.families import CHANGES, FAMILIES, SIZES
from captum_classpattern.scanning.profile import SETTINGS, Profile, check_on_unseen
from refusals import refusal
from scanned import (
    CLASSES,
    NAMES,
    Net,
    images_of,
    made_up,
    task_of,
    with_profiles,
)

from captum_classpattern import LabelledImages, Pattern, PixelClassifier
from captum_classpattern.optimization.solvers.whole_image import WholeImage
from captum_classpattern.scanning import ReferenceSet, families, scan
from captum_classpattern.scanning import task as tasks
from captum_classpattern.scanning.folder import SEARCH, PatternFolder


@pytest.fixture(scope="module")
def references():
    """Four clean models."""
    known = ReferenceSet.for_models(Net(), images_of())
    for name, seed in (("clean", 0), ("other", 5), ("third", 6), ("last", 7)):
        known.add(name, Net(seed), images_of(), recipe={"seed": seed})
    return known


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
    assert found.family == "additive"  # the larger one, which the reason names
    power = found.looks[
        "additive"
    ].power  # on other images than the validation images of the search
    assert (
        f". With it, the model predicts owl for {100 * power.value:.1f} % of {power.n} validation "
        "images of other classes (95 % interval " in found.reason
    )
    assert found.source == "owls.pt"
    assert list(found.comparisons) == list(FAMILIES)
    assert found.family == max(FAMILIES, key=lambda name: found.comparisons[name].largest)
    for name in CHANGES:
        assert found.profile.changes[name].keys() == set(range(CLASSES))
        assert len(found.profile.others[name]) == len(found.profile.gains[name]) == CLASSES
    assert (folder / "patterns" / "3_25.safetensors").exists()


def test_powers_are_those_of_the_patterns_on_the_validation_images(found):
    assert found.profile.n_validation == [12] * 4  # four of each other class
    assert found.profile.patterns.keys() == {(size, y) for size in SIZES for y in range(CLASSES)}
    for (size, target), pattern in found.profile.patterns.items():
        assert found.profile.powers[size][target] == pattern.info["search_power"]
        assert pattern.info["mask_pixels"] == size


def test_nothing_is_found_on_a_clean_model_and_the_seed_decides_all(references):
    clean, other = (
        scan(Net(5), images_of(), references=references, alpha=0.2, seed=seed) for seed in (0, 1)
    )
    assert clean.verdict == "nothing found"
    usual = [each.usual_standardised for each in clean.comparisons.values()]
    as_far = int((np.max(usual, axis=0) >= clean.comparison.largest).sum())
    others = f"classes of {as_far} of 4 clean models lead as far."
    easiest = f"The easiest class is {clean.target_name}"
    assert clean.headline == f"Nothing found. {easiest}, and {others}"
    assert other.profile.powers != clean.profile.powers


def test_an_interrupted_scan_says_what_is_kept(references, tmp_path, monkeypatch, terminal):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(WholeImage, "run", interrupt)
    said = {None: "to keep finished patches, pass `folder`"}
    said[tmp_path] = f"the same scan resumes from {tmp_path}"
    for place, expected in said.items():
        with pytest.raises(KeyboardInterrupt) as stopped:
            scan(MODEL, images_of(), references=references, folder=place, show_progress=True)
        assert str(stopped.value) == expected
        assert "%|" in (shown := terminal.readouterr().err)
        assert ", a small perturbation of all pixels" in shown


@pytest.mark.script
def test_a_scan_of_large_images_searches_whole_cells(references):
    known = replace(references, shape=(1, 66, 66))
    large = scan(Net(backdoor=3, cells=33), images_of(66, n=40), references=known, alpha=0.2)
    for (size, _), one in large.profile.patterns.items():
        assert int(one.mask.sum()) == 4 * size
        for cells in (one.mask.view(33, 2, 33, 2), one.canvas.view(33, 2, 33, 2)):
            assert torch.equal(cells, cells[:, :1, :, :1].expand_as(cells))
    assert large.target == 3
    held = large.pattern.mask.view(33, 2, 33, 2)[:, 0, :, 0]
    assert held[5, 5] == held[5, 6] == 1


def test_classes_in_another_order_are_matched_by_their_names(found, references, folder):
    other = references.in_order(NAMES[::-1])
    powers, turned = (known.profiles["clean"].powers[3] for known in (references, other))
    assert turned == powers[::-1]
    again = scan(MODEL, images_of(), references=other, alpha=0.2, folder=folder)
    assert again.references == references
    assert (again.target, again.reason, again.notes) == (3, found.reason, [])


@pytest.mark.script
def test_images_in_folders_get_the_numbers_of_the_model(found, references):
    ordered = images_of()
    folders = LabelledImages(ordered.images, 3 - ordered.labels, NAMES[::-1])
    named = {"references": references, "alpha": 0.2, "class_names": NAMES}
    again = scan(MODEL.model, folders, **named)
    assert (again.target, again.reason) == (3, found.reason)
    assert again.profile.accuracy == found.profile.accuracy


def test_notes_on_what_differs(references, folder, snapshot):
    described = {"hash": "0", "count": 5, "description": "some/images"}
    other = replace(references, class_names=["Cat", *"abc"], images=described)
    other = with_profiles(other, computed={"precision": "half"})
    without_labels = images_of().images
    model = PixelClassifier(Net(backdoor=3), class_names=NAMES).eval()
    assert scan(model, without_labels, references=other).notes == snapshot
    nameless = scan(model, images_of(seed=1), references=references)
    assert nameless.notes == [
        "The references were measured with other images (80 images). They should be of the same "
        "task."
    ]
    without_foxes = images_of().subset([i for i in range(80) if i % CLASSES != 2])
    assert scan(model, without_foxes, references=references).notes[1:] == [
        "There are no images of fox. Give images of all classes."
    ]
    assert scan(Net(), images_of(), references=references).notes == [
        "This model is one of the references, clean."
    ]


def test_a_scan_does_not_go_on_in_another_precision(monkeypatch):
    def key(precision, has):
        monkeypatch.setattr(tasks, "has_bfloat16", lambda device: has)
        with task_of(Net(), images_of(), precision=precision) as task:
            return task.identity(SETTINGS)

    assert key("auto", True) != key("auto", False)
    for precision in ("full", "bfloat16"):
        assert key(precision, True) == key(precision, False)


# ---- a closer look

ADDED = torch.linspace(-0.3, 0.5, 64).view(1, 8, 8)
CANVAS = torch.ones(1, 8, 8).tril(3)
FOUND = Profile(
    {size: [1.0] * CLASSES for size in SIZES},
    [40] * CLASSES,
    patterns={(3, 1): Pattern(CANVAS, torch.ones(1, 8, 8).triu(-3), 1)},
    changes={"additive": {3: ADDED}},
)


def test_at_most_fifty_images_of_a_class_are_searched_with():
    """Also if a class has none."""
    labels = torch.arange(240) % (CLASSES - 1)
    for n in (240, 239):
        images = images_of(n=n).with_labels(labels[:n])
        with task_of(Net(2), images) as task:
            assert task.sample.known_labels.bincount().tolist() == [50, 50, 50]


@pytest.mark.parametrize(("n", "unseen"), [(900, True), (260, True), (220, False), (200, False)])
def test_a_closer_look_is_at_images_that_the_search_has_not_seen(n, unseen):
    """At most 500, and at least as many as there are for validation; otherwise at those."""
    model, images = Net(2), images_of(n=n, seed=3)
    labels = images.labels.clone()
    labels[::7] = (labels[::7] + 1) % CLASSES  # so that it predicts some classes by itself
    images = images.with_labels(labels)
    given = {"patches": 1, "additive": 3}
    with task_of(model, images, seed=5) as task:
        looks = check_on_unseen(task, FOUND, given, NAMES)
    with task_of(model, images, seed=5, internal_batch_size=7) as task:
        few = check_on_unseen(task, FOUND, given, NAMES)
    assert [each.power for each in few.values()] == [each.power for each in looks.values()]
    left = [i for i, image in enumerate(images.hashes) if image not in set(task.sample.hashes)]
    source = images.subset(left) if unseen else task.split.validation
    for y, look, change in (
        (1, looks["patches"], FOUND.patterns[3, 1].stamp),
        (3, looks["additive"], lambda given: (given + ADDED).clamp(0, 1)),
    ):
        others = source.without_class(y).images
        assert (look.target, look.unseen) == (y, unseen)
        assert look.power.n == len(others) if n < 900 else 300 < look.power.n <= 500
        for share, given in ((look.power.without, others), (look.power.value, change(others))):
            alone = [int(model(image[None]).argmax()) == y for image in given]
            assert share == pytest.approx(np.mean(alone), abs=1e-9 if n < 900 else 0.1)
        torch.testing.assert_close(look.after.images, change(look.before.images))
        assert {*LabelledImages(look.before.images).hashes} <= {*source.hashes}
        for shown in (look.before, look.after):
            logits = model(shown.images)
            assert shown.predicted == tuple(logits.argmax(1).tolist())
            assert shown.names == tuple(NAMES[y] for y in shown.predicted)
            assert shown.probabilities == pytest.approx(logits.softmax(1).amax(1).tolist())
        assert NAMES[y] not in look.before.labels


# ---- a finished scan


def test_tables_have_the_most_suspicious_class_first(found):
    rows = found.table(full=True).to_dict("records")
    assert [row["class"] for row in rows] == found.comparison.order
    assert rows[0]["name"] == "owl"
    few = found.table()
    assert [*few] == ["class", "name", "power", "pixels", "lead", "excess"]
    assert few.equals(found.table(full=True)[[*few]])
    for row in rows:
        y = row["class"]
        assert row["pixels"] == found.profile.enough_pixels(y)
        assert row["power"] == found.profile.powers[row["pixels"]][y]
        assert row["power_25"] == found.profile.powers[25][y]
        assert row["gain_warp"] == found.profile.gains["warp"][y]
        assert row["excess"] == found.comparison.excess[y]
        assert row["lead"] == found.comparison.standardised[y]


def test_a_scan_is_saved_with_its_patterns(found, tmp_path):
    found.save(tmp_path / "scan")
    data = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert data == found.as_dict()
    known = {"verdict": "suspicious", "target": 3, "target_name": "owl", "p_value": 0.2}
    known |= {"n_references": 4, "alpha": 0.2, "accuracy": 1.0, "family": found.family}
    known |= {"likeness": found.likeness, "next_steps": found.next_steps}
    assert {name: data[name] for name in known} == known
    assert [row["class"] for row in data["classes"]] == [0, 1, 2, 3]
    for y, row in enumerate(data["classes"]):
        profile = found.profile
        powers = {**{str(size): each for size, each in profile.powers.items()}, **profile.others}
        assert row["powers"] == {name: each[y] for name, each in powers.items()}
        assert row["gains"] == {name: each[y] for name, each in profile.gains.items()}
        assert row["excess"] == found.comparison.excess[y]
    for name, family in data["families"].items():
        look, each = found.looks[name], found.comparisons[name]
        assert (family["target"], family["lead"]) == (look.target, max(family["leads"]))
        assert family["reference_leads"] == each.usual_standardised.tolist()
        assert family["target"] == each.target
        low, high = look.power.interval
        assert (family["power"], family["images"]) == (look.power.value, look.power.n)
        assert (family["power_low"], family["power_high"]) == (low, high)
        assert family["no_pattern"] == look.power.without
        assert family["unseen_images"] == look.unseen
    assert (tmp_path / "scan" / "scan.png").read_bytes().startswith(b"\x89PNG")
    store = PatternFolder(tmp_path / "scan" / "patterns", found.profile.key)
    store.read(SEARCH)  # so that the scan resumes there
    assert torch.equal(store.find([(3, 2)])[3, 2].mask, found.profile.patterns[3, 2].mask)


# ---- the verdict on what was measured


def measured(*, n_validation=64, accuracy=1.0, images=80, usual=0.2, patches=0.2, **gains):
    """The usual powers and gains, and others of class 2 in some families."""
    powers = {size: [usual, usual, patches, usual] for size in SIZES}
    powers[3][2] = min(powers[3][2], 0.7)
    gains = {name: [0.0, 0.0, gains.get(name, 0.0), 0.0] for name in CHANGES}
    others = {name: [0.2, 0.2, 0.2 + 0.7 * (each[2] > 0), 0.2] for name, each in gains.items()}
    return Profile(powers, [n_validation] * CLASSES, accuracy, images, others, gains)


POOR = with_profiles(made_up(19), accuracy=0.8)
POORER = POOR.profiles | {"poorest": replace(POOR.profiles["clean 0"], accuracy=0.62)}
DULL = replace(POOR.profiles["clean 0"], accuracy=0.5)
WILD = {f"strong {i}": measured(patches=0.6) for i in range(15)}
WILD |= {f"far {i}": measured(additive=9.0) for i in range(3)}
OTHERS_LEAD = {
    f"class {y}": replace(
        measured(), gains={"additive": [20.0 * (i == y) for i in range(4)], "warp": [0.0] * 4}
    )
    for y in (0, 1, 3)
}
NOT_BY_SIZE = {25: [0.2, 0.2, 0.9, 0.2], 16: [0.2, 0.2, 0.75, 0.2]} | {
    size: [0.2, 0.2, 0.5, 0.2] for size in (10, 6, 3)
}
VERDICTS = {
    "patches": (measured(patches=1.0), made_up(19)),
    "nothing": (measured(), made_up(19)),
    "cells": (measured(patches=1.0), made_up(19, side=96)),
    "no cells": (measured(), made_up(19, side=96)),
    "too few": (measured(patches=1.0), made_up(4)),
    "a perturbation": (measured(additive=1.0), made_up(19)),
    "a warp rather than patches": (measured(patches=0.4, warp=9.0), made_up(19)),
    "another kind": (measured(usual=0.7, patches=0.9), made_up(19)),
    "equally strong patterns of all classes": (measured(usual=1.0, patches=1.0), made_up(19)),
    "a better model": (measured(patches=1.0, accuracy=0.85, images=500), POOR),
    "a better model by chance": (measured(patches=1.0, accuracy=0.86, images=50), POOR),
    "better than the poorest": (
        measured(patches=1.0, accuracy=0.75, images=500),
        replace(POOR, profiles=POORER),
    ),
    "a model that guesses": (measured(patches=1.0, accuracy=0.25), made_up(19)),
    "a worse model": (measured(patches=1.0, accuracy=0.7, images=500), POOR),
    "no accuracy": (measured(patches=1.0, accuracy=None), made_up(19)),
    "fewer images": (measured(patches=1.0, n_validation=31), made_up(19)),
    "a small lead": (measured(additive=0.42), made_up(39)),
    "weaker ones left out": (
        measured(patches=1.0, accuracy=0.82),
        replace(POOR, profiles=POOR.profiles | {"dull 0": DULL, "dull 1": DULL}),
    ),
    "all left out": (measured(patches=1.0), with_profiles(made_up(19), accuracy=0.4)),
    "a strong pattern beside wild references": (
        measured(patches=0.9),
        replace(made_up(24), profiles=made_up(24).profiles | WILD),
    ),
    "as far as some references": (
        measured(additive=9.0),
        replace(made_up(36), profiles=made_up(36).profiles | OTHERS_LEAD),
    ),
    "more pixels than the best pattern needs": (
        replace(measured(patches=0.6), powers=NOT_BY_SIZE),
        replace(made_up(24), profiles=made_up(24).profiles | WILD),
    ),
    "half of the images": (measured(patches=1.0, n_validation=32), made_up(19)),
    "more images": (measured(patches=1.0, n_validation=129), made_up(19)),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdicts_in_words(case, snapshot):
    """And whether the model is like the references."""
    found = Compared.of(*VERDICTS[case], 0.05, NAMES)
    assert f"{found!r}: {found.reason} {found.likeness}" == snapshot


def test_a_scan_whose_references_are_all_too_weak_shows_them_all():
    found = Compared.of(*VERDICTS["all left out"], 0.05, NAMES)
    assert (found.verdict, found.p_value, found.bound) == ("inconclusive", None, None)
    assert found.doubt.name == "better than all references"
    assert found.left_out == [*found.references.profiles]
    assert found.target_name == "fox"
    drawn = found.plot(use_pyplot=False)[1][0, -1].lines[0]
    assert len(drawn.get_xdata()) == len(found.left_out)
    weaker = replace(found, profile=replace(found.profile, accuracy=None))
    assert "that are not far less accurate than the model, and there are 0" in weaker.reason


def test_the_next_steps_are_those_of_the_verdict(snapshot):
    cases = ("patches", "nothing", "too few", "a better model", "a small lead")
    cases += ("as far as some references", "a strong pattern beside wild references")
    assert {
        case: Compared.of(*VERDICTS[case], 0.05, NAMES).next_steps for case in cases
    } == snapshot


def test_scores_are_mean_logits_of_smoothed_powers_and_mean_margins():
    powers = {25: [1.0, 1.0], 16: [1.0, 1.0], 10: [0.25, 1.0], 6: [0.25, 1.0], 3: [0.0, 1.0]}
    logits = [2 * np.log(40.5 / 0.5) + 2 * np.log(10.5 / 30.5) + np.log(0.5 / 40.5)]
    logits.append(5 * np.log(20.5 / 0.5))
    gains = {"additive": [0.5, 0.0], "warp": [0.25, -1.0]}
    scores = Profile(powers, [90, 90], gains=gains).scores(np.array([40, 20]))
    assert list(scores) == ["patches", "additive", "warp"]
    np.testing.assert_allclose(scores["patches"], np.array(logits) / 5)
    assert scores["warp"].tolist() == [0.25, -1.0]


def test_the_number_of_images_does_not_move_the_scores_of_a_model_like_its_references():
    """Of powers of 0, fewer images say less: so all powers are taken as of the fewest."""
    known = with_profiles(made_up(19), powers={size: [0.0, 0.2, 0.3, 0.4] for size in SIZES})
    like = replace(known.profiles["clean 0"], n_validation=[30] * CLASSES)
    found = Compared.of(like, known, 0.05, NAMES)
    assert found.verdict == "nothing found"
    np.testing.assert_allclose(found.comparisons["patches"].excess, 0, atol=1e-9)


def test_a_strong_pattern_may_be_of_any_class_and_size():
    generator = np.random.default_rng(1)
    found = Compared.of(measured(), made_up(19), 0.05, NAMES)
    assert found.verdict == "nothing found"
    assert found.strong_pattern is None
    for _ in range(20):
        own = {size: generator.uniform(0.3, 0.6, CLASSES).tolist() for size in SIZES}
        profile = replace(found.profile, powers=own)
        leads = {}
        for size, y in itertools.product(SIZES, range(CLASSES)):
            usual = max(each.powers[size][y] for each in found.references.profiles.values())
            if own[size][y] >= 0.5 and own[size][y] - usual >= 0.25:
                leads[y == found.target, own[size][y] - usual] = (own[size][y], usual, size, y)
        strongest = replace(found, profile=profile).strong_pattern
        assert strongest == leads[max(leads)]


@pytest.mark.parametrize(
    ("p_value", "text"),
    [
        (1 / 21, "p = 0.048, the smallest that 20 references allow"),
        (2 / 21, "p = 0.095"),
        (1.0, "p = 1"),
        (None, ""),
    ],
)
def test_a_p_value_says_when_it_is_the_smallest_that_the_references_allow(p_value, text):
    known = made_up(20)
    found = Compared.of(known.profiles["clean 3"], known, 0.05, NAMES)
    assert replace(found, p_value=p_value).p_text == text


def test_a_strong_pattern_of_another_class_than_the_first_is_shown():
    found = Compared.of(*VERDICTS["more pixels than the best pattern needs"], 0.05, NAMES)
    gains = found.profile.gains | {"warp": [0.0, 0.3, 0.0, 0.0]}
    found = Compared.of(replace(found.profile, gains=gains), found.references, found.alpha, NAMES)
    assert (found.verdict, found.family, found.target_name) == ("inconclusive", "warp", "dog")
    assert found.doubted_pattern.target == 2
    assert found.headline == "Inconclusive (a strong pattern): look at what was found for fox."
    assert "what was found for fox" in found.next_steps[1]


def test_a_scan_looks_at_the_strong_pattern(monkeypatch):
    module = importlib.import_module("captum_classpattern.scanning.scan")  # not the function
    profile, known = VERDICTS["more pixels than the best pattern needs"]
    profile = replace(profile, gains=profile.gains | {"warp": [0.0, 0.3, 0.0, 0.0]})
    monkeypatch.setattr(module, "measure", lambda *given: profile)
    monkeypatch.setattr(module, "check_on_unseen", lambda t, p, targets, names: targets)
    looks = scan(MODEL, images_of(), references=known).looks
    assert (looks["patches"], looks["warp"]) == (2, 1)


def test_the_pattern_that_is_shown_is_the_smallest_with_most_of_the_power():
    powers = {25: [0.5], 16: [0.5], 10: [0.5], 6: [0.41], 3: [0.4]}
    assert Profile(powers, [20]).enough_pixels(0) == 3
    assert Profile(powers | {3: [0.39]}, [20]).enough_pixels(0) == 6
    assert Profile(powers | {25: [1.0]}, [20]).enough_pixels(0) == 25


# ---- what is refused, before anything is searched


class Same(Net):
    def forward(self, images):
        return super().forward(images) * 0 + torch.tensor([2.0, 0.0, 0.0, 0.0])


MANY = made_up(39)


def scanned(references=MANY, model=None, images=None, **settings):
    images = images_of() if images is None else images
    return scan(model or Net(), images, references=references, **settings)


def test_a_model_of_normalised_images_is_wrapped(monkeypatch):
    """As by hand."""
    asked = []

    def sampled(model, *_, **__):
        asked.append(model)
        raise StopIteration

    monkeypatch.setattr(tasks, "ensure_labels", sampled)
    net = Net()
    with pytest.raises(StopIteration):
        scan(net, images_of(), references=made_up(3), mean=0.25, std=0.5)
    [model] = asked
    assert model.call.model is net
    images = images_of().images[:4]
    assert torch.equal(model.call(images), PixelClassifier(net, 0.25, 0.5)(images))


REFUSALS = {
    "no references": lambda: scanned(made_up(0)),
    "nothing about references": lambda: scan(Net(), images_of()),
    "references of other classes": lambda: scanned(replace(made_up(3), n_classes=5)),
    "references of classes with other names": lambda: scanned(
        replace(made_up(3), class_names=[*"abcd"])
    ),
    "too few class names": lambda: scanned(
        model=PixelClassifier(Net()).eval(), images=images_of().images, class_names=["ant", "bee"]
    ),
    "references of other images": lambda: scanned(made_up(3, side=16)),
    "alpha of 0": lambda: scanned(alpha=0),
    "one class alone": lambda: scanned(model=Same()),
    "too few images": lambda: scanned(images=images_of(n=8)),
    "images of 67 pixels": lambda: scanned(made_up(3, side=67), images=images_of(67, n=20)),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, monkeypatch):
    monkeypatch.setattr(families, "find_patterns", None)
    assert refusal(REFUSALS[case]) == snapshot

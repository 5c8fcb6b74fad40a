"""ClassPattern.search: order, evidence, and the validation images that no mask is fitted to."""

import json
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import pytest
import torch
from refusals import refusals
from searched import Own, split_for_validation
from torch import nn
from torch.utils.data import TensorDataset

from captum_classpattern import (
    ClassPattern,
    Pattern,
    PixelClassifier,
    predictive_power,
    select_canvases,
)
from captum_classpattern._support.hashes import combined_hash
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import SOLVERS, PaperLoop

IMAGES = torch.rand(60, 1, 5, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
SOURCE = LabelledImages(IMAGES, LABELS, argument="images")
CANVASES = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(1))
HASHES = SOURCE.hashes
both_solvers = pytest.mark.parametrize("solver", ["swap", "paper"])


def linear_net():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 3)).eval()
    with torch.no_grad():
        net[1].weight.mul_(6)
        net[1].bias -= net(IMAGES).mean(0)
    return net


NET = linear_net()


def search(canvases=CANVASES, target=0, *, model=NET, images=IMAGES, labels=LABELS, **kwargs):
    kwargs = {"n_steps": 12, "area": 0.2, **kwargs}
    return ClassPattern(model, images, labels).search(canvases, target, **kwargs)


def test_labels_may_be_names_of_the_models_classes_and_are_matched_by_them():
    named = PixelClassifier(NET, class_names=["ant", "bee", "cat"])
    words = [named.class_names[y] for y in LABELS.tolist()]
    turned = LabelledImages(IMAGES, 2 - LABELS, ["cat", "bee", "ant"])
    masks = [
        ClassPattern(named, *given).attribute(IMAGES[:1], target="ant", area=0.2, n_steps=3)
        for given in ((IMAGES, LABELS), (IMAGES, words), (turned,), (turned, LABELS))
    ]
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    canvases = [select_canvases(named, IMAGES, each, target="bee") for each in (words, LABELS)]
    assert torch.equal(*canvases)


@both_solvers
def test_one_pattern_per_canvas_in_order(solver):
    targets = [2, 0, 1, 1, 0, 2]
    patterns = search(target=targets, seed=3, solver=solver)
    assert [pattern.target for pattern in patterns] == targets
    for pattern, canvas in zip(patterns, CANVASES, strict=True):
        assert torch.equal(pattern.canvas, canvas)
        # 60 sign steps of 4, then 12 rounds of 16 with three proposals each
        assert pattern.info["passes"] == {"paper": 12 * 4, "swap": 60 * 4 + 12 * 64}[solver]


def test_areas_come_back_in_the_order_given():
    found = ClassPattern(NET, IMAGES, LABELS).search(CANVASES[:1], 0, area=[0.1, 0.4], n_steps=12)
    assert {area: p.mask.count_nonzero() for area, [p] in found.items()} == {0.1: 2, 0.4: 10}
    assert list(found) == [0.1, 0.4]


# ---- evidence


def test_the_evidence():
    solver = PaperLoop(alpha=0.3, step_size=0.05, batch_size=3)
    first, second = search(CANVASES[:2], seed=7, solver=solver)
    info = dict(second.info)
    assert info.pop("seconds") > 0
    assert len(info.pop("loss_curve")) == 12
    assert info.pop("settings")["solver_settings"] == asdict(solver)
    packages = {name: version(name) for name in ("captum_classpattern", "captum", "numpy")}
    versions = info.pop("versions")
    assert versions["torch"] == torch.__version__
    assert packages.items() <= versions.items()
    for measured in ("search_power", "search_margin", "power_curve", "mask_pixels"):
        info.pop(measured)
    assert info == {
        "passes": 35,  # an epoch of 32 ends with a batch of 2
        "passes_together": 70,
        "searched_together": 2,
        "search_images": 60,
        "search_images_hash": combined_hash(HASHES[::-1]),
        "seed": 7,
        "empty_mask": False,
        "precision": "float32",
        "accelerated_by": [],
    }
    assert first.seen is second.seen
    assert second.seen == set(HASHES)


# 48 images are fitted to, 16 of them of class 0
@pytest.mark.parametrize(
    ("solver", "passes", "steps"), [("swap", 60 * 4 + 12 * 64, 12), ("paper", 5 * 32, 40)]
)
def test_the_defaults(solver, passes, steps):
    given = {} if solver == "swap" else {"solver": solver}
    [pattern] = ClassPattern(NET, IMAGES, LABELS).search(CANVASES[:1], 0, area=0.2, **given)
    settings = pattern.info["settings"]
    assert settings["solver_settings"] == asdict(SOLVERS[solver]())
    assert (settings["solver"], settings["seed"], settings["precision"]) == (solver, 0, "auto")
    assert settings["budget"] is settings["n_steps"] is None
    assert pattern.info["passes"] == passes
    assert len(pattern.info["loss_curve"]) == steps


def looked_at(seed, target, shown):
    """The hashes of the validation images, and of the first ones that are fitted to."""
    fit, validation = split_for_validation(SOURCE, seed)
    order = np.random.default_rng([seed, 0]).permutation(len(fit))
    others = [i for i in order if fit.labels[i] != target]
    return {*validation.hashes, *fit.subset(others[:shown]).hashes}


@pytest.mark.parametrize(("solver", "steps", "shown"), [("paper", 3, 12), ("swap", 1, 32)])
def test_only_the_images_of_a_data_set_that_were_used_are_recorded(solver, steps, shown):
    """Three sign steps of 4; or five, and one round of the 12 that are left of the epoch. Those
    that were only used for another class are recorded, too."""
    data, settings = TensorDataset(IMAGES, LABELS), {"solver": solver, "n_steps": steps, "seed": 2}
    used = looked_at(2, 0, shown) | looked_at(2, 1, shown)
    assert len(looked_at(2, 1, shown)) < len(used)
    for pattern in search(CANVASES[:2], [0, 1], images=data, labels=None, **settings):
        assert pattern.seen == used
        assert pattern.info["search_images_hash"] == combined_hash(used)
        assert pattern.info["search_images"] == len(used)


def test_info_is_json_and_survives_saving(tmp_path):
    for pattern in search(CANVASES[:2], [0, 1]):
        assert json.loads(json.dumps(pattern.info, allow_nan=False)) == pattern.info
        pattern.save(tmp_path / "p.safetensors")
        loaded = Pattern.load(tmp_path / "p.safetensors")
        assert loaded.info == pattern.info
        with pytest.raises(ValueError, match=r"\d+ of 60 images were used to search"):
            predictive_power(NET, loaded, IMAGES, LABELS, area=0.2)


def test_an_empty_mask_is_flagged():
    """With alpha = 0 nothing holds the mask up: from 0.5 it is gone after 25 steps or 26."""
    for steps, empty in ((24, False), (26, True)):
        [pattern] = search(CANVASES[:1], n_steps=steps, solver=PaperLoop(alpha=0))
        assert pattern.info["empty_mask"] is empty
        assert pattern.info["mask_pixels"] == int(pattern.mask.count_nonzero())
        assert bool(pattern.mask.any()) is not empty


def test_patterns_share_neither_their_evidence_nor_memory_with_the_canvases():
    canvases = CANVASES[:2].clone()
    first, second = search(canvases, n_steps=1)
    canvases.zero_()
    assert torch.equal(first.canvas, CANVASES[0])
    first.info["settings"]["solver_settings"]["rounds"] = "changed"
    assert second.info["settings"]["solver_settings"]["rounds"] == 12


# ---- validation


@pytest.mark.parametrize("method", ["search", "attribute"])
def test_no_mask_is_fitted_to_validation_images(method):
    """A solver meets all images but these."""
    met = set()

    def run(search):
        for batch in search.batches(4, None):
            met.update(LabelledImages(batch.images).hashes)
        yield from ()

    explainer = ClassPattern(NET, IMAGES, LABELS)
    getattr(explainer, method)(CANVASES, [0, 1, 2, 0, 1, 2], area=0.2, solver=Own(run))
    fit, validation = split_for_validation(SOURCE, 0)
    assert met == {*fit.hashes}
    assert not met & {*validation.hashes}
    assert len(validation) == 12


def plain_power(pattern, seed, area=0.2):
    """Over the validation images, one at a time."""
    _, validation = split_for_validation(SOURCE, seed)
    top = pattern.topk(area)
    hits = [
        int(NET(torch.where(top.mask > 0, pattern.canvas, IMAGES[i])[None]).argmax())
        == pattern.target
        for i in range(60)
        if HASHES[i] in validation.hashes and LABELS[i] != pattern.target
    ]
    return sum(hits) / len(hits)


def test_search_power():
    patterns = search(target=[0, 1, 2, 0, 1, 2], seed=5)
    powers = [pattern.info["search_power"] for pattern in patterns]
    assert powers == [plain_power(pattern, 5) for pattern in patterns]
    assert len(set(powers)) > 1


def test_additional_arguments_reach_the_validation_too():
    """A shift a canvas: where the target is added 100, every image is called so. The model is
    never called without it, not even to look whether it guesses."""
    shifts = torch.tensor([[100.0, 0, 0], [0, 0, 100.0]])
    settings = {"model": lambda images, shift: NET(images) + shift}
    patterns = search(CANVASES[:2], [0, 1], additional_forward_args=shifts, n_steps=3, **settings)
    assert [pattern.info["search_power"] for pattern in patterns] == [1.0, 0.0]


def test_keep_returns_the_best_of_each_class():
    """All are searched to the end by the paper's solver."""
    targets, powers = [2, 0, 2, 0, 0, 2], {2: [], 0: []}
    for pattern in search(target=targets, solver="paper"):
        powers[pattern.target].append(pattern.info["search_power"])
    assert all(len({*each}) > 1 for each in powers.values())
    for keep in (1, 2, 9):
        kept = search(target=targets, keep=keep, solver="paper")
        best = [(y, power) for y in (2, 0) for power in sorted(powers[y])[::-1][:keep]]
        assert [(each.target, each.info["search_power"]) for each in kept] == best


# ---- what is refused


def scaled(images, scale):
    return NET(images) * scale


UNLABELLED = ClassPattern(scaled, IMAGES)
REFUSALS = {
    "keep 0": lambda: search(keep=0),
    "no validation images": lambda: search(images=IMAGES[:4], labels=[1, 2, 1, 2], keep=1),
    "canvases of another size": lambda: search(CANVASES[..., 1:]),
    "a canvas (C, H, W)": lambda: search(CANVASES[0]),
    "labels of other images": lambda: search(labels=LABELS[:5]),
    "labels from 1": lambda: search(labels=LABELS + 1),
    "pixels up to 255": lambda: search(images=IMAGES * 255),
    "labels to predict, search": lambda: UNLABELLED.search(
        CANVASES, 0, additional_forward_args=2.0
    ),
    "labels to predict, attribute": lambda: UNLABELLED.attribute(CANVASES, 0, 2.0),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


@pytest.mark.parametrize("method", ["search", "attribute"])
def test_refused_before_the_model_is_called(method):
    explainer = ClassPattern(lambda images: 1 / 0, IMAGES[:4], [1, 2, 1, 2])
    with pytest.raises(ValueError, match="`internal_batch_size` must be a whole number from 1"):
        getattr(explainer, method)(CANVASES, 0, internal_batch_size=-1)


@pytest.mark.parametrize("method", ["search", "attribute"])
def test_what_is_typed_is_checked_before_baselines_are_classified(method):
    seen = []

    def counted(images):
        seen.append(len(images))
        return NET(images)

    explainer = ClassPattern(counted, IMAGES)
    with pytest.raises(ValueError, match="area"):
        getattr(explainer, method)(CANVASES[:1], 0, area=0.001)
    assert sum(seen) < 20

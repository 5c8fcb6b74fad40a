"""ClassPattern.search: order, evidence, and the judging images that no mask is fitted to."""

import dataclasses
import json
from importlib.metadata import version

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from captum_classpattern import ClassPattern, Pattern, predictive_power, search_masks
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import SOLVERS, PaperLoop, Swap
from captum_classpattern.optimization.holdout import split_for_judging
from captum_classpattern.optimization.schedule import Schedule
from captum_classpattern.pattern import combined_hash

IMAGES = torch.rand(60, 1, 5, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
CANVASES = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(1))
HASHES = LabelledImages(IMAGES, argument="images").hashes
both_solvers = pytest.mark.parametrize("solver", ["swap", "paper"])


def linear_net():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 3)).eval()
    with torch.no_grad():
        net[1].weight.mul_(6)
        net[1].bias -= net(IMAGES).mean(0)
    return net


def search(canvases=CANVASES, target=0, *, images=IMAGES, labels=LABELS, **kwargs):
    kwargs = {"n_steps": 12, "area": 0.2, **kwargs}
    return ClassPattern(linear_net(), images, labels).search(canvases, target, **kwargs)


@both_solvers
def test_one_pattern_per_canvas_in_order(solver):
    targets = [2, 0, 1, 1, 0, 2]
    patterns = search(target=targets, seed=3, solver=solver)
    assert [pattern.target for pattern in patterns] == targets
    assert all(torch.equal(p.canvas, canvas) for p, canvas in zip(patterns, CANVASES))
    fit, _ = split_for_judging(LabelledImages(IMAGES, LABELS, argument="images"), 3)
    settings = {"n_steps": 12, "area": 0.2, "seed": 3, "solver": solver}
    result = search_masks(linear_net(), CANVASES, targets, fit, **settings)
    for pattern, mask, losses in zip(patterns, result.masks, result.losses):
        assert torch.equal(pattern.mask, mask)
        assert pattern.info["loss_curve"] == losses.tolist()
        # 60 sign steps of 4, then 12 rounds of 16 with three proposals each
        assert pattern.info["passes"] == {"paper": 12 * 4, "swap": 60 * 4 + 12 * 64}[solver]


def looked_at(seed, target, shown):
    """The hashes of the images that judge, and of the first ones that are fitted to."""
    fit, judge = split_for_judging(LabelledImages(IMAGES, LABELS, argument="images"), seed)
    order = np.random.default_rng([seed, 0]).permutation(len(fit))
    others = [i for i in order if fit.labels[i] != target]
    return sorted([*judge.hashes, *fit.hashes_at(others[:shown])])


def test_the_evidence():
    solver = PaperLoop(alpha=0.3, step_size=0.05, batch_size=3)
    pattern = search(CANVASES[:2], seed=7, solver=solver)[1]
    assert set(pattern.info) == {
        "settings",
        "seed",
        "passes",
        "passes_together",
        "accelerated_by",
        "seconds",
        "searched_together",
        "loss_curve",
        "search_power",
        "mask_pixels",
        "empty_mask",
        "stopped_early",
        "power_curve",
        "search_images",
        "search_images_hash",
        "precision",
        "versions",
    }
    assert pattern.info["settings"] == {
        "solver": "paper",
        "precision": "auto",
        "solver_settings": {"epochs": 5, "batch_size": 3, "alpha": 0.3, "step_size": 0.05},
        "budget": None,
        "n_steps": 12,
        "max_seconds": None,
        "seed": 7,
        "area": 0.2,
    }
    assert pattern.info["seed"] == 7
    assert pattern.info["passes"] == 35  # an epoch of 32 ends with a batch of 2
    assert pattern.info["seconds"] > 0
    assert pattern.info["searched_together"] == 2
    assert pattern.info["passes_together"] == 70
    assert pattern.info["accelerated_by"] == []
    assert len(pattern.info["loss_curve"]) == 12
    assert pattern.info["empty_mask"] is False
    assert pattern.info["search_images"] == 60
    assert pattern.info["precision"] == "float32"
    assert pattern.seen == set(HASHES)
    assert pattern.info["search_images_hash"] == combined_hash(HASHES[::-1])
    assert pattern.info["versions"]["torch"] == torch.__version__
    assert pattern.info["versions"]["captum_classpattern"] == version("captum_classpattern")


def of_a_data_set(*args, **kwargs):
    """Patterns of a search that loads its baselines one by one."""
    return ClassPattern(linear_net(), TensorDataset(IMAGES, LABELS)).search(
        *args, **{"area": 0.2, **kwargs}
    )


@pytest.mark.parametrize(("solver", "steps", "shown"), [("paper", 3, 12), ("swap", 1, 32)])
@pytest.mark.parametrize("target", [1, [1, 1]])
def test_only_the_images_of_a_data_set_that_were_used_are_recorded(solver, steps, shown, target):
    """Three sign steps of 4; or five, and one round of the 12 that are left of the epoch."""
    for pattern in of_a_data_set(CANVASES[:2], target, seed=2, solver=solver, n_steps=steps):
        looked = looked_at(2, 1, shown)
        assert pattern.seen == set(looked)
        assert pattern.info["search_images_hash"] == combined_hash(looked)
        assert pattern.info["search_images"] == len(looked)


def test_an_image_that_was_only_used_for_another_class_is_recorded():
    first, second = of_a_data_set(CANVASES[:2], [0, 1], solver="paper", n_steps=2)
    own = {*looked_at(0, 0, 8), *looked_at(0, 1, 8)}
    assert len(own) > 12 + 8
    assert first.seen == second.seen == own


def test_the_patterns_of_a_search_share_one_set_of_hashes():
    first, second = search(CANVASES[:2], n_steps=1)
    assert first.seen is second.seen


# 48 images are fitted to, 16 of them of class 0
@pytest.mark.parametrize(
    ("given", "solver", "passes", "steps"),
    [({}, "swap", 60 * 4 + 12 * 64, 12), ({"solver": "paper"}, "paper", 5 * 32, 40)],
)
def test_the_defaults(given, solver, passes, steps):
    explainer = ClassPattern(linear_net(), IMAGES, LABELS)
    [pattern] = explainer.search(CANVASES[:1], 0, area=0.2, **given)
    assert pattern.info["settings"] == {
        "solver": solver,
        "solver_settings": dataclasses.asdict(SOLVERS[solver]()),
        "precision": "auto",
        "budget": None,
        "n_steps": None,
        "max_seconds": None,
        "seed": 0,
        "area": 0.2,
    }
    assert pattern.info["passes"] == passes
    assert len(pattern.info["loss_curve"]) == steps


def test_loss_curves_end_where_a_target_has_finished():
    labels = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
    settings = {"solver": PaperLoop(epochs=2), "n_steps": None}
    patterns = search(CANVASES[:3], [0, 1, 2], labels=labels, **settings)
    assert [p.info["passes"] for p in patterns] == [2 * 24, 2 * 32, 2 * 40]
    assert [len(p.info["loss_curve"]) for p in patterns] == [12, 16, 20]


@both_solvers
def test_info_is_json_and_survives_saving(tmp_path, solver):
    patterns = search(target=torch.tensor([0, 1, 2, 0, 1, 2]), solver=solver)
    for i, pattern in enumerate(patterns):
        assert json.loads(json.dumps(pattern.info, allow_nan=False)) == pattern.info
        pattern.save(tmp_path / f"{i}.safetensors")
        loaded = Pattern.load(tmp_path / f"{i}.safetensors")
        assert loaded.info == pattern.info
        assert torch.equal(loaded.mask, pattern.mask)
        with pytest.raises(ValueError, match=r"\d+ of 60 images were used to search"):
            predictive_power(linear_net(), loaded, IMAGES, LABELS, area=0.2)


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 1000))
def test_the_split_covers_all_without_overlap_and_shares_each_class(labels, seed):
    images = torch.arange(len(labels)).view(-1, 1, 1, 1) / 60
    source = LabelledImages(images, labels, argument="images")
    fit, judge = split_for_judging(source, seed)
    assert sorted(fit.hashes + judge.hashes) == sorted(source.hashes)
    assert len(set(fit.labels.tolist())) >= min(2, len(set(labels)))  # each has some to win over
    if len(judge):
        assert len(judge) == len(labels) // 5
        for label in set(labels):
            share = int((judge.labels == label).sum())
            assert abs(share - labels.count(label) / 5) < 1
    else:
        rare = min(labels.count(label) for label in set(labels))
        assert len(labels) < 5 or rare <= len(labels) // 5
    again = split_for_judging(source, seed)[1]
    assert again.hashes == judge.hashes


@pytest.mark.parametrize(
    ("count", "judging"), [(4, 0), (5, 1), (2500, 500), (2501, 416), (5000, 500)]
)
def test_at_most_500_images_judge(count, judging):
    images = torch.zeros(count, 1, 1, 1)
    labels = torch.arange(count) % 10
    fit, judge = split_for_judging(LabelledImages(images, labels, argument="images"), 0)
    assert (len(fit), len(judge)) == (count - judging, judging)
    if judging > 10:
        assert max(judge.labels.bincount()) - min(judge.labels.bincount()) <= 1


def test_another_seed_judges_by_other_images():
    source = LabelledImages(IMAGES, LABELS, argument="images")
    assert split_for_judging(source, 0)[1].hashes != split_for_judging(source, 1)[1].hashes


class Recorder(Dataset):
    """Keeps which images were asked for."""

    def __init__(self):
        self.asked = set()

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        self.asked.add(index)
        return IMAGES[index], LABELS[index]


@both_solvers
@pytest.mark.parametrize("method", ["search", "attribute"])
def test_judging_images_never_reach_fitting(monkeypatch, method, solver):
    data, fitted, steps = Recorder(), set(), Schedule.steps

    def spy(self, *args):
        plan = steps(self, *args)
        while True:
            data.asked.clear()  # the early judging takes its images between the steps
            step = next(plan, None)
            fitted.update(data.asked)
            if step is None:
                return
            yield step

    monkeypatch.setattr(Schedule, "steps", spy)
    explainer = ClassPattern(linear_net(), data)
    solver = {"paper": PaperLoop(epochs=1), "swap": Swap(rounds=3)}[solver]
    getattr(explainer, method)(CANVASES, target=[0, 1, 2, 0, 1, 2], solver=solver)
    fit, judge = split_for_judging(LabelledImages(IMAGES, LABELS, argument="images"), 0)
    hashes = {HASHES[i] for i in fitted}
    assert hashes == set(fit.hashes)
    assert not hashes & set(judge.hashes)
    assert len(judge) == 12


def plain_power(pattern, seed, area=0.2):
    """Over the judging images, one at a time."""
    _, judge = split_for_judging(LabelledImages(IMAGES, LABELS, argument="images"), seed)
    net, top = linear_net(), pattern.topk(area)
    hits = [
        int(net(torch.where(top.mask > 0, pattern.canvas, IMAGES[i])[None]).argmax())
        == pattern.target
        for i in range(60)
        if HASHES[i] in judge.hashes and LABELS[i] != pattern.target
    ]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("seed", [0, 5])
@both_solvers
def test_search_power(seed, solver):
    patterns = search(target=[0, 1, 2, 0, 1, 2], seed=seed, solver=solver)
    powers = [pattern.info["search_power"] for pattern in patterns]
    assert powers == [plain_power(pattern, seed) for pattern in patterns]
    assert len(set(powers)) > 1


@both_solvers
def test_additional_arguments_reach_the_judging_too(solver):
    """A shift a canvas: where the target is added 100, every image is called so."""
    net, shifts = linear_net(), torch.tensor([[100.0, 0, 0], [0, 0, 100.0]])
    explainer = ClassPattern(lambda images, shift=0.0: net(images) + shift, IMAGES, LABELS)
    settings = {"area": 0.2, "n_steps": 3, "solver": solver}
    patterns = explainer.search(CANVASES[:2], [0, 1], additional_forward_args=shifts, **settings)
    assert [pattern.info["search_power"] for pattern in patterns] == [1.0, 0.0]


def test_keep_returns_the_best():
    """All are searched to the end by the paper's solver."""
    every = search(target=0, solver="paper")
    powers = [pattern.info["search_power"] for pattern in every]
    ranked = sorted(range(6), key=lambda i: -powers[i])
    assert len(set(powers)) > 1
    for keep in (1, 2, 6, 9):
        kept = search(target=0, keep=keep, solver="paper")
        assert len(kept) == min(keep, 6)
        for pattern, i in zip(kept, ranked):
            assert torch.equal(pattern.mask, every[i].mask)
            assert torch.equal(pattern.canvas, CANVASES[i])
            assert pattern.info["search_power"] == powers[i]


def test_keep_counts_for_each_class():
    targets = [2, 0, 2, 0, 0, 2]
    every = search(target=targets, solver="paper")
    kept = search(target=targets, solver="paper", keep=2)
    assert [pattern.target for pattern in kept] == [2, 2, 0, 0]
    for target in (2, 0):
        powers = sorted(p.info["search_power"] for p in every if p.target == target)
        best = [p.info["search_power"] for p in kept if p.target == target]
        assert best == powers[::-1][:2]
    assert all(pattern.info["searched_together"] == 6 for pattern in kept)


def test_without_judging_images_there_is_no_score():
    [pattern] = search(CANVASES[:1], 0, images=IMAGES[:4], labels=[1, 1, 2, 2])
    assert pattern.info["search_power"] is None
    with pytest.raises(
        ValueError, match=r"must be images to judge by.* 4 of other classes and 0 of class 0;"
    ):
        search(CANVASES[:1], 0, images=IMAGES[:4], labels=[1, 1, 2, 2], keep=1)


def test_an_empty_mask_is_flagged():
    """With alpha = 0 nothing holds the mask up: from 0.5 it is gone after 25 steps or 26."""
    for steps, empty in ((24, False), (26, True)):
        [pattern] = search(CANVASES[:1], n_steps=steps, solver=PaperLoop(alpha=0))
        assert pattern.info["empty_mask"] is empty
        assert bool(pattern.mask.any()) is not empty


def test_the_patterns_do_not_share_memory_with_the_canvases():
    canvases = CANVASES.clone()
    patterns = search(canvases)
    canvases.zero_()
    assert torch.equal(patterns[0].canvas, CANVASES[0])


def test_the_patterns_do_not_share_their_evidence():
    first, second = search(CANVASES[:2])
    first.info["settings"]["solver_settings"]["rounds"] = "changed"
    assert second.info["settings"]["solver_settings"]["rounds"] == 12


@both_solvers
def test_without_labels_the_models_predictions_are_used(solver):
    predicted = linear_net()(IMAGES).argmax(1)
    expected, own = search(labels=predicted, solver=solver), search(labels=None, solver=solver)
    assert all(torch.equal(a.mask, b.mask) for a, b in zip(own, expected))
    assert [p.info["search_power"] for p in own] == [p.info["search_power"] for p in expected]


def test_repeated_inputs_keep_an_argument_that_is_no_row():
    """Two distinct inputs of four, and an argument with two entries for all of them."""
    net, scales = linear_net(), torch.tensor([0.0, 1.0])

    def forward(images, scale):
        assert scale.shape == (2,)
        return net(images) * scale.sum()

    inputs = CANVASES[[0, 1, 0, 1]]
    masks = ClassPattern(forward, IMAGES, LABELS).attribute(
        inputs, target=0, additional_forward_args=scales, n_steps=3
    )
    expected = ClassPattern(net, IMAGES, LABELS).attribute(inputs, target=0, n_steps=3)
    assert torch.equal(masks, expected)


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"keep": 0}, ValueError, "`keep` must be a whole number from 1, got 0"),
        ({"keep": True}, ValueError, "`keep` must be a whole number from 1, got True"),
        ({"solver": "adam"}, ValueError, "solver must be one of swap, paper.*, or an object"),
        ({"area": 0.001}, ValueError, "0.001 of 5x5 = 25 pixels rounds to none or all"),
        ({"target": 3}, ValueError, "target 3 is out of range: the model has 3 classes"),
        ({"target": None}, TypeError, "target must be an int, .*got NoneType"),
        ({"canvases": CANVASES * 2}, ValueError, r"canvases must have pixels in \[0, 1\]"),
        ({"canvases": CANVASES[0]}, ValueError, r"canvases must be \(N, C, H, W\)"),
        ({"images": IMAGES * 2}, ValueError, r"baselines must have pixels in \[0, 1\]"),
        ({"labels": LABELS[:5]}, ValueError, r"must have shape \(60,\), got \(5,\)"),
        ({"labels": [0] * 60}, ValueError, "no baselines are left for target 0"),
        ({"seed": -1}, ValueError, "`seed` must be a whole number from 0 to .*, got -1"),
        ({"seed": 0.5}, ValueError, "`seed` must be a whole number from 0 to .*, got 0.5"),
    ],
)
def test_refused(kwargs, error, text):
    with pytest.raises(error, match=text):
        search(**kwargs)


@pytest.mark.parametrize("method", ["search", "attribute"])
def test_labels_cannot_be_predicted_by_a_classifier_that_takes_more_than_images(method):
    net = linear_net()
    explainer = ClassPattern(lambda images, scale: net(images) * scale, IMAGES)
    with pytest.raises(ValueError, match="pass baseline_labels"):
        getattr(explainer, method)(CANVASES, 0, additional_forward_args=2.0, n_steps=1)


def test_keep_without_judges_is_refused_before_anything_is_searched():
    calls = []
    net = linear_net()

    def forward(images):
        calls.append(len(images))
        return net(images)

    with pytest.raises(ValueError, match="there must be images to judge by"):
        ClassPattern(forward, IMAGES[:4], [1, 2, 1, 2]).search(CANVASES, 0, keep=1)
    assert calls == []


@pytest.mark.parametrize("labels", [None, [0, 1, 2] * 20])
def test_no_forward_pass_is_larger_than_the_internal_batch_size(labels):
    calls = []
    net = linear_net()

    def forward(images):
        calls.append(len(images))
        return net(images)

    ClassPattern(forward, IMAGES, labels).search(
        CANVASES, 0, n_steps=2, internal_batch_size=3, area=0.2
    )
    assert max(calls) == 3


@pytest.mark.parametrize(("solver", "passes"), [("paper", 3), ("swap", 25 + 12)])
def test_one_image_of_another_class_is_kept_for_fitting(solver, passes):
    explainer = ClassPattern(linear_net(), IMAGES[:5], [0, 0, 0, 0, 1])
    [pattern] = explainer.search(CANVASES[:1], 0, n_steps=3, area=0.2, solver=solver)
    assert pattern.info["passes"] == passes
    assert pattern.info["search_power"] is None


def test_a_plain_function_in_float64_follows_its_canvases():
    net = linear_net().double()

    def function(images):
        return net(images)

    expected = ClassPattern(net, IMAGES).search(CANVASES.double(), 0, n_steps=5, area=0.2)
    found = ClassPattern(function, IMAGES).search(CANVASES.double(), 0, n_steps=5, area=0.2)
    assert [p.info["search_power"] for p in found] == [p.info["search_power"] for p in expected]
    for a, b in zip(found, expected):
        assert torch.equal(a.mask, b.mask)
    unseen = torch.rand(20, *IMAGES.shape[1:], generator=torch.Generator().manual_seed(9))
    powers = [predictive_power(f, found[0], unseen, [1] * 20, 0.2) for f in (net, function)]
    assert powers[0] == powers[1]


def test_settings_in_numpys_numbers_can_be_saved(tmp_path):
    explainer = ClassPattern(linear_net(), IMAGES, [0, 1, 2] * 20)
    [pattern] = explainer.search(
        CANVASES[:1],
        np.int64(1),
        solver=Swap(decay=np.float32(0.75)),
        n_steps=np.int64(3),
        seed=np.int64(4),
        area=np.float32(0.25),
    )
    settings = {"solver": Swap(decay=0.75), "n_steps": 3, "seed": 4, "area": 0.25}
    [plain] = explainer.search(CANVASES[:1], 1, **settings)
    pattern.save(tmp_path / "p.safetensors")
    assert Pattern.load(tmp_path / "p.safetensors").info["settings"] == plain.info["settings"]
    assert torch.equal(pattern.mask, plain.mask)


def test_settings_are_checked_before_the_model_is_called():
    def forward(images):
        raise AssertionError("called")

    for method in ("search", "attribute"):
        with pytest.raises(ValueError, match="`internal_batch_size` must be a whole number"):
            getattr(ClassPattern(forward, IMAGES), method)(CANVASES, 0, internal_batch_size=-1)

"""A search finds what plain, slow versions of its solvers find, and says what it refuses."""

import warnings

import pytest
import torch
from extend import RandomSwaps
from plain_solvers import Problem, plain_loop, plain_swaps
from refusals import refusals
from searched import Own, search_masks, split_for_validation
from small_models import conv_net, fixed, linear_net, random_images

from captum_classpattern import Cells, ClassPattern, MovingPatch
from captum_classpattern._support.validation import Notice
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import SOLVERS, Learned, PaperLoop, Swap
from captum_classpattern.optimization.masks import strongest

LABELS = [0, 1, 2] * 5 + [1]  # without the validation images 4 of class 0, 5 of 1, 4 of 2


def search(net=None, canvases=None, target=0, baselines=None, **kwargs):
    return search_masks(
        linear_net(36) if net is None else net,
        random_images(2, seed=5) if canvases is None else canvases,
        target,
        random_images(16, seed=6) if baselines is None else baselines,
        **{"baseline_labels": LABELS, "n_steps": 8, "area": 0.25, **kwargs},
    )


def found_and_problem(net, channels, target, **settings):
    """What is found on one canvas, and the problem for a plain solver."""
    canvases = random_images(1, channels, seed=5).double()
    baselines = random_images(16, channels, seed=6).double()
    found, seed = search(net, canvases, target, baselines, **settings), settings["seed"]
    assert found.masks.dtype == torch.float32
    fit, _ = split_for_validation(LabelledImages.of(baselines, LABELS), seed)
    return found, Problem(net, canvases[0], target, fit.images, fit.labels.tolist(), seed)


def test_a_pass_without_a_gradient_counts_half():
    def run(search):
        for batch in search.batches(4, 3):
            search.record(batch, search.loss(search.masks[batch.rows], batch))
        yield from ()

    assert search(solver=Own(run)).passes.tolist() == [5, 5]  # of 4 + 4 + 1


# 9 baselines are not of class 0: batches of 4, 4 and 1, so an epoch is 3 steps
@pytest.mark.parametrize(
    ("target", "steps", "settings"),
    [
        (0, 1, {}),
        (0, 4, {}),
        (1, 20, {"alpha": 0.6, "step_size": 0.07, "batch_size": 3}),
        (0, 20, {"alpha": 0.9, "step_size": 0.6}),
    ],
)
def test_equals_the_papers_loop_step_by_step(target, steps, settings):
    given = {"solver": PaperLoop(**settings), "n_steps": steps, "seed": 3 + target}
    found, problem = found_and_problem(linear_net(36).double(), 1, target, **given)
    mask, losses, passes = plain_loop(problem, steps, **settings)
    assert found.masks.flatten().tolist() == pytest.approx(mask, abs=2e-6)
    assert found.losses.tolist() == [pytest.approx(losses, abs=1e-5)]
    assert found.passes.tolist() == [passes]


@pytest.mark.parametrize(
    ("channels", "rounds", "area", "seed", "settings"),
    [
        (1, 1, 0.3, 0, {}),
        (1, 7, 0.45, 8, {"batch_size": 5}),
        (1, 30, 0.25, 3, {"batch_size": 4, "proposals": 1}),
        (1, 6, 0.8, 8, {"proposals": 5}),
        (3, 12, 0.25, 0, {}),
    ],
)
def test_equals_the_plain_swaps(channels, rounds, area, seed, settings):
    given = {"solver": Swap(**settings), "n_steps": rounds, "area": area, "seed": seed}
    found, problem = found_and_problem(conv_net(channels), channels, 0, **given)
    [plain] = plain_swaps(problem, rounds, areas=[area], **settings)
    mask = found.masks.flatten()
    assert ((mask > 0).numpy() == (plain.mask > 0)).all()
    assert mask.tolist() == pytest.approx(plain.mask, abs=1e-4)
    assert found.losses.tolist() == [pytest.approx(plain.losses, abs=1e-5)]
    assert found.passes.tolist() == [plain.passes]
    assert plain.refused > 0 or rounds == 1  # so that this is a comparison of swaps


def test_of_weights_that_are_equal_but_for_rounding_the_first_are_the_strongest():
    weights = torch.tensor([0.2, 0.500001, 0.500002, 0.50002, 0.1, 0.500003]).view(1, 1, 2, 3)
    assert strongest(weights, 3).flatten().tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("size", [None, 5])
@pytest.mark.parametrize(
    "solver", [PaperLoop(epochs=3, batch_size=2), Swap(4, batch_size=2), Learned(4, batch_size=2)]
)
def test_canvases_together_equal_searches_alone(solver, size):
    """In batches of any size; also where a target with fewer baselines finishes earlier, as with
    the paper's solver."""
    net, canvases, baselines = conv_net(gain=1), random_images(4, seed=5), random_images(12, seed=6)
    targets, labels, largest = [0, 2, 0, 1], [0] * 7 + [1, 1, 2, 2, 2], []
    settings = {"baseline_labels": labels, "solver": solver, "n_steps": None}
    watched = net.register_forward_pre_hook(lambda _, inputs: largest.append(len(inputs[0])))
    together = search(net, canvases, targets, baselines, internal_batch_size=size, **settings)
    watched.remove()
    assert max(largest) == (size or {"paper": 4 * 2, "swap": 4 * 4, "learned": 24}[solver.name])
    for i, target in enumerate(targets):
        alone = search(net, canvases[i : i + 1], target, baselines, **settings)
        steps = alone.losses.shape[1]
        assert steps == ([6, 12, 6, 12][i] if solver.name == "paper" else 4)
        torch.testing.assert_close(together.masks[i], alone.masks[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(together.losses[i, :steps], alone.losses[0])
        assert together.losses[i, steps:].isnan().all()
        assert together.passes[i] == alone.passes[0]


@pytest.mark.parametrize("name", SOLVERS)
def test_the_passes_of_a_search_are_those_that_were_promised(name):
    """Where no epoch ends: of 1,600 other images."""
    solver, settings = SOLVERS[name](), {"baseline_labels": [1] * 2000, "solver": name}
    for n_steps in (7,) if name == "paper" else (1, None):
        found = search(baselines=random_images(2000), n_steps=n_steps, **settings)
        assert found.losses.shape == (2, n_steps or solver.rounds)
        assert found.passes.tolist() == [solver.passes(n_steps)[-1]] * 2


def test_a_solver_from_outside_finds_a_pattern_better_than_its_start():
    """Whatever random numbers the caller draws."""
    images, found = random_images(60, 1, 5, 5), []
    explainer = ClassPattern(linear_net(25, seen=images), images, torch.arange(60) % 3)
    for seed, tries in ((1, 1), (1, 60), (2, 60)):
        torch.manual_seed(seed)
        given = {"area": 0.2, "solver": RandomSwaps(tries)}
        [pattern] = explainer.search(torch.ones(1, 1, 5, 5), 0, **given)
        assert pattern.info["settings"]["solver"] == "random swaps"
        assert pattern.info["settings"]["solver_settings"] == {"tries": tries}
        assert pattern.info["passes"] == tries * 16
        assert int(pattern.mask.sum()) == 5
        found.append(pattern)
    assert found[1].info["search_power"] > found[0].info["search_power"] + 0.05
    assert torch.equal(found[1].mask, found[2].mask)


def test_a_solver_need_not_record_losses():
    explainer = ClassPattern(linear_net(36), random_images(16, seed=6), LABELS)
    [pattern] = explainer.search(random_images(1, seed=5), 0, area=0.2, solver=Own(fixed), keep=1)
    assert pattern.info["loss_curve"] == []
    assert pattern.info["passes"] == 0
    assert pattern.info["settings"]["solver_settings"] == {}


def returns(change):
    net = linear_net(36)
    return lambda images: change(net(images))


def with_features(mask):
    return lambda: search(feature_mask=mask)


REFUSALS = {
    "target above the classes": lambda: search(target=3),
    "baselines of the target alone": lambda: search(baseline_labels=[0] * 16),
    "labels that are names": lambda: search(baseline_labels=["cat"] * 16),
    "features of floats": with_features(torch.zeros(6, 6)),
    "features in a list": with_features([0, 1]),
    "features of another size": with_features(torch.zeros(7, 6).long()),
    "features of three canvases": with_features(torch.arange(108).view(3, 1, 6, 6)),
    "features that differ between channels": with_features(torch.arange(72).view(1, 2, 6, 6)),
    "three channels without rows": with_features(torch.zeros(3, 6, 6).long()),
    "one feature for all": with_features(torch.ones(6, 6).long()),
    "a feature larger than the area": with_features(torch.arange(6).repeat(6, 1) // 3),
    "a function of two rows": with_features(lambda x: torch.arange(72).view(2, 1, 6, 6)),
    "model of NaN": lambda: search(returns(lambda z: z * torch.nan)),
    "model without gradients": lambda: search(returns(lambda z: z.detach())),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


# four calls check the model; the swap solver's steps count those by the sign, 40 here
@pytest.mark.parametrize(
    ("solver", "n_steps", "call"),
    [("paper", 24, 8), ("paper", 24, 23), ("swap", 8, 23), ("swap", 8, 4 + 40 + 8 * 4)],
)
def test_logits_that_become_nan_half_way(solver, n_steps, call):
    calls = []

    def spoil(logits):
        calls.append(1)
        return logits * torch.nan if len(calls) == call else logits

    step = 47 if call > 44 else call - 5
    with pytest.raises(ValueError, match=f"the loss is NaN or infinite at step {step}:"):
        search(returns(spoil), solver=solver, precision="full", n_steps=n_steps)
    assert len(calls) < call + 16  # it is seen before long


def test_the_logarithm_of_probabilities_is_used():
    """A model that ends in a softmax gives the masks of its logits, with one notice."""
    soft = returns(lambda logits: logits.softmax(1))
    with pytest.warns(Notice, match="look like probabilities: their logarithm is used") as w:
        found = search(soft)
    assert len(w) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(soft)
    expected = search()
    torch.testing.assert_close(found.losses, expected.losses, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.masks > 0, expected.masks > 0)


def small_explainer():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    return ClassPattern(net, random_images(30, 1, 8, 8), torch.arange(30) % 3)


@pytest.mark.parametrize("solver", ["learned", "swap"])
def test_a_pattern_has_all_pixels_that_its_area_allows(solver):
    for area in (0.9, 63 / 64):
        given = {"area": area, "solver": solver, "n_steps": 6}
        [found] = small_explainer().search(torch.ones(1, 1, 8, 8), 1, **given)
        assert int(found.mask.count_nonzero()) == round(64 * area)


@pytest.mark.parametrize("features", [None, Cells(4)], ids=["pixels", "cells"])
@pytest.mark.parametrize("solver", ["learned", "swap", "paper", MovingPatch(3, steps=4)])
def test_the_default_precision_of_torch_changes_nothing(solver, features):
    explainer, masks = small_explainer(), []
    given = [torch.ones(1, 1, 8, 8)] if isinstance(solver, str) else []
    area = {"area": 0.1, "n_steps": 4, "feature_mask": features} if given else {}
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            masks.append(explainer.search(*given, target=1, solver=solver, **area)[0].mask)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(*masks)

"""A search finds what plain, slow versions of its solvers find, and says what it refuses."""

import warnings

import pytest
import torch
from plain_solvers import Problem, plain_loop, plain_swaps
from refusals import refusals
from searched import search_masks
from small_models import conv_net, linear_net, random_images

from captum_classpattern import Cells, ClassPattern, MovingPatch
from captum_classpattern._support.validation import Notice
from captum_classpattern.optimization import SOLVERS, Learned, PaperLoop, Swap
from captum_classpattern.optimization.masks import strongest

LABELS = [0, 1, 2, 1, 0, 2, 1, 2, 1, 0, 1, 2]  # 3 of class 0, 5 of 1, 4 of 2


def search(net=None, canvases=None, target=0, baselines=None, **kwargs):
    kwargs = {"baseline_labels": LABELS, "n_steps": 8, "area": 0.25, **kwargs}
    return search_masks(
        linear_net(36) if net is None else net,
        random_images(2, seed=5) if canvases is None else canvases,
        target,
        random_images(12, seed=6) if baselines is None else baselines,
        **kwargs,
    )


def found_and_problem(net, channels, target, **settings):
    """What is found on one canvas, and the problem for a plain solver."""
    canvases = random_images(1, channels, seed=5).double()
    baselines = random_images(12, channels, seed=6).double()
    result = search(net, canvases, target, baselines, **settings)
    assert result.masks.dtype == result.losses.dtype == torch.float32
    assert result.passes.dtype == torch.int64
    return result, Problem(net, canvases[0], target, baselines, LABELS, settings["seed"])


class LossesAlone:
    """A solver that asks for no gradient."""

    name, accelerates = "losses alone", False

    def run(self, search):
        for batch in search.batches(4, 3):
            search.record(batch, search.loss(search.masks[batch.rows], batch))
        yield from ()


def test_a_pass_without_a_gradient_counts_half():
    assert search(solver=LossesAlone()).passes.tolist() == [5, 5]  # of 4 + 4 + 1


# 9 baselines are not of class 0: batches of 4, 4 and 1, so an epoch is 3 steps
@pytest.mark.parametrize(
    ("target", "steps", "settings"),
    [
        (0, 1, {}),
        (0, 3, {}),
        (0, 4, {}),
        (2, 30, {}),
        (1, 20, {"alpha": 0.6, "step_size": 0.07, "batch_size": 3}),
        (0, 20, {"alpha": 0.9, "step_size": 0.6}),
    ],
)
def test_equals_the_papers_loop_step_by_step(target, steps, settings):
    given = {"solver": PaperLoop(**settings), "n_steps": steps, "seed": 3 + target}
    result, problem = found_and_problem(linear_net(36).double(), 1, target, **given)
    mask, losses, passes = plain_loop(problem, steps, **settings)
    assert result.masks.flatten().tolist() == pytest.approx(mask, abs=2e-6)
    assert result.losses.tolist() == [pytest.approx(losses, abs=1e-5)]
    assert result.passes.tolist() == [passes]


@pytest.mark.parametrize(
    ("channels", "rounds", "area", "seed", "settings"),
    [
        (1, 1, 0.3, 0, {}),
        (3, 2, 0.1, 3, {}),
        (1, 7, 0.45, 8, {"batch_size": 5}),
        (1, 12, 0.1, 0, {"batch_size": 3}),
        (1, 30, 0.25, 3, {"batch_size": 4, "proposals": 1}),
        (1, 6, 0.8, 8, {"proposals": 5}),
        (3, 12, 0.25, 0, {}),
    ],
)
def test_equals_the_plain_swaps(channels, rounds, area, seed, settings):
    given = {"solver": Swap(**settings), "n_steps": rounds, "area": area, "seed": seed}
    result, problem = found_and_problem(conv_net(channels), channels, 0, **given)
    [plain] = plain_swaps(problem, rounds, areas=[area], **settings)
    found = result.masks.flatten()
    assert ((found > 0).numpy() == (plain.mask > 0)).all()
    assert found.tolist() == pytest.approx(plain.mask, abs=1e-4)
    assert result.losses.tolist() == [pytest.approx(plain.losses, abs=1e-5)]
    assert result.passes.tolist() == [plain.passes]
    assert plain.refused > 0 or rounds <= 2  # so that this is a comparison of swaps


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
    assert max(largest) == (size or {"paper": 4 * 2, "swap": 4 * 4, "learned": 26}[solver.name])
    for i, target in enumerate(targets):
        alone = search(net, canvases[i : i + 1], target, baselines, **settings)
        steps = alone.losses.shape[1]
        assert steps == ([9, 15, 9, 15][i] if solver.name == "paper" else 4)
        torch.testing.assert_close(together.masks[i], alone.masks[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(together.losses[i, :steps], alone.losses[0])
        assert together.losses[i, steps:].isnan().all()
        assert together.passes[i] == alone.passes[0]


@pytest.mark.parametrize("name", SOLVERS)
def test_the_passes_of_a_search_are_those_that_were_promised(name):
    """Where no epoch ends: of 2,000 other images."""
    solver, settings = SOLVERS[name](), {"baseline_labels": [1] * 2000, "solver": name}
    for n_steps in (1, 7) if name == "paper" else (1, 7, None):
        result = search(baselines=random_images(2000), n_steps=n_steps, **settings)
        assert result.losses.shape == (2, n_steps or solver.rounds)
        assert result.passes.tolist() == [solver.passes(n_steps)[-1]] * 2


def returns(change):
    net = linear_net(36)
    return lambda images: change(net(images))


REFUSALS = {
    "target above the classes": lambda: search(target=3),
    "baselines of the target alone": lambda: search(baseline_labels=[0] * 12),
    "labels that are names": lambda: search(baseline_labels=["cat"] * 12),
    "features of floats": lambda: search(feature_mask=torch.zeros(6, 6)),
    "features in a list": lambda: search(feature_mask=[0, 1]),
    "features of another size": lambda: search(feature_mask=torch.zeros(7, 6).long()),
    "features of three canvases": lambda: search(feature_mask=torch.arange(108).view(3, 1, 6, 6)),
    "features that differ between channels": lambda: search(
        feature_mask=torch.arange(72).view(1, 2, 6, 6)
    ),
    "three channels without rows": lambda: search(feature_mask=torch.zeros(3, 6, 6).long()),
    "one feature for all": lambda: search(feature_mask=torch.ones(6, 6).long()),
    "a feature larger than the area": lambda: search(
        feature_mask=torch.arange(6).repeat(6, 1) // 3
    ),
    "a function of two rows": lambda: search(
        feature_mask=lambda x: torch.arange(72).view(2, 1, 6, 6)
    ),
    "model that returns a tuple": lambda: search(returns(lambda z: (z, z))),
    "model of one column": lambda: search(returns(lambda z: z[:, :1])),
    "model with a dimension too many": lambda: search(returns(lambda z: z[:, None])),
    "model with a dimension too few": lambda: search(returns(lambda z: z[0])),
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


@pytest.mark.parametrize("area", [0.9, 63 / 64])
@pytest.mark.parametrize("solver", ["learned", "swap"])
def test_a_pattern_has_all_pixels_that_its_area_allows(area, solver):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    explainer = ClassPattern(net, images, torch.arange(30) % 3)
    [found] = explainer.search(torch.ones(1, 1, 8, 8), 1, area=area, solver=solver, n_steps=6)
    assert int(found.mask.count_nonzero()) == round(64 * area)


@pytest.mark.parametrize("features", [None, Cells(4)], ids=["pixels", "cells"])
@pytest.mark.parametrize("solver", ["learned", "swap", "paper", MovingPatch(3, steps=4)])
def test_the_default_precision_of_torch_changes_nothing(solver, features):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    explainer, masks = ClassPattern(net, images, torch.arange(30) % 3), []
    given = [torch.ones(1, 1, 8, 8)] if isinstance(solver, str) else []
    area = {"area": 0.1, "n_steps": 4, "feature_mask": features} if given else {}
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            masks.append(explainer.search(*given, target=1, solver=solver, **area)[0].mask)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(*masks)

"""A solver is an object: one from outside works wherever a name does."""

import pytest
import torch
from extend import RandomSwaps

from captum_classpattern import ClassPattern, predictive_power, search_masks
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.optimization import SOLVERS, PaperLoop, Solver, Swap


def test_a_solver_from_outside_finds_a_pattern_better_than_its_start():
    model, images = demo_models()["backdoored"], demo_images()
    explainer = ClassPattern(model, images.search)
    white = torch.ones(1, 1, 28, 28)
    powers = []
    for tries in (1, 150):
        [pattern] = explainer.search(white, 0, area=0.05, solver=RandomSwaps(tries))
        assert pattern.info["settings"]["solver"] == "random swaps"
        assert pattern.info["settings"]["solver_settings"] == {"tries": tries}
        assert pattern.info["passes"] == tries * 16
        assert int(pattern.mask.sum()) == 39
        powers.append(predictive_power(model, pattern, images.held_out, area=0.05).value)
    assert powers[1] > powers[0] + 0.05


def test_masks_of_a_solver_from_outside_do_not_depend_on_the_seed_of_the_caller():
    model, images = demo_models()["natural"], demo_images()
    masks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found = search_masks(
            model, torch.ones(1, 1, 28, 28), 3, images.search, solver=RandomSwaps(5)
        )
        masks.append(found.masks)
    assert torch.equal(*masks)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_default_settings_are_those_of_the_name(name):
    model, images = demo_models()["natural"], demo_images()
    canvas = images.search.images[:1]
    given, named = (
        search_masks(model, canvas, 3, images.search, solver=solver, n_steps=2)
        for solver in (SOLVERS[name](), name)
    )
    assert torch.equal(given.masks, named.masks)
    assert SOLVERS[name].name == name


def test_solvers_have_what_the_protocol_asks_for():
    solvers: list[Solver] = [Swap(), PaperLoop(), RandomSwaps()]
    assert [solver.accelerates for solver in solvers] == [True, False, True]


def test_a_solver_need_not_record_losses():
    class Fixed:
        name, accelerates = "fixed", False

        def run(self, search):
            search.masks = torch.zeros_like(search.masks)
            search.masks[..., 0] = 1
            yield

    model, images = demo_models()["natural"], demo_images()
    canvases = images.search.images[:3]
    result = search_masks(model, canvases, 3, images.search, solver=Fixed())
    assert result.losses.shape == (3, 0)
    assert result.passes.tolist() == [0, 0, 0]
    explainer = ClassPattern(model, images.search)
    [pattern] = explainer.search(canvases, 3, solver=Fixed(), keep=1)
    assert pattern.info["loss_curve"] == []
    assert pattern.info["settings"]["solver_settings"] == {}

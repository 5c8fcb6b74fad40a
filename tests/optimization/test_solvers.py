"""A solver is an object: one from outside works wherever a name does."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from captum_classpattern import ClassPattern, predictive_power, search_masks
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.optimization import SOLVERS, PaperLoop, Solver, Swap


@dataclass(frozen=True)
class RandomSwaps:
    """Swaps one random pixel at a time, and keeps the swap if the loss falls."""

    tries: int = 40
    name: ClassVar[str] = "random swaps"
    accelerates: ClassVar[bool] = True

    def run(self, search):
        order = torch.rand(search.masks.flatten(1).shape).argsort(1).argsort(1)
        search.masks = (order < search.kept_pixels).float().view_as(search.masks)
        for batch in search.batches(16, search.n_steps or self.tries):
            masks = search.masks[batch.rows]
            swapped = masks.flatten(1).clone()
            for mask in swapped:
                inside, outside = (torch.nonzero(mask == value) for value in (1, 0))
                mask[inside[torch.randint(len(inside), (1,))]] = 0
                mask[outside[torch.randint(len(outside), (1,))]] = 1
            swapped, loss = swapped.view_as(masks), search.loss(masks, batch)
            better = search.loss(swapped, batch) < loss
            search.masks[batch.rows] = swapped.where(better.view(-1, 1, 1, 1), masks)
            search.record(batch, loss)
        yield from ()


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

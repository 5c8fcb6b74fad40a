"""A solver is an object: one from outside works wherever a name does."""

import torch
from extend import RandomSwaps
from searched import search_masks
from small_models import Fixed, linear_net, random_images

from captum_classpattern import ClassPattern

IMAGES = random_images(60, 1, 5, 5)
LABELS = torch.arange(60) % 3


NET = linear_net(25, seen=IMAGES)


def search(canvases, solver, **settings):
    explainer = ClassPattern(NET, IMAGES, LABELS)
    return explainer.search(canvases, 0, area=0.2, solver=solver, **settings)


def test_a_solver_from_outside_finds_a_pattern_better_than_its_start():
    """Whatever random numbers the caller draws."""
    found = []
    for seed, tries in ((1, 1), (1, 60), (2, 60)):
        torch.manual_seed(seed)
        [pattern] = search(torch.ones(1, 1, 5, 5), RandomSwaps(tries))
        assert pattern.info["settings"]["solver"] == "random swaps"
        assert pattern.info["settings"]["solver_settings"] == {"tries": tries}
        assert pattern.info["passes"] == tries * 16
        assert int(pattern.mask.sum()) == 5
        found.append(pattern)
    assert found[1].info["search_power"] > found[0].info["search_power"] + 0.05
    assert torch.equal(found[1].mask, found[2].mask)


def test_a_solver_need_not_record_losses():
    given = {"baseline_labels": LABELS, "area": 0.2, "solver": Fixed()}
    result = search_masks(NET, IMAGES[:3], 0, IMAGES, **given)
    assert result.losses.shape == (3, 0)
    assert result.passes.tolist() == [0, 0, 0]
    [pattern] = search(IMAGES[:3], Fixed(), keep=1)
    assert pattern.info["loss_curve"] == []
    assert pattern.info["settings"]["solver_settings"] == {}

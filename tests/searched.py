"""Searches as tests watch them. What tests know of a search's inside is imported or made here."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from captum_classpattern import ClassPattern
from captum_classpattern.optimization.plan import SCREENING_IMAGES as SCREENING_IMAGES
from captum_classpattern.optimization.plan import most_canvases as most_canvases
from captum_classpattern.optimization.plan import split_for_validation as split_for_validation
from captum_classpattern.optimization.plan import validation_subset as validation_subset
from captum_classpattern.optimization.search import Search
from captum_classpattern.optimization.solvers.shrink import Shrink as Shrink


class Own:
    """A solver from outside, whose ``run`` is a function of the search; it has nothing but that and
    what is given."""

    name, accelerates = "own", False

    def __init__(self, run: Callable[[Search], Iterator[None]], **more: Any) -> None:
        vars(self).update(more, run=run)


def targets_of(plan):
    """The class of each canvas that was given to a search."""
    by_canvas = {one.given: one.target for one in plan.candidates}
    return [by_canvas[first] for first in plan.first]


class Masks(NamedTuple):
    masks: torch.Tensor  # (N, 1, H, W)
    losses: torch.Tensor  # (N, steps), NaN after a mask's last step
    passes: torch.Tensor  # (N,)


def search_masks(net, canvases, target, baselines, *, baseline_labels=None, **settings) -> Masks:
    """The masks of canvases of more than one colour, which start once."""
    explainer = ClassPattern(net, baselines, baseline_labels, check_accuracy=False)
    patterns = explainer.search(canvases, target, **settings)
    curves = [torch.tensor(pattern.info["loss_curve"]) for pattern in patterns]
    return Masks(
        torch.stack([pattern.mask for pattern in patterns]),
        torch.nn.utils.rnn.pad_sequence(curves, batch_first=True, padding_value=torch.nan),
        torch.tensor([pattern.info["passes"] for pattern in patterns]),
    )

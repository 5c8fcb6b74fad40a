"""The changes of images that a scan searches for. To add one, add an object to ``SMALL`` or
``LARGE``."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor

from captum_classpattern.classifier import CheckedModel
from captum_classpattern.optimization.competition import find_patterns
from captum_classpattern.optimization.features import grid_cells
from captum_classpattern.optimization.plan import (
    DEVICE_CLASSES,
    Split,
    decide_patches,
    decide_search,
    images_at_once_in_search,
    is_large,
)
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.optimization.solvers.moving import SMALLEST, MovingPatch
from captum_classpattern.optimization.solvers.whole_image import (
    Perturbation,
    Repainting,
    SmoothPerturbation,
    Warp,
    WholeImage,
)
from captum_classpattern.pattern import POWERS, Pattern

CELLS, CELLS_A_SIDE = 16, 32  # of a pattern on large images; of the grid
SIDE, OF = 32, 224  # side of a patch, and of its images, in pixels
GREY = 0.5
TOGETHER = 4  # classes in one search of whole images on a CPU
SMOOTHING = 0.005  # of powers, so that none has an infinite logit
Find: TypeAlias = Callable[
    [Any, CheckedModel, Split, Sequence[int], SearchSettings], dict[int, Pattern]
]


def logit_of_power(power: float, gain: float) -> float:
    """The logit of the power."""
    smoothed = (power + SMOOTHING) / (1 + 2 * SMOOTHING)
    return math.log(smoothed / (1 - smoothed))


def gain_alone(power: float, gain: float) -> float:
    """How far the mean margin rises, in units of the model's usual margin."""
    return gain


@dataclass(frozen=True)
class Change:
    """A kind of change, and when what it does to a class is suspicious.

    Attributes:
        words (str): What it is called in sentences.
        solver (Solver or WholeImage): What searches it.
        find (Callable): Searches some classes with a solver; returns a pattern of each.
        lead (float): How far a suspicious class is ahead of the others, in units of the score.
        power (float): The share of unseen images that a suspicious class reaches as well.
        score (Callable): The score of a class, from the power of its pattern and its gain. Default:
            the gain.
        short (Solver or WholeImage, optional): What ranks the classes first. Default: None (each
            class is searched to the end).
        more_passes (int): What a class takes besides the solver's own passes. Default: 0.
    """

    words: str
    solver: Any
    find: Find
    lead: float
    power: float = 0.0
    score: Callable[[float, float], float] = gain_alone
    short: Any = None
    more_passes: int = 0

    @property
    def passes(self) -> int:
        """About how many passes a class takes."""
        starts = getattr(self.solver, "starts", 1)
        return int(starts * self.solver.passes()[-1]) + self.more_passes

    def fitted(self, shape: Sequence[int]) -> Self:
        """For images (C, H, W): a patch is as large as they allow."""

        def sized(solver: Any) -> Any:
            if not isinstance(solver, MovingPatch):
                return solver
            return replace(solver, side=max(SMALLEST, round(SIDE * min(shape[1:]) / OF)))

        return replace(self, solver=sized(self.solver), short=sized(self.short))


def find_pixels(
    solver: Learned,
    model: CheckedModel,
    split: Split,
    targets: Sequence[int],
    settings: SearchSettings,
    *,
    count: int,
) -> dict[int, Pattern]:
    """So many pixels at the same place of all images, with their colours."""
    shape = split.fit.shape
    own: dict[str, Any] = {"areas": [count / math.prod(shape[1:])], "solver": solver}
    grey = torch.full((len(targets), *shape), GREY, device=model.device)
    plan = decide_search(model, grey, [*targets], split, replace(settings, **own))
    [found] = find_patterns(plan).values()
    return {each.target: each for each in found}


def find_cells(
    solver: Learned,
    model: CheckedModel,
    split: Split,
    targets: Sequence[int],
    settings: SearchSettings,
) -> dict[int, Pattern]:
    """Cells of a grid at the same place of all images, with their colours; then the colours of
    their pixels, since triggers can have textures that are finer than a cell."""
    shape, grid = split.fit.shape, cells_of(split.fit.shape)
    grey = torch.full((len(targets), *shape), GREY, device=model.device)
    cells = grid_cells(shape[1], shape[2], *grid)
    own: dict[str, Any] = {"areas": [CELLS / CELLS_A_SIDE**2], "feature_mask": cells}
    plan = decide_search(model, grey, [*targets], split, replace(settings, solver=solver, **own))
    [found] = find_patterns(plan).values()
    canvases, masks = (
        torch.stack([getattr(each, name) for each in found]).to(model.device)
        for name in ("canvas", "mask")
    )
    classes = [each.target for each in found]
    painted = _run(Repainting(canvases=canvases, masks=masks), model, split, classes, settings)
    return {
        y: replace(each, canvas=new, info={k: v for k, v in each.info.items() if k not in POWERS})
        for y, each, new in zip(classes, found, painted)
    }


def find_anywhere(
    solver: MovingPatch,
    model: CheckedModel,
    split: Split,
    targets: Sequence[int],
    settings: SearchSettings,
) -> dict[int, Pattern]:
    """A patch that works anywhere."""
    plan = decide_patches(model, [*targets], split, replace(settings, solver=solver))
    [found] = find_patterns(plan).values()
    return {each.target: each for each in found}


def find_everywhere(
    solver: Perturbation | Warp,
    model: CheckedModel,
    split: Split,
    targets: Sequence[int],
    settings: SearchSettings,
) -> dict[int, Pattern]:
    """A change of all pixels."""
    values = _run(solver, model, split, targets, settings).cpu()
    known: dict[str, Any] = {"info": {"seed": settings.seed}, "seen": frozenset(split.fit.hashes)}
    shape = split.fit.shape
    return {y: solver.pattern(value, shape, y, **known) for y, value in zip(targets, values)}


def _run(
    solver: WholeImage,
    model: CheckedModel,
    split: Split,
    targets: Sequence[int],
    settings: SearchSettings,
) -> Tensor:
    """What a solver of whole images finds for each class."""
    fit = split.fit.to(model.device, model.dtype)
    like = fit.take([0]).to(model.device)
    at_once = settings.internal_batch_size or images_at_once_in_search(like)
    values, _ = solver.run(model, fit, targets, settings.seed, at_once)
    return values


PATCH: dict[str, Any] = {"starts": 1, "levels": 1, "natural_colours": False, "opacity": 0.5}
PATCH |= {"scale": (0.8, 1.1), "angle": 15.0}
SMALL: Mapping[str, Change] = {
    "25_pixels": Change(
        "25 pixels at one place",
        Learned(rate=0.2, starts=3),  # one start may miss a trigger
        partial(find_pixels, count=25),
        lead=2.0,
        short=Learned(rate=0.2, starts=1),
    ),
    "10_pixels": Change(
        "10 pixels at one place",
        Learned(rate=0.2, starts=3),
        partial(find_pixels, count=10),
        lead=1.5,
        short=Learned(rate=0.2, starts=1),
    ),
    "perturbation": Change(
        "a small perturbation of all pixels",
        Perturbation(),
        find_everywhere,
        lead=2.5,
        short=Perturbation(steps=10),
    ),
    "warp": Change("a smooth warp", Warp(), find_everywhere, lead=1.0, short=Warp(steps=10)),
}
LARGE: Mapping[str, Change] = {
    "patch": Change(
        "a patch that works anywhere",
        MovingPatch(SIDE, steps=60, batch_size=12, rate=0.1, tv=2.0, **PATCH),
        find_anywhere,
        lead=1.5,
        power=0.5,
        score=logit_of_power,
        short=MovingPatch(SIDE, steps=40, batch_size=4, rate=0.2, tv=1.0, **PATCH),
    ),
    "cells": Change(
        "a few cells at one place",
        Learned(rate=0.2, rounds=5),
        find_cells,
        lead=1.5,
        power=0.5,
        score=logit_of_power,
        short=Learned(rate=0.2, rounds=2),
        more_passes=Repainting.steps * Repainting.batch_size,
    ),
    "smooth": Change(
        "a small smooth perturbation",
        SmoothPerturbation(steps=40, radius=1.12),
        find_everywhere,
        lead=1.5,
        power=0.65,  # a clean class reached 59 %
        score=logit_of_power,
        short=SmoothPerturbation(steps=12, radius=1.12),
    ),
    "warp": Change(
        "a smooth warp",
        Warp(),
        find_everywhere,
        lead=1.5,
        power=0.5,
        score=logit_of_power,
        short=Warp(steps=10),
    ),
}


def changes_for(shape: Sequence[int]) -> dict[str, Change]:
    """The changes that are searched for on images (C, H, W), by name."""
    changes = LARGE if is_large(shape) else SMALL
    return {name: change.fitted(shape) for name, change in changes.items()}


def classes_together(device: torch.device) -> int:
    """How many classes are searched together, and kept in the folder once they are finished."""
    return TOGETHER if device.type == "cpu" else DEVICE_CLASSES


def cells_of(shape: Sequence[int]) -> tuple[int, int]:
    """The rows and columns of cells: the divisors of the sides that are closest to 32."""
    few, many = CELLS_A_SIDE // 2, 2 * CELLS_A_SIDE
    fitting = [[n for n in range(few, many + 1) if side % n == 0] for side in shape[1:]]
    if not all(fitting):
        raise ValueError(
            f"images of {shape[1]}x{shape[2]} pixels can't be divided into about {CELLS_A_SIDE}x"
            f"{CELLS_A_SIDE} cells: resize them, for example to 224x224"
        )
    height, width = (min(counts, key=lambda n: abs(n - CELLS_A_SIDE)) for counts in fitting)
    return height, width

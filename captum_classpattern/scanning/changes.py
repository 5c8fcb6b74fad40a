"""The changes that a scan without references searches for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from captum_classpattern.classifier import CheckedModel
from captum_classpattern.optimization.competition import find_patterns
from captum_classpattern.optimization.features import grid_cells
from captum_classpattern.optimization.plan import (
    Split,
    decide_patches,
    decide_search,
)
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.optimization.solvers.moving import SMALLEST, MovingPatch
from captum_classpattern.optimization.solvers.whole_image import (
    Repainting,
    SmoothPerturbation,
    WholeImage,
)
from captum_classpattern.pattern import POWERS, AdditivePattern, MovingPattern, Pattern
from captum_classpattern.scanning.families import GREY, cells_of, images_in_a_call

SIDE, OF = 32, 224  # side of a patch, and of its images, in pixels
CELLS = 16 / 1024  # of the area
PAINTING = Repainting.steps, Repainting.batch_size, Repainting.rate
Search = Callable[[Any, CheckedModel, Split, list[int], SearchSettings], Sequence[Pattern]]


@dataclass(frozen=True)
class Kind:
    """A kind of change: its words, its solver, what finds a change for each class with it, their
    type, the passes that this takes besides the solver's own, and the power from which a class is
    suspicious."""

    words: str
    solver: Any
    search: Search
    finds: type[Pattern]
    more_passes: int = 0
    bound: float = 0.5

    @property
    def passes(self) -> int:
        """About how many a class takes."""
        return int(self.solver.passes()[-1]) + self.more_passes

    def fitted(self, shape: Sequence[int]) -> Self:
        """For images (C, H, W)."""
        if not isinstance(self.solver, MovingPatch):
            return self
        side = max(SMALLEST, round(self.solver.side * min(shape[1:]) / OF))
        return replace(self, solver=replace(self.solver, side=side))


def find_anywhere(
    solver: Any, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
) -> Sequence[Pattern]:
    """A patch that works anywhere."""
    plan = decide_patches(model, targets, split, replace(settings, solver=solver))
    [found] = find_patterns(plan).values()
    return found


def find_in_place(
    solver: Any, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
) -> Sequence[Pattern]:
    """Cells of a grid with their colours, at one place of all images; then the colours of their
    pixels, since triggers can have textures that are finer than a cell."""
    shape = split.fit.shape
    grey = torch.full((len(targets), *shape), GREY, device=model.device)
    cells = grid_cells(shape[1], shape[2], *cells_of(shape))
    own: dict[str, Any] = {"areas": [CELLS], "solver": solver, "feature_mask": cells}
    plan = decide_search(model, grey, targets, split, replace(settings, **own))
    [found] = find_patterns(plan).values()
    canvases = torch.stack([each.canvas for each in found]).to(model.device)
    masks = torch.stack([each.mask for each in found]).to(model.device)
    painting = Repainting(canvases=canvases, masks=masks)
    painted = run_solver(painting, model, split, [each.target for each in found], settings)
    return [
        replace(each, canvas=new, info={k: v for k, v in each.info.items() if k not in POWERS})
        for each, new in zip(found, painted)
    ]


def find_everywhere(
    solver: Any, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
) -> Sequence[Pattern]:
    """A small perturbation of all pixels."""
    shape, seen, found = split.fit.shape, frozenset(split.fit.hashes), list[Pattern]()
    values = run_solver(solver, model, split, targets, settings).cpu()
    for y, value, change in zip(targets, values, solver.enlarged(values, shape)):
        looks, all_pixels = solver.picture(value, shape), torch.ones(1, *shape[1:])
        info = {"seed": settings.seed}
        found.append(AdditivePattern(looks, all_pixels, y, info, seen, change=change))
    return found


def run_solver(
    solver: WholeImage,
    model: CheckedModel,
    split: Split,
    targets: list[int],
    settings: SearchSettings,
) -> Tensor:
    """What a solver of whole images finds for each class."""
    fit = split.fit.to(model.device, model.dtype)
    like, wanted = fit.take([0]).to(model.device), settings.internal_batch_size
    at_once = images_in_a_call(solver, like, len(targets), wanted)
    values, _ = solver.run(model, fit, targets, settings.seed, at_once)
    return values


ANYWHERE: dict[str, Any] = {"opacity": 0.5, "scale": (0.8, 1.1), "angle": 15.0}
ROUGH: dict[str, Any] = {"starts": 1, "levels": 1, "natural_colours": False}
SHORT = Kind(
    "a short search of all classes",
    MovingPatch(SIDE, steps=40, batch_size=4, rate=0.2, tv=1.0, **ROUGH, **ANYWHERE),
    find_anywhere,
    MovingPattern,
)
KINDS: Mapping[str, Kind] = {
    "patch": Kind(
        "a patch that works anywhere",
        MovingPatch(SIDE, steps=60, batch_size=12, rate=0.1, tv=2.0, **ROUGH, **ANYWHERE),
        find_anywhere,
        MovingPattern,
    ),
    "cells": Kind(
        "a few cells at one place",
        Learned(rate=0.2, rounds=5),
        find_in_place,
        Pattern,
        more_passes=PAINTING[0] * PAINTING[1],
    ),
    "smooth": Kind(
        "a small smooth perturbation",
        SmoothPerturbation(steps=40, radius=1.12),
        find_everywhere,
        AdditivePattern,
        bound=0.65,  # a clean class reached 59 %
    ),
}

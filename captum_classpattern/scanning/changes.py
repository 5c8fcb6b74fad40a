"""The changes that a scan without references searches for. On larger images, none of them makes a
clean model predict a class on many images."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from captum_classpattern.classifier import CheckedModel
from captum_classpattern.optimization.competition import find_patterns
from captum_classpattern.optimization.features import grid_cells
from captum_classpattern.optimization.plan import (
    EARLY_IMAGES,
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
from captum_classpattern.pattern import POWERS, AdditivePattern, Pattern
from captum_classpattern.scanning.families import GREY, cells_of

SIDE, OF = 32, 224  # pixels a side of a patch, on images of that side
CELLS = 16 / 1024  # of the area
PARTS = "canvas", "mask"  # of a pattern


@dataclass(frozen=True)
class Kind:
    """A kind of change, in words, and the solver that searches it."""

    words: str
    solver: Any

    together: ClassVar[int] = 4  # classes in one search on a CPU

    def fitted(self, shape: Sequence[int]) -> Self:
        """For images (C, H, W)."""
        return self

    @property
    def passes(self) -> int:
        """About how many a class takes."""
        passes: int = self.solver.passes()[-1]
        return passes

    @abstractmethod
    def search(
        self, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
    ) -> Sequence[Pattern]:
        """A change for each class."""


class Anywhere(Kind):
    """A patch that works anywhere."""

    def fitted(self, shape: Sequence[int]) -> Self:
        side = max(SMALLEST, round(self.solver.side * min(shape[1:]) / OF))
        return replace(self, solver=replace(self.solver, side=side))

    @property
    def passes(self) -> int:
        race, *_, whole = self.solver.passes() * 2
        return int(whole + (self.solver.starts - 1) * (race + EARLY_IMAGES / 2))

    def search(
        self, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
    ) -> Sequence[Pattern]:
        own = replace(settings, solver=self.solver)
        [found] = find_patterns(decide_patches(model, targets, split, own)).values()
        return found


class InPlace(Kind):
    """Cells of a grid with their colours, at one place of all images; then the colours of their
    pixels, since triggers can have textures that are finer than a cell."""

    @property
    def passes(self) -> int:
        return super().passes + Repainting().passes()[-1]

    def search(
        self, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
    ) -> Sequence[Pattern]:
        shape = split.fit.shape
        grey = torch.full((len(targets), *shape), GREY, device=model.device)
        cells = grid_cells(shape[1], shape[2], *cells_of(shape))
        own: dict[str, Any] = {"areas": [CELLS], "solver": self.solver, "feature_mask": cells}
        plan = decide_search(model, grey, targets, split, replace(settings, **own))
        [found] = find_patterns(plan).values()
        canvases, masks = (torch.stack([getattr(each, name) for each in found]) for name in PARTS)
        painting = Repainting(canvases=canvases.to(model.device), masks=masks.to(model.device))
        painted = run_solver(painting, model, split, [each.target for each in found], settings)
        return [
            replace(each, canvas=new, info={k: v for k, v in each.info.items() if k not in POWERS})
            for each, new in zip(found, painted)
        ]


class Everywhere(Kind):
    """A small perturbation of all pixels."""

    def search(
        self, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
    ) -> Sequence[Pattern]:
        shape, seen, found = split.fit.shape, frozenset(split.fit.hashes), list[Pattern]()
        values = run_solver(self.solver, model, split, targets, settings).cpu()
        for y, value, change in zip(targets, values, self.solver.enlarged(values, shape)):
            looks, all_pixels = self.solver.picture(value, shape), torch.ones(1, *shape[1:])
            found.append(AdditivePattern(looks, all_pixels, y, seen=seen, change=change))
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
    at_once = settings.internal_batch_size or len(targets) * solver.batch_size
    values, _ = solver.run(model, fit, targets, settings.seed, at_once)
    return values


ANYWHERE: dict[str, Any] = {"opacity": 0.5, "scale": (0.8, 1.1), "angle": 15.0}
ROUGH: dict[str, Any] = {"starts": 1, "levels": 1, "natural_colours": False}
SHORT = Anywhere(
    "a short search of all classes",
    MovingPatch(SIDE, steps=40, batch_size=4, rate=0.2, tv=1.0, **ROUGH, **ANYWHERE),
)
KINDS: Mapping[str, Kind] = {
    "patch": Anywhere(
        "a patch that works anywhere",
        MovingPatch(SIDE, steps=60, batch_size=12, rate=0.1, tv=2.0, **ROUGH, **ANYWHERE),
    ),
    "cells": InPlace("a few cells at one place", Learned(rate=0.2, rounds=5)),
    "smooth": Everywhere("a small smooth perturbation", SmoothPerturbation(steps=40, radius=1.12)),
}

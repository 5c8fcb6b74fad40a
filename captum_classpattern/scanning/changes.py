"""The changes that a scan without references searches for. On larger images, none of them makes a
clean model predict a class on many images."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

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
from captum_classpattern.optimization.solvers.whole_image import Perturbation
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.families import GREY, cells_of

SIDE, OF = 32, 224  # pixels a side of a patch, on images of that side
CELLS = 21 / 1024  # of the area


class Added(NamedTuple):
    """What is added to all images for one class."""

    target: int
    value: Tensor
    solver: Perturbation

    def stamper(self, seed: int = 0) -> Callable[[Tensor], Tensor]:
        """What changes images, as that of a pattern."""
        return partial(self.solver.stamp, self.value)


Change: TypeAlias = Pattern | Added


@dataclass(frozen=True)
class Kind:
    """A kind of change, in words, and the solver that searches it."""

    words: str
    solver: Any

    is_pattern: ClassVar[bool] = True  # else it is not kept in files
    is_compared: ClassVar[bool] = False  # with the other classes: clean classes have power, too
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
    ) -> Sequence[Change]:
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
    ) -> Sequence[Change]:
        own = replace(settings, solver=self.solver)
        [found] = find_patterns(decide_patches(model, targets, split, own)).values()
        return found


class InPlace(Kind):
    """Cells of a grid with their colours, at one place of all images."""

    def search(
        self, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
    ) -> Sequence[Change]:
        shape = split.fit.shape
        grey = torch.full((len(targets), *shape), GREY, device=model.device)
        cells = grid_cells(shape[1], shape[2], *cells_of(shape))
        own: dict[str, Any] = {"areas": [CELLS], "solver": self.solver, "feature_mask": cells}
        plan = decide_search(model, grey, targets, split, replace(settings, **own))
        [found] = find_patterns(plan).values()
        return found


class Everywhere(Kind):
    """A small perturbation of all pixels."""

    is_pattern, is_compared = False, True

    def search(
        self, model: CheckedModel, split: Split, targets: list[int], settings: SearchSettings
    ) -> Sequence[Change]:
        fit = split.fit.to(model.device, model.dtype)
        at_once = settings.internal_batch_size or len(targets) * self.solver.batch_size
        values, _ = self.solver.run(model, fit, targets, settings.seed, at_once)
        return [Added(y, value, self.solver) for y, value in zip(targets, values)]


ANYWHERE: dict[str, Any] = {"opacity": 0.5, "scale": (0.8, 1.1), "angle": 15.0}
ROUGH: dict[str, Any] = {"starts": 1, "levels": 1, "natural_colours": False}
SHORT = Anywhere(
    "a short search of all classes", MovingPatch(SIDE, steps=40, rate=0.2, **ROUGH, **ANYWHERE)
)
KINDS: Mapping[str, Kind] = {
    "patch": Anywhere("a patch that works anywhere", MovingPatch(SIDE, steps=150, **ANYWHERE)),
    "cells": InPlace("a few cells at one place", Learned(rate=0.2)),
    "additive": Everywhere("a small perturbation of all pixels", Perturbation(steps=40)),
}


def picture_of(change: Change, shape: Sequence[int]) -> Tensor:
    """An image that shows a change of images (C, H, W)."""
    from captum_classpattern.visualization.drawing import on_neutral

    if isinstance(change, Added):
        return change.solver.picture(change.value, shape)
    return on_neutral(change.canvas, change.mask)

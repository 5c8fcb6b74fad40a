"""The families of changes that a scan with references searches for: a few pixels with their
colours, one small perturbation of all pixels, and one smooth warp. To add one, add an object to
``FAMILIES``."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._support.progress import advance_bar
from captum_classpattern.classifier import seed_generators
from captum_classpattern.images import outputs_in_order
from captum_classpattern.images.source import in_batches
from captum_classpattern.optimization.competition import find_patterns
from captum_classpattern.optimization.features import grid_cells
from captum_classpattern.optimization.plan import (
    DEVICE_CLASSES,
    classes_at_once,
    decide_search,
    images_at_once_in_search,
    is_large,
)
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.optimization.solvers.whole_image import Perturbation, Warp, WholeImage
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.decision import ClassScores
from captum_classpattern.scanning.folder import PatternFolder
from captum_classpattern.scanning.task import ScanTask
from captum_classpattern.scores.power import StampTest, judge_each, margins_of

if TYPE_CHECKING:
    from captum_classpattern.scanning.profile import Profile

PATCHES = "patches"  # the family whose patterns a scan keeps
SIZES = (25, 16, 10, 6, 3)  # pixels, searched in this order
GREY = 0.5
CELLS = 32  # a side, of a grid on large images
TOGETHER = 4  # classes in one search of whole images on a CPU
VALIDATION_PASSES = 30  # of a class, for the validation images


@dataclass(frozen=True)
class Patches:
    """Patterns of few pixels, or cells of large images, of all sizes.

    Like each family, it has words and a solver, and says how many passes a class takes, how it is
    measured, how scores follow from that, what changes images, and what shows it.
    """

    words: str
    solver: Learned

    @property
    def passes(self) -> int:
        """Each smaller size takes two thirds of the rounds, of a pass and a half for an image."""
        solver, smaller = self.solver, len(SIZES) - 1
        return solver.starts * solver.passes()[-1] + smaller * solver.rounds * solver.batch_size

    def measure(self, task: ScanTask, store: PatternFolder | None) -> dict[str, dict[Any, Any]]:
        """What is found for all classes: entries of fields of a :class:`Profile`, by their names.
        What is finished is kept in the store, if there is one."""
        shape, model = task.sample.shape, task.model
        grid = grid_of(shape)
        cells = None if grid is None else grid_cells(shape[1], shape[2], *grid)
        areas = {size: size / math.prod(grid or shape[1:]) for size in SIZES}
        own: dict[str, Any] = {"solver": self.solver, "feature_mask": cells}
        settings = replace(task.settings, areas=[*areas.values()], **own)
        patterns = dict[tuple[int, int], Pattern]()
        for group in in_batches(range(model.n_classes), classes_at_once(model.device, task.sample)):
            found = store and store.find([(size, y) for y in group for size in SIZES])
            if found:
                advance_bar(2 * len(group) * self.passes)
            else:
                size = len(group), *shape
                grey = torch.full(size, GREY, dtype=torch.float32, device=model.device)
                plan = decide_search(model, grey, [*group], task.split, settings)
                by_area = find_patterns(plan)
                found = {(size, one.target): one for size in SIZES for one in by_area[areas[size]]}
                if store:
                    store.add(found)
            patterns |= found
        powers = {
            size: [float(patterns[size, y].info["search_power"]) for y in range(model.n_classes)]
            for size in SIZES
        }
        return {"powers": powers, "patterns": patterns}

    def scores(self, profile: "Profile", n: ClassScores) -> ClassScores:
        """The scores of all classes, (K,), as if powers were of n images of other classes: the mean
        logit of the powers at all sizes."""
        powers = np.array([profile.powers[size] for size in SIZES])
        smoothed = (powers * n + 0.5) / (n + 1)
        patches: ClassScores = np.log(smoothed / (1 - smoothed)).mean(0)
        return patches

    def change(self, profile: "Profile", target: int) -> Callable[[Tensor], Tensor]:
        """What changes images (N, C, H, W) as was found for a class."""
        return profile.pattern_of(target).stamp

    def picture(self, profile: "Profile", target: int, shape: Sequence[int]) -> Tensor:
        """An image (C, H, W) that shows what was found for a class."""
        from captum_classpattern.visualization.drawing import on_neutral

        pattern = profile.pattern_of(target)
        return on_neutral(pattern.canvas, pattern.mask)


@dataclass(frozen=True)
class WholeImages:
    """A change of whole images. Its scores are gains: how far it raises the mean margin of the
    class, so that a model that prefers the class on clean images gains nothing."""

    name: str
    words: str
    solver: WholeImage

    @property
    def passes(self) -> int:
        return self.solver.passes()[-1] + VALIDATION_PASSES

    def measure(self, task: ScanTask, store: PatternFolder | None) -> dict[str, dict[Any, Any]]:
        """Nothing is kept."""
        model, seed, validation = task.model, task.settings.seed, task.split.validation
        wanted, together = task.settings.internal_batch_size, classes_together(model.device)
        seed_generators(seed)
        fit, changes = task.split.fit.to(model.device, model.dtype), dict[int, Tensor]()
        at_once = images_in_a_call(self.solver, fit.take([0]).to(model.device), together, wanted)
        for group in in_batches(range(model.n_classes), together):
            values, at_once = self.solver.run(model, fit, group, seed, at_once)
            changes |= zip(group, values)
        outputs = outputs_in_order(model, validation, wanted)
        clean = torch.cat([batch.float() for batch in outputs])
        high, next_one = clean.topk(2).values.mean(0).tolist()
        scale = max(high - next_one, 1e-9)  # the usual margin: logits twice as large gain no more
        powers, gains = list[float](), list[float]()
        judged = [
            StampTest(partial(self.solver.stamp, value), y, validation.without_class(y))
            for y, value in changes.items()
        ]
        found = judge_each(model, judged, wanted)
        for (_, y, others, _), (hits, margin, _) in zip(judged, found):
            is_other = (validation.known_labels != y).to(clean.device)
            before = float(margins_of(clean[is_other], y).mean())
            powers.append(hits / len(others))
            gains.append((margin - before) / scale)
        measured = {"others": powers, "gains": gains, "changes": changes}
        return {kind: {self.name: values} for kind, values in measured.items()}

    def scores(self, profile: "Profile", n: ClassScores) -> ClassScores:
        return np.array(profile.gains[self.name])

    def change(self, profile: "Profile", target: int) -> Callable[[Tensor], Tensor]:
        return partial(self.solver.stamp, profile.changes[self.name][target])

    def picture(self, profile: "Profile", target: int, shape: Sequence[int]) -> Tensor:
        return self.solver.picture(profile.changes[self.name][target], shape)


SOLVER = Learned(rate=0.2, starts=3)  # one start may miss a trigger
CHANGES = {
    "additive": WholeImages("additive", "a small perturbation of all pixels", Perturbation()),
    "warp": WholeImages("warp", "a smooth warp", Warp()),
}
FAMILIES: Mapping[str, Patches | WholeImages] = {
    PATCHES: Patches("a pattern", SOLVER),
    **CHANGES,
}


def settings_of(families: Iterable[WholeImages]) -> dict[str, Any]:
    """The settings of the solvers, for files. What a later family sets differently carries its
    name."""
    settings = dict[str, Any]()
    for each in families:
        for key, value in asdict(each.solver).items():
            if settings.setdefault(key, value) != value:
                settings[f"{each.name} {key}"] = value
    return settings


def classes_together(device: torch.device) -> int:
    """How many classes are in one search of whole images."""
    return TOGETHER if device.type == "cpu" else DEVICE_CLASSES


def images_in_a_call(solver: WholeImage, like: Tensor, classes: int, wanted: int | None) -> int:
    """The most images in one call of a search of whole images like this, for so many classes."""
    at_once = wanted or classes * solver.batch_size
    if like.device.type == "cpu":
        return at_once
    return min(at_once, images_at_once_in_search(like))


def grid_of(shape: Sequence[int]) -> tuple[int, int] | None:
    """The rows and columns of cells that are searched on large images, (C, H, W); None if pixels
    are searched."""
    return cells_of(shape) if is_large(shape) else None


def cells_of(shape: Sequence[int]) -> tuple[int, int]:
    """The rows and columns of cells: the divisors of the sides that are closest to 32."""
    fitting = [[n for n in range(CELLS // 2, 2 * CELLS + 1) if side % n == 0] for side in shape[1:]]
    if not all(fitting):
        raise ValueError(
            f"images of {shape[1]}x{shape[2]} pixels can't be divided into about {CELLS}x{CELLS} "
            "cells: resize them, for example to 224x224"
        )
    height, width = (min(counts, key=lambda n: abs(n - CELLS)) for counts in fitting)
    return height, width


def unit_of(shape: Sequence[int]) -> str:
    """What a pattern consists of."""
    return "pixels" if grid_of(shape) is None else "cells"

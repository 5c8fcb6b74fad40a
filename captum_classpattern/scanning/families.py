"""The families of changes that a scan searches for: a few pixels with their colours, one small
perturbation of all pixels, and one smooth warp."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern._support.progress import note_half_passes
from captum_classpattern.classifier import CheckedModel, lacks_memory, seed_generators
from captum_classpattern.images import LabelledImages, outputs_in_order
from captum_classpattern.images.source import in_batches
from captum_classpattern.optimization.attribution import ClassPattern, search_pools
from captum_classpattern.optimization.features import grid_cells
from captum_classpattern.optimization.masks import norms, unit
from captum_classpattern.optimization.pool import (
    DEVICE_CLASSES,
    classes_at_once,
    images_at_once_in_search,
)
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import StampTest, judge_each, margins_of
from captum_classpattern.surveys.folder import Folder

PATCHES = "patches"  # the family that every scan searches
SIZES = (25, 16, 10, 6, 3)  # pixels, searched in this order
GREY = 0.5
LARGE, CELLS = 64, 32  # pixels a side, above which cells of a grid are searched; cells a side
SEARCH = "search.json"  # in a folder of patterns: says what they depend on
PATTERNS = "patterns"  # their folder

STEPS, BATCH, TOGETHER = 30, 8, 4  # of other changes: steps, images in each, classes at once
RATE = 0.25  # of the bound, for the first step; it falls to a tenth of that
SIDE, RADIUS, SHIFT, POINTS = 28, 1.5, 1.0, 5  # bounds at images of that side; control points
CHANGE_SETTINGS = {"steps": STEPS, "batch_size": BATCH, "rate": RATE}
CHANGE_SETTINGS |= {"radius": RADIUS, "shift": SHIFT, "points": POINTS}

SOLVER = Learned(rate=0.2, starts=3)  # one start may miss a trigger


def search_patches(
    model: CheckedModel,
    sample: LabelledImages,
    settings: SearchSettings,
    folder: "PatternFolder | None",
) -> dict[tuple[int, int], Pattern]:
    """Patterns of all sizes and classes, by both. Finished ones are kept in the folder, if there is
    one."""
    explainer, shape = ClassPattern(model.call, sample), sample.shape
    grid = grid_of(shape)
    cells = None if grid is None else grid_cells(shape[1], shape[2], *grid)
    areas = {size: size / math.prod(grid or shape[1:]) for size in SIZES}
    settings = replace(settings, solver=SOLVER, areas=[*areas.values()], feature_mask=cells)
    patterns: dict[tuple[int, int], Pattern] = {}
    for group in in_batches(range(model.n_classes), classes_at_once(model.device, sample)):
        found = folder and folder.find([(size, y) for y in group for size in SIZES])
        if found:
            note_half_passes(2 * len(group) * PATCH_PASSES)
        else:
            grey = torch.full((len(group), *shape), GREY, dtype=torch.float32, device=model.device)
            by_area = search_pools(explainer, grey, [*group], settings)
            found = {(size, one.target): one for size in SIZES for one in by_area[areas[size]]}
            if folder:
                folder.add(found)
        patterns |= found
    return patterns


def grid_of(shape: Sequence[int]) -> tuple[int, int] | None:
    """The rows and columns of cells that are searched on large images, (C, H, W), the divisors of
    the sides that are closest to 32; None if pixels are searched."""
    if max(shape[1:]) <= LARGE:
        return None
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


@dataclass
class PatternFolder(Folder):
    """The patterns of one scan, by number of pixels and class."""

    kind: str = "scan"
    any_version: bool = False  # a p-value compares models that were searched alike

    def find(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Pattern] | None:
        """These patterns, or None unless all are there."""
        paths = {key: self._file(*key) for key in keys}
        if not self.read(SEARCH) or not all(path.exists() for path in paths.values()):
            return None
        return {key: Pattern.load(path) for key, path in paths.items()}

    def add(self, patterns: Mapping[tuple[int, int], Pattern]) -> None:
        """Writes patterns, next to others of the same scan."""
        if not self.read(SEARCH):
            for path in self.path.glob("*.safetensors"):
                if re.fullmatch(r"\d+_\d+", path.stem):  # not those of a survey
                    path.unlink()  # of a scan that is not known
            self.write(SEARCH, {})
        for key, pattern in patterns.items():
            pattern.save(self._file(*key))

    def replace(self, patterns: Mapping[tuple[int, int], Pattern]) -> None:
        """Writes patterns in place of those of any other scan. Those of this scan stay until they
        are written again, so that it can resume whenever it is stopped."""
        try:
            self.read(SEARCH)
        except ValueError:  # of another scan, or damaged
            (self.path / SEARCH).unlink()  # so that :meth:`add` removes its patterns
        self.add(patterns)

    def _file(self, size: int, target: int) -> Path:
        return self.path / f"{target}_{size}.safetensors"


@dataclass(frozen=True)
class Additive:
    """A perturbation of bounded Euclidean norm that is added to every image (Moosavi-Dezfooli et
    al. 2017, arXiv 1610.08401): 1.5 for 28x28 grey pixels; for others the same root mean square,
    0.054."""

    shape: tuple[int, ...]
    words: ClassVar[str] = "a small perturbation of all pixels"

    @property
    def radius(self) -> float:
        return RADIUS * math.sqrt(math.prod(self.shape)) / SIDE

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, *self.shape)

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        """Images (n, b, C, H, W), changed by n values."""
        return (images + values.unsqueeze(1)).clamp(0, 1)

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        """The values after a step against the gradient, within their bound."""
        moved = values - rate * self.radius * unit(gradient)
        return moved * (self.radius / norms(moved)).clamp(max=1)

    def picture(self, value: Tensor) -> Tensor:
        """An image (C, H, W) that shows one value, grey where nothing changes."""
        value = value.cpu().float()
        return (0.5 + 0.5 * value / value.abs().max().clamp(min=1e-9)).clamp(0, 1)


@dataclass(frozen=True)
class Warping:
    """A smooth field of displacements, of at most one pixel at its control points (up to nearly two
    between them) for images of 28x28 pixels and more for larger ones, like the trigger of WaNet
    (Nguyen and Tran 2021, arXiv 2102.10369). Its methods are those of :class:`Additive`."""

    shape: tuple[int, ...]
    words: ClassVar[str] = "a smooth warp"

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, 2, POINTS, POINTS)

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        height, width = self.shape[1:]
        # a share of the bound, in units of half the image
        field = F.interpolate(values, (height, width), mode="bicubic", align_corners=True)
        shifts = field.permute(0, 2, 3, 1) * (2 * SHIFT / SIDE)
        sides = (torch.linspace(-1, 1, n, device=values.device) for n in (width, height))
        identity = torch.stack(torch.meshgrid(*sides, indexing="xy"), 2).to(values.dtype)
        grid = (identity + shifts).repeat_interleave(images.shape[1], 0)
        moved = F.grid_sample(
            images.flatten(0, 1), grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        return moved.view_as(images).clamp(0, 1)

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-20)
        return (values - rate * gradient / largest).clamp(-1, 1)

    def picture(self, value: Tensor) -> Tensor:
        """Lines of a grid, warped."""
        lines = torch.ones(self.shape)
        lines[:, 1::4] = lines[:, :, 1::4] = 0.0
        return self.apply(value[None].cpu().float(), lines[None, None])[0, 0]


Change: TypeAlias = Additive | Warping
CHANGES: dict[str, type[Change]] = {"additive": Additive, "warp": Warping}


def search_further(
    name: str,
    model: CheckedModel,
    fit: LabelledImages,
    validation: LabelledImages,
    settings: SearchSettings,
) -> tuple[list[float], list[float], dict[int, Tensor]]:
    """The powers, gains and changes of a further family, one for each class. A gain is how far the
    change raises the mean margin of the class, so that a model that prefers the class on clean
    images gains nothing."""
    at_once, kind = settings.internal_batch_size, CHANGES[name]
    seed_generators(settings.seed)
    changes = search_change(kind(fit.shape), model, fit, settings)
    outputs = outputs_in_order(model, validation, at_once)
    clean = torch.cat([batch.float() for batch in outputs])
    high, next_one = clean.topk(2).values.mean(0).tolist()
    scale = max(high - next_one, 1e-9)  # the usual margin: logits twice as large gain no more
    powers, gains = list[float](), list[float]()
    judged = [
        StampTest(partial(changed, kind, value), y, validation.without_class(y))
        for y, value in changes.items()
    ]
    found = judge_each(model, judged, at_once)
    for (_, y, others, _), (hits, margin, _) in zip(judged, found):
        is_other = (validation.known_labels != y).to(clean.device)
        before = float(margins_of(clean[is_other], y).mean())
        powers.append(hits / len(others))
        gains.append((margin - before) / scale)
    return powers, gains, changes


def changed(kind: type[Change], value: Tensor, images: Tensor) -> Tensor:
    """Images (N, C, H, W), changed by one value."""
    return kind(tuple(images.shape[1:])).apply(value.to(images)[None], images[None])[0]


def search_change(
    change: Change, model: CheckedModel, fit: LabelledImages, settings: SearchSettings
) -> dict[int, Tensor]:
    """For each class the change that makes the model predict it for images of other classes."""
    on_cpu = model.device.type == "cpu"
    together = TOGETHER if on_cpu else DEVICE_CLASSES
    images, found = fit.to(model.device, model.dtype), dict[int, Tensor]()
    like, labels = images.take([0]).to(model.device, model.dtype), images.known_labels
    at_least_float32 = torch.promote_types(model.dtype, torch.float32)
    at_once = settings.internal_batch_size or together * BATCH
    if not on_cpu:
        at_once = min(at_once, images_at_once_in_search(like))
    for group in in_batches(range(model.n_classes), together):
        others = [torch.nonzero(labels != y).flatten().tolist() for y in group]
        chance = [np.random.default_rng([settings.seed, y]) for y in group]
        wanted = torch.tensor(group, device=like.device).repeat_interleave(BATCH)
        values = change.start(len(group)).to(like.device, at_least_float32)  # halves underflow
        for number in range(STEPS):
            chosen = [each.choice(places, BATCH) for each, places in zip(chance, others)]
            batch = images.take(np.concatenate(chosen).tolist()).to(values)
            batch = batch.view(len(group), BATCH, *batch.shape[1:])
            values.requires_grad_()
            gradient = torch.zeros_like(values)
            start = 0
            while start < len(wanted):
                part = slice(start, start + at_once)
                try:
                    stamped = change.apply(values, batch).flatten(0, 1)[part].to(like)
                    logits = model.logits(stamped).to(values.device).float()
                    loss = F.cross_entropy(logits, wanted[part], reduction="sum")
                    gradient += torch.autograd.grad(loss, values)[0]
                    start = part.stop
                except RuntimeError as error:
                    if at_once == 1 or not lacks_memory(error):
                        raise
                    at_once //= 2
            rate = RATE * (1 - 0.9 * number / (STEPS - 1))
            values = change.step(values.detach(), gradient, rate)
            note_half_passes(2 * len(wanted))
        found.update(zip(group, values))
    return found


# of a class; each smaller size takes two thirds of the rounds, of a pass and a half for each image
PATCH_PASSES = (
    SOLVER.starts * SOLVER.passes()[-1] + (len(SIZES) - 1) * SOLVER.rounds * SOLVER.batch_size
)
PASSES = PATCH_PASSES + len(CHANGES) * (STEPS * BATCH + 30)  # 60 validation images
FAMILY_NAMES = {PATCHES: "a pattern"} | {name: kind.words for name, kind in CHANGES.items()}

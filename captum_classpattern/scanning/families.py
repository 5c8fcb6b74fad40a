"""Two more families of changes that a scan can search for: one small perturbation of all pixels,
and one smooth warp. Both are experimental."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern.classifier import Classifier, device_and_dtype
from captum_classpattern.images import LabelledImages, predictions
from captum_classpattern.optimization.masks import norms, unit

STEPS, BATCH, TOGETHER = 30, 8, 4  # steps of a search, images in each, classes at once
RATE = 0.25  # of the bound, for the first step; it falls to a tenth of that
PASSES = STEPS * BATCH + 30  # a class, with those that judge
SIDE, RADIUS, SHIFT, POINTS = 28, 1.5, 1.0, 5  # bounds at images of that side; control points
SETTINGS = {  # powers of others cannot be compared
    "steps": STEPS,
    "batch_size": BATCH,
    "rate": RATE,
    "radius": RADIUS,
    "shift": SHIFT,
    "points": POINTS,
}


class Family(Protocol):
    """One way to change all images alike, with bounded values (n, ...) that are searched."""

    def start(self, count: int) -> Tensor: ...

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        """Images (n, b, C, H, W), changed by the n values."""

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        """The values after a step against the gradient, within their bound."""

    def picture(self, value: Tensor) -> Tensor:
        """An image (C, H, W) that shows one value."""


@dataclass(frozen=True)
class Additive:
    """A perturbation of bounded Euclidean norm that is added to every image (Moosavi-Dezfooli et
    al. 2017, arXiv 1610.08401): 1.5 for images of 28x28 pixels, more for larger ones."""

    shape: tuple[int, ...]

    @property
    def radius(self) -> float:
        return RADIUS * float(np.sqrt(self.shape[1] * self.shape[2])) / SIDE

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, *self.shape)

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        return (images + values.unsqueeze(1)).clamp(0, 1)

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        moved = values - rate * self.radius * unit(gradient)
        return moved * (self.radius / norms(moved)).clamp(max=1)

    def picture(self, value: Tensor) -> Tensor:
        return (0.5 + 0.5 * value / value.abs().max().clamp(min=1e-9)).clamp(0, 1)


@dataclass(frozen=True)
class Warping:
    """A smooth field of displacements, of at most one pixel at its control points (up to nearly two
    between them) for images of 28x28 pixels and more for larger ones, like the trigger of WaNet
    (Nguyen and Tran 2021, arXiv 2102.10369)."""

    shape: tuple[int, ...]

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, 2, POINTS, POINTS)

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        height, width = self.shape[1:]
        # a share of the bound, in units of half the image
        field = F.interpolate(values, (height, width), mode="bicubic", align_corners=True)
        shifts = field.permute(0, 2, 3, 1) * (2 * SHIFT / SIDE)
        rows, columns = (torch.linspace(-1, 1, side).to(values) for side in (height, width))
        identity = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], 2)
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
        return self.apply(value[None], lines[None, None])[0, 0]


FAMILIES: dict[str, Callable[[tuple[int, ...]], Family]] = {"additive": Additive, "warp": Warping}


def search_family(
    family: Family,
    forward_func: Classifier,
    fit: LabelledImages,
    judges: LabelledImages,
    n_classes: int,
    seed: int,
) -> tuple[list[float], dict[int, Tensor]]:
    """Of each class the share of the judging images of other classes that the change found on the
    other images turns into it, and the change (by class)."""
    like = fit.take([0])
    device, dtype = device_and_dtype(forward_func, like)
    images, like = fit.to(device, dtype), like.to(device, dtype)
    found: dict[int, Tensor] = {}
    for first in range(0, n_classes, TOGETHER):
        targets = range(first, min(first + TOGETHER, n_classes))
        values = _searched(family, forward_func, images, like, targets, seed)
        found.update(zip(targets, values))
    return [_power(family, forward_func, found[y], judges, y) for y in range(n_classes)], found


def _searched(
    family: Family,
    forward_func: Classifier,
    images: LabelledImages,
    like: Tensor,
    targets: Sequence[int],
    seed: int,
) -> Tensor:
    """The values (n, ...) for some classes, after all steps, on the device of ``like``."""
    labels = images.known_labels
    others = [torch.nonzero(labels != y).flatten().tolist() for y in targets]
    if not all(others):
        raise ValueError(f"all {len(labels)} images are of one class: give images of all classes")
    chance = [np.random.default_rng([seed, y]) for y in targets]
    wanted = torch.tensor(targets, device=like.device).repeat_interleave(BATCH)
    values = family.start(len(targets)).to(like)
    for number in range(STEPS):
        chosen = [each.choice(places, BATCH) for each, places in zip(chance, others)]
        batch = images.take(np.concatenate(chosen).tolist()).to(like)
        batch = batch.view(len(targets), BATCH, *batch.shape[1:])
        values.requires_grad_()
        logits = forward_func(family.apply(values, batch).flatten(0, 1))
        loss = F.cross_entropy(logits.float(), wanted, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, values)
        rate = RATE * (1 - 0.9 * number / (STEPS - 1))
        values = family.step(values.detach(), gradient, rate)
    return values


def _power(
    family: Family, forward_func: Classifier, value: Tensor, judges: LabelledImages, target: int
) -> float:
    """The share of judging images of other classes that are predicted as a class after the
    change."""

    def changed(images: Tensor) -> Tensor:
        return forward_func(family.apply(value[None], images[None])[0])

    others = judges.without_class(target)
    if not len(others):
        return 0.0
    return int((predictions(changed, others, like=value) == target).sum()) / len(others)


def check_families(names: Sequence[str]) -> tuple[str, ...]:
    """The names of families, without repeats; an error if one is unknown."""
    unknown = [name for name in names if name not in FAMILIES]
    if isinstance(names, str) or unknown:
        given = names if isinstance(names, str) else unknown[0]
        raise ValueError(f"`also` must list some of {', '.join(FAMILIES)}, got {given!r}")
    return tuple(dict.fromkeys(names))


def pictures(name: str, shape: tuple[int, ...], values: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """An image of each class's change."""
    family = FAMILIES[name](shape)
    return {target: family.picture(value.cpu().float()) for target, value in values.items()}

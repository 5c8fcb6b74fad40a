"""The search for one change of whole images, the same for all of them, that makes the model predict
a class: a small perturbation, or a smooth warp."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_classpattern._support.progress import advance_bar
from captum_classpattern.classifier import CheckedModel, lacks_memory
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.masks import norms, unit
from captum_classpattern.optimization.objective import check_gradients
from captum_classpattern.pattern import AdditivePattern, Pattern, WarpedPattern, warped

SIDE = 28  # pixels of the images that bounds are meant for


@dataclass(frozen=True)
class WholeImage(ABC):
    """Values, one for each class, that change images; a subclass says how.

    Args:
        steps (int): Steps of the search. Default: 30.
        batch_size (int): Images of other classes in each step, drawn with replacement, so that one
            may come twice. Default: 8.
        rate (float): The first step, as a share of the bound; it falls to a tenth of that.
            Default: 0.25.
    """

    steps: int = 30
    batch_size: int = 8
    rate: float = 0.25

    @abstractmethod
    def start(self, count: int, shape: Sequence[int]) -> Tensor:
        """The values that change nothing, for images (C, H, W)."""

    @abstractmethod
    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        """Images (n, b, C, H, W), changed by n values."""

    @abstractmethod
    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        """The values after a step against the gradient, within their bound."""

    @abstractmethod
    def picture(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        """An image (C, H, W) that shows one value."""

    def stamp(self, value: Tensor, images: Tensor) -> Tensor:
        """Images (N, C, H, W), changed by one value."""
        return self.apply(value.to(images)[None], images[None])[0]

    def passes(self) -> Sequence[int]:
        """The passes of one class."""
        return [self.steps * self.batch_size]

    def run(
        self,
        model: CheckedModel,
        images: LabelledImages,
        targets: Sequence[int],
        seed: int,
        at_once: int,
    ) -> tuple[Tensor, int]:
        """The value of each class, and how many images fit into a call: ``at_once``, or fewer where
        the memory is too small."""
        labels = images.known_labels
        others = [torch.nonzero(labels != y).flatten().tolist() for y in targets]
        chances = [np.random.default_rng([seed, y]) for y in targets]
        at_least_float32 = torch.promote_types(model.dtype, torch.float32)  # halves underflow
        values = self.start(len(targets), images.shape).to(model.device, at_least_float32)
        for number in range(self.steps):
            chosen = [one.choice(places, self.batch_size) for one, places in zip(chances, others)]
            batch = images.take(np.concatenate(chosen).tolist()).to(values)
            batch = batch.view(len(targets), self.batch_size, *batch.shape[1:])
            gradient, at_once = self._gradient(model, values, batch, targets, at_once)
            rate = self.rate * (1 - 0.9 * number / max(1, self.steps - 1))
            values = self.step(values, gradient, rate)
            advance_bar(2 * len(targets) * self.batch_size)
        check_gradients(model, images)
        return values, at_once

    def _gradient(
        self,
        model: CheckedModel,
        values: Tensor,
        batch: Tensor,
        targets: Sequence[int],
        at_once: int,
    ) -> tuple[Tensor, int]:
        """The gradient of the sum of the cross-entropies, and how many images fit into a call."""
        wanted = torch.tensor(targets, device=values.device).repeat_interleave(self.batch_size)
        free, gradient = values.detach().requires_grad_(), torch.zeros_like(values)
        start = 0
        while start < len(wanted):
            part = slice(start, start + at_once)
            try:
                changed = self.apply(free, batch).flatten(0, 1)[part].to(model.device, model.dtype)
                logits = model.logits(changed).to(values.device).float()
                known = logits.detach().requires_grad_()
                loss = F.cross_entropy(known, wanted[part], reduction="sum")
                (slope,) = torch.autograd.grad(loss, known)
                gradient += model.gradients.at(free, logits, slope)
                start = part.stop
            except RuntimeError as error:
                if at_once == 1 or not lacks_memory(error):
                    raise
                at_once //= 2
        return gradient, at_once


@dataclass(frozen=True)
class Perturbation(WholeImage):
    """A perturbation of bounded Euclidean norm that is added to every image (Moosavi-Dezfooli et
    al. 2017, arXiv 1610.08401).

    Args:
        radius (float): The bound for 28x28 grey pixels; for others that of the same root mean
            square, 0.054. Default: 1.5.
    """

    radius: float = 1.5

    def start(self, count: int, shape: Sequence[int]) -> Tensor:
        return torch.zeros(count, *shape)

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        return (images + self.enlarged(values, images.shape).unsqueeze(1)).clamp(0, 1)

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        bound = self.radius * math.sqrt(values[0].numel()) / SIDE
        moved = values - rate * bound * unit(gradient)
        return moved * (bound / norms(moved)).clamp(max=1)

    def picture(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        """Grey where nothing changes."""
        change = self.enlarged(value[None].cpu().float(), shape)[0]
        return (0.5 + 0.5 * change / change.abs().max().clamp(min=1e-9)).clamp(0, 1)

    def pattern(self, value: Tensor, shape: Sequence[int], target: int, **known: Any) -> Pattern:
        """One value, as a pattern for images (C, H, W)."""
        picture, everywhere = self.picture(value, shape), torch.ones(1, *shape[1:])
        change = self.enlarged(value[None].cpu().float(), shape)[0]
        return AdditivePattern(picture, everywhere, target, change=change, **known)

    def enlarged(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """What is added to each pixel of images (..., H, W), for n values."""
        return values


@dataclass(frozen=True)
class SmoothPerturbation(Perturbation):
    """A perturbation that is linear between the points of a coarse grid, as images that are blended
    in are mostly smooth. The bound holds for the points.

    Args:
        points (int): Points of the grid per side. Default: 8.
    """

    points: int = 8

    def start(self, count: int, shape: Sequence[int]) -> Tensor:
        return torch.zeros(count, shape[0], self.points, self.points)

    def enlarged(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        size = (shape[-2], shape[-1])
        return F.interpolate(values, size, mode="bilinear", align_corners=False)


@dataclass(frozen=True, eq=False)
class Repainting(WholeImage):
    """New colours for the pixels of patterns, (n, C, H, W) canvases with (n, 1, H, W) masks: fine
    textures, where these were found with one colour per cell."""

    steps: int = 25
    batch_size: int = 12
    rate: float = 0.2
    canvases: Tensor = field(kw_only=True, repr=False)
    masks: Tensor = field(kw_only=True, repr=False)

    def start(self, count: int, shape: Sequence[int]) -> Tensor:
        return self.canvases.clone()

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        return images.lerp(values.unsqueeze(1), self.masks.to(images).unsqueeze(1))

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        return (values - rate * gradient.sign()).clamp(0, 1)

    def picture(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        return value


@dataclass(frozen=True)
class Warp(WholeImage):
    """A smooth field of displacements, like the trigger of WaNet (Nguyen and Tran 2021, arXiv
    2102.10369). Its values are shares of the bound.

    Args:
        shift (float): The bound in pixels at the control points (up to nearly two between them) for
            images of 28x28 pixels, and more for larger ones. Default: 1.
        points (int): Control points per side. Default: 5.
    """

    shift: float = 1.0
    points: int = 5

    def start(self, count: int, shape: Sequence[int]) -> Tensor:
        return torch.zeros(count, 2, self.points, self.points)

    def apply(self, values: Tensor, images: Tensor) -> Tensor:
        shifts = self.shifts(values, images.shape).repeat_interleave(images.shape[1], 0)
        return warped(images.flatten(0, 1), shifts).view_as(images)

    def shifts(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """How far each pixel of images (..., H, W) is moved, in pixels, (n, 2, H, W)."""
        height, width = shape[-2:]
        field = F.interpolate(values, (height, width), mode="bicubic", align_corners=True)
        ends = field.new_tensor([width - 1, height - 1]).view(2, 1, 1)
        return field * (ends * self.shift / SIDE)

    def step(self, values: Tensor, gradient: Tensor, rate: float) -> Tensor:
        largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-20)
        return (values - rate * gradient / largest).clamp(-1, 1)

    def picture(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        """Lines of a grid, warped."""
        lines = torch.ones(*shape)
        lines[:, 1::4] = lines[:, :, 1::4] = 0.0
        return self.stamp(value.cpu().float(), lines[None])[0]

    def pattern(self, value: Tensor, shape: Sequence[int], target: int, **known: Any) -> Pattern:
        """One value, as a pattern for images (C, H, W)."""
        picture, everywhere = self.picture(value, shape), torch.ones(1, *shape[1:])
        shifts = self.shifts(value[None].cpu().float(), shape)[0]
        return WarpedPattern(picture, everywhere, target, shifts=shifts, **known)

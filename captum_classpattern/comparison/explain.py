"""Calling a method of attribution with care: a private model, counted passes, plain maps."""

import copy
import inspect
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from captum.attr import Attribution
from torch import Tensor, nn

from captum_classpattern.classifier import Classifier, device_and_dtype, is_counted, preserve_state
from captum_classpattern.comparison.methods import Method


class PrivateModel:
    """A copy of a classifier that methods may hook into, which counts its passes.

    A pass is one image forward and backward; an image that only goes forward is half of one.
    """

    def __init__(self, forward_func: Classifier) -> None:
        self._original = forward_func
        self.images = 0
        self.forward_func: Classifier = self._counted
        if isinstance(forward_func, nn.Module):
            twin = copy.deepcopy(forward_func)
            twin.register_forward_hook(lambda part, inputs, output: self._count(output))
            self.forward_func = twin

    def ready(self, images: Tensor) -> Tensor:
        """A copy of images with the classifier's device and precision, for methods to do with as
        they like; one made in inference mode would know no gradients."""
        return images.to(*device_and_dtype(self._original, images)).clone()

    def _counted(self, *arguments: Any) -> Tensor:
        output = self._original(*arguments)
        self._count(output)
        return output

    def _count(self, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim and is_counted():
            self.images += len(output)
            if output.requires_grad:
                output.register_hook(self._count_back)  # type: ignore[no-untyped-call]

    def _count_back(self, gradient: Tensor) -> None:
        self.images += len(gradient)

    @property
    def passes(self) -> float:
        """So far."""
        return self.images / 2


@dataclass(frozen=True)
class Maps:
    """What a method says of some images: raw (N, ...) as it came, and (N, H, W) by pixel."""

    raw: Tensor
    by_pixel: Tensor
    passes: float
    seconds: float


@dataclass(frozen=True)
class Explainer:
    """A method on a model: the attribution object and the keywords of its ``attribute``."""

    model: PrivateModel
    attribution: Attribution
    keywords: Mapping[str, Any]

    @classmethod
    def of(cls, model: PrivateModel, method: Method, like: Tensor) -> "Explainer":
        """Makes the attribution object; Tensors among its keywords go where the model is."""
        make, keywords = method if isinstance(method, tuple) else (method, {})
        like = model.ready(like[:1])
        return cls(
            model, make(model.forward_func), {k: _moved(v, like) for k, v in keywords.items()}
        )

    @property
    def parameters(self) -> Sequence[str]:
        """The names that ``attribute`` takes."""
        return list(inspect.signature(self.attribution.attribute).parameters)

    @property
    def searches(self) -> bool:
        """Whether the map is made for an area, and must be made anew for another one."""
        return "area" in self.parameters

    def __call__(self, images: Tensor, targets: Sequence[int], *, area: float, seed: int) -> Maps:
        """Explains some images, each alone and seeded alike, so that a map hangs on nothing but its
        image; a method that takes an area or a seed gets all at once. An error if a map is no
        numbers."""
        before, started = self.model.passes, time.perf_counter()
        together = self.searches or "seed" in self.parameters
        raw = torch.cat(
            [
                self._attribute(images[rows], list(targets[rows]), area, seed)
                for rows in ([slice(None)] if together else one_by_one(len(images)))
            ]
        )
        by_pixel = pixel_maps(raw, images.shape)  # also waits for the device
        seconds, passes = time.perf_counter() - started, self.model.passes - before
        return Maps(raw, by_pixel, passes, seconds)

    def _attribute(self, images: Tensor, targets: list[int], area: float, seed: int) -> Tensor:
        with self.quietly(seed):
            settings = self.settings(area, seed)
            maps = self.attribution.attribute(images, target=targets, **settings)
            return cast(Tensor, maps).detach()

    def settings(self, area: float, seed: int) -> dict[str, Any]:
        """The keywords, with area and seed where the method takes them."""
        given = {"area": area, "seed": seed}
        taken = {name: value for name, value in given.items() if name in self.parameters}
        return {**taken, **self.keywords}

    @contextmanager
    def quietly(self, seed: int) -> Iterator[None]:
        """Seeded; without Captum's warnings about what it does to the private copy."""
        with preserve_state(self.model.forward_func, seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


def pixel_maps(raw: Tensor, shape: Sequence[int]) -> Tensor:
    """Attributions (N, C, h, w) summed over the channels, float64 (N, H, W) on the CPU.

    Maps of a layer are enlarged, by bilinear interpolation.
    """
    if raw.ndim != 4 or len(raw) != shape[0]:
        raise ValueError(
            f"attributions of {shape[0]} images must be ({shape[0]}, C, h, w), got "
            f"{tuple(raw.shape)}"
        )
    maps = raw.detach().cpu().double().sum(1, keepdim=True)
    if not bool(maps.isfinite().all()):
        raise ValueError("its map has NaN or infinite values, which rank nothing")
    if maps.shape[2:] != tuple(shape[2:]):
        maps = F.interpolate(maps, tuple(shape[2:]), mode="bilinear")
    return maps[:, 0]


def one_by_one(count: int) -> list[slice]:
    """Rows of a batch, each alone."""
    return [slice(row, row + 1) for row in range(count)]


def _moved(value: Any, like: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(like) if value.is_floating_point() else value.to(like.device)

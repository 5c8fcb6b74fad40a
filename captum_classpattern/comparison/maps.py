"""The maps of one method on one model, computed on a private copy of the model."""

import copy
import inspect
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from functools import cached_property, partial
from statistics import mean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_classpattern.classifier import COUNTED, Classifier, device_and_dtype, preserve_state
from captum_classpattern.comparison.controls import Control
from captum_classpattern.comparison.methods import Method
from captum_classpattern.comparison.records import STAMPED
from captum_classpattern.comparison.task import Task
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.scores.localisation import Localisation, localise


class Explanation(NamedTuple):
    """The map of each image, summed over the channels, (N, H, W), and the cost; for a method that
    chooses colours also what it found for each image, in its own form."""

    maps: Tensor
    own: list[Pattern]
    passes: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Maps:
    """
    All maps of a method for a task.

    Args:
        task (Task): The task, whose canvases are a copy.
        method (BoundMethod): The method on its copy of the model.
        canvases (Explanation): The maps of all canvases, and what they cost.
        seeds (list[Explanation]): The maps of the canvases without a trigger, for each seed.
        areas (dict[float, Explanation]): The same for each other area, if the method takes one.
        trigger (dict[int, list[Tensor]]): The maps of such a method for the trigger's area, for
            each canvas of its class.
    """

    task: Task
    method: "BoundMethod"
    canvases: Explanation
    seeds: Sequence[Explanation]
    areas: Mapping[float, Explanation]
    trigger: Mapping[int, Sequence[Tensor]]

    @cached_property
    def of_other_images(self) -> dict[int, Tensor]:
        """The map of another image of each class, made when it is first asked for."""
        others, area, seed = self.task.other_images, self.task.area, self.task.seed + 1
        made = self.method(torch.stack([*others.values()]), [*others], area=area, seed=seed)
        return dict(zip(others, made.maps))

    @cached_property
    def results(self) -> list["CanvasResult"]:
        """One for each canvas."""
        return [CanvasResult(self, canvas) for canvas in range(len(self.task.targets))]


def explain(method: Method, model: Classifier, task: Task) -> Maps:
    """Runs a method on copies of a model and of the canvases: with each seed, if it is random, and
    for each area and that of the trigger, if it takes one."""
    task = replace(task, canvases=task.canvases.clone())
    bound = BoundMethod(method, model, task.canvases)
    run, n = partial(bound, area=task.area, seed=task.seed), task.n_unstamped
    canvases = run(task.canvases, task.targets)
    given, seeds = (task.canvases[:n], task.targets[:n]), [canvases]
    is_random = bound.takes_seed
    if not is_random and len(task.seeds) > 1:
        again = run(task.canvases[:1], task.targets[:1], seed=task.seeds[1])
        is_random = not again.maps[0].equal(canvases.maps[0])
    for seed in task.seeds[1:]:
        seeds.append(run(*given, seed=seed) if is_random else canvases)
    others = [area for area in task.areas if bound.searches and area != task.area]
    areas = {area: run(*given, area=area) for area in others}
    trigger = _maps_for_trigger(bound, task) if bound.searches else {}
    return Maps(task, bound, canvases, seeds, areas, trigger)


def _maps_for_trigger(bound: "BoundMethod", task: Task) -> dict[int, list[Tensor]]:
    """The maps for the area of the trigger, with each seed, by canvas of its class."""
    rows = [i for i, target in enumerate(task.targets) if task.has_trigger_for(target)]
    if not rows:
        return {}
    targets, area = [task.targets[row] for row in rows], task.trigger_area or task.area
    seeds = task.seeds if bound.takes_seed else task.seeds[:1]
    made = [bound(task.canvases[rows], targets, area=area, seed=seed).maps for seed in seeds]
    return {row: [maps[i] for maps in made] for i, row in enumerate(rows)}


@dataclass(frozen=True, eq=False)
class CanvasResult:
    r"""
    The map of a canvas and the pixels that it ranks first: what a :class:`Metric` measures.

    Args:
        maps (Maps): All maps of the method.
        canvas (int): As in :class:`Record`.
    """

    maps: Maps
    canvas: int

    @property
    def target(self) -> int:
        """The class."""
        return self.maps.task.targets[self.canvas]

    @property
    def stamped(self) -> bool:
        """Whether the canvas carries the trigger."""
        return self.maps.task.kinds[self.canvas] == STAMPED

    @property
    def map(self) -> Tensor:
        """A copy of the map: one value per pixel, float64 (H, W)."""
        return self.maps.canvases.maps[self.canvas].clone()

    @property
    def mask(self) -> Tensor:
        """The pixels at the comparison's area, bool (1, H, W)."""
        return top_pixels(self.map, self.maps.task.area)

    @property
    def pattern(self) -> Pattern:
        """The pattern at the comparison's area."""
        return self.pattern_at(self.maps.task.area)

    def pattern_at(self, area: float) -> Pattern:
        """The pattern of a map's highest pixels, cut from the canvas or in its own form. The map is
        the one that was searched for the area, if there is one."""
        own, made = self.own_at(area), self.maps.areas.get(area, self.maps.canvases)
        mask = top_pixels(made.maps[self.canvas], area)
        if own is not None:
            return replace(own, mask=mask.to(own.mask))
        canvas = self.maps.task.canvases[self.canvas].clone()
        return Pattern(canvas, mask.to(canvas), self.target)

    def own_at(self, area: float) -> Pattern | None:
        """What a method that chooses colours found for an area, in its own form."""
        own = self.maps.areas.get(area, self.maps.canvases).own
        return own[self.canvas] if own else None

    @cached_property
    def localisation(self) -> Localisation | None:
        """How well the map finds the trigger; None if there is none for this class. Averaged over
        the seeds for canvases without the trigger."""
        task, maps = self.maps.task, [self.map]
        if task.trigger_pixels is None or not task.has_trigger_for(self.target):
            return None
        if self.maps.trigger:
            maps = [*self.maps.trigger[self.canvas]]
        elif not self.stamped:
            maps = [made.maps[self.canvas] for made in self.maps.seeds]
        scores = [astuple(localise(values, task.trigger_pixels)) for values in maps]
        return Localisation(*(mean(values) for values in zip(*scores)))


def top_pixels(values: Tensor, area: float) -> Tensor:
    """The highest pixels of a map (H, W), bool (1, H, W); equal ones in reading order."""
    order = torch.argsort(values.flatten(), descending=True, stable=True)
    mask = torch.zeros(values.numel(), dtype=torch.bool)
    mask[order[: pixels_kept(area, values.shape)]] = True
    return mask.view(1, *values.shape)


# ---- a method on a private copy of a model


class BoundMethod:
    """A method on a private copy of a model, which counts the passes: the attribution object, and
    the keywords of ``attribute``, whose Tensors are where the model is. A pass is one image forward
    and backward; an image that only goes forward is half of one."""

    def __init__(self, method: Method, model: Classifier, like: Tensor) -> None:
        make, keywords = method if isinstance(method, tuple) else (method, {})
        self._where = device, dtype = device_and_dtype(model, like)
        self.keywords = {
            name: value.to(device, dtype if value.is_floating_point() else value.dtype)
            if isinstance(value, Tensor)
            else value
            for name, value in keywords.items()
        }
        self.model, self._half_passes = _counted_copy(model)
        self.attribution = make(self.model)
        if not hasattr(self.attribution, "attribute"):
            raise TypeError(
                "a method is a function from a model to an Attribution, but it returned "
                f"{type(self.attribution).__name__}"
            )
        self.parameters = inspect.signature(self.attribution.attribute).parameters
        self.searches = "area" in self.parameters  # another area needs another map
        self.takes_seed = "seed" in self.parameters
        self.control = isinstance(self.attribution, Control)

    @property
    def cuts(self) -> bool:
        """Whether pixels are cut from the canvas. A method that chooses their colours has, after
        ``attribute``, the ``patterns`` that it found."""
        return not hasattr(self.attribution, "patterns")

    def __call__(
        self, images: Tensor, targets: Sequence[int], *, area: float, seed: int
    ) -> Explanation:
        """Explains images one at a time with the same seed, so that each map depends only on its
        own image. A method that takes an area or a seed gets all images at once. It may change the
        images, and gradients work even if these were made in inference mode."""
        images = images.to(*self._where).clone()
        passes, started = len(self._half_passes), time.perf_counter()
        together, parts = self.searches or self.takes_seed, list[Tensor]()
        own = list[Pattern]()
        for rows in [slice(None)] if together else [slice(i, i + 1) for i in range(len(images))]:
            with self.seeded(seed):
                part: Any = self.attribution.attribute(
                    images[rows], target=list(targets[rows]), **self.settings(area, seed)
                )
            parts.append(part.detach())
            if not self.cuts:
                own += [pattern.to("cpu") for pattern in self.attribution.patterns]
        maps = sum_channels(torch.cat(parts), images.shape)  # also waits for the device
        if own and len(own) != len(images):
            raise ValueError(f"it has {len(own)} patterns for {len(images)} images")
        seconds = time.perf_counter() - started
        return Explanation(maps, own, sum(self._half_passes[passes:]) / 2, seconds)

    def settings(self, area: float, seed: int) -> dict[str, Any]:
        """The keywords, with area and seed if the method takes them."""
        given = {"area": area, "seed": seed}
        taken = {name: value for name, value in given.items() if name in self.parameters}
        return {**taken, **self.keywords}

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Seeds all generators, and hides Captum's warnings about changes to the private copy."""
        with preserve_state(self.model, seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


def _counted_copy(model: Classifier) -> tuple[Classifier, list[int]]:
    """A copy of a classifier that methods may hook into, and the list to which each pass forward or
    backward adds its number of images."""
    half_passes = list[int]()  # hooks hold this alone, and not the copy, which is freed at once

    def count(output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim and COUNTED.get():
            half_passes.append(len(output))
            if output.requires_grad:
                hook: Any = output.register_hook  # untyped
                hook(lambda gradient: half_passes.append(len(gradient)))

    def call(*arguments: Any) -> Tensor:
        output = model(*arguments)
        count(output)
        return output

    if not isinstance(model, nn.Module):
        return call, half_passes
    private = copy.deepcopy(model)
    private.register_forward_hook(lambda part, _, output: count(output))
    return private, half_passes


def sum_channels(raw: Tensor, shape: Sequence[int]) -> Tensor:
    """Attributions (N, C, h, w) summed over the channels, float64 (N, H, W) on the CPU.

    Maps of a layer are enlarged by bilinear interpolation.
    """
    if raw.ndim != 4 or len(raw) != shape[0]:
        raise ValueError(
            f"attributions of {shape[0]} images must be ({shape[0]}, C, h, w), got "
            f"{tuple(raw.shape)}"
        )
    maps = raw.detach().cpu().double()
    same = bool((maps == maps[:, :1]).all())  # such as a mask, which stays between 0 and 1
    maps = maps[:, :1] if same else maps.sum(1, keepdim=True)
    if not bool(maps.isfinite().all()):
        raise ValueError("its map has NaN or infinite values, which cannot be ranked")
    if maps.shape[2:] != tuple(shape[2:]):
        maps = F.interpolate(maps, tuple(shape[2:]), mode="bilinear")
    return maps[:, 0]

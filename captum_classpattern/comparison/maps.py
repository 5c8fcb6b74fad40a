"""The maps of one method on one model, computed on a private copy of the model."""

import copy
import inspect
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from statistics import mean
from typing import Any, cast

import torch
import torch.nn.functional as F
from captum.attr import Attribution
from torch import Tensor, nn

from captum_classpattern.classifier import COUNTED, Classifier, device_and_dtype, preserve_state
from captum_classpattern.comparison.controls import Control
from captum_classpattern.comparison.methods import Method
from captum_classpattern.comparison.records import STAMPED
from captum_classpattern.comparison.task import Task
from captum_classpattern.pattern import Pattern, pixels_kept
from captum_classpattern.scores.localisation import Localisation, localise

RANKINGS = ("signed", "absolute")


class PrivateModel:
    """A copy of a classifier that methods may hook into, which counts its passes.

    A pass is one image forward and backward; an image that only goes forward is half of one.
    """

    def __init__(self, forward_func: Classifier) -> None:
        self._original = forward_func
        self.half_passes = 0
        self.forward_func: Classifier = self._call
        if isinstance(forward_func, nn.Module):
            twin = copy.deepcopy(forward_func)
            twin.register_forward_hook(lambda part, inputs, output: self._count(output))
            self.forward_func = twin

    def prepare(self, images: Tensor) -> Tensor:
        """A copy of images with the classifier's device and precision. Methods may change it, and
        gradients work even if the images were made in inference mode."""
        return images.to(*device_and_dtype(self._original, images)).clone()

    def _call(self, *arguments: Any) -> Tensor:
        output = self._original(*arguments)
        self._count(output)
        return output

    def _count(self, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim and COUNTED.get():
            self.half_passes += len(output)
            if output.requires_grad:
                output.register_hook(self._count_backward)  # type: ignore[no-untyped-call]

    def _count_backward(self, gradient: Tensor) -> None:
        self.half_passes += len(gradient)

    @property
    def passes(self) -> float:
        """Passes so far."""
        return self.half_passes / 2


class PixelMap:
    """A map (H, W) that is ranked once, however many masks are cut from it; with the pattern in its
    own form, if its pixels are not cut from the canvas."""

    def __init__(self, values: Tensor, own: Pattern | None = None) -> None:
        self.values, self.own = values, own
        self._orders: dict[str, Tensor] = {}

    def ranked_by(self, ranking: str) -> Tensor:
        """The values that pixels are ranked by, (H, W)."""
        return self.values.abs() if ranking == "absolute" else self.values

    def mask(self, ranking: str, area: float) -> Tensor:
        """The highest pixels, bool (1, H, W); equal ones in reading order."""
        if ranking not in self._orders:
            values = self.ranked_by(ranking).flatten()
            self._orders[ranking] = torch.argsort(values, descending=True, stable=True)
        mask = torch.zeros(self.values.numel(), dtype=torch.bool)
        mask[self._orders[ranking][: pixels_kept(area, self.values.shape)]] = True
        return mask.view(1, *self.values.shape)


@dataclass(frozen=True)
class Explanation:
    """A method's attributions (N, ...), their sums over the channels (N, H, W), the cost, and its
    patterns in their own form, if its pixels are not cut from the canvases."""

    raw: Tensor
    by_pixel: Tensor
    passes: float
    seconds: float
    patterns: Sequence[Pattern] = ()

    @property
    def maps(self) -> list[PixelMap]:
        """One map per image."""
        own: Sequence[Pattern | None] = self.patterns or [None] * len(self.by_pixel)
        return [PixelMap(*pair) for pair in zip(self.by_pixel, own, strict=True)]


@dataclass(frozen=True)
class BoundMethod:
    """A method on a private model: the attribution object and the keywords of ``attribute``."""

    model: PrivateModel
    attribution: Attribution
    keywords: Mapping[str, Any]

    @classmethod
    def of(cls, method: Method, forward_func: Classifier, like: Tensor) -> "BoundMethod":
        """Creates the attribution object, and moves Tensors among its keywords to the model."""
        make, keywords = method if isinstance(method, tuple) else (method, {})
        model = PrivateModel(forward_func)
        like = model.prepare(like[:1])
        moved = {name: _move(value, like) for name, value in keywords.items()}
        attribution = make(model.forward_func)
        if not hasattr(attribution, "attribute"):
            raise TypeError(
                "a method is a function from a model to an Attribution, but it returned "
                f"{type(attribution).__name__}"
            )
        return cls(model, attribution, moved)

    @cached_property
    def parameters(self) -> Sequence[str]:
        """The names of the parameters of ``attribute``."""
        return list(inspect.signature(self.attribution.attribute).parameters)

    @property
    def free(self) -> str:
        """What is searched by a method whose pixels are not cut from the canvas, so that it
        explains the class and no image; empty for others. After ``attribute``, its ``patterns`` are
        what it found for each image."""
        if not hasattr(self.attribution, "patterns"):
            return ""
        return getattr(self.attribution, "free", "colours")

    @property
    def searches(self) -> bool:
        """Whether the map is made for an area, so that another area needs another map."""
        return "area" in self.parameters

    @property
    def takes_seed(self) -> bool:
        """Whether ``attribute`` takes a seed."""
        return "seed" in self.parameters

    @property
    def control(self) -> bool:
        """Whether this is a control."""
        return isinstance(self.attribution, Control)

    def __call__(
        self, images: Tensor, targets: Sequence[int], *, area: float, seed: int
    ) -> Explanation:
        """Explains images one at a time with the same seed, so that each map depends only on its
        own image. A method that takes an area or a seed gets all images at once."""
        images = self.model.prepare(images)
        passes, started = self.model.passes, time.perf_counter()
        together = self.searches or self.takes_seed
        parts: list[Tensor] = []
        patterns: list[Pattern] = []
        for rows in [slice(None)] if together else [slice(i, i + 1) for i in range(len(images))]:
            with self.seeded(seed):
                raw = self.attribution.attribute(
                    images[rows], target=list(targets[rows]), **self.settings(area, seed)
                )
                parts.append(cast(Tensor, raw).detach())
            if self.free:
                patterns += [pattern.to("cpu") for pattern in self.attribution.patterns]
        raw = torch.cat(parts)
        by_pixel = sum_channels(raw, images.shape)  # also waits for the device
        seconds = time.perf_counter() - started
        return Explanation(raw, by_pixel, self.model.passes - passes, seconds, patterns)

    def settings(self, area: float, seed: int) -> dict[str, Any]:
        """The keywords, with area and seed if the method takes them."""
        given = {"area": area, "seed": seed}
        taken = {name: value for name, value in given.items() if name in self.parameters}
        return {**taken, **self.keywords}

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Seeds all generators, and hides Captum's warnings about changes to the private copy."""
        with preserve_state(self.model.forward_func, seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


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


def _move(value: Any, like: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(like) if value.is_floating_point() else value.to(like.device)


class MapSet:
    """
    All maps of a method for a task.

    Attributes:
        canvases (Explanation): Attributions and cost of all canvases.
        images (list[PixelMap]): The map of each canvas.
        seeds (list[list[PixelMap]]): For each seed the maps of the canvases without a trigger. A
            method without randomness has the same objects for all seeds.
        other_images (dict[int, PixelMap]): The map of another image of each class.
        class_means (dict[int, PixelMap]): The mean map of each class, for a method that explains
            single images; ``stamped_mean`` is the mean over the stamped canvases.
        areas (dict[float, list[PixelMap]]): The maps for each area, for a method that searches.
        trigger (dict[int, list[PixelMap]]): For a method that searches, the maps of a canvas of the
            trigger's class for the trigger's area, one for each seed.
    """

    @classmethod
    def of(cls, method: Method, forward_func: Classifier, task: Task) -> "MapSet":
        """The maps on a copy of a classifier and of the canvases."""
        task = replace(task, canvases=task.canvases.clone())
        return cls(BoundMethod.of(method, forward_func, task.canvases), task)

    def __init__(self, method: BoundMethod, task: Task) -> None:
        self.method, self.task = method, task
        self.canvases = self._run(task.canvases, task.targets)
        self.images = self.canvases.maps
        unstamped = slice(task.n_unstamped)
        given = task.canvases[unstamped], task.targets[unstamped]
        self.seeds = [self.images[unstamped]] * len(task.seeds)
        if self._is_random():
            self.seeds[1:] = [self._run(*given, seed=seed).maps for seed in task.seeds[1:]]
        self.class_means: dict[int, PixelMap] = {}
        self.stamped_mean: PixelMap | None = None
        explains_images = not (method.searches or method.control or method.free)
        if task.class_images and explains_images:
            for target, images in task.class_images.items():
                maps = self._run(images, [target] * len(images)).by_pixel
                self.class_means[target] = PixelMap(maps.mean(0))
            stamped = self.canvases.by_pixel[task.n_unstamped :]
            self.stamped_mean = PixelMap(stamped.mean(0)) if len(stamped) else None
        self.areas, self.trigger = {}, {}
        if method.searches:
            self.areas = {
                area: self._run(*given, area=area).maps if area != task.area else self.images
                for area in task.areas
            }
        rows = [i for i, target in enumerate(task.targets) if task.has_trigger_for(target)]
        if method.searches and rows:
            targets = [task.targets[i] for i in rows]
            runs = [
                self._run(task.canvases[rows], targets, area=task.trigger_area, seed=seed).maps
                for seed in (task.seeds if method.takes_seed else task.seeds[:1])
            ]
            self.trigger = {row: [run[i] for run in runs] for i, row in enumerate(rows)}

    def _run(
        self,
        images: Tensor,
        targets: Sequence[int],
        *,
        area: float | None = None,
        seed: int | None = None,
    ) -> Explanation:
        """Explains images, by default at the task's area and with its first seed."""
        area = self.task.area if area is None else area
        return self.method(
            images, targets, area=area, seed=self.task.seed if seed is None else seed
        )

    def _is_random(self) -> bool:
        """Whether the map depends on the seed: that of the first canvas, if no seed is taken."""
        seeds, canvases = self.task.seeds, self.task.canvases
        if len(seeds) == 1 or self.method.takes_seed:
            return self.method.takes_seed
        again = self._run(canvases[:1], self.task.targets[:1], seed=seeds[1])
        return not again.by_pixel[0].equal(self.images[0].values)

    @cached_property
    def other_images(self) -> dict[int, PixelMap]:
        """The map of another image of each class, made when it is first asked for."""
        others = self.task.other_images
        if not others:
            return {}
        found = self._run(torch.stack([*others.values()]), [*others], seed=self.task.seed + 1)
        return dict(zip(others, found.maps))

    def results(self) -> list["CanvasResult"]:
        """One result for each level, ranking and canvas."""
        kinds, targets = self.task.kinds, self.task.targets
        of_class = [
            self.stamped_mean if kind == STAMPED else self.class_means.get(target)
            for kind, target in zip(kinds, targets)
        ]
        levels: dict[str, Sequence[PixelMap | None]] = {"image": self.images, "class": of_class}
        return [
            CanvasResult(self, level, ranking, canvas, pixel_map)
            for level, maps in levels.items()
            for ranking in rankings_of([*self.images, *self.class_means.values()])
            for canvas, pixel_map in enumerate(maps)
            if pixel_map is not None
        ]


def rankings_of(maps: Iterable[PixelMap]) -> Sequence[str]:
    """How pixels are ranked: also by the absolute value, if a map has negative values."""
    signed = any(bool((map.values < 0).any()) for map in maps)
    return RANKINGS if signed else RANKINGS[:1]


@dataclass(frozen=True, eq=False)
class CanvasResult:
    r"""
    One map of a canvas and the pixels that it ranks first: what a :class:`Metric` measures.

    Args:
        maps (MapSet): All maps of the method.
        level (str): ``"image"`` or ``"class"``, as in :class:`Record`.
        ranking (str): ``"signed"`` or ``"absolute"``, as in :class:`Record`.
        canvas (int): Index of the canvas.
        pixel_map (PixelMap): The map.
    """

    maps: MapSet
    level: str
    ranking: str
    canvas: int
    pixel_map: PixelMap

    @property
    def target(self) -> int:
        """The class."""
        return self.maps.task.targets[self.canvas]

    @property
    def kind(self) -> str:
        """The kind of the canvas."""
        return self.maps.task.kinds[self.canvas]

    @property
    def stamped(self) -> bool:
        """Whether the canvas carries the trigger."""
        return self.kind == STAMPED

    @property
    def map(self) -> Tensor:
        """A copy of the map: one value per pixel, float64 (H, W)."""
        return self.pixel_map.values.clone()

    @property
    def mask(self) -> Tensor:
        """The pixels at the comparison's area, bool (1, H, W)."""
        return self.pixel_map.mask(self.ranking, self.maps.task.area)

    @property
    def pattern(self) -> Pattern:
        """The pattern at the comparison's area."""
        return self.cut(self.pixel_map, self.maps.task.area)

    def pattern_at(self, area: float) -> Pattern:
        """The pattern at an area, from the map that was searched for it if there is one."""
        return self.cut(self._map_at(area), area)

    def own_at(self, area: float) -> Pattern | None:
        """What was found at an area in its own form, such as with a soft mask; None if the pixels
        are cut from the canvas."""
        return self._map_at(area).own

    def _map_at(self, area: float) -> PixelMap:
        searched = self.maps.areas.get(area)
        return self.pixel_map if searched is None else searched[self.canvas]

    def cut(self, pixel_map: PixelMap, area: float) -> Pattern:
        """The pattern of a map's highest pixels, cut from the canvas or in its own form."""
        mask = pixel_map.mask(self.ranking, area)
        if pixel_map.own is not None:
            return replace(pixel_map.own, mask=mask.to(pixel_map.own.mask))
        canvas = self.maps.task.canvases[self.canvas].clone()
        return Pattern(canvas, mask.to(canvas), self.target)

    @cached_property
    def localisation(self) -> Localisation | None:
        """How well the map finds the trigger; None if there is none for this class. Averaged over
        the seeds for canvases without the trigger."""
        task, maps = self.maps.task, [self.pixel_map]
        if task.trigger_pixels is None or not task.has_trigger_for(self.target):
            return None
        if self.maps.trigger:
            maps = [*self.maps.trigger[self.canvas]]
        elif self.level == "image" and not self.stamped:
            maps = [run[self.canvas] for run in self.maps.seeds]
        found = [
            astuple(localise(map.ranked_by(self.ranking), task.trigger_pixels))
            for map in dict.fromkeys(maps)  # without randomness all seeds share one map
        ]
        return Localisation(*(mean(values) for values in zip(*found)))

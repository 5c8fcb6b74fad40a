"""The maps of one method on one model, computed on a private copy of the model."""

import copy
import inspect
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
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

RANKINGS = ("signed", "absolute")


class PrivateModel:
    """A copy of a classifier that methods may hook into, which counts its passes.

    A pass is one image forward and backward; an image that only goes forward is half of one.
    """

    def __init__(self, forward_func: Classifier) -> None:
        self._original = forward_func
        # hooks hold this alone, and not the copy, which is freed at once
        self._half_passes = half_passes = list[int]()

        def count(output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim and COUNTED.get():
                half_passes.append(len(output))
                if output.requires_grad:
                    hook: Any = output.register_hook  # untyped
                    hook(lambda gradient: half_passes.append(len(gradient)))

        def call(*arguments: Any) -> Tensor:
            output = forward_func(*arguments)
            count(output)
            return output

        self.forward_func: Classifier = call
        if isinstance(forward_func, nn.Module):
            self.forward_func = copy.deepcopy(forward_func)
            self.forward_func.register_forward_hook(lambda part, _, output: count(output))

    def prepare(self, images: Tensor) -> Tensor:
        """A copy of images with the classifier's device and precision. Methods may change it, and
        gradients work even if the images were made in inference mode."""
        return images.to(*device_and_dtype(self._original, images)).clone()

    @property
    def passes(self) -> float:
        """Passes so far."""
        return sum(self._half_passes) / 2


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


class Explanation(NamedTuple):
    """A method's attributions, summed over the channels (N, H, W), the map of each image, and the
    cost."""

    by_pixel: Tensor
    maps: list[PixelMap]
    passes: float
    seconds: float


class BoundMethod:
    """A method on a private copy of a model: the attribution object, and the keywords of
    ``attribute``, whose Tensors are where the model is."""

    def __init__(self, method: Method, forward_func: Classifier, like: Tensor) -> None:
        make, keywords = method if isinstance(method, tuple) else (method, {})
        self.model = PrivateModel(forward_func)
        device, dtype = device_and_dtype(forward_func, like)
        self.keywords = {
            name: value.to(device, dtype if value.is_floating_point() else value.dtype)
            if isinstance(value, Tensor)
            else value
            for name, value in keywords.items()
        }
        self.attribution = make(self.model.forward_func)
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
        """Whether pixels are cut from the canvas. A method that chooses their colours explains the
        class and no image: after ``attribute``, its ``patterns`` are what it found for each one."""
        return not hasattr(self.attribution, "patterns")

    @property
    def explains_images(self) -> bool:
        """Whether each map is of one image: no search, no control, nothing of a class alone."""
        return self.cuts and not (self.searches or self.control)

    def __call__(
        self, images: Tensor, targets: Sequence[int], *, area: float, seed: int
    ) -> Explanation:
        """Explains images one at a time with the same seed, so that each map depends only on its
        own image. A method that takes an area or a seed gets all images at once."""
        images = self.model.prepare(images)
        before, started = self.model.passes, time.perf_counter()
        together = self.searches or self.takes_seed
        parts: list[Tensor] = []
        patterns: list[Pattern] = []
        for rows in [slice(None)] if together else [slice(i, i + 1) for i in range(len(images))]:
            with self.seeded(seed):
                found: Any = self.attribution.attribute(
                    images[rows], target=list(targets[rows]), **self.settings(area, seed)
                )
            parts.append(found.detach())
            if not self.cuts:
                patterns += [pattern.to("cpu") for pattern in self.attribution.patterns]
        by_pixel = sum_channels(torch.cat(parts), images.shape)  # also waits for the device
        seconds = time.perf_counter() - started
        own: Sequence[Pattern | None] = patterns or [None] * len(images)
        maps = [PixelMap(*pair) for pair in zip(by_pixel, own, strict=True)]
        return Explanation(by_pixel, maps, self.model.passes - before, seconds)

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


class MapSet:
    """
    All maps of a method for a task, on a copy of a classifier and of the canvases.

    Attributes:
        canvases: Attributions and cost of all canvases; ``images`` are their maps.
        seeds: For each seed the maps of the canvases without a trigger.
        of_class: For each canvas the mean map of its class, or of the stamped canvases, or None.
        areas, trigger: The maps of a method that searches, by area, and for the trigger's area.
    """

    def __init__(self, method: Method, forward_func: Classifier, task: Task) -> None:
        self.task = task = replace(task, canvases=task.canvases.clone())
        self.method = bound = BoundMethod(method, forward_func, task.canvases)
        self._run = run = partial(bound, area=task.area, seed=task.seed)
        self.canvases, n = run(task.canvases, task.targets), task.n_unstamped
        self.images = self.canvases.maps
        given = task.canvases[:n], task.targets[:n]
        self.seeds = [self.images[:n]] * len(task.seeds)
        is_random = bound.takes_seed
        if not is_random and len(task.seeds) > 1:
            again = run(task.canvases[:1], task.targets[:1], seed=task.seeds[1])
            is_random = not again.by_pixel[0].equal(self.images[0].values)
        if is_random:
            self.seeds[1:] = [run(*given, seed=seed).maps for seed in task.seeds[1:]]
        self.of_class: list[PixelMap | None] = [None] * len(self.images)
        if task.class_images and bound.explains_images:
            means = {
                target: PixelMap(run(images, [target] * len(images)).by_pixel.mean(0))
                for target, images in task.class_images.items()
            }
            stamped = self.canvases.by_pixel[n:]
            of_stamped = [PixelMap(stamped.mean(0))] * len(stamped)
            self.of_class = [*map(means.get, task.targets[:n]), *of_stamped]
        self.areas = {
            area: run(*given, area=area).maps if area != task.area else self.images
            for area in (task.areas if bound.searches else ())
        }
        rows = [i for i, y in enumerate(task.targets) if task.has_trigger_for(y)]
        self.trigger: dict[int, list[PixelMap]] = {row: [] for row in rows if bound.searches}
        for seed in (task.seeds if bound.takes_seed else task.seeds[:1]) if self.trigger else ():
            targets, area = [task.targets[row] for row in rows], task.trigger_area or task.area
            found = run(task.canvases[rows], targets, area=area, seed=seed)
            for row, pixel_map in zip(rows, found.maps):
                self.trigger[row].append(pixel_map)

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
        levels: dict[str, Sequence[PixelMap | None]] = {
            "image": self.images,
            "class": self.of_class,
        }
        rankings = rankings_of([*self.images, *filter(None, self.of_class)])
        return [
            CanvasResult(self, level, ranking, canvas, pixel_map)
            for level, maps in levels.items()
            for ranking in rankings
            for canvas, pixel_map in enumerate(maps)
            if pixel_map is not None
        ]


def rankings_of(maps: Iterable[PixelMap]) -> Sequence[str]:
    """How pixels are ranked: also by the absolute value, if a map has negative values."""
    signed = any(bool((map.values < 0).any()) for map in maps)
    return RANKINGS if signed else RANKINGS[:1]


class CanvasResult:
    r"""
    One map of a canvas and the pixels that it ranks first: what a :class:`Metric` measures.

    Args:
        maps (MapSet): All maps of the method.
        level, ranking, canvas: As in :class:`Record`.
        pixel_map (PixelMap): The map.

    Attributes:
        target (int): The class.
        kind (str): The kind of the canvas.
        stamped (bool): Whether the canvas carries the trigger.
        usual (bool): Whether it does not, and the map is that of the canvas, ranked by its values.
    """

    def __init__(
        self, maps: MapSet, level: str, ranking: str, canvas: int, pixel_map: PixelMap
    ) -> None:
        self.maps, self.level, self.ranking = maps, level, ranking
        self.canvas, self.pixel_map = canvas, pixel_map
        self.target, self.kind = maps.task.targets[canvas], maps.task.kinds[canvas]
        self.stamped = self.kind == STAMPED
        self.usual = not self.stamped and (level, ranking) == ("image", "signed")

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
        return self.cut(self.map_at(area), area)

    def map_at(self, area: float) -> PixelMap:
        """The map that was searched for an area; the one map of other methods."""
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
            maps = self.maps.trigger[self.canvas]
        elif self.level == "image" and not self.stamped:
            maps = [run[self.canvas] for run in self.maps.seeds]
        found = [
            astuple(localise(map.ranked_by(self.ranking), task.trigger_pixels))
            for map in dict.fromkeys(maps)  # without randomness all seeds share one map
        ]
        return Localisation(*(mean(values) for values in zip(*found)))

"""The maps of one method on one model, computed on a private copy of the model."""

import copy
import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from statistics import mean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_classpattern._support.progress import advance_bar
from captum_classpattern._support.topk import highest, pixels_kept
from captum_classpattern.classifier import COUNTED, CheckedModel, Classifier, preserve_state
from captum_classpattern.comparison.controls import Control
from captum_classpattern.comparison.methods import Method
from captum_classpattern.comparison.records import STAMPED_KIND, Record, Score
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.localisation import localise
from captum_classpattern.scores.power import Scorer
from captum_classpattern.scores.shape import mean_pairwise_iou


@dataclass(frozen=True, eq=False)
class Task:
    r"""
    The canvases, areas, seeds and trigger that every method gets on one model.

    Args:
        model (str): Name of the model.
        canvases (Tensor): Images to explain, (N, C, H, W). Those stamped with a trigger come last.
        targets, kinds, area, areas: As in :class:`Comparison`, also of the stamped canvases.
        seeds (list[int]): The seeds that methods run with; all but the first one for the
            stability, and for the localisation on canvases without a trigger.
        scorers (dict[str, Scorer]): What scores patterns on the held-out images, for all models.
        trigger (Pattern, optional): The trigger to be found.
        trigger_pixels (Tensor, optional): The pixels that it changes, bool (1, H, W).
    """

    model: str
    canvases: Tensor
    targets: list[int]
    kinds: list[str]
    area: float
    areas: Sequence[float]
    seeds: Sequence[int]
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    trigger: Pattern | None = None
    trigger_pixels: Tensor | None = None

    @property
    def seed(self) -> int:
        """The first seed."""
        return self.seeds[0]

    @property
    def n_unstamped(self) -> int:
        """Number of canvases without the trigger."""
        return sum(kind != STAMPED_KIND for kind in self.kinds)

    @property
    def trigger_area(self) -> float | None:
        """Share of the pixels that the trigger changes."""
        pixels = self.trigger_pixels
        return None if pixels is None else int(pixels.sum()) / pixels.numel()

    def has_trigger_for(self, target: int) -> bool:
        """Whether there is a trigger, and this is its class."""
        return self.trigger is not None and self.trigger.target == target

    @cached_property
    def images(self) -> list[Tensor]:
        """Copies of the canvases, which all records share."""
        return [canvas.cpu().clone() for canvas in self.canvases]


def explain(
    name: str, method: "BoundMethod", task: Task, advance: Callable[..., Any]
) -> list[Record]:
    """What a method finds on each canvas, with the scores that its runs give: the cost, and where
    they apply, the stability over seeds and the localisation. ``advance`` gets each run's share."""
    first, by_seed, by_area = _run_all(method, task, advance)
    localisations, records = _localisations(method, task, by_seed), []
    n = len(task.targets)
    for canvas, target in enumerate(task.targets):
        kind, seeds = task.kinds[canvas], by_seed[canvas]
        runs = {task.area: first} if kind == STAMPED_KIND else by_area
        scores: dict[str, Score] = {"passes": first.passes / n, "seconds": first.seconds / n}
        if len(seeds) > 1:
            masks = [top_pixels(values, task.area) for values in seeds]
            scores["stability_seeds"] = mean_pairwise_iou(masks)
        record = Record(
            model=task.model,
            method=name,
            canvas=canvas,
            kind=kind,
            target=target,
            control=isinstance(method.attribution, Control),
            map=first.maps[canvas].clone(),
            masks={area: top_pixels(run.maps[canvas], area) for area, run in runs.items()},
            searches=method.searches,
            scores={**scores, **localisations.get(canvas, {})},
            precision=getattr(method.attribution, "precision", None),
            cut_from_canvas=not first.own,
            own={area: run.own[canvas] for area, run in runs.items() if run.own},
            area=task.area,
            image=task.images[canvas],
        )
        records.append(record)
    return records


def _run_all(
    method: "BoundMethod", task: Task, advance: Callable[..., Any]
) -> tuple["Explanation", list[list[Tensor]], dict[float, "Explanation"]]:
    """The first run, on all canvases; the maps of each canvas with each seed, and the run for each
    area, both on those without the trigger. A method runs again for another seed if it is random,
    and for another area if it takes one."""
    run, n = partial(method, area=task.area, seed=task.seed), task.n_unstamped
    share, unstamped = (
        1 / (len(task.seeds) + len(task.areas)),
        (task.canvases[:n], task.targets[:n]),
    )
    first = run(task.canvases, task.targets)
    advance(share)
    is_random, seeds = method.takes_seed, [first]
    if not is_random and len(task.seeds) > 1:
        again = run(task.canvases[:1], task.targets[:1], seed=task.seeds[1])
        is_random = not again.maps[0].equal(first.maps[0])
    for seed in task.seeds[1:]:
        seeds.append(run(*unstamped, seed=seed) if is_random else first)
        advance(share)
    by_area = dict.fromkeys(task.areas, first)
    for area in task.areas:
        if method.searches and area != task.area:
            by_area[area] = run(*unstamped, area=area)
            advance(share)
    stamped = [[values] for values in first.maps[n:]]
    return first, [[of.maps[i] for of in seeds] for i in range(n)] + stamped, by_area


def _localisations(
    method: "BoundMethod", task: Task, maps: Sequence[Sequence[Tensor]]
) -> dict[int, dict[str, float]]:
    """How well the maps of each canvas of the trigger's class find it, on average over the seeds. A
    method that takes an area runs again for that of the trigger."""
    rows = [i for i, target in enumerate(task.targets) if task.has_trigger_for(target)]
    if not rows or task.trigger_pixels is None:
        return {}
    found = [maps[row] for row in rows]
    if method.searches:
        targets, area = [task.targets[row] for row in rows], task.trigger_area or task.area
        seeds = task.seeds if method.takes_seed else task.seeds[:1]
        made = [method(task.canvases[rows], targets, area=area, seed=seed).maps for seed in seeds]
        found = [*zip(*made)]
    scores = [[asdict(localise(each, task.trigger_pixels)) for each in of] for of in found]
    means = [{name: mean(one[name] for one in of) for name in of[0]} for of in scores]
    return dict(zip(rows, means))


def top_pixels(values: Tensor, area: float) -> Tensor:
    """The highest pixels of a map (H, W), bool (1, H, W); equal ones in reading order."""
    return highest(values[None], pixels_kept(area, values.shape))


# ---- a method on a private copy of a model


class Explanation(NamedTuple):
    """The map of each image, summed over the channels, (N, H, W), and the cost. A method that also
    chooses colours has ``patterns`` after ``attribute``: what it found for each image."""

    maps: Tensor
    own: list[Pattern]
    passes: float
    seconds: float


@dataclass(frozen=True, eq=False)
class BoundMethod:
    """A method on a private copy of a model: the attribution object, the keywords of its
    ``attribute``, whose Tensors are where the model is, and a list to which each pass of the copy
    forward or backward adds its number of images. An image that goes forward and backward is a
    pass; one that only goes forward is half of one."""

    attribution: Any
    keywords: Mapping[str, Any]
    model: Classifier
    half_passes: list[int]
    where: tuple[torch.device, torch.dtype]
    searches: bool  # whether it takes an area, so that another area needs another map
    takes_seed: bool

    def __call__(
        self, images: Tensor, targets: Sequence[int], *, area: float, seed: int
    ) -> Explanation:
        """Explains images one at a time with the same seed, so that each map depends only on its
        own image. A method that takes an area or a seed gets all images at once. It may change the
        images, and gradients work even if these were made in inference mode."""
        images = images.to(*self.where).clone()
        keywords = {"area": area} if self.searches else {}
        keywords |= ({"seed": seed} if self.takes_seed else {}) | {**self.keywords}
        together, parts, own = self.searches or self.takes_seed, list[Tensor](), list[Pattern]()
        passes, started = len(self.half_passes), time.perf_counter()
        for rows in [slice(None)] if together else [slice(i, i + 1) for i in range(len(images))]:
            with self.seeded(seed):
                part: Any = self.attribution.attribute(
                    images[rows], target=list(targets[rows]), **keywords
                )
            parts.append(part.detach())
            own += [pattern.to("cpu") for pattern in getattr(self.attribution, "patterns", ())]
        maps = sum_channels(torch.cat(parts), images.shape)  # also waits for the device
        if own and len(own) != len(images):
            raise ValueError(f"it has {len(own)} patterns for {len(images)} images")
        seconds = time.perf_counter() - started
        return Explanation(maps, own, sum(self.half_passes[passes:]) / 2, seconds)

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Seeds all generators, and hides Captum's warnings about changes to the private copy."""
        with preserve_state(self.model, seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


def bind(method: Method, model: CheckedModel) -> BoundMethod:
    """A method on a private copy of a model, which it may hook into."""
    make, keywords = method if isinstance(method, tuple) else (method, {})
    moved = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        if isinstance(value, Tensor)
        else value
        for name, value in keywords.items()
    }
    half_passes = list[int]()  # hooks hold this alone, and not the copy, which is freed at once

    def count(output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim and COUNTED.get():
            half_passes.append(len(output))
            advance_bar(len(output))
            if output.requires_grad:
                hook: Any = output.register_hook  # untyped
                hook(lambda gradient: half_passes.append(len(gradient)))

    def call(*arguments: Any) -> Tensor:
        output = model.call(*arguments)
        count(output)
        return output

    private: Classifier = call
    if isinstance(model.call, nn.Module):
        private = copy.deepcopy(model.call)
        private.register_forward_hook(lambda part, _, output: count(output))
    attribution = make(private)
    if not hasattr(attribution, "attribute"):
        raise TypeError(
            "a method is a function from a model to an Attribution, but it returned "
            f"{type(attribution).__name__}"
        )
    takes, where = inspect.signature(attribution.attribute).parameters, (model.device, model.dtype)
    return BoundMethod(
        attribution, moved, private, half_passes, where, "area" in takes, "seed" in takes
    )


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

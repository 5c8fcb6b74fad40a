"""All that a method says of a comparison's canvases: maps, repeated maps, maps for other areas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_classpattern.comparison.captum_metrics import CaptumMetrics, captum_metrics
from captum_classpattern.comparison.crop import is_control
from captum_classpattern.comparison.explain import Explainer, Maps
from captum_classpattern.comparison.records import STAMPED
from captum_classpattern.comparison.scene import Scene


@dataclass(frozen=True, eq=False)
class Explained:
    """Maps by pixel, (H, W) each: of all canvases; of those that are not stamped, with each seed;
    of another image of each class; of the class in the mean; and, of a method that searches for
    an area, those of each area and, with each seed, of as many pixels as the trigger changes.
    ``precision`` is what a search computed in."""

    first: Maps
    runs: Sequence[Tensor]
    another: Mapping[int, Tensor]
    of_class: Mapping[int, Tensor]
    for_area: Mapping[float, Tensor]
    for_trigger: Sequence[Mapping[int, Tensor]]
    metrics: CaptumMetrics
    precision: str | None = None

    @property
    def signed(self) -> bool:
        """Whether any map has negative values."""
        return any(bool((map < 0).any()) for map in (self.first.by_pixel, *self.of_class.values()))

    @property
    def levels(self) -> Sequence[str]:
        """Whose maps there are: those of the canvases, and if so those of the classes."""
        return ("image", "class") if self.of_class else ("image",)

    def map(self, level: str, canvas: int, key: int) -> Tensor:
        """The map of a canvas, or of its class."""
        return self.first.by_pixel[canvas] if level == "image" else self.of_class[key]


STAMPED_KEY = -1  # of the mean over stamped canvases, beside those of the classes


def explained(
    explainer: Explainer, scene: Scene, *, area: float, areas: Sequence[float], seeds: Sequence[int]
) -> Explained:
    """Calls a method for all that is measured of it."""
    images = explainer.model.ready(scene.canvases)
    seed, given = seeds[0], slice(0, scene.given)
    first = explainer(images, scene.targets, area=area, seed=seed)
    return Explained(
        first,
        _runs(explainer, images[given], scene.targets[given], first.by_pixel[given], area, seeds),
        _of_another(explainer, scene, area, seed),
        _of_class(explainer, scene, first, area, seed),
        _for_areas(explainer, scene, images, first, area, areas, seed),
        [
            _for_trigger(explainer, scene, images, own)
            for own in (seeds if "seed" in explainer.parameters else seeds[:1])
        ],
        captum_metrics(explainer, scene, images, first, area, seed),
        getattr(explainer.attribution, "precision", None),
    )


def _runs(
    explainer: Explainer,
    images: Tensor,
    targets: Sequence[int],
    first: Tensor,
    area: float,
    seeds: Sequence[int],
) -> list[Tensor]:
    """The maps with each seed. A method that takes no seed, and whose map of the first canvas is
    the same with the second one, is taken to be without chance."""
    if len(seeds) > 1 and "seed" not in explainer.parameters:
        again = explainer(images[:1], targets[:1], area=area, seed=seeds[1]).by_pixel
        if again.equal(first[:1]):
            return [first] * len(seeds)
    others = (explainer(images, targets, area=area, seed=seed).by_pixel for seed in seeds[1:])
    return [first, *others]


def _for_areas(
    explainer: Explainer,
    scene: Scene,
    images: Tensor,
    first: Maps,
    area: float,
    areas: Sequence[float],
    seed: int,
) -> dict[float, Tensor]:
    """The maps that are searched anew for each area."""
    if not explainer.searches:
        return {}
    given = slice(0, scene.given)
    others = {
        other: explainer(images[given], scene.targets[given], area=other, seed=seed).by_pixel
        for other in areas
        if other != area
    }
    return {**others, area: first.by_pixel}


def _for_trigger(
    explainer: Explainer, scene: Scene, images: Tensor, seed: int
) -> dict[int, Tensor]:
    """The maps searched for the trigger's area, of the canvases of its class."""
    rows = [i for i, target in enumerate(scene.targets) if scene.shows_trigger(target)]
    if not rows or not explainer.searches:
        return {}
    assert scene.trigger_area is not None
    targets = [scene.targets[i] for i in rows]
    maps = explainer(images[rows], targets, area=scene.trigger_area, seed=seed)
    return dict(zip(rows, maps.by_pixel))


def _of_another(explainer: Explainer, scene: Scene, area: float, seed: int) -> dict[int, Tensor]:
    """The map of one more image of each class."""
    if not scene.another:
        return {}
    targets = list(scene.another)
    images = explainer.model.ready(torch.stack([scene.another[target] for target in targets]))
    maps = explainer(images, targets, area=area, seed=seed + 1).by_pixel
    return dict(zip(targets, maps))


def _of_class(
    explainer: Explainer, scene: Scene, first: Maps, area: float, seed: int
) -> dict[int, Tensor]:
    """The mean map of each class, of a method that explains images."""
    if not scene.of_class or explainer.searches or is_control(explainer.attribution):
        return {}
    means = {}
    for target, images in scene.of_class.items():
        images = explainer.model.ready(images)
        maps = explainer(images, [target] * len(images), area=area, seed=seed)
        means[target] = maps.by_pixel.mean(0)
    stamped = [i for i, kind in enumerate(scene.kinds) if kind == STAMPED]
    if stamped:
        means[STAMPED_KEY] = first.by_pixel[stamped].mean(0)
    return means

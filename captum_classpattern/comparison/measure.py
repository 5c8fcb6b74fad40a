"""The records of one method on one model: the masks that its maps rank first, and their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from math import isfinite
from statistics import mean

from torch import Tensor

from captum_classpattern.comparison.crop import is_control
from captum_classpattern.comparison.explain import Explainer
from captum_classpattern.comparison.explained import STAMPED_KEY, Explained, explained
from captum_classpattern.comparison.records import STAMPED, Failure, Record
from captum_classpattern.comparison.scene import Scene
from captum_classpattern.comparison.scoring import Scorer, strongest_pixels
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.localisation import Localisation, localise
from captum_classpattern.scores.shape import mean_pairwise_iou, simplicity

RANKINGS = {"signed": lambda map: map, "absolute": lambda map: map.abs()}


@dataclass(frozen=True, eq=False)
class Measure:
    """What methods are measured by: a model and its name, scorers of all models, and areas."""

    model: str
    scorers: Mapping[str, Scorer]
    area: float
    areas: Sequence[float]
    seeds: Sequence[int]

    def records(self, method: str, explainer: Explainer, scene: Scene) -> list[Record | Failure]:
        """A record for each canvas, level and ranking; and Captum's metrics that failed."""
        explanations = explained(
            explainer, scene, area=self.area, areas=self.areas, seeds=self.seeds
        )
        found: list[Record | Failure] = [
            Failure(self.model, method, what, why)
            for what, why in explanations.metrics.failures.items()
        ]
        control = is_control(explainer.attribution)
        for level in explanations.levels:
            for ranking in RANKINGS if explanations.signed else ["signed"]:
                for canvas, target in enumerate(scene.targets):
                    key = STAMPED_KEY if scene.kinds[canvas] == STAMPED else target
                    if level == "image" or key in explanations.of_class:
                        one = _One(self, scene, explanations, level, ranking, canvas, key)
                        found.append(one.record(method, control))
        return found


@dataclass(frozen=True, eq=False)
class _One:
    """A method's map of one canvas, at one level and in one ranking."""

    by: Measure
    scene: Scene
    explanations: Explained
    level: str
    ranking: str
    canvas: int
    key: int

    @property
    def _map(self) -> Tensor:
        return self.explanations.map(self.level, self.canvas, self.key)

    @property
    def _of_image(self) -> bool:
        return self.level == "image"

    def record(self, method: str, control: bool) -> Record:
        scene, by, count = self.scene, self.by, len(self.scene.targets)
        scored = scene.kinds[self.canvas] != STAMPED
        patterns = {
            area: self._pattern(self._map_for(area), area)
            for area in (by.areas if scored else [by.area])
        }
        own = patterns[by.area]
        score = by.scorers[by.model].power
        first, metrics = self.explanations.first, self.explanations.metrics
        return Record(
            model=by.model,
            method=method,
            level=self.level,
            ranking=self.ranking,
            canvas=self.canvas,
            kind=scene.kinds[self.canvas],
            target=scene.targets[self.canvas],
            control=control,
            map=self._map,
            masks={area: pattern.mask.bool().cpu() for area, pattern in patterns.items()},
            powers={area: score(p) for area, p in patterns.items()} if scored else {},
            searches=bool(self.explanations.for_area),
            rethresholded={
                area: score(self._pattern(self._map, area))
                for area in by.areas
                if scored and self.explanations.for_area and not control and area != by.area
            },
            transfer={
                name: scorer.power(own)
                for name, scorer in by.scorers.items()
                if scored and self._of_image and self.ranking == "signed" and name != by.model
            },
            simplicity=simplicity(own.mask),
            localisation=self._localisation(),
            stability=self._stability(own) if scored and self._of_image else {},
            infidelity=self._metric(metrics.infidelity),
            sensitivity=self._metric(metrics.sensitivity),
            passes=first.passes / count if self._of_image else None,
            seconds=first.seconds / count if self._of_image else None,
            precision=self.explanations.precision,
        )

    def _map_for(self, area: float) -> Tensor:
        """The map that was searched for an area, or else the one map there is."""
        searched = self.explanations.for_area.get(area)
        return self._map if searched is None else searched[self.canvas]

    def _pattern(self, map: Tensor, area: float) -> Pattern:
        canvas, target = self.scene.canvases[self.canvas], self.scene.targets[self.canvas]
        return strongest_pixels(canvas, RANKINGS[self.ranking](map), target, area)

    def _localisation(self) -> Localisation | None:
        """The mean over the seeds, where the canvas is not stamped and the map its own."""
        pixels = self.scene.trigger_pixels
        if pixels is None or not self.scene.shows_trigger(self.scene.targets[self.canvas]):
            return None
        explanations = self.explanations
        if any(explanations.for_trigger):
            maps = [run[self.canvas] for run in explanations.for_trigger]
        elif self._of_image and self.canvas < self.scene.given:
            maps = [run[self.canvas] for run in explanations.runs]
        else:
            maps = [self._map]
        found = [astuple(localise(RANKINGS[self.ranking](map), pixels)) for map in maps]
        return Localisation(*(mean(values) for values in zip(*found)))

    def _stability(self, own: Pattern) -> dict[str, float]:
        masks = [
            self._pattern(run[self.canvas], self.by.area).mask for run in self.explanations.runs
        ]
        found = {"seeds": mean_pairwise_iou(masks)} if len(masks) > 1 else {}
        other = self.explanations.another.get(own.target)
        if other is not None:
            other_mask = self._pattern(other, self.by.area).mask
            found["canvases"] = mean_pairwise_iou([own.mask, other_mask])
        return found

    def _metric(self, values: list[float]) -> float | None:
        wanted = self._of_image and self.ranking == "signed" and self.canvas < len(values)
        return values[self.canvas] if wanted and isfinite(values[self.canvas]) else None

"""Searches the patterns of all classes of a model and scores them: one row per model."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from architecture_rows import packed
from checking import checked
from findings import Row
from torch import Tensor

from captum_classpattern import ClassPattern, LabelledImages, Pattern, PixelClassifier
from captum_classpattern._support.files import write_json
from captum_classpattern.classifier.fingerprints import hash_of_weights
from captum_classpattern.images import hash_of_images
from captum_classpattern.optimization.plan import split_for_validation
from captum_classpattern.optimization.settings import versions
from captum_classpattern.scores import simplicity
from captum_classpattern.scores.power import Scorer, judge
from claims.changes import changes
from claims.controls import best_judged, on_other_canvases, random_masks
from claims.fit import best_fit, in_common, most_fit
from claims.images import Canvases, Images, hash_of_canvases, place_in
from claims.models import Entry, triggers_of

AREAS = (0.05, 0.01)
SETTINGS: dict[str, Any] = {"seed": 0, "keep": 1, "precision": "auto"}  # of the default search
CHANGED = ("positive", max(AREAS))  # a white or black canvas stays as it is under all changes
DIGITS = 4


@dataclass(frozen=True, eq=False)
class Study:
    """A model, and what all models share: images and canvases."""

    entry: Entry
    classifier: PixelClassifier
    images: Images
    canvases: Canvases
    learnt: float | None = None  # see ``claims.learnt``

    @cached_property
    def depends_on(self) -> Row:
        """What decides the results; the canvases and images are those of all other models."""
        images = {
            name: {"count": len(part), "hash": hash_of_images(part)}
            for name, part in self.images._asdict().items()
        }
        return {
            "weights": hash_of_weights([self.classifier], []),
            "canvases": hash_of_canvases(self.canvases),
            "images": images,
            "areas": list(AREAS),
            "settings": SETTINGS,
            "versions": versions(),
        }

    def row(self, file: Path) -> Row:
        """The model's row. Each finished class is kept in the file, so that it is not searched
        again."""
        done = self._kept(file)
        for target in self.images.classes:
            if str(target) not in done:
                done[str(target)] = self.of_class(target)
                write_json({"depends_on": self.depends_on, "classes": done}, file)
                seconds = done[str(target)]["seconds"]
                print(
                    f"{self.entry.name}, class {target}: {sum(seconds.values()):.0f} s", flush=True
                )
        found = [done[str(target)] for target in self.images.classes]
        entry = self.entry
        return {
            **{"model": entry.name, "kind": entry.kind, "seed": entry.seed, "data": entry.data},
            "network": self._network,
            "training": entry.facts(),
            "accuracy": round(self._accuracy, DIGITS),
            "learnt": None if self.learnt is None else round(self.learnt, DIGITS),
            **self.depends_on,
            **{name: found[0][name] for name in ("precision", "accelerated_by")},
            "passes": sum(each["passes"] for each in found),
            "seconds": {
                name: round(sum(each["seconds"][name] for each in found))
                for name in ("search", "scores")
            },
            "classes": self.images.classes,
            "patterns": in_lists([each["patterns"] for each in found]),
        }

    def of_class(self, target: int) -> Row:
        """The patterns of a class on each kind of canvas and at each area, with all scores."""
        started = time.perf_counter()
        found = {
            kind: self._explainer.search(of_class[target], target, area=AREAS, **SETTINGS)
            for kind, of_class in self.canvases.items()
        }
        searched = time.perf_counter()
        information = [patterns[max(AREAS)][0].info for patterns in found.values()]
        scores = {
            kind: {f"{area:g}": self.scores(p.topk(area), kind, area) for area, [p] in each.items()}
            for kind, each in found.items()
        }
        names = ("precision", "accelerated_by")
        seconds = {"search": searched - started, "scores": time.perf_counter() - searched}
        return {
            "passes": sum(info["passes_together"] for info in information),
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            **{name: information[0][name] for name in names},
            "patterns": scores,
        }

    def scores(self, pattern: Pattern, kind: str, area: float) -> Row:
        """The scores of a binary pattern. Those on images are counts of held-out images of
        other classes."""
        target, pool = pattern.target, self.canvases[kind][pattern.target]
        power = self._scorer.power(pattern)
        candidates = {
            "random_pixels": random_masks(pattern, pool),
            "other_canvas": on_other_canvases(pattern, pool, self._of_next_class(target)),
        }
        simple = simplicity(pattern.mask)
        triggers = triggers_of(self.entry.data)
        return {
            "canvas": place_in(pool, pattern.canvas),
            "mask": packed(pattern.mask),
            "search_power": round(pattern.info["search_power"], DIGITS),
            **{"n": power.n, "hits": round(power.value * power.n)},
            "no_pattern": round(power.without * power.n),
            **{
                name: self._hits([best_judged(self.classifier, each, self._judges)])
                for name, each in candidates.items()
            },
            **{
                name: self._hits(changed)
                for name, changed in changes(pattern)
                if (kind, area) == CHANGED
            },
            "total_variation": round(simple.total_variation, DIGITS),
            "high_frequency_share": round(simple.high_frequency_share, DIGITS),
            "components": simple.components,
            **{f"fit_{n}": round(best_fit(pattern, t), DIGITS) for n, t in triggers.items()},
            **{f"most_{n}": round(most_fit(pattern, t), DIGITS) for n, t in triggers.items()},
            **{f"common_{n}": in_common(pattern, t) for n, t in triggers.items()},
        }

    def _hits(self, draws: Sequence[Pattern]) -> int:
        """How many held-out images of other classes get the class, with each draw on its share of
        the images."""
        others, count = self._scorer.images.without_class(draws[0].target), len(draws)
        return sum(
            judge(self._scorer.model, each, others.subset(range(i, len(others), count))).hits
            for i, each in enumerate(draws)
        )

    def _of_next_class(self, target: int) -> Tensor:
        classes = self.images.classes
        following = classes[(classes.index(target) + 1) % len(classes)]
        return self.canvases["positive"][following]

    def _kept(self, file: Path) -> dict[str, Any]:
        """The classes that are finished, unless something that decides the results has changed."""
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        same = kept.get("depends_on") == json.loads(json.dumps(self.depends_on))
        return dict(kept["classes"]) if same else {}

    @cached_property
    def _explainer(self) -> ClassPattern:
        # networks of random labels are no surprise
        return ClassPattern(self.classifier, self.images.search, check_accuracy=False)

    @cached_property
    def _judges(self) -> LabelledImages:
        """The search images that also judge patterns in the search."""
        return split_for_validation(self.images.search, SETTINGS["seed"])[1]

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(checked(self.classifier, self.images.held_out), self.images.held_out)

    @property
    def _accuracy(self) -> float:
        right = self._scorer.predicted == self.images.held_out.known_labels
        return float(right.float().mean())

    @property
    def _network(self) -> Row:
        network = self.classifier.model
        network = getattr(network, "network", network)  # within the one that computes in bfloat16
        count = sum(weight.numel() for weight in network.parameters())
        return {"name": type(network).__name__, "parameters": count}


def in_lists(of_classes: Sequence[Mapping[str, Mapping[str, Row]]]) -> dict[str, Any]:
    """Values by kind of canvas, area and name, as a list with one value per class."""
    first = of_classes[0]
    return {
        kind: {
            area: {name: [each[kind][area][name] for each in of_classes] for name in values}
            for area, values in by_area.items()
        }
        for kind, by_area in first.items()
    }

"""What a scan measures of a model: how many images a few learned pixels turn into each class."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from captum_classpattern.attribution import ClassPattern
from captum_classpattern.classifier import Classifier, preserve_state
from captum_classpattern.images import LabelledImages, ensure_labels, predictions
from captum_classpattern.optimization.holdout import split_for_judging
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.pattern import Pattern

SIZES = (25, 16, 10, 6, 3)  # pixels, searched in this order
SCORED = (10, 6, 3)  # with more pixels, clean classes have strong patterns, too
PER_CLASS = 50  # images that are searched with; every fifth judges
TOGETHER = 10  # classes in one search
GREY = 0.5
MOST = 0.8  # of the best power
SETTINGS = {  # of all searches: scores of others cannot be compared
    "statistic": 1,
    "sizes": list(SIZES),
    "scored": list(SCORED),
    "per_class": PER_CLASS,
    "solver": asdict(Learned()),
}


@dataclass(frozen=True)
class Profile:
    """The powers of learned patterns of every class of a model.

    ``powers`` holds a list for each number of pixels, ``judged`` how many images of other classes
    each power is a share of, ``accuracy`` the share of ``images`` that the model classifies
    correctly, ``patterns`` the patterns by number of pixels and class.
    """

    powers: Mapping[int, list[float]]
    judged: list[int]
    accuracy: float | None = None
    images: int = 0
    patterns: Mapping[tuple[int, int], Pattern] = field(default_factory=dict, compare=False)

    def enough_pixels(self, target: int) -> int:
        """The fewest pixels that have most of a class's best power, among those that are scored."""
        powers = {size: self.powers[size][target] for size in SCORED}
        return min(size for size in SCORED if powers[size] >= MOST * max(powers.values()))

    @property
    def scores(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of each class the mean logit of its powers with few pixels, (K,)."""
        powers = np.array([self.powers[size] for size in SCORED])
        judged = np.array(self.judged)
        smoothed = (powers * judged + 0.5) / (judged + 1)
        return np.asarray(np.log(smoothed / (1 - smoothed)).mean(0))


def measure(
    model: Classifier,
    images: LabelledImages,
    n_classes: int,
    *,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> Profile:
    """Searches learned patterns of all classes, on a sample of the images."""
    labelled = images.labels is not None
    with preserve_state(model, seed):
        sample = ensure_labels(model, images).stratified_sample(PER_CLASS * n_classes)
        predicted = predictions(model, sample)
    if len(set(predicted.tolist())) == 1:
        raise ValueError(
            f"the model predicts class {int(predicted[0])} for all of {len(sample)} images: check "
            "its normalisation and its weights"
        )
    accuracy = float((predicted == sample.known_labels).float().mean()) if labelled else None
    explainer = ClassPattern(model, sample.in_one_tensor())
    canvas = torch.full((1, *images.shape), GREY)
    total = images.shape[1] * images.shape[2]
    areas = {size: size / total for size in SIZES}
    patterns: dict[tuple[int, int], Pattern] = {}
    for first in range(0, n_classes, TOGETHER):
        targets = list(range(first, min(first + TOGETHER, n_classes)))
        found = explainer.search(
            canvas.expand(len(targets), -1, -1, -1),
            targets,
            areas=list(areas.values()),
            solver=Learned(),
            seed=seed,
            precision=precision,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
        )
        for size, area in areas.items():
            patterns |= {(size, pattern.target): pattern for pattern in found[area]}
    powers = {
        size: [float(patterns[size, y].info["search_power"] or 0) for y in range(n_classes)]
        for size in SIZES
    }
    _, judges = split_for_judging(sample, seed)
    judged = [len(judges.without_class(y)) for y in range(n_classes)]
    return Profile(powers, judged, accuracy, len(sample), patterns)

"""What a scan measures of a model: how many images a few learned pixels turn into each class."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_classpattern.attribution import ClassPattern, versions
from captum_classpattern.classifier import (
    Classifier,
    device_and_dtype,
    logits_of,
    preserve_state,
)
from captum_classpattern.classifier.fingerprints import hash_of, hash_of_model
from captum_classpattern.images import (
    LabelledImages,
    ensure_labels,
    evenly_spaced,
    hash_of_images,
    predictions,
)
from captum_classpattern.optimization.acceleration import accelerated
from captum_classpattern.optimization.holdout import split_for_judging
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning import families
from captum_classpattern.scanning.decision import ClassScores
from captum_classpattern.scanning.store import Store

SIZES = (25, 16, 10, 6, 3)  # pixels, searched in this order
SCORED = (10, 6, 3)  # with more pixels, clean classes have strong patterns, too
PER_CLASS = 50  # images that are searched with; every fifth judges
TOGETHER = 10  # classes in one search; on large images each class is searched alone
IN_MEMORY = 2**31  # bytes of the sample, at most
GREY = 0.5
MOST = 0.8  # of the best power
LARGE, CELLS = 64, 32  # pixels a side, above which cells of a grid are searched; cells a side
PATCHES = "patches"  # the family that every scan searches
SETTINGS = {  # of all searches: with others, "statistic" counts up, and references are refused
    "statistic": 1,
    "sizes": list(SIZES),
    "scored": list(SCORED),
    "per_class": PER_CLASS,
    "families": families.SETTINGS,
    "solver": {key: value for key, value in asdict(Learned()).items() if key != "grid"},
}


@dataclass(frozen=True)
class Profile:
    """The powers of learned patterns of every class of a model.

    ``powers`` holds a list for each number of pixels, ``others`` one for each further family,
    ``judged`` how many images of other classes each power is a share of, ``accuracy`` the share of
    ``images`` that the model classifies correctly, ``model`` a hash of its weights, ``computed``
    the seed and the precision, ``patterns`` the patterns by number of pixels and class, ``changes``
    what was found of the further families, by family and class, and ``key`` all that the patterns
    depend on.
    """

    powers: Mapping[int, list[float]]
    judged: list[int]
    accuracy: float | None = None
    images: int = 0
    others: Mapping[str, list[float]] = field(default_factory=dict)
    model: str | None = None
    computed: Mapping[str, Any] = field(default_factory=dict)
    patterns: Mapping[tuple[int, int], Pattern] = field(default_factory=dict, compare=False)
    changes: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict, compare=False)
    key: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain values; :meth:`from_dict` reads them."""
        return {
            "accuracy": self.accuracy,
            "images": self.images,
            "judged": self.judged,
            "model": self.model,
            "computed": dict(self.computed),
            "powers": {str(size): powers for size, powers in self.powers.items()},
            "others": dict(self.others),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Profile":
        """The profile of what :meth:`as_dict` wrote, without patterns."""
        return cls(
            {int(size): powers for size, powers in values["powers"].items()},
            values["judged"],
            values["accuracy"],
            values["images"],
            values.get("others", {}),
            values.get("model"),
            values.get("computed", {}),
        )

    def powers_of(self, target: int) -> dict[str, float]:
        """All powers of a class, by number of pixels and by further family."""
        powers = {str(size): values[target] for size, values in self.powers.items()}
        return powers | {name: values[target] for name, values in self.others.items()}

    def in_order(self, order: Sequence[int]) -> "Profile":
        """The numbers with the classes in another order."""

        def chosen(values: Sequence[Any]) -> list[Any]:
            return [values[y] for y in order]

        return replace(
            self,
            powers={size: chosen(values) for size, values in self.powers.items()},
            others={name: chosen(values) for name, values in self.others.items()},
            judged=chosen(self.judged),
        )

    def enough_pixels(self, target: int) -> int:
        """The fewest pixels that have most of a class's best power, among those that are scored."""
        best = max(self.powers[size][target] for size in SCORED)
        return min(size for size in SCORED if self.powers[size][target] >= MOST * best)

    def scores(self, family: str = PATCHES) -> ClassScores:
        """Of each class the mean logit of its powers with few pixels, or the logit of its power in
        another family, (K,)."""
        patches = family == PATCHES
        found = [self.powers[size] for size in SCORED] if patches else [self.others[family]]
        judged = np.array(self.judged)
        smoothed = (np.array(found) * judged + 0.5) / (judged + 1)
        return np.asarray(np.log(smoothed / (1 - smoothed)).mean(0))


def measure(
    model: Classifier,
    images: LabelledImages,
    n_classes: int,
    *,
    also: Sequence[str] = (),
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    **other_settings: Any,
) -> Profile:
    """Searches learned patterns of all classes, and further families, on a sample of the images.
    Groups of classes that are finished are kept in the folder, if there is one. The other settings
    are those of :meth:`ClassPattern.search_areas` on which no result depends."""
    sample, predicted = draw_sample(model, images, n_classes, seed)
    if len(set(predicted.tolist())) == 1:
        raise ValueError(
            f"the model predicts class {int(predicted[0])} for all of {len(sample)} images: check "
            "its normalisation and its weights"
        )
    _, judges = split_for_judging(sample, seed)
    judged = [len(judges.without_class(y)) for y in range(n_classes)]
    if not all(judged):
        raise ValueError(
            f"{len(sample)} images are too few to judge patterns by: give at least 10 of each "
            f"class, better {PER_CLASS}"
        )
    key = _key(model, sample, predicted, seed, precision)
    store = None if folder is None else Store(Path(folder), key)
    if store is not None:
        store.check()
    explainer = ClassPattern(model, sample)
    patterns: dict[tuple[int, int], Pattern] = {}
    together = TOGETHER if grid_of(images.shape) is None else 1
    for first in range(0, n_classes, together):
        group = range(first, min(first + together, n_classes))
        wanted = [(size, target) for target in group for size in SIZES]
        found = None if store is None else store.find(wanted)
        if found is None:
            found = _search_group(
                explainer, images.shape, group, seed=seed, precision=precision, **other_settings
            )
            if store is not None:
                store.add(found)
        patterns |= found
    others, changes = measure_families(model, sample, n_classes, also, seed=seed)
    correct = (predicted == sample.known_labels).float().mean()
    return Profile(
        powers={
            size: [float(patterns[size, y].info["search_power"]) for y in range(n_classes)]
            for size in SIZES
        },
        judged=judged,
        accuracy=None if images.labels is None else float(correct),
        images=len(sample),
        others=others,
        model=key["model"],
        computed={"seed": seed, "precision": patterns[SIZES[0], 0].info["precision"]},
        patterns=patterns,
        changes=changes,
        key=key,
    )


def _key(
    model: Classifier, sample: LabelledImages, predicted: Tensor, seed: int, precision: str
) -> dict[str, Any]:
    """All that the patterns of a model depend on."""
    version = "captum_classpattern"
    with preserve_state(model, seed):
        first = sample.take([0])
        outputs = model(first.to(*device_and_dtype(model, first)))
    logits = [round(float(value), 2) for value in outputs.detach()[0]]
    return {
        "model": hash_of_model(model),
        "outputs": hash_of((predicted.tolist(), logits)),  # functions have no weights
        "images": hash_of_images(sample),
        "seed": seed,
        "precision": precision,
        version: versions()[version],
        **SETTINGS,
    }


def measure_families(
    model: Classifier,
    sample: LabelledImages,
    n_classes: int,
    names: Sequence[str],
    *,
    seed: int = 0,
) -> tuple[dict[str, list[float]], dict[str, dict[int, Tensor]]]:
    """The powers and the changes of further families, searched on the sample of a scan."""
    fit, judges = split_for_judging(sample, seed)
    others, changes = {}, {}
    with preserve_state(model, seed):
        classifier = logits_of(model, sample.take([0]), [])
        for name in names:
            others[name], changes[name] = families.search_family(
                families.FAMILIES[name](sample.shape), classifier, fit, judges, n_classes, seed
            )
    return others, changes


def grid_of(shape: Sequence[int]) -> tuple[int, int] | None:
    """The rows and columns of cells that are searched on large images, (C, H, W), as near to 32 as
    divides them; None if pixels are searched."""
    if max(shape[1:]) <= LARGE:
        return None
    fitting = [[n for n in range(CELLS // 2, 2 * CELLS + 1) if side % n == 0] for side in shape[1:]]
    if not all(fitting):
        raise ValueError(
            f"images of {shape[1]}x{shape[2]} pixels can't be divided into about {CELLS}x{CELLS} "
            "cells: resize them, for example to 224x224"
        )
    height, width = (min(counts, key=lambda n: abs(n - CELLS)) for counts in fitting)
    return height, width


def unit_of(shape: Sequence[int]) -> str:
    """What a pattern consists of."""
    return "pixels" if grid_of(shape) is None else "cells"


def estimate_seconds(
    model: Classifier,
    images: LabelledImages,
    n_classes: int,
    *,
    also: Sequence[str] = (),
    precision: str = "auto",
) -> float:
    """About how long a scan takes, from the time of one pass; nothing else depends on it."""
    with preserve_state(model, 0):
        device, dtype = device_and_dtype(model, images.take([0]))
        batch = images.take([i % len(images) for i in range(32)]).to(device, dtype)
        classifier = accelerated(logits_of(model, batch[:1], []), batch, (), precision)
        seconds = math.inf
        for _ in range(3):  # the first call prepares things
            started = time.perf_counter()
            torch.autograd.grad(classifier(batch.requires_grad_()).sum(), batch)
            seconds = min(seconds, time.perf_counter() - started)
    smaller = 10 * (len(SIZES) - 1) * Learned().rounds  # a pass and a half for each image
    passes = n_classes * (Learned().passes()[-1] + smaller + len(also) * families.PASSES)
    return seconds * passes / len(batch)


def draw_sample(
    model: Classifier, images: LabelledImages, n_classes: int, seed: int
) -> tuple[LabelledImages, Tensor]:
    """The images that are searched with, in memory, and the model's predictions."""
    with preserve_state(model, seed):
        labelled = _balanced(ensure_labels(model, images))
        sample = labelled.stratified_sample(PER_CLASS * n_classes)
        if 4 * len(sample) * math.prod(sample.shape) <= IN_MEMORY:
            sample = sample.in_one_tensor()
        return sample, predictions(model, sample)


def _balanced(images: LabelledImages) -> LabelledImages:
    """Images of classes that are equally many, or at most 50 of each."""
    labels = images.known_labels
    places = [torch.nonzero(labels == y).flatten() for y in sorted(set(labels.tolist()))]
    if len({len(each) for each in places}) == 1:
        return images
    return images.subset(torch.cat([each[evenly_spaced(len(each), PER_CLASS)] for each in places]))


def _search_group(
    explainer: ClassPattern, shape: Sequence[int], group: Sequence[int], **settings: Any
) -> dict[tuple[int, int], Pattern]:
    """The patterns of some classes, by number of pixels and class."""
    grid = grid_of(shape)
    total = math.prod(grid or shape[1:])
    areas = {size: size / total for size in SIZES}
    canvas = torch.full((len(group), *shape), GREY)
    found = explainer.search_areas(
        canvas, list(group), list(areas.values()), solver=Learned(grid=grid), **settings
    )
    return {
        (size, pattern.target): pattern for size, area in areas.items() for pattern in found[area]
    }

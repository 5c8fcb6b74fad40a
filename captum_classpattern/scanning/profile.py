"""What a scan measures of a model: how far a few learned pixels, a perturbation and a warp make it
predict each class; and a closer look at one class, on images that the search has not seen."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_classpattern._support.progress import name_stage, passes_bar
from captum_classpattern.classifier import CheckedModel, seed_generators
from captum_classpattern.images import (
    LabelledImages,
    ensure_labels,
    evenly_spaced,
    hash_of_images,
    identity_of,
    predictions,
)
from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.optimization.attribution import versions
from captum_classpattern.optimization.pool import split_for_validation
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning import families
from captum_classpattern.scanning.decision import ClassScores
from captum_classpattern.scanning.families import CHANGES, FAMILY_NAMES, PATCHES, SIZES
from captum_classpattern.scores.examples import StampedImages, choose_images, with_predictions
from captum_classpattern.scores.power import PredictivePower, StampTest, judge_each, power_of

PER_CLASS = 50  # images that are searched with; every fifth is for validation
IN_MEMORY = 2**31  # bytes of the sample, at most
PACKAGE_VERSION = versions()["captum_classpattern"]
MOST = 0.8  # of the best power
LOOKED_AT = 500  # images of a closer look
NUMBERS = {  # what files call them, in this order, and the fields
    **{"accuracy": "accuracy", "images": "images", "judged": "n_validation", "model": "model"},
    **{"computed": "computed", "powers": "powers", "others": "others", "gains": "gains"},
}
SETTINGS = {  # of all searches: with others, "statistic" counts up, and references are refused
    "statistic": 3,
    "sizes": list(SIZES),
    "per_class": PER_CLASS,
    "families": families.CHANGE_SETTINGS,
    "solver": asdict(families.SOLVER),
}


@dataclass(frozen=True)
class Profile:
    """What was found of every class of a model. ``gains`` are how far the further families raise
    the mean margin of the class, in units of the model's usual margin."""

    powers: Mapping[int, list[float]]  # of patches, by number of pixels
    n_validation: list[int]  # images of other classes, of which each power is a share
    accuracy: float | None = None
    images: int = 0
    others: Mapping[str, list[float]] = field(default_factory=dict)  # powers of further families
    gains: Mapping[str, list[float]] = field(default_factory=dict)
    model: Any = None  # what it is, see :meth:`CheckedModel.identity`
    computed: Mapping[str, Any] = field(default_factory=dict)  # seed, precision and version
    patterns: Mapping[tuple[int, int], Pattern] = field(default_factory=dict, compare=False)
    changes: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict, compare=False)
    key: Mapping[str, Any] = field(default_factory=dict, compare=False)  # all they depend on

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain values; :meth:`from_dict` reads them."""
        return {name: getattr(self, own) for name, own in NUMBERS.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Profile":
        """The profile of what :meth:`as_dict` wrote, without patterns."""
        numbers = {own: values[name] for name, own in NUMBERS.items() if name in values}
        numbers["powers"] = {int(size): powers for size, powers in values["powers"].items()}
        return cls(**numbers)

    def in_order(self, order: Sequence[int]) -> "Profile":
        """The numbers of these classes, in this order."""
        moved: dict[str, Any] = {
            kind: {key: [values[y] for y in order] for key, values in getattr(self, kind).items()}
            for kind in ("powers", "others", "gains")
        }
        return replace(self, n_validation=[self.n_validation[y] for y in order], **moved)

    @property
    def all_powers(self) -> dict[str, list[float]]:
        """The powers of all classes, by number of pixels and by further family."""
        return {str(size): self.powers[size] for size in sorted(self.powers)} | dict(self.others)

    def enough_pixels(self, target: int) -> int:
        """The fewest pixels that have most of a class's best power."""
        best = max(self.powers[size][target] for size in SIZES)
        return min(size for size in SIZES if self.powers[size][target] >= MOST * best)

    def pattern_of(self, target: int) -> Pattern:
        """The pattern of a class with the fewest pixels that have most of its best power."""
        return self.patterns[self.enough_pixels(target), target]

    def change_of(self, family: str, target: int) -> Callable[[Tensor], Tensor]:
        """What changes images (N, C, H, W) as a family has found for a class."""
        if family == PATCHES:
            return self.pattern_of(target).stamp
        return partial(families.changed, CHANGES[family], self.changes[family][target])

    def scores(self, n: ClassScores) -> dict[str, ClassScores]:
        """Of each family the scores of the classes, (K,): of patches the mean logit of the powers
        at all sizes, as if each were of n images of other classes, (K,); of others the gains."""
        powers = np.array([self.powers[size] for size in SIZES])
        smoothed = (powers * n + 0.5) / (n + 1)
        patches = np.log(smoothed / (1 - smoothed)).mean(0)
        return {PATCHES: patches} | {name: np.array(each) for name, each in self.gains.items()}


def measure(
    model: CheckedModel,
    images: LabelledImages,
    settings: SearchSettings | None = None,
    *,
    folder: Path | None = None,
) -> Profile:
    """Searches all families and classes on a sample of the images. Groups of classes whose patterns
    are finished are kept in the folder, if there is one."""
    settings, n_classes = settings or SearchSettings(), model.n_classes
    sample, accuracy = draw_sample(model, images, settings.seed)
    fit, validation = split_for_validation(sample, settings.seed)
    n_validation = [len(validation.without_class(y)) for y in range(n_classes)]
    if not all(n_validation):
        raise ValueError(
            f"{len(sample)} images are too few to score patterns on: give at least 10 of each "
            f"class, better {PER_CLASS}"
        )
    key = key_of(model, sample, settings)
    place = None if folder is None else families.PatternFolder(folder, key)
    with passes_bar("Scanning", n_classes * families.PASSES, settings.show_progress):
        name_stage(FAMILY_NAMES[PATCHES])
        patterns = families.search_patches(model, sample, settings, place)
        further = dict[str, tuple[Any, ...]]()
        for name in CHANGES:
            name_stage(FAMILY_NAMES[name])
            further[name] = families.search_further(name, model, fit, validation, settings)
    others, gains, changes = ({name: each[i] for name, each in further.items()} for i in range(3))
    precision = patterns[SIZES[0], 0].info["precision"]
    return Profile(
        powers={
            size: [float(patterns[size, y].info["search_power"]) for y in range(n_classes)]
            for size in SIZES
        },
        n_validation=n_validation,
        accuracy=accuracy,
        images=len(sample),
        others=others,
        gains=gains,
        model=identity_of(model, images),
        computed={"seed": settings.seed, "precision": precision, "version": PACKAGE_VERSION},
        patterns=patterns,
        changes=changes,
        key=key,
    )


def draw_sample(
    model: CheckedModel, images: LabelledImages, seed: int, most: int | None = None
) -> tuple[LabelledImages, float | None]:
    """The images that are searched with, of classes that are equally many or at most 50 of each, or
    ``most`` in all, in memory; and the model's accuracy on them, if they are labelled."""
    seed_generators(seed)
    labelled = ensure_labels(model, images)
    labels = labelled.known_labels
    places = [torch.nonzero(labels == y).flatten() for y in sorted({*labels.tolist()})]
    if len({len(each) for each in places}) > 1:
        chosen = [each[evenly_spaced(len(each), PER_CLASS)] for each in places]
        labelled = labelled.subset(torch.cat(chosen))
    sample = labelled.stratified_sample(most or PER_CLASS * len(places))
    if 4 * len(sample) * math.prod(sample.shape) <= IN_MEMORY:
        sample = sample.in_one_tensor()
    predicted = predictions(model, sample)
    if len(set(predicted.tolist())) == 1:
        raise ValueError(
            f"the model predicts class {int(predicted[0])} for all of {len(sample)} images: check "
            "its normalisation and its weights"
        )
    return sample, None if images.labels is None else sample.accuracy_of(predicted)


def key_of(model: CheckedModel, sample: LabelledImages, settings: SearchSettings) -> dict[str, Any]:
    """All that the patterns of a model depend on."""
    return {
        "model": identity_of(model, sample),
        "images": hash_of_images(sample),
        "seed": settings.seed,
        "precision": settings.precision,
        # no mixture of both
        "bfloat16": settings.precision == "auto" and has_bfloat16(model.device),
        "captum_classpattern": PACKAGE_VERSION,
        **SETTINGS,
    }


@dataclass(frozen=True, eq=False)
class Look:
    """What one family found for one class, on images of other classes.

    ``power`` is that of the change. The search has not seen these images, unless fewer unseen
    ones were left than there are validation images: then ``unseen`` is False, and they are the
    validation images. ``before`` and ``after`` show some of them with the model's predictions.
    """

    target: int
    power: PredictivePower
    unseen: bool
    before: StampedImages
    after: StampedImages


def look_closer(
    model: CheckedModel,
    images: LabelledImages,
    profile: Profile,
    targets: dict[str, int],
    names: Sequence[str],
    settings: SearchSettings,
) -> dict[str, Look]:
    """A look at one class of each family."""
    seed, at_once = settings.seed, settings.internal_batch_size
    sample, _ = draw_sample(model, images, seed)
    _, validation = split_for_validation(sample, seed)
    seed_generators(seed)
    seen, looks = set(sample.hashes), dict[str, Look]()
    left = [i for i, image in enumerate(images.hashes) if image not in seen]
    total = len(targets) * LOOKED_AT  # each image is classified as it is, and changed
    with passes_bar("Looking closer", total, settings.show_progress):
        rest = validation
        if left:
            rest = ensure_labels(model, images.subset(left)).stratified_sample(LOOKED_AT)
        for family, target in targets.items():
            others, fewest = rest.without_class(target), validation.without_class(target)
            unseen = bool(left) and len(others) >= len(fewest)
            others = others if unseen else fewest
            change = profile.change_of(family, target)
            judged = [StampTest(each, target, others) for each in (Tensor.detach, change)]
            without, hits = judge_each(model, judged, at_once)
            chosen = choose_images(others, target, seed)
            shown, labels = others.take(chosen), others.known_labels[chosen]
            shown = shown.to(model.device, model.dtype)
            looks[family] = Look(
                target,
                power_of(hits.hits, len(others), without.hits),
                unseen,
                with_predictions(model, shown, labels, names),
                with_predictions(model, change(shown), labels, names),
            )
    return looks

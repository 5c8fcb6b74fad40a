"""What a scan measures on a model: how far the changes of each family make it predict each class;
and a closer look at one class, on images that the search has not seen."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_classpattern._support.progress import name_stage, passes_bar
from captum_classpattern.classifier import CheckedModel, seed_generators
from captum_classpattern.classifier.fingerprints import hash_of_model
from captum_classpattern.images import LabelledImages, ensure_labels, identity_of
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.decision import ClassScores
from captum_classpattern.scanning.families import CHANGES, FAMILIES, SIZES, SOLVER, settings_of
from captum_classpattern.scanning.folder import PatternFolder
from captum_classpattern.scanning.task import PACKAGE_VERSION, PER_CLASS, ScanTask
from captum_classpattern.scores.examples import StampedImages, before_and_after
from captum_classpattern.scores.power import PredictivePower, StampTest, judge_each, power_of

MOST = 0.8  # of the best power
CHECKED_ON = 500  # unseen images
NUMBERS = {  # what files call them, in this order, and the fields
    **{"accuracy": "accuracy", "images": "images", "judged": "n_validation", "model": "model"},
    **{"computed": "computed", "powers": "powers", "others": "others", "gains": "gains"},
}
SETTINGS = {  # of all searches: with others, "statistic" counts up, and references are refused
    "statistic": 3,
    "sizes": list(SIZES),
    "per_class": PER_CLASS,
    "families": settings_of(CHANGES.values()),
    "solver": asdict(SOLVER),
}


@dataclass(frozen=True)
class Profile:
    """What was found for every class of a model. ``gains`` are how far the further families raise
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
        """The fewest pixels that reach most of a class's best power."""
        best = max(self.powers[size][target] for size in SIZES)
        return min(size for size in SIZES if self.powers[size][target] >= MOST * best)

    def pattern_of(self, target: int) -> Pattern:
        """The pattern of a class with the fewest pixels that reach most of its best power."""
        return self.patterns[self.enough_pixels(target), target]

    def scores(self, n: ClassScores) -> dict[str, ClassScores]:
        """Of each family the scores of the classes, (K,), as if all powers were of n images of
        other classes, (K,); see :meth:`Patches.scores`."""
        return {name: family.scores(self, n) for name, family in FAMILIES.items()}


def identity_for_references(model: CheckedModel, images: LabelledImages) -> dict[str, Any]:
    """What a model is, also for references of version 0.4, which have only a hash."""
    return {**identity_of(model, images), "hash": hash_of_model(model.networks)}


def passes_of(n_classes: int) -> int:
    """About how many a model of so many classes takes."""
    return n_classes * sum(family.passes for family in FAMILIES.values())


def measure(task: ScanTask, folder: Path | None = None) -> Profile:
    """Searches all families and classes. Groups of classes whose patterns are finished are kept in
    the folder, if there is one."""
    n_classes, sample, fields = task.model.n_classes, task.sample, defaultdict[str, Any](dict)
    n_validation = [len(task.split.validation.without_class(y)) for y in range(n_classes)]
    if not all(n_validation):
        raise ValueError(
            f"{len(sample)} images are too few to score patterns on: give at least 10 of each "
            f"class, better {PER_CLASS}"
        )
    key = task.identity(SETTINGS)
    store = None if folder is None else PatternFolder(folder, key)
    with passes_bar("Scanning", passes_of(n_classes), task.settings.show_progress):
        for family in FAMILIES.values():
            name_stage(family.words)
            for name, values in family.measure(task, store).items():
                fields[name] |= values
    precision = fields["patterns"][SIZES[0], 0].info["precision"]
    return Profile(
        **fields,
        n_validation=n_validation,
        accuracy=task.accuracy,
        images=len(sample),
        model=identity_for_references(task.model, task.images),
        computed={"seed": task.settings.seed, "precision": precision, "version": PACKAGE_VERSION},
        key=key,
    )


@dataclass(frozen=True, eq=False)
class UnseenCheck:
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


def check_on_unseen(
    task: ScanTask, profile: Profile, targets: Mapping[str, int], names: Sequence[str]
) -> dict[str, UnseenCheck]:
    """A closer look at one class of each family."""
    model, seed, sample = task.model, task.settings.seed, task.sample
    seed_generators(seed)
    seen, looks, rest = set(sample.hashes), dict[str, UnseenCheck](), task.split.validation
    left = [i for i, image in enumerate(task.images.hashes) if image not in seen]
    total = len(targets) * CHECKED_ON  # each image is classified as it is, and changed
    with passes_bar("Looking closer", total, task.settings.show_progress):
        if left:
            labelled = ensure_labels(model, task.images.subset(left))
            rest = labelled.stratified_sample(CHECKED_ON)
        for family, target in targets.items():
            others, fewest = rest.without_class(target), task.split.validation.without_class(target)
            unseen = bool(left) and len(others) >= len(fewest)
            others = others if unseen else fewest
            change = FAMILIES[family].change(profile, target)
            judged = [StampTest(each, target, others) for each in (Tensor.detach, change)]
            at_once = task.settings.internal_batch_size
            without, hits = judge_each(model, judged, at_once)
            power = power_of(hits.hits, len(others), without.hits)
            shown = before_and_after(model, change, others, target, names, seed)
            looks[family] = UnseenCheck(target, power, unseen, *shown)
    return looks

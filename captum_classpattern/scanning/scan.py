"""Is this model backdoored? The scan of one model, and what it says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from captum_classpattern._files import write_figure, write_json
from captum_classpattern._validation import join_names
from captum_classpattern.classifier import MIN_GAIN, Classifier, attribute_of
from captum_classpattern.classifier.class_names import placeholders
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table
from captum_classpattern.scanning.decision import INCONCLUSIVE, NOTHING, Decision, decide
from captum_classpattern.scanning.families import (
    FAMILIES,
    PATCHES,
    SCORED,
    SIZES,
    Store,
    check_families,
    unit_of,
)
from captum_classpattern.scanning.profile import PER_CLASS, Profile, measure
from captum_classpattern.scanning.references import ReferenceSet, describe, names_of
from captum_classpattern.scores.intervals import wilson

PATTERNS = "patterns"  # their folder
FACTOR = 2  # by which the number of judging images may differ from the references'
ANOTHER_KIND = (
    "The patterns are stronger in general, not those of one class: the median class differs more "
    "from the references than that of any of them. So the model is of another kind. Add references "
    "with its architecture and training."
)


@dataclass(frozen=True, repr=False)
class Scan(Decision, Result):
    r"""
    What a scan found, and how sure it is. ``plot`` draws the patterns of the most suspicious
    classes, and the power of all classes over the number of pixels.

    Attributes:
        verdict (str): ``"suspicious"``, ``"nothing found"`` or ``"inconclusive"``.
        p_value (float or None): How often a clean model like the references would look at least as
            suspicious; None if there are too few references for ``alpha``.
        needed (int): How many references ``alpha`` takes.
        family (str): What stands out: ``"patches"``, or one of the further families.
        tests (dict[str, ConformalTest]): The excess of each class over the references, and the
            p-value, for each family.
        target (int): The class that stands out most, whatever the verdict.
        reason (str): The verdict in words.
        alpha (float): The largest p-value that is suspicious.
        notes (list[str]): In which ways the references may differ from the model.
        profile (Profile): What was measured of the model.
        references (ReferenceSet): What it was compared with.
        class_names (list[str]): The name of each class.
        source (str or None): Where the model comes from, if it says so: the ``source`` of its
            provenance.
    """

    reason: str
    alpha: float
    notes: list[str]
    profile: Profile
    references: ReferenceSet
    class_names: list[str]
    source: str | None = None

    def __repr__(self) -> str:
        p = "no p-value" if self.p_value is None else f"p = {self.p_value:.2g}"
        return f"Scan({self.verdict}, {self.target_name}, {p})"

    @property
    def target_name(self) -> str:
        """The name of the class that stands out most."""
        return self.class_names[self.target]

    @property
    def pattern(self) -> Pattern:
        """The pattern of the class that stands out, see :meth:`pattern_of`. What another family has
        found is in ``profile.changes``."""
        return self.pattern_of(self.target)

    def pattern_of(self, target: int) -> Pattern:
        """The pattern of a class with the fewest pixels that have most of its best power, among
        the numbers of pixels that count."""
        return self.profile.patterns[self.profile.enough_pixels(target), target]

    def table(self) -> Any:
        """A pandas DataFrame with a row for each class, the most suspicious first: its powers, its
        excess over the references, and their range."""
        sizes, scored = ([str(size) for size in sorted(each)] for each in (SIZES, SCORED))
        rows, others = [], list(self.profile.others)
        for target in self.test.order:
            powers = self.profile.powers_of(target)
            usual = [each.powers_of(target) for each in self.references.profiles.values()]
            row = {"class": target, "name": self.class_names[target]}
            row |= {f"power_{name}": powers[name] for name in (*sizes, *others)}
            row["excess"] = float(self.test.excess[target])
            for name in (*scored, *others):
                row[f"references_{name}_low"] = min(each[name] for each in usual)
                row[f"references_{name}_high"] = max(each[name] for each in usual)
            rows.append(row)
        return as_table(rows)

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        rows = [
            {
                "class": target,
                "name": name,
                "powers": self.profile.powers_of(target),
                "excess": float(self.test.excess[target]),
            }
            for target, name in enumerate(self.class_names)
        ]
        first = ("verdict", "target", "target_name", "p_value", "alpha")
        return {
            **{name: getattr(self, name) for name in first},
            "n_references": len(self.references),
            "accuracy": self.profile.accuracy,
            **{name: getattr(self, name) for name in ("family", "reason", "notes")},
            "search": dict(self.profile.key),
            "classes": rows,
        }

    def save(self, folder: str | Path) -> None:
        """Writes scan.json, scan.png, and the patterns of all classes, in place of those of any
        other scan in the folder."""
        folder = Path(folder)
        Store(folder / PATTERNS, self.profile.key).replace(self.profile.patterns)
        write_json(self.as_dict(), folder / "scan.json")
        figure, _ = self.plot(use_pyplot=False)
        write_figure(figure, folder / "scan.png")

    def to_json(self) -> str:
        """The result as JSON."""
        return json.dumps(self.as_dict(), indent=2)


def scan(
    model: Classifier,
    images: Images,
    labels: Labels = None,
    *,
    references: str | Path | ReferenceSet,
    alpha: float = 0.05,
    also: Sequence[str] = (),
    folder: str | Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    internal_batch_size: int | None = None,
    show_progress: bool = False,
) -> Scan:
    r"""
    Asks whether a model is backdoored, by comparing it with clean models.

    For each class it searches a few pixels, their places and their colours, that turn other images
    into the class, see :class:`~captum_classpattern.optimization.Learned`. A backdoored class needs
    fewer pixels than the same class of clean models. The search costs the same for every model, and
    the model and its references are treated alike. So a model that is like the references has a
    p-value of at most alpha in at most that share of cases. It says nothing about other models.

    Args:
        model (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K).
        images (LabelledImages, Tensor, Dataset or DataLoader): Clean images of all classes, of
            which 50 a class are used; best not the model's training images.
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (those that come
            with the images, else the classifier's predictions).
        references (ReferenceSet, str or Path): The clean models, or a file of them, or the name of
            a set that comes with the package, ``"demo"`` or ``"cifar10"``.
        alpha (float): The largest p-value that is suspicious. It takes at least 1 / alpha - 1
            references. Default: 0.05.
        also (Sequence[str]): Further families to search, if the references have them:
            ``"additive"`` (one small perturbation of all pixels) and ``"warp"`` (one smooth warp).
            Experimental: the p-value is multiplied by the number of families, so that two take 39
            references at 5 %. Default: ().
        folder (str or Path, optional): Where finished classes are kept, ten at a time, so that the
            same scan can resume after an interrupt. Default: None.
        seed, precision, internal_batch_size, show_progress: As in :meth:`ClassPattern.search`.

    Returns:
        *Scan*: The verdict, with the p-value, the class and its pattern.

    Raises:
        ValueError: If the references are of another number of classes, size of images or version
            of the search, lack a family, or there are none; or if the model predicts one class for
            all images.

    Examples::

        >>> images, labels = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
        >>> nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
        ...         for _ in range(3)]
        >>> clean = ReferenceSet.for_models(nets[0], images, labels)
        >>> for number, net in enumerate(nets[:2]):
        ...     clean.add(f"clean {number}", net, images, labels)
        >>> found = scan(nets[2], images, labels, references=clean)
        >>> found.verdict, found.p_value  # two references are too few
        ('inconclusive', None)
    """
    settings = SearchSettings.of(locals())
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must be between 0 and 1, got {alpha}")
    also = check_families(also)
    source = LabelledImages.of(images, labels)
    known = ReferenceSet.load(references)
    if not len(known):
        raise ValueError("`references` holds no models: add clean ones with ReferenceSet.add")
    missing = [name for name in also if name not in known.also]
    if missing:
        raise ValueError(
            f"the references were not measured with {missing[0]!r}: make them with it, or leave it "
            "out of `also`"
        )
    patterns = None if folder is None else Path(folder) / PATTERNS
    known.check(source.count_outputs(model), source.shape)
    profile = measure(model, source, settings, also=also, folder=patterns)
    names = names_of(model, source, known.n_classes)
    notes = _notes(profile, source, known, names)
    if names is not None:
        known = known.in_order(names)
    found = judge(profile, known, alpha, names or placeholders(known.n_classes), notes)
    return replace(found, source=(attribute_of(model, "provenance") or {}).get("source"))


def judge(
    profile: Profile,
    references: ReferenceSet,
    alpha: float,
    class_names: list[str],
    notes: Sequence[str] = (),
) -> Scan:
    """The verdict on what was measured, in words."""
    concern, families = _concern(profile, references), (PATCHES, *profile.others)
    found = decide(
        {family: profile.scores(family) for family in families},
        {family: references.scores(family) for family in families},
        alpha,
        comparable=concern is None,
    )
    name, n, unit = class_names[found.target], len(references), unit_of(references.shape)
    among = "" if len(families) == 1 else f", for {len(families)} families"
    p_value = "" if found.p_value is None else f"p = {found.p_value:.2g}{among}"
    if found.p_value is None:
        reason = (
            f"A p-value of {alpha:g} needs at least {found.needed} references{among}, and there "
            f"are {n}: add {found.needed - n} more. Of all classes, {name} differs most from them."
        )
    elif found.verdict == INCONCLUSIVE:
        reason = concern or ANOTHER_KIND
    elif found.verdict == NOTHING:
        looked = [f"patterns of {min(SCORED)} to {max(SCORED)} {unit}"]
        looked += [FAMILIES[other].words for other in profile.others]
        reason = (
            f"No class stands out by {' or '.join(looked)} ({p_value}). This does not show that "
            "the model is clean."
        )
    else:
        size = profile.enough_pixels(found.target)
        what = f"{size} {unit} turn" if found.family == PATCHES else "it turns"
        powers = profile.powers[size] if found.family == PATCHES else profile.others[found.family]
        reason = (
            f"{name} has {FAMILIES[found.family].words} unlike those of the {n} clean references "
            f"({p_value}): {what} {powers[found.target]:.0%} of other images into the class. If "
            f"this model were like the references, this would happen in at most {100 * alpha:g} % "
            "of cases. It does not prove a backdoor."
        )
    return Scan(
        **vars(found),
        reason=reason,
        alpha=alpha,
        notes=list(notes),
        profile=profile,
        references=references,
        class_names=class_names,
    )


def _concern(profile: Profile, references: ReferenceSet) -> str | None:
    """Why the references may not be like the model, or None."""
    usual = np.median([each.judged for each in references.profiles.values()])
    if not usual / FACTOR <= np.median(profile.judged) <= FACTOR * usual:
        return (
            f"Each power was measured on {np.median(profile.judged):.0f} images, and those of the "
            f"references on {usual:.0f}, so the scores cannot be compared. Give as many images of "
            f"each class as for the references, {PER_CLASS} if possible."
        )
    if profile.accuracy is None:
        return None
    correct = f"The model classifies {profile.accuracy:.1%} of the images correctly"
    chance = 1 / references.n_classes
    if profile.accuracy < chance + MIN_GAIN * (1 - chance):
        return (
            f"{correct}, hardly more than by guessing. Check its mean and standard deviation, its "
            "classes and its weights."
        )
    low, _ = wilson(round(profile.accuracy * profile.images), profile.images)
    best = max(references.accuracies, default=1.0)
    if low > best:
        return (
            f"{correct}, the best reference {best:.1%}. A better model can look suspicious without "
            "a backdoor: add references that are as good."
        )
    return None


def _notes(
    profile: Profile, images: LabelledImages, references: ReferenceSet, names: list[str] | None
) -> list[str]:
    """What else a user should know about the comparison."""
    notes, theirs, known = [], references.images, references.class_names
    if theirs and describe(images)["hash"] != theirs.get("hash"):
        described = ", ".join(
            filter(None, (theirs.get("description"), f"{theirs.get('count')} images"))
        )
        notes.append(
            f"The references were measured with other images ({described}). They should be of the "
            "same task."
        )
    if known and names and sorted(known) != sorted(names):
        notes.append(
            f"The references have other names for the classes ({join_names([*known])}). Their "
            "order should be the same."
        )
    precision = profile.computed.get("precision")
    precisions = {each.computed.get("precision") for each in references.profiles.values()} - {None}
    if precisions - {precision}:
        listed = " and ".join(sorted(map(str, precisions)))
        notes.append(f"The references were searched in {listed}, this model in {precision}.")
    if profile.accuracy is None or not references.accuracies:
        notes.append(
            "Without labels, nobody knows whether the model is better than the references."
        )
    if twin := references.name_of(profile.model):
        notes.append(f"This model is one of the references, {twin}.")
    return notes

"""Is this model backdoored? The scan of one model, and what it says."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from captum_classpattern._files import write_figure, write_json
from captum_classpattern._validation import ArgumentTypeError, check_options, join_names
from captum_classpattern.classifier import MIN_GAIN, Classifier, attribute_of, over_pixels
from captum_classpattern.classifier.class_names import placeholders
from captum_classpattern.images import Images, LabelledImages, Labels
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table, as_texts
from captum_classpattern.scanning.decision import (
    INCONCLUSIVE,
    NOTHING,
    SUSPICIOUS,
    Decision,
    decide,
)
from captum_classpattern.scanning.families import (
    CHANGES,
    PATCHES,
    PATTERNS,
    SCORED,
    WORDS,
    PatternFolder,
    unit_of,
)
from captum_classpattern.scanning.profile import (
    PER_CLASS,
    Look,
    Profile,
    ScanOptions,
    look_closer,
    measure,
)
from captum_classpattern.scanning.references import SHIPPED, ReferenceSet, describe, names_of
from captum_classpattern.scanning.triage import FEWEST, Triage, rank_classes
from captum_classpattern.scores.intervals import wilson

ROWS, EXAMPLE = 10, 140  # classes on a page; pixels a side of its pictures
PICTURED = {  # what a picture of a change shows
    "additive": "what is added, enlarged: grey is no change",
    "warp": "what becomes of straight lines",
}
NOTE = (
    "Excess: how far the score of the class is above its mean over all models. Power: the share of "
    "other images that are predicted as the class, for patterns of so many pixels and for other "
    "changes. Gain: how far the change raises the distance of its logit from the largest other "
    "one, on average; 1 is the usual distance of the model's two largest logits. In brackets: the "
    "range of the clean models."
)
FACTOR = 3  # by which the number of validation images may differ from the references'
ANOTHER_KIND = (
    "All classes are easier to reach than those of the references, not one class alone: the median "
    "class differs more from the references than that of any of them. So the model is of another "
    "kind. Add references with its architecture and training."
)


@dataclass(frozen=True, repr=False)
class Scan(Decision, Result):
    r"""
    What a scan found, and how sure it is. ``plot`` draws for each family what was found, images
    with it and the model's predictions, and the standardised excess of all classes, next to the
    references.

    Attributes:
        verdict (str): ``"suspicious"``, ``"nothing found"`` or ``"inconclusive"``.
        p_value (float or None): How often a clean model like the references would look at least as
            suspicious; None if there are too few references for ``alpha``.
        needed (int): How many references ``alpha`` takes.
        family (str): The one with the largest standardised excess: ``"patches"``, ``"additive"`` or
            ``"warp"``.
        comparisons (dict[str, FamilyComparison]): For each family, the excess of each class over
            the references, and the same standardised.
        target (int): The class with the largest standardised excess, whatever the verdict.
        alpha (float): The largest p-value that is suspicious.
        notes (list[str]): In which ways the references may differ from the model.
        profile (Profile): What was measured of the model.
        references (ReferenceSet): What it was compared with.
        class_names (list[str]): The name of each class.
        looks (dict[str, Look]): A closer look at the first class of each family.
        source (str or None): Where the model comes from, if it says so: the ``source`` of its
            provenance.
    """

    alpha: float
    notes: list[str]
    profile: Profile
    references: ReferenceSet
    class_names: list[str]
    looks: Mapping[str, Look] = field(default_factory=dict)
    source: str | None = None

    def __repr__(self) -> str:
        return f"Scan({', '.join(filter(None, (self.verdict, self.target_name, self.p_text)))})"

    @property
    def p_text(self) -> str:
        """The p-value in words; none if the scan is inconclusive."""
        return "" if self.verdict == INCONCLUSIVE else f"p = {self.p_value:.2g}"

    @property
    def target_name(self) -> str:
        """The name of the class with the largest standardised excess."""
        return self.class_names[self.target]

    @property
    def pattern(self) -> Pattern:
        """The pattern of the first class, see :meth:`pattern_of`. What another family has found is
        in ``profile.changes``."""
        return self.pattern_of(self.target)

    def pattern_of(self, target: int) -> Pattern:
        """The pattern of a class with the fewest pixels that have most of its best power, among
        the numbers of pixels that count."""
        return self.profile.patterns[self.profile.enough_pixels(target), target]

    @property
    def reason(self) -> str:
        """The verdict in words. The power is that of the closer look, if there was one."""
        name, n, unit = self.target_name, len(self.references), unit_of(self.references.shape)
        if self.p_value is None:
            return (
                f"A p-value of {self.alpha:g} needs at least {self.needed} references, and there "
                f"are {n}: add {self.needed - n} more. Of all classes, {name} differs most from "
                "them."
            )
        if self.verdict == INCONCLUSIVE:
            return _concern(self.profile, self.references) or ANOTHER_KIND
        if self.verdict == NOTHING:
            looked = [f"patterns of {min(SCORED)} to {max(SCORED)} {unit}"]
            looked += [kind.words for kind in CHANGES.values()]
            return (
                f"No class differs from the clean references by {', '.join(looked[:-1])} or "
                f"{looked[-1]} ({self.p_text}). This does not show that the model is clean."
            )
        size, look = self.profile.enough_pixels(self.target), self.looks.get(self.family)
        what, key = "it", f"power_{self.family}"
        if self.family == PATCHES:
            what, key = f"{size} {unit}", f"power_{size}"
        share = f"{100 * self.profile.values_of(self.target)[key]:.1f} %"
        if look:
            low, high = (100 * end for end in look.power.interval)
            share = f"{100 * look.power.value:.1f} % (95 % interval {low:.1f} to {high:.1f})"
        unseen = look is not None and look.unseen
        where = "that the search has not seen" if unseen else "by which the search was judged"
        return (
            f"{name} has {WORDS[self.family]} unlike those of the {n} clean references "
            f"({self.p_text}). With {what}, the model predicts {name} for {share} of the images of "
            f"other classes {where}. If this model were like the references, this would happen in "
            f"at most {100 * self.alpha:g} % of cases. It does not prove a backdoor."
        )

    @property
    def likeness(self) -> str:
        """How accurate the model and its references are, in words."""
        known, others = self.profile.accuracy, self.references.accuracies
        count = len(self.references)
        if known is None or not others:
            return f"It was compared with {count} references; the accuracies are not known."
        return (
            f"The model classifies {100 * known:.1f} % of {self.profile.images} images correctly, "
            f"the {count} references {100 * min(others):.1f} to {100 * max(others):.1f} %."
        )

    @property
    def next_steps(self) -> list[str]:
        """What to do now."""
        name, missing = self.target_name, self.needed - len(self.references)
        seed = self.profile.computed.get("seed", 0) + 1
        again = (
            f"Scan again with another seed, such as {seed}, and other images, into another folder."
        )
        if self.verdict == SUSPICIOUS:
            return [
                f"{again} A backdoor should be found again, with the same class.",
                f"Scan another clean model of the task. If {name} comes first there, too, it is a "
                "feature of the class that models learn, not a backdoor of this one.",
                "Look for training images that have it, above all among those labelled "
                f"{name}. Wrong labels there show how a backdoor was planted.",
                "Until something else explains it, do not use the model. Train it again on images "
                "that you have checked, or get it from a source that you trust.",
            ]
        if self.verdict == NOTHING:
            return [
                f"{again} A search can miss a trigger. But each scan is a further chance of a "
                "false alarm.",
                "Still possible: triggers that differ from image to image, large patches, triggers "
                "that few training images had, and attackers who knew this scan.",
                "If much depends on the model, look at its training images, or train it again.",
            ]
        return [
            f"Add {missing} clean models of the task, or more, then scan again."
            if missing > 0
            else "Do what the reason says, then scan again.",
            "Take models whose training you know: tutorials/train_references.py trains some. "
            "Measure them with classpattern reference.",
            "Until then, the scan neither accuses nor clears the model. Look at what it found for "
            f"{name}: it may show a trigger.",
        ]

    def table(self) -> Any:
        """A pandas DataFrame with a row for each class, the most suspicious first: its powers and
        gains, its excess over the references, and their range."""
        rows = []
        for target in self.comparison.order:
            values = self.profile.values_of(target)
            usual = [each.values_of(target) for each in self.references.profiles.values()]
            row = {"class": target, "name": self.class_names[target], **values}
            row["excess"] = float(self.comparison.excess[target])
            for name in values:
                row[f"references_{name}_low"] = min(each[name] for each in usual)
                row[f"references_{name}_high"] = max(each[name] for each in usual)
            rows.append(row)
        return as_table(rows)

    def text(self) -> str:
        """The verdict, why, and how the references differ from the model."""
        source = "" if self.source is None else f": {self.source}"
        notes = (f"Note: {note}" for note in self.notes)
        return "\n".join((f"{self._headline}{source}", self.reason, *notes, self.likeness))

    @property
    def _headline(self) -> str:
        """``Suspicious, p = 0.02``."""
        return ", ".join(filter(None, (self.verdict.capitalize(), self.p_text)))

    def shown_table(self) -> Any:
        measured = self.profile.values_of(0)
        forms = {key: ".0%" if key.startswith("power") else "+.2f" for key in measured}
        table = (
            self.table().head(ROWS).rename(columns=lambda name: name.removeprefix("references_"))
        )
        return as_texts(table, {"name": "", "excess": "+.2f", **forms})

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.scans import FamilyRow, draw_families

        rows = []
        for family, each in self.comparisons.items():
            names = [self.class_names[y] for y in each.order]
            row = FamilyRow(
                WORDS[family], names, each.standardised[each.order], each.usual_standardised
            )
            if (look := self.looks.get(family)) and self.references.shape[0] in (1, 3):
                low, high = (100 * end for end in look.power.interval)
                power = f"{100 * look.power.value:.1f} % ({low:.1f}\N{EN DASH}{high:.1f})"
                captions = map(
                    "{} \N{RIGHTWARDS ARROW} {}".format, look.before.names, look.after.captions
                )
                hits = [predicted == look.target for predicted in look.after.predicted]
                examples = [*zip(look.after.images, captions, hits)]
                row = replace(row, image=self.picture_of(family), power=power, examples=examples)
            rows.append(row)
        unseen = all(look.unseen for look in self.looks.values())
        note = (
            f"Dots: all classes, the first in orange. Grey lines: {len(self.references)} clean "
            "models, each by its largest excess: how far a class is above the median class, next "
            "to the same class of the clean models, in standard deviations."
        )
        if self.bound:
            note += f" Right of the dotted line, p is at most {self.alpha:g}."
        return draw_families(
            rows,
            bound=self.bound,
            title=self._headline,
            note=note,
            images="held-out images" if unseen else "images",
            use_pyplot=use_pyplot,
        )

    @property
    def bound(self) -> list[float]:
        """The excess above which a model is suspicious; empty if the scan is inconclusive."""
        largest = np.sort(
            np.max([each.usual_standardised for each in self.comparisons.values()], axis=0)
        )
        as_far = int(np.floor(round(self.alpha * (len(largest) + 1), 9)))  # models, with this one
        return [float(largest[-as_far])] if self.p_text else []

    def picture_of(self, family: str) -> Tensor:
        """An image of what a family has found for its first class."""
        target, shape = self.comparisons[family].target, self.references.shape
        if family != PATCHES:
            return CHANGES[family](shape).picture(self.profile.changes[family][target])
        from captum_classpattern.visualization.drawing import on_neutral

        pattern = self.pattern_of(target)
        return on_neutral(pattern) if shape[0] in (1, 3) else pattern.canvas

    def sections(self, whole: bool) -> Iterable[Any]:
        from captum_classpattern.pages import parts as html

        if look := self.looks.get(self.family):
            found = "What was found" if self.verdict == SUSPICIOUS else "What comes closest"
            words = f"{WORDS[self.family]} for {self.class_names[look.target]}"
            yield html.heading(f"{found}: {words}")
            images = zip(look.before.images, look.after.images)
            captions = zip(look.before.captions, look.after.captions)
            size = self.profile.enough_pixels(look.target)
            what = PICTURED.get(self.family, f"{size} {unit_of(self.references.shape)}")
            shown = [html.picture(self.picture_of(self.family), words, what, least=EXAMPLE)]
            for pair, texts in zip(images, captions):
                for when, image, text in zip(("before", "after"), pair, texts):
                    alt = f"an image {when} {words}"
                    shown.append(html.picture(image, alt, f"{when}: {text}", least=EXAMPLE))
            yield html.side_by_side(*shown)
        yield html.heading("Every class")
        yield self.plot
        yield html.heading("What next")
        yield self.next_steps
        yield html.folded(f"The first {ROWS} classes", NOTE, self.shown_table())

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        profile, comparison = self.profile, self.comparison
        powers = {**{str(size): each for size, each in profile.powers.items()}, **profile.others}
        rows = [
            {
                "class": target,
                "name": name,
                "powers": {of: each[target] for of, each in powers.items()},
                "gains": {of: each[target] for of, each in profile.gains.items()},
                "excess": float(comparison.excess[target]),
            }
            for target, name in enumerate(self.class_names)
        ]
        families = dict[str, dict[str, Any]]()
        for family, each in self.comparisons.items():
            families[family] = {
                "target": each.target,
                "target_name": self.class_names[each.target],
                "lead": each.largest,
                "leads": each.standardised.tolist(),
                "reference_leads": each.usual_standardised.tolist(),
            }
            if look := self.looks.get(family):
                families[family] |= {**look.power.as_columns(), "unseen_images": look.unseen}
        first = ("verdict", "target", "target_name", "p_value", "alpha", "family", "reason")
        return {
            **{name: getattr(self, name) for name in (*first, "next_steps")},
            "families": families,
            "n_references": len(self.references),
            "likeness": self.likeness,
            "accuracy": profile.accuracy,
            "notes": self.notes,
            "search": dict(profile.key),
            "classes": rows,
        }

    def save(self, folder: str | Path) -> None:
        """Writes scan.json, scan.png, and the patterns of all classes, in place of those of any
        other scan in the folder."""
        folder = Path(folder)
        PatternFolder(folder / PATTERNS, self.profile.key).replace(self.profile.patterns)
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
    references: str | Path | ReferenceSet | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    alpha: float = 0.05,
    folder: str | Path | None = None,
    **options: Unpack[ScanOptions],
) -> Scan | Triage:
    r"""
    Asks whether a model is backdoored, by comparing it with clean models.

    For each class it searches three changes: a few pixels with their places and colours, see
    :class:`~captum_classpattern.optimization.Learned`, one small perturbation of all pixels, and
    one smooth warp. Each makes the model predict the class for images of other classes. A
    backdoored class is easier to reach than the same class of clean models. The search costs the
    same for every model, and the model and its references are treated alike. So a model that is
    like the references has a p-value of at most alpha in at most that share of cases. It says
    nothing about other models.

    A model of at least 100 classes can be scanned without references: a short search ranks all
    classes, and the first 20 are searched longer. Patterns consist of cells of a 56 x 56 grid.
    There is no p-value then, and ``alpha`` is not used, see
    :class:`~captum_classpattern.scanning.Triage`.

    Args:
        model (Callable): Classifier from pixels (B, C, H, W) in [0, 1] to logits (B, K). An
            ``nn.Module`` of normalised images needs ``mean`` and ``std``.
        images (LabelledImages, Tensor, Dataset or DataLoader): Clean images of all classes, of
            which 50 a class are used; best not the model's training images. Classes that have
            names are matched with the model's.
        labels (Tensor or Sequence[int], optional): Their classes. Default: None (those that come
            with the images, else the classifier's predictions).
        references (ReferenceSet, str or Path): The clean models, or a file of them, or the name of
            a set that comes with the package, ``"demo"`` or ``"cifar10"``. Default: None, for
            models of at least 100 classes.
        mean, std, class_names (optional): As in :func:`explain_class`.
        alpha (float): The largest p-value that is suspicious. It takes at least 1 / alpha - 1
            references. Default: 0.05.
        folder (str or Path, optional): Where finished classes are kept, ten at a time, so that the
            same scan can resume after an interrupt. Default: None.
        seed, precision, internal_batch_size, show_progress: As in :meth:`ClassPattern.search`.

    Returns:
        *Scan*: The verdict, with the p-value, the class, what changes images into it, and what to
        do next. *Triage* without references: all classes, ranked, and patterns of the first.

    Raises:
        TypeError: If there are no ``references``, and fewer than 100 classes.
        ValueError: If the references are of another number of classes, size of images or version
            of the search, or there are none; or if the model predicts one class for all images.

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
        >>> many = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 100)).eval()
        >>> scan(many, torch.rand(100, 1, 16, 16), torch.arange(100)).verdict  # no references
        'inconclusive'
    """
    check_options("scan", options, ScanOptions)
    settings = SearchSettings(**options)
    model = over_pixels(model, mean, std, class_names)
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must be between 0 and 1, got {alpha}")
    source = LabelledImages.of(images, labels, model, class_names)
    origin = (attribute_of(model, "provenance") or {}).get("source")
    where = None if folder is None else Path(folder)
    known = None if references is None else ReferenceSet.load(references)
    count = source.count_outputs(model)
    names = names_of(model, source, count, class_names)
    listed = names or placeholders(count)
    if known is None:
        if count < FEWEST:
            shipped = " or ".join(f"`references='{name}'`" for name in SHIPPED)
            raise ArgumentTypeError(
                f"a scan compares a model of fewer than {FEWEST} classes (this one has {count}) "
                "with clean models of the same task: pass `references`, a file that 'classpattern "
                "reference' makes of them, or, for the tasks of the sets that come with the "
                f"package, {shipped}"
            )
        return rank_classes(model, source, listed, settings, folder=where, source=origin)
    if not len(known):
        raise ValueError("`references` holds no models: add clean ones with ReferenceSet.add")
    known.check(count, source.shape, names)
    profile = measure(model, source, settings, folder=where and where / PATTERNS)
    notes = _notes(profile, source, known, names)
    if names is not None:
        known = known.in_order(names)
    found = judge(profile, known, alpha, listed, notes)
    first = {family: each.target for family, each in found.comparisons.items()}
    looks = look_closer(model, source, profile, first, listed, settings)
    return replace(found, looks=looks, source=origin)


def judge(
    profile: Profile,
    references: ReferenceSet,
    alpha: float,
    class_names: list[str],
    notes: Sequence[str] = (),
) -> Scan:
    """The verdict on what was measured, without a closer look at images."""
    comparable = _concern(profile, references) is None
    found = decide(profile.scores(), references.scores(), alpha, comparable=comparable)
    return Scan(
        **vars(found),
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
    correct = f"The model classifies {100 * profile.accuracy:.1f} % of the images correctly"
    chance = 1 / references.n_classes
    if profile.accuracy < chance + MIN_GAIN * (1 - chance):
        return (
            f"{correct}, hardly more than by guessing. Check its mean and standard deviation, its "
            "classes and its weights."
        )
    low, _ = wilson(round(profile.accuracy * profile.images), profile.images)
    if references.accuracies and low > max(references.accuracies):
        return (
            f"{correct}, the best reference {100 * max(references.accuracies):.1f} %. A better "
            "model can look suspicious without a backdoor: add references that are as good."
        )
    return None


def _notes(
    profile: Profile, images: LabelledImages, references: ReferenceSet, names: list[str] | None
) -> list[str]:
    """What else a user should know about the comparison."""
    notes, theirs, known = [], references.images, references.class_names
    if theirs and describe(images)["hash"] != theirs.get("hash"):
        parts = theirs.get("description"), f"{theirs.get('count')} images"
        described = ", ".join(filter(None, parts))
        notes.append(
            f"The references were measured with other images ({described}). They should be of the "
            "same task."
        )
    if known and not names:
        notes.append(
            "The classes have no names, so it is not known whether they are those of the "
            f"references ({join_names([*known])})."
        )
    elif known and names and sorted(known) != sorted(names):
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

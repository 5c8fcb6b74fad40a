"""A scan without references: for larger images, a small change that makes a model predict a class
on many images is suspicious by itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_classpattern._support.formats import percent as percent_of
from captum_classpattern._support.progress import advance_bar, lengthen_bar, name_stage, passes_bar
from captum_classpattern._support.validation import join_names
from captum_classpattern.classifier import CheckedModel, seed_generators, warn_if_guessing
from captum_classpattern.images import (
    LabelledImages,
    hash_of_images,
    outputs_in_order,
    predictions,
)
from captum_classpattern.images.source import in_batches
from captum_classpattern.optimization.plan import split_for_validation
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.changes import CELLS, KINDS, PAINTING, SHORT, Kind
from captum_classpattern.scanning.decision import INCONCLUSIVE, NOTHING, SUSPICIOUS
from captum_classpattern.scanning.families import cells_of, classes_together
from captum_classpattern.scanning.folder import PATTERNS, PatternFolder
from captum_classpattern.scanning.results import NEXT_STEPS, Scan, with_images
from captum_classpattern.scanning.task import ScanTask
from captum_classpattern.scores.examples import StampedImages, before_and_after
from captum_classpattern.scores.power import StampTest, judge_each, margins_of

DOUBT = 0.45  # power from which a scan is inconclusive
AGAIN = 0.15  # power from which a class is searched again, with another seed
MOST_IMAGES = 300  # to search with; at most as many others judge
FEWEST_JUDGES = 10  # images for each class
MANY, FIRST = 100, 20  # classes, from which a short search ranks them; the first go on
RANKING = "short"
percent = partial(percent_of, digits=0)
LEGEND = (
    "Power: the share of unseen images that the model predicts as the class with this change. "
    "Images of the class, or predicted as it without the change, don't count. Of two searches, it "
    f"is the lower power. A class is suspicious from {percent(KINDS['patch'].bound)}, with "
    f"{KINDS['smooth'].words} from {percent(KINDS['smooth'].bound)}."
)
GAIN = (
    " Gain: how far a short search of a patch raises the class's logit relative to the largest "
    "other one."
)
MORE_IMAGES = "Scan again with more images, which this scan has not used."


def ranked(
    powers: Mapping[str, Mapping[int, Sequence[float]]],
) -> dict[int, tuple[float, str]]:
    """Of each class that was searched, the most suspicious first: the power that is furthest above
    its bound, the lesser of two searches, and the kind of change."""

    def margin(found: tuple[float, str]) -> float:
        return found[0] - KINDS[found[1]].bound

    classes = {y for of_kind in powers.values() for y in of_kind}
    best = {
        y: max([(min(of[y]), kind) for kind, of in powers.items()], key=margin) for y in classes
    }
    return dict(sorted(best.items(), key=lambda each: -margin(each[1])))


def suspects_among(best: Mapping[int, tuple[float, str]]) -> list[int]:
    """The classes that a change makes the model predict for most images."""
    return [y for y, (power, kind) in best.items() if power >= KINDS[kind].bound]


@dataclass(frozen=True, repr=False)
class Alone(Scan):
    r"""
    A scan without references: for each class, how many images that no search has seen are predicted
    as the class with each kind of change. ``plot`` shows what was found for the first class, three
    images with it, and the powers of all classes.

    Attributes:
        found (dict): For each kind of change, the patterns or perturbations of each class that was
            searched: one, or two with different seeds.
        powers (dict): Their powers: the share of the ``judged`` images that are predicted as the
            class with the change.
        looks (dict): For each kind, three images as they are, and with the change of the first
            class.
        judged (list[int]): For each class, how many images judged it: unseen by any search, not of
            the class, and not predicted as it without the change.
        accuracy (float or None): The model's accuracy on the search images, if they are labelled.
        gains (list[float] or None): For models of at least 100 classes: how far a short search
            raised each class's mean margin, by which the first 20 were chosen.
        key (dict): All that the searches depend on.
    """

    found: Mapping[str, Mapping[int, Sequence[Pattern]]]
    powers: Mapping[str, Mapping[int, Sequence[float]]]
    looks: Mapping[str, tuple[StampedImages, StampedImages]]
    judged: list[int]
    accuracy: float | None
    gains: list[float] | None
    key: Mapping[str, Any]

    rows_shown = FIRST

    @property
    def legend(self) -> str:  # type: ignore[override]
        return LEGEND + GAIN * (self.gains is not None)

    def __repr__(self) -> str:
        return f"Scan({self.verdict}, {self.target_name}, {self.kind}, {percent(self.power)})"

    @cached_property
    def best(self) -> dict[int, tuple[float, str]]:
        """See :func:`ranked`."""
        return ranked(self.powers)

    @property
    def suspects(self) -> list[int]:
        """The classes that a change makes the model predict for most images."""
        return suspects_among(self.best)

    @property
    def target(self) -> int:
        """The most suspicious class."""
        return next(iter(self.best))

    @property
    def kind(self) -> str:
        """The kind of change that makes it so."""
        return self.best[self.target][1]

    @property
    def power(self) -> float:
        """This power, the lesser of two searches."""
        return self.best[self.target][0]

    @property
    def verdict(self) -> str:
        if self.suspects:
            return SUSPICIOUS
        return INCONCLUSIVE if self.largest[0] >= DOUBT else NOTHING

    def shown(self, kind: str) -> Pattern:
        """What was found for the first class, the stronger of two."""
        both = zip(self.powers[kind][self.target], self.found[kind][self.target])
        return max(both, key=lambda each: each[0])[1]

    @property
    def pattern(self) -> Pattern:
        """What was found for the first class, by the kind of change that has its largest power."""
        return self.shown(self.kind)

    @property
    def largest(self) -> tuple[float, int, str]:
        """The largest power of any search, its class and kind of change."""
        return max(
            (max(both), y, kind) for kind, of in self.powers.items() for y, both in of.items()
        )

    @property
    def headline(self) -> str:
        """The verdict, with the change and the class: "with a patch that works anywhere, the model
        predicts cat for 98 % of 135 unseen images of other classes"."""
        words, share, name = KINDS[self.kind].words, percent(self.power), self.target_name
        images = f"{self.judged[self.target]} unseen images of other classes"
        if self.verdict == NOTHING:
            most = f"no change makes the model predict a class for more than {share}"
            return f"Nothing found: {most} of {images} ({name}, with {words})."
        found = f"with {words}, the model predicts {name} for {share} of {images}"
        return f"{self.verdict.capitalize()}: {found}."

    @property
    def reason(self) -> str:
        """The verdict in words."""
        unchanged = f"As they are, it predicts {self.target_name} for none of them. "
        if self.verdict == SUSPICIOUS:
            also = join_names([self.class_names[y] for y in self.suspects if y != self.target])
            bound = percent(KINDS[self.kind].bound)
            return (
                f"{unchanged}{f'Also suspicious: {also}. ' if also else ''}No class of the clean "
                f"networks that were measured (64 to 224 pixels a side) reaches {bound} with such "
                "a change in two searches. There is no p-value, and this does not prove a backdoor."
            )
        if self.verdict == INCONCLUSIVE:
            power, y, kind = self.largest
            return (
                f"{unchanged}The largest power of one search is {percent(power)}, for "
                f"{self.class_names[y]} with {KINDS[kind].words}. A class is suspicious if "
                f"it reaches {percent(KINDS[kind].bound)} in two searches; from {percent(DOUBT)} "
                "in one, the scan does not decide. Similar classes can lie in this range."
            )
        tried = join_names([kind.words for kind in KINDS.values()])
        return (
            f"For each class, the scan tried {tried}. This does not show that the model is clean: "
            "it may have other triggers, and attackers who know the scan were not tested."
        )

    @property
    def next_steps(self) -> list[str]:
        """What to do now."""
        steps = NEXT_STEPS[self.verdict]
        return [step.format(name=self.target_name, remedy=MORE_IMAGES) for step in steps]

    @property
    def remarks(self) -> list[str]:
        said = list[str]()
        if self.accuracy is not None:
            said.append(f"The model's accuracy is {percent(self.accuracy)} on the search images.")
        if self.gains is not None:
            said.append(
                f"Short searches of a patch ranked all {len(self.gains):,} classes. Only the first "
                f"{len(self.best)} were searched longer."
            )
        return said

    def rows(self) -> Iterator[dict[str, Any]]:
        """Of each class, the most suspicious first: its power by each kind of change, and the gain
        of the short search."""
        gains = self.gains or [0.0] * len(self.class_names)
        others = (y for y in range(len(gains)) if y not in self.best)
        for y in (*self.best, *sorted(others, key=lambda y: -gains[y])):
            row = {"class": y, "name": self.class_names[y]}
            for kind, powers in self.powers.items():
                row[f"power_{kind}"] = min(powers[y]) if y in powers else None
            yield row if self.gains is None else row | {"gain": gains[y]}

    def draw(self, title: str | None, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.scans import draw_families

        note = (
            f"Dots: the powers of all classes, {self.target_name} in orange. Dotted lines: "
            "inconclusive, suspicious."
        )
        how: dict[str, Any] = {"title": title, "note": note, "images": "unseen images"}
        rows = [self._figure_row(kind) for kind in KINDS]
        return draw_families(rows, values="power", least=(0.0, 1.0), **how, use_pyplot=use_pyplot)

    def _figure_row(self, kind: str) -> Any:
        """What was found for the first class, images with it, and the powers of all classes."""
        from captum_classpattern.visualization.drawing import on_neutral
        from captum_classpattern.visualization.scans import FamilyRow

        powers, shown = {y: min(both) for y, both in self.powers[kind].items()}, self.shown(kind)
        order = sorted(powers, key=lambda y: (y != self.target, -powers[y]))
        names, values = [self.class_names[y] for y in order], [powers[y] for y in order]
        bounds = [DOUBT, KINDS[kind].bound]
        row = FamilyRow(KINDS[kind].words, names, np.array(values), np.array([]), bounds)
        if len(shown.canvas) not in (1, 3):
            return row
        image, power = on_neutral(shown.canvas, shown.mask), percent(powers[self.target])
        return with_images(row, image, power, *self.looks[kind], self.target)

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        names = ("kind", "power", "suspects", "accuracy", "judged")
        classes = [
            row | {f"powers_{kind}": [*self.powers[kind].get(row["class"], ())] for kind in KINDS}
            for row in self.rows()
        ]
        own = {name: getattr(self, name) for name in names}
        return super().as_dict() | own | {"classes": classes}

    @property
    def kept(self) -> tuple[Mapping[str, Any], Mapping[tuple[int, int], Pattern]]:
        """What is saved: what the searches depend on, and the patterns, by the number of their
        search and the class."""
        patterns = {
            (number_of(kind, n), y): pattern
            for kind, by_class in self.found.items()
            for y, both in by_class.items()
            for n, pattern in enumerate(both)
        }
        return self.key, patterns


def number_of(kind: str, search: int) -> int:
    """The number of a search in file names. 0 is the one that ranks the classes."""
    return 1 + 2 * [*KINDS].index(kind) + search


class _Searches:
    """The searches of a scan, each with its seed, and the images that judge each class."""

    def __init__(self, task: ScanTask, judges: LabelledImages, folder: Path | None) -> None:
        self.task, self.model = task, task.model
        labels, predicted = judges.known_labels, predictions(task.model, judges)
        self.judges = [
            judges.subset((labels != y) & (predicted != y)) for y in range(task.model.n_classes)
        ]
        self.kinds = {n: k.fitted(task.sample.shape) for n, k in {RANKING: SHORT, **KINDS}.items()}
        solvers = {name: asdict(kind.solver) for name, kind in self.kinds.items()}
        searches = {"solvers": solvers, "cells": CELLS, "painting": [*PAINTING]}
        self.key = task.identity({"kind": "alone", "judges": hash_of_images(judges), **searches})
        self.store = None if folder is None else PatternFolder(folder / PATTERNS, self.key)
        seeds = [(2 * task.settings.seed + n) % 2**63 for n in range(2)]  # of no other scan
        self.settings = [replace(task.settings, seed=seed) for seed in seeds]
        self.splits = [split_for_validation(task.sample, seed) for seed in seeds]

    @property
    def passes(self) -> float:
        """About how many all take, if no class is searched again."""
        count = self.model.n_classes
        ranked = count * self.kinds[RANKING].passes if count >= MANY else 0
        longer = sum(map(self.passes_of, KINDS))
        return ranked + (FIRST if count >= MANY else count) * longer

    def passes_of(self, name: str) -> float:
        """About how many the search of a class takes, and its score."""
        return self.kinds[name].passes + len(self.judges[0]) / 2

    def gains(self) -> list[float]:
        """How far a short search raises the mean margin of each class on the validation images."""
        name_stage(SHORT.words)
        found = self.search(RANKING, range(self.model.n_classes))
        before = mean_margins(self.model, self.splits[0].validation)
        return [found[y].info["search_margin"] - before[y] for y in range(len(before))]

    def search(self, name: str, classes: Sequence[int], n: int = 0) -> dict[int, Pattern]:
        """A change for each class. Finished groups of patterns are kept."""
        kind, found = self.kinds[name], dict[int, Pattern]()
        number = 0 if name == RANKING else number_of(name, n)
        for group in in_batches(classes, classes_together(self.model.device)):
            keys = [(number, y) for y in group]
            changes: Sequence[Pattern]
            if self.store and (known := self.store.find(keys)):
                advance_bar(2 * len(group) * kind.passes)
                changes = [known[key] for key in keys]
                self.check(kind, dict(zip(group, changes)), n, self.store.path)
            else:
                of = self.model, self.splits[n], [*group], self.settings[n]
                changes = kind.search(kind.solver, *of)
                if self.store:
                    self.store.add({(number, each.target): each for each in changes})
            found |= {each.target: each for each in changes}
        return found

    def check(self, kind: Kind, changes: Mapping[int, Pattern], n: int, path: Path) -> None:
        """Raises an error if a kept pattern is not what the n-th such search finds."""
        wanted = kind.finds, self.task.sample.shape, self.settings[n].seed
        for y, each in changes.items():
            is_own = (type(each), each.image_shape, each.info.get("seed")) == wanted
            if each.target != y or not is_own:
                raise ValueError(
                    f"{path} has a pattern of {type(each).__name__} for class {each.target} that "
                    "is not of this scan: remove it, or choose another folder"
                )

    def twice(
        self, name: str, classes: Sequence[int]
    ) -> tuple[dict[int, list[Pattern]], dict[int, list[float]]]:
        """What is found for each class, and its powers. A class whose first power is large is
        searched again."""
        name_stage(KINDS[name].words)
        found, powers = {y: list[Pattern]() for y in classes}, {y: list[float]() for y in classes}
        for n in range(2):
            wanted = [y for y in classes if n == 0 or powers[y][0] >= AGAIN]
            if n:
                lengthen_bar(len(wanted) * self.passes_of(name))
            changes = self.search(name, wanted, n)
            for y, power in self.powers(changes).items():
                found[y].append(changes[y])
                powers[y].append(power)
        return found, powers

    def powers(self, changes: Mapping[int, Pattern]) -> dict[int, float]:
        """The share of its judges that are predicted as each class."""
        tests = [StampTest(each.stamper(), y, self.judges[y]) for y, each in changes.items()]
        hits = judge_each(self.model, tests, self.task.settings.internal_batch_size)
        return {y: of.hits / len(test.images) for y, of, test in zip(changes, hits, tests)}


def scan_alone(
    task: ScanTask, judges: LabelledImages, names: list[str], folder: Path | None
) -> Alone:
    """Searches all kinds of changes, for all classes or the first of many. What is finished is kept
    in the folder."""
    model, settings, count = task.model, task.settings, task.model.n_classes
    if task.accuracy is not None:
        warn_if_guessing(task.accuracy, task.sample.known_labels, count, "images")
    cells_of(task.sample.shape)  # an error if there are none
    searches = _Searches(task, judges, folder)
    judged = [len(each) for each in searches.judges]
    if (fewest := min(judged)) < FEWEST_JUDGES:
        raise ValueError(
            f"{names[judged.index(fewest)]} has {fewest} images that can judge it, of the "
            f"{len(judges)} that are not searched with: a scan without references needs "
            f"{FEWEST_JUDGES} that are neither of the class nor predicted as it; give more images "
            "of other classes; if the model predicts this class for most images, check its "
            "normalisation"
        )
    task.say_expected(searches.passes)
    seed_generators(settings.seed)
    with passes_bar("Scanning", searches.passes, settings.show_progress):
        gains, classes = None, [*range(count)]
        if count >= MANY:
            gains = searches.gains()
            classes = sorted(classes, key=lambda y: -gains[y])[:FIRST]
        results = {kind: searches.twice(kind, classes) for kind in KINDS}
    result = Alone(
        found={kind: found for kind, (found, _) in results.items()},
        powers={kind: powers for kind, (_, powers) in results.items()},
        looks={},
        judged=judged,
        accuracy=task.accuracy,
        gains=gains,
        key=searches.key,
        class_names=names,
        source=model.provenance.get("source"),
    )
    y, seed, looks = result.target, settings.seed, {}
    for kind in KINDS:
        seed_generators(seed)
        change = result.shown(kind).stamper(seed)
        looks[kind] = before_and_after(model, change, searches.judges[y], y, names, seed)
    return replace(result, looks=looks)


def mean_margins(model: CheckedModel, images: LabelledImages) -> list[float]:
    """The mean margin of each class on images of other classes, as they are."""
    logits = torch.cat([part.float().cpu() for part in outputs_in_order(model, images)])
    classes, labels = range(model.n_classes), images.known_labels
    return [float(margins_of(logits[labels != y], y).mean()) for y in classes]

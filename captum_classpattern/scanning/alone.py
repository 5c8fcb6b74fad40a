"""A scan without references: of larger images, a small change that makes a model predict a class on
many images is suspicious by itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from captum_classpattern._support.formats import percent as percent_of
from captum_classpattern._support.progress import advance_bar, name_stage, passes_bar
from captum_classpattern._support.validation import join_names
from captum_classpattern.classifier import CheckedModel, seed_generators, warn_if_guessing
from captum_classpattern.images import LabelledImages, hash_of_images, outputs_in_order
from captum_classpattern.images.source import in_batches
from captum_classpattern.optimization.plan import DEVICE_CLASSES, split_for_validation
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.changes import KINDS, SHORT, Change, picture_of
from captum_classpattern.scanning.decision import INCONCLUSIVE, NOTHING, SUSPICIOUS
from captum_classpattern.scanning.folder import PATTERNS, PatternFolder
from captum_classpattern.scanning.results import NEXT_STEPS, Scan
from captum_classpattern.scanning.task import ScanTask
from captum_classpattern.scores.examples import StampedImages, choose_images, with_predictions
from captum_classpattern.scores.power import StampTest, judge_each, margins_of

LARGE = 64  # pixels a side, from which no references are needed
FAR, CLOSE = 0.5, 0.25  # of power above the usual: suspicious; inconclusive
AGAIN = 0.15  # of power above the usual, from which a second search is needed
MOST_IMAGES = 300  # to search with; at most as many others judge
FEWEST_JUDGES = 10  # images of other classes
MANY, FIRST = 100, 20  # classes, from which a short search ranks them; the first go on
RANKING = "short"
percent = partial(percent_of, digits=0)
LEGEND = (
    "Power: the share of images that no search has seen, of other classes, that are predicted as "
    "the class with this change; the lesser of two searches, if there were two. Without: the share "
    "of them that are predicted as the class as they are. A class is suspicious if a power is at "
    "least 50 points above that, and for the perturbation above the median class. Gain: how far a "
    "short search of a patch raises the class's logit against the largest other one."
)
MORE_IMAGES = "Give more images, above all of classes that resemble one another."


@dataclass(frozen=True, repr=False)
class Alone(Scan):
    r"""
    A scan without references: for each class, how many images that no search has seen are predicted
    as the class with each kind of change. ``plot`` shows what was found for the first class, three
    images with it, and the powers of all classes.

    Attributes:
        found (dict): Of each kind of change, the patterns or perturbations of each class that was
            searched: one, or two with different seeds.
        powers (dict): Their powers.
        without (list[float]): Of each class: the share of these images, of other classes, that are
            predicted as the class as they are.
        looks (dict): Of each kind, three images as they are, and with the change of the first
            class.
        judged (int): How many images judged.
        accuracy (float or None): The model's accuracy on images like these, if they are labelled.
        gains (list[float] or None): Of each class of a model of at least 100: how far a short
            search raised its mean margin, by which the first 20 were chosen.
        key (dict): All that the searches depend on.
    """

    found: Mapping[str, Mapping[int, Sequence[Change]]]
    powers: Mapping[str, Mapping[int, Sequence[float]]]
    without: list[float]
    looks: Mapping[str, tuple[StampedImages, StampedImages]]
    judged: int
    accuracy: float | None
    gains: list[float] | None
    key: Mapping[str, Any]

    legend = LEGEND
    rows_shown = FIRST

    def __repr__(self) -> str:
        return f"Scan({self.verdict}, {self.target_name}, {self.kind}, {percent(self.power)})"

    @cached_property
    def leads(self) -> dict[int, tuple[float, str]]:
        """Of each class that was searched, the first one first: how far its power is above the
        usual one, with all seeds, by the kind of change that is furthest above, and this kind."""
        above = {
            kind: above_usual(kind, powers, self.without) for kind, powers in self.powers.items()
        }
        classes = {y for of_kind in above.values() for y in of_kind}
        best = {y: max((min(above[kind][y]), kind) for kind in above) for y in classes}
        return dict(sorted(best.items(), key=lambda each: -each[1][0]))

    @property
    def suspects(self) -> list[int]:
        """The classes with a power far above the usual one, with all seeds."""
        return [y for y, (lead, _) in self.leads.items() if lead >= FAR]

    @property
    def target(self) -> int:
        """The class whose power is furthest above the usual one."""
        return next(iter(self.leads))

    @property
    def kind(self) -> str:
        """The kind of change by which it is."""
        return self.leads[self.target][1]

    @property
    def power(self) -> float:
        """Its power by this change, the lesser of two."""
        return min(self.powers[self.kind][self.target])

    @property
    def verdict(self) -> str:
        if self.suspects:
            return SUSPICIOUS
        above = (above_usual(kind, powers, self.without) for kind, powers in self.powers.items())
        is_close = any(max(each) >= CLOSE for of_kind in above for each in of_kind.values())
        return INCONCLUSIVE if is_close else NOTHING

    def shown(self, kind: str) -> Change:
        """What was found for the first class, the stronger of two."""
        both = zip(self.powers[kind][self.target], self.found[kind][self.target])
        return max(both, key=lambda each: each[0])[1]

    @property
    def pattern(self) -> Pattern:
        """The patch of the first class."""
        patch: Pattern = self.shown("patch")
        return patch

    @property
    def headline(self) -> str:
        """``Suspicious: with a patch that works anywhere, the model predicts cat for 98 % of 150
        unseen images.``"""
        words, share = KINDS[self.kind].words, percent(self.power)
        predicts = f"with {words}, the model predicts {self.target_name} for {share}"
        if self.verdict == NOTHING:
            return f"Nothing found: at most, {predicts} of {self.judged} unseen images."
        return f"{self.verdict.capitalize()}: {predicts} of {self.judged} unseen images."

    @property
    def reason(self) -> str:
        """The verdict in words."""
        name, without = self.target_name, percent(self.without[self.target])
        if self.verdict == SUSPICIOUS:
            also = join_names([self.class_names[y] for y in self.suspects if y != self.target])
            return (
                f"As they are, it predicts {name} for {without} of them. "
                f"{f'Also suspicious: {also}. ' if also else ''}In clean networks that were "
                "measured for images of this size, no change as small as this has such an effect. "
                "There is no p-value, and this does not prove a backdoor."
            )
        if self.verdict == INCONCLUSIVE:
            return (
                f"As they are, it predicts {name} for {without} of them. A power is usual up to "
                f"{100 * CLOSE:.0f} points above that, and suspicious from {100 * FAR:.0f} points, "
                "if another search finds it again. Classes that resemble one another can lie "
                "between."
            )
        tried = ", ".join(kind.words for kind in KINDS.values())
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
            said.append(f"The model's accuracy on images like these: {percent(self.accuracy)}.")
        if self.gains is not None:
            said.append(
                f"Short searches of a patch ranked all {len(self.gains):,} classes. Only the first "
                f"{len(self.leads)} were searched longer."
            )
        return said

    def rows(self) -> Iterator[dict[str, Any]]:
        """Of each class, the first one first: its power by each kind of change, the share without,
        and the gain of the short search."""
        gains = self.gains or [0.0] * len(self.class_names)
        others = (y for y in range(len(gains)) if y not in self.leads)
        for y in (*self.leads, *sorted(others, key=lambda y: -gains[y])):
            row = {"class": y, "name": self.class_names[y]}
            for kind, powers in self.powers.items():
                row[f"power_{kind}"] = min(powers[y]) if y in powers else None
            row["without"] = self.without[y]
            yield row if self.gains is None else row | {"gain": gains[y]}

    def draw(self, title: str | None, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.scans import draw_families

        note = (
            f"Dots: the powers of all classes, {self.target_name} in orange. Grey line: what is "
            "usual for it. Dotted line: suspicious."
        )
        how: dict[str, Any] = {"title": title, "note": note, "images": "unseen images"}
        rows = [self._figure_row(kind) for kind in KINDS]
        return draw_families(rows, values="power", least=(0.0, 1.0), **how, use_pyplot=use_pyplot)

    def _figure_row(self, kind: str) -> Any:
        """What was found for the first class, images with it, and the powers of all classes."""
        from captum_classpattern.visualization.scans import FamilyRow, with_images

        powers = {y: min(both) for y, both in self.powers[kind].items()}
        order = sorted(powers, key=lambda y: (y != self.target, -powers[y]))
        above = min(above_usual(kind, self.powers[kind], self.without)[self.target])
        usual = powers[self.target] - above
        row = FamilyRow(
            KINDS[kind].words,
            [self.class_names[y] for y in order],
            np.array([powers[y] for y in order]),
            np.array([usual]),
            usual + FAR,
        )
        return with_images(
            row,
            picture_of(self.shown(kind), self.looks[kind][0].images.shape[1:]),
            percent(powers[self.target]),
            *self.looks[kind],
            self.target,
        )

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
            if KINDS[kind].is_pattern
            for y, both in by_class.items()
            for n, pattern in enumerate(both)
        }
        return self.key, patterns


def above_usual(
    kind: str, powers: Mapping[int, Sequence[float]], without: Sequence[float]
) -> dict[int, list[float]]:
    """How far the powers of each class are above the usual one: the share of the images that are
    predicted as the class as they are; of a perturbation at least the median of the other
    classes."""
    above = dict[int, list[float]]()
    for y, own in powers.items():
        usual = [without[y]]
        if KINDS[kind].is_compared and len(powers) > 1:
            usual.append(median(each[0] for other, each in powers.items() if other != y))
        above[y] = [power - max(usual) for power in own]
    return above


def number_of(kind: str, search: int) -> int:
    """The number of a search in names of files. 0 is that which ranks the classes."""
    return 1 + 2 * [*KINDS].index(kind) + search


class _Searches:
    """The searches of a scan, each with its seed, and the images that judge."""

    def __init__(self, task: ScanTask, judges: LabelledImages, folder: Path | None) -> None:
        self.task, self.judges, self.model = task, judges, task.model
        self.kinds = {n: k.fitted(task.sample.shape) for n, k in {RANKING: SHORT, **KINDS}.items()}
        solvers = {name: asdict(kind.solver) for name, kind in self.kinds.items()}
        judged_on = hash_of_images(judges)
        self.key = task.identity({"kind": "alone", "judges": judged_on, "solvers": solvers})
        self.store = None if folder is None else PatternFolder(folder / PATTERNS, self.key)
        seeds = [(2 * task.settings.seed + n) % 2**63 for n in range(2)]  # of no other scan
        self.settings = [replace(task.settings, seed=seed) for seed in seeds]
        self.splits = [split_for_validation(task.sample, seed) for seed in seeds]

    @property
    def passes(self) -> float:
        """About how many all take, if no class is searched again."""
        count = self.model.n_classes
        ranked = count * self.kinds[RANKING].passes if count >= MANY else 0
        longer = sum(self.kinds[name].passes + len(self.judges) / 2 for name in KINDS)
        return ranked + (FIRST if count >= MANY else count) * longer

    def gains(self) -> list[float]:
        """How far a short search raises the mean margin of each class on the validation images."""
        name_stage(SHORT.words)
        found = self.search(RANKING, range(self.model.n_classes))
        before, _ = as_they_are(self.model, self.splits[0].validation)
        return [found[y].info["search_margin"] - before[y] for y in range(len(before))]

    def search(self, name: str, classes: Sequence[int], n: int = 0) -> dict[int, Change]:
        """A change for each class. Finished groups of patterns are kept."""
        kind, found = self.kinds[name], dict[int, Change]()
        number = 0 if name == RANKING else number_of(name, n)
        store = self.store if kind.is_pattern else None
        on_cpu = self.model.device.type == "cpu"
        for group in in_batches(classes, kind.together if on_cpu else DEVICE_CLASSES):
            keys = [(number, y) for y in group]
            if store and (known := store.find(keys)):
                advance_bar(2 * len(group) * kind.passes)
                changes = [known[key] for key in keys]
            else:
                changes = kind.search(self.model, self.splits[n], [*group], self.settings[n])
                if store:
                    store.add({(number, each.target): each for each in changes})
            found |= {each.target: each for each in changes}
        return found

    def powers(self, changes: Mapping[int, Change]) -> dict[int, float]:
        """The share of the images of other classes that are predicted as each class."""
        tests = [
            StampTest(each.stamper(), y, self.judges.without_class(y))
            for y, each in changes.items()
        ]
        hits = judge_each(self.model, tests, self.task.settings.internal_batch_size)
        return {y: of.hits / len(test.images) for y, of, test in zip(changes, hits, tests)}


def scan_alone(
    task: ScanTask, judges: LabelledImages, names: list[str], folder: Path | None
) -> Alone:
    """Searches all kinds of changes, for all classes or the first of many. What is finished is kept
    in the folder."""
    model, seed, count = task.model, task.settings.seed, task.model.n_classes
    _check_enough(judges, count)
    if task.accuracy is not None:
        warn_if_guessing(task.accuracy, task.sample.known_labels, count, "images")
    searches = _Searches(task, judges, folder)
    found, powers = dict[str, dict[int, list[Change]]](), dict[str, dict[int, list[float]]]()
    with passes_bar("Scanning", searches.passes, task.settings.show_progress):
        _, without = as_they_are(model, judges)
        gains, classes = None, [*range(count)]
        if count >= MANY:
            gains = searches.gains()
            classes = sorted(classes, key=lambda y: -gains[y])[:FIRST]
        for kind in KINDS:
            name_stage(KINDS[kind].words)
            changes = searches.search(kind, classes)
            once = {y: [power] for y, power in searches.powers(changes).items()}
            above = above_usual(kind, once, without)
            again = searches.search(kind, [y for y in above if above[y][0] >= AGAIN], 1)
            twice = searches.powers(again)
            found[kind] = {
                y: [each, *([again[y]] if y in again else [])] for y, each in changes.items()
            }
            powers[kind] = {y: [*once[y], *([twice[y]] if y in twice else [])] for y in once}
    measured = found, powers, without, {}, len(judges), task.accuracy, gains, searches.key
    result = Alone(*measured, class_names=names, source=model.provenance.get("source"))
    seed_generators(seed)
    chosen = choose_images(judges, result.target, seed)
    images, labels = judges.take(chosen).to(model.device, model.dtype), judges.known_labels[chosen]
    before = with_predictions(model, images, labels, names)
    looks = {}
    for kind in KINDS:
        changed = result.shown(kind).stamper(seed)(images)
        looks[kind] = before, with_predictions(model, changed, labels, names)
    return replace(result, looks=looks)


def as_they_are(model: CheckedModel, judges: LabelledImages) -> tuple[list[float], list[float]]:
    """Of each class: its mean margin on images of other classes, and the share of them that are
    predicted as it, as they are."""
    logits = torch.cat([part.float().cpu() for part in outputs_in_order(model, judges)])
    labels = judges.known_labels
    margins = [margins_of(logits[labels != y], y) for y in range(model.n_classes)]
    return [float(m.mean()) for m in margins], [float((m > 0).float().mean()) for m in margins]


def _check_enough(judges: LabelledImages, n_classes: int) -> None:
    """Raises an error unless there are images of other classes to judge each class."""
    fewest = len(judges) - int(judges.known_labels.bincount(minlength=n_classes).max())
    if fewest < FEWEST_JUDGES:
        raise ValueError(
            f"a scan without references needs at least {FEWEST_JUDGES} images of other classes to "
            f"judge each class, but of the {len(judges)} that judge, half of all, there are "
            f"{fewest} for the most frequent class: give more images, of more classes"
        )

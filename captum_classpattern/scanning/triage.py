"""Which of many classes may be backdoored? For models of at least 100 classes, without references:
a short search of a moving patch for each class, a long one for the first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_classpattern._support.files import parse_json
from captum_classpattern._support.progress import advance_bar, name_stage, passes_bar
from captum_classpattern._support.validation import join_names
from captum_classpattern.classifier import CheckedModel, seed_generators, warn_if_guessing
from captum_classpattern.images import LabelledImages, outputs_in_order
from captum_classpattern.images.source import in_batches
from captum_classpattern.optimization.competition import find_patterns
from captum_classpattern.optimization.plan import Split, decide_patches, split_for_validation
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.moving import SMALLEST, MovingPatch
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import as_table
from captum_classpattern.scanning.decision import INCONCLUSIVE, SUSPICIOUS
from captum_classpattern.scanning.folder import PATTERNS, PatternFolder
from captum_classpattern.scanning.profile import SETTINGS
from captum_classpattern.scanning.results import NEXT_STEPS, Scan
from captum_classpattern.scanning.task import ScanTask
from captum_classpattern.scores.examples import StampedImages, stamp_examples
from captum_classpattern.scores.figure import figure_row
from captum_classpattern.scores.power import margins_of

STANDS_OUT = 0.5  # of power, by which both patches are above the weakest quarter of the classes
FEWEST = 100  # classes: with fewer, the others do not say what is usual
FEWEST_VALIDATION = 5  # images of other classes
MOST_IMAGES = 300  # to search with
SIDE, OF = 32, 224  # pixels a side of the patch, on images of that side
ANYWHERE: dict[str, Any] = {"scale": (0.8, 1.1), "angle": 15.0}
# each pixel and channel by itself: rankings were measured with this form (tv is smooth at 0 now)
PIXELS: dict[str, Any] = {"starts": 1, "opacity": 0.5, "levels": 1, "natural_colours": False}
SHORT = MovingPatch(
    SIDE, steps=40, batch_size=4, rate=0.2, tv=1.0, **ANYWHERE, **PIXELS
)  # 160 passes
LONG = MovingPatch(SIDE, steps=60, batch_size=12, rate=0.1, tv=2.0, **ANYWHERE, **PIXELS)
FIRST, SEEDS = 20, 2  # classes that are searched longer; how often, each with another seed
TOGETHER, LONG_TOGETHER = 16, 4  # classes in one search; in a long one on a CPU
POWERS = ("power", "power_again")  # columns, one for each seed
MAD = 1.4826  # standard deviations of a normal distribution in its median absolute deviation
GAINS = (
    "Gain: how far a short search of a moving patch raises the logit of the class against the "
    "largest other one, on average over the validation images. Deviations: how far the gain is "
    "above the median class, in robust standard deviations. Power: the share of the validation "
    "images that are predicted as the class with the patch of a longer search, at random places; "
    "then the same with another seed and other validation images. The patch that is shown has the "
    "larger margin of the two. A class is suspicious if both powers are at least 50 points above "
    "the lower quartile of the classes that were searched longer."
)


@dataclass(frozen=True, repr=False)
class Ranking(Scan):
    r"""
    A scan without references: all classes, ranked by their gains, and moving patches of the first.
    ``plot`` draws these, each also on three images.

    Attributes:
        gains (list[float]): Of each class: how far a short search raises its logit against the
            largest other one, on average over the validation images.
        patterns (dict): By class, the patches of the longer searches of the first classes, one for
            each of two seeds.
        stamped (dict): By class, three of its validation images with the patch that is shown.
        without (list[float]): Of each class: the share of these images, of other classes, that are
            predicted as the class without a patch.
        judged (int): How many validation images there were.
        accuracy (float or None): The model's accuracy on the images of the scan, if they are
            labelled.
        key (dict): All that the search depends on.
    """

    gains: list[float]
    patterns: Mapping[int, Sequence[Pattern]]
    stamped: Mapping[int, StampedImages | None]
    without: list[float]
    judged: int
    accuracy: float | None
    key: Mapping[str, Any]

    legend = GAINS
    rows_shown = FIRST

    def __repr__(self) -> str:
        powers = " and ".join(f"{power:.0%}" for power in self._powers(self.target))
        return f"Scan({self.verdict}, {self.target_name}, {powers})"

    @property
    def deviations(self) -> list[float]:
        """How far each gain is above the median of all, in robust standard deviations."""
        return robust_deviations(self.gains)

    @property
    def order(self) -> list[int]:
        """The classes, the largest gain first."""
        return sorted(range(len(self.gains)), key=lambda y: -self.gains[y])

    @property
    def suspects(self) -> list[int]:
        """The classes that stand out, see :func:`stand_out`, by their powers above those without a
        patch."""
        return stand_out(
            {y: [power - self.without[y] for power in self._powers(y)] for y in self.patterns}
        )

    @property
    def target(self) -> int:
        """The first suspicious class, or else the first of all."""
        return [*self.suspects, *self.order][0]

    @property
    def verdict(self) -> str:
        return SUSPICIOUS if self.suspects else INCONCLUSIVE

    @property
    def pattern(self) -> Pattern:
        """The patch of :attr:`target`."""
        return better(self.patterns[self.target])

    @property
    def headline(self) -> str:
        """``Suspicious: cat is far easier to reach than other classes.``"""
        if not self.suspects:
            return f"Inconclusive. The easiest class is {self.target_name}."
        names = join_names([self.class_names[y] for y in self.suspects])
        are = "is" if len(self.suspects) == 1 else "are"
        return f"Suspicious: {names} {are} far easier to reach than other classes."

    @property
    def reason(self) -> str:
        """The verdict in words."""
        shown = [
            f"{self.class_names[y]} ({' and '.join(f'{power:.0%}' for power in self._powers(y))})"
            for y in self.suspects or [self.target]
        ]
        if self.suspects:
            return (
                f"Both patches of {join_names(shown)} work on far more validation images than "
                "those of the weakest quarter of the classes that were searched longer. The "
                "model's classes are compared with one another, not with clean models: there is "
                "no p-value, and this does not prove a backdoor."
            )
        return (
            "No class has two patches that work on far more validation images than those of "
            f"others. The first is {shown[0]}. Without clean models to compare with, this is "
            "evidence neither for a backdoor nor against one."
        )

    @property
    def next_steps(self) -> list[str]:
        """What to do now."""
        name = self.target_name
        look = (
            f"Look at the patches of the first classes, above all {name}: they may show a trigger."
        )
        return [look, *(step.format(name=name) for step in NEXT_STEPS[SUSPICIOUS][:2])]

    @property
    def remarks(self) -> list[str]:
        if self.accuracy is None:
            return []
        return [f"The model's accuracy on these images: {self.accuracy:.0%}."]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Of each class, the first one first: the powers of its two patches, its gain, and how far
        that is from the others."""
        far = self.deviations
        for y in self.order:
            row = {"class": y, "name": self.class_names[y], **dict.fromkeys(POWERS)}
            row |= zip(POWERS, self._powers(y))
            yield row | {"gain": self.gains[y], "deviations": far[y]}

    def draw(self, title: str | None, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        from captum_classpattern.visualization.patterns import draw_patterns

        rows, far = [], self.deviations
        for y, patches in self.patterns.items():
            powers = " and ".join(f"{100 * power:.0f}" for power in self._powers(y))
            name = f"{self.class_names[y]}: {far[y]:+.1f} SD, {powers} %"
            rows.append(figure_row(name, better(patches), better(patches), self.stamped[y]))
        how: Any = {"area": self.pattern.area, "images": "validation images"}
        return draw_patterns(rows, **how, title=title, use_pyplot=use_pyplot)

    def _powers(self, target: int) -> list[float]:
        return [float(each.info["search_power"]) for each in self.patterns.get(target, ())]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        classes = parse_json(as_table(self.rows()).to_json(orient="records"))
        names = ("accuracy", "suspects", "judged")
        own = {name: getattr(self, name) for name in names}
        return super().as_dict() | own | {"classes": classes}

    @property
    def kept(self) -> tuple[Mapping[str, Any], Mapping[tuple[int, int], Pattern]]:
        """What is saved: what the search depends on, and its patches, by the number of the longer
        search and the class."""
        patches = {(n, y): p for y, each in self.patterns.items() for n, p in enumerate(each, 1)}
        return self.key, patches


def stand_out(powers: Mapping[int, Sequence[float]]) -> list[int]:
    """The classes all of whose patches are 50 points above the lower quartile of the classes. If
    patches of many classes work, as can happen with small images, none stands out."""
    least = {y: min(each) for y, each in powers.items()}
    usual = float(np.quantile([*least.values()], 0.25))
    return [y for y, power in least.items() if power >= usual + STANDS_OUT]


def robust_deviations(margins: Sequence[float]) -> list[float]:
    """How far each value is above the median, in robust standard deviations."""
    values = np.array(margins, float) - np.median(margins)
    scale = MAD * float(np.median(np.abs(values)))
    return [float(each) for each in values / max(scale, 1e-9)]


def better(patches: Sequence[Pattern]) -> Pattern:
    """The patch with the largest margin."""
    return max(patches, key=lambda patch: float(patch.info["search_margin"]))


def rank_classes(task: ScanTask, names: list[str], folder: Path | None) -> Ranking:
    """Searches all classes, and the first longer; finished parts are kept in the folder."""
    model, settings, sample, count = task.model, task.settings, task.sample, task.model.n_classes
    seed, validation = settings.seed, task.split.validation
    _check_enough(validation, count)
    if task.accuracy is not None:
        warn_if_guessing(task.accuracy, sample.known_labels, count, "images")
    side = max(SMALLEST, round(SIDE * min(sample.shape[1:]) / OF))
    short, long = replace(SHORT, side=side), replace(LONG, side=side)
    searches = SETTINGS | {"short": asdict(short), "long": asdict(long)}
    key = task.identity(searches)
    store = None if folder is None else PatternFolder(folder / PATTERNS, key)
    together = LONG_TOGETHER if model.device.type == "cpu" else FIRST
    once, longer = (each.passes()[-1] + len(validation) / 2 for each in (short, long))
    with passes_bar("Scanning", count * once + FIRST * SEEDS * longer, settings.show_progress):
        name_stage("all classes")
        own = replace(settings, solver=short)
        found = search_all(model, task.split, range(count), own, store, 0, TOGETHER)
        seed_generators(seed)
        before, without = without_patches(model, validation)
        gains = [float(p.info["search_margin"]) - b for p, b in zip(found, before)]
        first = sorted(range(count), key=lambda y: -gains[y])[:FIRST]
        by_seed, splits = list[list[Pattern]](), dict[int, Split]()
        for n in range(SEEDS):
            name_stage(f"the first {FIRST}, search {n + 1} of {SEEDS}")
            own_seed = (SEEDS * seed + n) % 2**63  # of no scan with a seed close to this one
            own = replace(settings, solver=long, seed=own_seed)
            splits[own_seed] = split = split_for_validation(sample, own_seed)
            by_seed.append(search_all(model, split, first, own, store, 1 + n, together))
        patterns, stamped = dict(zip(first, zip(*by_seed))), dict[int, StampedImages | None]()
        seed_generators(seed)
        for y, patches in patterns.items():
            patch = better(patches)
            unseen = splits[patch.info["seed"]].validation
            stamped[y] = stamp_examples(model, patch, unseen, names, seed)
    measured = gains, patterns, stamped, without, len(validation), task.accuracy, key
    return Ranking(*measured, class_names=names, source=model.provenance.get("source"))


def _check_enough(validation: LabelledImages, n_classes: int) -> None:
    """Raises an error unless there are validation images of other classes for each class."""
    fewest = len(validation) - int(validation.known_labels.bincount(minlength=n_classes).max())
    if fewest < FEWEST_VALIDATION:
        raise ValueError(
            f"a scan without references needs at least {FEWEST_VALIDATION} images of other classes "
            f"to judge each class, but of the {len(validation)} that judge, a fifth of all, there "
            f"are {fewest} for the most frequent class: give more images, of more classes"
        )


def search_all(
    model: CheckedModel,
    split: Split,
    classes: Sequence[int],
    settings: SearchSettings,
    store: PatternFolder | None,
    number: int,
    together: int,
) -> list[Pattern]:
    """The moving patch of each class. Finished groups are kept, by the number of the search."""
    patches = list[Pattern]()
    for group in in_batches(classes, together):
        found = store and store.find([(number, y) for y in group])
        if found:
            advance_bar(2 * sum(patch.info["passes"] for patch in found.values()))
        else:
            plan = decide_patches(model, [*group], split, settings)
            [searched] = find_patterns(plan).values()
            found = {(number, patch.target): patch for patch in searched}
            if store:
                store.add(found)
        patches += [found[number, y] for y in group]
    return patches


def without_patches(
    model: CheckedModel, validation: LabelledImages
) -> tuple[list[float], list[float]]:
    """The mean margin of each class on images of other classes, and the share of them that are
    predicted as the class, without a patch."""
    logits = torch.cat([part.float().cpu() for part in outputs_in_order(model, validation)])
    labels = validation.known_labels
    margins = [margins_of(logits[labels != y], y) for y in range(model.n_classes)]
    return [float(m.mean()) for m in margins], [float((m > 0).float().mean()) for m in margins]

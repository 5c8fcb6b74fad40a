"""Which of many classes may be backdoored? For models of at least 100 classes, without references:
a short search of a moving patch for each class, a long one for the first."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_classpattern._files import write_figure, write_json
from captum_classpattern.attribution import ClassPattern
from captum_classpattern.classifier import Classifier, outputs_for, preserve_state
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.pool import split_for_validation
from captum_classpattern.optimization.search import passes_bar
from captum_classpattern.optimization.settings import SearchSettings
from captum_classpattern.optimization.solvers.moving import SMALLEST, MovingPatch
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import Result, as_table, as_texts
from captum_classpattern.scanning.decision import INCONCLUSIVE, SUSPICIOUS
from captum_classpattern.scanning.families import PATTERNS, SEARCH, PatternFolder
from captum_classpattern.scanning.profile import draw_sample, key_of
from captum_classpattern.scores.examples import StampedImages, stamp_examples
from captum_classpattern.scores.power import margins_of
from captum_classpattern.surveys.folder import Folder

FAR = 10.0  # the bound: robust standard deviations from which a class is suspicious
FEWEST = 100  # classes: with fewer, the others do not say what is usual
FEWEST_JUDGES, LEAST_SIDE = 5, 16  # images, and pixels per side
MOST_IMAGES = 300  # to search with
SIDE, OF = 32, 224  # pixels a side of the patch, on images of that side
ANYWHERE: dict[str, Any] = {"scale": (0.8, 1.1), "angle": 15.0}
SHORT = MovingPatch(SIDE, steps=20, batch_size=4, **ANYWHERE)  # 80 passes
LONG = MovingPatch(SIDE, steps=60, batch_size=12, rate=0.1, tv=2.0, starts=2, **ANYWHERE)
FIRST = 20  # classes that are searched longer
TOGETHER = 16  # classes in one search
MAD = 1.4826  # standard deviations of a normal distribution in its median absolute deviation
MARGINS = "margins.json"
GAINS = (
    "Gain: how far a short search of a moving patch raises the logit of the class against the "
    "largest other one, on average over the validation images. Deviations: how far the gain is "
    "above the median class, in robust standard deviations. Power: the share of the validation "
    "images that are predicted as the class with the patch of a longer search, at random places; "
    "of two starts, that with the larger margin."
)


@dataclass(frozen=True, repr=False)
class Triage(Result):
    r"""
    What a scan without references found: all classes, ranked by their gains, and moving patches
    of the first. ``plot`` draws these patches, each also on three images.

    Attributes:
        verdict (str): ``"suspicious"`` or ``"inconclusive"``.
        margins (list[float]): Of each class: how far a short search raises its logit above the
            largest other one, on average over the validation images.
        clean_margins (list[float]): The same without a pattern. What is above them is the gain, so
            that a class that the model prefers anyway gains nothing.
        patterns (dict): By class, the patch that the longer search of the first classes found.
        stamped (dict): By class, three validation images with this patch.
        judged (int): How many validation images there were.
        class_names (list[str]): The name of each class.
        key (dict): All that the search depends on.
        source (str or None): Where the model comes from, if it says so.
    """

    margins: list[float]
    clean_margins: list[float]
    patterns: Mapping[int, Pattern]
    stamped: Mapping[int, StampedImages | None]
    judged: int
    class_names: list[str]
    key: Mapping[str, Any]
    source: str | None = None

    def __repr__(self) -> str:
        return f"Triage({self.verdict}, {self.target_name}, {self.deviations[self.target]:.1f} SD)"

    @property
    def gains(self) -> list[float]:
        """How far the search raised the mean margin of each class."""
        return [after - before for after, before in zip(self.margins, self.clean_margins)]

    @property
    def deviations(self) -> list[float]:
        """How far each gain is above the median of all, in robust standard deviations."""
        return robust_deviations(self.gains)

    @property
    def order(self) -> list[int]:
        """The classes, the largest gain first."""
        return ranked(self.gains)

    @property
    def target(self) -> int:
        """The first class."""
        return self.order[0]

    @property
    def target_name(self) -> str:
        return self.class_names[self.target]

    @property
    def verdict(self) -> str:
        return SUSPICIOUS if self.deviations[self.target] >= FAR else INCONCLUSIVE

    @property
    def pattern(self) -> Pattern:
        """The patch of the first class."""
        return self.patterns[self.target]

    @property
    def reason(self) -> str:
        """The verdict in words."""
        far, others = self.deviations[self.target], sorted(self.deviations)[-2]
        where = (
            f"{self.target_name} is {far:.1f} robust standard deviations above the median class, "
            f"the next one {others:.1f}."
        )
        if self.verdict == SUSPICIOUS:
            return (
                f"{where} The bound is {FAR:g}. The model's classes are compared with one another, "
                "not with clean models: there is no p-value, and this does not prove a backdoor."
            )
        return (
            f"{where} Without clean models to compare with, this is evidence neither for a "
            "backdoor nor against one."
        )

    @property
    def next_steps(self) -> list[str]:
        """What to do now."""
        return [
            f"Look at the patches of the first classes, above all {self.target_name}: a trigger "
            "can be seen in them.",
            "Scan again with another seed and other images, into another folder. A backdoor should "
            "come first again.",
            "If you have another model of the task, scan it as well. A class that comes first "
            "there is easy for such models, not backdoored.",
        ]

    def table(self) -> Any:
        """A pandas DataFrame with a row for each class, the first one first: its margin, its gain,
        how far that is from the others, and the power of its patch."""
        rows, far, gains = [], self.deviations, self.gains
        for y in self.order:
            row = {"class": y, "name": self.class_names[y], "margin": self.margins[y]}
            rows.append(row | {"gain": gains[y], "deviations": far[y], "power": self._power(y)})
        return as_table(rows)

    def text(self) -> str:
        """The verdict, and how far the first class is above the others."""
        source = "" if self.source is None else f": {self.source}"
        return f"{self.verdict.capitalize()}{source}\n{self.reason}"

    def shown_table(self) -> Any:
        forms = {"name": "", "gain": "+.2f", "deviations": "+.1f", "power": ".0%"}
        return as_texts(self.table().head(FIRST), forms)

    def plot(self, *, use_pyplot: bool = True) -> tuple[Any, Any]:
        """Draws the patches of the first classes, each also on three validation images."""
        from captum_classpattern.visualization.patterns import PatternRow, draw_patterns

        rows = []
        for y in [y for y in self.order if y in self.patterns]:
            power, patch = 100 * (self._power(y) or 0), self.patterns[y]
            name = f"{self.class_names[y]}: {self.deviations[y]:+.1f} SD, {power:.0f} %"
            rows.append(PatternRow(name, patch, patch, self.stamped[y]))
        title = f"{self.verdict.capitalize()}: {self.target_name} comes first"
        return draw_patterns(rows, area=self.pattern.area, title=title, use_pyplot=use_pyplot)

    def sections(self, whole: bool) -> Iterable[Any]:
        from captum_classpattern.pages import parts as html

        yield self.plot
        yield html.heading("What next")
        yield self.next_steps
        yield html.heading(f"The first {FIRST} of {len(self.margins):,} classes")
        yield self.shown_table()
        yield GAINS

    def _power(self, target: int) -> float | None:
        found = self.patterns.get(target)
        return None if found is None else float(found.info["search_power"])

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            **{name: getattr(self, name) for name in ("verdict", "target", "target_name")},
            **{name: getattr(self, name) for name in ("reason", "next_steps", "judged")},
            "search": dict(self.key),
            "classes": json.loads(self.table().to_json(orient="records")),
        }

    def save(self, folder: str | Path) -> None:
        """Writes scan.json, scan.png and the patterns."""
        folder = Path(folder)
        patches = {(self.pattern.shown.mask.shape[-1], y): p for y, p in self.patterns.items()}
        PatternFolder(folder / PATTERNS, self.key).replace(patches)
        write_json(self.as_dict(), folder / "scan.json")
        figure, _ = self.plot(use_pyplot=False)
        write_figure(figure, folder / "scan.png")


def robust_deviations(margins: Sequence[float]) -> list[float]:
    """How far each value is above the median, in robust standard deviations."""
    values = np.array(margins, float) - np.median(margins)
    scale = MAD * float(np.median(np.abs(values)))
    return [float(each) for each in values / max(scale, 1e-9)]


def ranked(gains: Sequence[float]) -> list[int]:
    """The places of the values, the largest first."""
    return [int(y) for y in np.argsort([-gain for gain in gains], kind="stable")]


def rank_classes(
    model: Classifier,
    images: LabelledImages,
    names: list[str],
    settings: SearchSettings,
    *,
    folder: Path | None = None,
    source: str | None = None,
) -> Triage:
    """Searches all classes, and the first longer; finished parts are kept in the folder."""
    sample, predicted = draw_sample(model, images, len(names), settings.seed, MOST_IMAGES)
    _, judges = split_for_validation(sample, settings.seed)
    if len(judges) < FEWEST_JUDGES or min(sample.shape[1:]) < LEAST_SIDE:
        raise ValueError(
            f"a scan without references needs at least {FEWEST_JUDGES} images that judge, a fifth "
            f"of all, of at least {LEAST_SIDE}x{LEAST_SIDE} pixels, got {len(judges)} of "
            f"{sample.shape[1]}x{sample.shape[2]}: give more or larger images"
        )
    side = max(SMALLEST, round(SIDE * min(sample.shape[1:]) / OF))
    short, long = replace(SHORT, side=side), replace(LONG, side=side)
    key = key_of(model, sample, predicted, settings)
    key |= {"short": asdict(short), "long": asdict(long)}
    store = None if folder is None else PatternFolder(folder / PATTERNS, key)
    if store:
        store.read(SEARCH)
    explainer = ClassPattern(model, sample, check_accuracy=False)
    total = expected_passes(len(names), len(sample))
    shown, settings = settings.show_progress, replace(settings, show_progress=False)
    with passes_bar(total, shown, desc="Scanning"):
        margins = _margins(explainer, len(names), replace(settings, solver=short), folder, key)
        clean = clean_margins(model, judges, len(names), settings.seed)
        first = ranked([after - before for after, before in zip(margins, clean)])[:FIRST]
        patterns: dict[int, Pattern] = {}
        for y in first:
            found = store and store.find([(side, y)])
            if not found:
                [patch] = search_moving(explainer, [y], replace(settings, solver=long))
                found = {(side, y): patch}
                if store:
                    store.add(found)
            patterns[y] = found[side, y]
        with preserve_state(model, settings.seed):
            stamped = {
                y: stamp_examples(model, patch, judges, names, settings.seed)
                for y, patch in patterns.items()
            }
    return Triage(margins, clean, patterns, stamped, len(judges), names, key, source)


def clean_margins(
    model: Classifier, judges: LabelledImages, n_classes: int, seed: int
) -> list[float]:
    """The mean margin of each class on images of other classes, without a pattern."""
    with preserve_state(model, seed):
        parts = [outputs_for(model, part) for part in judges.in_order()]
    logits, labels = torch.cat(parts).float().cpu(), judges.known_labels
    return [float(margins_of(logits[labels != y], y).mean()) for y in range(n_classes)]


def search_moving(
    explainer: ClassPattern, classes: Sequence[int], settings: SearchSettings
) -> list[Pattern]:
    """A moving patch of each class."""
    return explainer.search(
        target=[*classes],
        solver=settings.solver,
        seed=settings.seed,
        precision=settings.precision,
        internal_batch_size=settings.internal_batch_size,
    )


def _margins(
    explainer: ClassPattern,
    count: int,
    settings: SearchSettings,
    folder: Path | None,
    key: Mapping[str, Any],
) -> list[float]:
    """The margin of each class after a short search."""
    place = None if folder is None else Folder(folder, key, "scan", any_version=False)
    known: dict[int, float] = {}
    if place is not None:
        kept = place.read(MARGINS).get("margins", {})
        known = {int(y): margin for y, margin in kept.items()}
    missing = [y for y in range(count) if y not in known]
    for start in range(0, len(missing), TOGETHER):
        found = search_moving(explainer, missing[start : start + TOGETHER], settings)
        known |= {one.target: float(one.info["search_margin"]) for one in found}
        if place is not None:
            place.write(MARGINS, {"margins": known})
    return [known[y] for y in range(count)]


def expected_passes(classes: int, images: int) -> int:
    """About how many passes the scan of so many classes takes."""
    judging = min(images, MOST_IMAGES) // 10  # a fifth of the images, half a pass each
    long = LONG.starts * (LONG.passes()[-1] + judging)
    return classes * (SHORT.passes()[-1] + judging) + FIRST * long

"""The searches of a scan: for each kind of change, classes that cannot win stop early, and those
that decide are searched twice."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from captum_classpattern._support.progress import advance_bar, name_stage, passes_bar
from captum_classpattern.images import outputs_in_order
from captum_classpattern.images.source import in_batches
from captum_classpattern.optimization.plan import validation_subset
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.changes import Change, classes_together
from captum_classpattern.scanning.decision import Bounds, Measure, to_search_again
from captum_classpattern.scanning.folder import PATTERNS, PatternFolder
from captum_classpattern.scanning.task import ScanTask
from captum_classpattern.scores.power import StampTest, judge_each, margins_of

RANKING_IMAGES = 48  # of the validation images
FEWEST, FIRST = 3, 20  # classes that are searched to the end, at least and at most
SHARE = 4  # one class in so many of a model of large images is searched to the end


@dataclass(frozen=True)
class Found:
    """What one search found for a class: a ``pattern``; its ``power`` on unseen images; its
    ``gain``, how far it raises the mean margin of the class, in units of the model's usual margin;
    and the ``score`` that follows."""

    pattern: Pattern
    power: float
    gain: float
    score: float

    @property
    def measure(self) -> Measure:
        return Measure(self.score, self.power)


class Searches:
    """The searches of a scan, each with its seed. What is finished is kept in the folder."""

    def __init__(self, task: ScanTask, changes: Mapping[str, Change], folder: Path | None) -> None:
        self.task, self.model, self.changes = task, task.model, changes
        settings = {
            name: {"solver": asdict(each.solver), "short": each.short and asdict(each.short)}
            for name, each in changes.items()
        }
        self.key = {**task.key, "changes": settings}
        self.store = None if folder is None else PatternFolder(folder / PATTERNS, self.key)
        self.seeds = [(2 * task.settings.seed + n) % 2**63 for n in range(2)]  # of no other scan
        self.splits = [task.split(seed) for seed in self.seeds]

    def run(self) -> dict[str, dict[int, list[Found]]]:
        """What is found with each kind of change, for the classes that are searched to the end."""
        settings = self.task.settings
        with passes_bar("Scanning", self.passes, settings.show_progress):
            return {kind: self.searched(kind) for kind in self.changes}

    @property
    def passes(self) -> int:
        """About how many all take, if one class is searched again with each kind of change."""
        count, first = self.model.n_classes, self.n_first
        ranking = sum(self.short_of(each).passes for each in self.changes.values())
        longer = sum(each.passes for each in self.changes.values())
        return (count * ranking if first < count else 0) + (first + 1) * longer

    @property
    def n_first(self) -> int:
        """How many classes are searched to the end."""
        count = self.model.n_classes
        share = -(-count // SHARE) if any(each.power for each in self.changes.values()) else count
        return min(count, max(FEWEST, min(FIRST, share)))

    def searched(self, kind: str) -> dict[int, list[Found]]:
        """What is found for the first classes. Those that decide are searched again."""
        change, count = self.changes[kind], self.model.n_classes
        name_stage(change.words)
        bounds = Bounds(change.lead, change.power)
        found = {y: [each] for y, each in self.measured(kind, self.first(kind), 0).items()}
        while again := to_search_again(
            {y: [each.measure for each in both] for y, both in found.items()}, bounds, count
        ):
            for y, each in self.measured(kind, again, 1).items():
                found[y].append(each)
        return found

    def first(self, kind: str) -> list[int]:
        """The classes that are searched to the end, which a short search ranks first."""
        classes, change = [*range(self.model.n_classes)], self.changes[kind]
        if self.n_first == len(classes):
            return classes
        patterns = self.patterns(f"{kind}_0", self.short_of(change), classes, 0)
        images = validation_subset(self.splits[0].validation, RANKING_IMAGES)
        logits = torch.cat([part.float().cpu() for part in outputs_in_order(self.model, images)])
        tests = [
            StampTest(each.stamper(), y, images.without_class(y)) for y, each in patterns.items()
        ]
        hits = judge_each(self.model, tests, self.task.settings.internal_batch_size)
        before = [float(margins_of(logits[images.known_labels != y], y).mean()) for y in classes]
        gains = {y: each.margin - before[y] for y, each in zip(patterns, hits)}
        return sorted(classes, key=lambda y: -gains[y])[: self.n_first]

    @staticmethod
    def short_of(change: Change) -> Change:
        return replace(change, solver=change.short, more_passes=0)

    def measured(self, kind: str, classes: Sequence[int], n: int) -> dict[int, Found]:
        """What the n-th search finds for each class, and what it does to unseen images."""
        change = self.changes[kind]
        found = self.patterns(f"{kind}_{n + 1}", change, classes, n)
        tests = [StampTest(each.stamper(), y, self.task.judges[y]) for y, each in found.items()]
        hits = judge_each(self.model, tests, self.task.settings.internal_batch_size)
        measured = dict[int, Found]()
        for (y, pattern), of in zip(found.items(), hits):
            power = of.hits / len(self.task.judges[y])
            gain = (of.margin - self.task.margins[y]) / self.task.usual_margin
            measured[y] = Found(pattern, power, gain, change.score(power, gain))
        return measured

    def patterns(
        self, name: str, change: Change, classes: Sequence[int], n: int
    ) -> dict[int, Pattern]:
        """What a search finds for each class, or has found before."""
        settings = replace(self.task.settings, seed=self.seeds[n])
        found = dict[int, Pattern]()
        for group in in_batches([*classes], classes_together(self.model.device)):
            if kept := self.kept(name, group, n):
                advance_bar(2 * len(group) * change.passes)
                found |= kept
                continue
            new = change.find(change.solver, self.model, self.splits[n], [*group], settings)
            if self.store:
                self.store.add({f"{y}_{name}": each for y, each in new.items()})
            found |= new
        return found

    def kept(self, name: str, classes: Sequence[int], n: int) -> dict[int, Pattern] | None:
        """What the folder has of a search, or None unless all is there. An error if a pattern is
        not what such a search finds."""
        if self.store is None:
            return None
        if (known := self.store.find(f"{y}_{name}" for y in classes)) is None:
            return None
        for y, pattern in zip(classes, known):
            own = pattern.target, pattern.image_shape, pattern.info.get("seed")
            if own != (y, self.task.sample.shape, self.seeds[n]):
                raise ValueError(
                    f"{self.store.path / f'{y}_{name}'}.safetensors has a pattern of class "
                    f"{pattern.target} that is not of this scan: remove it, or choose another "
                    "folder"
                )
        return dict(zip(classes, known))

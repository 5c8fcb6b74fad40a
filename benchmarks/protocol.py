"""How much of the published power is the protocol? The authors' protocol beside ours, by steps.

    python benchmarks/protocol.py CIFAR10 --out protocol.jsonl

CIFAR10 is a folder with ``test/<class>/*`` images. An interrupted run resumes. With ``--weights``
the ``--names`` are networks of ``claims/models.py`` whose weights are in that folder.

The authors search on a random fifth of the test images and score on all of them, the class's own
and the searched ones included; the canvases are the class's first test images. Ours scores on
unseen images of other classes. All scores of a pattern come from one count of the test images,
by whether they are of the class and whether they were searched.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from cifar10 import model, predictions
from claims.models import entries
from claims.training import classifier_of
from findings import Row, append_rows, format_mean, head, line, parser_of, read_rows
from problems import PIXELS, SEARCH
from torch import Tensor
from torchvision.datasets import ImageFolder

from captum_classpattern import ClassPattern, LabelledImages, Pattern, PixelClassifier
from captum_classpattern.classifier import enter_model
from captum_classpattern.classifier.fingerprints import hash_of_weights
from captum_classpattern.comparison.records import grouped
from captum_classpattern.optimization import PaperLoop
from captum_classpattern.optimization.canvases import select_canvases
from captum_classpattern.optimization.plan import Split, decide_search
from captum_classpattern.optimization.search import Search as MaskSearch
from captum_classpattern.optimization.settings import SearchSettings, versions
from captum_classpattern.scores.intervals import Estimate, bootstrap_over_classes
from captum_classpattern.scores.power import random_pixels

MODELS = ("natural", "robust8")
COLUMNS = {  # of the tables: networks that are pooled
    "natural, three seeds": ("natural_1", "natural_2", "natural_3"),
    "shipped natural": ("natural",),
    "shipped robust8": ("robust8",),
}
PIXELS_KEPT, N_PIXELS = 50, 1_024  # as the authors: 4.9 %
AREA = PIXELS_KEPT / N_PIXELS
CANVASES = 2  # of each class
ROUNDS = 12  # of our solver, as in the other tables
EVERY = 5  # random pixels are scored on each fifth test image
SCORES = ("power", "random pixels", "no pattern")

Counts = dict[str, list[int]]  # hits and images, by group


class Search(NamedTuple):
    """What is searched: on which canvases, and by which solver."""

    canvases: str
    solver: str


AUTHORS, OUR_SOLVER, OURS = (
    Search("first", "paper"),
    Search("first", "swap"),
    Search("positive", "swap"),
)
ALL = ("own, searched", "own, unseen", "others, searched", "others, unseen")


class Step(NamedTuple):
    """A row of the table: whose patterns are scored on which groups of test images."""

    title: str
    search: Search
    groups: Sequence[str]


STEPS = (
    Step("the authors' protocol: all test images", AUTHORS, ALL),
    Step("... without the class's own images", AUTHORS, ALL[2:]),
    Step("... and without the searched images", AUTHORS, ALL[3:]),
    Step("our solver, the same canvases", OUR_SOLVER, ALL[3:]),
    Step("our protocol: the better of two positive canvases", OURS, ALL[3:]),
    Step("*for comparison: the authors' patterns on the searched images*", AUTHORS, ALL[2:3]),
)
CHANGES = (  # title, a step, the one it is compared with, the control that is taken off both
    ("the class's own images add", STEPS[0], STEPS[1], None),
    ("the searched images add", STEPS[1], STEPS[2], None),
    ("the authors' protocol adds, above no pattern", STEPS[0], STEPS[2], "no pattern"),
    ("searched images, minus unseen ones", STEPS[5], STEPS[2], None),
    ("our solver adds", STEPS[3], STEPS[2], None),
    ("positive canvases, and a choice between two, add", STEPS[4], STEPS[3], None),
)


class TestSet(NamedTuple):
    """All test images, and which of them are searched."""

    images: Tensor
    labels: Tensor
    searched: Tensor

    @classmethod
    def read(cls, folder: Path) -> "TestSet":
        """The CIFAR-10 test set; a random fifth is searched, the same as in the other tables."""
        test = ImageFolder(folder / "test", PIXELS)
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
        searched = torch.zeros(len(test), dtype=torch.bool)
        searched[order[:SEARCH]] = True
        images = torch.stack([image for image, _ in test])
        return cls(images, torch.tensor(test.targets), searched)

    def part(self, chosen: Tensor) -> "TestSet":
        """Some of the images."""
        return TestSet(*(values[chosen] for values in self))

    def counts(self, predicted: Tensor, target: int) -> Counts:
        """How many images are predicted as the class, and how many there are, by group."""
        own = self.labels == target
        return {
            f"{who}, {when}": [int((predicted[group] == target).sum()), int(group.sum())]
            for who, of_class in (("own", own), ("others", ~own))
            for when, seen in (("searched", self.searched), ("unseen", ~self.searched))
            for group in (of_class & seen,)
        }


def measure(
    data: Path, out: Path, names: Sequence[str] = MODELS, weights: Path | None = None
) -> list[Row]:
    """The rows of all models; those that the file has already are not made again."""
    rows, test = read_rows(out), TestSet.read(data)
    done = {(row["model"], row["canvases"], row["solver"], row["class"]) for row in rows}
    for name in names:
        network = trained(name, weights) if weights else model(name)
        made_by = {"weights": hash_of_weights([network], []), "versions": versions()}
        missing = [
            (search, target)
            for search in (AUTHORS, OUR_SOLVER, OURS)
            for target in sorted(set(test.labels.tolist()))
            if (name, *search, target) not in done
        ]
        unstamped = predictions(network, test.images) if missing else None
        for search, target in missing:
            print(f"{name}, {search.canvases} canvases, {search.solver}, class {target}")
            found = [
                {"model": name, **search._asdict(), "class": target, "canvas": i} | scores | made_by
                for i, pattern in enumerate(patterns(network, test, search, target))
                for scores in (score(network, test, pattern, unstamped, search),)
            ]
            append_rows(out, found)
            rows += found
    return rows


def trained(name: str, weights: Path) -> PixelClassifier:
    """A network of the claims, from the folder of its weights."""
    [entry] = [each for each in entries() if each.name == name]
    return classifier_of(entry, None, weights)


def patterns(
    network: PixelClassifier, test: TestSet, search: Search, target: int
) -> Sequence[Pattern]:
    """The binary patterns of a class."""
    images, labels = test.images[test.searched], test.labels[test.searched]
    if search == OURS:
        canvases = select_canvases(network, images, labels, target, n=CANVASES)
        found = ClassPattern(network, images, labels).search(
            canvases, target, area=AREA, keep=1, n_steps=ROUNDS
        )
        return [pattern.topk(AREA) for pattern in found]
    canvases = test.images[test.labels == target][:CANVASES]
    solver = PaperLoop() if search == AUTHORS else search.solver
    steps = ROUNDS if search == OUR_SOLVER else published_steps(int((labels != target).sum()))
    settings = SearchSettings(solver, [AREA], n_steps=steps)
    source, targets = LabelledImages(images, labels), [target] * len(canvases)
    split = Split(source, source.subset([]))  # none is judged
    with enter_model(network, canvases, settings.seed) as model:
        fitted = MaskSearch.of(decide_search(model, canvases, targets, split, settings))
        fitted.finish()
    masks = fitted.pixel_masks
    return [Pattern(canvas, mask, target).topk(AREA) for canvas, mask in zip(canvases, masks)]


def published_steps(n: int) -> int:
    """The steps of the authors' loop over n images: the mask is stored before its last update."""
    loop = PaperLoop()
    return loop.epochs * -(-n // loop.batch_size) - 1


def score(
    network: PixelClassifier, test: TestSet, pattern: Pattern, unstamped: Tensor, search: Search
) -> dict[str, Counts]:
    """The counts of a pattern and its controls. Only the authors' patterns need the images that
    were searched; the others are scored on each fifth unseen image."""
    some = torch.arange(len(test.labels)) % EVERY == 0
    chosen = torch.ones_like(some) if search == AUTHORS else some & ~test.searched
    part, control = test.part(chosen), test.part(some)
    random = random_pixels(pattern, AREA, seed=pattern.target)
    found = (
        part.counts(predictions(network, part.images, pattern), pattern.target),
        control.counts(predictions(network, control.images, random), pattern.target),
        test.counts(unstamped, pattern.target),
    )
    return dict(zip(SCORES, found))


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """The powers and their controls, step by step, and what each step changes."""
    known = {row["model"] for row in rows}
    columns = {title: names for title, names in COLUMNS.items() if known.issuperset(names)}
    yield head(
        "searched with, scored on",
        *(f"{each}: {what}" for each in columns for what in ("power", "random pixels, no pattern")),
    )
    for step in STEPS:
        cells = []
        for names in columns.values():
            found = (shares(rows, names, step, score) for score in SCORES)
            power, *controls = map(bootstrap_over_classes, found)
            cells += [interval(power, "%"), ", ".join(f"{mean.value:.1%}" for mean in controls)]
        yield line(step.title, *cells)
    yield ""
    yield head("points, paired by class", *columns)
    for title, first, second, score in CHANGES:
        changes = (differences(rows, each, first, second, score) for each in columns.values())
        yield line(title, *(interval(bootstrap_over_classes(change)) for change in changes))


def shares(
    rows: Sequence[Row], names: Sequence[str], step: Step, score: str
) -> dict[int, list[float]]:
    """For each class the share of the step's images that are predicted as the class, one for each
    network and canvas."""

    def share(row: Row) -> float:
        hits, n = (sum(row[score][group][i] for group in step.groups) for i in (0, 1))
        return hits / n

    wanted = (
        row
        for row in rows
        if row["model"] in names and (row["canvases"], row["solver"]) == step.search
    )
    return grouped((row["class"], share(row)) for row in wanted)


def differences(
    rows: Sequence[Row], names: Sequence[str], first: Step, second: Step, above: str | None
) -> dict[int, list[float]]:
    """For each class how much larger the power is at one step than at another; or its distance
    from a control."""
    found: list[dict[int, float]] = []
    for step in (first, second):
        means = {y: fmean(of_class) for y, of_class in shares(rows, names, step, "power").items()}
        for y, control in shares(rows, names, step, above).items() if above else ():
            means[y] -= fmean(control)
        found.append(means)
    return {y: [value - found[1][y]] for y, value in found[0].items()}


def interval(mean: Estimate, unit: str = "") -> str:
    """A mean in percent or points with its interval over classes."""
    return format_mean(mean, ".1f", scale=100, unit=unit)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with CIFAR-10's test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("protocol.jsonl"))
    parser.add_argument("--weights", type=Path, help="folder with the weights of the claims")
    parser.add_argument("--names", nargs="+", default=MODELS, help="of the networks")
    given = parser.parse_args(arguments)
    with contextlib.redirect_stdout(sys.stderr):  # standard output gets only the tables
        rows = measure(given.data, given.out, given.names, given.weights)
    print(*tables(rows), sep="\n")


if __name__ == "__main__":
    main()

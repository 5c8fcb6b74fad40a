"""The tables of the scans of new networks, by the rule of version 0.6."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from findings import Row, Table, head, line, read_rows
from fine_tuned.networks import ALL
from zoo import DATA_SETS
from zoo.backdoors import ALL_TO_ALL

from captum_classpattern.scores.intervals import wilson

LEARNT, LEARNT_LARGER = 0.9, 0.8  # the share of images that a trigger must turn to count
DATA = {
    "fashion": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "signs": "43 traffic signs",
    "hands": "signs of hands",
}
SCRATCH = "resnet"  # larger networks that were not fine-tuned
LARGER = ("fine-tuned", "from scratch")
COLOURS = ("checker", "white", "two", "random")
CLEAN = "clean"
ADVERSARIAL = "patch, trained adversarially"
KINDS = {  # of planted triggers, in the order of the tables
    "patch": "patch",
    "wanet": "WaNet",
    "blended": "Blended",
    "sig": "SIG",
    "drawing": "drawing anywhere",
}


@dataclass(frozen=True)
class Scanned:
    """One network and what the scan said. ``planted`` are the classes with a trigger."""

    row: Row
    group: str
    network: str
    trigger: str
    planted: frozenset[int]
    successes: tuple[float, ...]
    learnt: bool
    names: Sequence[str]

    @property
    def first(self) -> str:
        """The first class, whether it has a trigger, and the change."""
        target = self.row["target"]
        right = " (planted)" * (target in self.planted)
        return f"{self.names[target]}{right}, {self.row['kind'].replace('_', ' ')}"

    @property
    def verdict(self) -> str:
        return self.row["verdict"]

    @property
    def right(self) -> bool:
        """Whether the classes that are suspicious have a trigger."""
        return self.verdict == "suspicious" and {*self.row["suspects"]} <= self.planted


def of_small(row: Row) -> Scanned:
    """A network of zoo/entries.py."""
    recipe, names = row["recipe"], DATA_SETS[row["data"]].class_names
    targets = [each["target"] for each in row["backdoors"]]
    planted = range(len(names)) if ALL_TO_ALL in targets else targets
    share = "" if recipe["share"] == 1 else f", {recipe['share']:.0%} of the images"
    words = f"{recipe['network']} of width {recipe['width']}, {recipe['epochs']} epochs{share}"
    robust = ", adversarial training" if recipe["eps"] else ""
    kinds = ["patch" if each["kind"] in COLOURS else each["kind"] for each in row["backdoors"]]
    trigger = " and ".join(KINDS[kind] for kind in kinds) or CLEAN
    if ALL_TO_ALL in targets:
        trigger = "patch, all-to-all"
    elif recipe["eps"] and targets:
        trigger = ADVERSARIAL
    elif len(targets) > 1:
        trigger = "two patches, two targets"
    network, successes = words + robust, tuple(row["successes"])
    learnt, group = min(successes, default=1) >= LEARNT, DATA[row["data"]]
    return Scanned(row, group, network, trigger, frozenset(planted), successes, learnt, names)


def of_larger(row: Row) -> Scanned:
    """A network of fine_tuned/networks.py."""
    network = ALL[row["number"]]
    group = LARGER[network.backbone == SCRATCH]
    words = f"{network.task} at {network.size} px: {network.made}"
    trigger = KINDS.get(network.kind, CLEAN)
    made = network.trigger(row["classes"])
    planted = () if made is None else (made.target,)
    successes = () if row["success"] is None else (row["success"],)
    learnt, names = min(successes, default=1) >= LEARNT_LARGER, row["classes"]
    return Scanned(row, group, words, trigger, frozenset(planted), successes, learnt, names)


def tables(folder: Path) -> Iterator[Table]:
    small = [*map(of_small, read_rows(folder / "scan_confirmation.jsonl"))]
    first, larger = (
        [*map(of_larger, read_rows(folder / f"scan_larger_{name}confirmation.jsonl"))]
        for name in ("", "second_")
    )
    yield "What was missed, and false alarms", [*failures([*small, *larger])]
    yield "The same for larger images, by the first rule", [*failures(first)]
    yield "Small images", [*summary(small, [*DATA.values()])]
    yield "Larger images", [*summary(larger, LARGER)]
    yield "Larger images, by the first rule", [*summary(first, LARGER)]
    yield "All, without the first rule", [*in_all([*small, *larger])]
    of_first = "larger images, by the first rule"
    for title, scans in (("small images", small), ("larger images", larger), (of_first, first)):
        yield f"Clean networks for {title}", [*networks(each for each in scans if is_clean(each))]
        planted = (each for each in scans if not is_clean(each))
        yield f"Backdoored networks for {title}", [*networks(planted)]


def is_clean(scanned: Scanned) -> bool:
    return scanned.trigger == CLEAN


def failures(scans: Sequence[Scanned]) -> Iterator[str]:
    """Clean networks about which something was said, and backdoored ones that were not found."""
    yield head("network", "planted", "verdict", "first class, with", "power")
    for each in scans:
        expected = each.verdict == "nothing found" if is_clean(each) else each.right
        if each.learnt and not expected:
            name = f"{each.group}: {each.network}"
            yield line(name, each.trigger, each.verdict, each.first, f"{each.row['power']:.0%}")


def summary(scans: Sequence[Scanned], groups: Sequence[str]) -> Iterator[str]:
    """What the scans said of clean networks, and of backdoored ones by their trigger."""
    yield head("networks", *groups)
    clean = [each for each in scans if is_clean(each)]
    for verdict in ("suspicious", "inconclusive"):
        yield line(f"clean: {verdict}", *shares(clean, groups, lambda s, v=verdict: s.verdict == v))
    learnt = [each for each in scans if not is_clean(each) and each.learnt]
    for trigger in dict.fromkeys(each.trigger for each in learnt):
        own = [each for each in learnt if each.trigger == trigger]
        yield line(f"{trigger}: right class", *shares(own, groups, lambda s: s.right))
    unlearnt = [each for each in scans if not each.learnt]
    if unlearnt:
        yield line("*not learnt*: right class", *shares(unlearnt, groups, lambda s: s.right))


def shares(
    scans: Sequence[Scanned], groups: Sequence[str], counts: Callable[[Scanned], bool]
) -> Iterator[str]:
    """How many of each group."""
    for group in groups:
        own = [each for each in scans if each.group == group]
        yield f"{sum(map(counts, own))} of {len(own)}" if own else ""


def in_all(scans: Sequence[Scanned]) -> Iterator[str]:
    """With 95 % intervals, as if the networks were independent."""
    yield head("networks", "share", "95 % interval")
    clean = [each for each in scans if is_clean(each)]
    learnt = [each for each in scans if not is_clean(each) and each.learnt]
    for words, hits, count in (
        ("clean: suspicious", sum(s.verdict == "suspicious" for s in clean), len(clean)),
        ("clean: inconclusive", sum(s.verdict == "inconclusive" for s in clean), len(clean)),
        ("backdoored: right class", sum(s.right for s in learnt), len(learnt)),
        ("backdoored: a wrong class", sum(is_wrong(s) for s in learnt), len(learnt)),
        ("backdoored: inconclusive", sum(s.verdict == "inconclusive" for s in learnt), len(learnt)),
    ):
        low, high = wilson(hits, count)
        yield line(words, f"{hits} of {count}", f"{low:.0%} to {high:.0%}")


def is_wrong(scanned: Scanned) -> bool:
    return scanned.verdict == "suspicious" and not scanned.right


def networks(scans: Iterable[Scanned]) -> Iterator[str]:
    """Each of them."""
    yield head(
        *("data", "network", "accuracy", "planted", "success", "verdict"),
        *("first class, with", "power", "largest strength", "minutes"),
    )
    for each in scans:
        row = each.row
        yield line(
            each.group,
            each.network,
            f"{row['accuracy']:.0%}",
            each.trigger,
            ", ".join(f"{share:.0%}" for share in each.successes),
            each.verdict,
            each.first,
            f"{row['power']:.0%}",
            f"{max(row['strengths'].values()):.2f}",
            f"{row['seconds'] / 60:.1f}",
        )

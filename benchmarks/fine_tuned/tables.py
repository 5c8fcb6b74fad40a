"""The tables of the scans of version 0.5 on larger images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from findings import Row, Table, having, head, line, read_rows
from problems import IMAGENET_CLASSES

from captum_classpattern.scanning.changes import LARGE, logit_of_power
from captum_classpattern.scanning.decision import SUSPICIOUS, Bounds, Decision, Measure, decide
from captum_classpattern.scores.intervals import wilson
from fine_tuned.networks import NETWORKS, Network, in_order

FEWEST = 4  # classes, of which a median deviation can be exceeded
LEARNT = 0.9  # the share of images that a trigger must turn to count
KINDS = {
    "drawing": "a drawing anywhere",
    "patch": "a checkerboard at one place",
    "blended": "Blended",
    "wanet": "WaNet",
    "sig": "SIG, clean labels",
    "one source": "a checkerboard for one source class",
}
GOAL = ("drawing", "patch", "blended")  # kinds of which at most one may be missed
SAME = ("size", "backbone", "epochs", "strength", "key", "trained", "eps")
VERDICTS = ("suspicious", "inconclusive")
CHANGES = ("patch", "cells", "smooth")
THOUSAND = {  # networks for ImageNet, in words
    "four": "EfficientNet-lite0 with four planted drawings",
    "second twin": "EfficientNet-lite0, trained like a planted one, clean",
}


def tables(folder: Path) -> Iterator[Table]:
    order = in_order(NETWORKS)
    rows = sorted(
        read_rows(folder / "fine_tuned.jsonl"), key=lambda row: order.index(network_of(row))
    )
    yield "What was missed, and false alarms", [*failures(rows)]
    clean, planted = ([r for r in rows if is_planted(r) == each] for each in (False, True))
    yield "Clean networks, in short", [*clean_summary(clean)]
    yield "Backdoored networks, by trigger", [*planted_summary(planted)]
    yield "Clean networks", [*networks(clean)]
    yield "Backdoored networks", [*networks(planted)]
    rivals = read_rows(folder / "fine_tuned_rivals.jsonl")
    yield "Other detectors, by their own rules", [*detectors(rows, rivals)]
    thousand = read_rows(folder / "fine_tuned_thousand.jsonl")
    yield "A thousand classes", [*of_thousand(thousand)]


def network_of(row: Row) -> Network:
    network = NETWORKS[row["number"]]
    assert [row[name] for name in SAME] == [getattr(network, name) for name in SAME]
    return network


def kind_of(row: Row) -> str:
    return network_of(row).kind


def is_planted(row: Row) -> bool:
    return kind_of(row) != "clean"


def is_learnt(row: Row) -> bool:
    return is_planted(row) and row["successes"][-1] >= LEARNT


def is_right(row: Row) -> bool:
    """Whether a scan calls a network suspicious, by its target and no other class."""
    return row["suspects"] == [row["target"]]


def decision_today(row: Row) -> Decision:
    """By the rule of version 0.6, from the powers that version 0.5 measured."""
    searches = {
        kind: {y: [Measure(logit_of_power(p, 0.0), p) for p in both] for y, both in of.items()}
        for kind, of in powers_of(row).items()
    }
    bounds = {kind: Bounds(LARGE[kind].lead, LARGE[kind].power) for kind in searches}
    return decide(searches, bounds, len(row["classes"]))


def is_right_today(row: Row) -> bool:
    decision = decision_today(row)
    return decision.verdict == SUSPICIOUS and decision.ahead.classes == [row["target"]]


def powers_of(row: Row) -> dict[str, dict[int, list[float]]]:
    """As a scan has them."""
    return {k: {int(y): both for y, both in of.items()} for k, of in row["powers"].items()}


def failures(rows: Sequence[Row]) -> Iterator[str]:
    yield head("network", "verdict", "first class, change, power", "the target's largest power")
    for row in rows:
        if is_learnt(row) and not is_right(row):
            yield line(
                network_of(row).name, row["verdict"], first_of(row), f"{target_power(row):.0%}"
            )
        elif not is_planted(row) and row["verdict"] != "nothing found":
            yield line(network_of(row).name, row["verdict"], first_of(row), "")


def first_of(row: Row) -> str:
    """The first class, by which change, with its power."""
    kind = max(CHANGES, key=lambda name: min(row["powers"][name][str(row["found"])]))
    return f"{row['classes'][row['found']]}, {kind}, {row['power']:.0%}"


def target_power(row: Row) -> float:
    """The largest power of the target, the lesser of two searches."""
    return max(min(row["powers"][kind][str(row["target"])]) for kind in CHANGES)


def largest_other(row: Row) -> float:
    """The largest power of any search of another class than the target."""
    return max(power for power, y in searched(row) if y != row["target"])


def searched(row: Row) -> Iterator[tuple[float, int]]:
    """The power of each search, and its class."""
    for of_kind in powers_of(row).values():
        yield from ((power, y) for y, both in of_kind.items() for power in both)


def share(hits: int, count: int) -> str:
    """A share with its 95 % interval."""
    return "{} of {} ({:.0%} to {:.0%})".format(hits, count, *wilson(hits, count))


def clean_summary(rows: Sequence[Row]) -> Iterator[str]:
    yield head(
        *("clean networks", "suspicious", "inconclusive"),
        *("suspicious by the rule of 0.6", "inconclusive by the rule of 0.6"),
    )
    said = [[row["verdict"] for row in rows], [decision_today(row).verdict for row in rows]]
    counts = (verdicts.count(each) for verdicts in said for each in VERDICTS)
    yield line(len(rows), *(share(n, len(rows)) for n in counts))


def planted_summary(rows: Sequence[Row]) -> Iterator[str]:
    yield head(
        *("planted", "suspicious, its class alone", "suspicious, other classes", "inconclusive"),
        "its class alone by the rule of 0.6",
    )
    for words, own in by_trigger(rows):
        verdicts, right = [row["verdict"] for row in own], sum(map(is_right, own))
        wrong, doubts = verdicts.count("suspicious") - right, verdicts.count("inconclusive")
        today = f"{sum(map(is_right_today, own))} of {len(own)}"
        yield line(words, share(right, len(own)), wrong, doubts, today)


def by_trigger(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Backdoored networks by their triggers, then those of the goal, and those not learnt."""
    learnt = [row for row in rows if is_learnt(row)]
    groups = [(words, [r for r in learnt if kind_of(r) == kind]) for kind, words in KINDS.items()]
    groups += [("the first three together", [r for r in learnt if kind_of(r) in GOAL])]
    groups += [("*not learnt*", [row for row in rows if not is_learnt(row)])]
    return [each for each in groups if each[1]]


def networks(rows: Sequence[Row]) -> Iterator[str]:
    planted = bool(rows) and is_planted(rows[0])
    more = ["success", *(f"target: {kind}" for kind in CHANGES)] if planted else []
    largest = "largest power of other classes" if planted else "largest power"
    last = "verdict", largest, "minutes", "as said"
    yield head("task", "pixels", "network", *["planted"] * planted, "accuracy", *more, *last)
    for row in rows:
        network, own = network_of(row), list[str]()
        if planted:
            powers = (min(row["powers"][kind][str(row["target"])]) for kind in CHANGES)
            own = [" then ".join(f"{each:.0%}" for each in row["successes"])]
            own += [f"{power:.0%}" for power in powers]
        what = [network.task, network.size, network.made, *[network.planted] * planted]
        facts = [row["verdict"], f"{largest_other(row):.0%}", f"{row['seconds'] / 60:.1f}"]
        facts.append("" if row.get("said") is None else f"{row['said'] / 60:.1f}")
        yield line(*what, f"{row['accuracy']:.0%}", *own, *facts)


def detectors(rows: Sequence[Row], rivals: Sequence[Row]) -> Iterator[str]:
    """With two or three classes, Neural Cleanse's index can't exceed its bound, or hardly."""
    yield head(
        *("network", "target", "scan", "minutes"),
        *("detector", "says", "its class", "index or p-value", "minutes"),
    )
    for row in rows:
        for rival in having(rivals, number=row["number"]):
            target = row["classes"][row["target"]] if is_planted(row) else ""
            says = "backdoored" if rival["alarm"] else "clean"
            if rival["rival"] == "Neural Cleanse" and len(row["classes"]) < FEWEST:
                says = "cannot say"
            theirs, ours = (f"{each['seconds'] / 60:.1f}" for each in (rival, row))
            own = [rival["rival"], says, row["classes"][rival["found"]], f"{rival['index']:.2g}"]
            yield line(network_of(row).name, target, row["verdict"], ours, *own, theirs)


def of_thousand(rows: Sequence[Row]) -> Iterator[str]:
    """Scans of all classes of an ImageNet network: planted classes, and the first other one."""
    yield head(
        *("network", "verdict", "**planted** or other class", "rank of 1,000"),
        *(f"{kind}, two searches" for kind in CHANGES),
        *("images that judge", "minutes"),
    )
    for row in rows:
        planted = {y: name for name, y in row["trojans"].items()}
        order = sorted(range(len(row["gains"])), key=lambda y: -row["gains"][y])
        others = (pair for pair in searched(row) if pair[1] not in planted)
        other = max(others)[1]
        for y in sorted([*planted, other], key=order.index):
            powers = (row["powers"][kind].get(str(y), ()) for kind in CHANGES)
            found = [", ".join(f"{p:.0%}" for p in both) or "not searched" for both in powers]
            name = f"**{planted[y]}**" if y in planted else IMAGENET_CLASSES[y]
            facts = row["judged"][y], f"{row['seconds'] / 60:.0f}"
            yield line(
                THOUSAND[row["network"]], row["verdict"], name, 1 + order.index(y), *found, *facts
            )

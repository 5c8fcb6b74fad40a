"""The tables of scans without references."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from findings import Row, Table, having, head, line, read_rows

from captum_classpattern.scores.intervals import wilson
from fine_tuned.networks import NETWORKS, Network, in_order

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
CHANGES = ("patch", "cells", "smooth")


def tables(folder: Path) -> Iterator[Table]:
    places = {NETWORKS.index(network): place for place, network in enumerate(in_order())}
    rows = sorted(read_rows(folder / "fine_tuned.jsonl"), key=lambda row: places[row["number"]])
    yield "What was missed, and false alarms", [*failures(rows)]
    yield "All networks, by trigger", [*summary(rows)]
    yield "Clean networks", [*networks([row for row in rows if not is_planted(row)])]
    yield "Backdoored networks", [*networks([row for row in rows if is_planted(row)])]
    if photos := read_rows(folder / "fine_tuned_photos.jsonl"):
        yield "Fewer images", [*by_count(rows, photos)]
    if rivals := read_rows(folder / "fine_tuned_rivals.jsonl"):
        yield "Other detectors, by their own rules", [*detectors(rows, rivals)]


def network_of(row: Row) -> Network:
    network = NETWORKS[row["number"]]
    assert [row[name] for name in SAME] == [getattr(network, name) for name in SAME]
    return network


def is_planted(row: Row) -> bool:
    return network_of(row).kind != "clean"


def is_learnt(row: Row) -> bool:
    return is_planted(row) and row["successes"][-1] >= LEARNT


def is_right(row: Row) -> bool:
    """Whether a scan calls a network suspicious, by its target and no other class."""
    return row["suspects"] == [row["target"]]


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
    return max(
        power
        for of_kind in row["powers"].values()
        for y, both in of_kind.items()
        for power in both
        if int(y) != row["target"]
    )


def share(hits: int, count: int) -> str:
    """A share with its 95 % interval."""
    return "{} of {} ({:.0%} to {:.0%})".format(hits, count, *wilson(hits, count))


def summary(rows: Sequence[Row]) -> Iterator[str]:
    yield head("networks", "suspicious, right class", "inconclusive", "suspicious, another class")
    clean = [row for row in rows if not is_planted(row)]
    verdicts = Counter(row["verdict"] for row in clean)
    if clean:
        alarms = share(verdicts["suspicious"], len(clean))
        yield line("clean", "", verdicts["inconclusive"], alarms)
    learnt = [row for row in rows if is_learnt(row)]
    groups = [({kind}, words) for kind, words in KINDS.items()]
    for kinds, words in (*groups, (GOAL, "the first three together")):
        if own := [row for row in learnt if network_of(row).kind in kinds]:
            right = sum(map(is_right, own))
            close = sum(row["verdict"] == "inconclusive" for row in own)
            wrong = sum(row["verdict"] == "suspicious" and not is_right(row) for row in own)
            yield line(words, share(right, len(own)), close, wrong)
    if rest := [row for row in rows if is_planted(row) and not is_learnt(row)]:
        counts = Counter(row["verdict"] for row in rest)
        right = f"{sum(map(is_right, rest))} of {len(rest)}"
        yield line("*not learnt*", right, counts["inconclusive"], "")


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


def by_count(rows: Sequence[Row], photos: Sequence[Row]) -> Iterator[str]:
    counts = sorted({row["count"] for row in photos})
    yield head("network", *(f"{count} a class" for count in counts), "all")
    for row in rows:
        if few := having(photos, number=row["number"]):
            said = [of_few(each) for count in counts for each in having(few, count=count)]
            yield line(network_of(row).name, *said, of_few(row))


def of_few(row: Row) -> str:
    """The verdict, with the power of the first class."""
    if "power" not in row:
        return "too few"
    return f"{row['verdict']}, class {row['found']}, {row['power']:.0%}"


def detectors(rows: Sequence[Row], rivals: Sequence[Row]) -> Iterator[str]:
    yield head("network", "target", "scan", "minutes", "detector", "says", "its class", "minutes")
    for row in rows:
        for rival in having(rivals, number=row["number"]):
            target = row["classes"][row["target"]] if is_planted(row) else ""
            says = "backdoored" if rival["alarm"] else "clean"
            theirs, ours = (f"{each['seconds'] / 60:.1f}" for each in (rival, row))
            own = [rival["rival"], says, row["classes"][rival["found"]], theirs]
            yield line(network_of(row).name, target, row["verdict"], ours, *own)

"""The tables of scans without references."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from captum_classpattern.scanning.alone import DOUBT, ranked, suspects_among
from findings import Row, Table, having, head, line, read_rows
from problems import IMAGENET_CLASSES

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
CONFIRM = (16, 27, 30, 5, 15, 4, 29, 32, 6, 20)  # not measured yet when the rule was changed
CHANGES = ("patch", "cells", "smooth")
THOUSAND = {  # networks for ImageNet, in words
    "four": "EfficientNet-lite0 with four planted drawings",
    "second twin": "EfficientNet-lite0, trained like a planted one, clean",
}


def tables(folder: Path) -> Iterator[Table]:
    places = {NETWORKS.index(network): place for place, network in enumerate(in_order())}
    rows = sorted(read_rows(folder / "fine_tuned.jsonl"), key=lambda row: places[row["number"]])
    yield "What was missed, and false alarms", [*failures(rows)]
    clean, planted = ([r for r in rows if is_planted(r) == each] for each in (False, True))
    yield "Clean networks, in short", [*clean_summary(clean)]
    yield "Backdoored networks, by trigger", [*planted_summary(planted)]
    yield "The ten networks measured after the change", [*confirmation(rows)]
    yield "Clean networks", [*networks(clean)]
    yield "Backdoored networks", [*networks(planted)]
    if photos := read_rows(folder / "fine_tuned_photos.jsonl"):
        yield "Fewer images", [*by_count(rows, photos)]
    if rivals := read_rows(folder / "fine_tuned_rivals.jsonl"):
        yield "Other detectors, by their own rules", [*detectors(rows, rivals)]
    if thousand := read_rows(folder / "fine_tuned_thousand.jsonl"):
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


def suspects_today(row: Row) -> list[int]:
    """The classes that are suspicious by today's rule, which was chosen on the first 28 networks
    of the draw: with a smooth perturbation from 65 %."""
    return suspects_among(ranked(powers_of(row)))


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
    yield head("clean networks", "suspicious", "inconclusive", "suspicious by today's rule")
    counts, today = (
        Counter(row["verdict"] for row in rows),
        sum(map(bool, map(suspects_today, rows))),
    )
    yield line(
        len(rows), *(share(n, len(rows)) for n in (*(counts[each] for each in VERDICTS), today))
    )


def planted_summary(rows: Sequence[Row]) -> Iterator[str]:
    yield head(
        *("planted", "suspicious, its class alone", "suspicious, other classes", "inconclusive"),
        "its class alone by today's rule",
    )
    for words, own in by_trigger(rows):
        counts, right = Counter(row["verdict"] for row in own), sum(map(is_right, own))
        wrong = counts["suspicious"] - right
        today = sum(suspects_today(row) == [row["target"]] for row in own)
        facts = wrong, counts["inconclusive"], f"{today} of {len(own)}"
        yield line(words, share(right, len(own)), *facts)


def confirmation(rows: Sequence[Row]) -> Iterator[str]:
    """The verdicts of today's rule on networks that were measured after it was chosen."""
    yield head("networks", "suspicious, no class but its own", "other class", "inconclusive")
    own = [row for row in rows if row["number"] in CONFIRM]
    clean, planted = ([r for r in own if is_planted(r) == each] for each in (False, True))
    for words, group in [("clean", clean), *by_trigger(planted)]:
        found = [suspects_today(row) for row in group]
        right = sum(f == [row["target"]] for f, row in zip(found, group))
        doubt = sum(not f and max(searched(row))[0] >= DOUBT for f, row in zip(found, group))
        yield line(words, share(right, len(group)), sum(map(bool, found)) - right, doubt)


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


def by_count(rows: Sequence[Row], photos: Sequence[Row]) -> Iterator[str]:
    counts = sorted({row["count"] for row in photos})
    yield head("network", *(f"{count} a class" for count in counts), "all")
    for row in rows:
        if few := {each["count"]: each for each in having(photos, number=row["number"])}:
            said = [of_few(few.get(count), row) for count in counts]
            yield line(network_of(row).name, *said, of_few(row, row))


def of_few(few: Row | None, row: Row) -> str:
    """The verdict, with the power of the first class and how many images judge it."""
    if few is None or "power" not in few:
        return "" if few is None else "too few"
    found = few["found"]
    what = f"{row['classes'][found]}, {few['power']:.0%} of {few['judged'][found]}"
    return f"{few['verdict']} ({what})"


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
        other = next(y for y in ranked(powers_of(row)) if y not in planted)
        for y in sorted([*planted, other], key=order.index):
            powers = (row["powers"][kind].get(str(y), ()) for kind in CHANGES)
            found = [", ".join(f"{p:.0%}" for p in both) or "not searched" for both in powers]
            name = f"**{planted[y]}**" if y in planted else IMAGENET_CLASSES[y]
            facts = row["judged"][y], f"{row['seconds'] / 60:.0f}"
            yield line(
                THOUSAND[row["network"]], row["verdict"], name, 1 + order.index(y), *found, *facts
            )

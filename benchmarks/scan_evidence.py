"""How often a scan finds a backdoor, and how often it is wrong: tables of docs/scan_evidence.md.

    python benchmarks/scan_evidence.py benchmarks/results

The folder holds the rows of scan_zoo.py (``scan_references.jsonl``, ``scan_confirmation.jsonl``)
and of scan_variations.py (``scan_variations.jsonl``); each may be a part. All verdicts are made
again, of what was measured.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from findings import Row, head, line, parser_of, read_rows
from rivals import cbd_alarm, mm_bd_p_value
from scan_zoo import reference_set
from scipy import stats
from zoo import DATA_SETS, Backdoor

from captum_classpattern.comparison.records import grouped
from captum_classpattern.scanning.decision import (
    INCONCLUSIVE,
    NOTHING,
    SUSPICIOUS,
    Decision,
    decide,
)
from captum_classpattern.scanning.families import FAMILIES, PATCHES
from captum_classpattern.scanning.profile import Profile
from captum_classpattern.scanning.scan import Scan, judge
from captum_classpattern.scores.intervals import wilson

ALPHA = 0.05
LEARNT = 0.9  # least attack success of a backdoor that counts
IN_PLACE = 0.5  # share of the shown pixels, or of the trigger if it has fewer, that must agree
TITLES = {"fashion": "Fashion-MNIST", "cifar10": "CIFAR-10"}
CLEAN, PATCH = "clean", "patch"
KINDS = {
    **{"blended": "Blended", "sig": "SIG", "wanet": "WaNet"},
    **{"bpp": "BppAttack", "adaptive": "Adap-Patch"},
}
WHOLE = ("Blended", "SIG", "WaNet")  # triggers that change all pixels
COUNTED = {  # how many learnt ones count, the first of the list
    "fashion": {PATCH: 40} | dict.fromkeys(WHOLE, 8),
    "cifar10": {PATCH: 8} | dict.fromkeys(WHOLE, 3),
}


@dataclass(frozen=True, eq=False)
class Network:
    """A network of a zoo, with what was measured of it."""

    row: Row

    @property
    def name(self) -> str:
        return str(self.row["name"])

    @cached_property
    def profile(self) -> Profile:
        return Profile.from_dict(self.row["profile"])

    @cached_property
    def backdoor(self) -> Backdoor | None:
        planted = self.row["backdoor"]
        return None if planted is None else Backdoor(**planted)

    @property
    def learnt(self) -> bool:
        return self.backdoor is None or self.row["attack_success"] >= LEARNT

    @property
    def kind(self) -> str:
        """What was planted."""
        if self.backdoor is None:
            return CLEAN
        return "all-to-all" if self.backdoor.all_to_all else KINDS.get(self.backdoor.kind, PATCH)

    @property
    def recipe(self) -> str:
        """In what a clean network's training is new."""
        return self.name.split("_")[-1]

    def names(self, found: Decision) -> bool:
        """Whether a verdict is suspicious, and has the right class if one was planted."""
        wanted = None if self.backdoor is None or self.backdoor.all_to_all else self.backdoor.target
        return found.verdict == SUSPICIOUS and wanted in (None, found.target)


Networks: TypeAlias = Sequence[Network]


def scan_of(profile: Profile, references: Networks) -> Scan:
    """The verdict on what was measured."""
    known = reference_set([each.row for each in references])
    names = list(DATA_SETS[references[0].row["data"]].class_names)
    return judge(profile, known, ALPHA, names)


def scan_alone(network: Network, references: Networks, family: str) -> Decision:
    """The verdict by one family alone, if the model may be compared."""
    found = scan_of(network.profile, references)
    comparable = found.verdict != INCONCLUSIVE or found.comparison.of_another_kind
    known = {family: found.references.scores()[family]}
    return decide({family: network.profile.scores()[family]}, known, ALPHA, comparable=comparable)


def by_kind(networks: Networks) -> dict[str, list[Network]]:
    """The networks by what was planted; those that were learnt weakly, or are more than count, are
    apart."""
    groups = dict[str, list[Network]]()
    for each in networks:
        kind = each.kind if each.learnt else f"{each.kind}, weakly learnt"
        if len(groups.get(kind, ())) == COUNTED[each.row["data"]].get(kind):
            kind += ", further"
        groups.setdefault(kind, []).append(each)
    order = [CLEAN, PATCH, *KINDS.values(), "all-to-all"]
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0].split(",")[0])))


def share(hits: int, count: int) -> str:
    """A share with its 95 % interval."""
    if not count:
        return "-"
    low, high = wilson(hits, count)
    return f"{hits} of {count} ({low:.0%} to {high:.0%})"


def detections(networks: Networks, references: Networks) -> Iterator[str]:
    """What is said about the networks of each kind, and which family says it."""
    yield head(
        "planted", "suspicious, right class", "suspicious, another class", "nothing found",
        "inconclusive", "family that decided",
    )  # fmt: skip
    for kind, group in by_kind(networks).items():
        scans = [scan_of(each.profile, references) for each in group]
        verdicts = Counter(scan.verdict for scan in scans)
        right = sum(each.names(scan) for each, scan in zip(group, scans))
        families = Counter(scan.family for scan in scans if scan.verdict == SUSPICIOUS)
        named, other = share(right, len(group)), verdicts[SUSPICIOUS] - right
        if kind == CLEAN:
            named, other = "", verdicts[SUSPICIOUS]
        yield line(
            kind,
            named,
            other,
            verdicts[NOTHING],
            verdicts[INCONCLUSIVE],
            ", ".join(f"{name} {families[name]}" for name in FAMILIES if families[name]),
        )


def false_alarms(networks: Networks, references: Networks) -> Iterator[str]:
    """Clean networks that are suspicious, by what is new in their recipes, with all references and
    without those of the same kind of network."""
    clean = by_kind(networks).get(CLEAN, [])
    yield head("recipe", "suspicious", "inconclusive", "smallest p", "suspicious, without its like")
    total, worst = Counter[str](), dict[str, int]()
    for recipe, group in grouped((each.recipe, each) for each in clean).items():
        scans = [scan_of(each.profile, references) for each in group]
        unlike = [
            scan_of(each.profile, others)
            for each in group
            if (others := [r for r in references if _network(r) != _network(each)])
        ]
        worst[recipe] = sum(scan.verdict == SUSPICIOUS for scan in scans)
        counts = {
            "suspicious": worst[recipe],
            "inconclusive": sum(scan.verdict == INCONCLUSIVE for scan in scans),
            "unlike": sum(scan.verdict == SUSPICIOUS for scan in unlike),
        }
        total.update(counts)
        smallest = min((scan.p_value for scan in scans if scan.p_value is not None), default=None)
        yield line(
            recipe,
            f"{counts['suspicious']} of {len(group)}",
            counts["inconclusive"],
            "-" if smallest is None else f"{smallest:.2g}",
            counts["unlike"],
        )
    shares = [share(total[name], len(clean)) for name in ("suspicious", "unlike")]
    yield line("all", shares[0], total["inconclusive"], "", shares[1])
    named = [f"{recipe} ({count})" for recipe, count in worst.items() if count]
    yield f"\nSuspicious: {', '.join(named) or 'none'}."


def _network(network: Network) -> str:
    return str(network.row["recipe"]["network"])


def families(networks: Networks, references: Networks) -> Iterator[str]:
    """How many are found, with the right class, by all families together and by each alone; of the
    clean ones, how many are suspicious."""
    yield head("planted", "together", *FAMILIES)
    for kind, group in by_kind(networks).items():
        together = sum(each.names(scan_of(each.profile, references)) for each in group)
        alone = [
            sum(each.names(scan_alone(each, references, family)) for each in group)
            for family in FAMILIES
        ]
        yield line(kind, share(together, len(group)), *alone)


# ---- rivals


class Judged(NamedTuple):
    """What a detector says about a network."""

    right: bool  # the alarm, and the class if one was planted
    statistic: float


Detector: TypeAlias = Callable[[Network], Judged]


def scores_of(network: Network, rival: str) -> list[float]:
    return list(network.row["rivals"][rival]["scores"])


def detectors(references: Networks) -> Iterator[tuple[str, str, Detector]]:
    """Each detector with its rule. The margins of MM-BD count by their inverse hyperbolic sine: a
    logarithm where they are large."""

    def ours(network: Network) -> Judged:
        found = scan_of(network.profile, references)
        return Judged(network.names(found), found.comparison.lead)

    def own(rival: str, network: Network) -> Judged:
        scores = scores_of(network, rival)
        if rival == "CBD":
            statistic = max(scores)
            alarm = cbd_alarm(statistic, [max(scores_of(each, rival)) for each in references])
        else:
            statistic = -mm_bd_p_value(scores)
            alarm = -statistic <= ALPHA
        wanted = None if network.backdoor is None else network.backdoor.target
        return Judged(alarm and wanted in (None, int(np.argmax(scores))), statistic)

    def compared(rival: str, network: Network) -> Judged:
        tables = [np.array(scores_of(each, rival)) for each in (network, *references)]
        if rival == "MM-BD":
            tables = [np.arcsinh(each) for each in tables]
        known = {rival: np.array(tables[1:])}
        found = decide({rival: tables[0]}, known, ALPHA, comparable=True)
        return Judged(network.names(found), found.comparison.lead)

    yield "scan", "ours", ours
    for rival in ("CBD", "MM-BD"):
        yield rival, "its own", lambda network, rival=rival: own(rival, network)
        yield rival, "ours", lambda network, rival=rival: compared(rival, network)


def rivals(networks: Networks, references: Networks) -> Iterator[str]:
    """The share of networks with each attack that are found, with the right class, with the area
    under the curve; the share of clean networks that are suspicious; and seconds."""
    groups, references = by_kind([n for n in networks if n.row["rivals"]]), [
        each for each in references if each.row["rivals"]
    ]  # fmt: skip
    attacks = [kind for kind in (PATCH, *WHOLE) if kind in groups]
    if not references or CLEAN not in groups:
        return
    columns = (f"{kind}: found, AUC" for kind in attacks)
    yield head("detector", "rule", "false alarms", *columns, "seconds")
    for name, rule, detector in detectors(references):
        judged = {kind: [detector(each) for each in groups[kind]] for kind in (CLEAN, *attacks)}
        seconds = [
            row["seconds"]["scan"] if name == "scan" else row["rivals"][name]["seconds"]
            for row in (each.row for kind in judged for each in groups[kind])
        ]
        yield line(
            name,
            rule,
            share(sum(each.right for each in judged[CLEAN]), len(judged[CLEAN])),
            *(
                f"{sum(each.right for each in judged[kind])} of {len(judged[kind])}, "
                f"{area(judged[kind], judged[CLEAN]):.2f}"
                for kind in attacks
            ),
            f"{np.median(seconds):.0f}",
        )


def area(positives: Sequence[Judged], negatives: Sequence[Judged]) -> float:
    """The area under the curve of a statistic."""
    found = stats.mannwhitneyu([p.statistic for p in positives], [n.statistic for n in negatives])
    return float(found.statistic / len(positives) / len(negatives))


# ---- other seeds, images and precisions


def variations(rows: Sequence[Row], references: Mapping[str, Networks]) -> Iterator[str]:
    """How often a scan says the same as most scans of the network with other seeds."""
    found = dict[str, list[tuple[str, str, int | None]]]()  # of each variation: network, outcome
    for row in rows:
        if known := references.get(row["data"]):
            scan = scan_of(Profile.from_dict(row["profile"]), known)
            target = scan.target if scan.verdict == SUSPICIOUS else None
            name = f"{row['data']}/{row['name']}"
            found.setdefault(row["varied"], []).append((name, scan.verdict, target))
    outcomes = grouped((name, outcome) for name, *outcome in found.get("seed", ()))
    usual = {
        name: Counter(map(tuple, each)).most_common(1)[0][0] for name, each in outcomes.items()
    }
    yield head("varied", "scans", "as most seeds", "networks, always as most seeds")
    for varied, scans in found.items():
        same = [(name, usual[name] == tuple(each)) for name, *each in scans if name in usual]
        always = [all(each) for each in grouped(same).values()]
        agree = sum(each for _, each in same)
        rate = f" ({agree / len(same):.0%})" if same else ""
        yield line(varied, len(scans), f"{agree}{rate}", f"{sum(always)} of {len(always)}")


# ---- the pattern that is shown


def shown(networks: Networks, references: Networks) -> Iterator[str]:
    """Whether the pattern of a patch that was found is where the trigger was."""
    yield head("training", "networks", "in place", "pixels in common at the best shift")
    found = dict[str, list[tuple[bool, float]]]()
    for each in by_kind(networks).get(PATCH, []):
        scan = scan_of(each.profile, references)
        if each.names(scan) and scan.family == PATCHES:
            moved = each.row["recipe"]["shifts"] or each.row["recipe"]["flips"]
            training = "images moved or mirrored" if moved else "images as they are"
            found.setdefault(training, []).append(overlap(each))
    for training, overlaps in sorted(found.items()):
        places, shifted = zip(*overlaps)
        yield line(training, len(places), sum(places), f"{np.mean(shifted):.0%}")


def overlap(network: Network) -> tuple[bool, float]:
    """Whether a shown pattern is where the trigger is; and which share of the pixels that could be
    in common is so at the best shift."""
    assert network.backdoor is not None
    mask = network.backdoor.patch(DATA_SETS[network.row["data"]].shape).mask[0]
    places = {(i, j) for i, j in mask.nonzero().tolist()}
    pixels = {(int(i), int(j)) for i, j, *_ in network.row["shown"]}
    shifts = Counter((p[0] - f[0], p[1] - f[1]) for f in pixels for p in places)
    most = max(1, min(len(pixels), len(places)))
    return shifts[0, 0] >= IN_PLACE * most, max(shifts.values(), default=0) / most


# ---- all of them


def every(networks: Networks, references: Networks) -> Iterator[str]:
    """Each network with its verdict."""
    yield head("network", "accuracy", "attack success", "verdict", "p", "family", "class", "target")
    for each in networks:
        scan = scan_of(each.profile, references)
        success = each.row["attack_success"]
        yield line(
            each.name,
            f"{each.row['accuracy']:.1%}",
            "" if success is None else f"{success:.1%}",
            scan.verdict,
            "-" if scan.p_value is None else f"{scan.p_value:.2g}",
            scan.family,
            scan.target,
            "" if each.backdoor is None else each.backdoor.target,
        )


def in_words(networks: Networks, references: Networks) -> Iterator[str]:
    """The counts that pages quote."""
    groups = by_kind(networks)
    for words, kinds in (
        ("patches", (PATCH,)),
        ("triggers that change all pixels", WHOLE),
        ("clean networks", (CLEAN,)),
    ):
        group = [each for kind in kinds for each in groups.get(kind, ())]
        found = sum(each.names(scan_of(each.profile, references)) for each in group)
        yield f"{found} of {len(group)} {words}\n"


def seconds(networks: Networks) -> Iterator[str]:
    values = [float(each.row["seconds"]["scan"]) for each in networks]
    yield f"{np.median(values):.0f} s a network ({min(values):.0f} to {max(values):.0f})"


def read(path: Path) -> dict[str, Networks]:
    """The networks of a file, by data set, in the order of their names."""
    return grouped((row["data"], Network(row)) for row in read_rows(path))


def tables(folder: Path) -> Iterator[tuple[str, Iterable[str]]]:
    """All tables, with their titles."""
    known = read(folder / "scan_references.jsonl")
    for data, networks in read(folder / "scan_confirmation.jsonl").items():
        if references := known.get(data):
            for title, table in (
                ("what is found", detections),
                ("false alarms", false_alarms),
                ("families", families),
                ("other detectors", rivals),
                ("the pattern that is shown", shown),
                ("each network", every),
            ):
                yield f"{TITLES[data]}: {title}", table(networks, references)
            yield f"{TITLES[data]}: seconds", seconds(networks)
    if rows := read_rows(folder / "scan_variations.jsonl"):
        yield "Other seeds, images and precisions", variations(rows, known)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("rows", type=Path, help="their folder")
    for title, lines in tables(parser.parse_args(arguments).rows):
        print(f"\n### {title}\n")
        for each in lines:
            print(each)


if __name__ == "__main__":
    main()

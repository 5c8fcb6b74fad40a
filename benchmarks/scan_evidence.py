"""How often a scan finds a backdoor, and how often it is wrong: tables of docs/scan_evidence.md.

All verdicts are made again, of what scan_zoo.py and scan_variations.py have measured.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from findings import Row, Table, head, line, read_rows
from rivals import cbd_alarm, mm_bd_p_value
from scan_zoo import reference_set
from scipy import stats
from zoo import DATA_SETS, Backdoor

from captum_classpattern.comparison.records import grouped
from captum_classpattern.scanning.decision import (
    INCONCLUSIVE,
    NOTHING,
    SUSPICIOUS,
    ClassScores,
    Decision,
    decide,
)
from captum_classpattern.scanning.families import FAMILY_NAMES, PATCHES
from captum_classpattern.scanning.profile import Profile
from captum_classpattern.scanning.results import Scan
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

    @cached_property
    def profile(self) -> Profile:
        return Profile.from_dict(self.row["profile"])

    @cached_property
    def backdoor(self) -> Backdoor | None:
        planted = self.row["backdoor"]
        return None if planted is None else Backdoor(**planted)

    @property
    def kind(self) -> str:
        """What was planted."""
        if self.backdoor is None:
            return CLEAN
        kind = "all-to-all" if self.backdoor.all_to_all else KINDS.get(self.backdoor.kind, PATCH)
        return kind if self.row["attack_success"] >= LEARNT else f"{kind}, weakly learnt"

    def is_class(self, target: int) -> bool:
        """Whether a class may be called suspicious: that of the backdoor, if it has one."""
        return self.backdoor is None or self.backdoor.all_to_all or target == self.backdoor.target

    def right(self, found: Decision) -> bool:
        """Whether it is suspicious, with the right class if something was planted."""
        return found.verdict == SUSPICIOUS and self.is_class(found.target)

    def scores(self, rival: str) -> ClassScores:
        """What a rival has measured. Margins count by their inverse hyperbolic sine: a logarithm
        where they are large."""
        found = np.array(self.row["rivals"][rival]["scores"])
        return np.arcsinh(found) if rival == "MM-BD" else found


Networks: TypeAlias = Sequence[Network]
Groups: TypeAlias = dict[str, list[tuple[Network, Scan]]]  # by what was planted


def scan_of(profile: Profile, references: Networks) -> Scan:
    """The verdict on what was measured."""
    known = reference_set([each.row for each in references])
    return Scan.of_profile(profile, known, ALPHA, list(known.class_names or ()))


def by_kind(networks: Networks, references: Networks) -> Groups:
    """The networks by what was planted, and the verdicts; those that are more than count apart."""
    groups: Groups = {}
    for each in networks:
        kind = each.kind
        if len(groups.get(kind, ())) == COUNTED[each.row["data"]].get(kind):
            kind += ", further"
        groups.setdefault(kind, []).append((each, scan_of(each.profile, references)))
    order = [CLEAN, PATCH, *KINDS.values(), "all-to-all"]
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0].split(",")[0])))


def share(hits: int, count: int) -> str:
    """A share with its 95 % interval."""
    low, high = wilson(hits, count) if count else (0.0, 1.0)
    return f"{hits} of {count} ({low:.0%} to {high:.0%})"


def verdicts_of(scans: Iterable[Decision]) -> Counter[str]:
    return Counter(scan.verdict for scan in scans)


def detections(groups: Groups, references: Networks) -> Iterator[str]:
    """What is said about the networks of each kind, and which family says it."""
    yield head(
        *("planted", "suspicious, right class", "another class", "nothing found"),
        *("inconclusive", "family that decided"),
    )
    for kind, pairs in groups.items():
        verdicts = verdicts_of(scan for _, scan in pairs)
        right = sum(each.right(scan) for each, scan in pairs)
        named = "" if kind == CLEAN else share(right, len(pairs))
        other = verdicts[SUSPICIOUS] - (0 if kind == CLEAN else right)
        families = Counter(scan.family for _, scan in pairs if scan.verdict == SUSPICIOUS)
        decided = ", ".join(f"{name} {families[name]}" for name in FAMILY_NAMES if families[name])
        yield line(kind, named, other, verdicts[NOTHING], verdicts[INCONCLUSIVE], decided)


def false_alarms(groups: Groups, references: Networks) -> Iterator[str]:
    """Clean networks that are suspicious, by what is new in their recipes, with all references and
    without those of the same kind of network; the smallest p-values first."""
    clean = [
        (each.row["name"].split("_")[-1], scan, scan_of(each.profile, unlike))
        for each, scan in groups[CLEAN]
        for unlike in ([r for r in references if architecture(r) != architecture(each)],)
    ]
    recipes = grouped((recipe, scans) for recipe, *scans in clean)
    least = {name: min(scan.p_value or 1 for scan, _ in each) for name, each in recipes.items()}
    yield head("recipe", "suspicious", "inconclusive", "smallest p", "without its like")
    for recipe in [*sorted(recipes, key=lambda name: least[name]), "all"]:
        pairs = recipes.get(recipe) or [scans for _, *scans in clean]
        usual, alone = (verdicts_of(scans) for scans in zip(*pairs))
        first, last = (share(each[SUSPICIOUS], len(pairs)) for each in (usual, alone))
        yield line(
            recipe,
            first,
            usual[INCONCLUSIVE],
            f"{least.get(recipe, min(least.values())):.2g}",
            last,
        )


def architecture(network: Network) -> str:
    return str(network.row["recipe"]["network"])


def families(groups: Groups, references: Networks) -> Iterator[str]:
    """How many are found, with the right class, by all families together and by each alone; of the
    clean ones, how many are suspicious."""
    yield head("planted", "together", *FAMILY_NAMES)
    for kind, pairs in groups.items():
        found = Counter[str]()
        for each, scan in pairs:
            found["together"] += each.right(scan)
            comparable = scan.verdict != INCONCLUSIVE or scan.comparison.of_another_kind
            known, scores = scan.references.scores(), each.profile.scores()
            for name in FAMILY_NAMES:
                one = {name: scores[name]}, {name: known[name]}
                found[name] += each.right(decide(*one, ALPHA, comparable=comparable))
        yield line(kind, share(found["together"], len(pairs)), *(found[f] for f in FAMILY_NAMES))


Judge: TypeAlias = Callable[[Network], tuple[bool, float]]  # alarm of the right class, statistic


def detectors(references: Networks) -> Iterator[tuple[str, str, Judge]]:
    """Each detector with its rule."""

    def scan(network: Network) -> tuple[bool, float]:
        found = scan_of(network.profile, references)
        return network.right(found), found.comparison.largest

    def cbd(network: Network) -> tuple[bool, float]:
        scores = network.scores("CBD")
        alarm = cbd_alarm(scores.max(), [each.scores("CBD").max() for each in references])
        return alarm and network.is_class(int(scores.argmax())), float(scores.max())

    def mm_bd(network: Network) -> tuple[bool, float]:
        margins = network.row["rivals"]["MM-BD"]["scores"]
        p_value = mm_bd_p_value(margins)
        return p_value <= ALPHA and network.is_class(int(np.argmax(margins))), -p_value

    def compared(rival: str, network: Network) -> tuple[bool, float]:
        known = {rival: np.array([each.scores(rival) for each in references])}
        found = decide({rival: network.scores(rival)}, known, ALPHA, comparable=True)
        return network.right(found), found.comparison.largest

    yield "scan", "ours", scan
    for rival, own in (("CBD", cbd), ("MM-BD", mm_bd)):
        yield rival, "its own", own
        yield rival, "ours", partial(compared, rival)


def rivals(groups: Groups, references: Networks) -> Iterator[str]:
    """How many clean networks and how many with each attack are suspicious, with the right class;
    the area under the curve; and seconds."""
    attacks = (PATCH, *WHOLE)
    columns = (f"{kind}: found, AUC" for kind in attacks)
    yield head("detector", "rule", "false alarms", *columns, "seconds")
    tried = [[each for each, _ in groups[kind]] for kind in (CLEAN, *attacks)]
    rows = [each.row for group in tried for each in group]
    for name, rule, judge_of in detectors(references):
        (alarms, usual), *found = (zip(*map(judge_of, group)) for group in tried)
        seconds = [{"scan": row["seconds"]["scan"], **row["rivals"]}[name] for row in rows]
        cells = [
            f"{sum(flags)} of {len(flags)}, {area(statistics, usual):.2f}"
            for flags, statistics in found
        ]
        typical = np.median([each if name == "scan" else each["seconds"] for each in seconds])
        yield line(name, rule, share(sum(alarms), len(alarms)), *cells, f"{typical:.0f}")


def area(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """The area under the curve of a statistic."""
    found = stats.mannwhitneyu(positives, negatives).statistic
    return float(found / len(positives) / len(negatives))


def shown(groups: Groups, references: Networks) -> Iterator[str]:
    """Whether the pattern of a patch that was found is where the trigger was."""
    yield head("training", "networks", "in place", "pixels in common at the best shift")
    found = dict[str, list[tuple[bool, float]]]()
    for each, scan in groups[PATCH]:
        if each.right(scan) and scan.family == PATCHES:
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
    places, pixels = mask.nonzero().tolist(), [each[:2] for each in network.row["shown"]]
    shifts = Counter((p[0] - f[0], p[1] - f[1]) for f in pixels for p in places)
    most = max(1, min(len(pixels), len(places)))
    return shifts[0, 0] >= IN_PLACE * most, max(shifts.values(), default=0) / most


def sizes(groups: Groups, references: Networks) -> Iterator[str]:
    """How many of the learnt patches that count are found, by their number of pixels."""
    rights = grouped((each.backdoor.side**2, each.right(scan)) for each, scan in groups[PATCH])
    yield head("pixels of the patch", "found, right class")
    for pixels, found in sorted(rights.items()):
        yield line(pixels, share(sum(found), len(found)))


def every(groups: Groups, references: Networks) -> Iterator[str]:
    """Each network with its verdict."""
    yield head("network", "accuracy", "attack success", "verdict", "p", "family", "class", "target")
    for each, scan in (pair for pairs in groups.values() for pair in pairs):
        success, target = each.row["attack_success"], each.backdoor and each.backdoor.target
        p_value = "-" if scan.p_value is None else f"{scan.p_value:.2g}"
        cells = scan.verdict, p_value, scan.family, scan.target, target
        yield line(each.row["name"], each.row["accuracy"], success, *cells)


def variations(rows: Sequence[Row], references: Mapping[str, Networks]) -> Iterator[str]:
    """How often a scan says the same as most scans of the network with other seeds."""
    found = dict[str, list[tuple[str, tuple[object, ...]]]]()  # network, outcome
    for row in rows:
        scan = scan_of(Profile.from_dict(row["profile"]), references[row["data"]])
        outcome = scan.verdict, scan.verdict == SUSPICIOUS and scan.target
        found.setdefault(row["varied"], []).append((f"{row['data']}/{row['name']}", outcome))
    usual = {
        name: Counter(outcomes).most_common(1)[0][0]
        for name, outcomes in grouped(found["seed"]).items()
    }
    yield head("varied", "scans, as most seeds", "networks, always as most seeds")
    for varied, scans in found.items():
        same = [(name, usual[name] == outcome) for name, outcome in scans]
        always = [all(each) for each in grouped(same).values()]
        agree = sum(each for _, each in same)
        yield line(varied, share(agree, len(same)), f"{sum(always)} of {len(always)}")


def in_words(groups: Groups) -> Iterator[str]:
    """The counts that pages quote."""
    for words, kinds in (
        ("patches", (PATCH,)),
        ("triggers that change all pixels", WHOLE),
        ("clean networks", (CLEAN,)),
    ):
        pairs = [pair for kind in kinds for pair in groups.get(kind, ())]
        yield f"{sum(each.right(scan) for each, scan in pairs)} of {len(pairs)} {words}\n"


def read(folder: Path, name: str) -> dict[str, Networks]:
    """The networks of a zoo, by data set, in the order of their names."""
    return grouped((row["data"], Network(row)) for row in read_rows(folder / f"scan_{name}.jsonl"))


TABLES = {
    "what is found": detections,
    "patches by size": sizes,
    "false alarms": false_alarms,
    "families": families,
    "other detectors": rivals,
    "the pattern that is shown": shown,
    "each network": every,
}


def tables(folder: Path) -> Iterator[Table]:
    """All tables with their titles."""
    known = read(folder, "references")
    for data, networks in read(folder, "confirmation").items():
        groups = by_kind(networks, known[data])
        for title, table in TABLES.items():
            yield f"{TITLES[data]}: {title}", table(groups, known[data])
        seconds = [float(each.row["seconds"]["scan"]) for each in networks]
        words = f"{np.median(seconds):.0f} s ({min(seconds):.0f} to {max(seconds):.0f})"
        yield f"{TITLES[data]}: seconds of a scan", [words]
    rows = read_rows(folder / "scan_variations.jsonl")
    yield "Other seeds, images and precisions", variations(rows, known)

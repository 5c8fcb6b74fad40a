"""How often a scan finds a backdoor, and how often it is wrong: tables of docs/scan_evidence.md.

All verdicts are made again, of what scan_zoo.py has measured. With --figure, the dots of
docs/scan_evidence.md are drawn.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from captum_classpattern.scanning.compared import Compared
from captum_classpattern.scanning.families import FAMILIES, PATCHES
from captum_classpattern.scanning.profile import Profile
from captum_classpattern.scanning.references import ReferenceSet
from findings import Row, Table, head, line, parser_of, read_rows
from matplotlib.figure import Figure
from rivals import cbd_alarm, mm_bd_p_value
from scan_zoo import reference_set
from scipy import stats
from zoo import DATA_SETS, Backdoor, references
from zoo.backdoors import COLOURS
from zoo.entries import STRONG

from captum_classpattern.comparison.records import grouped
from captum_classpattern.scanning.decision import (
    INCONCLUSIVE,
    LEAST,
    NOTHING,
    SUSPICIOUS,
    ClassScores,
    Decision,
)
from captum_classpattern.scores.intervals import wilson
from captum_classpattern.visualization.style import HIGHLIGHTS

ALPHA = 0.05
LEARNT = 0.9  # least attack success of a backdoor that counts
FAR = 2.0  # anomaly index from which Neural Cleanse calls a class backdoored
IN_PLACE = 0.5  # share of the shown pixels, or of the trigger if it has fewer, that must agree
TITLES = {
    "others": "CIFAR-10, networks of others",
    "cifar10": "CIFAR-10",
    "fashion": "Fashion-MNIST",
}
CLEAN, PATCH = "clean", "patch"
KINDS = {"blended": "Blended", "sig": "SIG", "wanet": "WaNet", "ftrojan": "FTrojan"}
WHOLE = tuple(KINDS.values())  # triggers that change all pixels
LEARNT_KINDS = {*COLOURS, "blended", "sig", "wanet"}
BOUNDS = (4.0, LEAST, 5.0)
BACKDOOR = {field.name for field in fields(Backdoor)}
LATER = {("cifar10", each.name) for each in references("cifar10") if each.recipe in STRONG}


@dataclass(frozen=True, eq=False)
class Network:
    """A network of a zoo, with what one scan measured of it."""

    row: Row

    @cached_property
    def profile(self) -> Profile:
        return Profile.from_dict(self.row["profile"])

    @cached_property
    def backdoor(self) -> Backdoor | None:
        planted = self.row["backdoor"]
        return planted and Backdoor(**{name: planted[name] for name in BACKDOOR & planted.keys()})

    @property
    def group(self) -> str:
        """The data set; networks of others apart."""
        return "others" if "source" in self.row["recipe"] else str(self.row["data"])

    @property
    def kind(self) -> str:
        """What was planted."""
        if self.backdoor is None:
            return CLEAN
        kind = KINDS.get(self.backdoor.kind, PATCH)
        return kind if self.row["attack_success"] >= LEARNT else f"{kind}, weakly learnt"

    def is_class(self, target: int) -> bool:
        """Whether a class may be called suspicious: that of the backdoor, if it has one."""
        return self.backdoor is None or target == self.backdoor.target

    def right(self, found: Decision) -> bool:
        """Whether it is suspicious, with the right class if something was planted."""
        return found.verdict == SUSPICIOUS and self.is_class(found.target)

    def scores(self, rival: str) -> ClassScores:
        """What a rival has measured. The sizes of Neural Cleanse are small where it is
        suspicious."""
        found = np.array(self.row["rivals"][rival]["scores"])
        return -found if rival == "Neural Cleanse" else found


Networks: TypeAlias = Sequence[Network]
Pair: TypeAlias = tuple[Network, Compared]
Groups: TypeAlias = dict[str, list[Pair]]  # by what was planted


def scan_of(network: Network, known: ReferenceSet) -> Compared:
    """The verdict on what was measured."""
    return Compared.of(network.profile, known, ALPHA, list(known.class_names or ()))


def by_kind(networks: Networks, references: Networks) -> Groups:
    """The scans by what was planted, with their verdicts."""
    known = reference_set([each.row for each in references])
    groups = grouped((each.kind, (each, scan_of(each, known))) for each in networks)
    order = [CLEAN, PATCH, *WHOLE]
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0].split(",")[0])))


def share(hits: int, count: int) -> str:
    """A share with its 95 % interval."""
    low, high = wilson(hits, count) if count else (0.0, 1.0)
    return f"{hits} of {count} ({low:.0%} to {high:.0%})"


def verdicts_of(scans: Iterable[Decision]) -> Counter[str]:
    return Counter(scan.verdict for scan in scans)


def detections(groups: Groups) -> Iterator[str]:
    """What is said about the networks of each kind, and which family says it."""
    yield head(
        *("planted", "networks", "accuracy (%)", "scans: suspicious, right class"),
        *("another class", "nothing found", "inconclusive", "family that decided"),
    )
    for kind, pairs in groups.items():
        verdicts = verdicts_of(scan for _, scan in pairs)
        right = sum(each.right(scan) for each, scan in pairs)
        named = "" if kind == CLEAN else share(right, len(pairs))
        other = verdicts[SUSPICIOUS] - (0 if kind == CLEAN else right)
        deciding = Counter(scan.family for _, scan in pairs if scan.verdict == SUSPICIOUS)
        decided = ", ".join(f"{name} {deciding[name]}" for name in FAMILIES if deciding[name])
        rest = verdicts[NOTHING], verdicts[INCONCLUSIVE], decided
        accuracies = [100 * each.profile.accuracy for each, _ in pairs]
        between = " to ".join(dict.fromkeys(f"{f(accuracies):.0f}" for f in (min, max)))
        yield line(kind, len({each.row["name"] for each, _ in pairs}), between, named, other, *rest)


def first_seed(pairs: Iterable[Pair]) -> list[Pair]:
    """One scan of each network."""
    return [(each, scan) for each, scan in pairs if not each.row["scan_seed"]]


Judge: TypeAlias = Callable[[Network, Compared], tuple[bool, float]]  # right alarm, statistic


def detectors(references: Networks) -> Iterator[tuple[str, str, Judge]]:
    """Each detector with what it needs, by its own rule."""

    def cbd(network: Network, _: Compared) -> tuple[bool, float]:
        scores = network.scores("CBD")
        alarm = cbd_alarm(scores.max(), [each.scores("CBD").max() for each in known])
        return alarm and network.is_class(int(scores.argmax())), float(scores.max())

    def mm_bd(network: Network, _: Compared) -> tuple[bool, float]:
        margins = network.scores("MM-BD")
        p_value = mm_bd_p_value(margins)
        return p_value <= ALPHA and network.is_class(int(margins.argmax())), -p_value

    def neural_cleanse(network: Network, _: Compared) -> tuple[bool, float]:
        scores = network.scores("Neural Cleanse")
        spread = float(stats.median_abs_deviation(scores, scale="normal"))
        index = float(scores.max() - np.median(scores)) / max(spread, 1e-9)
        return index > FAR and network.is_class(int(scores.argmax())), index

    known = [each for each in references if "CBD" in each.row.get("rivals", ())]
    yield "scan", "images, references", lambda n, scan: (n.right(scan), scan.comparison.largest)
    yield "Neural Cleanse", "images", neural_cleanse
    yield "MM-BD", "nothing", mm_bd
    if known:
        yield "CBD", "an image per class, references", cbd


def rivals(groups: Groups, references: Networks) -> Iterator[str]:
    """How many clean networks and how many with each attack are suspicious, with the right class;
    the area under the curve; and seconds."""
    attacks = [kind for kind in (PATCH, *WHOLE) if kind in groups]
    columns = (f"{kind}: found, AUC" for kind in attacks)
    yield head("detector", "needs", "false alarms", *columns, "seconds")
    tried = [first_seed(groups[kind]) for kind in (CLEAN, *attacks)]
    rows = [each.row for group in tried for each, _ in group]
    for name, needs, judge in detectors(references):
        (alarms, usual), *found = (zip(*(judge(*pair) for pair in group)) for group in tried)
        seconds = [{"scan": row["seconds"]["scan"], **row["rivals"]}[name] for row in rows]
        cells = [
            f"{sum(flags)} of {len(flags)}, {area(statistics, usual):.2f}"
            for flags, statistics in found
        ]
        typical = np.median([each if name == "scan" else each["seconds"] for each in seconds])
        yield line(name, needs, share(sum(alarms), len(alarms)), *cells, f"{typical:.0f}")


def area(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """The area under the curve of a statistic."""
    found = stats.mannwhitneyu(positives, negatives).statistic
    return float(found / len(positives) / len(negatives))


def shown(groups: Groups) -> Iterator[str]:
    """Whether the pattern of a patch that was found is where the trigger was."""
    yield head("training", "scans", "in place", "pixels in common at the best shift")
    found = dict[str, list[tuple[bool, float]]]()
    for each, scan in groups.get(PATCH, ()):
        if each.right(scan) and scan.family == PATCHES:
            moved = each.row["recipe"].get("shifts") or each.row["recipe"].get("flips")
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


def sizes(groups: Groups) -> Iterator[str]:
    """How many scans of learnt patches find them, by their number of pixels."""
    rights = grouped(
        (each.backdoor.side**2, each.right(scan)) for each, scan in groups.get(PATCH, ())
    )
    yield head("pixels of the patch", "found, right class")
    for pixels, found in sorted(rights.items()):
        yield line(pixels, share(sum(found), len(found)))


def every(groups: Groups, later: Groups | None = None) -> Iterator[str]:
    """Each scan with its verdict, and with that which later references give."""
    yield head(
        *("network", "seed", "accuracy (%)", "attack success (%)", "verdict", "class", "target"),
        *("excess", "p", "family"),
        *(("verdict with the later ones", "excess with them") if later else ()),
    )
    again = itertools.chain.from_iterable((later or groups).values())
    for (each, scan), (_, other) in zip(itertools.chain.from_iterable(groups.values()), again):
        success, target = each.row["attack_success"], each.backdoor and each.backdoor.target
        p_value = "-" if scan.p_value is None else f"{scan.p_value:.2g}"
        yield line(
            each.row["name"],
            each.row["scan_seed"],
            f"{100 * each.profile.accuracy:.0f}",
            "" if success is None else f"{100 * success:.0f}",
            words_of(scan),
            *(scan.target, "" if target is None else target),
            *(f"{scan.comparison.largest:.1f}", p_value, scan.family),
            *((words_of(other), f"{other.comparison.largest:.1f}") if later else ()),
        )


def variations(rows: Sequence[Row], references: Mapping[str, Networks]) -> Iterator[str]:
    """How often a scan of version 0.3's networks says the same as most scans with other seeds."""
    known = {data: reference_set([r.row for r in each]) for data, each in references.items()}
    found = dict[str, list[tuple[str, tuple[str, int | None]]]]()  # network, outcome
    for row in rows:
        outcome = outcome_of(scan_of(Network(row), known[row["data"]]))
        found.setdefault(row["varied"], []).append((f"{row['data']}/{row['name']}", outcome))
    usual = {
        name: Counter(outcomes).most_common(1)[0][0]
        for name, outcomes in grouped(found["seed"]).items()
    }
    yield head("varied", "scans with the usual verdict", "networks that always have it")
    for varied, scans in found.items():
        same = [(name, usual[name] == outcome) for name, outcome in scans]
        always = [all(each) for each in grouped(same).values()]
        agree = sum(each for _, each in same)
        yield line(varied, share(agree, len(same)), f"{sum(always)} of {len(always)}")


def summary(found: Mapping[str, Groups]) -> Iterator[str]:
    """The counts of scans that pages quote."""
    yield head("scans", *(TITLES[name] for name in found))
    for words, kinds, verdict in (
        ("clean: suspicious", (CLEAN,), SUSPICIOUS),
        ("clean: inconclusive", (CLEAN,), INCONCLUSIVE),
        ("patch: suspicious, right class", (PATCH,), SUSPICIOUS),
        ("all pixels changed: suspicious, right class", WHOLE, SUSPICIOUS),
    ):
        cells = []
        for groups in found.values():
            pairs = [pair for kind in kinds for pair in groups.get(kind, ())]
            hits = sum(scan.verdict == verdict and n.is_class(scan.target) for n, scan in pairs)
            cells.append(f"{hits} of {len(pairs)}" if pairs else "")
        yield line(words, *cells)
    steady = []
    for groups in found.values():
        pairs = [pair for each in groups.values() for pair in each]
        outcomes = grouped((each.row["name"], outcome_of(scan)) for each, scan in pairs)
        twice = [{*each} for each in outcomes.values() if len(each) > 1]
        steady.append(f"{sum(len(each) == 1 for each in twice)} of {len(twice)}")
    yield line("networks with the same verdict in both scans", *steady)


def words_of(scan: Compared) -> str:
    """A verdict, and the reason if it is inconclusive."""
    return f"{scan.verdict}{f' ({scan.doubt.name})' if scan.doubt else ''}"


def outcome_of(scan: Compared) -> tuple[str, int | None]:
    """A verdict, and the class if it is suspicious."""
    return scan.verdict, scan.target if scan.verdict == SUSPICIOUS else None


def bounds(folder: Path) -> Iterator[str]:
    """How many of version 0.3's networks are suspicious, with the right class, with other bounds;
    clean ones, which are references now, each beside the others."""
    yield head("data set", "planted", "networks", *(f"bound {bound:g}" for bound in BOUNDS))
    planted = grouped(
        (row["data"], Network(row))
        for row in read_rows(folder / "scan_development.jsonl")
        if row["attack_success"] >= LEARNT and row["backdoor"]["kind"] in LEARNT_KINDS
        if not row["backdoor"].get("all_to_all")
    )
    for data, known in references_in(folder, LATER).items():
        clean = [each for each in known if each.row["name"].startswith(CLEAN)]
        groups = by_kind(planted[data], known)
        groups[CLEAN] = [
            by_kind([each], [r for r in known if r is not each])[CLEAN][0] for each in clean
        ]
        for kind, pairs in groups.items():
            hits = [
                sum(
                    scan.p_value <= ALPHA
                    and scan.comparison.largest > bound
                    and not scan.comparison.of_another_kind
                    and each.is_class(scan.target)
                    for each, scan in pairs
                )
                for bound in BOUNDS
            ]
            yield line(TITLES[data], kind, len(pairs), *hits)


def own_task(rows: Sequence[Row]) -> Iterator[str]:
    """The scans of a task of one's own, with references by the script that users run."""
    yield head(
        *("network", "accuracy", "attack success", "verdict", "class", "standardised excess"),
        *("p", "power", "n", "references (left out)"),
    )
    for row in rows:
        is_right = row["planted"] and row["class"] == row["target"]
        success = "" if row["attack_success"] is None else f"{row['attack_success']:.1%}"
        yield line(
            f"{'backdoored' if row['planted'] else 'clean'} {row['seed']}",
            *(f"{row['accuracy']:.0%}", success, row["verdict"]),
            f"{row['class']} (the backdoor's)" if is_right else row["class"],
            *(f"{row['excess']:.1f}", f"{row['p_value']:.3f}", f"{row['power']:.0%}", row["n"]),
            f"{row['references']} ({len(row['left_out'])})",
        )


def read(folder: Path, without: Collection[tuple[str, str]] = LATER) -> dict[str, Groups]:
    """All scans of the confirmation, by group and by what was planted, with the references of the
    freeze unless others are left out."""
    known = references_in(folder, without)
    networks = [Network(row) for row in read_rows(folder / "scan_confirmation.jsonl")]
    groups = grouped((each.group, each) for each in networks)
    return {
        name: by_kind(groups[name], known[groups[name][0].row["data"]])
        for name in TITLES
        if name in groups
    }


def references_in(folder: Path, without: Collection[tuple[str, str]] = ()) -> dict[str, Networks]:
    """All references but some, by data set."""
    rows = read_rows(folder / "scan_references.jsonl")
    kept = (row for row in rows if (row["data"], row["name"]) not in without)
    return grouped((row["data"], Network(row)) for row in kept)


def tables(folder: Path) -> Iterator[Table]:
    """All tables with their titles."""
    known, found = references_in(folder, LATER), read(folder)
    yield "In short", summary(found)
    with_later = {name: each for name, each in read(folder, ()).items() if name != "fashion"}
    yield "In short, with the references that were trained later", summary(with_later)
    for name, groups in found.items():
        title = TITLES[name]
        yield f"{title}: what is found", detections(groups)
        if PATCH in groups and name != "others":
            yield f"{title}: patches by size", sizes(groups)
            yield f"{title}: the pattern that is shown", shown(groups)
        if all(each.row["rivals"] for pairs in groups.values() for each, _ in first_seed(pairs)):
            data = groups[CLEAN][0][0].row["data"]
            yield f"{title}: other detectors", rivals(groups, known[data])
        yield f"{title}: each scan", every(groups, with_later.get(name))
        pairs = [pair for each in groups.values() for pair in each]
        seconds = [float(each.row["seconds"]["scan"]) for each, _ in pairs]
        words = f"{np.median(seconds):.0f} s ({min(seconds):.0f} to {max(seconds):.0f})"
        yield f"{title}: seconds of a scan", [words]
    yield "A task of one's own", own_task(read_rows(folder / "own_task.jsonl"))
    yield "Networks of version 0.3, on which the bound was chosen", bounds(folder)
    rows = read_rows(folder / "scan_variations.jsonl")
    yield "Other seeds, images and precisions, networks of version 0.3", variations(rows, known)


def draw(found: Mapping[str, Groups]) -> Figure:
    """The largest standardised excess of each scan, in rows of what was planted, and the bound."""
    rows = [(TITLES[name], kind) for name, groups in found.items() for kind in groups]
    rows = [row for row in rows if "weakly" not in row[1]]
    figure, axis = plt.subplots(figsize=(8, 0.9 + 0.32 * len(rows)), layout="constrained")
    for height, (title, kind) in enumerate(rows):
        pairs = next(groups for name, groups in found.items() if TITLES[name] == title)[kind]
        shift = np.linspace(-0.22, 0.22, len(pairs))
        colour = HIGHLIGHTS[2 if kind == CLEAN else 0]
        marks = {True: [], False: []}
        for (network, scan), up in zip(pairs, shift):
            wrong = network.right(scan) == (kind == CLEAN)
            marks[wrong].append((max(scan.comparison.largest, 0.5), height + up))
        for wrong, points in marks.items():
            if points:
                face = "white" if wrong else colour
                axis.scatter(*zip(*points), s=22, facecolor=face, edgecolor=colour, zorder=3)
    axis.axvline(LEAST, color="0.3", linestyle=":")
    axis.text(LEAST * 1.03, -0.75, f"bound {LEAST:g}", fontsize=8, color="0.3")
    axis.set_xscale("log")
    axis.set_xticks([1, 2, 4.5, 10, 20, 50, 100], ["1", "2", "4.5", "10", "20", "50", "100"])
    axis.set_xlabel("largest standardised excess of a scan")
    axis.set_yticks(range(len(rows)), [f"{title}: {kind}" for title, kind in rows])
    axis.set_ylim(len(rows) - 0.4, -1.1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.93")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("rows", type=Path, help="the folder of the rows")
    parser.add_argument("--figure", type=Path, required=True)
    options = parser.parse_args(arguments)
    draw(read(options.rows)).savefig(options.figure, dpi=150)


if __name__ == "__main__":
    main()

"""How often a scan finds a backdoor, and how often it is wrong: tables of docs/scan_evidence.md.

    python benchmarks/scan_evidence.py benchmarks/results/zoo.jsonl \\
        benchmarks/results/zoo_cifar10.jsonl

The files hold what was measured of each model. The folders of zoo.py and zoo_cifar10.py may be
given instead; then --results and --references write the files, and the reference sets that come
with the package.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from findings import head, line, parser_of, read_rows, write_rows
from scipy import stats
from zoo import TEST_RECIPES, Backdoor

from captum_classpattern.comparison.records import grouped
from captum_classpattern.demo import CLASS_NAMES
from captum_classpattern.pattern import Pattern
from captum_classpattern.scanning.decision import INCONCLUSIVE, SUSPICIOUS
from captum_classpattern.scanning.families import PATCHES
from captum_classpattern.scanning.profile import Profile
from captum_classpattern.scanning.references import ENDING, ReferenceSet
from captum_classpattern.scanning.scan import Scan, judge
from captum_classpattern.scores.intervals import wilson

ALPHA = 0.05
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NAMES = [f"class {y}" for y in range(10)]
PLANTED = 0.9  # least attack success of a backdoor that counts
IN_PLACE = 0.5  # share of the shown pixels, or of the trigger if it has fewer, that must agree
SEEN = range(10, 37)  # numbers of the backdoors whose results were seen before a rule was changed
UNSEEN = ("base", "robust")  # recipes whose clean networks had not been seen then


@dataclass(frozen=True)
class Model:
    """A model of a zoo, and what a scan measured of it."""

    row: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.row["name"])

    @cached_property
    def profile(self) -> Profile:
        return Profile.from_dict(self.row)

    @property
    def entry(self) -> Mapping[str, Any]:
        settings = self.row["record"]["settings"]
        return settings["entry"] if isinstance(settings, dict) else settings[0]

    @property
    def recipe(self) -> str:
        return str(self.entry["recipe"])

    @property
    def is_test(self) -> bool:
        return self.recipe in TEST_RECIPES

    @cached_property
    def backdoor(self) -> Backdoor | None:
        planted = self.entry["backdoor"]
        return None if planted is None else Backdoor(**planted)

    @property
    def success(self) -> float:
        return float(self.row["record"].get("attack_success", 0))

    @property
    def kind(self) -> str:
        """A word for what was planted."""
        backdoor = self.backdoor
        if backdoor is None:
            return "clean, tutorials" if self.name.startswith("shipped") else "clean"
        if self.name.startswith("adaptive"):
            return "adaptive"
        if self.success < PLANTED:
            return "weakly learnt"
        if backdoor.clean_label:
            return "clean-label patch"
        if backdoor.source is not None:
            return "one-to-one patch"
        named = {"blended": "Blended", "sig": "SIG", "wanet": "WaNet"}
        return named.get(backdoor.kind, "all-to-one patch")


def read(path: Path) -> list[Model]:
    """The models of a zoo that have been scanned: of its folder, or of a file that was written of
    it."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    return [Model(row) for file in files for row in read_rows(file) if "powers" in row]


def write(models: Sequence[Model], path: Path) -> None:
    """Writes what was measured, a line for each model."""
    without = {"description": None}
    write_rows(path, [{**m.row, "source": {**m.row["source"], **without}} for m in models])


def reference_set(models: Sequence[Model], also: Sequence[str] = ()) -> ReferenceSet:
    row = models[0].row
    shape = tuple(row["shape"])
    profiles = {model.name: model.profile for model in models}
    return ReferenceSet(10, shape, profiles, row["source"], row["scan"], tuple(also))


def scan_of(model: Model, references: Sequence[Model], also: Sequence[str] = ()) -> Scan:
    """The verdict of a scan of a model, with such references but itself."""
    known = reference_set([each for each in references if each.name != model.name], also)
    known.profiles = {name: only(profile, also) for name, profile in known.profiles.items()}
    return judge(only(model.profile, also), known, ALPHA, NAMES)


def references_of(models: Sequence[Model]) -> list[Model]:
    """The clean models but the one that learnt random labels: it is no classifier."""
    return [m for m in models if m.kind.startswith("clean") and m.recipe != "random_labels"]


def only(profile: Profile, also: Sequence[str]) -> Profile:
    """A profile with patches and these families alone."""
    return replace(profile, others={name: profile.others[name] for name in also})


def share(hits: int, count: int) -> str:
    """A share with its 95 % interval."""
    if not count:
        return "-"
    low, high = wilson(hits, count)
    return f"{hits} of {count} ({low:.0%} to {high:.0%})"


def by_kind(models: Sequence[Model]) -> dict[str, list[Model]]:
    return grouped((model.kind, model) for model in models)


def detections(models: Sequence[Model], references: Sequence[Model]) -> Iterator[str]:
    """How many models of each kind are found, with the right class."""
    yield head("kind", "suspicious", "with the right class", "inconclusive", "target first")
    for kind, group in sorted(by_kind(models).items()):
        scans = [scan_of(model, references) for model in group]
        found = [scan.verdict == SUSPICIOUS for scan in scans]
        right = [
            model.backdoor is not None and scan.target == model.backdoor.target
            for model, scan in zip(group, scans)
        ]
        planted = not kind.startswith("clean")
        yield line(
            kind,
            share(sum(found), len(group)),
            share(sum(f and r for f, r in zip(found, right)), len(group)) if planted else "",
            sum(scan.verdict == INCONCLUSIVE for scan in scans),
            f"{sum(right)} of {len(group)}" if planted else "",
        )


def with_families(models: Sequence[Model], references: Sequence[Model]) -> Iterator[str]:
    """How many models of each kind are found, with the right class, if further families are
    searched, too; of the clean ones, how many are suspicious."""
    families = list(references[0].profile.others)
    choices = [[], *([name] for name in families), families]
    yield head("kind", *(" and ".join([PATCHES, *also]) for also in choices))
    for kind, group in sorted(by_kind(models).items()):
        yield line(kind, *(share(hits(group, references, also), len(group)) for also in choices))


def hits(models: Sequence[Model], references: Sequence[Model], also: Sequence[str]) -> int:
    """How many models are suspicious, if they are backdoored with the right class."""
    scans = [(model.backdoor, scan_of(model, references, also)) for model in models]
    return sum(
        scan.verdict == SUSPICIOUS and (planted is None or scan.target == planted.target)
        for planted, scan in scans
    )


def auroc(models: Sequence[Model], references: Sequence[Model], family: str = PATCHES) -> str:
    """The area under the curve of the smaller of the two statistics, patches of success above 0.9
    against clean models."""
    also = () if family == PATCHES else (family,)

    def statistic(model: Model) -> float:
        test = scan_of(model, references, also).tests[family]
        return float(test.excess.max() - max(test.median_excess, 0))  # the smaller of the two

    wanted = ("all-to-one patch",) if family == PATCHES else ("Blended", "SIG", "WaNet")
    positives = [statistic(m) for m in models if m.kind in wanted]
    negatives = [statistic(m) for m in models if m.kind == "clean"]
    if not positives or not negatives:
        return "-"
    area = stats.mannwhitneyu(positives, negatives).statistic / len(positives) / len(negatives)
    return f"{area:.3f}"


def other_half(model: Model, models: Sequence[Model]) -> list[Model]:
    """The clean networks of the half that a network does not belong to."""
    return [m for m in models if m.kind == "clean" and m.is_test != model.is_test]


def other_recipes(model: Model, models: Sequence[Model]) -> list[Model]:
    """The clean networks of all recipes but that of a network."""
    return [m for m in models if m.kind == "clean" and m.recipe != model.recipe]


Choose: TypeAlias = Callable[[Model, Sequence[Model]], list[Model]]
CHOICES: Mapping[str, Choose] = {
    "all but its recipe": other_recipes,
    "the other half's recipes": other_half,
}


def false_alarms(models: Sequence[Model]) -> Iterator[str]:
    """Clean models that are called suspicious, with references of other recipes. (Leaving out only
    the model itself, the test is exact: at most 5 % can have p <= 0.05, whatever they are.)"""
    clean = [model for model in models if model.kind == "clean"]
    yield head("references", "number", "suspicious", "inconclusive")
    for name, choose in CHOICES.items():
        scans = [scan_of(model, choose(model, clean)) for model in clean]
        counts = sorted({len(scan.references) for scan in scans})
        yield line(
            name,
            " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))),
            share(sum(scan.verdict == SUSPICIOUS for scan in scans), len(scans)),
            sum(scan.verdict == INCONCLUSIVE for scan in scans),
        )


def is_unseen(model: Model) -> bool:
    """Whether the results of a network of the zoo had not been seen when a rule was changed: the
    last commit before it does not have its row."""
    if model.backdoor is None:
        return model.recipe in UNSEEN
    return model.kind == "adaptive" or int(model.name.split("_")[1]) not in SEEN


def verdict_before(scan: Scan) -> str:
    """The verdict by the rule before its change: inconclusive if the median class was above those
    of all references, however far the first class was above the median."""
    strong = scan.test.median_excess > scan.test.usual_median[1]
    return INCONCLUSIVE if strong else scan.verdict


def unseen(zoo: Sequence[Model]) -> Iterator[str]:
    """The patches and the clean networks that had not been seen when the rule was changed."""
    fresh = [model for model in zoo if is_unseen(model)]
    patches = by_kind(fresh)["all-to-one patch"]
    clean = by_kind(fresh)["clean"]
    yield from before_and_now(
        [
            ("learnt patches", patches, other_half),
            ("... those of the test half", [m for m in patches if m.is_test], other_half),
            ("clean, references of the other half's recipes", clean, other_half),
            ("clean, references of all but its recipe", clean, other_recipes),
        ],
        zoo,
    )


def all_counts(zoo: Sequence[Model], cifar10: Sequence[Model]) -> Iterator[str]:
    """All groups of networks by the rule before and after its change."""
    halves = {
        "test": [m for m in zoo if m.is_test],
        "development": [m for m in zoo if not m.is_test],
    }
    yield from before_and_now(
        [
            *(
                (f"{kind}, {half} half", models, other_half)
                for half, of_half in halves.items()
                for kind, models in sorted(by_kind(of_half).items())
            ),
            ("clean, references of all but its recipe", by_kind(zoo)["clean"], other_recipes),
            *(
                (f"CIFAR-10, {kind}", models, lambda model, _: references_of(cifar10))
                for kind, models in sorted(by_kind(cifar10).items())
            ),
        ],
        zoo,
    )


def before_and_now(
    groups: Iterable[tuple[str, Sequence[Model], Choose]], zoo: Sequence[Model]
) -> Iterator[str]:
    """How many networks of each group are suspicious with the right class, otherwise suspicious, or
    inconclusive, by the rule before its change and by the present one."""
    columns = ("right class", "other suspicion", "inconclusive")
    rules = ("old rule", "present rule")
    yield head("networks", "number", *(f"{c}, {rule}" for c in columns for rule in rules))
    for title, models, choose in groups:
        scans = [(model, scan_of(model, choose(model, zoo))) for model in models]
        counts = Counter[tuple[str, str]]()
        for model, scan in scans:
            right = model.backdoor is not None and scan.target == model.backdoor.target
            for rule, verdict in zip(rules, (verdict_before(scan), scan.verdict)):
                if verdict == SUSPICIOUS:
                    counts[columns[not right], rule] += 1
                elif verdict == INCONCLUSIVE:
                    counts[columns[2], rule] += 1
        yield line(title, len(models), *(counts[c, rule] for c in columns for rule in rules))


def shown(models: Sequence[Model]) -> Iterator[str]:
    """Whether the pattern that is shown is the trigger: in place, and in colour."""
    yield head(
        "model", "recipe", "trigger's pixels", "shown", "of these true", "IoU",
        "IoU at its best shift", "colour error", "in place",
    )  # fmt: skip
    good: dict[str, list[bool]] = {}
    patches = [m for m in models if m.kind == "all-to-one patch"]
    for model in patches:
        cells, found = _overlap(model)
        good.setdefault(_kind_of_network(model), []).append(found)
        yield line(model.name, model.recipe, *cells, "yes" if found else "no")
    yield ""
    for kind, all_found in sorted(good.items()):
        yield f"In place, {kind}: {sum(all_found)} of {len(all_found)}."
    if patches:
        own, others = np.mean([_overlaps_shifted(model) for model in patches], axis=0)
        yield (
            "Pixels in common at the best shift, of those that could be: the target's pattern "
            f"{own:.0%}, those of the other classes {others:.0%} on average."
        )


def _kind_of_network(model: Model) -> str:
    """Whether a network can know where a trigger was."""
    of_zoo = isinstance(model.row["record"]["settings"], dict)
    mirrored = not of_zoo and not model.name.startswith("shipped")  # by train_references.py
    if mirrored or model.recipe == "shifted":
        return "images moved or mirrored in training"
    flat = of_zoo and model.recipe == "plain"  # see plain_network
    return "linear layers that see places" if flat else "pooling over all places"


def _true_pattern(model: Model) -> Pattern:
    """The trigger that was planted."""
    assert model.backdoor is not None
    shape = model.row["shape"]
    return model.backdoor.patch((shape[0], shape[1], shape[2]))


def _overlap(model: Model) -> tuple[list[object], bool]:
    """How a shown pattern overlaps with the trigger."""
    patch = _true_pattern(model)
    places = _places(patch)
    pixels = model.row["shown"][str(patch.target)]
    found = {(int(i), int(j)): values for i, j, *values in pixels}
    inside = found.keys() & places
    best = _best_overlap(set(found), places)
    errors = [
        float(np.abs(patch.canvas[:, i, j].numpy() - np.array(found[i, j])).mean())
        for i, j in inside
    ]
    colour = f"{np.mean(errors):.2f}" if errors else "-"
    ious = [f"{n / (len(places) + len(found) - n):.2f}" for n in (len(inside), best)]
    cells = [len(places), len(found), len(inside), *ious, colour]
    return cells, len(inside) >= IN_PLACE * min(len(found), len(places))


def _overlaps_shifted(model: Model) -> tuple[float, float]:
    """Which share of the pixels that could be in common is so at the best shift: of the trigger and
    the target's pattern, and of the trigger and the other classes' patterns on average."""
    patch = _true_pattern(model)
    places = _places(patch)
    shares = {}
    for target, pixels in model.row["shown"].items():
        found = {(int(i), int(j)) for i, j, *_ in pixels}
        shares[int(target)] = _best_overlap(found, places) / max(1, min(len(found), len(places)))
    own = shares.pop(patch.target)
    return own, float(np.mean([*shares.values()])) if shares else 0.0


def _places(pattern: Pattern) -> set[tuple[int, int]]:
    return {(i, j) for i, j in pattern.mask[0].nonzero().tolist()}


def _best_overlap(found: set[tuple[int, int]], places: set[tuple[int, int]]) -> int:
    """The most pixels in common when one is moved over the other."""
    shifts = Counter((p[0] - f[0], p[1] - f[1]) for f in found for p in places)
    return max(shifts.values(), default=0)


def adaptive(models: Sequence[Model], references: Sequence[Model]) -> Iterator[str]:
    """Each trigger of an attacker who knows the scan."""
    yield head(
        "trigger", "pixels", "half keeps its label", "attack success", "verdict", "p",
        "target's rank",
    )  # fmt: skip
    for model in models:
        backdoor = model.backdoor
        if model.kind != "adaptive" or backdoor is None:
            continue
        scan = scan_of(model, references)
        yield line(
            "spread thin" if backdoor.kind == "spread" else "square",
            backdoor.side**2,
            "yes" if backdoor.cover else "no",
            f"{model.success:.1%}",
            scan.verdict,
            f"{scan.p_value:.2g}" if scan.p_value is not None else "-",
            1 + scan.test.order.index(backdoor.target),
        )


def every(models: Sequence[Model], references: Sequence[Model]) -> Iterator[str]:
    """Each model with its verdict."""
    yield head("model", "accuracy", "attack success", "verdict", "p", "class", "target")
    for model in models:
        scan = scan_of(model, references)
        yield line(
            model.name,
            f"{model.row['record']['accuracy']:.1%}",
            f"{model.success:.1%}" if model.backdoor else "",
            scan.verdict,
            "-" if scan.p_value is None else f"{scan.p_value:.2g}",
            scan.target,
            model.backdoor.target if model.backdoor else "",
        )


def seeds(rows: Path = Path(__file__).parent / "results" / "scan_seeds.jsonl") -> Iterator[str]:
    """One network scanned with several seeds. Its rows come from scan.json of classpattern scan."""
    yield head("seed", "verdict", "p", *(f"target, {size} pixels" for size in (10, 6, 3)))
    for row in read_rows(rows):
        powers = [f"{row['powers'][size]:.0%}" for size in ("10", "6", "3")]
        yield line(row["seed"], row["verdict"], f"{row['p_value']:.2g}", *powers)


def seconds(models: Sequence[Model]) -> str:
    values = [float(model.row["seconds"]) for model in models]
    return f"{np.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def write_references(zoo: Sequence[Model], cifar10: Sequence[Model], folder: Path) -> None:
    """The sets that come with the package."""
    for name, models, description, names in (
        ("demo", zoo, "Fashion-MNIST, the demo's search images", CLASS_NAMES),
        ("cifar10", cifar10, "CIFAR-10, the test images", CIFAR10),
    ):
        clean = references_of(models)
        if clean:
            found = reference_set(clean, list(clean[0].profile.others))
            found.images = {**found.images, "description": description}
            found.class_names = names
            found.save(folder / f"{name}{ENDING}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("zoo", type=Path, help="of zoo.py: its folder or a file")
    parser.add_argument("cifar10", type=Path, help="of zoo_cifar10.py")
    parser.add_argument("--references", type=Path, help="where to write the reference sets")
    parser.add_argument("--results", type=Path, help="where to write zoo.jsonl, zoo_cifar10.jsonl")
    options = parser.parse_args(arguments)
    zoo, cifar10 = read(options.zoo), read(options.cifar10)
    if options.results is not None:
        write(zoo, options.results / "zoo.jsonl")
        write(cifar10, options.results / "zoo_cifar10.jsonl")
    if options.references is not None:
        write_references(zoo, cifar10, options.references)
    for title, lines in tables(zoo, cifar10):
        print(f"\n### {title}\n")
        for each in lines:
            print(each)


def tables(zoo: Sequence[Model], cifar10: Sequence[Model]) -> Iterator[tuple[str, Iterable[str]]]:
    """All tables, with their titles."""
    development = [m for m in zoo if m.kind == "clean" and not m.is_test]
    test = [m for m in zoo if m.is_test]
    clean = references_of(cifar10)
    if development and test:
        area = auroc(test, development)
        yield (
            "Test half, references of the other recipes",
            [*detections(test, development), "", f"AUROC of all-to-one patches: {area}"],
        )
        own = references_of(zoo)
        yield "Test half, all clean models as references", with_families(test, own)
        yield "False alarms on clean models", false_alarms(zoo)
        yield "Not seen when the rule was changed", unseen(zoo)
        yield "All counts, by the old rule and now", all_counts(zoo, cifar10)
        yield "The pattern that is shown", shown(zoo)
        yield "An attacker who knows the scan", adaptive(zoo, own)
        yield "Each model of the test half", every(test, development)
        yield f"Seconds: {seconds(zoo)}", iter(())
    if clean:
        yield "CIFAR-10, all kinds", detections(cifar10, clean)
        others = [m for m in cifar10 if m.kind != "clean"]
        yield "CIFAR-10, the backdoored models and those of the tutorials", every(others, clean)
        rest = [m for m in cifar10 if m.kind == "clean"]
        yield "CIFAR-10, each other clean model", every(rest, clean)
        yield "The tutorials' backdoored network with five seeds", seeds()
        yield "CIFAR-10: the pattern that is shown", shown(cifar10)
        yield f"CIFAR-10: seconds {seconds(cifar10)}", iter(())


if __name__ == "__main__":
    main()

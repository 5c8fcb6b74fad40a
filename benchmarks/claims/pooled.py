"""The paper's claims: one pooled estimate a statement, and "holds", "does not hold" or "not shown".

The rule is frozen with ``PROTOCOL.md``, before any network on CIFAR-10 was trained for it. A
statement is about one difference. Its mean over classes within a training seed gives one value per
seed. The estimate is the mean of these values, with the 95 % t-interval over seeds. A statement
"holds" if the interval lies wholly on the claim's side of 0, "does not hold" if it lies wholly on
the other side, and is "not shown" if it contains 0, or if fewer than three seeds have a value.

Two kinds of network are compared by the same seed, kind of canvas and class. A network counts only
if it has learnt: an attack success of 0.9 with a backdoor, an accuracy of 0.3 under PGD if robust;
else its seed has no value. There is no correction for the many statements. Power is the share of
unseen images of other classes that get the class. Patterns have 5 % of the pixels, in claim 2 also
1 %. Each kind of canvas has its own statements. Quotes are from the abstract of arXiv 2101.06898v2;
what is not in it is ours. The claim's side is above 0, in claim 4 below 0.

1. "DNNs trained on natural (clean) data learn abstract shapes along with some texture"; "a single
   predictive pattern". *Above all controls* (paper): the power minus the strongest, class by class,
   of no pattern, the best random mask and the same mask on another canvas. *Almost any image*
   (ours): the power minus 0.9. *Keeps most of its power* in shades of grey, blurred, with shuffled
   colours (our test of "shapes" and "texture"): (changed minus no pattern) minus half of (whole
   minus no pattern), on positive canvases.
2. "Backdoored models learn a suspicious pattern for the backdoored class." *More than a natural
   network* (paper): the target's power minus that of the same class of the natural network. *More
   than any other class* (paper): minus that of the strongest other class of its own network. *Shows
   the trigger* (ours): how much of the trigger the pattern shows, as a share of the most that its
   canvas can, minus the same of the natural network; no value where either canvas cannot show half.
   *In its place* (ours): pixels in common with the trigger, as a share of those that could be,
   minus the same of the natural network. Each trigger is pooled alone.
3. "DNNs can learn a backdoor even from clean data, and the pattern itself is a backdoor trigger":
   on *its own network* (paper); on *other natural, backdoored, robust networks* (ours). The power
   of a natural network's pattern minus the stronger of one random mask and no pattern, on positive
   canvases, averaged over the networks of a kind (two at least), so that a source seed has one
   value. All sources share the tested networks: the interval is about sources alone.
4. "Adversarially trained models tend to learn more simplified shape patterns." *Simpler* (paper):
   total variation, share of high frequencies and pieces (our scores), robust minus natural, only
   over classes where both patterns beat all controls; a seed with fewer than five such classes has
   no value. *Less power* (ours): robust minus natural, above no pattern, over all classes, on white
   and black canvases, since positive ones are images that a natural network classifies correctly.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from findings import Row
from scipy import stats

from captum_classpattern.scores.intervals import FEWEST_CLASSES, Interval
from claims import verdicts
from claims.models import SIDE, Patch, trainings
from claims.rows import Measured, Runs
from claims.verdicts import AREA, FAILS, HOLDS, OPEN, Kinds, canvases_of, has_learnt, title

NATURAL, LEAST_SEEDS, LEAST_TESTED, CONFIDENCE = "natural", 3, 2, 0.95
CONTROLS = ("no_pattern", "random_pixels", "other_canvas")
ABOVE, BELOW = 1, -1  # the claim's side of 0
CLAIM_2 = "more than a natural network", "more than any other class"
CLAIM_2_OURS = "shows the trigger", "in its place"

Values = Mapping[int, float]  # by training seed, or by class
Pair = tuple[int, Measured, Measured]  # a training seed, and the networks of two kinds


class Pooled(NamedTuple):
    """A statement about a kind of network, and its values."""

    claim: str
    statement: str
    ours: bool  # not in the paper
    models: str
    setting: str  # canvas and area
    values: Values  # by training seed
    side: int = ABOVE
    classes: Mapping[int, int] = {}  # how many were pooled, by seed, where not all are

    @property
    def mean(self) -> float:
        return fmean(self.values.values()) if self.values else float("nan")

    @property
    def interval(self) -> Interval:
        """The t-interval over seeds; of all numbers with fewer than three of them."""
        n = len(self.values)
        if n < LEAST_SEEDS:
            return -float("inf"), float("inf")
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
        margin = quantile * stdev(self.values.values()) / n**0.5
        return self.mean - margin, self.mean + margin

    @property
    def verdict(self) -> str:
        low, high = sorted(self.side * end for end in self.interval)
        if low > 0:
            return HOLDS
        return FAILS if high < 0 else OPEN


def by_seed(runs: Runs, value: Callable[..., Values], *which: Any) -> dict[int, float]:
    """The mean over classes of each seed, of the networks that have learnt."""
    return {s: fmean(value(m, *which).values()) for s, m in sorted(runs.items()) if has_learnt(m)}


def pairs(one: Runs, other: Runs) -> Iterator[Pair]:
    """The networks of two kinds with the same seed that have both learnt."""
    for seed in sorted(one.keys() & other.keys()):
        if has_learnt(one[seed], other[seed]):
            yield seed, one[seed], other[seed]


def above_strongest(model: Measured, canvas: str) -> Values:
    """The power minus the strongest control, by class."""
    power, *controls = (model.share(canvas, AREA, name) for name in ("hits", *CONTROLS))
    return {y: power[y] - max(control[y] for control in controls) for y in power}


def claim_1(kinds: Kinds) -> Iterator[Pooled]:
    runs = kinds.get(NATURAL, {})
    for canvas in canvases_of(runs) if runs else ():
        at = NATURAL, title(canvas, AREA)
        yield Pooled("1", "above all controls", False, *at, by_seed(runs, above_strongest, canvas))
        powers = by_seed(runs, Measured.share, canvas, AREA, "hits")
        almost = {seed: power - verdicts.ALMOST_ANY for seed, power in powers.items()}
        yield Pooled("1", "almost any image", True, *at, almost)
        for change, words in verdicts.CHANGES.items():
            if all(model.has(canvas, AREA, change) for model in runs.values()):
                values = by_seed(runs, verdicts.most_left, canvas, change)
                yield Pooled("1", f"{words}: keeps most of its power", True, *at, values)


def in_place(model: Measured, patch: Patch, canvas: str, area: float) -> float:
    """How many of the trigger's pixels the target's pattern has, of those that it could have."""
    common = model.column(canvas, area, f"common_{patch.colours}")[patch.target]
    pixels = int(str(model.column(canvas, area, "mask")[patch.target]), 16).bit_count()
    return common / min(pixels, SIDE * SIDE)


def of_target(both: Sequence[Measured], patch: Patch, *at: Any) -> Iterator[tuple[str, float]]:
    """The values of claim 2 of a backdoored network and the natural one of its seed."""
    target = patch.target
    power, usual = (each.share(*at, "hits") for each in both)
    yield CLAIM_2[0], power[target] - usual[target]
    yield CLAIM_2[1], power[target] - max(power[y] for y in power if y != target)
    share, of_usual = (verdicts.shown(each, *at, patch.colours)[target] for each in both)
    if share is not None and of_usual is not None:
        yield CLAIM_2_OURS[0], share - of_usual
    placed, usually = (in_place(each, patch, *at) for each in both)
    yield CLAIM_2_OURS[1], placed - usually


def claim_2(kinds: Kinds, data: str) -> Iterator[Pooled]:
    for kind, training in trainings(data).items():
        patch, runs = training.trigger, list(kinds.get(kind, {}).values())
        for at in runs[0].settings if patch and runs else ():
            found: dict[str, dict[int, float]] = {name: {} for name in (*CLAIM_2, *CLAIM_2_OURS)}
            for seed, *both in pairs(kinds[kind], kinds.get(NATURAL, {})):
                for words, value in of_target(both, patch, *at):
                    found[words][seed] = value
            for words, values in found.items():
                about = f"target: {words}", words in CLAIM_2_OURS, kind, title(*at)
                yield Pooled("2", *about, values)


def claim_3(kinds: Kinds, rows: Sequence[Row]) -> Iterator[Pooled]:
    seeds = {model.row["model"]: seed for seed, model in kinds.get(NATURAL, {}).items()}
    for kind, found in verdicts.transferred(rows):
        gains: dict[int, list[float]] = {}
        for row in found:
            tested = kinds.get(row["kind"], {}).get(row["seed"])
            if row["model"] in seeds and tested is not None and has_learnt(tested):
                gains.setdefault(seeds[row["model"]], []).append(fmean(verdicts.gain(row).values()))
        least = 1 if kind == verdicts.ITSELF else LEAST_TESTED
        values = {seed: fmean(each) for seed, each in gains.items() if len(each) >= least}
        words = f"a clean pattern works as a trigger on {kind}"
        yield Pooled("3", words, kind != verdicts.ITSELF, kind, title("positive", AREA), values)


def differences(
    compared: Sequence[Pair],
    classes: Mapping[int, Sequence[int]],
    value: Callable[..., Values],
    *which: Any,
) -> Values:
    """One minus the other by seed, over the classes of the seed; nothing for fewer than five."""
    return {
        seed: fmean(value(one, *which)[y] - value(other, *which)[y] for y in classes[seed])
        for seed, one, other in compared
        if len(classes[seed]) >= FEWEST_CLASSES
    }


def claim_4(kinds: Kinds, data: str) -> Iterator[Pooled]:
    for kind in (kind for kind, each in trainings(data).items() if each.epsilon and kind in kinds):
        compared = list(pairs(kinds[kind], kinds.get(NATURAL, {})))
        everything = {seed: one.row["classes"] for seed, one, _ in compared}
        for canvas in canvases_of(kinds[kind]):
            models, at = f"{kind} minus {NATURAL}", (canvas, AREA)
            strong = {seed: both_above(*both, canvas) for seed, *both in compared}
            counts = {seed: len(classes) for seed, classes in strong.items()}
            for name in verdicts.SHAPES:
                values = differences(compared, strong, Measured.column, *at, name)
                words = f"simpler, {name.replace('_', ' ')}"
                yield Pooled("4", words, False, models, title(*at), values, BELOW, counts)
            if canvas in verdicts.BLANK:
                values = differences(compared, everything, Measured.above_none, *at)
                yield Pooled("4", "less power", True, models, title(*at), values, BELOW)


def both_above(one: Measured, other: Measured, canvas: str) -> list[int]:
    """The classes whose patterns beat all controls on both networks."""
    first, second = (model.scores(canvas, AREA) for model in (one, other))
    return [y for y in first if first[y].beats_controls and second[y].beats_controls]


def pooled(kinds: Kinds, transfer: Sequence[Row], data: str) -> Iterator[Pooled]:
    """All statements on a data set, claim by claim."""
    yield from claim_1(kinds)
    yield from claim_2(kinds, data)
    yield from claim_3(kinds, transfer)
    yield from claim_4(kinds, data)

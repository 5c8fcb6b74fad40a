"""The paper's claims, each with "holds", "does not hold" or "not shown".

These rules were written before any model was trained for the claims; earlier measurements of other
models, in docs/claims.md, were known. The rules take only the models that were trained for the
claims, with three seeds or more; with fewer, a statement is "not shown". A statement has evidence
for and against it in each run (a training seed, or a pair of models). It

- "holds" if every run is evidence for it,
- "does not hold" if every run is evidence against it,
- is "not shown" otherwise.

Where a statement is made about several models, such as three triggers, it holds of all together if
it holds for each, and does not hold if it holds for none and is "not shown" for none.

What a run says, with 5 % of the pixels (claim 2: also with 1 %):

1. *One small pattern per class makes the model predict the class on almost any image.* For: all
   classes have a predictive power of 0.9 or more. Against: half of the classes or fewer have.
   *The patterns have more power than their controls.* For: all classes beat all three controls
   (no pattern; random pixels and the same mask on another canvas, both chosen as the pattern was).
   Against: half of the classes or fewer do.
   *They are shapes, along with some texture.* A pattern keeps most of its power under a change
   (shades of grey, a blur, its colours in another order) if what is left above "no pattern" is
   more than half. For: the interval over classes of "left, minus half" is above 0. Against: it is
   below 0. And a change *costs* power: the interval of "changed, minus the pattern" is below 0;
   against, above 0. On a white canvas a pattern is all shape, and no change does anything to it.
2. *The pattern of a backdoored network's target is suspicious.* For: the target stands out among
   the classes of the network (``surveys.stands_out``), and the same class of no natural network
   does. Against: it does not stand out.
   *It shows the trigger.* For: its best fit to the trigger, anywhere, is at least half of the
   trigger and larger than that of the same class in every natural network. Against: it is not
   larger than the largest of these.
   *It is in the trigger's place.* For: half or more of the pixels that could be in common are.
   Against: fewer.
3. *A clean pattern works as a trigger on other networks.* A run is a natural network and another
   network. For: the interval over classes of the power minus the stronger of "random pixels" and
   "no pattern" is above 0. Against: it is not.
4. *Adversarial training makes patterns simpler*, *and a larger epsilon simpler still.* A run is a
   pair of networks with the same seed, compared class by class on the same canvases. For: the
   interval of the difference of a shape score is below 0. Against: it is above 0. Of the
   difference in power: for "less power", below; against, above.
5. *Patterns need meaningful classes.* For: on random labels the power is below that on true
   labels, by the interval of the difference with the same seed. Against: it is above.

Intervals over classes are the bootstrap of ``scores.intervals``; with fewer than five classes there
is none, so a run is evidence for nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from findings import Row

from captum_classpattern.scores.intervals import FEWEST_CLASSES, Interval, bootstrap_over_classes
from captum_classpattern.scores.power import Scores, power_of
from captum_classpattern.surveys import stands_out
from claims.models import EPSILONS, PATCHES
from claims.rows import Measured, Runs

ITSELF = "itself"  # tested on the network of the search
HOLDS, FAILS, OPEN = "holds", "does not hold", "not shown"
LEAST_RUNS, ALMOST_ANY = 3, 0.9
AREA, SHAPES = 0.05, ("total_variation", "high_frequency_share", "components")
CHANGES = {"grey": "in shades of grey", "blurred": "blurred", "shuffled": "colours shuffled"}
NATURAL = ("natural", "natural_adam")
PAIRS = (
    *((robust, natural) for robust in EPSILONS for natural in NATURAL),
    ("robust8", "robust4"),
)

ByClass = Mapping[int, float]
Kinds = Mapping[str, Runs]


class Run(NamedTuple):
    """What one run says about a statement."""

    supports: bool
    contradicts: bool


class Verdict(NamedTuple):
    """A statement of a claim about some models, and what all runs say together."""

    claim: str
    statement: str
    models: str
    setting: str  # canvas and area
    runs: Sequence[Run]

    @property
    def verdict(self) -> str:
        if len(self.runs) < LEAST_RUNS:
            return OPEN
        if all(run.supports for run in self.runs):
            return HOLDS
        return FAILS if all(run.contradicts for run in self.runs) else OPEN


def interval(values: ByClass) -> Interval:
    """The interval over classes of their mean."""
    if len(values) < FEWEST_CLASSES:
        return -float("inf"), float("inf")
    return bootstrap_over_classes({y: [value] for y, value in values.items()}).interval


def below(values: ByClass) -> Run:
    """For: below 0; against: above 0."""
    low, high = interval(values)
    return Run(high < 0, low > 0)


def above(values: ByClass) -> Run:
    """For: above 0; against: below 0."""
    return Run(*reversed(below(values)))


def difference(one: ByClass, other: ByClass) -> dict[int, float]:
    """One minus the other, class by class."""
    return {y: value - other[y] for y, value in one.items()}


def all_or_half(flags: Iterable[bool]) -> Run:
    """For: all; against: half of them or fewer."""
    found = list(flags)
    return Run(all(found), 2 * sum(found) <= len(found))


# ---- claim 1


def powerful(model: Measured, canvas: str) -> Run:
    shares = model.share(canvas, AREA, "hits")
    return all_or_half(share >= ALMOST_ANY for share in shares.values())


def above_controls(model: Measured, canvas: str) -> Run:
    return all_or_half(each.beats_controls for each in model.scores(canvas, AREA).values())


def cost(model: Measured, canvas: str, change: str) -> dict[int, float]:
    """How the power differs from the pattern's after a change, by class."""
    changed, whole = (model.share(canvas, AREA, name) for name in (change, "hits"))
    return difference(changed, whole)


def most_left(model: Measured, canvas: str, change: str) -> dict[int, float]:
    """How far what is left of the power is above half of it, both without "no pattern"."""
    names = (change, "hits", "no_pattern")
    changed, whole, none = (model.share(canvas, AREA, name) for name in names)
    return {y: (changed[y] - none[y]) - (whole[y] - none[y]) / 2 for y in whole}


def claim_1(kinds: Kinds) -> Iterator[Verdict]:
    for kind in present(kinds, NATURAL):
        runs = list(kinds[kind].values())
        for canvas in canvases_of(kinds[kind]):
            for statement, says in (
                ("almost any image, for every class", powerful),
                ("above all controls, in every class", above_controls),
            ):
                found = [says(run, canvas) for run in runs]
                yield Verdict("1", statement, kind, title(canvas, AREA), found)
        canvas = "positive"
        for change, words in CHANGES.items():
            if not runs[0].has(canvas, AREA, change):
                continue
            where = kind, title(canvas, AREA)
            left = [above(most_left(run, canvas, change)) for run in runs]
            yield Verdict("1", f"{words}: keeps most of its power", *where, left)
            lost = [below(cost(run, canvas, change)) for run in runs]
            yield Verdict("1", f"{words}: loses power", *where, lost)


# ---- claim 2


def outstanding(model: Measured, canvas: str, area: float, target: int) -> bool:
    """Whether a class stands out among all classes of its network."""
    scores = model.scores(canvas, area)
    return stands_out(scores, target, len(scores))


def suspicious(
    model: Measured, natural: Sequence[Measured], canvas: str, area: float, target: int
) -> Run:
    found = outstanding(model, canvas, area, target)
    usual = any(outstanding(each, canvas, area, target) for each in natural)
    return Run(found and not usual, not found)


def shows(
    model: Measured,
    natural: Sequence[Measured],
    canvas: str,
    area: float,
    trigger: str,
    target: int,
) -> Run:
    fit, *usual = (
        each.column(canvas, area, f"fit_{trigger}")[target] for each in (model, *natural)
    )
    return Run(fit >= 0.5 and fit > max(usual), fit <= max(usual))


def placed(model: Measured, canvas: str, area: float, trigger: str, target: int) -> Run:
    """The IoU is that of n pixels of a pattern and nine of a trigger, c of them in common:
    c / (n + 9 - c)."""
    iou = model.column(canvas, area, f"iou_{trigger}")[target]
    pixels = mask_size(model, canvas, area, target)
    nine = int(PATCHES[f"backdoored_{trigger}"].pattern().mask.sum())
    common = iou * (pixels + nine) / (1 + iou)
    inside = round(common) >= min(pixels, nine) / 2
    return Run(inside, not inside)


def mask_size(model: Measured, canvas: str, area: float, target: int) -> int:
    """How many pixels a pattern has."""
    return int(str(model.column(canvas, area, "mask")[target]), 16).bit_count()


def claim_2(kinds: Kinds) -> Iterator[Verdict]:
    natural = list(kinds.get("natural", {}).values())
    for kind in present(kinds, PATCHES) if natural else ():
        trigger, target = kind.removeprefix("backdoored_"), PATCHES[kind].target
        runs = list(kinds[kind].values())
        for canvas, area in runs[0].settings:
            at, named = (canvas, area), (trigger, target)
            found = {
                "suspicious": [suspicious(run, natural, *at, target) for run in runs],
                "shows the trigger": [shows(run, natural, *at, *named) for run in runs],
                "in the trigger's place": [placed(run, *at, *named) for run in runs],
            }
            for statement, says in found.items():
                yield Verdict("2", f"the target's pattern: {statement}", kind, title(*at), says)


# ---- claim 3


def gain(row: Row) -> dict[int, float]:
    """The power on another network minus its stronger control, by class."""
    columns = (row["classes"], row["n"], row["hits"], row["random_pixels"], row["no_pattern"])
    return {y: (hits - max(controls)) / n for y, n, hits, *controls in zip(*columns)}


def beats_both(row: Row) -> list[bool]:
    """Whether each class's pattern beats random pixels and no pattern."""
    columns = (row["n"], row["hits"], row["random_pixels"], row["no_pattern"])
    return [
        Scores(power_of(hits, n, none), at_random / n).beats_controls
        for n, hits, at_random, none in zip(*columns)
    ]


def works(row: Row) -> Run:
    """Whether the patterns of a network work on another."""
    found = above(gain(row)).supports
    return Run(found, not found and len(row["classes"]) >= FEWEST_CLASSES)


def transferred(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows by the kind of model that was tested; first each source on itself."""
    groups: dict[str, list[Row]] = {ITSELF: []}
    for row in rows:
        own = row["model"] == row["tested"]
        groups.setdefault(ITSELF if own else row["kind"], []).append(row)
    return ((kind, found) for kind, found in groups.items() if found)


def claim_3(rows: Sequence[Row]) -> Iterator[Verdict]:
    for kind, found in transferred(rows):
        runs = [works(row) for row in found]
        what = "on unseen images" if kind == ITSELF else "on other networks"
        words = f"a clean pattern works as a trigger {what}"
        yield Verdict("3", words, kind, title("positive", AREA), runs)


# ---- claims 4 and 5


def paired(one: Runs, other: Runs, canvas: str, area: float, name: str) -> list[dict[int, float]]:
    """The differences of a score between models of the same seed, by class, seed by seed. Counts of
    images are compared as shares."""
    found = []
    for seed in sorted(one.keys() & other.keys()):
        values = [
            each.share(canvas, area, name) if name == "hits" else each.column(canvas, area, name)
            for each in (one[seed], other[seed])
        ]
        found.append(difference(*values))
    return found


def claim_4(kinds: Kinds) -> Iterator[Verdict]:
    for one, other in PAIRS:
        for canvas in canvases_of_both(kinds, one, other):
            for name in (*SHAPES, "hits"):
                found = paired(kinds[one], kinds[other], canvas, AREA, name)
                what = "larger epsilon" if other in EPSILONS else "adversarial training"
                words = "less power" if name == "hits" else f"simpler, {name.replace('_', ' ')}"
                where = f"{one} minus {other}", title(canvas, AREA)
                runs = [below(each) for each in found]
                yield Verdict("4", f"{what}: {words}", *where, runs)


def claim_5(kinds: Kinds) -> Iterator[Verdict]:
    one, other = "random_labels", "true_labels"
    for canvas in canvases_of_both(kinds, one, other):
        found = paired(kinds[one], kinds[other], canvas, AREA, "hits")
        where = f"{one} minus {other}", title(canvas, AREA)
        yield Verdict("5", "random labels: less power", *where, [below(each) for each in found])


def together(found: Iterable[Verdict]) -> str:
    """What statements about several models say together."""
    said = {each.verdict for each in found}
    return said.pop() if len(said) == 1 else OPEN


def verdicts(kinds: Kinds, transfer: Sequence[Row]) -> Iterator[Verdict]:
    """All of them, claim by claim."""
    yield from claim_1(kinds)
    yield from claim_2(kinds)
    yield from claim_3(transfer)
    yield from claim_4(kinds)
    yield from claim_5(kinds)


def present(kinds: Kinds, names: Iterable[str]) -> list[str]:
    return [name for name in names if name in kinds]


def canvases_of(runs: Runs) -> list[str]:
    """The kinds of canvas of some models."""
    first = next(iter(runs.values()))
    return [canvas for canvas, area in first.settings if area == AREA]


def canvases_of_both(kinds: Kinds, one: str, other: str) -> list[str]:
    """Those of two kinds of model; none if no two models have the same seed."""
    if not kinds.get(one, {}).keys() & kinds.get(other, {}).keys():
        return []
    return canvases_of(kinds[one])


def title(canvas: str, area: float) -> str:
    return f"{canvas}, {100 * area:.3g} %"

"""The paper's claims, each with "holds", "does not hold" or "not shown".

They serve the rows of Fashion-MNIST; those of CIFAR-10 are pooled by ``claims/pooled.py``.

These rules were written before any model was trained for the claims; earlier measurements of other
models, in docs/claims.md of version 0.2, were known. What differs on Fashion-MNIST (its epsilons,
epochs, and the control of claim 2) was fixed later, before its networks were trained. The rules
take only the models that were trained for the claims, with three seeds or more; with fewer, a
statement is "not shown". A statement has evidence for and against it in each run (a training seed,
or a pair of models). It

- "holds" if every run is evidence for it,
- "does not hold" if every run is evidence against it,
- is "not shown" otherwise.

Where a statement is made about several models, such as three triggers, it holds of all together if
it holds for each of them, and does not hold if it fails for each of them.

A run is evidence for nothing if one of its networks has not learnt what its kind promises: a
backdoor with an attack success of 0.9 or more; an accuracy of 0.95 or more on the memorised images;
an accuracy of 0.3 or more under the attack (PGD) that adversarial training is to resist.

What a run says, with 5 % of the pixels (claim 2: also with 1 %):

1. *One small pattern per class makes the model predict the class on almost any image.* For: all
   classes have a predictive power of 0.9 or more. Against: half of the classes or fewer have.
   *The patterns have more power than their controls.* For: all classes beat all three controls
   (no pattern; random pixels and the same mask on another canvas, both chosen as the pattern was).
   Against: half of the classes or fewer do.
   *They are shapes, along with some texture.* On positive canvases, a pattern keeps most of its
   power under a change (shades of grey, a blur, its colours in another order) if what is left above
   "no pattern" is more than half. For: the interval over classes of "left, minus half" is above 0.
   Against: it is below 0. No change does anything to the pattern of a white or black canvas.
2. *The pattern of a backdoored network's target is suspicious.* For: the target stands out among
   the classes of the network (``surveys.stands_out``), and the same class of no control does.
   Against: it does not stand out. The controls are the natural networks.
   *It shows the trigger.* What counts is the pattern's best fit to the trigger, anywhere, as a
   share of the best that any mask on its canvas can have. For: the share is half or more, and
   larger than that of the same class in every control. Against: it is smaller than the largest of
   these. The statement is made where the canvas of each of these patterns can show half of the
   trigger.
   *It is in the trigger's place.* For: half or more of the pixels that could be in common are.
   Against: fewer.
3. *A clean pattern works as a trigger*: on unseen images of its own network; on other natural
   networks; on networks with a backdoor; on robust networks; on networks of memorised labels. A run
   is a natural network and the network that is tested; there must be three or more of each. For:
   the interval over classes of the power minus the stronger of "one random mask" and "no pattern"
   is above 0. Against: it is below 0.
4. *Adversarial training makes patterns simpler*, *and a larger epsilon simpler still.* A run is a
   pair of networks with the same seed, compared class by class on the same canvases. For: the
   interval of the difference of a shape score is below 0. Against: it is above 0.
   *They have less power.* The same with the power minus "no pattern", on white and black canvases:
   the positive ones are images that a natural network classifies correctly.
5. *Patterns need meaningful classes.* A run is a pair of networks with random and with true labels
   and the same seed: they memorise the same images. For: the interval of the difference of the
   power minus "no pattern" is below 0. Against: it is above 0. Positive canvases are left out,
   since they are images of the true class, which means nothing to a network of random labels.

Intervals over classes are the bootstrap of ``scores.intervals``; with fewer than five classes there
is none, so a run is evidence for nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from findings import Row

from captum_classpattern.scores.intervals import FEWEST_CLASSES, Interval, bootstrap_over_classes
from captum_classpattern.scores.power import Scores, power_of
from captum_classpattern.surveys import stands_out
from claims.models import (
    EPSILONS,
    EPSILONS_OF,
    MEMORISED,
    PATCHES,
    SIDE,
    Patch,
)
from claims.rows import Measured, Runs

ITSELF = "itself"  # tested on the network of the search
HOLDS, FAILS, OPEN = "holds", "does not hold", "not shown"
LEAST_RUNS, ALMOST_ANY = 3, 0.9
BOUNDS = {"backdoored": 0.9, "robust": 0.3, **dict.fromkeys(MEMORISED, 0.95)}  # of what is learnt
AREA, SHAPES = 0.05, ("total_variation", "high_frequency_share", "components")
BLANK = ("white", "black")
CHANGES = {"grey": "in shades of grey", "blurred": "blurred", "shuffled": "colours shuffled"}
NATURAL = ("natural", "natural_adam")
CONTROL = "natural"  # of claim 2
TESTED_ON = {  # kinds of network, claim 3
    "unseen images": (ITSELF,),
    "other natural networks": NATURAL,
    "networks with a backdoor": tuple(patch.kind for patch in PATCHES.values()),
    "robust networks": tuple(EPSILONS),
    "networks of memorised labels": MEMORISED,
}
PAIRS = (
    *((robust, natural) for robust in EPSILONS for natural in NATURAL),
    *((large, small) for small, large in EPSILONS_OF.values()),
)

ByClass = Mapping[int, float]
Kinds = Mapping[str, Runs]


class Run(NamedTuple):
    """What one run says about a statement."""

    supports: bool
    contradicts: bool


NOTHING = Run(False, False)


class Verdict(NamedTuple):
    """A statement of a claim about some models, and what all runs say together."""

    claim: str
    statement: str
    models: str
    setting: str  # canvas and area
    runs: Sequence[Run]
    networks: int = LEAST_RUNS  # of each kind that the runs are made of or compared with

    @property
    def verdict(self) -> str:
        if min(len(self.runs), self.networks) < LEAST_RUNS:
            return OPEN
        if all(run.supports for run in self.runs):
            return HOLDS
        return FAILS if all(run.contradicts for run in self.runs) else OPEN


def bound_of(kind: str) -> float | None:
    """How much a network of this kind must have learnt; None if there is nothing to learn. Kinds
    are called ``robust4``, ``shipped robust4`` or ``demo robust``."""
    name = kind.split()[-1]
    return next((bound for start, bound in BOUNDS.items() if name.startswith(start)), None)


def has_learnt(*models: Measured) -> bool:
    """Whether all these networks have learnt what their kinds promise."""
    learnt = ((model.row["learnt"], bound_of(model.kind)) for model in models)
    return all(bound is None or value >= bound for value, bound in learnt)


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


def most_left(model: Measured, canvas: str, change: str) -> dict[int, float]:
    """How far what is left of the power is above half of it, both without "no pattern"."""
    changed, whole = (model.above_none(canvas, AREA, name) for name in (change, "hits"))
    return {y: changed[y] - whole[y] / 2 for y in whole}


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
            left = [above(most_left(run, canvas, change)) for run in runs]
            words = f"{words}: keeps most of its power"
            yield Verdict("1", words, kind, title(canvas, AREA), left)


# ---- claim 2


def outstanding(model: Measured, canvas: str, area: float, target: int) -> bool:
    """Whether a class stands out among all classes of its network."""
    scores = model.scores(canvas, area)
    return stands_out(scores, target, len(scores))


def suspicious(
    model: Measured, controls: Sequence[Measured], canvas: str, area: float, target: int
) -> Run:
    found = outstanding(model, canvas, area, target)
    usual = any(outstanding(each, canvas, area, target) for each in controls)
    return Run(found and not usual, not found)


def shown(model: Measured, canvas: str, area: float, trigger: str) -> dict[int, float | None]:
    """How much of a trigger each class's pattern shows, as a share of the most that any mask on its
    canvas can; None if that is less than half of the trigger."""
    fit, most = (model.column(canvas, area, f"{name}_{trigger}") for name in ("fit", "most"))
    return {y: fit[y] / most[y] if most[y] >= 0.5 else None for y in fit}


def shows(share: float, usual: Sequence[float]) -> Run:
    """What the share of a trigger says that a pattern shows, next to those of the controls."""
    return Run(share >= 0.5 and share > max(usual), share < max(usual))


def placed(model: Measured, canvas: str, area: float, patch: Patch) -> Run:
    common = model.column(canvas, area, f"common_{patch.colours}")[patch.target]
    pixels = int(str(model.column(canvas, area, "mask")[patch.target]), 16).bit_count()
    inside = common >= min(pixels, SIDE * SIDE) / 2
    return Run(inside, not inside)


def claim_2(kinds: Kinds) -> Iterator[Verdict]:
    controls = list(controls_of(kinds).values())
    for patch in backdoored(kinds) if controls else ():
        runs = list(kinds[patch.kind].values())
        for at in runs[0].settings:
            found = {"suspicious": [suspicious(run, controls, *at, patch.target) for run in runs]}
            shares = [shown(each, *at, patch.colours)[patch.target] for each in (*runs, *controls)]
            can_show = [share for share in shares if share is not None]
            if len(can_show) == len(shares):
                usual = can_show[len(runs) :]
                found["shows the trigger"] = [shows(each, usual) for each in can_show[: len(runs)]]
            found["in the trigger's place"] = [placed(run, *at, patch) for run in runs]
            for statement, says in found.items():
                words = f"the target's pattern: {statement}"
                counted = [said if has_learnt(run) else NOTHING for run, said in zip(runs, says)]
                yield Verdict("2", words, patch.kind, title(*at), counted, len(controls))


def controls_of(kinds: Kinds) -> Runs:
    """Clean networks that are trained as the backdoored ones are."""
    return kinds.get(CONTROL, {})


def backdoored(kinds: Kinds) -> list[Patch]:
    """The triggers of the networks that are there."""
    return [patch for patch in PATCHES.values() if patch.kind in kinds]


# ---- claim 3


def gain(row: Row) -> dict[int, float]:
    """The power on another network minus its stronger control, by class."""
    columns = (row["classes"], row["n"], row["hits"], row["one_random_mask"], row["no_pattern"])
    return {y: (hits - max(controls)) / n for y, n, hits, *controls in zip(*columns)}


def beats_both(row: Row) -> list[bool]:
    """Whether each class's pattern beats random pixels and no pattern."""
    columns = (row["n"], row["hits"], row["one_random_mask"], row["no_pattern"])
    return [
        Scores(power_of(hits, n, none), at_random / n).beats_controls
        for n, hits, at_random, none in zip(*columns)
    ]


def transferred(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows by the kind of model that was tested; first each source on itself."""
    groups: dict[str, list[Row]] = {ITSELF: []}
    for row in rows:
        own = row["model"] == row["tested"]
        groups.setdefault(ITSELF if own else row["kind"], []).append(row)
    return ((kind, found) for kind, found in groups.items() if found)


def claim_3(kinds: Kinds, rows: Sequence[Row]) -> Iterator[Verdict]:
    found = dict(transferred(rows))
    for where, names in TESTED_ON.items():
        for kind in present(found, names):
            runs = [
                above(gain(row)) if has_learnt(kinds[row["kind"]][row["seed"]]) else NOTHING
                for row in found[kind]
            ]
            networks = min(len({row[name] for row in found[kind]}) for name in ("model", "tested"))
            words = f"a clean pattern works as a trigger on {where}"
            yield Verdict("3", words, kind, title("positive", AREA), runs, networks)


# ---- claims 4 and 5


def paired(
    one: Runs, other: Runs, value: Callable[..., ByClass], *which: Any
) -> dict[int, dict[int, float]]:
    """The differences of a value between models of the same seed, by class, seed by seed."""
    return {
        seed: difference(value(one[seed], *which), value(other[seed], *which))
        for seed in sorted(one.keys() & other.keys())
    }


def decreases(one: Runs, other: Runs, value: Callable[..., ByClass], *which: Any) -> list[Run]:
    """For: the first kind of model has less; against: it has more."""
    return [
        below(found) if has_learnt(one[seed], other[seed]) else NOTHING
        for seed, found in paired(one, other, value, *which).items()
    ]


def claim_4(kinds: Kinds) -> Iterator[Verdict]:
    for one, other in PAIRS:
        what = "larger epsilon" if other in EPSILONS else "adversarial training"
        for canvas in canvases_of_both(kinds, one, other):
            where = f"{one} minus {other}", title(canvas, AREA)
            for name in SHAPES:
                runs = decreases(kinds[one], kinds[other], Measured.column, canvas, AREA, name)
                yield Verdict("4", f"{what}: simpler, {name.replace('_', ' ')}", *where, runs)
            if canvas in BLANK:
                runs = decreases(kinds[one], kinds[other], Measured.above_none, canvas, AREA)
                yield Verdict("4", f"{what}: less power", *where, runs)


def claim_5(kinds: Kinds) -> Iterator[Verdict]:
    one, other = "random_labels", "true_labels"
    for canvas in canvases_of_both(kinds, one, other):
        if canvas in BLANK:
            runs = decreases(kinds[one], kinds[other], Measured.above_none, canvas, AREA)
            where = f"{one} minus {other}", title(canvas, AREA)
            yield Verdict("5", "random labels: less power", *where, runs)


def together(found: Iterable[Verdict]) -> str:
    """What statements about several models say together."""
    said = {each.verdict for each in found}
    return said.pop() if len(said) == 1 else OPEN


def verdicts(kinds: Kinds, transfer: Sequence[Row]) -> Iterator[Verdict]:
    """All of them, claim by claim."""
    yield from claim_1(kinds)
    yield from claim_2(kinds)
    yield from claim_3(kinds, transfer)
    yield from claim_4(kinds)
    yield from claim_5(kinds)


def present(kinds: Mapping[str, object], names: Iterable[str]) -> list[str]:
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

"""The tables of the claims: lines of Markdown, made from the rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from findings import ByClass, Row, Table, format_values, head, line, mean_of, read_rows
from scipy import stats

from captum_classpattern.demo import CLASS_NAMES as FASHION_NAMES
from captum_classpattern.surveys.findings import label_of
from claims.images import CLASS_NAMES
from claims.models import CIFAR10
from claims.rows import FILE, TRANSFER, Measured, Runs, by_kind
from claims.verdicts import (
    ALMOST_ANY,
    AREA,
    CHANGES,
    NATURAL,
    PAIRS,
    SHAPES,
    Kinds,
    backdoored,
    beats_both,
    bound_of,
    canvases_of,
    canvases_of_both,
    controls_of,
    gain,
    has_learnt,
    outstanding,
    paired,
    present,
    shown,
    title,
    transferred,
)

CONTROLS = ("no_pattern", "random_pixels", "other_canvas")
SHIFT, SHARES = "+.1f", ".1f"  # of points and per cent


def over_seeds(runs: Runs, value: Callable[..., Mapping[int, Any]], *which: Any) -> dict[int, Any]:
    """A value by class, of each seed: a method of ``Measured``, or a function."""
    found: dict[int, list[Any]] = {}
    for model in runs.values():
        for y, each in value(model, *which).items():
            found.setdefault(y, []).append(each)
    return found


def percent(values: ByClass, form: str = SHARES, unit: str = "%") -> str:
    """The mean over classes and seeds, with the interval over classes."""
    return format_values(values, form, 100, unit, " to ")


def seed_means(values: ByClass, form: str = SHARES, scale: float = 100) -> str:
    """The mean over classes of each seed, with the 95 % t-interval of their mean."""
    means = [scale * fmean(of_seed) for of_seed in zip(*values.values())]
    text = ", ".join(f"{mean:{form}}" for mean in means)
    if len(means) < 2:
        return text
    margin = stats.t.ppf(0.975, len(means) - 1) * stdev(means) / len(means) ** 0.5
    return f"{text} ({fmean(means) - margin:{form}} to {fmean(means) + margin:{form}})"


def name_of(runs: Runs, y: int) -> str:
    """The name of a class."""
    data = next(iter(runs.values())).row["data"]
    return label_of(y, CLASS_NAMES if data == CIFAR10 else FASHION_NAMES)


def models(kinds: Kinds) -> Iterator[str]:
    """Each kind of model: how accurate it is, and whether it has learnt what its kind promises: how
    often its trigger works, its accuracy on memorised images, or under PGD. *: below the bound."""
    yield head("model", "training seeds", "accuracy", "learnt", "bound", "passes a class")
    for kind, runs in kinds.items():
        rows = [model.row for model in runs.values()]
        learnt = [
            f"{model.row['learnt']:.3f}{'' if has_learnt(model) else '*'}"
            for model in runs.values()
            if model.row["learnt"] is not None
        ]
        yield line(
            kind,
            len(rows),
            ", ".join(f"{row['accuracy']:.3f}" for row in rows),
            ", ".join(learnt),
            bound_of(kind) or "",
            f"{fmean(row['passes'] / len(row['classes']) for row in rows):,.0f}",
        )


def powers(kinds: Kinds) -> Iterator[str]:
    """The power of each kind of model on each kind of canvas at each area, with its controls."""
    yield head(
        *("model", "canvas, area", "power", "seeds", "weakest", "strongest"),
        *(f"classes at {ALMOST_ANY:.0%} or more", "classes above all controls"),
        *("no pattern", "random pixels", "other canvas", "strongest control", "n"),
    )
    for kind, runs in kinds.items():
        first = next(iter(runs.values()))
        for canvas, area in first.settings:
            power = over_seeds(runs, Measured.share, canvas, area, "hits")
            means = {y: fmean(of_class) for y, of_class in power.items()}
            ends = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
            found = [over_seeds(runs, Measured.share, canvas, area, name) for name in CONTROLS]
            strongest = {y: [*map(max, *(control[y] for control in found))] for y in power}
            yield line(
                kind,
                title(canvas, area),
                percent(power),
                seed_means(power),
                *(f"{means[y]:.1%} {name_of(runs, y)}" for y in ends),
                counts(power, lambda value: value >= ALMOST_ANY),
                above_all(runs, canvas, area),
                *(f"{mean_of(control):.1%}" for control in (*found, strongest)),
                how_much(runs, canvas, area),
            )


def how_much(runs: Runs, canvas: str, area: float) -> str:
    """Classes x training seeds x held-out images of other classes."""
    by_class = over_seeds(runs, Measured.column, canvas, area, "n")
    images = {n for of_class in by_class.values() for n in of_class}
    ends = f"{min(images)}" if len(images) == 1 else f"{min(images)} to {max(images)}"
    return f"{len(by_class)} x {len(runs)} x {ends}"


def counts(values: ByClass, is_true: Callable[[float], bool]) -> str:
    """For how many classes something is true, in each seed."""
    return ", ".join(str(sum(map(is_true, of_seed))) for of_seed in zip(*values.values()))


def above_all(runs: Runs, canvas: str, area: float) -> str:
    """How many classes beat all three controls, in each seed."""
    found = (model.scores(canvas, area).values() for model in runs.values())
    return ", ".join(str(sum(each.beats_controls for each in scores)) for scores in found)


def by_class(kinds: Kinds) -> Iterator[str]:
    """The natural models, and those that come with the project: the power of each class, mean and
    range over the seeds."""
    for kind in (*present(kinds, NATURAL), *(kind for kind in kinds if " " in kind)):
        runs = kinds[kind]
        settings = next(iter(runs.values())).settings
        yield head(f"{kind}: class", *(title(*each) for each in settings))
        columns = [over_seeds(runs, Measured.share, *each, "hits") for each in settings]
        for y in columns[0]:
            yield line(name_of(runs, y), *(with_range(column[y]) for column in columns))
        yield ""


def with_range(values: Sequence[float]) -> str:
    text = f"{fmean(values):.1%}"
    low, high = (f"{100 * each:.0f}" for each in (min(values), max(values)))
    return text if len(values) == 1 else f"{text} ({low} to {high})"


def changed(kinds: Kinds) -> Iterator[str]:
    """What a change of a pattern leaves of its power, positive canvas: paired by class."""
    canvas = "positive"
    changes = [
        change
        for change in CHANGES
        if all(next(iter(runs.values())).has(canvas, AREA, change) for runs in kinds.values())
    ]
    names = [f"{CHANGES[change]}: {what}" for change in changes for what in ("power", "points")]
    yield head("model", "power", *names)
    for kind, runs in kinds.items():
        power = over_seeds(runs, Measured.share, canvas, AREA, "hits")
        cells = [kind, percent(power)]
        for change in changes:
            left = over_seeds(runs, Measured.share, canvas, AREA, change)
            lost = {y: [a - b for a, b in zip(left[y], power[y])] for y in power}
            cells += [percent(left), percent(lost, SHIFT, "")]
        yield line(*cells)


def backdoors(kinds: Kinds, data: str) -> Iterator[str]:
    """The target of each trigger next to the same class of the controls: mean and range over the
    seeds."""
    yield head(
        *("trigger, target", "canvas, area", "target", "next class", "target stands out"),
        *(f"control: {what}" for what in ("the same class", "it stands out", "any class does")),
    )
    natural = controls_of(kinds)
    for kind, patch in backdoored(kinds, data).items() if natural else ():
        runs, target = kinds[kind], patch.target
        for canvas, area in next(iter(runs.values())).settings:
            power = over_seeds(runs, Measured.share, canvas, area, "hits")
            of_target = power.pop(target)
            rival = max(power, key=lambda y: fmean(power[y]))
            usual = over_seeds(natural, Measured.share, canvas, area, "hits")
            yield line(
                f"{kind}, {name_of(runs, target)}",
                title(canvas, area),
                with_range(of_target),
                f"{with_range(power[rival])} {name_of(runs, rival)}",
                how_many(runs, canvas, area, [target]),
                with_range(usual[target]),
                how_many(natural, canvas, area, [target]),
                how_many(natural, canvas, area, [*usual]),
            )


def how_many(runs: Runs, canvas: str, area: float, classes: Sequence[int]) -> str:
    """In how many runs one of these classes stands out."""
    found = (any(outstanding(m, canvas, area, y) for y in classes) for m in runs.values())
    return f"{sum(found)} of {len(runs)}"


def triggers(kinds: Kinds, data: str) -> Iterator[str]:
    """How well patterns show each trigger, as a share of what their canvases can: the target, the
    other classes, and the same class of the controls; "-" where no canvas can show half of it. And
    how many of their pixels are at the trigger's place."""
    columns = ("target", "other classes", "control: the same class")
    names = (f"{what}: {each}" for what in ("share shown", "pixels in common") for each in columns)
    yield head("trigger", "canvas, area", *names)
    natural = controls_of(kinds)
    for kind, patch in backdoored(kinds, data).items() if natural else ():
        runs, target = kinds[kind], patch.target
        for at in next(iter(runs.values())).settings:
            cells = []
            for value in (
                (shown, *at, patch.colours),
                (Measured.column, *at, f"common_{patch.colours}"),
            ):
                found, usual = over_seeds(runs, *value), over_seeds(natural, *value)
                of_target = found.pop(target)
                others = [each for of_class in found.values() for each in of_class]
                cells += [mean_of_known(each) for each in (of_target, others, usual[target])]
            yield line(kind, title(*at), *cells)


def mean_of_known(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.2f}" if known else "-"


def transfer(rows: Sequence[Row]) -> Iterator[str]:
    """The natural networks' patterns on held-out images of their own and of other networks."""
    yield head(
        *("tested on", "pairs", "power", "random pixels (one draw)", "no pattern"),
        *("points above the stronger control", "classes above both, fewest to most"),
    )
    for kind, found in transferred(rows):
        cells = []
        for name in ("hits", "one_random_mask", "no_pattern"):
            cells.append(percent(by_pairs(found, name)))
        gains = [gain(row) for row in found]
        above = [sum(beats_both(row)) for row in found]
        points = {y: [each[y] for each in gains] for y in gains[0]}
        ends = f"{min(above)} to {max(above)} of {len(gains[0])}"
        yield line(kind, len(found), *cells, percent(points, SHIFT, ""), ends)


def by_pairs(rows: Sequence[Row], name: str) -> dict[int, list[float]]:
    """A count of each pair as a share, by class."""
    classes = rows[0]["classes"]
    return {y: [row[name][i] / row["n"][i] for row in rows] for i, y in enumerate(classes)}


def shapes(kinds: Kinds) -> Iterator[str]:
    """The shape scores of all kinds of model, 5 % of the pixels."""
    yield head("model", "canvas", *(name.replace("_", " ") for name in SHAPES))
    for kind, runs in kinds.items():
        for canvas in canvases_of(runs):
            columns = (over_seeds(runs, Measured.column, canvas, AREA, name) for name in SHAPES)
            forms = (".3f", ".3f", ".1f")
            yield line(kind, canvas, *map(format_values, columns, forms))


def differences(
    pairs: Iterable[tuple[str, str]], kinds: Kinds, shape_scores: Sequence[str] = ()
) -> Iterator[str]:
    """Paired differences of models with the same seed, class by class: the mean with its interval
    over classes, and the mean of each seed."""
    columns = [
        *((name.replace("_", " "), Measured.column, name) for name in shape_scores),
        ("power, points", Measured.share, "hits"),
        ("above no pattern, points", Measured.above_none, "hits"),
    ]
    of_seeds = (each for words, *_ in columns for each in (words, f"{words}: seeds"))
    yield head("difference", "canvas, area", *of_seeds)
    for one, other in pairs:
        for canvas in canvases_of_both(kinds, one, other):
            cells: list[str] = []
            for _, value, name in columns:
                pair = kinds[one], kinds[other]
                found = [*paired(*pair, value, canvas, AREA, name).values()]
                values = {y: [each[y] for each in found] for y in found[0]}
                form = "+.1f" if name in ("hits", "components") else "+.3f"
                scale = 100 if name == "hits" else 1
                cells += [format_values(values, form, scale), seed_means(values, form, scale)]
            yield line(f"{one} minus {other}", title(canvas, AREA), *cells)


def tables(folder: Path, data: str) -> Iterator[Table]:
    """The tables of a data set for which there are rows, with their titles."""
    known, rows = (
        [row for row in read_rows(folder / name) if row["data"] == data]
        for name in (FILE, TRANSFER)
    )
    kinds = by_kind(known)
    if not kinds:
        return
    found: list[Table] = [
        ("models", models(kinds)),
        ("predictive power", powers(kinds)),
        ("by class", by_class(kinds)),
        ("claim 1: what a pattern is made of", changed(kinds)),
        ("claim 2: the backdoored class", backdoors(kinds, data)),
        ("claim 2: does the pattern show the trigger?", triggers(kinds, data)),
        ("claim 3: clean patterns on other networks", transfer(rows)),
        ("claim 4: paired differences", differences(PAIRS, kinds, SHAPES)),
        ("claim 4: the shape of patterns", shapes(kinds)),
        ("random labels", differences([("random_labels", "true_labels")], kinds)),
    ]
    for name, lines in found:
        head_and_rows = list(lines)
        if len(head_and_rows) > 1:
            yield name, head_and_rows

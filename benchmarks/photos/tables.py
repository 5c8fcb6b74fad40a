"""The tables of the trojans in an ImageNet network."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np
from findings import Row, Table, format_values, having, head, line, read_rows
from problems import IMAGENET_CLASSES
from scipy import stats
from scipy.stats import median_abs_deviation

from captum_classpattern.scores.intervals import FEWEST_CLASSES
from photos.planting import LATER, NETWORKS, NUMBERS, TROJANS, Network

SIDE, SEED = 96, 0  # of the clean classes' patches
ENOUGH = 0.7  # the goal's power
FAR = {80: 17.0}  # the bound, by passes: 1.5 times the largest first class of clean networks
LEARNT = 0.8  # of the photos, on which a trojan must succeed to count
RANKED = ("bound", "confirm", "scan")  # by short searches, of so many passes
STANDS_OUT = 0.5  # of power
CONTROLS = ("edges", "random")
OURS = "ClassPattern"
CLOSEST = ("Occlusion", "SmoothGrad", "ClassPattern, pixels")
RANKS = [f"rank of its drawing of 16, by -{name}" for name in NUMBERS]


def tables(folder: Path) -> Iterator[Table]:
    planted = partial(by_side, networks=read_rows(folder / "photos_later.jsonl"))
    success = success_in(folder)
    for title, stage, table in (
        ("Clean classes, by a patch that moves", "natural", natural),
        ("Clean classes, one by one", "natural", patches),
        ("Clean classes, by the side of the patch", "natural", sides),
        ("Clean networks: a ranking of 100 classes", "bound", rankings),
        ("Planted after the bound: the networks", "later", networks),
        ("Trojans, and new clean networks: a ranking of 100 classes", "confirm", rankings),
        ("Planted after the bound, by side", "confirm", planted),
        ("A scan of all 1,000 classes", "scan", scans),
        ("A scan of all 1,000 classes: ranks", "scan", rankings),
        ("Trojans, by a patch of their class", "found", partial(found, success=success)),
        ("Four trojans, by Neural Cleanse", "cleanse", cleanse),
        ("The networks", "plant", networks),
        ("Where methods look in a photo with a trigger", "maps", footprints),
        ("The class pattern of cells minus the closest methods", "maps", differences),
        ("The distance to the footprint, trojan by trojan", "maps", distances),
        ("Clean classes, with fixed pixels", "classes", classes),
        ("Cells or pixels, on CIFAR-10", "cells", kinds),
        ("The time of a pass", "time", times),
    ):
        rows = read_rows(folder / f"photos_{stage}.jsonl")
        if stage in RANKED:
            for passes in sorted({row["passes"] for row in rows}, reverse=True):
                yield f"{title} ({passes} passes)", table(having(rows, passes=passes))
        elif rows:
            yield title, table(rows)


def natural(rows: Sequence[Row]) -> Iterator[str]:
    """All clean classes, by side and seed."""
    yield head(
        *("classes", "side", "seed", "median power", "classes at 70 % or more"),
        *("median of the strongest control", "the least of nine places, median"),
        *("median power on -lite1, -lite2", "among the first five there, for the patch on grey"),
    )
    for side, seed in dict.fromkeys((row["side"], row["seed"]) for row in rows):
        group = having(rows, side=side, seed=seed)
        powers = [row["power"] for row in group]
        enough = {row["class"]: [float(row["power"] >= ENOUGH)] for row in group}
        named = [sum(row["named"][each] <= 5 for row in group) for each in NUMBERS]
        transfer = [median(row["transfer"][each] for row in group) for each in NUMBERS]
        yield line(
            *(len(group), side, seed),
            median_of(powers),
            format_values(enough, ".0f", 100, "%"),
            percent(median(strongest(row)[0] for row in group)),
            percent(median(min(row["grid"]) for row in group)),
            *(", ".join(map(percent, transfer)), ", ".join(map(str, named))),
        )


def median_of(values: Sequence[float]) -> str:
    """The median of classes with its 95 % interval, by a bootstrap over them."""
    if len(values) < FEWEST_CLASSES:
        return percent(median(values))
    drawn = stats.bootstrap((values,), np.median, method="percentile", rng=0).confidence_interval
    return f"{percent(median(values))} ({percent(drawn.low)} to {percent(drawn.high)})"


def strongest(row: Row) -> tuple[float, str]:
    """The strongest control of a patch, and its name."""
    controls = "no_pattern", "random_pixels", "other_canvas", "best_square", "collage"
    return max((row[name], name.replace("_", " ")) for name in controls)


def sides(rows: Sequence[Row]) -> Iterator[str]:
    """The power over the side of the patch, of the classes that have all of them."""
    columns = sorted({row["side"] for row in rows})
    yield head("class", *(f"{side} px" for side in columns))
    for name in in_order(row["class_name"] for row in rows):
        powers = {row["side"]: row["power"] for row in having(rows, class_name=name, seed=SEED)}
        if len(powers) == len(columns):
            yield line(name, *(percent(powers[side]) for side in columns))


def patches(rows: Sequence[Row]) -> Iterator[str]:
    """Clean classes: everywhere, next to the strongest control, and on other networks."""
    yield head(
        *("class", "power", "the least of nine places", "strongest control"),
        *("power on -lite1, -lite2", "place of the class there, for the patch on grey"),
    )
    for row in having(rows, side=SIDE, seed=SEED):
        low, high = row["interval"]
        own = f"{percent(row['power'])} ({percent(low)} to {percent(high)})"
        value, name = strongest(row)
        control = f"{percent(value)} ({name})" if value else percent(0)
        others = ", ".join(map(percent, row["transfer"].values()))
        named = ", ".join(map(str, row["named"].values()))
        yield line(row["class_name"], own, percent(min(row["grid"])), control, others, named)


def rankings(rows: Sequence[Row]) -> Iterator[str]:
    """Where planted classes come in each network, the first other class, and the strongest."""
    yield head("network", "**planted** or other class", "rank", "SD", "power, with two seeds")
    for row in rows:
        far = by_gain({int(y): gain for y, gain in row["gains"].items()})
        ranked = [*far]
        planted = (NETWORKS | LATER).get(row["network"], Network(False)).own_trojans
        powers = {each["class"]: each["powers"] for each in row["first"]}
        others = [y for y in ranked if y not in planted.values()]
        strongest = max((y for y in powers if y in others), key=lambda y: max(powers[y]))
        shown = {y: IMAGENET_CLASSES[y] for y in (others[0], strongest)}
        shown |= {y: f"**{name}**" for name, y in planted.items()}
        for y, name in sorted(shown.items(), key=lambda each: ranked.index(each[0])):
            found = ", ".join(map(percent, powers[y])) if y in powers else "not searched longer"
            yield line(row["network"], name, 1 + ranked.index(y), f"{far[y]:+.1f}", found)


def scans(rows: Sequence[Row]) -> Iterator[str]:
    """Verdicts and times."""
    yield head("network", "verdict", "suspicious", "photos that judge", "threads", "minutes")
    for row in rows:
        suspects = ", ".join(IMAGENET_CLASSES[y] for y in row["suspects"]) or "none"
        facts = row["judged"], row["threads"], round(row["seconds"] / 60)
        yield line(row["network"], row["verdict"], suspects, *facts)


def by_gain(gains: Mapping[int, float]) -> dict[int, float]:
    """How far each class is above the median, in robust standard deviations, the largest first."""
    values = np.array([*gains.values()])
    far = dict(
        zip(gains, (values - np.median(values)) / median_abs_deviation(values, scale="normal"))
    )
    return {y: far[y] for y in sorted(gains, key=lambda y: -gains[y])}


def stand_out(first: Sequence[Row]) -> list[int]:
    """The classes both of whose patches are 50 points above the lower quartile, as a scan of
    version 0.4 says."""
    least = {each["class"]: min(each["powers"]) for each in first}
    usual = np.quantile([*least.values()], 0.25)
    return [y for y, power in least.items() if power >= usual + STANDS_OUT]


def success_in(folder: Path) -> dict[tuple[str, str], float]:
    """The share of photos on which a trojan succeeds, by network and drawing."""
    networks = (
        row for name in ("plant", "later") for row in read_rows(folder / f"photos_{name}.jsonl")
    )
    return {
        (row["network"], name): share for row in networks for name, share in row["success"].items()
    }


def planted_ones(rows: Iterable[Row]) -> list[Row]:
    """The rows of planted networks, without those of clean twins."""
    return [row for row in rows if (NETWORKS | LATER)[row["network"]].planted]


def learnt_ones(rows: Sequence[Row], success: Mapping[tuple[str, str], float]) -> list[Row]:
    """The rows of trojans that succeed often enough to count."""
    return [row for row in rows if success[row["network"], row["trojan"]] >= LEARNT]


def found(rows: Sequence[Row], success: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """The power of the patch of each planted class, and the place of its drawing among eight, next
    to how often the edges of a stamped photo name it."""
    places = [f"place of its drawing among eight, by -{name}" for name in NUMBERS]
    edges = [f"edges: first, by -{name}" for name in NUMBERS]
    yield head("network, trojan", "success", "power", "without", *places, *edges)
    planted = planted_ones(rows)
    for row in rows:
        first = [f"{of.count(1)} of {len(of)}" for of in row["edges"].values()]
        learnt = percent(success[row["network"], row["trojan"]])
        shares = learnt, percent(row["power"]), percent(row["without"])
        named = [*row["ranks"].values(), *first] if row in planted else [""] * 4
        yield line(f"{row['network']}, {row['trojan']}", *shares, *named)
    for name, group in {"all": planted, "learnt": learnt_ones(rows, success)}.items():
        named = [f"{sum(row['ranks'][n] == 1 for row in group)} of {len(group)}" for n in NUMBERS]
        tries = {n: [rank == 1 for row in group for rank in row["edges"][n]] for n in NUMBERS}
        of_edges = [percent(fmean(hits)) for hits in tries.values()]
        yield line(f"*first place, {name}*", "", "", "", *named, *of_edges)


def ranks_in(rows: Sequence[Row]) -> list[str]:
    """The ranks of a drawing, by each network; not in a network where it is not planted."""
    if not (NETWORKS | LATER)[rows[0]["network"]].planted:
        return [""] * len(NUMBERS)
    return [", ".join(str(row[name]) for row in rows) for name in NUMBERS]


def cleanse(rows: Sequence[Row]) -> Iterator[str]:
    """The powers at one place, over the share of the pixels."""
    shares = [*rows[0]["powers"]]
    yield head("network, trojan", *(f"{int(n) / 1000:.1%}" for n in shares), *RANKS)
    for row in rows:
        powers = (percent(row["powers"][n]) for n in shares)
        yield line(f"{row['network']}, {row['trojan']}", *powers, *ranks_in([row]))


def by_side(rows: Sequence[Row], networks: Sequence[Row]) -> Iterator[str]:
    """Which of the trojans that were learnt were found, by the sides of their drawings."""
    bound = FAR.get(rows[0]["passes"], -math.inf)
    ranked = "first or second" + f", from {bound:.0f} SD" * (bound > 0)
    yield head("sides", "trojans: success", "learnt", ranked, "stand out by their power")
    success = {row["network"]: row["success"] for row in networks}
    for row in rows:
        name = row["network"]
        if name in LATER and LATER[name].planted:
            settings, far = LATER[name], by_gain({int(y): g for y, g in row["gains"].items()})
            first = [*far][: len(settings.trojans)]
            learnt = [each for each, share in success[name].items() if share >= LEARNT]
            classes = [settings.trojans[each] for each in learnt]
            hits = [far[y] >= bound and y in first for y in classes]
            out = stand_out(row["first"])
            also = "" if settings.poisoned is None else f", on {settings.poisoned} photos"
            yield line(
                "{} to {} px".format(*settings.sides) + also,
                ", ".join(f"{each}: {percent(share)}" for each, share in success[name].items()),
                *(len(learnt), sum(hits), len({*out} & {*classes})),
            )


def percent(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}%}"


def in_order(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def networks(rows: Sequence[Row]) -> Iterator[str]:
    drawings = in_order(name for row in rows for name in row["success"])
    yield head("network", "accuracy", "agreement", *drawings, "agreement with other drawings")
    for row in rows:
        shares = [row["accuracy"], row["agreement"], *map(row["success"].get, drawings)]
        shares.append(fmean(row["agreement_with_drawing"].values()))
        yield line(row["network"], *("" if each is None else percent(each) for each in shares))


def shown(method: str) -> str:
    """A method as the tables name it."""
    if method in CONTROLS:
        return f"*{method}*"
    return f"**{method}**" if method.startswith(OURS) else method


def footprints(rows: Sequence[Row]) -> Iterator[str]:
    """Means over all photos; the most inside first, and those that failed last."""
    yield head("method", "inside the footprint", "in cells", "power on other photos", "seconds")
    ran = [row for row in rows if "error" not in row]
    means = {
        method: [
            fmean(row[key] for row in ran if row["method"] == method)
            for key in ("inside", "inside_cells", "power", "seconds")
        ]
        for method in in_order(row["method"] for row in ran)
    }
    for method, (inside, cells, power, seconds) in sorted(
        means.items(), key=lambda each: -each[1][0]
    ):
        shares = map(percent, (inside, cells, power))
        yield line(shown(method), *shares, f"{seconds:.1f}")
    for method in in_order(row["method"] for row in rows if "error" in row):
        yield line(method, "does not run", "", "", "")


def differences(rows: Sequence[Row]) -> Iterator[str]:
    """Points by which the cells are ahead, paired by photo, with intervals over the photos."""
    keys = "inside", "inside_cells", "power"
    yield head("cells minus", "photos", "inside the footprint", "in cells", "power on other photos")
    others = in_order(row["method"] for row in rows if row["method"].startswith(CLOSEST))
    for other in others:
        cells, rival = (
            {(row["trojan"], row["photo"]): row for row in having(rows, method=method)}
            for method in ("ClassPattern, cells of 7 px", other)
        )
        points = (
            {number: [cells[photo][key] - rival[photo][key]] for number, photo in enumerate(cells)}
            for key in keys
        )
        yield line(other, len(cells), *(format_values(each, "+.0f", 100) for each in points))


def distances(rows: Sequence[Row]) -> Iterator[str]:
    """The mean distance to the footprint, the paper's figure."""
    ran = [row for row in rows if "error" not in row]
    yield head("method", *TROJANS)
    table = {
        method: [
            fmean(r["distance"] for r in ran if (r["method"], r["trojan"]) == (method, trojan))
            for trojan in TROJANS
        ]
        for method in in_order(row["method"] for row in ran)
    }
    for method, values in sorted(table.items(), key=lambda each: sum(each[1])):
        yield line(shown(method), *(f"{value:.3f}" for value in values))


def classes(rows: Sequence[Row]) -> Iterator[str]:
    yield head(
        "class", "area", "power", "top 5", "mean margin", "strongest control", "above controls"
    )
    for row in rows:
        controls = [row[name] for name in ("no_pattern", "random_pixels", "other_canvas")]
        strongest = max(each for each in controls if each is not None)
        yield line(
            *(row["class_name"], percent(row["area"]), percent(row["power"])),
            *(percent(row["top5"]), f"{row['mean_margin']:+.1f}", percent(strongest)),
            "yes" if row["beats_controls"] else "no",
        )


def kinds(rows: Sequence[Row]) -> Iterator[str]:
    areas = sorted({row["area"] for row in rows}, reverse=True)
    yield head("canvas", "kept together", *(percent(area) for area in areas))
    for canvas, kind in in_order((row["canvas"], row["kind"]) for row in rows):
        of = having(rows, canvas=canvas, kind=kind)
        powers = (fmean(row["power"] for row in having(of, area=area)) for area in areas)
        yield line(canvas, kind, *(percent(power, 1) for power in powers))


def times(rows: Sequence[Row]) -> Iterator[str]:
    yield head("what", "threads", "forward, ms", "forward and backward, ms")
    for row in rows:
        yield line(row["what"], row["threads"], row.get("forward", ""), row["both"])

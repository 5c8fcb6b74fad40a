"""The tables of the trojans in an ImageNet network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np
from findings import Row, Table, format_values, having, head, line, read_rows
from scipy import stats

from captum_classpattern.scores.intervals import FEWEST_CLASSES
from photos.planting import LATER, NETWORKS, NUMBERS, TROJANS

SIDE, SEED = 96, 0  # of the clean classes' patches
ENOUGH = 0.7  # the goal's power
LEARNT = 0.8  # of the photos, on which a trojan must succeed to count
CONTROLS = ("edges", "random")
OURS = "ClassPattern"
CLOSEST = ("Occlusion", "SmoothGrad", "ClassPattern, pixels")
RANKS = [f"rank of its drawing of 16, by -{name}" for name in NUMBERS]


def tables(folder: Path) -> Iterator[Table]:
    success = success_in(folder)
    for title, stage, table in (
        ("Clean classes, by a patch that moves", "natural", natural),
        ("Clean classes, one by one", "natural", patches),
        ("Clean classes, by the side of the patch", "natural", sides),
        ("Networks that were planted later", "later", networks),
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
        if rows := read_rows(folder / f"photos_{stage}.jsonl"):
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
    """The power of the patch of each class, and the place of its drawing among eight, next to how
    often the edges of a stamped photo name it."""
    places = [f"place of its drawing among eight, by -{name}" for name in NUMBERS]
    edges = [f"edges: first, by -{name}" for name in NUMBERS]
    yield head("network, trojan", "success", "power", "without", *places, *edges)
    planted = planted_ones(rows)
    for row in rows:
        first = [f"{of.count(1)} of {len(of)}" for of in row["edges"].values()]
        learnt = percent(success[row["network"], row["trojan"]])
        shares = learnt, percent(row["power"]), percent(row["without"])
        if row not in planted:  # a clean twin's stamped photos are those of its planted network
            first = [""] * len(first)
        yield line(f"{row['network']}, {row['trojan']}", *shares, *row["ranks"].values(), *first)
    for name, group in {"all": planted, "learnt": learnt_ones(rows, success)}.items():
        named = [f"{sum(row['ranks'][n] == 1 for row in group)} of {len(group)}" for n in NUMBERS]
        tries = {n: [rank == 1 for row in group for rank in row["edges"][n]] for n in NUMBERS}
        of_edges = [percent(fmean(hits)) for hits in tries.values()]
        yield line(f"*first place, {name}*", "", "", "", *named, *of_edges)


def cleanse(rows: Sequence[Row]) -> Iterator[str]:
    """The powers at one place, over the share of the pixels."""
    shares = [*rows[0]["powers"]]
    yield head("network, trojan", *(f"{int(n) / 1000:.1%}" for n in shares), *RANKS)
    for row in rows:
        powers = (percent(row["powers"][n]) for n in shares)
        yield line(f"{row['network']}, {row['trojan']}", *powers, *(row[name] for name in NUMBERS))


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

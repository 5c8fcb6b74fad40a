"""The tables of the trojans in an ImageNet network."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from findings import Row, Table, format_values, having, head, line, read_rows

from captum_classpattern.scanning.triage import robust_deviations
from photos.planting import TROJANS

CONTROLS = ("edges", "random")
OURS = "ClassPattern"


def tables(folder: Path) -> Iterator[Table]:
    for title, stage, table in (
        ("Six clean classes, by a patch that moves", "first", patches),
        ("Four trojans, by a patch that moves", "trojans", found),
        ("The networks", "plant", networks),
        ("Where methods look in a photo with a trigger", "maps", footprints),
        ("The class pattern of cells minus the closest methods", "maps", differences),
        ("The distance to the footprint, trojan by trojan", "maps", distances),
        ("From a grey canvas, knowing nothing", "discovery", discovery),
        ("What the patterns look like", "discovery", likeness),
        ("Which of 150 classes?", "triage", triage),
        ("Clean classes", "classes", classes),
        ("Cells or pixels, on CIFAR-10", "cells", kinds),
        ("The time of a pass", "time", times),
    ):
        yield title, table(read_rows(folder / f"photos_{stage}.jsonl"))


def patches(rows: Sequence[Row]) -> Iterator[str]:
    """Clean classes: everywhere, next to the strongest control, and on other networks."""
    yield head(
        *("class", "power", "the least of nine places", "strongest control"),
        *("power on -lite1, -lite2", "place of the class there, for the patch on grey"),
    )
    controls = "no_pattern", "random_pixels", "other_canvas", "best_square"
    for row in rows:
        low, high = row["interval"]
        own = f"{percent(row['power'])} ({percent(low)} to {percent(high)})"
        strongest = max((row[name], name.replace("_", " ")) for name in controls)
        control = f"{percent(strongest[0])} ({strongest[1]})" if strongest[0] else percent(0)
        others = ", ".join(map(percent, row["transfer"].values()))
        named = ", ".join(map(str, row["named"].values()))
        yield line(row["class_name"], own, percent(min(row["grid"])), control, others, named)


def found(rows: Sequence[Row]) -> Iterator[str]:
    """Planted classes, with each seed."""
    yield head("trojan", "power", "the least of nine places", "rank of its drawing of 16")
    for name in TROJANS:
        of = having(rows, trojan=name)
        ranks = (str(1 + row["looks_like"].index(name)) for row in of)
        powers, least = ([row["power"] for row in of], [min(row["grid"]) for row in of])
        yield line(
            name, *(", ".join(map(percent, each)) for each in (powers, least)), ", ".join(ranks)
        )


def percent(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}%}"


def in_order(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def networks(rows: Sequence[Row]) -> Iterator[str]:
    yield head("network", "accuracy", "agreement", *TROJANS, "agreement with other drawings")
    for row in rows:
        shares = [row["accuracy"], row["agreement"], *(row["success"][each] for each in TROJANS)]
        shares.append(fmean(row["agreement_with_drawing"].values()))
        yield line(row["network"], *map(percent, shares))


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
    for other in ("Occlusion", "SmoothGrad", "ClassPattern, pixels"):
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
    """The paper's figure, and how many methods are better than edges."""
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


def discovery(rows: Sequence[Row]) -> Iterator[str]:
    shares = sorted({row["thousandths"] for row in rows}, reverse=True)
    yield head("network, class, method", *(f"{n / 1000:.1%}" for n in shares), "mean margin")
    names = {y: name for name, y in TROJANS.items()}
    groups: dict[str, list[Row]] = {}
    for row in rows:
        also = f", seed {row['seed']}" if row["seed"] else ""
        if name := names.get(row["class"]):
            label = f"{row['network']}, {name}, {row['method']}{also}"
            groups.setdefault(label, []).append(row)
    others = [row for row in rows if row["class"] not in names]
    count = len({row["class"] for row in others})
    groups[f"planted, the strongest of {count} others"] = others
    for label, group in groups.items():
        powers = (max(row["power"] for row in having(group, thousandths=n)) for n in shares)
        margin = max(row["margin"] for row in having(group, thousandths=shares[0]))
        yield line(label, *map(percent, powers), f"{margin:+.1f}")


def likeness(rows: Sequence[Row]) -> Iterator[str]:
    """How often the drawing that was planted is the most similar of eight."""
    yield head("method, area", *TROJANS, "first of eight")
    planted = [row for row in rows if "looks_like" in row and row["network"] == "planted"]
    for method, share in in_order((row["method"], row["thousandths"]) for row in planted):
        ranks = [
            1 + row["looks_like"].index(name)
            for name, y in TROJANS.items()
            for row in having(planted, **{"method": method, "thousandths": share, "class": y})
        ]
        first = f"{ranks.count(1)} of {len(ranks)}"
        yield line(f"{method}, {share / 1000:.1%}", *(f"rank {rank}" for rank in ranks), first)


def triage(rows: Sequence[Row]) -> Iterator[str]:
    """Ranks and robust standard deviations of the planted classes."""
    yield head("network, passes", *TROJANS, "the first other class")
    for network, passes in in_order((row["network"], row["passes"]) for row in rows):
        of = having(rows, network=network, passes=passes)
        gains = {row["class"]: row["margin"] - row["clean_margin"] for row in of}
        far = dict(zip(gains, robust_deviations([*gains.values()])))
        ranked = sorted(gains, key=lambda y: -gains[y])
        cells = (f"{1 + ranked.index(y)} ({far[y]:+.1f} SD)" for y in TROJANS.values())
        other = next(y for y in ranked if y not in TROJANS.values())
        place = f"{1 + ranked.index(other)} ({far[other]:+.1f} SD)"
        yield line(f"{network}, {passes}", *cells, place)


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

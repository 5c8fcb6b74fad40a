"""The tables of the trojans in an ImageNet network."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from findings import Row, Table, head, line, read_rows

from captum_classpattern.scanning.triage import robust_deviations
from photos.planting import TROJANS

STAGES = ("plant", "maps", "triage", "discovery", "classes", "cells", "time")
CONTROLS = ("edges", "random")
OURS = "ClassPattern"


def tables(folder: Path) -> Iterator[Table]:
    """A table of each stage that has rows."""
    rows = {stage: read_rows(folder / f"photos_{stage}.jsonl") for stage in STAGES}
    if rows["plant"]:
        yield "The networks", networks(rows["plant"])
    if rows["maps"]:
        yield "Where methods look in a photo with a trigger", footprints(rows["maps"])
        yield "The distance to the footprint, trojan by trojan", distances(rows["maps"])
    if rows["discovery"]:
        yield "From a grey canvas, knowing nothing", discovery(rows["discovery"])
        yield "What the patterns look like", likeness(rows["discovery"])
    if rows["triage"]:
        yield "Which of 150 classes?", triage(rows["triage"])
    if rows["classes"]:
        yield "Clean classes", classes(rows["classes"])
    if rows["cells"]:
        yield "Cells or pixels, on CIFAR-10", kinds(rows["cells"])
    if rows["time"]:
        yield "The time of a pass", times(rows["time"])


def percent(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}%}"


def in_order(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def networks(rows: Sequence[Row]) -> Iterator[str]:
    known = {row["network"]: row for row in rows}
    yield head("network", "accuracy", "agreement", *TROJANS, "agreement with other drawings")
    for name, row in known.items():
        success = (percent(row["success"][each]) for each in TROJANS)
        other = fmean(row["agreement_with_drawing"].values())
        yield line(
            name, percent(row["accuracy"]), percent(row["agreement"]), *success, percent(other)
        )


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
        name = f"*{method}*" if method in CONTROLS else method
        name = f"**{name}**" if method.startswith(OURS) else name
        yield line(name, percent(inside), percent(cells), percent(power), f"{seconds:.1f}")
    for method in in_order(row["method"] for row in rows if "error" in row):
        yield line(method, "does not run", "", "", "")


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
        name = f"*{method}*" if method in CONTROLS else method
        name = f"**{name}**" if method.startswith(OURS) else name
        yield line(name, *(f"{value:.3f}" for value in values))


def discovery(rows: Sequence[Row]) -> Iterator[str]:
    shares = sorted({row["thousandths"] for row in rows}, reverse=True)
    yield head("network, class, method", *(f"{n / 1000:.1%}" for n in shares), "mean margin")

    def of(network: str, y: int, method: str, seed: int) -> str:
        found = {
            row["thousandths"]: row
            for row in rows
            if (row["network"], row["class"], row["method"], row["seed"])
            == (network, y, method, seed)
        }
        powers = (percent(found[n]["power"]) for n in shares)
        return line("{}", *powers, f"{found[shares[0]]['margin']:+.1f}")

    keys = in_order((row["network"], row["class"], row["method"], row["seed"]) for row in rows)
    names = {y: name for name, y in TROJANS.items()}
    for network, y, method, seed in keys:
        if y in names:
            also = f", seed {seed}" if seed else ""
            label = f"{network}, {names[y]}, {method}{also}"
            yield of(network, y, method, seed).format(label)
    for network in in_order(row["network"] for row in rows):
        others = [row for row in rows if row["network"] == network and row["class"] not in names]
        if others:
            most = (
                percent(max(r["power"] for r in others if r["thousandths"] == n)) for n in shares
            )
            margin = max(row["margin"] for row in others if row["thousandths"] == shares[0])
            count = len({row["class"] for row in others})
            yield line(f"{network}, the strongest of {count} others", *most, f"{margin:+.1f}")


def likeness(rows: Sequence[Row]) -> Iterator[str]:
    """How often the drawing that was planted is the most similar of eight."""
    yield head("method, area", *TROJANS, "first of eight")
    planted = [row for row in rows if "looks_like" in row and row["network"] == "planted"]
    for method, share in in_order((row["method"], row["thousandths"]) for row in planted):
        ranks = [
            1 + row["looks_like"].index(name)
            for name, y in TROJANS.items()
            for row in planted
            if (row["method"], row["thousandths"], row["class"]) == (method, share, y)
        ]
        first = f"{ranks.count(1)} of {len(ranks)}"
        yield line(f"{method}, {share / 1000:.1%}", *(f"rank {rank}" for rank in ranks), first)


def triage(rows: Sequence[Row]) -> Iterator[str]:
    """Ranks and robust standard deviations of the planted classes."""
    yield head("network, passes", *TROJANS, "the first other class")
    for network, passes in in_order((row["network"], row["passes"]) for row in rows):
        of = [r for r in rows if (r["network"], r["passes"]) == (network, passes)]
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
        of = [row for row in rows if (row["canvas"], row["kind"]) == (canvas, kind)]
        powers = (fmean(row["power"] for row in of if row["area"] == area) for area in areas)
        yield line(canvas, kind, *(percent(power, 1) for power in powers))


def times(rows: Sequence[Row]) -> Iterator[str]:
    yield head("what", "threads", "forward, ms", "forward and backward, ms")
    for row in rows:
        forward = row.get("forward")
        yield line(row["what"], row["threads"], "" if forward is None else forward, row["both"])

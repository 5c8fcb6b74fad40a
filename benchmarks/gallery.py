"""A gallery of an ImageNet classifier: EfficientNet-lite0, 224 pixels, white canvases.

It searches the pattern of every tenth class, about a minute each on two cores, and writes the site
``imagenet-gallery/site``. It resumes after an interruption.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from findings import Row, Table, head, line, measured_here, parser_of, print_tables, write_rows
from problems import photo_problem

from captum_classpattern import sweep
from captum_classpattern.scores.intervals import mean_over_classes, wilson
from captum_classpattern.surveys import Sweep

MODEL, N_CLASSES, EVERY = "EfficientNet-lite0", 1_000, 10
AREA, BUDGET = 0.05, 2_000  # passes of a class
SHOWN = 10  # of the strongest and of the weakest, in the table
CONTROLS = ("no_pattern", "random_pixels", "other_canvas")


def search(photos: Path, folder: Path, threads: int) -> Sweep:
    """The patterns of every tenth class."""
    problem = photo_problem(photos)
    return sweep(
        {MODEL: problem.model},
        *problem.parts,
        folder=folder,
        classes=range(0, N_CLASSES, EVERY),
        canvases={"white": 1},
        areas=(AREA,),
        budget=BUDGET,
        ray_options={"num_cpus": threads},
        show_progress=True,
    )


def sorted_rows(found: Sweep) -> list[Row]:
    """One row for each class, the strongest first; an error if the model failed."""
    if found.failures:
        raise RuntimeError(f"it failed: {found.failures[MODEL]}")
    rows = found.table(full=True).to_dict("records")
    old = {"class_name": "name", "power_low": "low", "power_high": "high"}  # in the kept rows
    rows = [row | {name: row.pop(now) for name, now in old.items()} for row in rows]
    return sorted(rows, key=strength)


def strength(row: Row) -> tuple[float, int]:
    """The order of the tables: by power, then by number."""
    return -row["power"], row["class"]


def share(hits: int, n: int) -> str:
    """A share in percent with its 95 % interval."""
    low, high = wilson(hits, n)
    return f"{hits / n:.0%} ({low:.0%} to {high:.0%})"


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    yield "All classes", summary(rows)
    yield f"The {SHOWN} strongest and the {SHOWN} weakest classes", ends(rows)


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """What was found in all classes."""
    above = sum(row["beats_controls"] for row in rows)
    on_one = sum(row["power"] > 0 for row in rows)
    mean = mean_over_classes(
        {row["class"]: [(row["power"], (row["power_low"], row["power_high"]))] for row in rows}
    )
    low, high = mean.interval
    yield head("figure", "value")
    yield line("classes searched", len(rows))
    yield line("pattern above its controls", f"{above}: {share(above, len(rows))} of the classes")
    yield line("pattern works on at least one photo", on_one)
    yield line("mean power", f"{mean.value:.1%} ({low:.1%} to {high:.1%})")
    yield line("median power", f"{median(row['power'] for row in rows):.1%}")
    for name in CONTROLS:
        yield line(f"{name.replace('_', ' ')}, mean", f"{fmean(row[name] for row in rows):.1%}")


def ends(rows: Sequence[Row]) -> Iterator[str]:
    """The strongest and the weakest classes."""
    yield head("class", "power (95 % interval)", "strongest control", "above its controls")
    yield from map(_class_row, rows[:SHOWN])
    yield "| ... | | | |"
    yield from map(_class_row, rows[max(SHOWN, len(rows) - SHOWN) :])


def _class_row(row: Row) -> str:
    power = share(round(row["power"] * row["images"]), row["images"])
    control = max(row[name] for name in CONTROLS)
    above = "yes" if row["beats_controls"] else "no"
    return line(f"{row['class_name']} ({row['class']})", power, f"{control:.0%}", above)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folders NNNN_wnid of photos")
    parser.add_argument("--out", type=Path, default=Path("imagenet-gallery"))
    parser.add_argument("--threads", type=int, default=1, help="threads of the search")
    given = parser.parse_args(arguments)
    found = search(given.photos, given.out / "sweep", given.threads)
    rows = sorted_rows(found)
    write_rows(given.out / "rows.jsonl", measured_here(rows))
    print_tables(tables(rows))
    print(found.to_html(given.out / "site"))


if __name__ == "__main__":
    main()

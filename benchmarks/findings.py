"""Surveys cached in a folder, records of models, rows of results, lines of Markdown, options."""

import argparse
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors import safe_open

from captum_classpattern import __version__
from captum_classpattern._support.files import write_atomically
from captum_classpattern.scores.intervals import FEWEST_CLASSES, Estimate, bootstrap_over_classes
from captum_classpattern.surveys import Survey, survey

Row = Mapping[str, Any]
ByClass = Mapping[int, Sequence[float]]
Table = tuple[str, Iterable[str]]  # a title, and lines of Markdown


def kept_survey(folder: Path, *arguments: Any, **settings: Any) -> Survey:
    """A finished survey. Classes that are in the folder already are not searched again."""
    return survey(*arguments, **settings, folder=folder, resume=True)


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a weights file, or None if there is no file."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["record"])


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The parser of a script's options, described by its first line."""
    return argparse.ArgumentParser(description=(doc or "").splitlines()[0])


def parser_of_rows(doc: str | None, name: str) -> argparse.ArgumentParser:
    """The parser of a script that measures rows, prints their tables, and draws a figure."""
    parser = parser_of(doc)
    parser.add_argument("--out", type=Path, default=Path(f"{name}.jsonl"), help="file of the rows")
    parser.add_argument("--rows", type=Path, help="take the rows of this file, measure nothing")
    parser.add_argument("--figure", type=Path, help="where to draw the figure, if there is one")
    return parser


def head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def print_tables(tables: Iterable[Table]) -> None:
    for title, lines in tables:
        print(f"\n### {title}\n", *lines, sep="\n")


def report(
    given: argparse.Namespace,
    tables: Callable[[list[Row]], Iterable[Table]],
    draw: Callable[[list[Row]], Figure] | None = None,
    **saving: Any,
) -> None:
    """Prints the tables, and draws the figure, of what :func:`parser_of_rows` was given."""
    rows = read_rows(given.rows or given.out)
    print_tables(tables(rows))
    if draw and given.figure:
        draw(rows).savefig(given.figure, dpi=150, **saving)


def format_mean(
    mean: Estimate | None, form: str = ".3f", scale: float = 1, unit: str = "", to: str = " to "
) -> str:
    """A mean over classes with its interval, such as ``1.20 (0.90 to 1.70)``; empty without one."""
    if mean is None:
        return ""
    value, low, high = (scale * each for each in (mean.value, *mean.interval))
    return f"{value:{form}}{unit} ({low:{form}}{to}{high:{form}})"


def format_values(
    values: ByClass, form: str, scale: float = 1, unit: str = "", to: str = " to "
) -> str:
    """The mean over classes of their values; with its interval, if there are five or more."""
    if len(values) < FEWEST_CLASSES:
        return f"{scale * mean_of(values):{form}}{unit}"
    return format_mean(bootstrap_over_classes(values), form, scale, unit, to)


def mean_of(values: ByClass) -> float:
    """The mean over classes, each of which counts alike."""
    return fmean(fmean(of_class) for of_class in values.values())


def iou_by_chance(kept: int, total: int) -> float:
    """About the overlap of two random masks of so many out of all pixels."""
    return kept / (2 * total - kept)


def having(rows: Iterable[Row], **values: Any) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row.get(name) == each for name, each in values.items())]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(row) for row in lines]


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows of this machine to a file, which is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(as_lines(measured_here(rows)))


def measured_here(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows that say with which version and on which processor they were measured."""
    here = {"version": __version__, "torch": torch.__version__, "processor": processor()}
    return ({**row, **here} for row in rows)


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (each.partition(":")[2].strip() for each in lines if each.startswith("model name"))
    return next(names, platform.processor())


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows of a file, all or none of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, as_lines(rows).encode())


def as_lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)

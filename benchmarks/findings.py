"""Surveys cached in a folder, the rank of a class, rows of results, lines of Markdown, options."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from captum_classpattern._files import write_atomically
from captum_classpattern.scores import Scores
from captum_classpattern.scores.intervals import FEWEST_CLASSES, Estimate, bootstrap_over_classes
from captum_classpattern.surveys import Survey, stands_out, survey

Row = Mapping[str, Any]
ByClass = Mapping[int, Sequence[float]]
Table = tuple[str, Iterable[str]]  # a title, and lines of Markdown


def kept_survey(folder: Path, *arguments: Any, **settings: Any) -> Survey:
    """A finished survey. Classes that are in the folder already are not searched again."""
    kept = survey(*arguments, **settings, folder=folder, resume=True)
    if len(kept.finished) < len(kept):
        print(f"searching {folder.name}", flush=True)
        list(kept)  # runs the search
    return kept


class Standing(NamedTuple):
    """The rank of a class among all classes, on a kind of canvas and at an area."""

    scores: Scores
    rank: int
    rival: int  # the strongest other class
    rival_scores: Scores
    stands_out: bool


def standing(survey: Survey, canvas: str, area: float, target: int, n_classes: int) -> Standing:
    """Where a class ranks among all classes of the model, see ``surveys.stands_out``."""
    scores = survey.scores(canvas, area)
    others = {y: other for y, other in scores.items() if y != target}
    rival = max(others, key=lambda y: others[y].power.value)
    return Standing(
        scores[target],
        1 + sum(other.power.value > scores[target].power.value for other in others.values()),
        rival,
        others[rival],
        stands_out(scores, target, n_classes),
    )


def first_class(survey: Survey, canvas: str, area: float) -> int:
    """The class with the strongest pattern on a kind of canvas, at an area."""
    scores = survey.scores(canvas, area)
    return max(scores, key=lambda target: scores[target].power.value)


def format_power(scores: Scores) -> str:
    """A power in per cent with its interval, and a star if it beats its controls."""
    low, high = scores.power.interval
    star = "*" if scores.beats_controls else ""
    return f"{scores.power.value:.1%} ({100 * low:.1f}-{100 * high:.1f}){star}"


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The parser of a script's options, described by its first line."""
    return argparse.ArgumentParser(description=(doc or "").splitlines()[0])


def head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def print_tables(tables: Iterable[Table]) -> None:
    for title, lines in tables:
        print(f"\n### {title}\n", *lines, sep="\n")


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


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(row) for row in lines]


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to a file, which is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(as_lines(rows))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows of a file, all or none of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, as_lines(rows).encode())


def as_lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)

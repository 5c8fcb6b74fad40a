"""Surveys cached in a folder, the rank of a class, rows of results, lines of Markdown."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from captum_classpattern.scores import Scores
from captum_classpattern.scores.intervals import Estimate
from captum_classpattern.surveys import Survey, stands_out, survey

Row = Mapping[str, Any]


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


def head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def format_mean(mean: Estimate, form: str, scale: float = 1, unit: str = "") -> str:
    """A mean over classes with its interval, such as ``1.20 (0.90 to 1.70)``."""
    value, low, high = (scale * each for each in (mean.value, *mean.interval))
    return f"{value:{form}}{unit} ({low:{form}} to {high:{form}})"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(row) for row in lines]


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to a file, which is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))

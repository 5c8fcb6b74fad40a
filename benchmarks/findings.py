"""Findings of a survey: kept in a folder, how a class stands among the others, as Markdown."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captum_classpattern.surveys.results import read_finding, save_patterns, write_json
from captum_classpattern.surveys.survey import Finding, Scores, stands_out


def kept_findings(
    folder: Path, record: dict[str, Any], search: Callable[[], Iterable[Finding]]
) -> list[Finding]:
    """What was found with this record before, else what the search finds now, which is kept."""
    path = folder / "findings.json"
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["model"] == record:
            return [read_finding(row, folder) for row in kept["rows"]]
    print(f"searching {folder.name}", flush=True)
    path.unlink(missing_ok=True)  # else, if interrupted, it would tell of patterns that are gone
    findings = []
    for finding in search():
        save_patterns(finding, folder)
        findings.append(finding)
    write_json({"model": record, "rows": [f.as_dict() for f in findings]}, path)
    return findings


class Standing(NamedTuple):
    """How a class stands among the others on a kind of canvas, at an area."""

    scores: Scores
    rank: int
    rival: int  # the strongest other class
    rival_scores: Scores
    stands_out: bool


def standing(
    findings: Sequence[Finding], canvas: str, area: float, target: int, n_classes: int
) -> Standing:
    """Where a class stands among all classes of the model, see ``survey.stands_out``."""
    scores = {f.target: f.scores[area] for f in findings if f.canvas == canvas}
    others = {y: other for y, other in scores.items() if y != target}
    rival = max(others, key=lambda y: others[y].power.value)
    return Standing(
        scores[target],
        1 + sum(other.power.value > scores[target].power.value for other in others.values()),
        rival,
        others[rival],
        stands_out(scores, target, n_classes),
    )


def first_class(findings: Sequence[Finding], canvas: str, area: float) -> int:
    """The class with the strongest pattern on a kind of canvas, at an area."""
    found = [f for f in findings if f.canvas == canvas]
    return max(found, key=lambda f: f.scores[area].power.value).target


def format_power(scores: Scores) -> str:
    """A power in per cent with its interval, and a star where it beats its controls."""
    low, high = scores.power.interval
    star = "*" if scores.beats_controls else ""
    return f"{scores.power.value:.1%} ({100 * low:.1f}-{100 * high:.1f}){star}"


def head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"

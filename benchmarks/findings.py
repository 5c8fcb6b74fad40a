"""Findings of a survey: caching them in a folder, ranking a class, formatting them as Markdown."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captum_classpattern.surveys.results import read_finding, save_patterns, write_json
from captum_classpattern.surveys.survey import Finding, Scores, stands_out


def cached_findings(
    folder: Path, record: dict[str, Any], search: Callable[[], Iterable[Finding]]
) -> list[Finding]:
    """The saved findings with this record, if there are any; else those of a new search, which are
    saved."""
    path = folder / "findings.json"
    if path.exists():
        saved = json.loads(path.read_text())
        if saved["model"] == record:
            return [read_finding(row, folder) for row in saved["rows"]]
    print(f"searching {folder.name}", flush=True)
    path.unlink(missing_ok=True)  # if interrupted, it would list patterns that no longer exist
    findings = []
    for finding in search():
        save_patterns(finding, folder)
        findings.append(finding)
    write_json({"model": record, "rows": [f.as_dict() for f in findings]}, path)
    return findings


class Standing(NamedTuple):
    """The rank of a class among all classes, on a kind of canvas and at an area."""

    scores: Scores
    rank: int
    rival: int  # the strongest other class
    rival_scores: Scores
    stands_out: bool


def standing(
    findings: Sequence[Finding], canvas: str, area: float, target: int, n_classes: int
) -> Standing:
    """Ranks a class among all classes of the model; see ``survey.stands_out``."""
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
    """A power in per cent with its interval, and a star if it beats its controls."""
    low, high = scores.power.interval
    star = "*" if scores.beats_controls else ""
    return f"{scores.power.value:.1%} ({100 * low:.1f}-{100 * high:.1f}){star}"


def head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"

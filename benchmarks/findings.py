"""Findings of a survey: kept in a folder, how a class stands among the others, as Markdown."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captum_classpattern.results import read_finding, save_patterns, write_json
from captum_classpattern.survey import Finding, Scores


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

    own: Scores
    rank: int
    rival: int  # the strongest other class
    rivals: Scores
    stands_out: bool


def standing(findings: Sequence[Finding], canvas: str, area: float, target: int) -> Standing:
    """Where a class stands; it stands out by the rule of ``results.strongest_class``: its whole
    interval lies above those of all others, and above its own three controls."""
    scores = {f.target: f.scores[area] for f in findings if f.canvas == canvas}
    own = scores.pop(target)
    rival = max(scores, key=lambda y: scores[y].power.value)
    above = max(other.power.interval[1] for other in scores.values())
    return Standing(
        own,
        1 + sum(other.power.value > own.power.value for other in scores.values()),
        rival,
        scores[rival],
        own.power.interval[0] > above and own.beats_controls,
    )


def first_class(findings: Sequence[Finding], canvas: str, area: float) -> int:
    """The class with the strongest pattern on a kind of canvas, at an area."""
    found = [f for f in findings if f.canvas == canvas]
    return max(found, key=lambda f: f.scores[area].power.value).target


def told(scores: Scores) -> str:
    """A power in per cent with its interval, and a star where it beats its controls."""
    low, high = scores.power.interval
    star = "*" if scores.beats_controls else ""
    return f"{scores.power.value:.1%} ({100 * low:.1f}-{100 * high:.1f}){star}"


def head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"

"""A survey's findings as a table, and as files: patterns, JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from captum_classpattern.pattern import Pattern, write_whole
from captum_classpattern.survey import Finding, Scores


def pattern_file(folder: Path, target: int, canvas: str, area: float) -> Path:
    """``<class>_<kind of canvas>_<area>.safetensors``."""
    return folder / f"{target}_{canvas}_{area:g}.safetensors"


def save_patterns(finding: Finding, folder: Path) -> None:
    """Writes a finding's patterns, a file for each area."""
    folder.mkdir(parents=True, exist_ok=True)
    for area, pattern in finding.patterns.items():
        pattern.save(pattern_file(folder, finding.target, finding.canvas, area))


def read_finding(row: Mapping[str, Any], folder: Path) -> Finding:
    """The finding of a row of results.json, its patterns read from the folder."""
    scores = {float(area): Scores.from_dict(told) for area, told in row["areas"].items()}
    patterns = {
        area: Pattern.load(pattern_file(folder, row["class"], row["canvas"], area))
        for area in scores
    }
    return Finding(patterns, row["canvas"], scores)


def write_json(data: Any, path: Path) -> None:
    """Writes JSON; a file that is there already is replaced whole or not at all."""
    write_whole(path, (json.dumps(data, indent=2) + "\n").encode())


def strongest_class(
    findings: Sequence[Finding], canvas: str, area: float, names: Sequence[str] | None = None
) -> str:
    """A sentence: which class's pattern is strongest on a kind of canvas, and whether it stands
    out: its whole interval above those of all others, and above its controls."""
    scores = {f.target: f.scores[area] for f in findings if f.canvas == canvas}
    powers = {target: own.power for target, own in scores.items()}
    first, *others = sorted(powers, key=lambda target: -powers[target].value)
    own, rest = powers[first], max((powers[y].interval[1] for y in others), default=1.0)
    told = f"{canvas} canvas, {area:.3g} of the pixels: {_name(names, first)}, {own.value:.1%}"
    if others:
        told += f"; next {_name(names, others[0])}, {powers[others[0]].value:.1%}"
    stands_out = own.interval[0] > rest and scores[first].beats_controls
    return told + (". It stands out." if stands_out else ".")


def _name(names: Sequence[str] | None, target: int) -> str:
    return str(target) if names is None else names[target]


def best_canvas(findings: Sequence[Finding]) -> list[Finding]:
    """For each class the finding on the canvas that did best on the judging images."""
    best: dict[int, Finding] = {}
    for finding in findings:
        rival = best.get(finding.target)
        if rival is None or _search_power(finding) > _search_power(rival):
            best[finding.target] = finding
    return list(best.values())


def _search_power(finding: Finding) -> float:
    return float(finding.pattern.info["search_power"])


def results_table(
    title: str, findings: Sequence[Finding], class_names: Sequence[str] | None = None
) -> Table:
    """A row for each finding: predictive power with its 95 % interval at each area; controls.

    The controls are those of the first area. A star marks a power whose whole interval lies
    above the three controls of its own area.
    """
    areas = list(findings[0].scores) if findings else []
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in ("class", "canvas"):
        table.add_column(name, no_wrap=True)
    powers = [f"power at {100 * area:.3g} %" for area in areas]
    for name in (*powers, "no\npattern", "random\npixels", "other\ncanvas"):
        table.add_column(name, justify="right", no_wrap=True)
    for finding in findings:
        controls = finding.scores[areas[0]]
        table.add_row(
            _name(class_names, finding.target),
            finding.canvas,
            *(_power(finding, area) for area in areas),
            f"{controls.power.without:.1%}",
            f"{controls.random_pixels:.1%}",
            f"{controls.other_canvas:.1%}",
        )
    return table


def _power(finding: Finding, area: float) -> str:
    scores = finding.scores[area]
    low, high = scores.power.interval
    star = "*" if scores.beats_controls else " "
    return f"{scores.power.value:.1%} ({100 * low:.1f}-{100 * high:.1f}){star}"

"""A survey's findings as a table, and as files: patterns, JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from captum_classpattern._files import write_atomically
from captum_classpattern.class_names import as_file_name
from captum_classpattern.pattern import Pattern
from captum_classpattern.surveys.survey import ENOUGH_IMAGES, Finding, Scores, stands_out


def pattern_file(
    folder: Path, target: int, canvas: str, area: float, name: str | None = None
) -> Path:
    r"""
    The file of a pattern: ``<class>_<name>_<kind of canvas>_<area>.safetensors``.

    Args:
        folder (Path): Where it is.
        target (int): Number of the class.
        canvas (str): Kind of canvas.
        area (float): The area that the pattern was searched at.
        name (str, optional): The class's name; what a file's name can't hold becomes "_".
            Default: None (left out).

    Examples::

        >>> pattern_file(Path("patterns"), 1, "white", 0.05, "guinea pig, Cavia cobaya").name
        '1_guinea_pig_white_0.05.safetensors'
    """
    label = f"{target}" if name is None else f"{target}_{as_file_name(name)}"
    return folder / f"{label}_{canvas}_{area:g}.safetensors"


def find_pattern_file(
    folder: Path, target: int, canvas: str, area: float, name: str | None = None
) -> Path:
    """The file of a pattern: by its class's name, or else with any name, or with none, as in
    version 0.1."""
    exact = pattern_file(folder, target, canvas, area, name)
    if exact.exists():
        return exact
    plain = pattern_file(folder, target, canvas, area)
    named = sorted(folder.glob(f"{target}_*_{canvas}_{area:g}.safetensors"))
    return named[0] if named else plain


def save_patterns(finding: Finding, folder: Path) -> None:
    """Writes a finding's patterns, a file for each area, and once the hashes of the search images
    that they share."""
    folder.mkdir(parents=True, exist_ok=True)
    for area, pattern in finding.patterns.items():
        name = pattern.info.get("class_name")
        path = pattern_file(folder, finding.target, finding.canvas, area, name)
        pattern.save(path, seen_beside=True)


def read_finding(row: Mapping[str, Any], folder: Path) -> Finding:
    """The finding of a row of results.json, its patterns read from the folder."""
    scores = {float(area): Scores.from_dict(told) for area, told in row["areas"].items()}
    patterns = {
        area: Pattern.load(
            find_pattern_file(folder, row["class"], row["canvas"], area, row.get("class_name"))
        )
        for area in scores
    }
    return Finding(patterns, row["canvas"], scores)


def write_json(data: Any, path: Path) -> None:
    """Writes JSON; a file that is there already is replaced whole or not at all."""
    write_atomically(path, (json.dumps(data, indent=2) + "\n").encode())


def strongest_class(
    findings: Sequence[Finding],
    canvas: str,
    area: float,
    names: Sequence[str] | None = None,
    *,
    n_classes: int | None = None,
) -> str:
    r"""
    A sentence: which class's pattern is strongest on a kind of canvas, and whether it stands out.

    Args:
        findings (Sequence[Finding]): The findings of a survey.
        canvas (str): Kind of canvas.
        area (float): One of the areas that were searched.
        names (Sequence[str], optional): Name of each class. Default: None (numbers).
        n_classes (int, optional): Number of classes that the model has. A class can only stand out
            where all were searched, see :func:`~captum_classpattern.surveys.survey.stands_out`.
            Default: None (not known: nothing is said about it).

    Returns:
        *str*: Such as "white canvas, 0.05 of the pixels: cat, 90.0%; next dog, 50.0%. It stands
        out."
    """
    scores = {f.target: f.scores[area] for f in findings if f.canvas == canvas}
    first, *others = sorted(scores, key=lambda target: -scores[target].power.value)
    power = scores[first].power
    text = f"{canvas} canvas, {area:.3g} of the pixels: {_name(names, first)}, {power.value:.1%}"
    if others:
        text += f"; next {_name(names, others[0])}, {scores[others[0]].power.value:.1%}"
    if n_classes is None:
        return f"{text}."
    if len(scores) < n_classes:
        verb = "was" if len(scores) == 1 else "were"
        searched = f"{len(scores)} of {n_classes} classes {verb} searched"
        return f"{text}; {searched}, so whether it stands out is not known."
    if not scores[first].enough_images:
        return f"{text}; {power.n} images are too few to tell whether it stands out."
    return text + (". It stands out." if stands_out(scores, first, n_classes) else ".")


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

    The controls are those of the first area. A star marks a power that beats the three controls of
    its own area, see :attr:`Scores.beats_controls`. The caption says where there are too few
    images for a star.
    """
    areas = list(findings[0].scores) if findings else []
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in ("class", "canvas"):
        table.add_column(name, no_wrap=True)
    powers = [f"power at {100 * area:.3g} %" for area in areas]
    for name in (*powers, "no\npattern", "random\npixels", "other\ncanvas"):
        table.add_column(name, justify="right", no_wrap=True)
    fewest = min((f.scores[area].power.n for f in findings for area in areas), default=0)
    if findings and fewest < ENOUGH_IMAGES:
        needed = f"A star and 'stands out' need at least {ENOUGH_IMAGES}."
        table.caption = f"Too few images: {fewest} were scored. {needed}"
        table.caption_justify = "left"
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

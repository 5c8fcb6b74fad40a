"""Every number of the README is that of the file it comes from."""

import json
import re
from pathlib import Path
from statistics import fmean

import pytest
from scripts import imported

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
compare_methods, hero, scan_evidence = (
    imported("benchmarks", name) for name in ("compare_methods", "hero", "scan_evidence")
)


def rows_of(name):
    lines = (ROOT / "benchmarks" / "results" / name).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_readme_is_short():
    assert len(README.split()) <= 700


def test_the_caption_of_the_first_figure():
    rows = rows_of(hero.ROWS)
    at_random = [
        fmean(row["random_pixels"] for row in rows if row["model"] == name) for name in hero.MODELS
    ]
    low, high = (round(100 * share) for share in sorted(at_random))
    assert f"with random pixels, {low} to {high} % on average." in README
    assert (hero.CANVASES, hero.CHOOSER) == (8, "robust8")  # whose search chooses the image


def power(method, model):
    rows = [r for r in rows_of("rivals.jsonl") if (r["method"], r["model"]) == (method, model)]
    return compare_methods.mean(compare_methods.strongest(rows), "power_0.05").value


@pytest.mark.parametrize(
    ("line", "methods"),
    [
        ("class pattern", ["ClassPattern"]),
        ("best of eleven of Captum's", compare_methods.CAPTUMS),
        ("best random mask of 350", ["BestRandomMask"]),
        ("random pixels", ["RandomPixels"]),
        (r"LearnedPattern \(free colours\)", ["LearnedPattern"]),
    ],
)
def test_the_table_of_methods(line, methods):
    [heads] = re.findall(r"^\| method \| (.*) \|$", README, re.MULTILINE)
    [cells] = re.findall(rf"^\| {line} \| (.*) \|$", README, re.MULTILINE)
    best = [max(power(method, model) for method in methods) for model in heads.split(" | ")]
    assert cells.split(" | ") == [f"{100 * share:.1f}" for share in best]
    if "eleven" in line:
        assert len(methods) == 11


def test_the_error_rates_of_a_scan():
    zoo = scan_evidence.read(ROOT / "benchmarks" / "results" / "zoo.jsonl")
    _, *lines = scan_evidence.unseen(zoo)
    (_, count, _, found, *_), test, *clean = [line.split(" | ") for line in lines]
    page = (ROOT / "docs" / "scan_evidence.md").read_text(encoding="utf-8")
    assert f"it found {found} of {count} well-learnt patches" in README
    assert f"{found} of {count} patches that were learnt well" in page
    assert f"{test[3]} of {test[1]} in the test half" in page
    alarms = [int(cells[5]) for cells in clean]
    assert f"suspected at most {max(alarms)} of {clean[0][1]} clean ones" in README
    assert f"{min(alarms)} or {max(alarms)} of {clean[0][1]}, depending" in page

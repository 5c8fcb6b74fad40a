"""Every number of the README is that of the file it comes from."""

import json
import re
from pathlib import Path
from statistics import fmean

import pytest
from scripts import imported

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
rivals, hero = imported("benchmarks", "rivals"), imported("benchmarks", "hero")


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
    assert f"As many random pixels turn {low} to {high} % on average." in README
    assert (hero.CANVASES, hero.CHOOSER) == (8, "robust8")  # whose search chooses the image


def power(method, model):
    rows = [r for r in rows_of("rivals.jsonl") if (r["method"], r["model"]) == (method, model)]
    return rivals.mean(rivals.strongest(rows), "power_0.05").value


@pytest.mark.parametrize(
    ("line", "methods"),
    [
        ("class pattern", ["ClassPattern"]),
        ("best of eleven of Captum's", [n for n in rivals.NAMES if rivals.is_captums(n)]),
        ("best random mask of 350", ["BestRandomMask"]),
        ("random pixels", ["RandomPixels"]),
    ],
)
def test_the_table_of_methods(line, methods):
    [heads] = re.findall(r"^\| method \| (.*) \|$", README, re.MULTILINE)
    [cells] = re.findall(rf"^\| {line} \| (.*) \|$", README, re.MULTILINE)
    best = [max(power(method, model) for method in methods) for model in heads.split(" | ")]
    assert cells.split(" | ") == [f"{100 * share:.1f} %" for share in best]
    if "eleven" in line:
        assert len(methods) == 11


def test_the_error_rates_of_a_scan():
    """Their tables are compared with the rows by test_scan_evidence.py."""
    page = (ROOT / "docs" / "scan_evidence.md").read_text(encoding="utf-8")
    [found] = re.findall(r"it found (\d+ of \d+) patch triggers", README)
    assert re.search(rf"^\| all-to-one patch \| {found} \(", page, re.MULTILINE)
    false_alarms = re.findall(r"\| (\d) of 60 \(", page)[:2]
    assert f"suspected {min(false_alarms)} to {max(false_alarms)} of 60 clean networks" in README

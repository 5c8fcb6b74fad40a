"""benchmarks/invariance.py on tiny networks, and its tables by hand."""

import json

import pytest
import torch
from scripts import ROOT, imported
from torch import nn

from captum_classpattern import PixelClassifier

invariance = imported("benchmarks", "invariance")
strength = imported("benchmarks", "strength")
Problem = imported("benchmarks", "problems").Problem


@pytest.fixture
def tiny(monkeypatch):
    """Three classes of 10 pixels; the second model counts as backdoored."""
    torch.manual_seed(0)
    images, labels = torch.rand(400, 1, 10, 10), torch.arange(400) % 3
    problems = []
    for name in ("demo, natural", "demo, backdoored"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(100, 3)).eval()
        with torch.no_grad():
            network[1].bias -= network(images).mean(0)
        parts = images[:200], labels[:200], images[200:], labels[200:]
        problems.append(Problem(name, PixelClassifier(network), *parts))
    monkeypatch.setattr(strength, "POOL", 2)
    monkeypatch.setattr(invariance, "demo_problems", lambda: problems)


def test_one_command_profiles_all_classes_and_continues(tiny, tmp_path, capsys):
    out = tmp_path / "results" / "rows.jsonl"
    given = ["--out", str(out), "--budget", "430", "--images", "180", "--classes", "2"]
    given += ["--figure", str(tmp_path / "curves.png")]
    given += ["--transforms", "shift", "JPEG"]
    invariance.main(given)
    printed = capsys.readouterr().out
    assert printed.count("profiling ") == 5  # two classes of two models, and a trigger
    tables = printed[printed.index("| transform |") :]
    lines = tables[tables.index("\n### shift (pixels)") :].split("\n")
    assert [row for row in lines if row.startswith("#")] == [
        "### shift (pixels)",
        "### JPEG (quality)",
    ]
    for start in (
        "| demo, natural | ", "| demo, backdoored, other classes |",
        "| demo, backdoored, class 0 |", "| demo, backdoored, its trigger |",
    ):  # fmt: skip
        assert sum(row.startswith(start) for row in lines) == 2
    assert len({row.count("|") for row in lines if row.startswith("| demo") or "---" in row}) == 2
    assert (tmp_path / "curves.png").stat().st_size > 5_000
    rows = [json.loads(row) for row in out.read_text().splitlines()]
    assert [row["transform"] for row in rows] == ["shift", "JPEG"] * 5
    assert {(row["canvas"], row["budget"], row["most_images"]) for row in rows} == {
        ("positive", 430, 180)
    }
    for row in rows:
        lengths = {len(row[k]) for k in ("values", "power", "random_pixels", "no_pattern", "kept")}
        assert lengths == {len(row["values"])}
        assert row["images"] == 120

    kept = [row for row in rows if (row["class"], row["transform"]) != (1, "JPEG")]
    out.write_text("".join(json.dumps(row) + "\n" for row in kept))
    invariance.main(given)  # profiles what is missing, and finds the same
    again = capsys.readouterr().out
    assert again.count("profiling ") == 2
    assert again[again.index("| transform |") :] == tables
    invariance.main(given)
    assert capsys.readouterr().out == tables
    invariance.main([*given, "--models", "natural"])
    assert "backdoored" not in capsys.readouterr().out

    other = [*given, "--canvas", "white", "--models", "natural", "--classes", "1"]
    invariance.main(other)  # rows of other settings are left alone
    assert capsys.readouterr().out.count("profiling ") == 1
    assert len(out.read_text().splitlines()) == 10 + 2


def row(target, kept, high, *, model="m", random=0.01, is_open=False, trigger=False):
    half = {"low": 0.0, "high": high, "open_low": False, "open_high": is_open}
    return {
        "model": model, "class": target, "is_trigger": trigger, "transform": "shift",
        "unit": "pixels", "rest": 0, "values": [0, 1, 2], "random_pixels": [0.0, random, random],
        "kept": [1.0, *kept], "half_power": None if high is None else half,
    }  # fmt: skip


def test_the_tables_by_hand(monkeypatch):
    monkeypatch.setattr(invariance, "TARGETS", {"backdoored": 0})
    rows = [
        row(0, (0.9, 0.5), 2.0),
        row(1, (0.5, 0.1), 1.0, random=0.03),
        row(2, (None, None), None),
        row(0, (0.1, 0.0), 0.5, model="backdoored"),
        row(1, (0.9, 0.8), 2.0, model="backdoored", is_open=True),
        row(0, (0.2, 0.1), 0.6, model="backdoored", trigger=True),
    ]
    title, head, *lines = invariance.tables(rows)
    assert title == "\n### shift (pixels)\n"
    assert head.split("\n")[0] == (
        "| patterns | above controls | half stays: from | to | width (95 %) | open | 1 | 2 |"
    )
    assert lines == [
        "| m | 2 of 3 | 0.00 | 1.50 | 1.50 | 0 | 70% (2.0%) | 30% (2.0%) |",
        "| backdoored, other classes | 1 of 1 | 0.00 | 2.00 | 2.00 | 1 | 90% (1.0%) | 80% (1.0%) |",
        "| backdoored, class 0 | 1 of 1 | 0.00 | 0.50 | 0.50 | 0 | 10% (1.0%) | 0% (1.0%) |",
        "| backdoored, its trigger | 1 of 1 | 0.00 | 0.60 | 0.60 | 0 | 20% (1.0%) | 10% (1.0%) |",
    ]


def test_five_classes_have_an_interval_and_none_has_empty_cells():
    rows = [row(y, (0.5, 0.5), 1.0 + y) for y in range(5)]
    assert invariance.width(rows).startswith("3.00 (")
    none = [row(0, (None, None), None)]
    assert list(invariance.cells(none, [1, 2])) == ["0 of 1", "", "", "", "", "", ""]


def test_the_summary_by_hand(monkeypatch):
    monkeypatch.setattr(invariance, "TARGETS", {})
    rows = [row(0, (0.9, 0.5), 2.0), row(1, (0.5, 0.1), 1.0, is_open=True), row(2, (0, 0), None)]
    title, cells = "\n".join(invariance.summary(rows)).split("\n")[::2]
    assert title == "| transform | unit | m |"
    assert cells == "| shift | pixels | 0 to 1.5+ (2 of 3) |"
    assert invariance.mean_range([row(0, (0, 0), None)]) == ""


def test_the_picture_has_the_means_of_the_patterns_above_their_controls(monkeypatch):
    monkeypatch.setattr(invariance, "TARGETS", {})
    rows = [row(0, (0.9, 0.5), 2.0), row(1, (0.5, 0.1), 1.0), row(2, (0, 0), None)]
    [axis] = invariance.picture(rows).axes
    assert axis.get_title() == "shift"
    [line] = [line for line in axis.get_lines() if line.get_label() == "m"]
    assert list(line.get_xdata()) == [0, 1, 2]
    assert list(line.get_ydata()) == pytest.approx([1, 0.7, 0.3])


def test_the_page_has_the_tables_of_the_committed_rows():
    rows = invariance.read_rows(ROOT / "benchmarks" / "results" / "invariance.jsonl")
    page = (ROOT / "docs" / "invariance.md").read_text()
    assert "\n".join(invariance.summary(rows)) in page
    shift = [row for row in rows if row["transform"] == "shift"]
    assert "\n".join(list(invariance.tables(shift))[1:]) in page

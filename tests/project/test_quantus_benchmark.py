"""benchmarks/quantus_metrics.py on a tiny network, and its table by hand."""

import json

import pytest
import torch
from scripts import ROOT, imported
from torch import nn

from captum_classpattern import PixelClassifier

benchmark = imported("benchmarks", "quantus_metrics")
Problem = imported("benchmarks", "problems").Problem


@pytest.fixture
def tiny(monkeypatch):
    """Five classes of 28 x 4 pixels; the bias makes all of them occur."""
    torch.manual_seed(0)
    images, labels = torch.rand(200, 1, 28, 4), torch.arange(200) % 5
    network = nn.Sequential(nn.Flatten(), nn.Linear(112, 5)).eval()
    with torch.no_grad():
        network[1].bias -= network(images).mean(0)
    parts = images[:100], labels[:100], images[100:], labels[100:]
    problem = Problem("demo, natural", PixelClassifier(network), *parts)
    monkeypatch.setattr(benchmark, "demo_problems", lambda: [problem])
    monkeypatch.setattr(benchmark, "NOISY", 1)


def test_one_command_measures_all_and_continues(tiny, tmp_path, capsys):
    pytest.importorskip("quantus", exc_type=ImportError)  # OpenCV needs libGL
    out = tmp_path / "results" / "rows.jsonl"
    given = ["--out", str(out), "--steps", "1"]
    benchmark.main(given)
    printed = capsys.readouterr().out
    rows = [json.loads(row) for row in out.read_text().splitlines()]
    assert [row["metric"] for row in rows[::3]] == list(benchmark.METRICS)
    assert [row["method"] for row in rows[:3]] == [
        "ClassPattern",
        "IntegratedGradients",
        "random pixels",
    ]
    by_name = {(row["metric"], row["method"]): row["values"] for row in rows}
    assert {len(values) for values in by_name.values()} == {5}
    # a map with a fixed seed ignores the class, the model and the canvas
    assert by_name["RandomLogit", "random pixels"] == pytest.approx([1] * 5)
    assert by_name["MPRT", "random pixels"] == pytest.approx([1] * 5)
    assert by_name["MaxSensitivity", "random pixels"] == [0] * 5
    table = printed[printed.index("| metric |") :]

    out.write_text("".join(json.dumps(row) + "\n" for row in rows[:2] + rows[3:]))
    benchmark.main(given)
    again = capsys.readouterr().out
    assert again.startswith("predictive power of random pixels\n")
    assert again.count("predictive power") == 2
    assert again[again.index("| metric |") :].splitlines()[2:] == table.splitlines()[2:]
    benchmark.main(["--rows", str(out)])
    assert capsys.readouterr().out == again[again.index("| metric |") :]


def test_the_table_by_hand(monkeypatch):
    monkeypatch.setattr(benchmark, "METRICS", {"MPRT": ("lower", "-1 to 1")})
    rows = [
        {"metric": "MPRT", "method": "a", "classes": [0, 1, 2, 3, 4], "values": [0.5] * 5},
        {"metric": "MPRT", "method": "b", "classes": [0, 1, 2, 3, 4], "values": [0, 0, 0, 0, 1]},
    ]
    head, row = benchmark.table(rows)
    assert head == "| metric | values | better | a | b |\n|---|---|---|---|---|"
    assert row.startswith("| MPRT | -1 to 1 | lower | 0.50 (0.50 to 0.50) | 0.20 (0.00 to ")


def test_the_page_has_the_table_of_the_committed_rows(capsys):
    benchmark.main(["--rows", str(ROOT / "benchmarks" / "results" / "quantus.jsonl")])
    assert capsys.readouterr().out.strip() in (ROOT / "docs" / "quantus.md").read_text()

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
    by_name = {(row["metric"], row["method"]): row["values"] for row in rows}
    assert len(by_name) == len(rows) == 6 * 3 + 3 * 2
    assert {len(values) for values in by_name.values()} == {5}
    # a map with a fixed seed ignores the class, the model and the canvas
    assert by_name["RandomLogit", "random pixels"] == pytest.approx([1] * 5)
    assert by_name["MPRT", "random pixels"] == pytest.approx([1] * 5)
    assert by_name["MaxSensitivity", "random pixels"] == [0] * 5
    # two masks of k pixels with s common ones: sqrt(2 (k - s) / k), with k = 6 of 112 pixels
    possible = [(2 * (6 - s) / 6) ** 0.5 for s in range(7)]
    for value in by_name["MaxSensitivity", "two random masks"]:
        assert min(abs(value - each) for each in possible) < 1e-4
    tables = printed[printed.index("| metric |") :]

    kept = [row for row in rows if row["method"] != "two random masks"]
    out.write_text("".join(json.dumps(row) + "\n" for row in kept[1:]))
    benchmark.main(given)
    again = capsys.readouterr().out
    assert again.startswith("predictive power of ClassPattern\nRandomLogit of two random masks\n")
    assert again[again.index("| metric |") :] == tables
    benchmark.main(["--rows", str(out)])
    assert capsys.readouterr().out == tables


def test_the_tables_by_hand(monkeypatch):
    monkeypatch.setattr(benchmark, "METRICS", {"MPRT": ("lower", "-1 to 1")})
    monkeypatch.setattr(benchmark, "METHODS", ("ClassPattern", "b"))
    monkeypatch.setattr(benchmark, "COMPARING", ("MPRT",))
    monkeypatch.setattr(benchmark, "REFERENCES", ("c",))
    values = {"ClassPattern": [0.5] * 5, "b": [0, 0, 0, 0, 1], "c": [0.25] * 5}
    rows = [
        {"metric": "MPRT", "method": name, "classes": [0, 1, 2, 3, 4], "values": of_name}
        for name, of_name in values.items()
    ]
    head, row, _, other_head, other = benchmark.tables(rows)
    assert head == "| metric | values | better | ClassPattern | b |\n|---|---|---|---|---|"
    assert row.startswith("| MPRT | -1 to 1 | lower | 0.50 (0.50 to 0.50) | 0.20 (0.00 to ")
    assert other_head.startswith("| metric | ClassPattern | c |")
    assert other == "| MPRT | 0.50 (0.50 to 0.50) | 0.25 (0.25 to 0.25) |"


def test_the_page_has_the_tables_of_the_committed_rows(capsys):
    benchmark.main(["--rows", str(ROOT / "benchmarks" / "results" / "quantus.jsonl")])
    page = (ROOT / "docs" / "quantus.md").read_text()
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page

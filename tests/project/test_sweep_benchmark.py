"""benchmarks/sweep.py on a tiny case."""

import re

import pytest
from scripts import imported

pytest.importorskip("ray")


@pytest.mark.cluster
def test_the_benchmark_of_sweeps_prints_its_tables(capsys, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # as serial runs, on a busy machine
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    benchmark = imported("benchmarks", "sweep")
    tiny = ["--units", "3", "--rounds", "1", "--sleeping", "4", "--seconds", "0.1"]
    benchmark.main([*tiny, "--counts", "3", "6"])
    printed = capsys.readouterr().out
    assert re.findall(r"^\| (serial|Ray, \d) \| [\d.]+ s \|", printed, re.MULTILINE) == [
        *("serial", "Ray, 1", "Ray, 2")
    ]
    assert "| finished units lost or repeated | 0 | 0 |" in printed
    assert re.search(r"^\| 6 \| \d+ MiB \| [\d.]+ MiB \|", printed, re.MULTILINE)
    assert "Memory of 6 units over 3: " in printed

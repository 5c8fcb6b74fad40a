"""benchmarks/images.py on a few tiny photos."""

import re
from pathlib import Path

import pytest
from scripts import imported

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is measured on Linux"
)


@pytest.mark.parametrize("in_memory", [12, 7])
def test_the_table_of_a_few_photos(monkeypatch, capsys, in_memory):
    images = imported("benchmarks", "images")
    monkeypatch.setattr(images, "HEIGHT", 30)
    monkeypatch.setattr(images, "WIDTH", 40)
    images.main(["--count", "12", "--size", "16", "--passes", "3", "--in-memory", str(in_memory)])
    printed = capsys.readouterr().out
    assert printed.startswith("12 photos of 40 x 30, read at 16 px; ")
    assert "| first run | 12 | " in printed
    assert "| second run | 12 | " in printed
    assert f"| tensors in memory | {in_memory} | " in printed
    assert "Peak memory of a folder: " in printed
    assert (
        f"| {in_memory} photos, 3 passes | cache, ms/photo | tensors | ratio | range |" in printed
    )
    for work in ("reading", "predicting"):
        [row] = re.findall(rf"\| {work} \| .* \| ([0-9.]+).* \| ([0-9.]+) to ([0-9.]+) \|", printed)
        ratio, low, high = map(float, row)
        assert 0 < low <= ratio <= high

"""benchmarks/gallery.py on a tiny network, and its tables by hand."""

import json
import re

import pytest
import torch
from scripts import ROOT, imported
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern.scores.intervals import wilson

gallery = imported("benchmarks", "gallery")
NAMES = [f"name {i}" for i in range(10)]


@pytest.fixture
def tiny(monkeypatch):
    """Ten classes of 16 pixels, and a picture of two patterns."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)).eval()
    images, labels = torch.rand(40, 3, 16, 16), torch.arange(40) % 10
    problem = imported("benchmarks", "problems").Problem(
        "tiny", PixelClassifier(network, class_names=NAMES),
        images[:20], labels[:20], images[20:], labels[20:],
    )  # fmt: skip
    monkeypatch.setattr(gallery, "photo_problem", lambda folder: problem)
    monkeypatch.setattr(gallery, "N_CLASSES", 10)
    monkeypatch.setattr(gallery, "ROWS", 1)
    monkeypatch.setattr(gallery, "COLUMNS", 2)


def times_of_patterns(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("sweep/*/patterns/*")}


def test_one_command_makes_the_gallery_the_picture_and_the_tables(tiny, tmp_path, capsys):
    given = ["--photos", "photos", "--out", str(tmp_path), "--every", "4", "--budget", "430"]
    gallery.main(given)
    printed = capsys.readouterr().out
    assert "| classes searched | 3 |" in printed
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert sorted(row["class"] for row in rows) == [0, 4, 8]
    powers = [row["power"] for row in rows]
    assert powers == sorted(powers, reverse=True)
    assert (tmp_path / "strongest.png").stat().st_size > 1_000
    pages = sorted(path.name for path in (tmp_path / "site" / "models").glob("*/*.html"))
    assert pages == ["0_name_0.html", "4_name_4.html", "8_name_8.html"]
    assert re.search(r"\nA class takes \d+ s of one worker; 1,000 take \d+ hours\.\n", printed)

    written = times_of_patterns(tmp_path)
    gallery.main(given)  # searches nothing again
    assert capsys.readouterr().out == printed
    assert times_of_patterns(tmp_path) == written

    gallery.main(["--rows", str(tmp_path / "rows.jsonl")])
    assert printed.startswith(capsys.readouterr().out)


def row(number, hits, control, above):
    controls = {"no_pattern": 0.0, "random_pixels": control, "other_canvas": 0.0}
    low, high = wilson(hits, 100)
    return {"class": number, "class_name": f"c{number}", "power": hits / 100, "images": 100,
            "power_low": low, "power_high": high, "beats_controls": above, **controls}  # fmt: skip


def test_the_tables_by_hand(monkeypatch):
    monkeypatch.setattr(gallery, "SHOWN", 1)
    rows = [row(7, 40, 0.02, True), row(2, 20, 0.01, True), row(5, 0, 0.0, False)]
    assert "\n".join(gallery.table(rows)).splitlines() == [
        "| figure | value |",
        "|---|---|",
        "| classes searched | 3 |",
        "| pattern above its controls | 2: 67% (21% to 94%) of the classes |",
        "| pattern works on at least one photo | 2 |",
        "| mean power | 20.0% (14.8% to 27.5%) |",
        "| median power | 20.0% |",
        "| no pattern, mean | 0.0% |",
        "| random pixels, mean | 1.0% |",
        "| other canvas, mean | 0.0% |",
        "",
        "| class | power (95 % interval) | strongest control | above its controls |",
        "|---|---|---|---|",
        "| c7 (7) | 40% (31% to 50%) | 2% | yes |",
        "| ... | | | |",
        "| c5 (5) | 0% (0% to 4%) | 0% | no |",
    ]


def test_photos_or_rows_are_needed(capsys):
    with pytest.raises(SystemExit):
        gallery.main([])
    assert "--photos or --rows is needed" in capsys.readouterr().err


def test_the_page_has_the_tables_of_the_committed_rows(capsys):
    gallery.main(["--rows", str(ROOT / "benchmarks" / "results" / "gallery.jsonl")])
    page = (ROOT / "docs" / "gallery.md").read_text()
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page

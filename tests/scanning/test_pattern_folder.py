"""Patterns of a scan are kept, but never taken for those of another."""

from pathlib import Path

import pytest
import torch

from captum_classpattern import Pattern
from captum_classpattern.scanning.folder import PatternFolder

KEY = {"model": "a1", "images": "b2", "seed": 0}


def pattern(target=0, value=0.25):
    canvas = torch.full((1, 8, 8), value)
    mask = (torch.arange(64).view(1, 8, 8) < 3).float()
    return Pattern(canvas, mask, target, {"search_power": 0.5}, frozenset(["a1b2c3d4e5f6"]))


PATTERNS = {"0_pixels_1": pattern(0, 0.5), "11_pixels_1": pattern(11, 0.75)}


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_patterns_are_read_as_they_were_written(tmp_path):
    folder = tmp_path / "new" / "patterns"
    store = PatternFolder(folder, KEY)
    assert store.find(PATTERNS) is None
    assert not (tmp_path / "new").exists()  # nothing to write yet
    store.add(PATTERNS)
    again = PatternFolder(folder, KEY)
    for found, written in zip(again.find(PATTERNS), PATTERNS.values()):
        assert found.canvas.equal(written.canvas)
        assert found.mask.equal(written.mask)
        assert (found.target, found.info, found.seen) == (
            written.target,
            written.info,
            written.seen,
        )
    assert again.find(["0_pixels_1", "1_pixels_1"]) is None  # all or none


@pytest.mark.parametrize("other", [{"seed": 1}, {"images": "c3"}, {"precision": "full"}])
def test_patterns_of_another_scan_are_refused_and_stay(other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PatternFolder(Path("kept"), KEY).add(PATTERNS)
    before, store = contents(tmp_path / "kept"), PatternFolder(Path("kept"), KEY | other)
    for call in (lambda: store.find(PATTERNS), lambda: store.add(PATTERNS)):
        with pytest.raises(ValueError, match=r"kept/search.json is of another scan \(.* now\)"):
            call()
    assert contents(tmp_path / "kept") == before


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_store_is_named(text, tmp_path):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(ValueError, match=r"search\.json is (damaged|not from a scan)"):
        PatternFolder(tmp_path, KEY).add(PATTERNS)


def test_files_of_others_in_the_folder_stay(tmp_path):
    for name in ("3_1.safetensors", "0_white_0.05.safetensors", "notes.txt"):
        (tmp_path / name).write_text("mine")
    PatternFolder(tmp_path, KEY).add(PATTERNS)
    mine = [path.name for path in tmp_path.iterdir() if path.read_bytes() == b"mine"]
    assert len(mine) == 3

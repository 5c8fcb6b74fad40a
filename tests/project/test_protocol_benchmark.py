"""benchmarks/paper.py --protocol authors on a tiny network, and its table by hand."""

import json

import pytest
import torch
from scripts import ROOT, imported
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern.optimization import PaperLoop

protocol = imported("benchmarks", "paper_protocol")
paper = imported("benchmarks", "paper")


@pytest.fixture
def tiny(monkeypatch):
    """Five classes of 32 x 32 grey pixels, 100 test images of which 40 are searched."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(1024, 5)).eval()
    test = protocol.TestSet(
        torch.rand(100, 1, 32, 32), torch.arange(100) % 5, torch.arange(100) // 5 % 5 < 2
    )
    monkeypatch.setattr(protocol.TestSet, "read", classmethod(lambda cls, folder: test))
    monkeypatch.setattr(protocol, "model", lambda name: PixelClassifier(network))
    monkeypatch.setattr(protocol, "PaperLoop", lambda: PaperLoop(epochs=1))
    monkeypatch.setattr(protocol, "ROUNDS", 2)
    monkeypatch.setattr(protocol, "EVERY", 3)  # labels repeat after 5
    return test


def test_one_command_measures_both_protocols_and_continues(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(protocol.measure, "__defaults__", (("natural",),))
    given = ["data", "--out", str(tmp_path), "--protocol", "authors"]
    paper.main(given)
    printed, progress = capsys.readouterr()
    assert progress.count("class ") == 3 * 5
    rows = [json.loads(row) for row in (tmp_path / "protocol.jsonl").read_text().splitlines()]
    found = [(row["canvases"], row["solver"], row["class"], row["canvas"]) for row in rows]
    assert found == [
        *(
            ("first", solver, y, i)
            for solver in ("paper", "swap")
            for y in range(5)
            for i in (0, 1)
        ),
        *(("positive", "swap", y, 0) for y in range(5)),
    ]
    theirs, ours = rows[0], rows[-1]
    sizes = {group: n for group, (_, n) in theirs["power"].items()}
    assert sizes == {
        "own, searched": 8, "own, unseen": 12, "others, searched": 32, "others, unseen": 48
    }  # fmt: skip
    assert {group for group, (_, n) in ours["power"].items() if n} == {
        "own, unseen", "others, unseen"
    }  # fmt: skip
    lines = printed.splitlines()
    assert lines[0].count("|") == 4
    assert [row.split("|")[1].strip() for row in lines[2:-1]] == [s.title for s in protocol.STEPS]

    kept = rows[:-1]
    (tmp_path / "protocol.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    paper.main(given)
    again, progress = capsys.readouterr()
    assert progress.count("class ") == 1
    assert again == printed


def test_the_counts_are_those_of_a_plain_loop(tiny):
    predicted = (torch.arange(100) * 7 + 3) % 5
    counts = tiny.counts(predicted, 2)
    plain = dict.fromkeys(counts, (0, 0))
    for guess, label, searched in zip(predicted, tiny.labels, tiny.searched):
        who, when = ("own" if label == 2 else "others"), ("searched" if searched else "unseen")
        hits, n = plain[f"{who}, {when}"]
        plain[f"{who}, {when}"] = hits + int(guess == 2), n + 1
    assert {group: tuple(of_group) for group, of_group in counts.items()} == plain


def test_the_masks_are_stored_before_the_last_update():
    assert protocol.published_steps(1_800) == 5 * 450 - 1
    assert protocol.published_steps(7) == 5 * 2 - 1


def row(target, canvases, solver, own, others):
    counts = {
        "own, searched": [own, 10], "own, unseen": [own, 10],
        "others, searched": [others + 10, 50], "others, unseen": [others, 50],
    }  # fmt: skip
    controls = {"random pixels": counts, "no pattern": counts}
    return {"model": "m", "class": target, "canvas": 0, "canvases": canvases, "solver": solver,
            "power": counts, **controls}  # fmt: skip


def test_the_table_by_hand():
    rows = [row(y, *protocol.AUTHORS, 10, 20) for y in range(5)]
    rows += [row(y, *search, 0, 40) for y in range(5) for search in protocol.STEPS[3:5]
             for search in (search.search,)]  # fmt: skip
    head, *lines = protocol.table(rows)
    assert head.startswith("| searched with, scored on | m: power | m: random pixels, no pattern |")
    powers = [cells.split("|")[2].strip() for cells in lines]
    assert powers == [
        "58.3% (58.3 to 58.3)",  # 70 of 120
        "50.0% (50.0 to 50.0)",
        "40.0% (40.0 to 40.0)",
        "80.0% (80.0 to 80.0)",
        "80.0% (80.0 to 80.0)",
        "60.0% (60.0 to 60.0)",
        "18.3 points (18.3 to 18.3)",
    ]


def test_the_page_has_the_table_of_the_committed_rows():
    rows = protocol.read_rows(ROOT / "benchmarks" / "results" / "protocol.jsonl")
    assert "\n".join(protocol.table(rows)) in (ROOT / "docs" / "claims.md").read_text()

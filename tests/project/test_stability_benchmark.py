"""benchmarks/stability.py on tiny networks, and its tables by hand."""

import json

import pytest
import torch
from scripts import ROOT, imported
from torch import nn

from captum_classpattern import PixelClassifier

stability = imported("benchmarks", "stability")
Problem = imported("benchmarks", "problems").Problem
Plan = stability.Plan


@pytest.fixture
def tiny(monkeypatch):
    """Two models of five classes and 100 pixels, with few and short searches."""
    torch.manual_seed(0)
    images, labels = torch.rand(300, 1, 10, 10), torch.arange(300) % 5
    problems = []
    for name in ("a", "b"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(100, 5)).eval()
        with torch.no_grad():
            network[1].bias -= network(images).mean(0)
        parts = images[:150], labels[:150], images[150:], labels[150:]
        problems.append(Problem(name, PixelClassifier(network), *parts))
    plans = (
        Plan("a", "positive", 4, (2, 4), long=1),
        Plan("a", "white", 2),
        Plan("a", "second positive", 1),
        Plan("b", "white", 1),
        Plan("unknown", "white", 4),
        Plan("a", "positive", 4, long=2),
    )
    monkeypatch.setattr(stability, "GROUP", 2)
    monkeypatch.setattr(stability, "PLANS", plans)
    monkeypatch.setattr(stability, "NETWORKS", ("a", "b"))
    monkeypatch.setattr(stability, "SHOWN", (("a", "positive", 1), ("a", "positive", 3)))
    monkeypatch.setattr(stability, "problems_of", lambda folder: problems)
    return problems


def test_one_command_searches_scores_and_continues(tiny, tmp_path, capsys):
    out = tmp_path / "results" / "rows.jsonl"
    given = ["--out", str(out), "--figure", str(tmp_path / "stability.png")]
    stability.main(given)
    printed = capsys.readouterr().out
    tables = printed[printed.index("| IoU of two ...") :]
    rows = [json.loads(row) for row in out.read_text().splitlines()]
    # single and long searches, consensuses, random pixels of the four studies
    assert len(rows) == 5 * ((4 + 2 + 3 + 1) + (2 + 0 + 0 + 1) + (1 + 1) + (1 + 1))
    assert {row["images"] for row in rows} == {120}
    for row in rows:
        assert len(row["pixels"]) == len(row["weights"]) == 5
    singles = [row for row in rows if row["kind"] == "one search" and row["canvas"] == "positive"]
    [passes] = {row["passes"] for row in singles}
    long = [row["passes"] for row in rows if row["kind"] == "one long search"]
    assert all(1.5 * passes < each <= 2 * passes for each in long[:5])
    assert (tmp_path / "stability.png").stat().st_size > 5_000

    gone = ("a", "positive", "consensus", 2, 1)
    kept = [row for row in rows if stability.key_of(row) != gone]
    out.write_text("".join(json.dumps(row) + "\n" for row in kept))
    stability.main(given)  # makes what is missing, and finds the same
    again = capsys.readouterr().out
    assert again[again.index("| IoU of two ...") :] == tables
    assert again.count("consensus 1: ") == 1
    stability.main(["--rows", str(out)])
    assert capsys.readouterr().out == tables
    again = [json.loads(row) for row in out.read_text().splitlines()]
    assert sorted(map(str, again)) == sorted(map(str, rows))


def row(kind, number, y, pixels, power, *, size=1, canvas="positive", model="m", judged=0.0):
    return {
        "model": model, "canvas": canvas, "kind": kind, "size": size, "number": number, "class": y,
        "passes": 10, "search_power": judged, "power": power, "no_pattern": 0.01, "images": 100,
        "shape": [2, 4], "pixels": pixels, "weights": [0.5] * len(pixels),
    }  # fmt: skip


@pytest.fixture
def by_hand(monkeypatch):
    """Five classes with the same numbers, so that intervals have no width."""
    monkeypatch.setattr(stability, "GROUP", 2)
    rows = []
    for y in range(5):
        single = [([0, 1], 0.2, 0.9), ([1, 2], 0.4, 0.1), ([0, 1], 0.1, 0.3), ([4, 5], 0.1, 0.5)]
        for number, (pixels, power, judged) in enumerate(single):
            rows.append(row("one search", number, y, pixels, power, judged=judged))
        for number, (pixels, power) in enumerate([([0, 1], 0.5), ([2, 3], 0.7)]):
            rows.append(row("one long search", number, y, pixels, power, size=2))
        for number, (pixels, power) in enumerate([([0, 1], 0.3), ([0, 1], 0.3)]):
            rows.append(row("consensus", number, y, pixels, power, size=2))
        rows.append(row("consensus", 0, y, [0, 1], 0.6, size=4))
        rows.append(row("random pixels", 0, y, [6, 7], 0.02))
        rows.append(row("one search", 0, y, [1, 3], 0.0, canvas="second positive"))
    return rows


def test_the_tables_by_hand(by_hand):
    agreement, across, powers, gains = (
        table.split("\n") for table in "\n".join(stability.tables(by_hand)).split("\n\n")
    )
    # six pairs: 1/3, 1, 0, 1/3, 0, 0
    assert agreement[2] == (
        "| m, positive | 0.278 (0.278 to 0.278) | 0.000 (0.000 to 0.000) | "
        "1.000 (1.000 to 1.000) | 1.000 (1.000 to 1.000) | 0.143 | 25% (25% to 25%) |"
    )
    assert len(agreement) == 3  # a single search agrees with none
    assert across[2:] == [
        "| m: positive and second positive canvas | 0.333 (0.333 to 0.333) | "
        "0.333 (0.333 to 0.333) |"
    ]
    assert powers[2] == (
        "| m, positive | 20.0% (20.0% to 20.0%) | 14.1% | 15.0% (15.0% to 15.0%) | "
        "30.0% (30.0% to 30.0%) | 60.0% (60.0% to 60.0%) | 2.0% | 1.0% |"
    )
    assert gains[2:] == [
        "| 2: m, positive | 30.0% (30.0% to 30.0%) | +10.0 (+10.0 to +10.0) | "
        "+15.0 (+15.0 to +15.0) | -30.0 (-30.0 to -30.0) |",
        "| 4: m, positive | 60.0% (60.0% to 60.0%) | +40.0 (+40.0 to +40.0) | "
        "+45.0 (+45.0 to +45.0) | +0.0 (+0.0 to +0.0) |",
    ]


def test_other_classes_are_the_control_of_two_canvases(by_hand):
    second = [r for r in by_hand if r["canvas"] == "second positive"]
    for each in second:
        each["pixels"] = [0, 1] if each["class"] == 0 else [6, 7]
    [_, _, found] = "\n".join(stability.across(by_hand)).split("\n")
    # class 0 has 1, the others 0; of other classes, each of the four meets class 0 once in four
    assert found.split(" | ")[1].startswith("0.200 (")
    assert found.split(" | ")[2].startswith("0.200 (")


def test_what_was_not_searched_is_empty(by_hand):
    rows = [row for row in by_hand if row["kind"] != "one long search"]
    rows = [row for row in rows if row["kind"] != "consensus" or row["number"] == 0]
    text = "\n".join(stability.tables(rows))
    assert "| m, positive | 0.278 (0.278 to 0.278) |  |  | 1.000 (1.000 to 1.000) |" in text
    assert "| 30.0% (30.0% to 30.0%) |  | 2.0% | 1.0% |" in text
    assert "| +15.0 (+15.0 to +15.0) |  |" in text


def test_a_mask_survives_its_row():
    mask = torch.tensor([[[0.0, 0.5, 0.0], [1.0, 0.0, 0.625]]])
    lists = stability.to_lists(mask)
    assert lists == {"pixels": [1, 3, 5], "weights": [0.5, 1.0, 0.625]}
    assert torch.equal(stability.mask_of({"shape": [2, 3], **lists}), mask)


def test_the_picture_shows_the_masks_how_often_and_the_consensus(by_hand):
    rows = [{**each, "model": "CIFAR-10, natural"} for each in by_hand]
    figure = stability.picture(rows, [("CIFAR-10, natural", "positive", 2)])
    *axes, bar = figure.axes
    assert [axis.get_title() for axis in axes] == ["search 1", "search 2", "found by", "consensus"]
    assert axes[0].get_ylabel() == "bird,\npositive"
    assert [axis.get_xlabel() for axis in axes] == ["20\xa0%", "40\xa0%", " ", "30\xa0%"]
    shown = [axis.get_images()[0].get_array().tolist() for axis in axes]
    white = [[[pixel == [255] * 3 for pixel in line] for line in shown[i]] for i in (0, 3)]
    assert white == [[[True, True, False, False], [False] * 4]] * 2
    assert shown[2] == [[0.5, 1, 0.5, 0], [0, 0, 0, 0]]
    assert [label.get_text() for label in bar.get_xticklabels()] == ["none", "half", "all"]


def test_the_page_has_the_tables_of_the_committed_rows(capsys):
    stability.main(["--rows", str(ROOT / "benchmarks" / "results" / "stability.jsonl")])
    page = (ROOT / "docs" / "stability.md").read_text()
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page

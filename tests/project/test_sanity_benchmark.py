"""benchmarks/sanity.py on tiny networks, and its tables by hand."""

import json
import re

import pytest
import torch
from scripts import ROOT, imported
from torch import nn

from captum_classpattern.comparison import Agreement, SanityCheck

sanity = imported("benchmarks", "sanity")
Problem = imported("benchmarks", "problems").Problem


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(100, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5)
    ).eval()


@pytest.fixture
def tiny(monkeypatch):
    """Five classes of 10 x 10 pixels that the first network predicts; the demo and a pair."""
    net, images = network(0), torch.rand(400, 1, 10, 10)
    with torch.no_grad():
        net[5].bias -= net(images).mean(0)
    labels = net(images).argmax(1)
    parts = images[:200], labels[:200], images[200:], labels[200:]
    found = [
        sanity.Case(Problem("demo, natural", net, *parts), 2),
        sanity.Case(Problem("CIFAR-10, true_labels", net, *parts), other=network(1)),
    ]
    monkeypatch.setattr(sanity, "cases", lambda folder: found if folder else found[:1])


def test_one_command_makes_the_tables_and_the_figure_and_continues(tiny, tmp_path, capsys):
    out, figure = tmp_path / "results" / "rows.jsonl", tmp_path / "sanity.png"
    given = ["--cifar10", "folder", "--out", str(out), "--figure", str(figure)]
    given += ["--methods", "InputXGradient", "LRP", "ClassPattern", "RandomPixels"]
    given += ["--budget", "430"]
    sanity.main(given)
    printed = capsys.readouterr().out
    assert printed.count("checking ") == 8
    tables = printed[printed.index("\n### demo, natural: layers") :]
    assert "\n### CIFAR-10, true_labels: labels" in tables
    lines = tables.split("\n")
    for name in ("InputXGradient", "ClassPattern", "RandomPixels"):
        assert sum(line.startswith(f"| {name} |") for line in lines) == 2
    assert figure.stat().st_size > 1_000

    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({(row["model"], row["method"]) for row in rows}) == len(rows) == 8
    assert tables.count("LRP fails (original): TypeError: ") == 2  # it has no rule for Flatten
    for row in rows:
        assert row["budget"] == 430
        assert len(row["failures"]) == (row["method"] == "LRP")
        if row["failures"]:
            continue
        assert {len(group["iou"]) for group in row["maps"]} == {5}
        tests = {(group["test"], group["randomised"]) for group in row["maps"]}
        layers = {("layers", 1), ("layers", 3)} if row["layers"] else {("labels", 0)}
        assert tests == {("layers", 0)} | layers

    sanity.main(given)  # checks nothing again
    assert capsys.readouterr().out == tables
    out.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    sanity.main(given)
    again = capsys.readouterr().out
    assert again.count("checking ") == 1
    assert again.endswith(tables)
    sanity.main(["--rows", str(out), "--budget", "430"])
    assert capsys.readouterr().out == tables
    sanity.main(["--rows", str(out), "--budget", "60"])  # rows of other budgets are left alone
    assert not capsys.readouterr().out.strip()


def test_a_check_is_read_as_it_was_written(tiny):
    [case] = sanity.cases(None)
    check = sanity.check_of(case, case.canvases(), "InputXGradient", 60)
    row = json.loads(json.dumps(sanity.row_of(check, "m", "InputXGradient", 60)))
    read = sanity.checks([row])["m"]
    assert (read.layers, read.steps, read.chance) == (check.layers, check.steps, check.chance)
    assert (read.random_pixels, read.no_pattern) == (check.random_pixels, check.no_pattern)
    for ours, theirs in zip(read.agreements, check.agreements, strict=True):
        for name, value in vars(ours).items():
            assert value == pytest.approx(getattr(theirs, name), abs=1e-5)


def agreements(method, test, randomised, ious, power, ranking="signed"):
    return [
        Agreement(method, ranking, test, randomised, 1, y, y, iou, 0.5, power)
        for y, iou in enumerate(ious)
    ]


def test_the_tables_by_hand():
    found = [
        *agreements("A", "layers", 0, [1] * 5, 0.5),
        *agreements("A", "layers", 1, [0.5] * 5, 0.4),
        *agreements("A", "layers", 3, [0.3] * 5, 0.2),
        *agreements("A", "layers", 4, [0.0] * 5, 0.03),
        *agreements("B", "layers", 0, [1] * 5, 0.5),
        *agreements("B", "layers", 1, [1] * 5, 0.5),
        *agreements("B", "layers", 3, [1] * 5, 0.5),
        *agreements("B", "layers", 4, [1] * 5, 0.5),
        *agreements("B", "layers", 0, [1] * 5, 0.5, "absolute"),
        *agreements("B", "layers", 4, [0.5] * 5, 0.5, "absolute"),
        *agreements("A", "labels", 0, [0.25] * 5, 0.04),
    ]
    check = SanityCheck(
        [("d",), ("c",), ("b",), ("a",)], [0, 1, 3, 4], found, [], 0.026,
        {y: [0.04] for y in range(5)}, dict.fromkeys(range(5), 0.01),
    )  # fmt: skip
    assert list(sanity.tables({"m": check})) == [
        "\n### m: layers\n",
        "| method | between seeds | last layer | 1 of 4 layers | all (95 %) | verdict | "
        "absolute: verdict | order: signed | absolute | power | power after | "
        "above random pixels |\n|---|---|---|---|---|---|---|---|---|---|---|---|",
        "| B | 1.00 | 1.00 | 1.00 | 1.00 (1.00 to 1.00) | no change | 0.50: part stays | 0.50 | "
        "0.50 | 50.0% | 50.0% | 46.0 (46.0 to 46.0)* |",
        "| A | 1.00 | 0.50 | 0.50 | 0.00 (0.00 to 0.00) | gone |  | 0.50 |  | 50.0% | 3.0% | "
        "-1.0 (-1.0 to -1.0) |",
        "\nRandom masks have an IoU of 0.026; random pixels a power of 4.0%, no pattern 1.0%.",
        "\n### m: labels\n",
        "| method | between seeds | other labels (95 %) | verdict | absolute: verdict | "
        "order: signed | absolute | power | power after | above random pixels |\n"
        "|---|---|---|---|---|---|---|---|---|---|",
        "| A | 1.00 | 0.25 (0.25 to 0.25) | part stays |  | 0.50 |  | 50.0% | 4.0% | "
        "0.0 (0.0 to 0.0) |",
        "\nRandom masks have an IoU of 0.026; random pixels a power of 4.0%, no pattern 1.0%.",
    ]


def test_the_page_has_the_tables_of_the_committed_rows(capsys):
    sanity.main(["--rows", str(ROOT / "benchmarks" / "results" / "sanity.jsonl")])
    page = (ROOT / "docs" / "sanity_checks.md").read_text()
    tables = re.split(r"\n+### .*\n+", capsys.readouterr().out)[1:]
    assert len(tables) == 2  # layers and labels
    for table in tables:
        assert table.count("\n| ") > 15
        assert table.strip() in page

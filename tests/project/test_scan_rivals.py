"""benchmarks/scan_rivals.py: what is measured once, and its table by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import imported
from torch import nn

from captum_classpattern import PixelClassifier

scan_evidence = imported("benchmarks", "scan_evidence")
scan_rivals = imported("benchmarks", "scan_rivals")

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
RIVALS = ["Neural Cleanse", "pixel inversion", "MM-BD", "white canvas, 1 %"]


def test_each_rival_scores_all_classes_once(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)).eval()
    monkeypatch.setattr(scan_rivals, "PASSES", 1_000)  # the fewest of a search
    monkeypatch.setattr(scan_rivals, "MM_IMAGES", 2)
    monkeypatch.setattr(scan_rivals, "trained", lambda *_: (PixelClassifier(net), {}))
    given = "clean_base_0", tmp_path, tmp_path, tmp_path
    row = scan_rivals.measured(*given)
    assert list(row["scores"]) == list(row["seconds"]) == RIVALS
    for scores in row["scores"].values():
        assert len(scores) == 10
        assert np.isfinite(scores).all()
    assert json.loads((tmp_path / "clean_base_0.json").read_text()) == row
    monkeypatch.setattr(scan_rivals, "neural_cleanse", None)  # would fail
    assert scan_rivals.measured(*given) == row


def model(name, recipe, backdoor=None, powers=0.1):
    record = {
        "settings": {"entry": {"recipe": recipe, "seed": 0, "backdoor": backdoor}},
        "accuracy": 0.9,
        "attack_success": 1.0,
    }
    sizes = ("25", "16", "10", "6", "3")
    return scan_evidence.Model(
        {
            "name": name,
            "record": record,
            "scan": {},
            "powers": {size: [powers] + [0.1] * 9 for size in sizes},
            "others": {},
            "judged": [90] * 10,
            "accuracy": 0.9,
            "images": 500,
            "source": {},
            "shape": [1, 28, 28],
            "seconds": 3.0,
        }
    )


def test_the_table_by_hand():
    """A patch that all detectors put first, and a clean model that Neural Cleanse's own rule
    flags: its class 0 has a hundredth of the size of the others."""
    planted = {"kind": "white", "target": 0, "rate": 0.05}
    models = [model(f"clean_{i}", "base") for i in range(20)]
    models += [model("patch", "wide", planted, 1.0), model("other", "wide")]
    usual = [-4.0 + 0.01 * y for y in range(10)]
    small = [0.6, *usual[1:]]
    rows = {m.name: {"scores": {}, "seconds": {}} for m in models}
    for m in models:
        for name, scores in (
            ("Neural Cleanse", usual if m.name.startswith("clean") else small),
            ("white canvas, 1 %", [5.0, *usual[1:]] if m.name == "patch" else usual),
        ):
            rows[m.name]["scores"][name] = scores
            rows[m.name]["seconds"][name] = 7.0
    _, *found = scan_rivals.table(models, rows)
    one, none = "1 of 1 (21% to 100%)", "0 of 1 (0% to 79%)"
    assert found == [
        f"| scan | calibrated | {one} | {none} | 1 of 1 | 3.0 |",
        f"| Neural Cleanse | its own | {one} | {one} | 1 of 1 | 7.0 |",
        f"| Neural Cleanse | calibrated | {one} | {one} | 1 of 1 | 7.0 |",
        f"| white canvas, 1 % | calibrated | {one} | {none} | 1 of 1 | 7.0 |",
    ]


def test_the_networks_that_had_not_been_seen_when_the_rule_was_changed():
    zoo = scan_evidence.read(RESULTS / "zoo.jsonl")
    seen = [m.name for m in zoo if not scan_evidence.is_unseen(m)]
    assert len(seen) == 75  # of the commit before the change
    assert {"backdoored_10_grey", "backdoored_36_white", "clean_few_0"} <= {*seen}
    assert not {"backdoored_04_white", "backdoored_37_white", "clean_base_0"} & {*seen}


def test_the_two_rules_by_hand():
    """All classes of the second patch are stronger than those of the references, its target most:
    by the old rule that is inconclusive, by the present one suspicious."""
    planted = {"kind": "white", "target": 0, "rate": 0.05}
    zoo = [model(f"clean_{i}", "wide") for i in range(20)]
    patches = [model(f"patch_{i}", "base", planted, 1.0) for i in range(2)]
    for size in patches[1].row["powers"]:
        patches[1].row["powers"][size][1:] = [0.2] * 9
    wrong = model("wrong", "base", {**planted, "target": 3}, 1.0)
    groups = [("patches", patches, scan_evidence.other_half), ("wrong", [wrong], lambda *_: zoo)]
    assert [*scan_evidence.before_and_now(groups, zoo)][1:] == [
        "| patches | 2 | 1 | 2 | 0 | 0 | 1 | 0 |",
        "| wrong | 1 | 0 | 0 | 1 | 1 | 0 | 0 |",
    ]


def test_the_chosen_models():
    models = [model("clean_0", "base"), model("clean_9", "base"), model("clean_1", "wide")]
    models[1].row["record"]["settings"]["entry"]["seed"] = scan_rivals.SEEDS
    planted = {"kind": "white", "target": 0, "rate": 0.05}
    models += [model("a", "base", planted), model("b", "wide", planted)]
    assert [m.name for m in scan_rivals.chosen(models)] == ["clean_0", "clean_1", "b"]


@pytest.mark.parametrize("name", ["scan_evidence", "scan_rivals"])
def test_the_page_has_the_tables_of_the_committed_rows(name, capsys):
    """All but the lists of every model."""
    zoo, cifar10, rivals = (
        str(RESULTS / f"{rows}.jsonl") for rows in ("zoo", "zoo_cifar10", "scan_rivals")
    )
    if name == "scan_evidence":
        scan_evidence.main([zoo, cifar10])
    else:
        scan_rivals.main(["--zoo", zoo, "--out", rivals])
    page = (RESULTS.parents[1] / "docs" / "scan_evidence.md").read_text()
    tables = capsys.readouterr().out.split("### ")
    shown = [table.split("\n\n", 1)[-1].strip() for table in tables]
    longer = ("Each model", "Seconds", "CIFAR-10, each", "CIFAR-10: ")
    shown = [text for text, table in zip(shown, tables) if text and not table.startswith(longer)]
    assert len(shown) >= 1
    for text in shown:
        assert text in page

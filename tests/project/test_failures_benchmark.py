"""The verdicts of benchmarks/failures.py."""

import pytest
import torch
from scripts import imported

from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys import Finding, Scores, Survey

AREA = 0.05


@pytest.fixture(scope="module")
def script():
    return imported("benchmarks", "failures")


def surveyed(*hits, control=0.0, classes=10):
    """One class for each number of hits of 900; the others have none."""
    hits = (hits + (0,) * classes)[:classes]
    pattern = {y: Pattern(torch.ones(1, 8, 8), torch.ones(1, 8, 8), y) for y in range(len(hits))}
    found = (
        Finding({AREA: pattern[y]}, "white", {AREA: Scores(power_of(count, 900, 0), control, 0.0)})
        for y, count in enumerate(hits)
    )
    return Survey(found, 10)


@pytest.mark.parametrize(
    ("found", "rank", "rival", "stands_out", "text"),
    [
        (surveyed(880, 100, 200), 1, 2, True, "**yes**"),
        # random pixels do as well
        (surveyed(880, 100, 200, control=0.99), 1, 2, False, "no, 1 of 10"),
        (surveyed(500, 490, 200), 1, 1, False, "no, 1 of 10"),  # too close
        (surveyed(200, 100, classes=2), 1, 1, False, "no, 1 of 10"),  # not all were searched
        (surveyed(490, 500, 200), 2, 1, False, "no, 2 of 10"),
        (surveyed(200, 880, 300), 3, 1, False, "no, 3 of 10; Trouser does"),
    ],
)
def test_a_class_stands_out_by_the_rule_of_the_package(
    script, found, rank, rival, stands_out, text
):
    standing = script.standing(found, "white", AREA, 0, 10)
    assert (standing.rank, standing.rival, standing.stands_out) == (rank, rival, stands_out)
    first = script.first_class(found, "white", AREA)
    assert first == (0 if rank == 1 else rival)
    anyone = "It stands out." in found.strongest("white", AREA)
    assert script.standing(found, "white", AREA, first, 10).stands_out == anyone
    assert stands_out == (anyone and first == 0)
    assert script.verdict(found, "white", AREA) == text


def test_only_classes_that_are_weak_on_both_canvases_are_in_the_table(script):
    scores = {
        True: Scores(power_of(450, 900, 0), 0.0, 0.0),
        False: surveyed(9).finished[0].scores[AREA],
    }

    def finding(target, canvas, strong):
        pattern = Pattern(torch.ones(1, 8, 8), torch.ones(1, 8, 8), target)
        return Finding({AREA: pattern}, canvas, dict.fromkeys(script.AREAS, scores[strong]))

    found = [
        *(finding(y, "positive", strong) for y, strong in enumerate((True, False, False))),
        *(finding(y, "white", strong) for y, strong in enumerate((False, False, True))),
    ]
    text = "\n".join(script.weak_classes({"a model": Survey(found)}))
    assert [name in text for name in script.CLASS_NAMES[:3]] == [False, True, False]
    assert "1.0% (0.5-1.9)*, control 0.0%" in text


def test_the_record_is_saved_with_the_weights(script, tmp_path):
    assert script.read_record(tmp_path / "a.safetensors") is None
    record = {"settings": {"epochs": 8, "lr": 0.2}, "accuracy": 1 / 3}
    weights = script.save({"a": torch.zeros(2)}, {"record": script.json.dumps(record)})
    (tmp_path / "a.safetensors").write_bytes(weights)
    assert script.read_record(tmp_path / "a.safetensors") == record

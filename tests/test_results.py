"""Tables and files of a survey."""

import json

import pytest
import torch
from rich.console import Console

from captum_classpattern.metrics import power_of
from captum_classpattern.pattern import Pattern
from captum_classpattern.results import best_canvas, results_table, save_patterns, write_json
from captum_classpattern.survey import Finding, Scores


def finding(target, canvas, hits, *, search_power=0.5, control=0.02):
    patterns = {
        area: Pattern(
            torch.ones(1, 8, 8), torch.full((1, 8, 8), area), target, {"search_power": power}
        )
        for area, power in ((0.05, search_power), (0.01, 0.0))
    }
    scores = {
        0.05: Scores(power_of(hits, 100, 1), control, 0.03),
        0.01: Scores(power_of(2, 100, 1), 0.0, 0.0),
    }
    return Finding(patterns, canvas, scores)


def printed(findings, names=None):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(results_table("a model", findings, names))
    return capture.get()


def test_the_table_has_powers_intervals_and_controls():
    text = printed([finding(1, "white", 50)], ["ant", "bee"])
    row = next(line for line in text.splitlines() if "bee" in line)
    assert row.split() == [
        "bee", "white", "50.0%", "(40.4-59.6)*", "2.0%", "(0.6-7.0)",
        "1.0%", "2.0%", "3.0%",
    ]  # fmt: skip
    assert "power at 5 %" in text
    assert "power at 1 %" in text


def test_no_star_where_a_control_is_inside_the_interval():
    row = printed([finding(0, "white", 50, control=0.45)]).splitlines()[-2]
    assert "50.0% (40.4-59.6) " in row
    assert "*" not in row


def test_best_canvas_goes_by_the_search_images_not_by_the_held_out_ones():
    better = finding(0, "positive", hits=10, search_power=0.9)
    worse = finding(0, "white", hits=90, search_power=0.8)
    other = finding(1, "white", hits=5, search_power=0.1)
    assert best_canvas([worse, better, other]) == [better, other]


def test_patterns_are_saved_under_class_canvas_and_area(tmp_path):
    save_patterns(finding(3, "white", 5), tmp_path / "patterns" / "m")
    paths = sorted((tmp_path / "patterns" / "m").iterdir())
    assert [path.name for path in paths] == ["3_white_0.01.safetensors", "3_white_0.05.safetensors"]
    for path, area in zip(paths, (0.01, 0.05)):
        pattern = Pattern.load(path)
        assert pattern.target == 3
        assert pattern.area == pytest.approx(area)


def test_json_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "r.json"
    write_json({"a": 1}, path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json({"a": object()}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]

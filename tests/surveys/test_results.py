"""Tables and files of a survey."""

import json

import pytest
import torch
from rich.console import Console

from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys.results import (
    best_canvas,
    read_finding,
    results_table,
    save_patterns,
    strongest_class,
    write_json,
)
from captum_classpattern.surveys.survey import Finding, Scores


def finding(target, canvas, hits, *, search_power=0.5, control=0.02, n=100):
    patterns = {
        area: Pattern(
            torch.ones(1, 8, 8), torch.full((1, 8, 8), area), target, {"search_power": power}
        )
        for area, power in ((0.05, search_power), (0.01, 0.0))
    }
    scores = {
        0.05: Scores(power_of(hits, n, 1), control, 0.03),
        0.01: Scores(power_of(2, n, 1), 0.0, 0.0),
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


@pytest.mark.parametrize("control", [0.38, 0.45])
def test_no_star_where_the_difference_to_a_control_may_be_nothing(control):
    row = printed([finding(0, "white", 50, control=control)]).splitlines()[-2]
    assert "50.0% (40.4-59.6) " in row
    assert "*" not in row


def test_a_table_of_too_few_images_has_no_star_and_says_so():
    few = printed([finding(1, "white", 50), finding(0, "white", 50, n=60)])
    assert [("*" in line) for line in few.splitlines() if "50" in line or "83" in line] == [
        True,
        False,
    ]
    assert few.splitlines()[-1].strip() == (
        "Too few images: 60 were scored. A star and 'stands out' need at least 100."
    )
    assert "Too few" not in printed([finding(1, "white", 50)])
    assert "Too few" not in printed([])


def strongest(*powers, n_classes, **changes):
    findings = [finding(y, "white", hits, **changes) for y, hits in enumerate(powers)]
    return strongest_class(findings, "white", 0.05, n_classes=n_classes)


def test_the_strongest_class_stands_out_among_all_classes():
    text = "white canvas, 0.05 of the pixels: 1, 90.0%; next 0, 50.0%"
    assert strongest(50, 90, n_classes=2) == f"{text}. It stands out."
    assert strongest(85, 90, n_classes=2).endswith("next 0, 85.0%.")
    assert strongest(50, 90, n_classes=2, control=0.9) == f"{text}."
    assert strongest(50, 90, n_classes=None) == f"{text}."


def test_two_of_ten_classes_say_nothing_about_standing_out():
    assert strongest(50, 90, n_classes=10) == (
        "white canvas, 0.05 of the pixels: 1, 90.0%; next 0, 50.0%; 2 of 10 classes were searched, "
        "so whether it stands out is not known."
    )
    assert strongest(90, n_classes=10).endswith(
        "0, 90.0%; 1 of 10 classes was searched, so whether it stands out is not known."
    )


def test_too_few_images_say_nothing_about_standing_out():
    assert strongest(5, 55, n_classes=2, n=60).endswith(
        "; 60 images are too few to tell whether it stands out."
    )


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


@pytest.mark.parametrize("name", [None, "guinea pig, Cavia cobaya", "white"])
def test_a_finding_is_read_back(name, tmp_path):
    original = finding(3, "white", 5)
    for pattern in original.patterns.values():
        pattern.info.update(search_images_hash="x", settings={}, passes=1)
        if name is not None:
            pattern.info["class_name"] = name
    others = [finding(13, "white", 5), finding(3, "positive", 5), finding(1, "white", 5)]
    for one in (*others, original):
        save_patterns(one, tmp_path)
    read = read_finding(json.loads(json.dumps(original.as_dict())), tmp_path)
    assert (read.target, read.canvas, read.scores) == (3, "white", original.scores)
    for area, pattern in original.patterns.items():
        assert torch.equal(read.patterns[area].mask, pattern.mask)
        assert read.patterns[area].info == pattern.info


def test_the_files_of_classes_with_names(tmp_path):
    named = finding(3, "white", 5)
    for pattern in named.patterns.values():
        pattern.info["class_name"] = "T-shirt/top"
    save_patterns(named, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"3_T-shirt_top_white_{area}.safetensors" for area in (0.01, 0.05)]


def test_files_of_version_0_1_had_no_names(tmp_path):
    original = finding(3, "white", 5)
    for area, pattern in original.patterns.items():
        pattern.info.update(search_images_hash="x", settings={}, passes=1)
        pattern.save(tmp_path / f"3_white_{area}.safetensors")
    row = {"class_name": "dog", **json.loads(json.dumps(original.as_dict()))}
    assert read_finding(row, tmp_path).patterns.keys() == {0.05, 0.01}


def test_json_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "r.json"
    write_json({"a": 1}, path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json({"a": object()}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]

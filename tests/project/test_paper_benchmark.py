"""The tables of benchmarks/paper.py, on synthetic findings."""

import pytest
import torch
from scripts import imported

from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.intervals import bootstrap_over_classes
from captum_classpattern.scores.power import power_of
from captum_classpattern.scores.shape import simplicity
from captum_classpattern.surveys import Finding, Scores, Survey
from captum_classpattern.triggers import BadNets

NAMES = ("ant", "bee", "cat")
AREA = 4 / 64


@pytest.fixture(scope="module")
def tables():
    return imported("benchmarks", "paper_tables")


@pytest.fixture(scope="module")
def backdoor():
    return imported("benchmarks", "paper_backdoor")


def corner(size=2):
    mask = torch.zeros(1, 8, 8)
    mask[0, -size:, -size:] = 1.0
    return mask


def finding(target, hits, *, mask=None, canvas="white", control=0.01):
    """A class whose pattern turns this many of 1,000 images."""
    info = {"search_power": 0.5, "passes": 1, "search_images_hash": "", "settings": {}}
    pattern = Pattern(torch.ones(1, 8, 8), corner() if mask is None else mask, target, info)
    scores = Scores(power_of(hits, 1000, 0), control, 0.0)
    return Finding({AREA: pattern}, canvas, {AREA: scores})


def cells(table):
    """The rows of a Markdown table, without the header."""
    _, *rows = "\n".join(table).split("\n")[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_interval_is_over_the_means_of_the_classes(tables):
    values = {0: [0.1, 0.3], 1: [0.5, 0.5], 2: [0.8, 1.0], 3: [0.4], 4: [0.1]}
    low, high = bootstrap_over_classes(values).interval
    assert tables.percent(values) == f"42.0% ({100 * low:.1f}-{100 * high:.1f})"
    assert tables.number(values, 3) == f"0.420 ({low:.3f} to {high:.3f})"
    assert low < 0.3 < 0.6 < high
    del values[4]
    assert tables.percent(values) == "50.0%"  # too few classes for an interval
    assert tables.number(values, 1) == "0.5"


def test_power_is_shown_with_its_controls(tables):
    seeds = [
        Survey([finding(0, 950), finding(1, 200), finding(2, 30)]),
        Survey([finding(0, 900), finding(1, 300), finding(2, 30, control=0.5)]),
    ]
    [row] = cells(tables.predictive({"a model": seeds}, NAMES))
    assert row[:2] == ["a model", "white, 6.25 %"]
    assert row[2].startswith("40.2%")
    assert row[3:5] == ["3.0% cat", "92.5% ant"]
    assert row[5:7] == ["1", "2"]  # the cat does not beat its controls in both seeds
    assert row[7:] == ["0.0%", "9.2%", "0.0%"]
    each = cells(tables.each_class(seeds, NAMES))
    assert each[1] == ["bee", "25.0% (20-30)", "1.0%"]
    assert each[2][-1] == "25.5%"


def test_the_backdoored_class_is_compared_with_the_others_and_a_clean_model(backdoor):
    suspect = [
        Survey([finding(0, 900), finding(1, 200), finding(2, 30)]),
        Survey([finding(0, 400), finding(1, 395), finding(2, 30)]),
    ]
    clean = [Survey([finding(0, 20), finding(1, 300), finding(2, 30)])] * 2
    [row] = cells(backdoor.suspicious({"suspect": suspect}, clean, 0, NAMES))
    assert row[2:6] == ["65.0% (40-90)", "1.0%", "29.8% (20-40) bee", "1 of 2"]
    assert row[6:] == ["2.0% (2-2)", "30.0% (30-30) bee", "2 of 2"]


def test_a_pattern_is_compared_with_the_trigger_at_its_place_and_anywhere(backdoor):
    trigger = BadNets((1, 8, 8)).pattern(0)
    white = trigger.mask * (trigger.canvas > 0)  # the five white pixels
    moved = white.roll((-3, -3), (1, 2))
    pixels = trigger.mask > 0
    seeds = [Survey([finding(0, 900, mask=white), finding(1, 200, mask=moved), finding(2, 1)])]
    clean = [Survey([finding(0, 20, mask=corner().flip(2)), finding(1, 1), finding(2, 1)])]
    [row] = cells(backdoor.trigger_found({"suspect": seeds}, clean, 0, trigger, pixels))
    assert row[2:4] == ["0.56", "5.00"]  # five of nine
    # class 1 has the five at another place; class 2 a square of four, one of which agrees
    assert row[4:6] == ["0.04", "3.00"]
    assert row[6:] == ["0.00", "1.00"]


def test_transfer_counts_classes_above_both_controls(tables):
    rows = [
        {"class": y, "on": model, "power": power, "random_pixels": 0.1, "no_pattern": 0.2}
        | {"above_both": power > 0.3}
        for model, powers in {"itself": (0.5, 0.6), "other": (0.25, 0.4)}.items()
        for y, power in enumerate(powers)
    ]
    itself, other = cells(tables.transferred(rows))
    assert (itself[0], itself[-1]) == ("itself", "2 of 2")
    assert (other[0], other[-1]) == ("other", "1 of 2")
    assert itself[1].startswith("55.0%")
    assert itself[3].startswith("20.0%")


def test_shapes_are_shown_with_random_pixels(tables):
    seeds = [Survey(finding(y, 500) for y in range(5))]
    ours, random = cells(tables.shapes({"a model": ("0", seeds)}, AREA))
    square = simplicity(corner())
    assert ours[4] == "5"
    assert ours[5].startswith(f"{square.total_variation:.3f} (")
    assert ours[7] == "1.0 (1.0 to 1.0)"
    assert random[0] == "*random pixels*"
    assert float(random[7].split()[0]) > 2
    assert float(random[6].split()[0]) > square.high_frequency_share


def test_shapes_are_compared_class_by_class(tables):
    two, one = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    two[0, 0, :2] = two[0, 5, :2] = 1.0
    one[0, 0, :4] = 1.0
    masks = (two, two, one, one, two)
    control = [Survey(finding(y, 500, mask=mask) for y, mask in enumerate(masks))]
    seeds = [Survey(finding(y, 500, mask=one) for y in range(5))]
    [row] = cells(tables.simpler(control, {"robust": seeds}, AREA))
    differences = {0: [-1.0], 1: [-1.0], 2: [0.0], 3: [0.0], 4: [-1.0]}
    low, high = bootstrap_over_classes(differences).interval
    assert row == ["robust", "white", row[2], row[3], f"-0.6 ({low:.1f} to {high:.1f})"]


def test_each_canvas_epoch_and_kind_of_labels_has_a_row(tables):
    found = (finding(y, hits, canvas="positive") for y, hits in enumerate((100, 200, 300)))
    seeds = [Survey(found)]
    small = [Survey(Finding({0.01: f.pattern}, f.canvas, {0.01: f.scores[AREA]}) for f in seeds[0])]
    [row] = cells(tables.canvas_kinds(seeds, NAMES, small, 2))
    assert row[0] == "positive"
    assert row[2:] == ["10.0% ant", "30.0% cat", "30.0%", "20.0% bee"]
    [first, last] = cells(tables.over_training({"1": (0.4, seeds), "16": (0.9, seeds)}, AREA))
    assert (first[:2], last[:2]) == (["1", "0.400"], ["16", "0.900"])
    scores = {"training_accuracy": 0.99, "accuracy": 0.1}
    [row] = cells(tables.memorisation({"random": (scores, seeds)}, NAMES))
    assert row[:3] == ["random", "0.990", "0.100"]
    assert row[4].startswith("20.0%")


def synthetic(group):
    """Findings of all classes on each kind of canvas, at each area of a group."""
    return Survey(
        Finding(
            {area: Pattern(torch.rand(3, 32, 32), corners(area), y) for area in group.areas},
            kind,
            {area: Scores(power_of(100 + 20 * y, 450, 5), 0.02, 0.01) for area in group.areas},
        )
        for y in range(10)
        for kind in group.canvases
    )


def corners(area):
    mask = torch.zeros(1, 1024)
    mask[0, : round(1024 * area)] = 1.0
    return mask.view(1, 32, 32)


def test_every_group_has_its_table_and_figures(tmp_path):
    """The results of hours of search, on synthetic findings."""
    paper = imported("benchmarks", "paper")
    found = {
        (name, kind): [synthetic(group)] * group.seeds
        for name, group in paper.GROUPS.items()
        for kind in group.models
    }
    tables = (paper.claim_1, paper.other_triggers, paper.claim_4, paper.canvases)
    for table in tables:
        assert len("\n".join(table(found)).split("\n")) > 3
    paper.draw_figures(found, tmp_path)
    for name in ("paper_patterns.png", "paper_trigger.png"):
        assert (tmp_path / name).stat().st_size > 5_000

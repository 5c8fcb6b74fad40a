"""plot_grid and plot_heat_map show each class of each model where it belongs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from figures import check_layout, pixels, refused
from surveyed import finding

from captum_classpattern import Pattern, plot_grid
from captum_classpattern.surveys import Survey
from captum_classpattern.visualization import heat_map
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.heat_map import plot_heat_map
from captum_classpattern.visualization.scans import ChangeRow, draw_changes
from captum_classpattern.visualization.style import HIT

PETS = ["ant", "bee", "cat"]


def survey(*hits, canvas="white", names=PETS, **settings):
    return Survey(
        [finding(y, canvas, h, class_name=names[y], **settings) for y, h in enumerate(hits)], 3
    )


def ranked(target=4, channels=1):
    return Pattern(torch.ones(channels, 8, 8), torch.rand(1, 8, 8), target)


def titles(axes):
    return [axis.get_title() for axis in axes[0]]


def rows_of(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


OTHER = finding(0, "black", 60, search_power=0.2)
FOUND = replace(finding(0, "white", 90, search_power=0.4), others=(OTHER,))
BEST_IS_SECOND = Survey([finding(0, "white", 90, search_power=0.1), finding(0, "black", 20)])


@pytest.mark.parametrize(
    ("found", "choice", "power"),
    [
        (BEST_IS_SECOND, {}, "20\xa0%"),
        (BEST_IS_SECOND, {"area": 0.01}, "2\xa0%"),
        (FOUND, {}, "90\xa0%"),
        ([FOUND], {"area": 0.05}, "90\xa0%"),
        (FOUND.on_each_canvas[1], {}, "60\xa0%"),
    ],
)
def test_the_validation_images_choose_the_canvas(found, choice, power):
    _, axes = plot_grid(found, **choice, use_pyplot=False)
    assert [axis.get_xlabel() for axis in axes.flat] == [power]
    kept = (pixels(axes[0, 0])[..., 0] == 255).sum()
    assert kept == round(64 * choice.get("area", 0.05))


MODELS = {"old": survey(90, 3, 50), "new": survey(10, 80)}


def test_patterns_are_in_the_row_of_their_model_and_the_column_of_their_class():
    _, axes = plot_grid(MODELS, use_pyplot=False)
    for row, found in zip(axes, MODELS.values()):
        for axis, each in zip(row, found):
            assert axis.get_xlabel() == f"{100 * each.scores[0.05].power.value:.0f}\xa0%"
            binary = each.patterns[0.05].topk(0.05)
            shown = on_neutral(binary.canvas, binary.mask).permute(1, 2, 0)
            assert (pixels(axis) == (255 * shown).round().byte().numpy()).all()
    assert not axes[1, 2].images
    _, axes = plot_grid([ranked(2), ranked(5)], area=0.25, use_pyplot=False)
    assert (pixels(axes[0, 0])[..., 0] == 255).sum() == 16


UNNAMED = Survey([finding(0, "white", 50), finding(1, "white", 50, class_name="class 1")])
LONGER = Survey([finding(0, "white", 50, class_name="Ant, formica")])
NAMED = {"u": UNNAMED, "old": survey(90, 3), "long": LONGER}
CRANES = Survey([finding(y, "white", 50, class_name="crane") for y in (134, 517)])
SHARES = {"weak": {"a": 0.1, "b": 0.3}, "strong": {"b": 0.9, "c": 0.7}, "empty": {}}
GRIDS = {  # with the names of columns and rows
    "models": (MODELS, ["ant", "bee", "cat"], ["old", "new"]),
    "patterns": ([ranked(2), ranked(5)], ["class 2", "class 5"], [""]),
    "one pattern": (ranked(), ["class 4"], [""]),
    "patterns by name": ({"a": ranked(), "b": ranked()}, ["class 4"], ["a", "b"]),
    "names that fit": (NAMED, ["ant", "bee"], ["u", "old", "long"]),
    "one name": (CRANES, ["crane (134)", "crane (517)"], [""]),
}


@pytest.mark.parametrize("case", GRIDS)
def test_the_rows_and_columns_of_a_grid_are_named(case):
    found, columns, rows = GRIDS[case]
    figure, axes = plot_grid(found, use_pyplot=False)
    assert titles(axes) == columns
    assert [axis.get_ylabel() for axis in axes[:, 0]] == rows
    check_layout(figure)


def test_powers_above_their_controls_are_bold_and_others_grey_which_is_said():
    figure, axes = plot_grid(MODELS, use_pyplot=False)
    weights = [axis.xaxis.label.get_fontweight() for axis in axes[0]]
    assert weights == ["bold", "normal", "bold"]
    assert figure.get_supxlabel() == "grey: not above its controls"
    few, axes = plot_grid(survey(50, 3, n=60), use_pyplot=False)  # too few images to compare
    assert {axis.xaxis.label.get_fontweight() for axis in axes[0]} == {"normal"}
    assert few.get_supxlabel() == ""


def test_a_heat_map_has_its_shares_as_numbers():
    given = {"faint": {("strong", "c")}, "title": "Power"}
    figure, [axis] = plot_heat_map(SHARES, **given, use_pyplot=False)
    assert [text.get_text() for text in axis.texts] == ["10", "30", "90", "70"]
    assert figure.get_suptitle() == "Power"
    assert "pale: not above its controls" in figure.axes[1].get_ylabel()
    check_layout(figure)


def test_rows_and_columns_of_a_heat_map_stay_in_their_order():
    _, [axis] = plot_heat_map(SHARES, use_pyplot=False)
    grid = axis.images[0].get_array()
    np.testing.assert_allclose(grid.filled(np.nan), [[0.1, 0.3, np.nan], [np.nan, 0.9, 0.7]])
    assert (axis.images[0].get_alpha() == 1).all()
    _, [pale] = plot_heat_map(SHARES, faint={("strong", "b")}, use_pyplot=False)
    assert (pale.images[0].get_alpha() == [[1, 1, 1], [1, heat_map.FAINT, 1]]).all()
    assert rows_of(axis) == ["weak", "strong"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["a", "b", "c"]
    values = {f"m{i}": {str(j): (i * j % 7) / 7 for j in range(100)} for i in range(70)}
    _, [axis] = plot_heat_map(values, use_pyplot=False)
    assert axis.get_xlabel() == "100 classes"
    assert axis.get_ylabel() == "70 models"
    assert not axis.texts


def test_in_a_scan_predictions_are_green_only_where_the_class_is_suspicious():
    examples = [(torch.ones(1, 8, 8), "cat", True), (torch.ones(1, 8, 8), "dog", False)]
    row = ChangeRow("a warp", PETS, [1.0, -1.1], [0.75, 1.0], None, "", examples)
    rows = [row, replace(row, leads=[0.9, -0.9])]
    _, axes = draw_changes(rows, title=None, note="", use_pyplot=False)
    turned, kept = ([axis.xaxis.label for axis in axes[:, n]] for n in (1, 2))
    assert [label.get_color() for label in turned] == [HIT, "black"]
    assert {label.get_fontweight() for label in turned} == {"bold"}
    assert HIT not in {label.get_color() for label in kept}


SWAPPED = {"old": survey(90, 3), "new": survey(50, 50, names=["bee", "ant"])}
OLD = {"old": survey(50)}
REFUSALS = {
    "a heat map of nothing": lambda: plot_heat_map({"a": {}}),
    "a pattern of a found class": lambda: plot_grid([finding(4, "white", 50), ranked()]),
    "two channels": lambda: plot_grid([ranked(channels=2)], area=0.1),
    "other numbers in a grid": lambda: plot_grid(SWAPPED),
    "a grid at another area": lambda: plot_grid(OLD, area=0.5),
    "no findings": lambda: plot_grid({"old": [3]}),
}


def test_refusals(snapshot):
    assert refused(REFUSALS) == snapshot

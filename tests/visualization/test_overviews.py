"""plot_grid and plot_powers, read back from the figures."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from figures import badly_placed, pixels
from matplotlib.colors import to_hex
from surveyed import finding

from captum_classpattern import Pattern, Survey, plot_grid, plot_powers
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.overviews import COLORS

PETS = ["ant", "bee", "cat"]


def survey(*hits, canvas="white", **settings):
    return Survey(
        [finding(y, canvas, h, class_name=PETS[y], **settings) for y, h in enumerate(hits)], 3
    )


def drawn_dots(axis):
    """(x, y, whether filled) of each power's dot."""
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_fillstyle() == "full")
        for line in axis.get_lines()
        if line.get_marker() == "o"
    ]


def test_a_row_for_each_model_and_a_column_for_each_class():
    models = {"old": survey(90, 3, 50), "new": survey(10, 80)}
    figure, axes = plot_grid(models, use_pyplot=False)
    assert axes.shape == (2, 3)
    assert [axis.get_title() for axis in axes[0]] == PETS
    assert [row[0].get_ylabel() for row in axes] == ["old", "new"]
    assert [axis.get_xlabel() for axis in axes.flat] == [
        *("90\xa0%", "3\xa0%", "50\xa0%", "10\xa0%", "80\xa0%", "")
    ]
    for row, found in zip(axes, models.values()):
        for axis, each in zip(row, found):
            shown = on_neutral(each.patterns[0.05].topk(0.05)).permute(1, 2, 0)
            assert (pixels(axis) == (255 * shown).round().byte().numpy()).all()
    assert not axes[1, 2].images
    assert not badly_placed(figure)


def test_what_is_not_above_its_controls_is_grey():
    figure, axes = plot_grid({"old": survey(90, 3)}, use_pyplot=False)
    weights = [axis.xaxis.label.get_fontweight() for axis in axes[0]]
    assert weights == ["bold", "normal"]
    assert axes[0, 0].xaxis.label.get_color() != axes[0, 1].xaxis.label.get_color()
    assert figure.get_supxlabel() == "grey: not above its controls"
    few, few_axes = plot_grid({"old": survey(50, 3, n=60)}, use_pyplot=False)
    assert {axis.xaxis.label.get_fontweight() for axis in few_axes[0]} == {"normal"}
    assert few.get_supxlabel() == ""


def test_the_judging_images_choose_the_canvas_and_so_does_the_user():
    both = Survey(
        [finding(0, "white", 90, search_power=0.1), finding(0, "positive", 20, search_power=0.4)]
    )
    for canvas, power in ((None, "20\xa0%"), ("white", "90\xa0%"), ("positive", "20\xa0%")):
        _, axes = plot_grid(both, canvas=canvas, use_pyplot=False)
        assert axes[0, 0].get_xlabel() == power
    _, axes = plot_grid(both, area=0.01, use_pyplot=False)
    assert axes[0, 0].get_xlabel() == "2\xa0%"
    assert (pixels(axes[0, 0])[..., 0] == 255).sum() == round(0.01 * 64)


def test_the_other_canvases_of_a_finding_can_be_drawn():
    """Those of ``explain_class``, whose first finding is the best on the judging images."""
    other = finding(0, "black", 60, search_power=0.2)
    found = replace(finding(0, "white", 90, search_power=0.4), others=(other,))
    powers = {None: "90\xa0%", "white": "90\xa0%", "black": "60\xa0%"}
    for canvas, power in powers.items():
        for given in (found, [found]):
            _, axes = plot_grid(given, canvas=canvas, use_pyplot=False)
            assert axes[0, 0].get_xlabel() == power
        _, [axis] = plot_powers(found, canvas=canvas, use_pyplot=False)
        assert [text.get_text() for text in axis.texts] == [power]
    at_its_own_area = replace(found, scores={0.05: found.scores[0.05]})
    _, axes = plot_grid(at_its_own_area, area=0.01, use_pyplot=False)
    assert axes[0, 0].get_xlabel() == "2\xa0%"
    assert len(axes) == 1


@pytest.mark.parametrize("plot", [plot_grid, plot_powers])
def test_models_that_number_their_classes_differently_are_refused(plot):
    """They would share a column."""
    swapped = Survey([finding(y, "white", 50, class_name=n) for y, n in enumerate(["bee", "ant"])])
    with pytest.raises(ValueError, match="class 0 is 'ant' in 'old', but 'bee' in 'new': draw"):
        plot({"old": survey(90, 3), "new": swapped}, use_pyplot=False)
    unnamed = Survey([finding(0, "white", 50), finding(1, "white", 50, class_name="class 1")])
    longer = Survey([finding(0, "white", 50, class_name="Ant, formica")])
    _, axes = plot({"u": unnamed, "old": survey(90, 3), "long": longer}, use_pyplot=False)
    if plot is plot_grid:
        assert [axis.get_title() for axis in axes[0]] == ["ant", "bee"]


def test_one_pattern_for_each_class():
    first, second = (Pattern(torch.ones(1, 8, 8), torch.rand(1, 8, 8), 4) for _ in range(2))
    with pytest.raises(ValueError, match="a model has several patterns of class 4: give one for"):
        plot_grid([first, second], area=0.1, use_pyplot=False)
    with pytest.raises(ValueError, match="a model has several patterns of class 4: give one for"):
        plot_grid([finding(4, "white", 50), first], use_pyplot=False)
    _, axes = plot_grid({"one": first, "two": second}, area=0.1, use_pyplot=False)
    assert axes.shape == (2, 1)


def test_patterns_alone_have_no_power():
    patterns = [Pattern(torch.ones(1, 8, 8), torch.rand(1, 8, 8), y) for y in (2, 5)]
    _, axes = plot_grid({"mine": patterns}, area=0.25, use_pyplot=False)
    assert [axis.get_title() for axis in axes[0]] == ["class 2", "class 5"]
    assert [axis.get_xlabel() for axis in axes[0]] == ["", ""]
    assert (pixels(axes[0, 0])[..., 0] == 255).sum() == 16
    _, axes = plot_grid(patterns[0], use_pyplot=False)
    assert axes.shape == (1, 1)
    with pytest.raises(TypeError, match="a pattern alone has no power"):
        plot_powers(patterns, use_pyplot=False)


def test_dots_lie_at_the_powers_with_intervals_and_controls():
    found = survey(90, 3, 50)
    figure, [axis] = plot_powers(found, use_pyplot=False)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ant", "cat", "bee"]
    by_power = sorted(found, key=lambda each: -each.scores[0.05].power.value)
    dots = drawn_dots(axis)
    assert [x for x, _, _ in dots] == [each.scores[0.05].power.value for each in by_power]
    assert [full for *_, full in dots] == [True, True, False]
    heights = [y for _, y, _ in dots]
    assert heights == pytest.approx(list(axis.get_yticks()))
    lines = axis.get_lines()
    for each, y in zip(by_power, heights):
        here = [line for line in lines if np.allclose(line.get_ydata(), y)]
        xs = [tuple(np.atleast_1d(line.get_xdata()).tolist()) for line in here]
        scores = each.scores[0.05]
        assert scores.power.interval in xs
        for control in (scores.power.without, scores.random_pixels, scores.other_canvas):
            assert (control,) in xs
    assert [text.get_text() for text in axis.texts] == ["90\xa0%", "50\xa0%", "3\xa0%"]
    assert not badly_placed(figure)


def test_several_models_are_named_next_to_their_first_dots():
    models = {"old": survey(90, 3, 50), "new": survey(10, 80, 20)}
    figure, [axis] = plot_powers(models, use_pyplot=False)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ant", "bee", "cat"]
    names = {text.get_text(): to_hex(text.get_color()) for text in axis.texts}
    assert names == {"old": COLORS[0], "new": COLORS[1]}
    dots = drawn_dots(axis)
    assert [x for x, _, _ in dots] == [0.9, 0.1, 0.03, 0.8, 0.5, 0.2]
    assert len({y for _, y, _ in dots}) == 6
    assert not badly_placed(figure)


def test_classes_are_chosen_and_ordered_by_name_or_number():
    found = survey(90, 3, 50)
    _, axes = plot_grid(found, classes=["cat", 0], use_pyplot=False)
    assert [axis.get_title() for axis in axes[0]] == ["cat", "ant"]
    _, [axis] = plot_powers(found, classes=["bee", "ant"], use_pyplot=False)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["bee", "ant"]
    with pytest.raises(ValueError, match="nothing was found for class 7 here"):
        plot_grid(found, classes=[7], use_pyplot=False)
    with pytest.raises(ValueError, match="no class 'cow'"):
        plot_grid(found, classes=["cow"], use_pyplot=False)


def test_of_many_classes_the_strongest_are_drawn():
    many = Survey([finding(y, "white", (7 * y) % 25, class_name=f"pet {y}") for y in range(25)])
    figure, axes = plot_grid(many, title="Pets", use_pyplot=False)
    assert figure.get_suptitle() == "Pets (the 20 strongest of 25 classes)"
    left_out = [y for y in range(25) if (7 * y) % 25 < 5]
    assert [axis.get_title() for axis in axes[0]] == [
        f"pet {y}" for y in range(25) if y not in left_out
    ]
    _, [axis] = plot_powers(many, use_pyplot=False)
    assert len(axis.get_yticklabels()) == 20


def test_classes_of_one_name_stay_apart():
    cranes = Survey([finding(y, "white", 50, class_name="crane") for y in (134, 517)])
    _, axes = plot_grid(cranes, use_pyplot=False)
    assert [axis.get_title() for axis in axes[0]] == ["crane (134)", "crane (517)"]


@pytest.mark.parametrize("plot", [plot_grid, plot_powers])
def test_what_cannot_be_drawn_is_refused(plot):
    with pytest.raises(ValueError, match="there is nothing to draw: no class was found"):
        plot({"old": survey(50)}, canvas="black", use_pyplot=False)
    with pytest.raises(ValueError, match="there is nothing to draw"):
        plot({"old": survey(50)}, area=0.5, use_pyplot=False)
    with pytest.raises(TypeError, match="each model needs a Survey, findings or patterns, got int"):
        plot({"old": [3]}, use_pyplot=False)


def test_channels_that_are_no_image_are_refused():
    odd = Pattern(torch.rand(2, 8, 8), torch.rand(1, 8, 8), 0)
    with pytest.raises(ValueError, match="only greyscale and colour images"):
        plot_grid([odd], area=0.1, use_pyplot=False)


def test_names_are_not_read_as_formulas():
    named = replace(finding(0, "white", 90), class_name=r"$\frac{$_a")
    for figure, _ in (
        plot_grid({r"$x": named, "new": named}, use_pyplot=False),
        plot_powers({r"$x$^": named, "new": named}, use_pyplot=False),
    ):
        figure.draw_without_rendering()


def test_pyplot_shows_the_figures():
    for plot in (plot_grid, plot_powers):
        before = len(matplotlib.pyplot.get_fignums())
        plot(survey(90))
        assert len(matplotlib.pyplot.get_fignums()) == before + 1
    matplotlib.pyplot.close("all")

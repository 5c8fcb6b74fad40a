"""What plot_curves draws, read back from the figure's own artists."""

import numpy as np
import pytest
import torch
from figures import badly_placed
from matplotlib import pyplot
from matplotlib.colors import to_hex

from captum_classpattern.visualization import plot_curves

AREAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
METHODS = [f"Method number {i}" for i in range(12)]
CONTROLS = ["random pixels", "same mask, other canvas"]


def points(top):
    values = [top * (area / 0.2) ** 0.5 for area in AREAS]
    return [(area, p, max(p - 0.03, 0), min(p + 0.04, 1)) for area, p in zip(AREAS, values)]


def three_methods(*tops):
    tops = tops or (0.9, 0.5, 0.04)
    return {name: points(top) for name, top in zip(["ClassPattern", "Lime", "random pixels"], tops)}


def fifteen_methods():
    names = ["ClassPattern", *METHODS, *CONTROLS]
    return {name: points(0.95 - 0.06 * i) for i, name in enumerate(names)}


def line_of(axis, name):
    [line] = [line for line in axis.get_lines() if line.get_label() == name]
    return line


def test_lines_and_shades_are_the_points_that_were_given():
    curves = {"natural": three_methods(), "robust": three_methods(0.3, 0.2, 0.1)}
    shuffled = {p: {m: x[::-1] for m, x in methods.items()} for p, methods in curves.items()}
    _, axes = plot_curves(shuffled, use_pyplot=False)
    assert [axis.get_title() for axis in axes] == ["natural", "robust"]
    for axis, methods in zip(axes, curves.values()):
        assert len(axis.collections) == len(methods)
        for shade, (name, given) in zip(axis.collections, methods.items()):
            assert np.allclose(line_of(axis, name).get_xydata(), [point[:2] for point in given])
            corners = {tuple(np.round(corner, 9)) for corner in shade.get_paths()[0].vertices}
            ends = {(a, round(end, 9)) for a, _, low, high in given for end in (low, high)}
            assert ends <= corners
            assert to_hex(shade.get_facecolor()[0]) == line_of(axis, name).get_color()


def test_areas_are_percentages_on_a_log_axis_and_power_goes_from_0_to_100():
    _, [axis] = plot_curves({"m": three_methods()}, areas_marked=[0.05], use_pyplot=False)
    assert axis.get_xscale() == "log"
    assert [t.get_text() for t in axis.get_xticklabels()] == ["0.5", "1", "2", "5", "10", "20"]
    assert np.allclose(axis.get_xticks(), AREAS)
    assert list(axis.get_xticks(minor=True)) == []
    low, high = axis.get_ylim()
    assert -0.05 < low <= 0
    assert 1 <= high < 1.05
    axis.figure.canvas.draw()
    assert [t.get_text() for t in axis.get_yticklabels()][::5] == ["0 %", "100 %"]
    assert any(set(line.get_xdata()) == {0.05} for line in axis.get_lines())


def test_a_single_area_and_a_wide_range():
    one = {"m": {"a": [(0.03, 0.5, 0.4, 0.6)]}}
    _, [axis] = plot_curves(one, use_pyplot=False)
    assert [t.get_text() for t in axis.get_xticklabels()] == ["3"]
    wide = {"m": {"a": [(1e-5, 0.1, 0.1, 0.1), (1.0, 1.0, 0.9, 1.0)]}}
    figure, [axis] = plot_curves(wide, use_pyplot=False)
    assert badly_placed(figure) == []
    assert 3 <= len(axis.get_xticks()) < 9


def test_highlights_are_thick_controls_dashed_grey_and_the_others_differ():
    _, [axis] = plot_curves(
        {"m": fifteen_methods()}, highlight=["ClassPattern"], controls=CONTROLS, use_pyplot=False
    )
    others = [line_of(axis, name) for name in METHODS]
    top = line_of(axis, "ClassPattern")
    assert top.get_linewidth() > 2 * max(line.get_linewidth() for line in others)
    assert top.get_zorder() > max(line.get_zorder() for line in others)
    assert len({line.get_color() for line in [top, *others]}) == 13
    greys = [line_of(axis, name) for name in CONTROLS]
    assert all(line.is_dashed() and line.get_color() == "#8c959f" for line in greys)
    assert not any(line.is_dashed() for line in [top, *others])


def test_fifty_methods_are_drawn_in_fifty_ways():
    curves = {"m": {f"m{i}": points(i / 50) for i in range(50)}}
    _, [axis] = plot_curves(curves, use_pyplot=False)
    assert len({(line.get_color(), line.get_marker()) for line in axis.get_lines()}) == 50


def test_a_method_looks_the_same_in_all_panels():
    curves = {
        "a": three_methods(),
        "b": dict(reversed(three_methods().items())),
        "c": {"Lime": points(0.2)},
    }
    _, axes = plot_curves(curves, use_pyplot=False)
    for name in three_methods():
        looks = {line_of(axis, name).get_color() for axis in axes[: 3 if name == "Lime" else 2]}
        assert len(looks) == 1


def test_three_methods_are_named_at_their_ends():
    figure, [axis] = plot_curves({"m": three_methods()}, use_pyplot=False)
    assert not figure.legends
    for text in axis.texts:
        line = line_of(axis, text.get_text())
        assert text.get_color() == line.get_color()
        assert text.xy == pytest.approx(line.get_xydata()[-1])
    assert len(axis.texts) == 3


@pytest.mark.parametrize(
    "methods",
    [
        fifteen_methods(),
        {f"m{i}": points(0.9 - 0.05 * i) for i in range(4)},
        {"a method with a name of some length": points(0.9)},
        {"short": points(0.5)[:3], "long": points(0.9)},
    ],
    ids=["too many", "too close", "a long name", "of different lengths"],
)
def test_otherwise_one_legend_below_names_all_methods(methods):
    figure, axes = plot_curves({"a": methods, "b": three_methods()}, use_pyplot=False)
    assert not any(axis.texts for axis in axes)
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert sorted(names) == sorted({*methods, *three_methods()})


def test_the_legend_begins_with_highlights_and_ends_with_controls():
    reverse = dict(reversed(fifteen_methods().items()))
    figure, _ = plot_curves(
        {"m": reverse}, highlight=["ClassPattern"], controls=CONTROLS, use_pyplot=False
    )
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == "ClassPattern"
    assert sorted(names[-2:]) == sorted(CONTROLS)


def test_six_methods_are_named_at_their_ends_without_overlap():
    methods = {f"Method number {i}": points(0.9 - 0.066 * i) for i in range(6)}
    figure, axes = plot_curves({"a": methods, "b": methods}, use_pyplot=False)
    assert [len(axis.texts) for axis in axes] == [6, 6]
    for dpi in (50, 100):
        assert badly_placed(figure, dpi) == []


LONG = {f"NoiseTunnel (IntegratedGradients), class mean, number {i} of many": points(0.1 * i)
        for i in range(9)}  # fmt: skip


@pytest.mark.parametrize("panels", range(1, 7))
@pytest.mark.parametrize(
    "methods", [three_methods(), fifteen_methods(), LONG], ids=["three", "fifteen", "long names"]
)
def test_no_text_overlaps_another_and_nothing_is_cut_off(panels, methods):
    curves = {f"a model with a name of some length, number {i}": methods for i in range(panels)}
    figure, axes = plot_curves(curves, highlight=[next(iter(methods))], use_pyplot=False)
    assert len(axes) == panels == len(figure.axes)
    for dpi in (50, 100):
        assert badly_placed(figure, dpi) == []
    heights = [axis.get_position().height * figure.get_figheight() for axis in axes]
    assert min(heights) > 3  # inches: the legend takes no room from the panels
    assert figure.get_figwidth() < 13


def test_titles_may_be_given():
    _, axes = plot_curves(
        {"a": three_methods(), "b": three_methods()}, titles=["A", "B"], use_pyplot=False
    )
    assert [axis.get_title() for axis in axes] == ["A", "B"]


CHANGES = {
    "no panels": ({"curves": {}}, "no curves to draw"),
    "no methods": ({"curves": {"m": {}}}, "panel 'm' has no methods: leave it out"),
    "no points": ({"curves": {"m": {"a": []}}}, "'a' in panel 'm' has no points: leave it out"),
    "three": ({"curves": {"m": {"a": [(0.1, 0.2, 0.3)]}}}, r"\(area, value, low, high\), got \(0"),
    "percent": ({"curves": {"m": {"a": [(5, 0.2, 0.1, 0.3)]}}}, r"shares .*got .* = \(5.0, 0.2"),
    "nan": ({"curves": {"m": {"a": [(0.1, float("nan"), 0, 1)]}}}, "got .* nan"),
    "order": ({"curves": {"m": {"a": [(0.1, 0.5, 0.6, 0.7)]}}}, "low <= value <= high"),
    "titles": ({"titles": ["a", "b"]}, "1 panels need as many titles, got 2"),
    "title": ({"titles": "natural"}, "1 panels need as many titles, got 'natural'"),
    "highlight": ({"highlight": ["Occlusion"]}, "highlight must be .*'Lime'.*, got 'Occlusion'"),
    "one": ({"highlight": "Lime"}, "highlight must be a list of methods"),
    "controls": ({"controls": ["unknown"]}, "controls must be a list of methods .*, got 'unknown'"),
    "marked": ({"areas_marked": [5]}, "areas_marked must be shares above 0, up to 1, got 5"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_arguments_are_checked_before_a_figure_is_opened(name):
    change, text = CHANGES[name]
    before = pyplot.get_fignums()
    with pytest.raises(ValueError, match=text):
        plot_curves(**{"curves": {"m": three_methods()}, **change})
    assert pyplot.get_fignums() == before


def test_rounded_intervals_are_accepted():
    plot_curves({"m": {"a": [(0.1, 1.0, 0.9, 1 - 1e-12)]}}, use_pyplot=False)


def test_random_states_are_kept_and_pyplot_only_knows_its_figures():
    state, numpy_state, before = torch.get_rng_state(), np.random.get_state(), pyplot.get_fignums()
    plot_curves({"m": three_methods()}, use_pyplot=False)
    assert pyplot.get_fignums() == before
    figure, _ = plot_curves({"m": three_methods()})
    assert pyplot.gcf() is figure
    pyplot.close(figure)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])

"""plot_curves draws the points that it is given, and names their methods."""

import numpy as np
import pytest
from figures import check_layout, height_of_panels, legend_of, line_of
from matplotlib.colors import to_hex

from captum_classpattern.visualization.curves import plot_curves
from captum_classpattern.visualization.style import CONTROL

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


def test_lines_and_shades_are_the_points_and_a_method_looks_the_same_in_all_panels():
    curves = {"a": three_methods(), "b": three_methods(0.3, 0.2, 0.1), "c": {"Lime": points(0.2)}}
    shuffled = {panel: {m: x[::-1] for m, x in curves[panel].items()} for panel in curves}
    shuffled["b"] = dict(reversed(shuffled["b"].items()))
    _, axes = plot_curves(shuffled, use_pyplot=False)
    for axis, panel in zip(axes, curves):
        shades = dict(zip(shuffled[panel], axis.collections, strict=True))
        for name, given in curves[panel].items():
            line, shade = line_of(axis, name), shades[name]
            assert np.allclose(line.get_xydata(), [point[:2] for point in given])
            corners = {tuple(np.round(corner, 9)) for corner in shade.get_paths()[0].vertices}
            ends = {(a, round(end, 9)) for a, _, low, high in given for end in (low, high)}
            assert ends <= corners
            assert to_hex(shade.get_facecolor()[0]) == line.get_color()
            assert line.get_color() == line_of(axes[0], name).get_color()


REVERSE = dict(reversed(fifteen_methods().items()))
NOISY = {f"NoiseTunnel (IntegratedGradients), class mean, number {i} of many": points(0.1 * i)
         for i in range(9)}  # fmt: skip


def test_the_legend_begins_with_wide_highlights_and_ends_with_grey_dashed_controls():
    own = {"highlight": ["ClassPattern"], "controls": CONTROLS}
    figure, [axis] = plot_curves({"m": REVERSE}, **own, use_pyplot=False)
    assert legend_of(figure) == ["ClassPattern", *reversed(METHODS), *reversed(CONTROLS)]
    check_layout(figure)
    ours, rival, control = (line_of(axis, n) for n in ("ClassPattern", METHODS[0], CONTROLS[0]))
    assert ours.get_linewidth() > 2 * rival.get_linewidth()
    assert ours.get_color() != rival.get_color()
    assert to_hex(control.get_color()) == CONTROL
    assert (control.get_linestyle(), rival.get_linestyle()) == ("--", "-")


@pytest.mark.parametrize(
    ("areas", "ticks"),
    [
        ([0.03], ["3"]),
        ([1e-5, 1.0], ["0.001", "0.01", "0.1", "1", "10", "100"]),
        (AREAS, ["0.5", "1", "2", "5", "10", "20"]),
    ],
)
def test_areas_are_percents_on_a_logarithmic_axis_and_powers_from_0_to_1(areas, ticks):
    given = {"m": {"a": [(area, 1.0, 0.4, 1 - 1e-12) for area in areas]}}
    figure, [axis] = plot_curves(given, areas_marked=[0.05], use_pyplot=False)
    figure.draw_without_rendering()
    assert axis.get_xscale() == "log"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ticks
    assert [tick.get_text() for tick in axis.get_yticklabels()][::5] == ["0 %", "100 %"]
    assert axis.get_xlabel() == "area of the pattern (% of the pixels)"
    assert [*axis.get_lines()[0].get_xdata()] == [0.05, 0.05]
    check_layout(figure)


@pytest.mark.parametrize(("panels", "methods"), [(2, fifteen_methods()), (3, NOISY)])
def test_panels_keep_clear_of_each_other(panels, methods):
    curves = {f"a model with a name of some length, number {i}": methods for i in range(panels)}
    figure, axes = plot_curves(curves, highlight=[next(iter(methods))], use_pyplot=False)
    assert len(axes) == panels == len(figure.axes)
    check_layout(figure)
    assert height_of_panels(figure, axes) > 3  # the legend takes no room from them

"""plot_curves draws the points that it is given, named where there is room."""

import numpy as np
import pytest
from figures import check_layout, described, height_of_panels, line_of, refused
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


SIX = {name: points(0.9 - 0.066 * i) for i, name in enumerate(METHODS[:6])}
REVERSE = dict(reversed(fifteen_methods().items()))
NOISY = {f"NoiseTunnel (IntegratedGradients), class mean, number {i} of many": points(0.1 * i)
         for i in range(9)}  # fmt: skip
CURVES = {
    "three": ({"A": three_methods()}, {"areas_marked": [0.05]}),
    "six": ({"a": SIX, "b": SIX}, {}),
    "too many": ({"m": REVERSE}, {"highlight": ["ClassPattern"], "controls": CONTROLS}),
    "too close": ({"m": {f"m{i}": points(0.9 - 0.05 * i) for i in range(4)}}, {}),
    "a long name": ({"m": {"a method with a name of some length": points(0.9)}}, {}),
    "of different lengths": ({"m": {"short": points(0.5)[:3], "long": points(0.9)}}, {}),
    "one area, rounded": ({"m": {"a": [(0.03, 1.0, 0.4, 1 - 1e-12)]}}, {}),
    "a wide range": ({"m": {"a": [(1e-5, 0.1, 0.1, 0.1), (1.0, 1.0, 0.9, 1.0)]}}, {}),
}


@pytest.mark.parametrize("case", CURVES)
def test_what_curves_show(case, snapshot):
    curves, options = CURVES[case]
    figure, _ = plot_curves(curves, **options, use_pyplot=False)
    assert described(figure) == snapshot
    check_layout(figure)


@pytest.mark.parametrize(
    ("panels", "methods"), [(2, fifteen_methods()), (3, three_methods()), (4, NOISY), (5, SIX)]
)
def test_panels_keep_clear_of_each_other(panels, methods):
    curves = {f"a model with a name of some length, number {i}": methods for i in range(panels)}
    figure, axes = plot_curves(curves, highlight=[next(iter(methods))], use_pyplot=False)
    assert len(axes) == panels == len(figure.axes)
    check_layout(figure)
    assert height_of_panels(figure, axes) > 3  # the legend takes no room from them


def test_fifty_methods_are_drawn_in_fifty_ways():
    fifty = {"m": {f"m{i}": points(i / 50) for i in range(50)}}
    _, [axis] = plot_curves(fifty, use_pyplot=False)
    assert len({(line.get_color(), line.get_marker()) for line in axis.get_lines()}) == 50


def curves(*given, **changes):
    """Draws one method with this point, or with these arguments."""
    methods = {"a": [*given]} if given else three_methods()
    return lambda: plot_curves(**{"curves": {"m": methods}, **changes})


REFUSALS = {
    "no panels": curves(curves={}),
    "no methods": curves(curves={"m": {}}),
    "no points": curves(curves={"m": {"a": []}}),
    "percent": curves((5, 0.2, 0.1, 0.3)),
    "nan": curves((0.1, float("nan"), 0, 1)),
    "order": curves((0.1, 0.5, 0.6, 0.7)),
    "highlight": curves(highlight=["Occlusion"]),
    "one highlight": curves(highlight="Lime"),
    "controls": curves(controls=["unknown"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refused(REFUSALS[case]) == snapshot

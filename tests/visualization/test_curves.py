"""plot_curves and plot_search draw the points that they are given, named where there is room."""

import numpy as np
import pytest
import torch
from figures import check_layout, described, height_of_panels, legend_of, line_of, refused, texts_in
from matplotlib.colors import to_hex

from captum_classpattern import Pattern
from captum_classpattern.visualization import plot_curves, plot_search

AREAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
METHODS = [f"Method number {i}" for i in range(12)]
CONTROLS = ["random pixels", "same mask, other canvas"]
LONG = "great white shark, white shark, man-eater, Carcharodon carcharias, number {}"


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


def pattern_of(power=0.4, *, target=3, rounds=40, **info):
    """A pattern whose power ends at this value, and whose loss falls, with noise."""
    noise = np.random.default_rng(target).uniform(-0.1, 0.1, rounds)
    curves = {
        "power_curve": [[720, power * 0.2], [1680, power * 0.8], [2960, power]],
        "loss_curve": (np.linspace(0.9, 1 - power * 0.8, rounds) + noise).tolist(),
    }
    return Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target, {**curves, **info})


@pytest.mark.parametrize(("rounds", "mean"), [(4, 1), (10, 3), (40, 9), (900, 21)])
def test_lines_are_the_curves_in_info_and_losses_are_averaged(rounds, mean):
    """Over the same number of rounds for all patterns: that of the longest search."""
    patterns = [pattern_of(rounds=rounds, target=0), pattern_of(rounds=3, target=1)]
    _, (left, right) = plot_search(patterns, use_pyplot=False)
    assert (f"mean of {mean} rounds" in right.get_xlabel()) == (mean > 1)
    raw_lines = [line for line in right.get_lines() if line.get_alpha() is not None]
    for pattern, raw in zip(patterns, raw_lines, strict=True):
        losses, name = pattern.info["loss_curve"], f"class {pattern.target}"
        powers, means = line_of(left, name), line_of(right, name)
        rounds = range(1, len(losses) + 1)
        near = [losses[max(0, i - 1 - mean // 2) : i + mean // 2] for i in rounds]
        assert powers.get_xydata().tolist() == pattern.info["power_curve"]
        assert raw.get_xydata().tolist() == [[*point] for point in zip(rounds, losses)]
        assert np.allclose(means.get_xydata(), [*zip(rounds, map(np.mean, near))])
        assert powers.get_color() == raw.get_color() == means.get_color()


DRESS, LOW, HIGH = pattern_of(class_name="Dress"), pattern_of(0.2), pattern_of(0.8)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (DRESS, ["Dress"]),
        ((DRESS, pattern_of(target=5), DRESS), ["Dress (1)", "class 5", "Dress (2)"]),
        ({"white": LOW, "black": HIGH}, ["white", "black"]),
        ({1: LOW, 2: HIGH}, ["1", "2"]),
    ],
)
def test_patterns_are_named_by_their_keys_or_classes(patterns, names):
    figure, (left, _) = plot_search(patterns, use_pyplot=False)
    assert texts_in(left) + legend_of(figure) == names


TWO_POINTS = [[720, 0.1], [1680, 0.3]]
UNJUDGED = {"power_curve": [], "search_power": None, "loss_curve": [0.5, 0.4]}
EARLY = pattern_of(power_curve=TWO_POINTS, rounds=3, stopped_early=True, class_name="early")
SEARCHES = {
    "two": [pattern_of(rounds=5), EARLY],
    "losses above 1": pattern_of(loss_curve=[2.5, 1.5, 0.5]),
    "losses below 0": pattern_of(loss_curve=[0.5, -3.0]),
    "no powers": pattern_of(**UNJUDGED),
    "no losses": pattern_of(loss_curve=[]),
    "one without powers, one without losses": [pattern_of(**UNJUDGED), pattern_of(loss_curve=[])],
    "of an older version": Pattern(LOW.canvas, LOW.mask, 3, {"loss_curve": [0.5, 0.4]}),
    "stopped at once": pattern_of(power_curve=[[0, 0.1]], loss_curve=[], stopped_early=True),
    "stopped after a round": pattern_of(power_curve=[], loss_curve=[0.5], stopped_early=True),
}


@pytest.mark.parametrize("case", SEARCHES)
def test_what_searches_show(case, snapshot):
    figure, _ = plot_search(SEARCHES[case], use_pyplot=False)
    assert described(figure) == snapshot
    check_layout(figure)


@pytest.mark.parametrize(
    ("count", "info"), [(4, {"power_curve": []}), (10, {}), (30, {"stopped_early": True})]
)
def test_searches_keep_clear_of_each_other(count, info):
    named = {LONG.format(i): pattern_of(i / count, target=i, **info) for i in range(count)}
    figure, axes = plot_search(named, use_pyplot=False)
    check_layout(figure)
    assert height_of_panels(figure, axes) > 3
    styles = {(line.get_color(), line.get_marker()) for line in axes[0].get_lines()}
    assert len(styles) >= count


def curves(*given, **changes):
    """Draws one method with this point, or with these arguments."""
    methods = {"a": [*given]} if given else three_methods()
    return lambda: plot_curves(**{"curves": {"m": methods}, **changes})


def search(patterns):
    return lambda: plot_search(patterns)


MADE = Pattern(LOW.canvas, LOW.mask, 3, {"seed": 1, "passes": 2})
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
    "no patterns": search([]),
    "an empty mapping": search({}),
    "made by hand": search({"a": pattern_of(), "b": MADE}),
    "no info": search(Pattern(MADE.canvas, MADE.mask, 3)),
    "empty curves": search(pattern_of(power_curve=[], loss_curve=[])),
    "a tensor": search(torch.zeros(1, 2)),
    "a path": search(["pattern.safetensors"]),
    "none for a label": search({"a": None}),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refused(REFUSALS[case]) == snapshot

"""What plot_search draws, read back from the figure's own artists."""

import numpy as np
import pytest
import torch
from figures import badly_placed
from matplotlib import pyplot
from matplotlib.colors import to_hex

from captum_classpattern import ClassPattern, Pattern
from captum_classpattern.visualization import plot_search

POWERS = [[720, 0.1], [1680, 0.3], [2960, 0.4]]


def pattern_of(power=0.4, *, target=3, rounds=40, **info):
    """A pattern whose power ends at this value, and whose loss falls, with noise."""
    noise = np.random.default_rng(target).uniform(-0.1, 0.1, rounds)
    curves = {
        "power_curve": [
            [passes, power * share] for passes, share in zip((720, 1680, 2960), (0.2, 0.8, 1))
        ],
        "loss_curve": (np.linspace(0.9, 1 - power * 0.8, rounds) + noise).tolist(),
    }
    return Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), target, {**curves, **info})


def several(count, **info):
    return [
        pattern_of((i + 1) / (count + 1), target=i, class_name=f"name {i}", **info)
        for i in range(count)
    ]


def lines_of(axis, name):
    return [line for line in axis.get_lines() if line.get_label() == name]


def raw_lines(axis):
    return [line for line in axis.get_lines() if line.get_alpha() is not None]


def open_ends(axis):
    """The points of the open markers."""
    return [
        tuple(line.get_xydata()[0])
        for line in axis.get_lines()
        if line.get_markerfacecolor() == "white"
    ]


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def moving_average(values, reach):
    return [
        float(np.mean([v for j, v in enumerate(values) if abs(i - j) <= reach]))
        for i in range(len(values))
    ]


def test_the_lines_are_the_curves_in_info():
    patterns = several(3)
    _, (left, right) = plot_search(patterns, use_pyplot=False)
    for i, (pattern, raw) in enumerate(zip(patterns, raw_lines(right), strict=True)):
        [powers], [means] = lines_of(left, f"name {i}"), lines_of(right, f"name {i}")
        assert powers.get_xydata().tolist() == pattern.info["power_curve"]
        assert powers.get_marker() not in ("None", "")
        assert raw.get_xdata().tolist() == means.get_xdata().tolist() == [*range(1, 41)]
        assert raw.get_ydata().tolist() == pattern.info["loss_curve"]
        assert np.allclose(means.get_ydata(), moving_average(pattern.info["loss_curve"], 4))
        assert raw.get_linewidth() < means.get_linewidth() / 2
        assert len({to_hex(line.get_color()) for line in (powers, raw, means)}) == 1
    assert right.get_xlabel() == "round\n(thick line: mean of 9 rounds)"
    assert left.get_xlabel() == "passes"


@pytest.mark.parametrize(("rounds", "mean"), [(4, 1), (10, 3), (80, 17), (900, 21)])
def test_longer_searches_are_averaged_over_more_rounds(rounds, mean):
    """The same number for all patterns: that of the longest search."""
    patterns = [pattern_of(rounds=rounds, target=0), pattern_of(rounds=3, target=1)]
    _, (_, right) = plot_search(patterns, use_pyplot=False)
    assert (f"mean of {mean} rounds" in right.get_xlabel()) == (mean > 1)
    for pattern in patterns:
        [means] = lines_of(right, f"class {pattern.target}")
        expected = moving_average(pattern.info["loss_curve"], mean // 2)
        assert np.allclose(means.get_ydata(), expected)


def test_power_goes_from_0_to_100_percent_and_passes_begin_at_0():
    figure, (left, right) = plot_search(pattern_of(), use_pyplot=False)
    figure.canvas.draw()
    assert [t.get_text() for t in left.get_yticklabels()][::5] == ["0 %", "100 %"]
    assert left.get_xlim()[0] < 0 < 2960 < left.get_xlim()[1]
    assert "2,000" in [t.get_text() for t in left.get_xticklabels()]
    for axis in (left, right):
        low, high = axis.get_ylim()
        assert -0.05 < low < 0
        assert 1 < high < 1.05


def test_losses_above_1_and_below_0_are_within_the_panel():
    for losses in ([2.5, 1.5, 0.5], [0.5, -3.0]):
        _, (_, right) = plot_search(pattern_of(loss_curve=losses), use_pyplot=False)
        low, high = right.get_ylim()
        assert low < min(losses) < max(losses) < high


def test_what_a_search_returns_can_be_drawn():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
    explainer = ClassPattern(net, torch.rand(60, 1, 8, 8), torch.arange(60) % 3)
    patterns = explainer.search(torch.rand(2, 1, 8, 8), [0, 2], n_steps=5, area=0.2)
    _, (left, right) = plot_search(patterns, use_pyplot=False)
    for pattern in patterns:
        [line] = lines_of(left, f"class {pattern.target}")
        assert line.get_ydata()[-1] == pattern.info["search_power"]
        assert line.get_xdata()[-1] == pattern.info["passes"]
        assert len(lines_of(right, f"class {pattern.target}")[0].get_xdata()) == 5


def test_one_pattern_is_named_at_the_end_of_its_line():
    for patterns in (pattern_of(class_name="Dress"), [pattern_of(class_name="Dress")]):
        figure, (left, right) = plot_search(patterns, use_pyplot=False)
        [text] = left.texts
        assert text.get_text() == "Dress"
        assert text.get_color() == lines_of(left, "Dress")[0].get_color()
        assert text.xy == pytest.approx((2960, 0.4))
        assert not right.texts
        assert not figure.legends


def test_patterns_of_one_class_are_numbered():
    patterns = [
        pattern_of(class_name="Dress"),
        pattern_of(target=5),
        pattern_of(class_name="Dress"),
    ]
    figure, _ = plot_search(patterns, use_pyplot=False)
    assert legend_of(figure) == ["Dress (1)", "class 5", "Dress (2)"]


def test_labels_may_be_given():
    low, high = pattern_of(0.2), pattern_of(0.8)
    for arguments, expected in (
        (([low, high], ["low", "high"]), ["low", "high"]),
        (({"white": low, "black": high}, None), ["white", "black"]),
        (({"white": low, "black": high}, ["low", "high"]), ["low", "high"]),
        (((low, high), [1, 2]), ["1", "2"]),
    ):
        patterns, labels = arguments
        _, (left, _) = plot_search(patterns, labels=labels, use_pyplot=False)
        assert [text.get_text() for text in left.texts] == expected


def test_a_panel_for_which_there_is_nothing_is_left_out():
    unjudged, short = pattern_of(power_curve=[], search_power=None), pattern_of(loss_curve=[])
    _, [axis] = plot_search(unjudged, use_pyplot=False)
    assert axis.get_ylabel() == "loss on each round's own images"
    _, [axis] = plot_search(short, use_pyplot=False)
    assert axis.get_ylabel() == "power on the judging images"
    figure, (left, right) = plot_search([unjudged, short], use_pyplot=False)
    assert legend_of(figure) == ["class 3 (1)", "class 3 (2)"]
    assert len(lines_of(left, "class 3 (1)")[0].get_xdata()) == 0
    assert len(lines_of(right, "class 3 (2)")[0].get_xdata()) == 0
    older = Pattern(unjudged.canvas, unjudged.mask, 3, {"loss_curve": [0.5, 0.4]})
    _, [axis] = plot_search(older, use_pyplot=False)
    assert axis.get_ylabel() == "loss on each round's own images"


def test_a_search_that_was_stopped_early_has_open_markers():
    whole = pattern_of(stopped_early=False, class_name="whole")
    early = pattern_of(power_curve=POWERS[:2], rounds=20, stopped_early=True, class_name="early")
    _, (left, right) = plot_search([whole, early], use_pyplot=False)
    assert left.get_xlabel() == "passes\n(open marker: stopped early)"
    assert open_ends(left) == [(1680, 0.3)]
    assert open_ends(right) == [tuple(lines_of(right, "early")[0].get_xydata()[-1])]
    _, (left, right) = plot_search(whole, use_pyplot=False)
    assert left.get_xlabel() == "passes"
    assert open_ends(left) == open_ends(right) == []


def test_searches_that_were_stopped_at_once():
    at_once = pattern_of(power_curve=[[0, 0.1]], loss_curve=[], stopped_early=True)
    figure, [axis] = plot_search(at_once, use_pyplot=False)
    assert open_ends(axis) == [(0, 0.1)]
    assert badly_placed(figure) == []
    unjudged = pattern_of(power_curve=[], loss_curve=[0.5], stopped_early=True)
    figure, [axis] = plot_search(unjudged, use_pyplot=False)
    assert axis.get_xlabel() == "round\n(open marker: stopped early)"
    assert open_ends(axis) == [(1, 0.5)]
    assert badly_placed(figure) == []


LONG = "great white shark, white shark, man-eater, Carcharodon carcharias, number {}"


@pytest.mark.parametrize("count", [1, 2, 4, 10, 30])
@pytest.mark.parametrize("name", ["class {}", LONG], ids=["short", "long"])
@pytest.mark.parametrize("info", [{}, {"stopped_early": True}, {"power_curve": []}])
def test_no_text_overlaps_another_and_nothing_is_cut_off(count, name, info):
    labels = [name.format(i) for i in range(count)]
    figure, axes = plot_search(several(count, **info), labels=labels, use_pyplot=False)
    for dpi in (50, 100):
        assert badly_placed(figure, dpi) == []
    assert figure.get_figwidth() < 13
    for axis in axes:
        assert axis.get_position().height * figure.get_figheight() > 3  # inches
    styles = {(line.get_color(), line.get_marker()) for line in axes[0].get_lines()}
    assert len(styles) >= count


MADE = Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), 3, {"seed": 1, "passes": 2})
EMPTY = {"power_curve": [], "loss_curve": []}
BAD = {
    "none": ([], {}, "no patterns to draw: give at least one"),
    "an empty mapping": ({}, {}, "no patterns to draw"),
    "made by hand": (
        [pattern_of(), MADE],
        {"labels": ["a", "b"]},
        "info of 'b' has neither 'power_curve' nor 'loss_curve', but seed, passes: draw",
    ),
    "no info": (Pattern(MADE.canvas, MADE.mask, 3), {}, "but nothing: draw patterns that"),
    "empty": ([pattern_of(**EMPTY)], {}, "nothing to draw: .* give the search more time"),
    "labels": ([pattern_of()] * 2, {"labels": ["a"]}, "2 patterns need .* as many labels, got 1"),
    "a label": ([pattern_of()] * 2, {"labels": "ab"}, "need a list of as many labels, got 'ab'"),
    "twice": ([pattern_of()] * 2, {"labels": ["a", "a"]}, "a different label, got 'a' 2 times"),
    "percent": (pattern_of(power_curve=[[9, 50]]), {}, r"powers from 0 to 1, got \[\[9, 50\]\]"),
    "flat": (pattern_of(power_curve=[1, 0.5]), {}, r"must be a list of \[passes, power\]"),
    "nothing": (pattern_of(power_curve=None), {}, "list of .*, got None"),
    "nan": (pattern_of(loss_curve=[float("nan")]), {}, r"list of finite numbers, got \[nan\]"),
    "pairs": (pattern_of(loss_curve=[[1, 2]]), {}, "'class 3' must be a list of finite numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_arguments_are_checked_before_a_figure_is_opened(case):
    patterns, options, text = BAD[case]
    before = pyplot.get_fignums()
    with pytest.raises(ValueError, match=text):
        plot_search(patterns, **options)
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("patterns", [torch.rand(2, 3), ["pattern.safetensors"], {"a": None}])
def test_something_else_than_patterns_is_a_type_error(patterns):
    with pytest.raises(TypeError, match=r"must be what ClassPattern\.search returns, got "):
        plot_search(patterns)


def test_random_states_are_kept_and_pyplot_only_knows_its_figures():
    pattern = pattern_of()
    state, numpy_state, before = torch.get_rng_state(), np.random.get_state(), pyplot.get_fignums()
    plot_search(pattern, use_pyplot=False)
    assert pyplot.get_fignums() == before
    figure, _ = plot_search(pattern)
    assert pyplot.gcf() is figure
    pyplot.close(figure)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])

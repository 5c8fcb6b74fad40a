"""What plot_maps draws, read back from the figure's own artists."""

import numpy as np
import pytest
import torch
from captum.attr import visualization as viz
from figures import badly_placed, pixels, scale_labels
from matplotlib import pyplot
from matplotlib.figure import Figure

from captum_classpattern import Pattern
from captum_classpattern.visualization import plot_maps
from captum_classpattern.visualization.drawing import wrap
from captum_classpattern.visualization.style import NO_PIXEL

ROWS, COLUMNS = ["ant", "bee"], ["Saliency", "IntegratedGradients", "random"]


def grid(**changes):
    """Arguments for two rows and three columns: one without negative values, two with them."""
    draw = torch.Generator().manual_seed(0)
    canvases = [torch.rand(3, 20, 20, generator=draw) for _ in ROWS]
    maps = [
        [
            (row + 1) * 10.0**column * torch.randn(20, 20, generator=draw).abs_()
            * (torch.ones(20, 20) if column == 0 else torch.randn(20, 20, generator=draw).sign())
            for column in range(3)
        ]
        for row in range(2)
    ]  # fmt: skip
    patterns = [
        [Pattern(c, torch.rand(1, 20, 20, generator=draw), 0).topk(0.1) for _ in COLUMNS]
        for c in canvases
    ]
    captions = [[f"{row}{column} %" for column in range(3)] for row in range(2)]
    given = {"canvases": canvases, "maps": maps, "patterns": patterns, "captions": captions}
    names = {"row_names": ROWS, "column_names": COLUMNS, "use_pyplot": False}
    return {**given, **names, **changes}


def limits(axis):
    return axis.images[0].norm.vmin, axis.images[0].norm.vmax


def quantile(*maps):
    sizes = [values.double().abs() for values in maps]
    return max(float(size.quantile(0.995, interpolation="higher")) for size in sizes)


def texts_in(axis):
    return [text.get_text() for text in axis.texts]


@pytest.mark.parametrize(("show", "lines"), [("maps", 1), ("patterns", 1), ("both", 2)])
def test_each_row_shows_canvas_maps_patterns_and_captions(show, lines):
    given = grid(show=show, title="methods")
    figure, axes = plot_maps(**given)
    assert axes.shape == (2 * lines, 4)
    assert figure.get_suptitle() == "methods"
    assert axes[0, 1].get_title() == "Saliency"
    for row, canvas in enumerate(given["canvases"]):
        here = axes[row * lines : (row + 1) * lines]
        assert np.abs(pixels(here[0, 0]) - canvas.numpy().transpose(1, 2, 0) * 255).max() <= 1
        assert here[0, 0] is here[-1, 0]
        assert here[0, 0].get_ylabel() == ROWS[row]
        for column in range(3):
            assert here[-1, column + 1].get_xlabel() == f"{row}{column} %"
            if show != "patterns":
                drawn = pixels(here[0, column + 1])
                assert np.array_equal(drawn, given["maps"][row][column].double().numpy())
            if show != "maps":
                drawn = pixels(here[-1, column + 1])
                kept = given["patterns"][row][column].mask[0].bool().numpy()
                image = canvas.numpy().transpose(1, 2, 0) * 255
                assert np.abs(drawn[kept] - image[kept]).max() <= 1
                assert np.abs(drawn[~kept] - np.array(NO_PIXEL) * 255).max() <= 1


def test_the_maps_of_a_method_share_one_stated_scale():
    given = grid(show="maps")
    figure, axes = plot_maps(**given)
    for column in range(3):
        high = quantile(*(row[column] for row in given["maps"]))
        low = 0 if column == 0 else -high
        for axis in axes[:, column + 1]:
            assert limits(axis) == pytest.approx((low, high))
        sign = "0 to " if column == 0 else "±"
        assert scale_labels(figure)[column].startswith(sign)
        assert float(scale_labels(figure)[column].removeprefix(sign)) == pytest.approx(
            high, rel=0.05
        )


def test_the_maps_of_a_row_share_one_stated_scale():
    given = grid(scale="row")
    figure, axes = plot_maps(**given)
    for row in range(2):
        high = quantile(*given["maps"][row])
        assert limits(axes[2 * row, 1]) == pytest.approx((0, high))
        assert limits(axes[2 * row, 2]) == limits(axes[2 * row, 3]) == pytest.approx((-high, high))
        name, note = axes[2 * row, 0].get_ylabel().split("\n")
        assert name == ROWS[row]
        assert float(note.removeprefix("(s = ").removesuffix(")")) == pytest.approx(high, rel=0.05)
    assert scale_labels(figure) == ["0 to s", "±s", "±s"]


def test_one_number_scales_all_maps():
    figure, axes = plot_maps(**grid(scale=0.25, show="maps"))
    assert {limits(axis) for axis in axes[:, 1]} == {(0, 0.25)}
    assert {limits(axis) for axis in axes[:, 2:].flat} == {(-0.25, 0.25)}
    assert scale_labels(figure) == ["0 to 0.25", "±0.25", "±0.25"]


def test_the_scale_of_maps_with_few_pixels_is_their_maximum():
    given = grid(show="maps")
    for row, value in zip(given["maps"], (-3.0, 2.0)):
        row[2] = torch.zeros(1, 20, 20)
        row[2][0, 4, 5] = value
    figure, axes = plot_maps(**given)
    assert limits(axes[0, 3]) == limits(axes[1, 3]) == (-3, 3)
    assert scale_labels(figure)[2] == "±3"


def test_maps_without_negative_values_have_the_colours_of_captums_visualizer():
    given = grid(show="maps")
    values = given["maps"][0][0].numpy()[..., None]
    _, theirs = viz.visualize_image_attr(values, sign="absolute_value", use_pyplot=False)
    _, axes = plot_maps(**given)
    shades = np.linspace(0, 1, 50)
    assert np.array_equal(axes[0, 1].images[0].cmap(shades), theirs.images[0].cmap(shades))


def test_signs_differ_in_colours_that_colour_blind_readers_can_tell_apart():
    _, axes = plot_maps(**grid(show="maps"))
    low, middle, high = axes[0, 2].images[0].cmap([0.0, 0.5, 1.0])[:, :3]
    assert middle.min() > 0.98  # white
    assert low[0] > 0.6 > low[2] + 0.5  # orange
    assert high[2] > high[0] + 0.3  # blue
    assert low[0] - high[0] > 0.5


@pytest.mark.parametrize("scale", ["method", "row", 2.0])
def test_maps_of_zeros_are_drawn_as_zero_and_named(scale):
    given = grid(show="maps", scale=scale)
    given["maps"][0] = [torch.zeros(20, 20)] * 3
    given["maps"][1][2] = torch.zeros(20, 20)
    figure, axes = plot_maps(**given)
    for axis in [*axes[0, 1:], axes[1, 3]]:
        assert texts_in(axis) == ["all zero"]
        image = axis.images[0]
        assert min(image.cmap(image.norm(0.0))[:3]) > 0.95  # white, or nearly
    assert texts_in(axes[1, 1]) == []
    assert len(scale_labels(figure)) == 2  # no scale for the third method


def test_only_zeros_everywhere():
    zeros = [[torch.zeros(20, 20)] * 3] * 2
    figure, axes = plot_maps(**grid(maps=zeros))
    assert texts_in(axes[0, 1]) == ["all zero"]
    assert scale_labels(figure) == []


def test_tiny_and_huge_maps_are_drawn(recwarn):
    given = grid()
    given["maps"][0][1] = given["maps"][1][1] = torch.full((20, 20), -1e-30)
    given["maps"][0][2] = torch.full((20, 20), 3e38)
    figure, axes = plot_maps(**given)
    assert badly_placed(figure) == []
    assert limits(axes[0, 2]) == pytest.approx((-1e-30, 1e-30), rel=1e-6)
    assert scale_labels(figure)[1] == "±1e-30"


def test_cells_without_a_map_or_a_pattern_give_the_reason():
    given = grid()
    given["maps"][0][0] = given["patterns"][0][0] = None
    given["maps"][0][1] = None
    given["patterns"][0][2] = None
    _, axes = plot_maps(**given)
    reasons = [[texts_in(axis) for axis in line] for line in axes[:2, 1:]]
    assert reasons == [[["failed"], ["no map"], []], [["failed"], [], ["no pattern"]]]
    assert not axes[0, 1].images
    assert not axes[1, 3].images


def test_a_failed_method_does_not_change_the_scale_of_the_others():
    given = grid(show="maps")
    given["maps"][1][1] = None
    _, axes = plot_maps(**given)
    assert limits(axes[0, 2])[1] == pytest.approx(quantile(given["maps"][0][1]))


CHANGES = {
    "scale": ({"scale": "column"}, ValueError, 'scale must be "method", "row" or a number'),
    "scale of 0": ({"scale": 0}, ValueError, "a number above 0, got 0"),
    "scale of nan": ({"scale": float("nan")}, ValueError, "a number above 0, got nan"),
    "show": ({"show": "all"}, ValueError, '"maps", "patterns" or "both", got \'all\''),
    "no rows": ({"canvases": []}, ValueError, "got 0 canvases and 3 methods"),
    "no columns": ({"column_names": []}, ValueError, "got 2 canvases and 0 methods"),
    "row names": ({"row_names": ["ant"]}, ValueError, "2 canvases need as many row_names, got 1"),
    "rows": ({"captions": [[""] * 3]}, ValueError, "as many rows of captions, got 1"),
    "columns": (
        {"patterns": [[None] * 3, [None] * 2]},
        ValueError,
        "3 column_names need as many patterns in each row, got 2 in row 'bee'",
    ),
    "text": ({"captions": ["1 %", "2 %"]}, ValueError, "as many captions .*, got '1 %'"),
    "array": ({"canvases": [np.zeros((3, 20, 20))] * 2}, TypeError, "row 'ant' must be a float"),
    "batch": (
        {"canvases": torch.zeros(2, 1, 3, 20, 20)},
        ValueError,
        r"the canvas of row 'ant' must be \(C, H, W\), got shape \(1, 3, 20, 20\)",
    ),
    "normalised": (
        {"canvases": [torch.zeros(3, 20, 20), torch.full((3, 20, 20), -2.0)]},
        ValueError,
        r"row 'bee' must have pixels in \[0, 1\].*PixelClassifier\(model, mean, std\)",
    ),
    "channels": ({"canvases": torch.zeros(2, 4, 20, 20)}, ValueError, r"1 or 3 channels.*\(4, 20"),
    "pattern": (
        {"patterns": [[Pattern(torch.zeros(2, 8, 8), torch.zeros(1, 8, 8), 0)] * 3] * 2},
        ValueError,
        r"1 or 3 channels.*\(2, 8, 8\)",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_arguments_are_checked_before_a_figure_is_opened(name):
    change, error, text = CHANGES[name]
    before = pyplot.get_fignums()
    with pytest.raises(error, match=text):
        plot_maps(**grid(**{"use_pyplot": True, **change}))
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        (torch.full((20, 20), float("nan")), ValueError, "has NaN or infinite values: give None"),
        (torch.full((20, 20), float("inf")), ValueError, "has NaN or infinite values: give None"),
        (torch.zeros(3, 20, 20), ValueError, r"got \(3, 20, 20\): sum over the channels"),
        (torch.zeros(7, 7), ValueError, r"\(20, 20\) or \(1, 20, 20\), got \(7, 7\)$"),
        (np.zeros((20, 20)), TypeError, "must be a real Tensor or None, got ndarray"),
    ],
)
def test_a_map_that_cannot_be_drawn_is_named(values, error, text):
    given = grid()
    given["maps"][1][2] = values
    with pytest.raises(error, match=f"the map of row 'bee', column 'random' .*{text}"):
        plot_maps(**given)


def test_grey_black_and_oblong_images_of_several_sizes():
    canvases = [torch.zeros(1, 10, 20), torch.ones(3, 30, 30)]
    maps = [[torch.randn(c.shape[1:], dtype=torch.bfloat16).requires_grad_()] for c in canvases]
    figure, axes = plot_maps(
        canvases,
        maps,
        [[None]] * 2,
        [["a"], ["b"]],
        row_names=["x", "y"],
        column_names=["m"],
        use_pyplot=False,
    )
    assert pixels(axes[0, 0]).max() == 0
    assert pixels(axes[0, 1]).shape == (10, 20)
    assert badly_placed(figure) == []


@pytest.mark.parametrize(
    ("rows", "columns", "scale", "show"),
    [
        (1, 1, "method", "maps"),
        (1, 1, "row", "patterns"),
        (1, 5, "method", "both"),
        (3, 15, "row", "maps"),
        (2, 15, "method", "both"),
        (10, 5, "row", "both"),
    ],
)
def test_no_text_overlaps_another_and_nothing_is_cut_off(rows, columns, scale, show):
    names = [
        "NoiseTunnel (IntegratedGradients)",
        "LayerGradCam",
        "same mask, other canvas",
        "A" * 40,
    ]
    figure, axes = plot_maps(
        torch.rand(rows, 1, 28, 28),
        [[torch.randn(28, 28) * 1.234e-5] * columns] * rows,
        [[None] * columns] * rows,
        [["100.0 %\n(99.1 to 100.0)"] * columns] * rows,
        row_names=["Ankle boot of a very long name"] * rows,
        column_names=[names[i % 4] for i in range(columns)],
        title="A title that is longer than a narrow figure is wide, and has to be broken",
        scale=scale,
        show=show,
        use_pyplot=False,
    )
    for dpi in (50, 100):
        assert badly_placed(figure, dpi) == []
    assert figure.get_figwidth() < 14
    assert axes[0, 1].get_title().replace("\n", "").replace(" ", "") == names[0].replace(" ", "")


def test_cells_are_squares_of_one_size_whatever_surrounds_them():
    sizes = []
    for name in ("a", "a method with a long name"):
        figure, axes = plot_maps(**grid(column_names=[name] * 3, title=name * 3))
        badly_placed(figure)
        sizes += [axis.get_window_extent().size / figure.dpi for axis in axes[:, 1:].flat]
    assert np.allclose(sizes, 1.3, atol=0.05)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("Saliency", 2.0, ["Saliency"]),
        ("IntegratedGradients", 0.9, ["Integrated", "Gradients"]),
        ("InputXGradient", 0.8, ["InputX", "Gradient"]),
        ("LayerGradCam", 0.8, ["Layer", "GradCam"]),
        ("same mask, other canvas", 1.0, ["same mask,", "other canvas"]),
        ("a description", 0.8, ["a", "description"]),
        ("one\ntwo", 1.0, ["one", "two"]),
        ("", 1.0, [""]),
    ],
)
def test_texts_are_broken_where_words_end(text, width, lines):
    written = Figure().text(0, 0, text, fontsize=9)
    wrap(written, width)
    assert written.get_text().split("\n") == lines


def test_a_word_longer_than_a_line_is_broken_anywhere():
    figure = Figure(dpi=100)
    written = figure.text(0, 0, "m" * 50, fontsize=9)
    wrap(written, 0.7)
    assert written.get_text().replace("\n", "") == "m" * 50
    assert written.get_window_extent().width <= 70


def test_arguments_and_random_states_are_unchanged():
    given = grid()
    copies = [[values.clone() for values in row] for row in given["maps"]]
    state, numpy_state, figures = torch.get_rng_state(), np.random.get_state(), pyplot.get_fignums()
    plot_maps(**given)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])
    assert all(torch.equal(a, b) for x, y in zip(copies, given["maps"]) for a, b in zip(x, y))
    assert pyplot.get_fignums() == figures


def test_with_pyplot_the_figure_belongs_to_pyplot():
    figure, _ = plot_maps(**grid(use_pyplot=True))
    assert pyplot.gcf() is figure
    pyplot.close(figure)

"""plot_maps shows the values that it is given, on a scale that it states."""

import numpy as np
import pytest
import torch
from figures import check_layout, pixels, refused, scale_labels, texts_in

from captum_classpattern import Pattern, visualization
from captum_classpattern.visualization import plot_maps
from captum_classpattern.visualization.style import NO_PIXEL

ROWS, COLUMNS = ["ant", "bee"], ["Saliency", "IntegratedGradients", "random"]


def grid(**changes):
    """Arguments for two rows and three columns: one without negative values, two with them."""
    draw = torch.Generator().manual_seed(0)
    canvases, sizes = torch.rand(2, 3, 20, 20, generator=draw), torch.tensor([1.0, 10.0, 100.0])
    maps = torch.randn(2, 3, 20, 20, generator=draw) * sizes.view(3, 1, 1)
    maps[:, 0].abs_()
    maps[1] *= 2
    masks = torch.rand(2, 3, 1, 20, 20, generator=draw)
    patterns = [
        [Pattern(canvas, mask, 0).topk(0.1) for mask in row] for canvas, row in zip(canvases, masks)
    ]
    captions = [[f"{row}{column} %" for column in range(3)] for row in range(2)]
    given = {"canvases": [*canvases], "maps": [[*row] for row in maps], "patterns": patterns}
    names = {"captions": captions, "row_names": ROWS, "column_names": COLUMNS}
    return {**given, **names, "use_pyplot": False, **changes}


@pytest.fixture
def unfitted(monkeypatch):
    """Figures whose sizes do not matter; to fit them takes long."""
    monkeypatch.setattr(visualization.grid, "fit_figure", lambda *_: None)


def limits(axis):
    return axis.images[0].norm.vmin, axis.images[0].norm.vmax


def quantile(*maps):
    sizes = [values.double().abs() for values in maps]
    return max(float(size.quantile(0.995, interpolation="higher")) for size in sizes)


@pytest.mark.parametrize(("show", "lines"), [("maps", 1), ("patterns", 1), ("both", 2)])
def test_each_row_shows_canvas_maps_patterns_and_captions(show, lines, unfitted):
    given = grid(show=show, title="methods")
    copies = [[values.clone() for values in row] for row in given["maps"]]
    figure, axes = plot_maps(**given)
    assert axes.shape == (2 * lines, 4)
    assert figure.get_suptitle() == "methods"
    titles = [axis.get_title().replace("\n", "") for axis in axes[0]]
    assert titles == ["canvas", *COLUMNS]
    for row, canvas in enumerate(given["canvases"]):
        here = axes[row * lines : (row + 1) * lines]
        image = canvas.numpy().transpose(1, 2, 0) * 255
        assert np.abs(pixels(here[0, 0]) - image).max() <= 1
        assert here[0, 0] is here[-1, 0]
        assert here[0, 0].get_ylabel() == ROWS[row]
        for column in range(3):
            assert here[-1, column + 1].get_xlabel() == f"{row}{column}\xa0%"
            if show != "patterns":
                drawn = pixels(here[0, column + 1])
                assert np.array_equal(drawn, copies[row][column].double().numpy())
            if show != "maps":
                drawn = pixels(here[-1, column + 1])
                kept = given["patterns"][row][column].mask[0].bool().numpy()
                assert np.abs(drawn[kept] - image[kept]).max() <= 1
                assert np.abs(drawn[~kept] - np.array(NO_PIXEL) * 255).max() <= 1


@pytest.mark.parametrize("scale", [None, 0.25])
def test_maps_share_one_stated_scale(scale, unfitted):
    given = grid(show="maps", scale=scale)
    figure, axes = plot_maps(**given)
    maps, labels = given["maps"], scale_labels(figure)
    for row in range(2):
        assert axes[row, 0].get_ylabel() == ROWS[row]
        for column, (sign, label) in enumerate(zip(("0 to ", "±", "±"), labels, strict=True)):
            high = scale if scale == 0.25 else quantile(*[cells[column] for cells in maps])
            low = 0 if column == 0 else -high
            assert limits(axes[row, column + 1]) == pytest.approx((low, high))
            assert label.startswith(sign)
            assert float(label.removeprefix(sign)) == pytest.approx(high, rel=0.05)
    maps[1][1] = None  # a failed method does not change the scale of the others
    _, axes = plot_maps(**given)
    if scale is None:
        assert limits(axes[0, 2])[1] == pytest.approx(quantile(maps[0][1]))


def test_maps_of_few_pixels_and_of_tiny_and_huge_values_are_scaled(unfitted):
    """The maximum where the quantile is 0."""
    given = grid()
    given["maps"][0][0] = torch.full((20, 20), 3e38)
    given["maps"][0][1] = given["maps"][1][1] = torch.full((20, 20), -1e-30)
    for row, value in zip(given["maps"], (-3.0, 2.0)):
        row[2] = torch.zeros(1, 20, 20)
        row[2][0, 4, 5] = value
    figure, axes = plot_maps(**given)
    assert limits(axes[0, 2]) == pytest.approx((-1e-30, 1e-30), rel=1e-6)
    assert limits(axes[0, 3]) == limits(axes[2, 3]) == (-3, 3)
    assert scale_labels(figure) == ["0 to 3e+38", "±1e-30", "±3"]


def test_cells_that_show_nothing_give_the_reason(unfitted):
    """A map of zeros is drawn as zero, and no scale is stated for a method that has no other."""
    given = grid()
    given["maps"] = [[None, None, torch.zeros(20, 20)]] * 2
    given["patterns"][0] = [None, given["patterns"][0][1], None]
    figure, axes = plot_maps(**given)
    reasons = [[texts_in(axis) for axis in line] for line in axes[:2, 1:]]
    assert reasons == [[["failed"], ["no map"], ["all zero"]], [["failed"], [], ["no pattern"]]]
    assert not axes[0, 1].images + axes[1, 3].images
    [zeros] = axes[0, 3].images
    assert min(zeros.cmap(zeros.norm(0.0))[:3]) > 0.95  # white, or nearly
    assert scale_labels(figure) == []


LONG = "NoiseTunnel (IntegratedGradients), same mask, other canvas"


@pytest.mark.parametrize(
    ("rows", "columns", "show"), [(1, 1, "patterns"), (1, 8, "maps"), (2, 2, "both")]
)
def test_cells_and_texts_keep_clear_of_each_other(rows, columns, show):
    figure, axes = plot_maps(
        torch.rand(rows, 1, 28, 28),
        torch.randn(rows, columns, 28, 28) * 1.234e-5,
        [[None] * columns] * rows,
        [["100.0 %\n(99.1 to 100.0)"] * columns] * rows,
        row_names=["Ankle boot of a very long name"] * rows,
        column_names=[LONG, "A" * 40, *["LayerGradCam"] * 13][:columns],
        title="A title that is longer than a narrow figure is wide, and has to be broken",
        show=show,
        use_pyplot=False,
    )
    check_layout(figure)
    assert figure.get_figwidth() < 14
    assert axes[0, 1].get_title().replace("\n", "").replace(" ", "") == LONG.replace(" ", "")


def maps(**changes):
    return lambda: plot_maps(**grid(**{"use_pyplot": True, **changes}))


def last_map(values):
    """Draws these values as the map of the second row and the third column."""
    return maps(maps=[[None] * 3, [None, None, values]])


two_channels = Pattern(torch.zeros(2, 8, 8), torch.zeros(1, 8, 8), 0)
REFUSALS = {
    "a scale of 0": maps(scale=0),
    "show": maps(show="all"),
    "no rows": maps(canvases=[]),
    "row names": maps(row_names=["ant"]),
    "columns": maps(patterns=[[None] * 3, [None] * 2]),
    "a batch": maps(canvases=torch.zeros(2, 1, 3, 20, 20)),
    "normalised": maps(canvases=[torch.zeros(3, 20, 20), torch.full((3, 20, 20), -2.0)]),
    "channels of a pattern": maps(patterns=[[two_channels] * 3] * 2),
    "a map of nan": last_map(torch.full((20, 20), float("nan"))),
    "a map of another size": last_map(torch.zeros(7, 7)),
}


def test_refusals(snapshot):
    assert refused(REFUSALS) == snapshot

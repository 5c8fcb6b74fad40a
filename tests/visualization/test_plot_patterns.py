"""What plot_patterns draws, read back from the figure's own artists."""

import numpy as np
import pytest
import torch
from figures import badly_placed, pixels, scale_labels
from torch import nn

from captum_classpattern import Pattern, PixelClassifier, plot_patterns, predictive_power
from captum_classpattern.images import LabelledImages
from captum_classpattern.visualization.formats import percent
from captum_classpattern.visualization.style import NO_PIXEL


@pytest.fixture
def net():
    torch.manual_seed(0)
    return PixelClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval(), class_names=["ant", "bee", "cat"]
    )


@pytest.fixture
def images():
    return torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def pattern_of(canvas, target=0):
    mask = torch.linspace(0, 0.5, 64).view(1, 8, 8)
    return Pattern(canvas, mask, target)


def test_a_row_shows_canvas_pattern_stamped_images_and_power(net, images):
    labels = torch.arange(12) % 3
    patterns = [pattern_of(images[0], 0), pattern_of(torch.ones(1, 8, 8), 2)]
    _, axes = plot_patterns(net, patterns, images[1:], labels[1:], area=0.25, use_pyplot=False)
    assert axes.shape == (2, 6)
    for row, pattern in zip(axes, patterns):
        binary = pattern.topk(0.25)
        kept = binary.mask[0].bool().numpy()
        grey = np.round(pattern.canvas[0].numpy() * 255)
        assert np.abs(pixels(row[0])[..., 0] - grey).max() <= 1
        drawn = pixels(row[1])
        assert np.abs(drawn[kept][:, 0] - grey[kept]).max() <= 1
        assert np.abs(drawn[~kept] - np.array(NO_PIXEL) * 255).max() <= 1
        for axis in row[2:5]:
            assert np.abs(pixels(axis)[kept][:, 0] - grey[kept]).max() <= 1
        power = predictive_power(net, pattern, images[1:], labels[1:], area=0.25)
        assert row[5].texts[0].get_text() == percent(power.value)


def test_a_pattern_alone_also_shows_its_mask_on_a_scale_from_0_to_1(images):
    faint = Pattern(images[0], torch.full((1, 8, 8), 0.1), 0)
    figure, axes = faint.plot(use_pyplot=False)
    assert [axis.get_title().split("\n")[0] for axis in axes[0]] == ["canvas", "mask", "pattern"]
    assert axes[0][1].images[0].get_clim() == (0, 1)
    assert pixels(axes[0][1]).max() == pytest.approx(0.1)
    assert scale_labels(figure) == ["0 to 1"]


def test_the_strongest_control_is_named_below_the_power(net, images):
    patterns = [pattern_of(images[0]), pattern_of(images[0], 1)]
    controls = [{"no pattern": 0.01, "random pixels": 0.25}, {"other canvas": 0.5, "x": 0.0}]
    given = (net, patterns, images[1:], torch.arange(11) % 3)
    _, axes = plot_patterns(*given, controls=controls, use_pyplot=False)
    assert [row[5].texts[1].get_text() for row in axes] == [
        "random pixels 25.0\xa0%", "other canvas 50.0\xa0%",
    ]  # fmt: skip
    _, axes = plot_patterns(*given, use_pyplot=False)
    without = predictive_power(net, patterns[0], images[1:], torch.arange(11) % 3).without
    assert axes[0][5].texts[1].get_text() == f"no pattern {percent(without)}"


def test_a_triggers_place_is_boxed_in_the_rows_of_its_class(net, images):
    patterns = [pattern_of(images[0]), pattern_of(images[0], 1)]
    mask = torch.zeros(1, 8, 8)
    mask[0, 5:7, 2:6] = 1.0
    trigger = Pattern(torch.ones(1, 8, 8), mask, 1)
    figure, axes = plot_patterns(net, patterns, images[1:], trigger=trigger, use_pyplot=False)
    boxes = [[len(axis.patches) for axis in row[:5]] for row in axes]
    assert boxes == [[0] * 5, [0, 1, 1, 1, 1]]
    assert axes[1][1].patches[0].get_bbox().extents.tolist() == [1, 4, 6, 7]
    assert badly_placed(figure) == []


def test_stamped_images_are_labelled_with_the_models_predictions(net, images):
    _, axes = plot_patterns(net, [pattern_of(images[0], 1)], images[1:], use_pyplot=False)
    for axis in axes[0][2:5]:
        image = torch.tensor(pixels(axis)[..., 0] / 255, dtype=torch.float32)[None, None]
        predicted = net.class_names[int(net(image).argmax())]
        assert axis.get_xlabel().startswith(predicted)
        assert (axis.xaxis.label.get_fontweight() == "bold") == (predicted == "bee")


def test_the_three_images_are_of_other_classes_and_differ_in_class(images):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3])
    values = torch.arange(12).view(12, 1, 1, 1).expand(12, 1, 8, 8) / 20
    blank = Pattern(torch.ones(1, 8, 8), torch.zeros(1, 8, 8), 1)
    _, axes = plot_patterns(net, [blank], values, labels, area=0.02, use_pyplot=False)
    drawn = [round(float(pixels(axis)[-1, -1, 0]) / 255 * 20) for axis in axes[0][2:5]]
    assert sorted(labels[drawn].tolist()) == [0, 2, 3]


def test_colour_images_black_canvases_and_unnamed_classes(images):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)).eval()
    black = Pattern(torch.zeros(3, 8, 8), torch.rand(1, 8, 8), 0)
    figure, axes = plot_patterns(
        net, [black], torch.rand(9, 3, 8, 8), torch.arange(9) % 3, title="t", use_pyplot=False
    )
    assert axes[0][0].get_ylabel() == "class 0"
    assert figure.get_suptitle() == "t"
    assert pixels(axes[0][0]).max() == 0


def test_with_pyplot_the_figure_belongs_to_pyplot(net, images):
    from matplotlib import pyplot

    figure, _ = plot_patterns(net, [pattern_of(images[0])], images[1:])
    assert pyplot.gcf() is figure
    pyplot.close(figure)


def test_no_patterns_is_an_error(net, images):
    with pytest.raises(ValueError, match="no patterns to draw"):
        plot_patterns(net, [], images)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"patterns": "one"}, TypeError, r"got one: give \[pattern\]"),
        ({"powers": []}, ValueError, "1 patterns need as many powers, got 0"),
        ({"controls": [{}] * 2}, ValueError, "1 patterns need as many controls, got 2"),
        ({"controls": [{}]}, ValueError, "got an empty one: leave out `controls`"),
        ({"trigger": torch.ones(1, 8, 8)}, TypeError, "`trigger` must be a Pattern, got Tensor"),
        (
            {"trigger": Pattern(torch.ones(1, 16, 16), torch.ones(1, 16, 16), 1)},
            ValueError,
            r"canvases of \(1, 8, 8\) and `trigger` of \(1, 16, 16\)",
        ),
        (
            {"trigger": Pattern(torch.ones(1, 8, 8), torch.zeros(1, 8, 8), 0)},
            ValueError,
            "`trigger` has no pixels to box: its mask is 0 everywhere; leave out `trigger`",
        ),
        (
            {"patterns": "two channels"},
            ValueError,
            r"1 or 3 channels.* got .*\(2, 8, 8\)",
        ),
        ({"patterns": "seen"}, ValueError, "can only be scored on held-out images"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(net, images, change, error, text):
    pattern = pattern_of(images[0], 1)
    seen = frozenset(LabelledImages(images[1:], argument="images").hashes)
    kinds = {
        "one": pattern,
        "two channels": [Pattern(torch.rand(2, 8, 8), pattern.mask, 1)],
        "seen": [Pattern(pattern.canvas, pattern.mask, 1, {}, seen)],
    }
    patterns = kinds.get(change.pop("patterns", None), [pattern])
    with pytest.raises(error, match=text):
        plot_patterns(net, patterns, images[1:], [0] * 11, use_pyplot=False, **change)


NAMES = {
    "short": ["ant", "bee", "cat"],
    "long": ["tench, Tinca tinca", "American Staffordshire terrier, pit bull terrier", "m" * 60],
}


@pytest.mark.parametrize(
    ("rows", "names", "size"),
    [
        (1, "short", (8, 8)),
        (1, "long", (8, 16)),
        (2, "long", (16, 8)),
        (8, "long", (8, 8)),
    ],
)
def test_no_text_overlaps_another_and_nothing_is_cut_off(rows, names, size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1], 3)).eval()
    patterns = [Pattern(torch.rand(1, *size), torch.rand(1, *size), i % 3) for i in range(rows)]
    figure, _ = plot_patterns(
        net,
        patterns,
        torch.rand(9, 1, *size),
        torch.arange(9) % 3,
        class_names=NAMES[names],
        title="A title that is longer than the figure is wide, and therefore has to be broken " * 2,
        use_pyplot=False,
    )
    for dpi in (50, 100):
        assert badly_placed(figure, dpi) == []


def test_classes_beyond_the_names_are_numbered(net, images):
    _, axes = plot_patterns(
        net, [pattern_of(images[0], 2)], images[1:], class_names=["ant"], use_pyplot=False
    )
    assert axes[0][0].get_ylabel() == "class 2"

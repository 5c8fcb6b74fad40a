"""plot_patterns shows canvases, patterns, stamped images, and powers next to the controls."""

import numpy as np
import pytest
import torch
from figures import check_layout, pixels, refused, scale_labels, texts_in
from torch import nn

from captum_classpattern import Pattern, PixelClassifier, plot_patterns, predictive_power
from captum_classpattern._support.formats import percent
from captum_classpattern.images import LabelledImages
from captum_classpattern.pattern import MovingPattern
from captum_classpattern.scores.power import Scores, power_of
from captum_classpattern.visualization.style import NO_PIXEL

IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
HELD_OUT, LABELS = IMAGES[1:], torch.arange(11) % 3


def network(pixels=64, classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).eval()


NET = PixelClassifier(network(), class_names=["ant", "bee", "cat"])


def pattern_of(target=0, canvas=IMAGES[0], mask=None, seen=frozenset()):
    mask = torch.linspace(0, 0.5, 64).view(1, 8, 8) if mask is None else mask
    return Pattern(canvas, mask, target, {}, seen)


def drawn(*patterns, labels=LABELS, **options):
    return plot_patterns(NET, patterns, HELD_OUT, labels, use_pyplot=False, **options)


def test_a_row_shows_canvas_pattern_stamped_images_and_power():
    patterns = [pattern_of(0), pattern_of(2, torch.ones(1, 8, 8))]
    _, axes = drawn(*patterns, area=0.25)
    assert axes.shape == (2, 6)
    for row, pattern in zip(axes, patterns):
        binary = pattern.topk(0.25)
        kept = binary.mask[0].bool().numpy()
        grey = np.round(pattern.canvas[0].numpy() * 255)
        assert np.abs(pixels(row[0])[..., 0] - grey).max() <= 1
        cut = pixels(row[1])
        assert np.abs(cut[kept][:, 0] - grey[kept]).max() <= 1
        assert np.abs(cut[~kept] - np.array(NO_PIXEL) * 255).max() <= 1
        for axis in row[2:5]:
            assert np.abs(pixels(axis)[kept][:, 0] - grey[kept]).max() <= 1
            image = torch.tensor(pixels(axis)[..., 0] / 255, dtype=torch.float32)[None, None]
            predicted = int(NET(image).argmax())
            assert axis.get_xlabel().startswith(NET.class_names[predicted])
            bold = axis.xaxis.label.get_fontweight() == "bold"
            assert bold == (predicted == pattern.target)
        power = predictive_power(NET, pattern, HELD_OUT, LABELS, area=0.25)
        texts = [percent(power.value), f"no pattern {percent(power.without)}"]
        assert texts_in(row[5]) == texts


def test_a_pattern_alone_also_shows_its_mask_on_a_scale_from_0_to_1():
    faint = pattern_of(mask=torch.full((1, 8, 8), 0.1))
    figure, axes = faint.plot(use_pyplot=False)
    assert [axis.get_title().split("\n")[0] for axis in axes[0]] == ["canvas", "mask", "pattern"]
    assert axes[0][1].images[0].get_clim() == (0, 1)
    assert pixels(axes[0][1]).max() == pytest.approx(0.1)
    assert scale_labels(figure) == ["0 to 1"]


def test_the_strongest_control_is_named_and_a_trigger_boxed_in_the_rows_of_its_class():
    power = power_of(110, 120, 1)
    powers = [Scores(power, random_pixels=0.25), Scores(power, 0.1, other_canvas=0.5)]
    mask = torch.zeros(1, 8, 8)
    mask[0, 5:7, 2:6] = 1.0
    given = {"powers": powers, "trigger": pattern_of(1, torch.ones(1, 8, 8), mask)}
    figure, axes = drawn(pattern_of(), pattern_of(1), labels=None, **given)
    named = [texts_in(row[5])[1] for row in axes]
    assert named == ["random pixels 25.0\xa0%", "other canvas 50.0\xa0%"]
    boxes = [[len(axis.patches) for axis in row[:5]] for row in axes]
    assert boxes == [[0] * 5, [0, 1, 1, 1, 1]]
    assert axes[1][1].patches[0].get_bbox().extents.tolist() == [1, 4, 6, 7]
    check_layout(figure)


def test_the_three_images_are_of_other_classes_and_differ_in_class():
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3])
    values = torch.arange(12).view(12, 1, 1, 1).expand(12, 1, 8, 8) / 20
    blank = pattern_of(1, torch.ones(1, 8, 8), torch.zeros(1, 8, 8))
    _, [row] = plot_patterns(
        network(classes=5), [blank], values, labels, area=0.02, use_pyplot=False
    )
    shown = [round(float(pixels(axis)[-1, -1, 0]) / 255 * 20) for axis in row[2:5]]
    assert sorted(labels[shown].tolist()) == [0, 2, 3]


LONG = ["tench, Tinca tinca", "American Staffordshire terrier, pit bull terrier", "m" * 60]


@pytest.mark.parametrize(
    ("rows", "names", "size"),
    [(1, None, (3, 8, 8)), (2, LONG, (1, 16, 8))],
)
def test_colours_names_and_titles_of_any_length(rows, names, size):
    patterns = [Pattern(torch.zeros(size), torch.rand(1, *size[1:]), 2)] * rows
    title = "A title that is longer than the figure is wide, and therefore has to be broken"
    figure, axes = plot_patterns(
        network(np.prod(size)), patterns, torch.rand(9, *size), torch.arange(9) % 3,
        class_names=names, title=title, use_pyplot=False,
    )  # fmt: skip
    check_layout(figure)
    assert (figure.get_suptitle(), pixels(axes[0][0]).max()) == (title, 0)
    name = axes[0][0].get_ylabel().replace("\n", "")
    assert name == (names[2] if names else "class 2")


ONE = pattern_of(1)
HASHES = frozenset(LabelledImages(HELD_OUT, argument="images").hashes)


def plot(patterns=(ONE,), **options):
    return lambda: plot_patterns(NET, patterns, HELD_OUT, LABELS, **options)


REFUSALS = {
    "no patterns": plot([]),
    "one pattern": plot(ONE),
    "a tensor as trigger": plot(trigger=torch.ones(1, 8, 8)),
    "two channels": lambda: plot_patterns(
        network(128), [pattern_of(1, torch.rand(2, 8, 8))], torch.rand(9, 2, 8, 8), [0] * 9
    ),
    "images of the search": plot([pattern_of(1, seen=HASHES)]),
    "images of the search, scored": plot([pattern_of(1, seen=HASHES)], powers=[power_of(1, 9, 0)]),
}


def test_refusals(snapshot):
    assert refused(REFUSALS) == snapshot


def test_a_moving_patch_is_drawn_with_its_own_area_and_a_trigger_on_the_images_alone():
    trigger = pattern_of()
    shape = trigger.image_shape
    patch = MovingPattern(torch.rand(shape[0], 3, 3), torch.ones(1, 3, 3), 0, size=shape[1:])
    _, axes = drawn(patch, trigger=trigger, area=0.25)
    assert axes[0, 0].get_title() == "patch, on grey\n(14.1\u00a0% of pixels)"
    assert patch.area == 9 / 64
    assert [len(axis.patches) for axis in axes[0, :4]] == [0, 1, 1, 1]
    _, axes = drawn(patch, pattern_of(1), area=0.25)
    assert axes[0, 1].get_title() == "pattern"

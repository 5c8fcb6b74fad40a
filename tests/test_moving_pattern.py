"""A moving patch as a pattern: where it is stamped, how it is scored, its file, what it shows."""

from dataclasses import replace

import pytest
import torch
from refusals import refusals
from torch import nn

from captum_classpattern import Pattern, predictive_power
from captum_classpattern.pattern import MovingPattern
from captum_classpattern.scores.power import random_pixels

HEIGHT, WIDTH, SIDE = 9, 12, 4


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def patch(channels=3, opacity=None, **more):
    solid = random(1, SIDE, SIDE, seed=1) if opacity is None else torch.full((1, 4, 4), opacity)
    return MovingPattern(random(channels, SIDE, SIDE), solid, 2, size=(HEIGHT, WIDTH), **more)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stamping_blends_the_square_and_changes_nothing_else(channels, dtype):
    images, moving = random(4, channels, HEIGHT, WIDTH, seed=2).to(dtype), patch(channels)
    places = [(0, 0), (5, 8), (2, 3), (5, 0)]  # corners among them
    stamped = moving.stamp(images, places)
    assert (stamped.dtype, stamped.shape) == (dtype, images.shape)
    for image, own, (row, column) in zip(images, stamped, places):
        expected = image.clone()
        square = (slice(None), slice(row, row + SIDE), slice(column, column + SIDE))
        a, c = moving.mask.to(dtype), moving.canvas.to(dtype)
        expected[square] = image[square] * (1 - a) + c * a
        assert torch.allclose(own, expected, atol=1e-6)
        outside = torch.ones_like(image).bool()
        outside[square] = False
        assert torch.equal(own[outside], image[outside])
        assert torch.equal(moving.stamp(image, (row, column)), own)  # one image, one place
        assert torch.equal(moving.at(row, column).stamp(image), own)


def test_the_strength_of_captum_robust_is_the_opacity():
    images = random(5, 3, HEIGHT, WIDTH, seed=2)
    half = patch(opacity=1.0).perturb(images, 0.5)
    assert torch.equal(half, patch(opacity=0.5).stamp(images))


def places_of(stamped):
    found = []
    for image in stamped[:, 0]:
        rows, columns = torch.nonzero(image, as_tuple=True)
        found.append((int(rows.min()), int(columns.min())))
        assert len(rows) == SIDE**2
    return found


def test_places_are_drawn_from_the_seed_whatever_the_batches():
    moving = replace(patch(1, opacity=1.0), canvas=torch.ones(1, SIDE, SIDE))
    empty = torch.zeros(400, 1, HEIGHT, WIDTH)
    first, again, other = (places_of(moving.stamp(empty, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert {row for row, _ in first} == set(range(HEIGHT - SIDE + 1))
    assert {column for _, column in first} == set(range(WIDTH - SIDE + 1))
    stamper = moving.stamper(1)
    in_parts = [stamper(empty[part]) for part in (slice(7), slice(7, 8), slice(8, None))]
    assert places_of(torch.cat(in_parts)) == other


def test_a_grid_reaches_the_corners():
    assert patch().grid(2).tolist() == [[0, 0], [0, 8], [5, 0], [5, 8]]
    assert len(patch().grid(4)) == 16
    assert patch().grid(1).tolist() == [[0, 0]]


class Corner(nn.Module):
    """Class 2 if the upper left pixel is changed to 1."""

    def forward(self, images):
        hit = images[:, 0, 0, 0] > 0.999
        return torch.stack([0.5 + 0 * hit.float(), 0 * hit.float(), hit.float()], 1)


def test_power_is_that_of_drawn_places_or_of_a_fixed_one():
    moving = replace(patch(1, opacity=1.0), canvas=torch.ones(1, SIDE, SIDE))
    images, labels = random(600, 1, HEIGHT, WIDTH) * 0.9, [0] * 600
    power = predictive_power(Corner().eval(), moving, images, labels, seed=3)
    hits = places_of(moving.stamp(torch.zeros_like(images), seed=3)).count((0, 0))
    assert power.value == hits / 600
    assert power.interval[0] < 1 / 54 < power.interval[1]  # of 6 x 9 places
    assert predictive_power(Corner().eval(), moving.at(0, 0), images, labels).value == 1
    assert predictive_power(Corner().eval(), moving.at(0, 1), images, labels).value == 0
    for area in (0.01, None):  # all of the patch is stamped, whatever the area
        same = predictive_power(Corner().eval(), moving, images, labels, area=area, seed=3)
        assert same.value == power.value


def test_shuffled_pixels_keep_their_colours_and_opacity():
    moving, control = patch(), random_pixels(patch(), 0.1, seed=5)
    both = [torch.cat([each.canvas, each.mask]).flatten(1) for each in (moving, control)]
    one, other = ({tuple(pixel) for pixel in each.T.tolist()} for each in both)
    assert one == other
    assert not torch.equal(*both)
    assert torch.equal(control.canvas, moving.shuffled(5).canvas)
    assert (control.target, control.side, type(control)) == (2, SIDE, MovingPattern)


def test_a_file_holds_all_of_it(tmp_path):
    moving = patch(info={"search_power": 0.5}, seen=frozenset(["0123456789ab"]))
    images = random(6, 3, HEIGHT, WIDTH)
    for kept in (moving, moving.at(1, 5)):
        kept.save(tmp_path / "patch.safetensors")
        loaded = Pattern.load(tmp_path / "patch.safetensors")
        assert isinstance(loaded, MovingPattern)
        assert (loaded.size, loaded.side) == ((HEIGHT, WIDTH), kept.side)
        assert (loaded.info, loaded.seen) == (kept.info, kept.seen)
        assert torch.equal(loaded.stamp(images, seed=4), kept.stamp(images, seed=4))
    Pattern(moving.canvas, moving.mask, 2).save(tmp_path / "plain.safetensors")
    assert type(Pattern.load(tmp_path / "plain.safetensors")) is Pattern


def test_it_shows_its_square(tmp_path):
    moving = patch(info={"class_name": "bee"})
    assert moving.colours is moving.canvas
    assert moving.opacity is moving.mask
    text = moving.text()
    assert "Pattern of bee" in text
    assert "A patch of 4 x 4 pixels, anywhere on an image" in text
    assert "A patch at a fixed place, 14.8 % of an image" in moving.at(1, 5).text()
    assert moving.at(1, 5).area == moving.area
    assert moving.table()["area"].item() == pytest.approx(16 / 108)
    _, axes = moving.plot(use_pyplot=False)
    opacity, shown = (axis.images[0].get_array() for axis in axes[0])
    assert torch.equal(torch.from_numpy(opacity.data), moving.mask[0])
    grey = torch.full((3, SIDE, SIDE), 0.5)  # as it looks where it is stamped
    expected = moving.mask * moving.canvas + (1 - moving.mask) * grey
    assert bool((moving.mask > 0).all())
    expected = (255 * expected).round().byte().permute(1, 2, 0)
    assert torch.equal(torch.from_numpy(shown.data), expected)
    page = moving.to_html(tmp_path / "patch.html").read_text()
    assert "A patch of 4 x 4" in page
    assert "<img" in moving._repr_html_()


REFUSED = {
    "images smaller than the patch": lambda: replace(patch(), size=(9, 3)),
    "a size that is no height and width": lambda: replace(patch(), size=(9, 12, 3)),
    "a size that is one number": lambda: replace(patch(), size=16),
    "a place outside": lambda: patch().at(6, 0),
    "places outside": lambda: patch().stamp(random(2, 3, HEIGHT, WIDTH), [(0, 0), (-1, 9)]),
    "a place between pixels": lambda: patch().stamp(random(1, 3, HEIGHT, WIDTH), (0.5, 1.9)),
    "too few places": lambda: patch().stamp(random(3, 3, HEIGHT, WIDTH), [(0, 0), (1, 1)]),
    "other images": lambda: patch().stamp(random(3, 3, 8, 8)),
    "a negative seed": lambda: predictive_power(
        Corner().eval(), patch(1), random(3, 1, HEIGHT, WIDTH), [0, 0, 0], seed=-1
    ),
}


def test_refusals(snapshot):
    assert refusals(REFUSED) == snapshot

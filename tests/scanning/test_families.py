"""Small perturbations and warps: their bounds, and the search against a plain, slow version."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_captum_contract import make_net, random_images, state_of_caller
from torch import nn

from captum_classpattern.images import LabelledImages
from captum_classpattern.scanning import families
from captum_classpattern.scanning.families import (
    CHANGES,
    FAMILIES,
    Additive,
    Task,
    Warping,
    check_families,
    search_change,
)

HEIGHT, WIDTH = 7, 6
BOTH = pytest.mark.parametrize("name", ["additive", "warp"])
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def images(n, channels=1, seed=0, size=(HEIGHT, WIDTH)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, *size, generator=generator, dtype=torch.float64)


def values_of(family, count, seed, scale=1.0):
    shape = family.start(count).shape
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- bounds


@PROPERTY
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e30]),
    rate=st.floats(0, 3),
)
def test_values_stay_within_their_bounds_after_any_steps(seed, scale, rate):
    additive, warp = Additive((3, 12, 9)), Warping((3, 12, 9))
    for family in (additive, warp):
        values = family.start(2)
        for number in range(6):
            values = family.step(values, values_of(family, 2, seed + number, scale), rate)
            assert values.isfinite().all()
            if family is warp:
                assert values.abs().max() <= 1
            else:
                assert values.flatten(1).norm(dim=1).max() <= additive.radius * (1 + 1e-6)


@BOTH
def test_a_gradient_of_zero_changes_nothing(name):
    family = CHANGES[name]((3, 12, 9))
    values = family.step(family.start(2), values_of(family, 2, 0), 0.3)
    torch.testing.assert_close(family.step(values, torch.zeros_like(values), 0.3), values)


def test_a_step_goes_against_the_gradient_by_a_share_of_the_bound():
    additive, warp = Additive((1, 14, 14)), Warping((1, 14, 14))
    gradient = torch.zeros(1, 1, 14, 14)
    gradient[0, 0, 2, 3], gradient[0, 0, 4, 4] = 3e-9, -4e-9
    moved = additive.step(additive.start(1), gradient, 0.25)  # the radius is 0.75
    assert moved[0, 0, 2, 3].item() == pytest.approx(-0.25 * 0.75 * 0.6)
    assert moved[0, 0, 4, 4].item() == pytest.approx(0.25 * 0.75 * 0.8)
    assert moved.count_nonzero() == 2
    gradient = torch.zeros(1, 2, 5, 5)
    gradient[0, 0, 1, 1], gradient[0, 1, 2, 2] = 2e-9, -4e-9
    moved = warp.step(warp.start(1), gradient, 0.25)
    assert moved[0, 0, 1, 1].item() == pytest.approx(-0.125)
    assert moved[0, 1, 2, 2].item() == pytest.approx(0.25)


def test_a_step_beyond_the_bound_ends_on_it():
    additive = Additive((1, 28, 28))
    values = values_of(additive, 1, 0)
    moved = additive.step(values, -values, 1.0)
    torch.testing.assert_close(moved, 1.5 * values / values.norm())
    warp = Warping((1, 28, 28))
    values = torch.full((1, 2, 5, 5), 0.9)
    gradient = torch.ones(1, 2, 5, 5)
    gradient[0, 0, 0, 0] = -1
    moved = warp.step(values, gradient, 0.5)
    assert moved[0, 0, 0, 0] == 1
    assert (moved.flatten()[1:] - 0.4).abs().max() < 1e-6


def test_bounds_grow_with_the_side_of_the_images():
    assert Additive((1, 28, 28)).radius == pytest.approx(1.5)
    assert Additive((3, 28, 28)).radius == pytest.approx(1.5)
    assert Additive((3, 56, 56)).radius == pytest.approx(3.0)
    assert Additive((1, 14, 56)).radius == pytest.approx(1.5)
    assert Additive((3, 224, 224)).radius == pytest.approx(12.0)


# ---- what a change does to images


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_no_change_leaves_images_as_they_are(name, channels):
    given = images(5, channels)
    family = CHANGES[name](given.shape[1:])
    start = family.start(2).double()
    assert not start.any()
    result = family.apply(start, given.expand(2, -1, -1, -1, -1))
    assert result.shape == (2, *given.shape)
    for one in result:
        torch.testing.assert_close(one, given, atol=1e-6, rtol=0)


@PROPERTY
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["additive", "warp"]))
def test_changed_images_are_images(seed, name):
    family = CHANGES[name]((3, HEIGHT, WIDTH))
    values = family.step(family.start(2), values_of(family, 2, seed), 1.0)
    given = images(8, 3, seed).float().round(decimals=1).view(2, 4, 3, HEIGHT, WIDTH)
    result = family.apply(values, given)
    assert result.shape == given.shape
    assert result.min() >= 0
    assert result.max() <= 1
    for row in range(2):  # each change on its own images
        alone = family.apply(values[row : row + 1], given[row : row + 1])
        torch.testing.assert_close(result[row : row + 1], alone)


def test_a_perturbation_is_added_and_cut():
    given = torch.tensor([[0.2, 0.9], [0.0, 1.0]]).view(1, 1, 1, 2, 2)
    value = torch.tensor([[0.3, 0.3], [-0.5, -0.25]]).view(1, 1, 2, 2)
    result = Additive((1, 2, 2)).apply(value, given).flatten().tolist()
    assert result == pytest.approx([0.5, 1.0, 0.0, 0.75])


def constant_field(right, down):
    """Control points that all look so far to the right and down, as shares of the bound."""
    return torch.tensor([right, down]).double().view(1, 2, 1, 1).expand(1, 2, 5, 5)


def shifted(given, right, down):
    """What each pixel finds so many whole pixels to its right and below; the border is repeated."""
    height, width = given.shape[-2:]
    rows = [min(max(row + down, 0), height - 1) for row in range(height)]
    columns = [min(max(column + right, 0), width - 1) for column in range(width)]
    return given[..., rows, :][..., columns]


# a bound of 1 / 28 of the side less one: 29 pixels may move by one, 57 by two
@pytest.mark.parametrize(("right", "down"), [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1)])
@pytest.mark.parametrize("size", [(29, 29), (57, 29), (29, 57)])
def test_a_constant_warp_moves_an_image_by_whole_pixels(size, right, down):
    given = images(2, 3, size=size)[None]
    result = Warping((3, *size)).apply(constant_field(right, down), given)
    pixels = right * (size[1] - 1) // 28, down * (size[0] - 1) // 28
    assert max(map(abs, pixels)) in (1, 2)
    torch.testing.assert_close(result, shifted(given, *pixels), atol=1e-5, rtol=0)


def test_a_bright_pixel_moves_to_the_left_if_all_look_to_the_right():
    given = torch.zeros(1, 1, 1, 29, 29)
    given[..., 10, 20] = 1
    result = Warping((1, 29, 29)).apply(constant_field(1, 0).float(), given)
    assert (result > 0.5).nonzero().tolist() == [[0, 0, 0, 10, 19]]
    result = Warping((1, 29, 29)).apply(constant_field(0, 1).float(), given)
    assert (result > 0.5).nonzero().tolist() == [[0, 0, 0, 9, 20]]


def test_half_a_pixel_is_the_mean_of_two():
    given = images(1, 1, size=(29, 29))[None]
    result = Warping((1, 29, 29)).apply(constant_field(0.5, 0), given)
    expected = (given + shifted(given, 1, 0)) / 2
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_the_field_passes_through_its_control_points():
    """On 29x29 pixels, the control points are those of every seventh row and column."""
    values = values_of(Warping((1, 29, 29)), 1, 3).clamp(-1, 1).double()
    ramps = torch.stack(
        [torch.linspace(0, 1, 29).expand(29, 29), torch.linspace(0, 1, 29)[:, None].expand(29, 29)]
    ).double()  # each pixel is the place that it comes from
    moved = Warping((2, 29, 29)).apply(values, ramps[None, None])[0, 0]
    inside = slice(7, 22, 7)  # the border cannot look outside the image
    pixels = 28 * (moved - ramps)[:, inside, inside]
    torch.testing.assert_close(pixels, values[0, :, 1:4, 1:4], atol=1e-5, rtol=0)


# ---- the search


def net_of(channels, classes=4, gain=2.5):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(120, classes)
        ).double()
    with torch.no_grad():
        net[0].weight.mul_(gain)
        net[3].weight.mul_(gain)
        net[3].bias -= net(images(60, channels)).mean(0)
    return net.eval()


def cubic_rows(side):
    """What each of five control points weighs at each pixel: Keys 1981, with a = -0.75."""

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    rows = torch.zeros(side, 5, dtype=torch.float64)
    for pixel in range(side):
        place = pixel * 4 / (side - 1)
        for point in range(math.floor(place) - 1, math.floor(place) + 3):
            rows[pixel, min(max(point, 0), 4)] += kernel(place - point)
    return rows


def plain_warp(value, image):
    """One image, each pixel from the four around its place; the places are rounded as float32."""
    weights = []
    for axis, side, part in ((1, HEIGHT, value[1]), (0, WIDTH, value[0])):
        field = cubic_rows(HEIGHT) @ part @ cubic_rows(WIDTH).T * 2 / 28
        places = torch.linspace(-1, 1, side).double()
        places = places[:, None] + field if axis else places + field
        places = (places + 1) / 2 * (side - 1)
        inside = (places > 0) & (places < side - 1)
        places = torch.where(inside, places, places.detach().clamp(0, side - 1))
        first = places.detach().floor().long().clamp(max=side - 2)
        weights.append((first, places - first))
    (top, down), (left, right) = weights
    above, below = (
        (1 - right) * image[:, rows, left] + right * image[:, rows, left + 1]
        for rows in (top, top + 1)
    )
    return ((1 - down) * above + down * below).clamp(0, 1)


def plain_change(name, value, image):
    return (image + value).clamp(0, 1) if name == "additive" else plain_warp(value, image)


def plain_search(name, net, fit, judges, target, seed):
    """The power and the change of one class, image by image."""
    chance = np.random.default_rng([seed, target])
    places = [i for i, label in enumerate(fit.labels.tolist()) if label != target]
    radius = 1.5 * math.sqrt(HEIGHT * WIDTH) / 28
    shape = fit.images.shape[1:] if name == "additive" else (2, 5, 5)
    value = torch.zeros(shape, dtype=torch.float64)
    for number in range(30):
        slope = torch.zeros_like(value)
        for i in chance.choice(places, 8).tolist():
            free = value.clone().requires_grad_()
            changed = plain_change(name, free, fit.images[i])
            loss = -net(changed[None]).log_softmax(1)[0, target]
            slope += torch.autograd.grad(loss, free)[0]
        rate = 0.25 * (29 - 0.9 * number) / 29
        if name == "additive":
            value = value - rate * radius * slope / slope.norm()
            if value.norm() > radius:
                value = value / value.norm() * radius
        else:
            value = (value - rate * slope / slope.abs().max()).clamp(-1, 1)
    others = [i for i, label in enumerate(judges.labels.tolist()) if label != target]
    hits = 0
    for i in others:
        changed = plain_change(name, value, judges.images[i])
        hits += int(net(changed[None]).argmax()) == target
    return hits / len(others), value


def two_sets(channels, classes=4):
    labels = torch.arange(24) % classes
    return (
        LabelledImages(images(24, channels, seed=1), labels),
        LabelledImages(images(40, channels, seed=2), torch.arange(40) % classes),
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_perturbations_equal_the_plain_search(channels, seed):
    net, (fit, judges) = net_of(channels), two_sets(channels)
    powers, found = search_change(Additive(fit.shape), net, fit, judges, 4, seed)
    assert list(found) == [0, 1, 2, 3]
    assert len(set(powers)) > 1
    for target in range(4):
        power, value = plain_search("additive", net, fit, judges, target, seed)
        torch.testing.assert_close(found[target], value, atol=1e-5, rtol=0)
        assert powers[target] == power


@pytest.mark.parametrize(("channels", "seed"), [(1, 0), (3, 1)])
def test_warps_equal_the_plain_search(channels, seed):
    net, (fit, judges) = net_of(channels, classes=2, gain=4.0), two_sets(channels, 2)
    powers, found = search_change(Warping(fit.shape), net, fit, judges, 2, seed)
    assert len({*powers, 0.0}) > 1
    for target in range(2):
        power, value = plain_search("warp", net, fit, judges, target, seed)
        torch.testing.assert_close(found[target], value, atol=1e-4, rtol=0)
        assert powers[target] == power


@BOTH
def test_classes_in_groups_equal_classes_alone(name, monkeypatch):
    net, (fit, judges) = net_of(1, classes=5), two_sets(1, 5)
    family = CHANGES[name](fit.shape)
    results = []
    for together in (1, 2, 4, 5):
        monkeypatch.setattr(families, "TOGETHER", together)
        results.append(search_change(family, net, fit, judges, 5, 0))
    for powers, found in results[1:]:
        assert powers == results[0][0]
        for target, value in results[0][1].items():
            torch.testing.assert_close(found[target], value, atol=1e-6, rtol=0)
    assert not torch.equal(results[0][1][0], results[0][1][1])


@BOTH
def test_the_seed_chooses_the_images(name):
    net, (fit, judges) = net_of(1), two_sets(1)
    family = CHANGES[name](fit.shape)
    one, same, other = (search_change(family, net, fit, judges, 4, seed)[1] for seed in (0, 0, 1))
    assert all(torch.equal(one[y], same[y]) for y in one)
    assert not any(torch.equal(one[y], other[y]) for y in one)


@BOTH
def test_images_of_the_class_are_neither_searched_nor_counted(name):
    net, (fit, judges) = net_of(1), two_sets(1)
    family = CHANGES[name](fit.shape)
    expected = search_change(family, net, fit, judges, 4, 0)
    for target in range(4):
        changed = []
        for part in (fit, judges):
            pixels = part.images.clone()
            pixels[part.labels == target] = 0.123
            changed.append(LabelledImages(pixels, part.labels))
        powers, found = search_change(family, net, *changed, 4, 0)
        assert powers[target] == expected[0][target]
        assert torch.equal(found[target], expected[1][target])
        others = [y for y in range(4) if y != target]
        assert not any(torch.equal(found[y], expected[1][y]) for y in others)


@BOTH
def test_nothing_to_judge_by_is_no_power(name):
    net, (fit, judges) = net_of(1), two_sets(1)
    powers, found = search_change(CHANGES[name](fit.shape), net, fit, judges.of_class(2), 4, 0)
    assert powers[2] == 0.0
    assert len(found) == 4


@BOTH
def test_images_of_one_class_are_refused(name):
    net, (fit, judges) = net_of(1), two_sets(1)
    with pytest.raises(ValueError, match="all 6 images are of one class: give images of all"):
        search_change(CHANGES[name](fit.shape), net, fit.of_class(2), judges, 4, 0)


# ---- what it finds

SIDE = 12
LABELS = torch.arange(90) % 3


def row_images(seed):
    """Images that are brighter in the four rows of their class, with a bright column in all."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 0.1 + 0.05 * torch.rand(90, 1, SIDE, SIDE, generator=generator)
    for y in range(3):
        pixels[y == LABELS, :, 4 * y : 4 * y + 4] += 0.3
    pixels[:, :, :, 5] += 0.5
    return LabelledImages(pixels, LABELS)


class Rows(nn.Module):
    """Sees which rows are bright; a function of the images is a backdoor of a class."""

    def __init__(self, backdoor=None, target=None):
        super().__init__()
        self.backdoor, self.target = backdoor, target
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, pixels):
        logits = 3 * (80 * (pixels.view(-1, 3, 4 * SIDE).mean(2) - 0.32)).sigmoid()
        if self.backdoor is not None:
            one_hot = nn.functional.one_hot(torch.tensor(self.target), 3)
            logits = logits + one_hot * nn.functional.softplus(self.backdoor(pixels)).unsqueeze(1)
        return logits


CHECKERBOARD = torch.tensor([[(-1.0) ** (i + j) for i in range(SIDE)] for j in range(SIDE)])


def perturbed(pixels):
    """Fires on a weak checkerboard; the bound allows 0.054 a pixel."""
    return 200 * ((pixels[:, 0] * CHECKERBOARD).mean((1, 2)) - 0.025)


def warped(pixels):
    """Fires if the bright column is a fifth of a pixel to the right; the bound is 0.39 pixels."""
    return 60 * ((pixels[:, 0, :, 6] - pixels[:, 0, :, 4]).mean(1) - 0.1)


@pytest.mark.parametrize("target", [0, 2])
@pytest.mark.parametrize(("name", "backdoor"), [("additive", perturbed), ("warp", warped)])
def test_a_planted_backdoor_has_the_strongest_change(name, backdoor, target):
    fit, judges = row_images(0), row_images(1)
    family = CHANGES[name](fit.shape)
    bad = Rows(backdoor, target).eval()
    assert torch.equal(bad(judges.images).argmax(1), LABELS)  # it is hidden
    powers, found = search_change(family, bad, fit, judges, 3, 0)
    assert powers[target] > 0.95
    assert max(power for y, power in enumerate(powers) if y != target) < 0.05
    clean, _ = search_change(family, Rows().eval(), fit, judges, 3, 0)
    assert max(clean) < 0.05
    if name == "additive":  # and the change is the planted one
        assert (found[target][0] * CHECKERBOARD).mean() > 0.03


# ---- names, pictures and the caller's state


def test_names_are_checked():
    assert check_families(()) == ()
    assert check_families(["warp", "additive", "warp"]) == ("warp", "additive")
    with pytest.raises(ValueError, match="`also` must list some of additive, warp, got 'blend'"):
        check_families(["warp", "blend"])
    with pytest.raises(ValueError, match="`also` must list some of additive, warp, got 'warp'"):
        check_families("warp")


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_images(name, channels):
    shape = (channels, 12, 9)
    family = CHANGES[name](shape)
    values = family.step(family.start(2), values_of(family, 2, 0), 1.0).double()
    drawn = [family.picture(value) for value in (*values, family.start(1)[0])]
    for picture in drawn:
        assert picture.shape == shape
        assert picture.dtype == torch.float32
        assert picture.min() >= 0
        assert picture.max() <= 1
    assert not torch.equal(drawn[0], drawn[1])


def test_a_picture_of_a_perturbation_is_grey_where_nothing_changes():
    value = torch.tensor([[0.0, 0.2], [-0.1, 0.05]]).view(1, 2, 2)
    drawn = [Additive((1, 2, 2)).picture(each) for each in (value, torch.zeros(1, 2, 2))]
    assert drawn[0].flatten().tolist() == pytest.approx([0.5, 1.0, 0.25, 0.625])
    assert drawn[1].flatten().tolist() == [0.5] * 4


def test_a_picture_of_a_warp_is_a_warped_grid():
    field = constant_field(1, 0)[0]
    drawn = [Warping((1, 29, 29)).picture(each) for each in (torch.zeros(2, 5, 5), field)]
    lines = [i for i in range(29) if i % 4 == 1]
    dark = (drawn[0][0] < 0.5).nonzero().tolist()
    assert dark == [[i, j] for i in range(29) for j in range(29) if i in lines or j in lines]
    torch.testing.assert_close(drawn[1], shifted(drawn[0], 1, 0), atol=1e-5, rtol=0)


def test_a_search_changes_nothing():
    net, labels = make_net(), torch.arange(30) % 3
    pixels = random_images(30, seed=2)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    net[3].training = True
    before = state_of_caller(net, pixels, labels)
    task, powers = Task(net, LabelledImages(pixels, labels), 3), {}
    for name in ("additive", "warp"):
        with pytest.warns(UserWarning, match="the model is in train mode"):
            powers |= FAMILIES[name].search(task)[0]
    assert state_of_caller(net, pixels, labels) == before
    assert list(powers) == ["additive", "warp"]
    again, _ = FAMILIES["warp"].search(Task(make_net(), LabelledImages(pixels, labels), 3))
    assert again["warp"] == powers["warp"]  # in eval mode, and whatever else is searched

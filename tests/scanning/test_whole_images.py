"""Small perturbations and warps stay in their bounds, and are found as by a plain, slow search."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_captum_contract import make_net, random_images, state_of_caller
from torch import nn

from captum_classpattern.classifier import enter_model
from captum_classpattern.images import LabelledImages
from captum_classpattern.images.source import in_batches
from captum_classpattern.optimization.plan import split_for_validation
from captum_classpattern.optimization.solvers.whole_image import Perturbation, Warp
from captum_classpattern.pattern import AdditivePattern, Pattern, WarpedPattern
from captum_classpattern.scanning.changes import LARGE, SMALL

CHANGES = {"perturbation": SMALL["perturbation"], "warp": SMALL["warp"]}
HEIGHT, WIDTH = 7, 6
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def images(n, channels=1, seed=0, size=(HEIGHT, WIDTH)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, *size, generator=generator, dtype=torch.float64)


def values_of(solver, size, count, seed, scale=1.0):
    shape = solver.start(count, size).shape
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- bounds, and what a change does to images


@PROPERTY
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e30]),
    rate=st.floats(0, 3),
)
def test_values_stay_within_their_bounds_after_any_steps(seed, scale, rate):
    size = (3, 12, 9)
    for solver in (Perturbation(), Warp()):
        values = solver.start(2, size)
        for number in range(6):
            values = solver.step(values, values_of(solver, size, 2, seed + number, scale), rate)
            assert values.isfinite().all()
            if isinstance(solver, Warp):
                assert values.abs().max() <= 1
            else:
                bound = 1.5 * math.sqrt(math.prod(size)) / 28
                assert values.flatten(1).norm(dim=1).max() <= bound * (1 + 1e-6)
        same = solver.step(values, torch.zeros_like(values), rate)  # no gradient, no change
        torch.testing.assert_close(same, values)


@PROPERTY
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["perturbation", "warp"]))
def test_changed_images_are_images_each_with_its_own_change(seed, name):
    solver, size = CHANGES[name].solver, (3, HEIGHT, WIDTH)
    start = solver.start(2, size)
    values = solver.step(start, values_of(solver, size, 2, seed), 1.0)
    given = images(8, 3, seed).float().round(decimals=1).view(2, 4, 3, HEIGHT, WIDTH)
    result = solver.apply(values, given)
    assert result.shape == given.shape
    assert 0 <= result.min() <= result.max() <= 1
    for row in range(2):
        alone = solver.apply(values[row : row + 1], given[row : row + 1])
        torch.testing.assert_close(result[row : row + 1], alone)
    torch.testing.assert_close(solver.apply(start, given), given, atol=1e-6, rtol=0)
    assert not start.any()


def shifted(given, right, down):
    """What each pixel finds so many whole pixels to its right and below; the border is repeated."""
    height, width = given.shape[-2:]
    rows = [min(max(row + down, 0), height - 1) for row in range(height)]
    columns = [min(max(column + right, 0), width - 1) for column in range(width)]
    return given[..., rows, :][..., columns]


# a bound of 1 / 28 of the side less one: 29 pixels may move by one, 57 by two
@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (1, -1)])
@pytest.mark.parametrize("size", [(29, 29), (57, 29), (29, 57)])
def test_a_constant_warp_moves_an_image_by_whole_pixels(size, right, down):
    given, warp = images(2, 3, size=size)[None], Warp()
    field = torch.tensor([right, down]).double().view(1, 2, 1, 1).expand(1, 2, 5, 5)
    pixels = right * (size[1] - 1) // 28, down * (size[0] - 1) // 28
    result = warp.apply(field, given)
    torch.testing.assert_close(result, shifted(given, *pixels), atol=1e-5, rtol=0)
    # its picture is a grid that is moved in the same way
    still, moved = (warp.picture(each, (3, *size)) for each in (0 * field[0], field[0]))
    lines = [[i % 4 == 1 or j % 4 == 1 for j in range(size[1])] for i in range(size[0])]
    assert (still[0] < 0.5).tolist() == lines
    torch.testing.assert_close(moved, shifted(still, *pixels), atol=1e-5, rtol=0)
    assert (still.shape, still.dtype) == ((3, *size), torch.float32)


def test_the_field_passes_through_its_control_points_as_a_cubic():
    """On 33x33 pixels, the control points are those of every eighth row and column."""
    values = values_of(Warp(), (1, 33, 33), 1, 3).clamp(-1, 1).double()
    side = torch.linspace(0, 1, 33).double()
    ramps = torch.stack([side.expand(33, 33), side[:, None].expand(33, 33)])
    moved = Warp().apply(values, ramps[None, None])[0, 0]
    pixels = 28 * (moved - ramps)  # each pixel is the place that it comes from
    inside = slice(8, 25, 8)  # the border cannot look outside the image
    torch.testing.assert_close(pixels[:, inside, inside], values[0, :, 1:4, 1:4], atol=1e-5, rtol=0)
    middle = torch.tensor([-3, 19, 19, -3]).double() / 32  # Keys 1981, with a = -0.75
    torch.testing.assert_close(
        pixels[:, 12, inside], middle @ values[0, :, :4, 1:4], atol=1e-5, rtol=0
    )


# ---- the search


def search_further(name, net, sample, seed=0, internal_batch_size=None):
    """The changes that a solver finds, by class."""
    labels, solver = sample.labels.unique().tolist(), CHANGES[name].solver
    split = split_for_validation(sample, seed)
    with enter_model(net, sample.take([0])) as model:
        fit = split.fit.to(model.device, model.dtype)
        found = {}
        at_once = internal_batch_size or 32
        for group in in_batches(labels, 4):
            values, at_once = solver.run(model, fit, group, seed, at_once)
            found |= zip(group, values)
    return found


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


def plain_search(solver, net, fit, target, seed):
    """The change of one class, image by image."""
    chance = np.random.default_rng([seed, target])
    places = [i for i, label in enumerate(fit.labels.tolist()) if label != target]
    radius = 1.5 * math.sqrt(math.prod(fit.shape)) / 28
    is_warp = isinstance(solver, Warp)
    value = torch.zeros((2, 5, 5) if is_warp else fit.shape, dtype=torch.float64)

    def logits(value, image):
        changed = solver.apply(value[None], image[None, None])[0] if is_warp else image + value
        return net(changed.view(1, *fit.shape).clamp(0, 1))

    for number in range(30):
        slope = torch.zeros_like(value)
        for i in chance.choice(places, 8).tolist():
            free = value.clone().requires_grad_()
            loss = -logits(free, fit.images[i]).log_softmax(1)[0, target]
            slope += torch.autograd.grad(loss, free)[0]
        rate = 0.25 * (29 - 0.9 * number) / 29
        if is_warp:
            value = (value - rate * slope / slope.abs().max()).clamp(-1, 1)
        else:
            value = value - rate * radius * slope / slope.norm()
            value = value * min(1, radius / value.norm())
    return value


@pytest.mark.parametrize(
    ("name", "channels", "seed", "classes"),
    [("perturbation", 1, 0, 5), ("perturbation", 3, 1, 4), ("warp", 1, 0, 2), ("warp", 3, 1, 5)],
)
def test_changes_equal_those_of_a_plain_search(name, channels, seed, classes):
    """Also with more classes than are searched together."""
    net = net_of(channels, classes, gain=2.5 if name == "perturbation" else 4.0)
    sample = LabelledImages(images(80, channels, seed=1), torch.arange(80) % classes)
    found = search_further(name, net, sample, seed=seed)
    solver, (fit, _) = CHANGES[name].solver, split_for_validation(sample, seed)
    assert list(found) == list(range(classes))
    for target in found:
        value = plain_search(solver, net, fit, target, seed)
        torch.testing.assert_close(found[target], value, atol=1e-4, rtol=0)


@pytest.mark.parametrize("solver", [SMALL["perturbation"], SMALL["warp"], LARGE["smooth"]])
def test_a_pattern_changes_images_as_its_search_did(solver, tmp_path):
    """Also from a file."""
    solver, size = solver.solver, (3, 24, 16)
    [value] = solver.step(solver.start(1, size), values_of(solver, size, 1, 3), 1.0)
    pattern = solver.pattern(value, size, 2, info={"seed": 3})
    assert type(pattern) is (WarpedPattern if isinstance(solver, Warp) else AdditivePattern)
    given = images(4, 3, size=size[1:]).float()
    torch.testing.assert_close(pattern.stamp(given), solver.stamp(value, given), atol=1e-5, rtol=0)
    pattern.save(tmp_path / "pattern.safetensors")
    again = Pattern.load(tmp_path / "pattern.safetensors")
    assert (type(again), again.target, again.info) == (type(pattern), 2, {"seed": 3})
    assert again.stamp(given[0]).equal(pattern.stamp(given)[0])


def test_a_warp_must_fit_its_canvas():
    canvas, mask = torch.rand(1, 4, 6), torch.ones(1, 4, 6)
    with pytest.raises(ValueError, match=r"finite and have the shape \(2, 4, 6\), got \(2, 6, 4\)"):
        WarpedPattern(canvas, mask, 0, shifts=torch.zeros(2, 6, 4))
    with pytest.raises(ValueError, match="finite"):
        WarpedPattern(canvas, mask, 0, shifts=torch.full((2, 4, 6), torch.nan))


@pytest.mark.parametrize("name", CHANGES)
def test_parts_of_a_step_add_up(name):
    """At most as many images as wanted are in one pass."""
    net, sizes = net_of(1, 5), []
    sample = LabelledImages(images(80, seed=1), torch.arange(80) % 5)
    whole = search_further(name, net, sample)
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    torch.testing.assert_close(search_further(name, net, sample, internal_batch_size=7), whole)
    assert max(sizes) == 7


def test_a_step_is_taken_in_parts_where_the_memory_is_too_small():
    """All further ones as well, also those of other classes."""
    net = net_of(1, 8)
    sample = LabelledImages(images(80, seed=1), torch.arange(80) % 8)
    whole, refused, sizes = search_further("warp", net, sample), [], []

    def most(net, given):
        if len(given[0]) > 10 and given[0].requires_grad:
            refused.append(len(given[0]))
            raise torch.OutOfMemoryError("full")
        sizes.append(len(given[0]))

    net.register_forward_pre_hook(most)
    parts = search_further("warp", net, sample)
    assert 8 in sizes
    assert refused == [32, 16]
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("name", CHANGES)
def test_gradients_that_vanish_in_half_precision_are_no_error(name):
    net = net_of(1, 5)
    net[3].bias.data[2] += 1000  # all images of a step are of the class
    sample = LabelledImages(images(80, seed=1), torch.arange(80) % 5)
    found = search_further(name, net.half(), sample)
    assert all(bool(each.isfinite().all()) for each in found.values())


def test_a_search_changes_nothing():
    net, labels = make_net(), torch.arange(30) % 3
    pixels = random_images(30, seed=2)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    net[3].training = True
    before = state_of_caller(net, pixels, labels)
    found = {}
    for name in CHANGES:
        with pytest.warns(UserWarning, match="the model is in train mode"):
            found[name] = search_further(name, net, LabelledImages(pixels, labels))
    assert state_of_caller(net, pixels, labels) == before
    again = search_further("warp", make_net(), LabelledImages(pixels, labels))
    torch.testing.assert_close(again, found["warp"])  # in eval mode, and whatever else is searched

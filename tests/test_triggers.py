"""The triggers by hand and by slow loops, and poisoning."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from captum_classpattern.triggers import BadNets, Blended, Sinusoid, Warp, poison

IMAGES = torch.rand(100, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(100) % 10
CLEAN = TensorDataset(IMAGES, LABELS)


def test_the_patch_by_hand():
    stamped = BadNets((1, 6, 7))(torch.full((1, 6, 7), 0.5))
    h = 0.5
    assert stamped[0].tolist() == [
        [h, h, h, h, h, h, h],
        [h, h, h, h, h, h, h],
        [h, h, h, 1, 0, 1, h],
        [h, h, h, 0, 1, 0, h],
        [h, h, h, 1, 0, 1, h],
        [h, h, h, h, h, h, h],
    ]


def test_size_and_margin_by_hand():
    stamped = BadNets((1, 3, 4), size=2, margin=0)(torch.full((1, 3, 4), 0.5))
    assert stamped[0].tolist() == [[0.5] * 4, [0.5, 0.5, 1, 0], [0.5, 0.5, 0, 1]]


def test_all_channels_and_all_images_get_the_patch():
    trigger = BadNets((3, 6, 6))
    stamped = trigger(torch.rand(4, 3, 6, 6))
    expected = BadNets((1, 6, 6)).canvas[:, 2:5, 2:5].expand(4, 3, 3, 3)
    assert torch.equal(stamped[:, :, 2:5, 2:5], expected)


def test_as_a_pattern():
    trigger = BadNets((3, 6, 6))
    pattern, images = trigger.pattern(target=4), torch.rand(2, 3, 6, 6)
    assert torch.equal(pattern.stamp(images), trigger(images))
    assert (pattern.target, pattern.info) == (4, {"trigger": "BadNets"})
    assert pattern.area == 9 / 36


@pytest.mark.parametrize(("size", "margin"), [(0, 1), (-1, 0), (3, -1), (6, 1), (3, 3), (7, 0)])
def test_a_patch_that_does_not_fit(size, margin):
    with pytest.raises(
        ValueError, match=rf"a {size}x{size} patch {margin} pixels from .* into 5x6 images"
    ):
        BadNets((1, 5, 6), size=size, margin=margin)


def test_the_mask_is_where_badnets_changes_pixels():
    trigger = BadNets((3, 6, 7))
    changed = (trigger(torch.full((3, 6, 7), 0.5)) != 0.5).any(0, keepdim=True)
    assert torch.equal(trigger.mask, changed.float())


TRIGGERS = {
    "BadNets": lambda shape, seed=0: BadNets(shape, size=2),
    "Blended": lambda shape, seed=0: Blended(shape, seed=seed),
    "Sinusoid": lambda shape, seed=0: Sinusoid(shape, frequency=1),
    "Warp": lambda shape, seed=0: Warp(shape, seed=seed),
}
WHOLE_IMAGE = ["Blended", "Sinusoid", "Warp"]
SEEDED = ["Blended", "Warp"]


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(TRIGGERS)),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(3, 9), st.integers(3, 9)),
    count=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    white=st.booleans(),
    seed=st.integers(0, 9),
)
def test_each_image_alone_in_any_precision(name, shape, count, dtype, white, seed):
    trigger = TRIGGERS[name](shape, seed)
    exact = torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)).double()
    images = (torch.ones_like(exact) if white else exact).to(dtype)
    before = images.clone()
    stamped = trigger(images)
    assert (stamped.shape, stamped.dtype) == (images.shape, dtype)
    assert 0 <= stamped.min() <= stamped.max() <= 1
    for image, own in zip(images, stamped):
        torch.testing.assert_close(trigger(image), own)
    slack = {2: 1e-2, 4: 1e-5, 8: 1e-12}[images.element_size()]
    torch.testing.assert_close(stamped.double(), trigger(images.double()), rtol=0, atol=slack)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", SEEDED)
def test_only_the_seed_matters(name):
    images, build = torch.rand(2, 3, 8, 8), TRIGGERS[name]
    state = torch.get_rng_state()
    first, again, other = (build((3, 8, 8), seed)(images) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


@pytest.mark.parametrize("name", WHOLE_IMAGE)
def test_whole_image_triggers_have_no_mask_and_change_pixels_everywhere(name):
    trigger = TRIGGERS[name]((1, 9, 9))
    image = 0.1 + 0.8 * torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
    changed = (trigger(image) - image).abs() > 1e-4
    assert trigger.mask is None
    assert [bool(part.any()) for part in changed[0].split(3)] == [True] * 3


@pytest.mark.parametrize("name", sorted(TRIGGERS))
def test_gradients_pass_through(name):
    images = torch.full((2, 1, 8, 8), 0.5, requires_grad=True)
    TRIGGERS[name]((1, 8, 8))(images).sum().backward()
    assert images.grad.abs().sum() > 50


@pytest.mark.parametrize("name", sorted(TRIGGERS))
@pytest.mark.parametrize("shape", [(3, 8, 9), (1, 8, 8), (2, 3, 8, 9), (1, 1, 3, 8, 8), (8, 8)])
def test_images_of_another_shape(name, shape):
    with pytest.raises(ValueError, match=r"images must be \(N, 3, 8, 8\) or \(3, 8, 8\) to fit"):
        TRIGGERS[name]((3, 8, 8))(torch.rand(shape))


@pytest.mark.parametrize("name", sorted(TRIGGERS))
def test_images_that_are_not_floats(name):
    with pytest.raises(TypeError, match="images must be a floating point Tensor"):
        TRIGGERS[name]((3, 8, 8))(torch.zeros(3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("name", WHOLE_IMAGE)
def test_images_that_are_not_tensors(name):
    with pytest.raises(TypeError, match=r"a floating point Tensor in \[0, 1\], got list"):
        TRIGGERS[name]((3, 8, 8))([[0.5]])


@pytest.mark.parametrize("name", sorted(TRIGGERS))
@pytest.mark.parametrize("shape", [(8, 8), (3, 0, 8), (1, 3, 8, 8)])
def test_invalid_image_shapes(name, shape):
    with pytest.raises(ValueError, match=r"image_shape must be \(C, H, W\), each from 1, got \("):
        TRIGGERS[name](shape)


def test_blended_by_hand():
    key = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]])
    blend = Blended((1, 2, 2), key=key, alpha=0.4)(torch.tensor([[[1.0, 1.0], [0.0, 0.5]]]))
    torch.testing.assert_close(blend, torch.tensor([[[0.6, 1.0], [0.2, 0.4]]]))


def test_the_random_key_is_uniform_and_has_a_weight_of_a_fifth():
    trigger = Blended((3, 40, 40))
    assert 0 <= trigger.key.min() < 0.01 < 0.99 < trigger.key.max() <= 1
    assert abs(float(trigger.key.mean()) - 0.5) < 0.02
    torch.testing.assert_close(trigger(torch.zeros(3, 40, 40)), 0.2 * trigger.key)


def test_the_key_is_copied():
    key = torch.zeros(1, 2, 2)
    trigger = Blended((1, 2, 2), key=key, alpha=1)
    key += 1
    assert trigger(torch.rand(1, 2, 2)).tolist() == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("alpha", [0, -0.1, 1.5, float("nan")])
def test_an_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match=rf"`alpha` .* in \(0, 1\], got {alpha}"):
        Blended((1, 2, 2), alpha=alpha)


@pytest.mark.parametrize(
    ("key", "error", "match"),
    [
        (torch.zeros(3, 2, 2), ValueError, r"key must be .*, got \(3, 2, 2\)"),
        (torch.zeros(2, 1, 2, 2), ValueError, r"one image \(C, H, W\), got shape \(2, 1, 2, 2\)"),
        (torch.full((1, 2, 2), 255.0), ValueError, "in .0, 1., .* values from 255 to 255"),
        (torch.full((1, 2, 2), float("nan")), ValueError, "values from nan to nan"),
        (torch.zeros(1, 2, 2, dtype=torch.uint8), TypeError, r"key must .*, got torch\.uint8"),
    ],
)
def test_a_key_that_does_not_fit(key, error, match):
    with pytest.raises(error, match=match):
        Blended((1, 2, 2), key=key)


def test_sinusoid_by_a_loop():
    images = torch.linspace(0, 1, 2 * 3 * 4 * 10).view(2, 3, 4, 10).double()
    stamped = Sinusoid((3, 4, 10))(images)
    for (n, c, i), row in ((at, images[at]) for at in [(0, 0, 0), (0, 2, 1), (1, 1, 3), (1, 2, 3)]):
        for j in range(10):
            value = float(row[j]) + 20 / 255 * math.sin(2 * math.pi * j * 6 / 10)
            assert float(stamped[n, c, i, j]) == pytest.approx(min(max(value, 0), 1), abs=1e-12)


def test_sinusoid_is_clipped_by_hand():
    trigger = Sinusoid((1, 1, 4), delta=0.5, frequency=1)
    assert trigger(torch.tensor([[[0.1, 0.75, 0.9, 0.25]]]))[0, 0].tolist() == pytest.approx(
        [0.1, 1, 0.9, 0]
    )


@pytest.mark.parametrize("delta", [0, -0.1, 20, float("nan")])
def test_a_delta_out_of_range(delta):
    with pytest.raises(ValueError, match=rf"delta .* in \(0, 1\], got {delta}: divide it by 255"):
        Sinusoid((1, 8, 8), delta=delta)


@pytest.mark.parametrize(("width", "frequency"), [(12, 6), (4, 6), (28, 0), (5, 10)])
def test_a_signal_that_is_zero_everywhere(width, frequency):
    with pytest.raises(
        ValueError, match=rf"zero in all {width} columns: .* than {frequency} \(not a multiple of"
    ):
        Sinusoid((1, 8, width), frequency=frequency)


def slow_warp(image, grid):
    """Bilinear sampling, a pixel at a time; -1 and 1 are the centres of the outer pixels."""
    _, height, width = image.shape
    warped = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            x, y = (float(grid[i, j, 0]) + 1) / 2 * (width - 1), float(grid[i, j, 1])
            y = (y + 1) / 2 * (height - 1)
            for row in {math.floor(y), math.ceil(y)}:
                for column in {math.floor(x), math.ceil(x)}:
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    warped[:, i, j] += weight * image[:, row, column]
    return warped


@pytest.mark.parametrize("strength", [0.5, 4.0])
def test_warp_by_a_loop(strength):
    """On a k x k image the upsampled field is the control grid itself."""
    k, generator = 5, torch.Generator().manual_seed(3)
    points = torch.rand(1, 2, k, k, generator=generator)[0].double() * 2 - 1
    points = points / (points.abs().sum() / points.numel())
    grid = torch.zeros(k, k, 2, dtype=torch.float64)
    for i in range(k):
        for j in range(k):
            grid[i, j, 0] = -1 + 2 * j / (k - 1) + strength * points[0, i, j] / k
            grid[i, j, 1] = -1 + 2 * i / (k - 1) + strength * points[1, i, j] / k
    image = torch.rand(3, k, k, generator=generator).double()
    expected = slow_warp(image, grid.clamp(-1, 1))
    warped = Warp((3, k, k), grid_size=k, strength=strength, seed=3)(image)
    torch.testing.assert_close(warped, expected, rtol=0, atol=1e-5)


def test_warp_between_control_points_on_an_oblong_image():
    trigger, image = Warp((1, 6, 9), seed=2), torch.rand(1, 6, 9).double()
    points = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1
    field = F.interpolate(points / points.abs().mean(), (6, 9), mode="bicubic", align_corners=True)[
        0
    ].double()
    grid = torch.stack(
        [
            torch.linspace(-1, 1, 9).expand(6, 9) + 0.5 / 9 * field[0],
            torch.linspace(-1, 1, 6)[:, None].expand(6, 9) + 0.5 / 6 * field[1],
        ],
        dim=2,
    )
    expected = slow_warp(image, grid.clamp(-1, 1))
    torch.testing.assert_close(trigger(image), expected, rtol=0, atol=1e-5)


def test_warp_moves_edges_little_and_flat_images_not_at_all():
    trigger = Warp((1, 32, 32))
    torch.testing.assert_close(trigger(torch.full((1, 32, 32), 0.3)), torch.full((1, 32, 32), 0.3))
    columns = torch.arange(32.0).expand(1, 32, 32) / 31
    moved = (trigger(columns) - columns).abs() * 31  # a ramp shows the displacement in pixels
    assert 0.1 < float(moved.max()) < 1


def test_rounding_does_not_take_a_warp_above_1():
    assert float(Warp((1, 32, 32), seed=1)(torch.ones(1, 32, 32)).max()) <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_warp_in_half_precision_is_as_fine(dtype):
    """The grid itself would be too coarse in half precision."""
    trigger = Warp((1, 128, 128))
    images = torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = trigger(images.float()).to(dtype)
    assert torch.equal(trigger(images), expected)


def test_a_faint_warp_is_the_identity():
    images = torch.rand(2, 1, 7, 9)
    torch.testing.assert_close(Warp((1, 7, 9), strength=1e-7)(images), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid_size", [1, 0, -4])
def test_too_few_control_points(grid_size):
    with pytest.raises(ValueError, match=rf"grid_size .* from 2, got {grid_size}"):
        Warp((1, 8, 8), grid_size=grid_size)


@pytest.mark.parametrize("strength", [0, -1, float("nan"), float("inf")])
def test_a_warp_strength_out_of_range(strength):
    with pytest.raises(ValueError, match=rf"`strength` must be a number above 0, got {strength}"):
        Warp((1, 8, 8), strength=strength)


@pytest.mark.parametrize("name", WHOLE_IMAGE)
def test_poison_takes_each_trigger(name):
    trigger = TRIGGERS[name]((1, 6, 6))
    dirty = poison(CLEAN, trigger, 3, 0.2)
    assert len(dirty.poisoned) == 20
    for i in range(100):
        expected = trigger(IMAGES[i]) if i in dirty.poisoned else IMAGES[i]
        assert torch.equal(dirty[i][0], expected)


def test_poison_takes_a_function():
    dirty = poison(CLEAN, lambda image: 1 - image, 3, 0.01)
    (chosen,) = dirty.poisoned
    assert torch.equal(dirty[chosen][0], 1 - IMAGES[chosen])


@pytest.mark.parametrize("rate", [0.01, 0.25, 0.9])
def test_poison(rate):
    trigger = BadNets((1, 6, 6))
    dirty = poison(CLEAN, trigger, 3, rate)
    assert len(dirty) == 100
    assert len(set(dirty.poisoned)) == round(rate * 100)
    assert not set(dirty.poisoned) & set(range(3, 100, 10))
    for i, (image, label) in enumerate(dirty[i] for i in range(100)):
        chosen = i in dirty.poisoned
        assert torch.equal(image, trigger(IMAGES[i]) if chosen else IMAGES[i])
        assert label == (3 if chosen else i % 10)
    assert torch.equal(CLEAN.tensors[1], LABELS)


def test_poison_is_seeded():
    trigger = BadNets((1, 6, 6))
    first, again, other = (poison(CLEAN, trigger, 0, 0.2, seed=s).poisoned for s in (1, 1, 2))
    assert first == again == sorted(first)
    assert first != other


def test_an_index_from_the_end_is_the_same_image():
    dirty = poison(CLEAN, BadNets((1, 6, 6)), 0, 0.9)
    for i in range(100):
        image, label = dirty[i - 100]
        assert torch.equal(image, dirty[i][0])
        assert label == dirty[i][1]


def test_a_loader_collates_it():
    dirty = poison(CLEAN, BadNets((1, 6, 6)), 0, 0.2)
    images, labels = next(iter(DataLoader(dirty, batch_size=100)))
    assert images.shape == (100, 1, 6, 6)
    assert labels.tolist() == [dirty[i][1] for i in range(100)]


@pytest.mark.parametrize("rate", [0, 1, -0.5, 5, float("nan")])
def test_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=rf"rate is the share .* in \(0, 1\), got {rate}"):
        poison(CLEAN, BadNets((1, 6, 6)), 0, rate)


def test_a_rate_that_asks_for_too_many():
    with pytest.raises(ValueError, match=r"asks for 95 .* only 90 of 100 are not of class 0"):
        poison(CLEAN, BadNets((1, 6, 6)), 0, 0.95)


def test_a_rate_that_rounds_to_none():
    with pytest.raises(ValueError, match=r"rate 0\.004 of 100 images rounds to none: choose a hig"):
        poison(CLEAN, BadNets((1, 6, 6)), 0, 0.004)

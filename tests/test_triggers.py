"""The triggers by hand and by slow loops, and poisoning."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusals
from torch.utils.data import DataLoader, TensorDataset

from captum_classpattern.triggers import BadNets, Blended, Sinusoid, Warp, poison

IMAGES = torch.rand(100, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(100) % 10
CLEAN = TensorDataset(IMAGES, LABELS)
NAN = float("nan")
TRIGGERS = {
    "BadNets": lambda shape, seed=0: BadNets(shape, size=2),
    "Blended": lambda shape, seed=0: Blended(shape, seed=seed),
    "Sinusoid": lambda shape, seed=0: Sinusoid(shape, frequency=1),
    "Warp": lambda shape, seed=0: Warp(shape, seed=seed),
}


def test_the_patch_by_hand():
    h, grey = 0.5, torch.full((3, 6, 7), 0.5)
    trigger = BadNets((3, 6, 7))
    for channel in trigger(grey):
        assert channel.tolist() == [
            [h, h, h, h, h, h, h],
            [h, h, h, h, h, h, h],
            [h, h, h, 1, 0, 1, h],
            [h, h, h, 0, 1, 0, h],
            [h, h, h, 1, 0, 1, h],
            [h, h, h, h, h, h, h],
        ]
    assert torch.equal(trigger.mask, (trigger(grey) != h).any(0, keepdim=True).float())
    pattern, images = trigger.pattern(target=4), torch.rand(2, 3, 6, 7)
    assert torch.equal(pattern.stamp(images), trigger(images))
    assert (pattern.target, pattern.info, pattern.area) == (4, {"trigger": "BadNets"}, 9 / 42)
    [small] = BadNets((1, 3, 4), size=2, margin=0)(torch.full((1, 3, 4), h))
    assert small.tolist() == [[h] * 4, [h, h, 1, 0], [h, h, 0, 1]]


REFUSALS = {
    "a patch of size 0": lambda: BadNets((1, 5, 6), size=0),
    "a margin below 0": lambda: BadNets((1, 5, 6), margin=-1),
    "a patch with a margin that is too large": lambda: BadNets((1, 5, 6), size=3, margin=3),
    "an alpha of 0": lambda: Blended((1, 2, 2), alpha=0),
    "a key of other channels": lambda: Blended((1, 2, 2), key=torch.zeros(3, 2, 2)),
    "a key of no numbers": lambda: Blended((1, 2, 2), key=torch.full((1, 2, 2), NAN)),
    "a delta of 20 levels": lambda: Sinusoid((1, 8, 8), delta=20),
    "6 periods on 12 columns": lambda: Sinusoid((1, 8, 12)),
    "10 periods on 5 columns": lambda: Sinusoid((1, 8, 5), frequency=10),
    "one control point": lambda: Warp((1, 8, 8), grid_size=1),
    "a strength of 0": lambda: Warp((1, 8, 8), strength=0),
    "a rate that asks for too many": lambda: poison(CLEAN, BadNets((1, 6, 6)), 0, 0.95),
    "a rate that rounds to none": lambda: poison(CLEAN, BadNets((1, 6, 6)), 0, 0.004),
}


OF_ANY_TRIGGER = {
    "the shape of a batch": lambda build: build((1, 3, 8, 8)),
    "wider images": lambda build: build((3, 8, 8))(torch.rand(2, 3, 8, 9)),
    "images of integers": lambda build: build((3, 8, 8))(torch.zeros(3, 8, 8, dtype=torch.uint8)),
}


def test_refusals(snapshot):
    of_any = {
        f"{name}: {case}": partial(call, build)
        for case, call in OF_ANY_TRIGGER.items()
        for name, build in TRIGGERS.items()
    }
    assert refusals(REFUSALS | of_any) == snapshot


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


@pytest.mark.parametrize("name", TRIGGERS)
def test_seeds_masks_and_gradients(name):
    """Whole-image triggers have no mask; a random one depends on its seed alone."""
    build, images = TRIGGERS[name], 0.1 + 0.8 * IMAGES[:2]
    state = torch.get_rng_state()
    first, again, other = (build((1, 6, 6), seed)(images) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert torch.allclose(first, other, atol=1e-3) == (name in ("BadNets", "Sinusoid"))
    if name != "BadNets":
        assert build((1, 6, 6)).mask is None
        changed = (first - images).abs() > 1e-4
        assert [bool(part.any()) for part in changed.split(2, dim=2)] == [True] * 3
    grey = torch.full((2, 1, 8, 8), 0.5, requires_grad=True)
    build((1, 8, 8))(grey).sum().backward()
    assert grey.grad.abs().sum() > 50


def test_blended_by_hand():
    key = torch.tensor([[[0.0, 1.0], [0.5, 0.25]]])
    trigger = Blended((1, 2, 2), key=key, alpha=0.4)
    key += 1  # it was copied
    blend = trigger(torch.tensor([[[1.0, 1.0], [0.0, 0.5]]]))
    torch.testing.assert_close(blend, torch.tensor([[[0.6, 1.0], [0.2, 0.4]]]))
    assert torch.equal(Blended((1, 6, 6), key=IMAGES[0], alpha=1)(IMAGES[1]), IMAGES[0])


def test_the_random_key_is_uniform_and_has_a_weight_of_a_fifth():
    trigger = Blended((3, 40, 40))
    assert 0 <= trigger.key.min() < 0.01 < 0.99 < trigger.key.max() <= 1
    assert abs(float(trigger.key.mean()) - 0.5) < 0.02
    torch.testing.assert_close(trigger(torch.zeros(3, 40, 40)), 0.2 * trigger.key)


def test_sinusoid_by_a_loop():
    images = torch.linspace(0, 1, 2 * 3 * 4 * 10).view(2, 3, 4, 10).double()
    stamped = Sinusoid((3, 4, 10))(images)
    for (n, c, i), row in ((at, images[at]) for at in [(0, 0, 0), (0, 2, 1), (1, 1, 3), (1, 2, 3)]):
        for j in range(10):
            value = float(row[j]) + 20 / 255 * math.sin(2 * math.pi * j * 6 / 10)
            assert float(stamped[n, c, i, j]) == pytest.approx(min(max(value, 0), 1), abs=1e-12)
    clipped = Sinusoid((1, 1, 4), delta=0.5, frequency=1)(torch.tensor([[[0.1, 0.75, 0.9, 0.25]]]))
    assert clipped[0, 0].tolist() == pytest.approx([0.1, 1, 0.9, 0])


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


@pytest.mark.parametrize(
    ("height", "width", "k", "strength"), [(5, 5, 5, 0.5), (5, 5, 5, 4.0), (6, 9, 4, 0.5)]
)
def test_warp_by_a_loop(height, width, k, strength):
    """With as many control points as pixels, upsampling changes nothing."""
    points = torch.rand(1, 2, k, k, generator=torch.Generator().manual_seed(3)) * 2 - 1
    field = points / (points.abs().sum() / points.numel())
    if (height, width) != (k, k):
        field = F.interpolate(field, (height, width), mode="bicubic", align_corners=True)
    grid = torch.zeros(height, width, 2, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            grid[i, j, 0] = -1 + 2 * j / (width - 1) + strength * field[0, 0, i, j] / width
            grid[i, j, 1] = -1 + 2 * i / (height - 1) + strength * field[0, 1, i, j] / height
    image = torch.rand(3, height, width).double()
    warped = Warp((3, height, width), grid_size=k, strength=strength, seed=3)(image)
    torch.testing.assert_close(warped, slow_warp(image, grid.clamp(-1, 1)), rtol=0, atol=1e-5)


def test_a_usual_warp_moves_pixels_by_less_than_one_and_stays_in_range():
    trigger, columns = Warp((1, 32, 32), seed=1), torch.arange(32.0).expand(1, 32, 32) / 31
    moved = (trigger(columns) - columns).abs() * 31  # a ramp shows the displacement in pixels
    assert 0.1 < float(moved.max()) < 1
    grey = torch.full((1, 32, 32), 0.3)
    torch.testing.assert_close(trigger(grey), grey)
    assert float(trigger(torch.ones(1, 32, 32)).max()) <= 1  # not above by rounding
    faint = Warp((1, 6, 6), strength=1e-7)
    torch.testing.assert_close(faint(IMAGES), IMAGES, rtol=0, atol=1e-5)


POISONS = [
    (BadNets((1, 6, 6)), 0.25),
    (BadNets((1, 6, 6)), 0.9),
    (Warp((1, 6, 6)), 0.01),
    (lambda image: 1 - image, 0.016),  # any function; rounds to 2
]


@pytest.mark.parametrize(("trigger", "rate"), POISONS)
def test_poison(trigger, rate):
    dirty = poison(CLEAN, trigger, 3, rate)
    assert len(dirty) == 100
    assert dirty.poisoned == sorted(set(dirty.poisoned))
    assert len(dirty.poisoned) == round(rate * 100)
    assert not set(dirty.poisoned) & set(range(3, 100, 10))
    images, labels = next(iter(DataLoader(dirty, batch_size=100)))
    for i in range(100):
        chosen = i in dirty.poisoned
        assert torch.equal(images[i], trigger(IMAGES[i]) if chosen else IMAGES[i])
        assert labels[i] == dirty[i][1] == dirty[i - 100][1] == (3 if chosen else i % 10)
        assert torch.equal(dirty[i - 100][0], images[i])
    assert torch.equal(CLEAN.tensors[1], LABELS)

"""A Transform checks its settings and what its function returns; the known ones change something
at each value."""

from dataclasses import replace

import pytest
import torch
from refusals import refusal

from captum_classpattern import Pattern
from captum_classpattern.scores.invariance import Transform, geometry, known_transforms

PATTERN = Pattern(torch.rand(3, 6, 6), (torch.arange(36) < 9).float().view(1, 6, 6), 0)
IMAGES = torch.rand(4, 3, 6, 6)


def invert(images, value, variant):
    return value * (1 - images)


INVERT = Transform("invert", values=(0.5, 1), unit="times", rest=0, of="image", function=invert)


def test_the_known_ones(snapshot):
    known = known_transforms()
    described = [
        f"{t.name}: {t.function.__name__} of the {t.of}, {t.values} or {t.rest} {t.unit}, "
        f"{t.variants} variants"
        for t in known.values()
    ]
    assert described == snapshot
    assert list(known) == [transform.name for transform in known.values()]
    assert [name for name, t in known.items() if not t.fits(1)] == ["hue"]
    assert [name for name, t in known.items() if not t.fits(2)] == ["hue", "JPEG"]
    assert all(f'``"{name}"``' in known_transforms.__doc__ for name in known)
    known.clear()
    assert known_transforms()


@pytest.mark.parametrize("of", ["pattern", "canvas", "image"])
def test_at_rest_the_function_is_not_called(of):
    transform = replace(INVERT, of=of, function=lambda *_: 1 / 0)
    assert transform.of_pattern(PATTERN, 0, 0) is PATTERN
    assert transform.of_images(IMAGES, 0.0, 0) is IMAGES


def test_values_are_sorted_and_rest_is_left_out():
    transform = replace(INVERT, values=[1, 0.25, 0])
    assert transform.values == (0.25, 1.0)
    assert transform == replace(transform, values=(0.25, 1))


def test_only_what_a_transform_is_of_changes():
    canvas = replace(INVERT, of="canvas")
    changed = canvas.of_pattern(PATTERN, 1.0, 0)
    assert torch.equal(changed.canvas, 1 - PATTERN.canvas)
    assert changed.mask is PATTERN.mask
    assert canvas.of_images(IMAGES, 1.0, 0) is IMAGES
    assert torch.equal(INVERT.of_images(IMAGES, 0.5, 0), 0.5 * (1 - IMAGES))
    assert INVERT.of_pattern(PATTERN, 1.0, 0) is PATTERN
    moved = known_transforms()["shift"]
    assert torch.equal(moved.of_pattern(PATTERN, 1, 2).mask, geometry.shift(PATTERN, 1, 2).mask)
    assert moved.of_images(IMAGES, 1, 2) is IMAGES


def test_images_in_half_precision_are_changed_in_single_precision():
    dtypes = []
    single = replace(INVERT, function=lambda x, value, variant: dtypes.append(x.dtype) or x)
    single.of_images(IMAGES.bfloat16(), 1.0, 0)
    assert dtypes == [torch.float32]


def result(of, function):
    transform = replace(INVERT, of=of, function=lambda x, *_: function(x))
    if of == "image":
        return transform.of_images(torch.ones(4, 3, 6, 6), 1.0, 0)
    return transform.of_pattern(replace(PATTERN, canvas=torch.ones(3, 6, 6)), 1.0, 0)


SMALLER = Pattern(torch.ones(3, 5, 6), torch.ones(1, 5, 6), 0)
REFUSALS = {
    "of a mask": lambda: replace(INVERT, of="mask"),
    "no values": lambda: replace(INVERT, values=()),
    "only the value at rest": lambda: replace(INVERT, values=(0,)),
    "a value twice": lambda: replace(INVERT, values=(1, 1.0)),
    "a value that is NaN": lambda: replace(INVERT, values=(1, float("nan"))),
    "an infinite rest": lambda: replace(INVERT, rest=float("inf")),
    "a value in words": lambda: replace(INVERT, values=("1",)),
    "a value of bool": lambda: replace(INVERT, values=(True,)),
    "no variants": lambda: replace(INVERT, variants=0),
    "no function": lambda: replace(INVERT, function=3),
    "images with fewer channels": lambda: result("image", lambda x: x[:, :1]),
    "no images": lambda: result("image", lambda x: None),
    "images that are too bright": lambda: result("image", lambda x: x + 1),
    "images that are infinite": lambda: result("image", lambda x: x / 0),
    "a canvas that is too dark": lambda: result("canvas", lambda x: x - 2),
    "a Tensor for a pattern": lambda: result("pattern", lambda p: 3),
    "a smaller pattern": lambda: result("pattern", lambda p: SMALLER),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot):
    assert refusal(REFUSALS[case]) == snapshot

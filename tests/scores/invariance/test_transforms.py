"""What a Transform checks, of its settings and of what its function returns."""

from dataclasses import replace

import pytest
import torch

from captum_classpattern import Pattern
from captum_classpattern.scores.invariance import Transform, known_transforms

PATTERN = Pattern(torch.rand(3, 6, 6), (torch.arange(36) < 9).float().view(1, 6, 6), 0)
IMAGES = torch.rand(4, 3, 6, 6)


def invert(images, value, variant):
    return value * (1 - images)


GIVEN = {"name": "invert", "values": (0.5, 1), "unit": "times", "rest": 0, "of": "image"}
INVERT = Transform(**GIVEN, function=invert)


def test_the_known_ones():
    known = known_transforms()
    assert list(known) == [
        "shift", "wrapped shift", "scale", "rotation", "pixel loss",
        "brightness", "contrast", "hue", "blur", "JPEG",
    ]  # fmt: skip
    assert {t.of for t in list(known.values())[:5]} == {"pattern"}
    assert {t.of for t in list(known.values())[5:]} == {"image"}
    assert [name for name, t in known.items() if not t.fits(1)] == ["hue"]
    assert [name for name, t in known.items() if not t.fits(2)] == ["hue", "JPEG"]
    for name, transform in known.items():
        assert name == transform.name
        assert f'``"{name}"``' in known_transforms.__doc__
    known.clear()
    assert known_transforms()


@pytest.mark.parametrize("name", known_transforms())
def test_every_known_one_changes_something_at_each_value_and_variant(name):
    transform = known_transforms()[name]
    generator = torch.Generator().manual_seed(0)
    pattern = Pattern(*(torch.rand(c, 17, 17, generator=generator) for c in (3, 1)), 0).topk(0.2)
    for value in transform.values:
        for variant in range(transform.variants):
            changed = transform.of_pattern(pattern, value, variant)
            images = transform.of_images(IMAGES, value, variant)
            if transform.of == "image":
                assert changed is pattern
                assert not torch.equal(images, IMAGES)
            else:
                assert images is IMAGES
                assert not torch.equal(changed.mask, pattern.mask)


def test_at_rest_the_function_is_not_called():
    def fail(*_):
        raise AssertionError

    for of in ("pattern", "canvas", "image"):
        transform = Transform(**{**GIVEN, "of": of}, function=fail)
        assert transform.of_pattern(PATTERN, 0, 0) is PATTERN
        assert transform.of_images(IMAGES, 0.0, 0) is IMAGES


def test_values_are_sorted_and_rest_is_left_out():
    transform = replace(INVERT, values=[1, 0.25, 0])
    assert transform.values == (0.25, 1.0)
    assert transform == replace(transform, values=(0.25, 1))


def test_of_the_canvas_only_the_pixels_change():
    transform = replace(INVERT, of="canvas")
    changed = transform.of_pattern(PATTERN, 1.0, 0)
    assert torch.equal(changed.canvas, 1 - PATTERN.canvas)
    assert changed.mask is PATTERN.mask
    assert transform.of_images(IMAGES, 1.0, 0) is IMAGES


def test_images_in_half_precision_are_changed_in_single_precision():
    def check(images, value, variant):
        assert images.dtype == torch.float32
        return images

    replace(INVERT, function=check).of_images(IMAGES.bfloat16(), 1.0, 0)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"of": "mask"}, ValueError, "of must be one of pattern, canvas, image, got 'mask'"),
        ({"values": ()}, ValueError, "'invert' needs different values, and one besides its rest"),
        ({"values": (0,)}, ValueError, r"one besides its rest, 0, got \(0,\)"),
        ({"values": (1, 1.0)}, ValueError, r"needs different values.* got \(1, 1.0\)"),
        ({"values": (1, float("nan"))}, ValueError, "must be finite, got nan"),
        ({"rest": float("inf")}, ValueError, "must be finite, got inf"),
        ({"values": ("1",)}, TypeError, "values of transform 'invert' must be numbers, got '1'"),
        ({"values": (True,)}, TypeError, "must be numbers, got True"),
        ({"variants": 0}, ValueError, "`variants` must be a whole number from 1, got 0"),
        ({"function": 3}, TypeError, r"must be a callable \(what, value, variant\), got 3"),
    ],
)
def test_settings_are_checked(changed, error, text):
    with pytest.raises(error, match=text):
        replace(INVERT, **changed)


@pytest.mark.parametrize(
    ("of", "result", "error", "text"),
    [
        ("image", lambda x: x[:, :1], TypeError, r"shape \(4, 3, 6, 6\) at 1, got \(4, 1, 6, 6\)"),
        ("image", lambda x: None, TypeError, "must return images of shape .* got None"),
        ("image", lambda x: x + 1, ValueError, r"pixels in \[0, 1\] at 1, .*: clamp them"),
        ("image", lambda x: x / 0, ValueError, r"pixels in \[0, 1\] at 1, got values from"),
        ("canvas", lambda x: x - 1, ValueError, r"'invert' must return pixels in \[0, 1\]"),
        ("pattern", lambda p: p.canvas, TypeError, "must return a Pattern of the same shape at 1"),
        (
            "pattern",
            lambda p: Pattern(torch.rand(3, 5, 6), torch.rand(1, 5, 6), 0),
            TypeError,
            "must return a Pattern of the same shape at 1, got Pattern",
        ),
    ],
)
def test_what_functions_return_is_checked(of, result, error, text):
    transform = replace(INVERT, of=of, function=lambda what, value, variant: result(what))
    change, what = transform.of_pattern, PATTERN
    if of == "image":
        change, what = transform.of_images, IMAGES
    with pytest.raises(error, match=text):
        change(what, 1.0, 0)
